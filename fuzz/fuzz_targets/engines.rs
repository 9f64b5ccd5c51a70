//! What engines say: a refusal of Docker or Podman, after its HTTP status if the text begins with one; and a listing of Apple's
//! `container`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::fuzzing::{listing, refusal};
use runtime::{ErrorKind, ObservedState};

fuzz_target!(|text: &str| {
    check_refusal(text);
    for observed in listing(text).unwrap_or_default() {
        assert_eq!(observed.id, observed.name);
        // What does not run holds no port.
        let is_running = matches!(observed.state, ObservedState::Running { .. });
        assert!(is_running || observed.published.is_empty(), "{observed:?}");
    }
});

fn check_refusal(text: &str) {
    let status = text.split_at_checked(3).and_then(|(status, rest)| Some((status.parse().ok()?, rest)));
    let (status, message) = match status {
        Some((status, rest)) => (Some(status), rest),
        None => (None, text),
    };
    let (kind, sentence) = refusal(status, message);
    assert!(!sentence.is_empty());
    if let ErrorKind::PortRefused { port: Some(port) } = kind {
        assert!(port > 0);
        assert!(message.contains(&port.to_string()), "{port} is not in {message:?}");
    }
}
