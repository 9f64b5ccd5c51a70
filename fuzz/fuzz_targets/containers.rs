//! What Docker and Podman say of containers: a listing, or an inspection. What is not understood must be told, and is never an end.

#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::fuzzing::{containers, inspection};
use runtime::{Observed, ObservedState};
use serde_json::Value;

/// The words for what has ended, or is being taken down (Podman's is the last).
const ENDED: [&str; 4] = ["exited", "dead", "removing", "stopped"];

fuzz_target!(|text: &str| {
    let Ok(answer) = serde_json::from_str::<Value>(text) else { return };
    if let Some(listed) = containers(answer.clone()) {
        let told = answer.as_array().map_or(0, Vec::len);
        assert_eq!(listed.len(), told, "one that is not understood is not passed over");
        for observed in listed.iter().flatten() {
            assert!(matches!(observed.state, ObservedState::Running { .. }), "{observed:?}");
            check(observed);
        }
    }
    let word = answer.pointer("/State/Status").and_then(Value::as_str).unwrap_or_default().to_owned();
    let runs = answer.pointer("/State/Running").and_then(Value::as_bool).unwrap_or(true);
    if let Some(observed) = inspection(answer) {
        if matches!(observed.state, ObservedState::Exited { .. }) {
            assert!(ENDED.contains(&word.as_str()) || word.is_empty() && !runs, "{word:?} is no end");
        }
        check(&observed);
    }
});

/// What does not run holds no port, and port 0 is none.
fn check(observed: &Observed) {
    let is_running = matches!(observed.state, ObservedState::Running { .. });
    assert!(is_running || observed.published.is_empty(), "{observed:?}");
    assert!(observed.published.iter().all(|publish| publish.host > 0), "{observed:?}");
}
