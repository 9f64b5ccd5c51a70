//! How an agent, or a lease, is shown, wherever it is shown.

use std::collections::BTreeMap;

use api::{Agent, AgentState, Label};
use jiff::Timestamp;
use owo_colors::AnsiColors;

use crate::age::age;
use crate::names;
use crate::output::Output;

/// Its name, as one would type it.
pub(crate) fn name(agent: &Agent) -> String {
    names::shown(&agent.project, &agent.name)
}

/// Its state in a word, with the exit code if it has ended with one other than 0.
pub(crate) fn state(agent: &Agent) -> String {
    match (agent.state, agent.exit_code) {
        (AgentState::Exited | AgentState::Failed, Some(code)) if code != 0 => {
            format!("{} ({code})", agent.state.as_str())
        }
        (state, _) => state.as_str().to_owned(),
    }
}

/// The same, with a question mark where it may be another by now.
pub(crate) fn supposed_state(agent: &Agent) -> String {
    format!("{}{}", state(agent), if agent.doubt.is_some() { "?" } else { "" })
}

/// The colour of its state.
pub(crate) fn color(agent: &Agent) -> Option<AnsiColors> {
    match agent.state {
        AgentState::Running => Some(AnsiColors::Green),
        AgentState::Starting | AgentState::Stopping => Some(AnsiColors::Yellow),
        AgentState::Failed => Some(AnsiColors::Red),
        AgentState::Exited if agent.exit_code.is_some_and(|code| code != 0) => Some(AnsiColors::Red),
        AgentState::Stopped | AgentState::Exited => None,
    }
}

/// Since when it is in its state, as an age.
pub(crate) fn since(agent: &Agent, now: Timestamp) -> Option<String> {
    let ended = matches!(agent.state, AgentState::Stopped | AgentState::Exited | AgentState::Failed);
    let moment = if ended { agent.ended_at.as_ref() } else { agent.started_at.as_ref() };
    moment.map(|moment| age(moment, now))
}

/// Its ports with their URLs, a line each.
pub(crate) fn port_lines(agent: &Agent) -> Vec<String> {
    labelled(&agent.ports, &agent.urls)
}

/// Ports with their URLs, a line each.
pub(crate) fn labelled(ports: &BTreeMap<Label, u16>, urls: &BTreeMap<Label, String>) -> Vec<String> {
    let width = ports.keys().map(|label| label.0.len()).max().unwrap_or(0);
    let lines = ports.iter().map(|(label, port)| match urls.get(label) {
        Some(url) => format!("{label:<width$}  {port:<5}  {url}"),
        None => format!("{label:<width$}  {port}"),
    });
    lines.collect()
}

/// A command in one line, quoted where a shell would need it.
pub(crate) fn command(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_./:=,@%+".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    if word.chars().any(char::is_control) {
        // The form of shells for what cannot be shown: it keeps a line one line.
        return format!("$'{}'", word.escape_debug().to_string().replace("\\\"", "\""));
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Says what the agent's start or stop had to warn of.
pub(crate) fn warn(agent: &Agent, output: &Output) {
    for warning in &agent.warnings {
        output.warn(&format!("{}: {warning}", name(agent)));
    }
}

#[cfg(test)]
pub(crate) mod samples {
    //! Agents and leases to be shown in tests.

    use api::Lease;

    use super::*;

    /// The moment at which the samples are shown.
    pub(crate) fn now() -> Timestamp {
        "2026-11-23T09:03:20Z".parse().unwrap()
    }

    /// A running agent with two ports.
    pub(crate) fn running() -> Agent {
        let by_label = |a: &str, b: &str| {
            BTreeMap::from([(Label("A".into()), a.to_owned()), (Label("B".into()), b.to_owned())])
        };
        Agent {
            project: "default".into(),
            name: "dev".into(),
            runtime: "docker".into(),
            state: AgentState::Running,
            id: Some("3f2a9c".into()),
            lease: Some("01J".into()),
            ports: BTreeMap::from([(Label("A".into()), 8000), (Label("B".into()), 8001)]),
            previews: by_label("http://a.dev.localhost:9800", "http://b.dev.localhost:9800"),
            urls: by_label("http://localhost:8000", "http://localhost:8001"),
            environment: BTreeMap::new(),
            own_variables: Vec::new(),
            published: Some("127.0.0.1".into()),
            image: Some("node:22".into()),
            command: vec!["npm".into(), "run".into(), "dev server".into()],
            started_at: Some("2026-11-23T09:00:00Z".into()),
            ended_at: None,
            exit_code: None,
            former_ports: Vec::new(),
            warnings: Vec::new(),
            reason: None,
            doubt: None,
        }
    }

    /// A bare lease of two ports.
    pub(crate) fn lease() -> Lease {
        let Agent { ports, urls, .. } = running();
        let variables = [
            ("AVAILABLE_LOCALHOST_PORT_A", "8000"),
            ("AVAILABLE_LOCALHOST_PORT_B", "8001"),
            ("BERTHOLD_AGENT", "shop/db"),
            ("PORT", "8000"),
        ];
        Lease {
            project: "shop".into(),
            name: "db".into(),
            id: "01J".into(),
            ports,
            urls,
            environment: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            bind_address: Some("127.0.0.1".into()),
            since: "2026-11-23T09:00:00Z".into(),
            holder: None,
        }
    }

    /// One of another project that has ended with a code.
    pub(crate) fn exited() -> Agent {
        Agent {
            project: "shop".into(),
            name: "tests".into(),
            runtime: "process".into(),
            state: AgentState::Exited,
            id: None,
            lease: None,
            ports: BTreeMap::new(),
            previews: BTreeMap::new(),
            urls: BTreeMap::new(),
            environment: BTreeMap::new(),
            published: None,
            image: None,
            command: vec!["make".into(), "test".into()],
            ended_at: Some("2026-11-22T09:00:00Z".into()),
            exit_code: Some(2),
            former_ports: vec![8002, 8003],
            warnings: vec!["port 8002 was refused".into()],
            reason: Some("it ended with code 2".into()),
            ..running()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_copied_into_a_shell() {
        let shown =
            |words: &[&str]| command(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(shown(&["npm", "run", "dev"]), "npm run dev");
        assert_eq!(shown(&["sh", "-c", "a \"b\"\n\tit's"]), r#"sh -c $'a "b"\n\tit\'s'"#);
        assert_eq!(shown(&["sh", "-c", "echo it's $PORT", ""]), r"sh -c 'echo it'\''s $PORT' ''");
    }

    #[test]
    fn states_and_ages() {
        let (running, exited) = (samples::running(), samples::exited());
        assert_eq!((state(&running), since(&running, samples::now())), ("running".into(), Some("3m".into())));
        assert_eq!(
            (state(&exited), since(&exited, samples::now())),
            ("exited (2)".into(), Some("24h".into()))
        );
        let done = Agent { exit_code: Some(0), ..exited };
        assert_eq!((state(&done), color(&done)), ("exited".into(), None));
    }
}
