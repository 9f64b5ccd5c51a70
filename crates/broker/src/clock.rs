//! The broker's clock.

use std::time::Duration;

use jiff::Timestamp;
use pool::Moment;

/// Now.
pub(crate) fn now() -> Moment {
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
