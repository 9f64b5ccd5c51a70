//! How long the engine may take. Whatever is not a stream has such a limit; beyond it the engine is unreachable.

use std::time::Duration;

/// For a question that the engine answers from what it knows.
pub(super) const ANSWER: Duration = Duration::from_secs(30);

/// For the question whether it is there at all.
pub(super) const GREETING: Duration = Duration::from_secs(10);

/// For what has the engine make or unmake something, on a slow disk and with others waiting.
pub(super) const WORK: Duration = Duration::from_secs(120);

/// For silence in the middle of a pull: a large layer is unpacked without a word.
pub(super) const SILENCE: Duration = Duration::from_secs(600);
