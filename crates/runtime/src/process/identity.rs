//! Which process a pid means: the pid together with its start time and the boot in which both were seen.
//!
//! A pid alone says little: the kernel hands the number out again. With the start time it is one process for as long as
//! the host is up, and with the boot it is that process for good.

use std::io;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::table;

/// One process of this host, never confused with a later one of the same pid.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Identity {
    pub(super) pid: u32,
    /// As the host tells it: clock ticks since boot on Linux, a date elsewhere. Only compared.
    pub(super) start_time: String,
    pub(super) boot_id: String,
}

impl Identity {
    /// The process that has this pid now; none if no process has, or if it is dead and only waits to be reaped.
    ///
    /// # Errors
    /// If the host does not tell.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        let process = table::process(pid)?.filter(|process| !process.dead);
        process
            .map(|process| Ok(Self { pid, start_time: process.start_time, boot_id: table::boot_id()? }))
            .transpose()
    }

    /// The child of that pid, be it dead: for one that was not waited for yet, so that the pid is still its own.
    ///
    /// # Errors
    /// If the host does not tell, or if there is no such process after all.
    pub fn of_child(pid: u32) -> io::Result<Self> {
        let process = table::process(pid)?;
        let process = process.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Self { pid, start_time: process.start_time, boot_id: table::boot_id()? })
    }

    /// The process of which someone else told these parts. Whether there is one is not looked at.
    pub fn from_parts(pid: u32, start_time: &str, boot_id: &str) -> Self {
        Self { pid, start_time: start_time.to_owned(), boot_id: boot_id.to_owned() }
    }

    /// The calling process.
    ///
    /// # Errors
    /// If the host does not tell.
    pub fn current() -> io::Result<Self> {
        let this = Self::of(std::process::id())?;
        this.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host does not list this process"))
    }

    /// Its pid, which may mean another process by now.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When it was started, as the host tells it: clock ticks since boot on Linux, a date elsewhere. To be compared alone.
    pub fn start_time(&self) -> &str {
        &self.start_time
    }

    /// In which boot of the host it was seen.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Whether this very process is still there.
    ///
    /// # Errors
    /// If the host does not tell.
    pub fn is_alive(&self) -> io::Result<bool> {
        Ok(Self::of(self.pid)?.is_some_and(|now| now == *self))
    }

    /// Sends it a signal, and never to another process of the same pid. Says whether it was there to get it.
    ///
    /// # Errors
    /// If it may not be signalled, or the host does not tell.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = self.raw_pid() else { return Ok(false) };
        match signal_verified(self, pid, signal) {
            Ok(sent) => Ok(sent),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn raw_pid(&self) -> Option<Pid> {
        i32::try_from(self.pid).ok().and_then(Pid::from_raw)
    }
}

#[cfg(target_os = "linux")]
fn signal_verified(identity: &Identity, pid: Pid, signal: Signal) -> io::Result<bool> {
    use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

    // The descriptor pins whichever process has the pid; only then is it compared, so that no reuse can come between.
    let pinned = pidfd_open(pid, PidfdFlags::empty())?;
    if !identity.is_alive()? {
        return Ok(false);
    }
    pidfd_send_signal(&pinned, signal)?;
    Ok(true)
}

#[cfg(not(target_os = "linux"))]
fn signal_verified(identity: &Identity, pid: Pid, signal: Signal) -> io::Result<bool> {
    if !identity.is_alive()? {
        return Ok(false);
    }
    rustix::process::kill_process(pid, signal)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L15: a number alone may be another process by now.
    #[test]
    fn this_process_is_itself_and_not_one_that_started_at_another_time_or_boot() {
        let this = Identity::current().unwrap();
        assert!(this.is_alive().unwrap());
        let other = [
            Identity { start_time: "1".into(), ..this.clone() },
            Identity { boot_id: "another".into(), ..this.clone() },
            Identity { pid: 0, ..this.clone() },
            Identity { pid: u32::MAX, ..this },
        ];
        for identity in other {
            assert!(!identity.is_alive().unwrap(), "{identity:?}");
            // Were the pid all that counts, this would end the test.
            assert!(!identity.signal(Signal::KILL).unwrap(), "{identity:?}");
        }
    }

    #[test]
    fn a_process_that_was_not_reaped_yet_is_not_alive() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap().unwrap();
        assert!(identity.signal(Signal::KILL).unwrap());
        while identity.is_alive().unwrap() {
            std::thread::yield_now();
        }
        assert_eq!(Identity::of_child(child.id()).unwrap(), identity);
        child.wait().unwrap();
        assert!(!identity.signal(Signal::KILL).unwrap());
    }
}
