//! A child in the foreground: waiting for it, while signals are passed on.
//!
//! The child stays in the process group of its caller. So what the terminal itself sends to whoever is in the foreground (Ctrl-C, Ctrl-\,
//! Ctrl-Z) reaches it without our doing, stopping and continuing are the shell's business as ever, and in a script or a background job
//! nothing is different from the command alone. What is sent to this process is passed on, but not what the terminal sent to both: two
//! interrupts mean something else than one.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use runtime::process::Identity;
use rustix::process::Signal;
use rustix::termios::tcgetpgrp;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// The signals that are passed on, and whether a terminal sends them.
const PASSED_ON: [(Signal, bool); 6] = [
    (Signal::INT, true),
    (Signal::QUIT, true),
    (Signal::TERM, false),
    (Signal::HUP, false),
    (Signal::USR1, false),
    (Signal::USR2, false),
];

/// The signals that come in for a child, also before it is there.
pub(crate) struct Signals(mpsc::Receiver<(Signal, bool)>);

impl Signals {
    /// Takes the signals in from now on. Call it before the child is started, so that none ends this process in its place. Those that
    /// are ignored stay so, as `nohup` wants it, and are by the child.
    ///
    /// # Errors
    /// If the system does not let them be taken in.
    pub(crate) fn listen() -> io::Result<Self> {
        // A task for each kind of signal sends, who waits receives and ends them by being dropped; a person or a script sends few.
        let (sender, signals) = mpsc::channel(PASSED_ON.len());
        let ignored = ignored();
        for (kind, by_terminal) in PASSED_ON {
            if ignored & (1 << (kind.as_raw() - 1)) != 0 {
                continue;
            }
            let mut incoming = signal(SignalKind::from_raw(kind.as_raw()))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while incoming.recv().await.is_some() && sender.send((kind, by_terminal)).await.is_ok() {}
            });
        }
        Ok(Self(signals))
    }

    /// Waits until the child has ended, and gives its exit code as shells have it.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub(crate) async fn pass_on(mut self, child: &mut Child, identity: Option<&Identity>) -> io::Result<u8> {
        let mut ended = std::pin::pin!(child.wait());
        loop {
            // Both branches are cancel-safe: the waiting is pinned outside, and tokio says so of `recv`.
            tokio::select! {
                status = &mut ended => return Ok(exit_code(status?)),
                Some((kind, by_terminal)) = self.0.recv() => {
                    if !(by_terminal && is_in_foreground())
                        && let Some(child) = identity
                        && let Err(error) = child.signal(kind)
                    {
                        tracing::debug!(%error, "a signal did not reach the command");
                    }
                }
            }
        }
    }
}

/// The signals that this process ignores, a bit each (proc_pid_status(5)); none where the host does not tell.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

/// Whether the terminal, if there is one, sends its signals to this process and its child.
fn is_in_foreground() -> bool {
    let group = File::open("/dev/tty").ok().and_then(|terminal| tcgetpgrp(terminal).ok());
    group.is_some_and(|group| group == rustix::process::getpgrp())
}

/// The code of an exit, 128 + n for signal n.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_a_shell() {
        assert_eq!([0, 7 << 8, 9, 15].map(|raw| exit_code(ExitStatus::from_raw(raw))), [0, 7, 137, 143]);
    }
}
