//! The signals that ask this program for an end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM and SIGHUP, which no longer end the process by themselves.
pub(crate) struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl EndSignals {
    /// Takes them in from now on.
    ///
    /// # Errors
    /// If the system does not let them be taken in.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next one. Dropping this before it is done loses none.
    pub(crate) async fn next(&mut self) -> SignalKind {
        // All branches are cancel-safe (tokio says so of `recv`).
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hang_up.recv() => SignalKind::hangup(),
        }
    }
}

/// The exit code of a program that a signal of this kind has ended, as shells have it.
pub(crate) fn exit_code(kind: SignalKind) -> u8 {
    u8::try_from(128 + kind.as_raw_value()).unwrap_or(u8::MAX)
}
