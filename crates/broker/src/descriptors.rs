//! How the file descriptors that this process may have are shared out: first what the broker cannot do without (the ledger, the
//! runtimes, the Unix socket, logs that are followed), then the guards of the pool, then connections to `listen`.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is left for everything that is not shared out here, connections at their fewest included.
const RESERVED: u64 = 1024;
/// How many connections to `listen` there may be at the fewest, if there are [`RESERVED`] descriptors, and at the most. One that is
/// passed on to an agent takes two descriptors.
const CONNECTIONS: (u64, u64) = (256, 4096);

/// The shares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Descriptors {
    /// How many ports can be guarded.
    pub(crate) guards: usize,
    /// How many connections to `listen` there can be at once.
    pub(crate) connections: usize,
}

impl Descriptors {
    /// The shares where the pool has `size` ports to be guarded. The limit of this process (getrlimit(2)) is raised as far as that is
    /// allowed and there is use for it.
    pub(crate) fn shared_out(size: usize) -> Self {
        let wanted = size as u64 + RESERVED + 2 * (CONNECTIONS.1 - CONNECTIONS.0);
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current.is_some_and(|current| current < wanted) {
            let raised = Rlimit { current: Some(limit.maximum.map_or(wanted, |it| it.min(wanted))), ..limit };
            match setrlimit(Resource::Nofile, raised) {
                Ok(()) => limit = raised,
                Err(error) => tracing::debug!(%error, "the limit of file descriptors cannot be raised"),
            }
        }
        Self::of(limit.current.unwrap_or(u64::MAX), size)
    }

    fn of(limit: u64, size: usize) -> Self {
        let beyond = limit.saturating_sub(RESERVED);
        let guards = beyond.min(size as u64);
        let fewest = CONNECTIONS.0 * limit.min(RESERVED) / RESERVED;
        let connections = (fewest + (beyond - guards) / 2).clamp(1, CONNECTIONS.1);
        let counted = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        Self { guards: counted(guards), connections: counted(connections) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_shared_out() {
        let check = |limit, size| {
            let Descriptors { guards, connections } = Descriptors::of(limit, size);
            (guards, connections)
        };
        assert_eq!(check(u64::MAX, 1001), (1001, 4096));
        assert_eq!(check(1024, 1001), (0, 256));
        assert_eq!(check(1524, 1001), (500, 256), "guards first");
        assert_eq!(check(3025, 1001), (1001, 756));
        assert_eq!(check(256, 1001), (0, 64));
        assert_eq!(check(2, 1001), (0, 1));
    }
}
