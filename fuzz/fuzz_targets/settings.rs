//! Any text as a settings file: it is accepted or refused with a reason, and what was accepted is accepted again as shown.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;
use std::{env, fs, process};

use libfuzzer_sys::fuzz_target;
use settings::{Settings, SettingsError, Sources};

/// One for each process: fuzzers may run side by side.
static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| env::temp_dir().join(format!("settings-{}.yaml", process::id())));

fuzz_target!(|text: &[u8]| {
    match load(text) {
        Ok(settings) => {
            let shown = settings::to_yaml(&settings);
            match load(shown.as_bytes()) {
                Ok(again) => assert_eq!(again, settings, "shown as\n{shown}"),
                Err(error) => panic!("{error}\nshown as\n{shown}"),
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            // YAML takes a lone carriage return for the end of a line too.
            let lines = 1 + text.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
            assert!(error.line().is_none_or(|line| (1..=lines).contains(&line)), "{error}");
            drop((error.hint(), error.details()));
        }
    }
});

fn load(text: &[u8]) -> Result<Settings, SettingsError> {
    fs::write(&*FILE, text).expect("a temporary file can be written");
    let sources = Sources { explicit: Some(FILE.clone()), ..Sources::default() };
    settings::load(&sources).map(|loaded| loaded.settings)
}
