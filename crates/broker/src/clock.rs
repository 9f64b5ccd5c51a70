//! The broker's clock.

use std::time::Duration;

use jiff::Timestamp;
use pool::Moment;

/// Now.
pub(crate) fn now() -> Moment {
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return now;
    }
    Moment(Timestamp::now().as_millisecond())
}

/// How long ago a moment is that was written down, perhaps by an earlier process. One that is yet to come was written by a clock
/// that has been set back since: nothing is known of its age, and nothing may wait for it, so it counts as old.
pub(crate) fn age(moment: Moment) -> Duration {
    u64::try_from(now().0.saturating_sub(moment.0)).map_or(Duration::MAX, Duration::from_millis)
}

/// A moment as the wire has it (RFC 3339, in UTC, whole seconds).
pub(crate) fn shown(moment: Moment) -> String {
    Timestamp::from_second(moment.0.div_euclid(1000))
        .map_or_else(|_| moment.0.to_string(), |at| at.to_string())
}

/// A runtime's time as a moment.
pub(crate) fn moment(at: Timestamp) -> Moment {
    Moment(at.as_millisecond())
}

/// A clock that goes with the time of a test, see `simulation`.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::Cell;

    use pool::Moment;
    use tokio::time::Instant;

    thread_local! {
        static SET: Cell<Option<(Instant, i64)>> = const { Cell::new(None) };
    }

    /// Has this thread's clock show `milliseconds` now, and go on from there with the time of tokio's runtime.
    pub(crate) fn set(milliseconds: i64) {
        SET.set(Some((Instant::now(), milliseconds)));
    }

    /// What the clock shows, if it was set.
    pub(super) fn now() -> Option<Moment> {
        let (at, milliseconds) = SET.get()?;
        let since = i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX);
        Some(Moment(milliseconds.saturating_add(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_yet_to_come_is_old() {
        let ago = |milliseconds: i64| age(Moment(now().0 - milliseconds));
        assert!((Duration::from_secs(5)..Duration::from_secs(60)).contains(&ago(5_000)));
        assert_eq!(ago(-60_000), Duration::MAX);
    }
}
