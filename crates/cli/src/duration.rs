//! Durations as they are typed: `30s`, `1m30s`, or a number of seconds.

use std::time::Duration;

use jiff::SignedDuration;

/// Takes `text` as a duration; for clap.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let spelled = text.parse::<u64>().map_or_else(|_| text.to_owned(), |seconds| format!("{seconds}s"));
    let duration =
        spelled.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    duration.ok_or_else(|| "a duration is written like 30s, 1m30s or 500ms".to_owned())
}

/// The duration in milliseconds, as the API has it.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed() {
        let shown = |text| parse(text).map(milliseconds);
        assert_eq!(shown("30s"), Ok(30_000));
        assert_eq!(shown("1m30s"), Ok(90_000));
        assert_eq!(shown("500ms"), Ok(500));
        assert_eq!(shown("10"), Ok(10_000));
        assert_eq!(shown("0"), Ok(0));
        for wrong in ["", "-5s", "soon", "5 parsecs"] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
    }
}
