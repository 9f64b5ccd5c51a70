//! Why a lease ended, in a few words for the history.

use crate::leases::Ending;
use crate::model::{AgentRecord, Stage};

/// The longest reason, in characters: an engine's words may be a page.
const LONGEST: usize = 200;

/// That an agent was started anew, and its former lease made way for the new one.
pub(crate) const STARTED_ANEW: &str = "started anew";
/// That the owner of a bare lease took another one in its place.
pub(crate) const REPLACED: &str = "replaced by a lease of another number of ports";
/// That the owner of a bare lease gave it back.
pub(crate) const RELEASED: &str = "released";
/// That it was taken back from its owner.
pub(crate) const RELEASED_BY_FORCE: &str = "released by force";
/// That the process ended for which it was granted.
pub(crate) const PROCESS_ENDED: &str = "its process ended";

/// Why the lease of an agent ended.
pub(crate) fn of(record: &AgentRecord, ending: &Ending) -> String {
    let mut text = match (record.stage, record.exit_code) {
        (Stage::Exited, Some(code)) => format!("exited with code {code}"),
        (Stage::Exited, None) => "exited".to_owned(),
        (Stage::Failed, _) => "did not start".to_owned(),
        _ => "stopped".to_owned(),
    };
    if matches!(ending, Ending::Forget) {
        text.push_str(" and was forgotten");
    }
    if let Some(reason) = record.reason.as_deref().and_then(|reason| reason.lines().next()) {
        text.push_str(&format!(": {reason}"));
    }
    text.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stage: Stage, code: Option<i64>, reason: Option<&str>, ending: &Ending, expected: &str) {
        let mut record = AgentRecord::new("default/dev".parse().unwrap(), "docker".to_owned());
        (record.stage, record.exit_code, record.reason) = (stage, code, reason.map(str::to_owned));
        assert_eq!(of(&record, ending), expected);
    }

    #[test]
    fn a_few_words() {
        check(Stage::Stopped, Some(143), None, &Ending::Remember, "stopped");
        check(Stage::Stopped, None, None, &Ending::Forget, "stopped and was forgotten");
        check(Stage::Exited, Some(2), None, &Ending::Remember, "exited with code 2");
        let removed = "it was removed from docker by someone else";
        let expected = format!("exited: {removed}");
        check(Stage::Exited, None, Some(removed), &Ending::Remember, &expected);
        let refused = Some("no such image\nand a page more");
        check(Stage::Failed, None, refused, &Ending::Remember, "did not start: no such image");
    }
}
