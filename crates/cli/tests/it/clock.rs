//! A wall clock for brokers.

use std::fs;
use std::path::PathBuf;

use crate::support::*;

/// The wall clock of brokers, which can be set: that of the host is not theirs then (faketime(1)).
pub(crate) struct Clock {
    library: PathBuf,
    offset: tempfile::NamedTempFile,
}

impl Clock {
    /// If the library for it is here. Where it is required, it must be.
    pub(crate) fn find() -> Option<Self> {
        let directories = fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
        let mut libraries = directories.map(|it| it.path().join("faketime/libfaketimeMT.so.1"));
        let library = libraries.find(|path| path.exists());
        assert!(library.is_some() || !is_required("faketime"), "libfaketime is required and is not here");
        let clock = Self { library: library?, offset: tempfile::NamedTempFile::new().unwrap() };
        clock.set(0);
        Some(clock)
    }

    /// Has it show `seconds` more than the host's.
    pub(crate) fn set(&self, seconds: i64) {
        fs::write(self.offset.path(), format!("{seconds:+}\n")).unwrap();
    }

    /// With these a broker has this clock.
    pub(crate) fn variables(&self) -> [(&str, &str); 4] {
        [
            ("LD_PRELOAD", self.library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", self.offset.path().to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }
}
