//! The broker's clock.

use jiff::Timestamp;
use pool::Moment;

/// Now.
pub(crate) fn now() -> Moment {
    Moment(Timestamp::now().as_millisecond())
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
