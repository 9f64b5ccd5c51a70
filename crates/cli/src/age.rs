//! Times as people read them.

use jiff::Timestamp;

/// How long ago `since` (RFC 3339) was, in its largest unit: `3m`. What is no time is given back as it is.
pub(crate) fn age(since: &str, now: Timestamp) -> String {
    let Ok(since) = since.parse::<Timestamp>() else { return since.to_owned() };
    // A clock that was set back makes nothing younger than new.
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_unit_is_shown() {
        let now = "2026-11-23T09:00:00Z".parse().unwrap();
        let shown = |since: &str| age(since, now);
        assert_eq!(shown("2026-11-23T08:59:59.9Z"), "0s");
        assert_eq!(shown("2026-11-23T08:59:01Z"), "59s");
        assert_eq!(shown("2026-11-23T08:01:00Z"), "59m");
        assert_eq!(shown("2026-11-21T09:00:01Z"), "47h");
        assert_eq!(shown("2026-11-20T09:00:00Z"), "3d");
        assert_eq!(shown("2026-11-23T09:05:00Z"), "0s");
        assert_eq!(shown("long ago"), "long ago");
    }
}
