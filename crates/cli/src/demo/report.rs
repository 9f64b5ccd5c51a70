//! What the demo has seen: which agent has which port, and what answers there.

use std::collections::{BTreeMap, BTreeSet};

use api::{Agent, Code, Label, Pool, PoolPortState};
use hyper::StatusCode;
use serde::Serialize;

use super::fetch::Fetched;
use super::{PORTS_PER_AGENT, page};
use crate::error::CliError;
use crate::table::{Field, Table};

/// What `--json` prints.
#[derive(Serialize)]
pub(super) struct Document {
    pub(super) demo: Report,
}

/// What the demo has seen.
#[derive(Serialize)]
pub(super) struct Report {
    /// What ran the agents.
    pub(super) runtime: &'static str,
    /// Why it was not Docker, where that was not asked for.
    pub(super) reason: Option<String>,
    /// The scratch home.
    pub(super) home: String,
    /// Whether all of it goes on running.
    pub(super) kept: bool,
    pub(super) agents: Vec<Agent>,
    pub(super) answers: Vec<Answer>,
    pub(super) pool: Pool,
}

/// What answered behind a port of an agent.
#[derive(Serialize)]
pub(super) struct Answer {
    agent: String,
    label: Label,
    port: u16,
    url: String,
    status: u16,
    title: String,
    bytes: usize,
}

impl Answer {
    /// What was fetched from `url` of `agent`.
    ///
    /// # Errors
    /// If it is not the agent's page of that very port.
    pub(super) fn new(
        agent: &Agent,
        label: &Label,
        port: u16,
        url: &str,
        fetched: Fetched,
    ) -> Result<Self, CliError> {
        let wrong = |what: &str| {
            let message = format!("{url} should be the page of {}, but {what}", agent.name);
            Err(CliError::failed(Code::Failed, message))
        };
        if fetched.status != StatusCode::OK {
            return wrong(&format!("the answer is {}", fetched.status));
        }
        match fetched.title {
            Some(title) if title == page::title(&agent.name, port) => Ok(Self {
                agent: agent.name.clone(),
                label: label.clone(),
                port,
                url: url.to_owned(),
                status: fetched.status.as_u16(),
                title,
                bytes: fetched.bytes,
            }),
            Some(title) => wrong(&format!("the page there is called `{title}`")),
            None => wrong("the page there has no title"),
        }
    }
}

/// Sees whether every agent has its ports, none of which is another's.
///
/// # Errors
/// If not, which is what Berthold is there to prevent.
pub(super) fn check_ports(agents: &[Agent]) -> Result<(), CliError> {
    let mut owners: BTreeMap<u16, &str> = BTreeMap::new();
    for agent in agents {
        if agent.ports.len() != usize::from(PORTS_PER_AGENT) || agent.urls.len() != agent.ports.len() {
            let (name, ports, urls) = (&agent.name, agent.ports.len(), agent.urls.len());
            let message =
                format!("BUG: {name} has {ports} ports and {urls} URLs in place of {PORTS_PER_AGENT}");
            return Err(CliError::failed(Code::Failed, message));
        }
        for port in agent.ports.values() {
            if let Some(other) = owners.insert(*port, &agent.name) {
                let message = format!("BUG: both {other} and {} have port {port}", agent.name);
                return Err(CliError::failed(Code::Failed, message));
            }
        }
    }
    Ok(())
}

impl Report {
    /// The report for a person, in at most `width` characters if its columns allow that.
    pub(super) fn text(&self, width: Option<u16>) -> String {
        let headers = ["AGENT", "RUNTIME", "LABEL", "PORT", "URL", "ANSWER"];
        let mut table = Table::new(&headers).expendable(&["LABEL", "ANSWER"]);
        for answer in &self.answers {
            table.row([
                Field::from(&answer.agent),
                Field::from(self.runtime),
                Field::from(&answer.label.0),
                Field::from(answer.port.to_string()),
                Field::from(&answer.url),
                Field::from(format!("{} OK, {} bytes: {}", answer.status, answer.bytes, answer.title)),
            ]);
        }
        format!("{}\n\n{}", table.render(width), self.owners().join("\n"))
    }

    /// Who has which port, as the broker says.
    fn owners(&self) -> Vec<String> {
        let leased = self.pool.ports.iter().filter(|port| port.state == PoolPortState::Leased);
        let mut owners: BTreeMap<&str, BTreeSet<u16>> = BTreeMap::new();
        for port in leased {
            owners.entry(port.agent.as_deref().unwrap_or("nobody")).or_default().insert(port.port);
        }
        let mut lines = vec![format!("The pool {}:", self.pool.range)];
        for (owner, ports) in owners {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            lines.push(format!("  {owner} has {}", ports.join(", ")));
        }
        lines.push(format!("  {} of {} are free", self.pool.counts.free, self.pool.size));
        lines
    }
}

#[cfg(test)]
pub(super) mod tests {
    use api::{Counts, PoolPort};

    use super::*;
    use crate::view::samples::running;

    fn agent(name: &str, first: u16) -> Agent {
        let labels = ["A", "B"].map(|label| Label(label.to_owned()));
        let ports: BTreeMap<_, _> = labels.into_iter().zip(first..).collect();
        let urls = ports.iter().map(|(label, port)| (label.clone(), format!("http://localhost:{port}")));
        Agent { name: name.to_owned(), urls: urls.collect(), ports, ..running() }
    }

    fn fetched(status: StatusCode, title: Option<&str>) -> Fetched {
        Fetched { status, title: title.map(str::to_owned), bytes: 4711 }
    }

    fn report() -> Report {
        let agents = vec![agent("ada", 8000), agent("bert", 8002)];
        let (mut answers, mut ports) = (Vec::new(), Vec::new());
        for agent in &agents {
            for (label, port) in &agent.ports {
                let fetched = fetched(StatusCode::OK, Some(&page::title(&agent.name, *port)));
                answers.push(Answer::new(agent, label, *port, &agent.urls[label], fetched).unwrap());
                ports.push(PoolPort {
                    port: *port,
                    state: PoolPortState::Leased,
                    agent: Some(format!("demo-8000/{}", agent.name)),
                    bare: false,
                    label: Some(label.to_string()),
                    since: None,
                    detail: None,
                });
            }
        }
        let counts = Counts { free: 16, leased: 4, ..Counts::default() };
        let pool =
            Pool { enabled: true, range: "8000-8019".into(), size: 20, counts, ports, ..Pool::default() };
        Report { runtime: "docker", reason: None, home: "/tmp/x".into(), kept: false, agents, answers, pool }
    }

    #[test]
    fn what_a_person_sees() {
        insta::assert_snapshot!(report().text(None), @"
        AGENT  RUNTIME  LABEL  PORT  URL                    ANSWER
        ada    docker   A      8000  http://localhost:8000  200 OK, 4711 bytes: ada · port 8000
        ada    docker   B      8001  http://localhost:8001  200 OK, 4711 bytes: ada · port 8001
        bert   docker   A      8002  http://localhost:8002  200 OK, 4711 bytes: bert · port 8002
        bert   docker   B      8003  http://localhost:8003  200 OK, 4711 bytes: bert · port 8003

        The pool 8000-8019:
          demo-8000/ada has 8000, 8001
          demo-8000/bert has 8002, 8003
          16 of 20 are free
        ");
        insta::assert_snapshot!(report().text(Some(60)), @"
        AGENT  RUNTIME  PORT  URL                    ANSWER
        ada    docker   8000  http://localhost:8000  200 OK, 4711 b…
        ada    docker   8001  http://localhost:8001  200 OK, 4711 b…
        bert   docker   8002  http://localhost:8002  200 OK, 4711 b…
        bert   docker   8003  http://localhost:8003  200 OK, 4711 b…

        The pool 8000-8019:
          demo-8000/ada has 8000, 8001
          demo-8000/bert has 8002, 8003
          16 of 20 are free
        ");
    }

    #[test]
    fn what_a_program_sees() {
        let document = serde_json::to_value(Document { demo: report() }).unwrap();
        assert_eq!(document["demo"]["agents"][1]["name"], "bert");
        assert_eq!(document["demo"]["answers"][3]["port"], 8003);
        assert_eq!(document["demo"]["pool"]["counts"]["free"], 16);
    }

    #[test]
    fn another_page_than_the_agents_own_is_a_failure() {
        let ada = agent("ada", 8000);
        let refused = |fetched: Fetched| {
            let label = Label("B".into());
            Answer::new(&ada, &label, 8001, "http://localhost:8001", fetched)
                .map(drop)
                .unwrap_err()
                .to_string()
        };
        insta::assert_snapshot!(refused(fetched(StatusCode::NOT_FOUND, None)), @"http://localhost:8001 should be the page of ada, but the answer is 404 Not Found");
        insta::assert_snapshot!(refused(fetched(StatusCode::OK, None)), @"http://localhost:8001 should be the page of ada, but the page there has no title");
        insta::assert_snapshot!(refused(fetched(StatusCode::OK, Some("ada · port 8000"))), @"http://localhost:8001 should be the page of ada, but the page there is called `ada · port 8000`");
    }

    #[test]
    fn ports_that_two_have_or_one_lacks_are_a_failure() {
        check_ports(&[agent("ada", 8000), agent("bert", 8002)]).unwrap();
        let refused = |agents: &[Agent]| check_ports(agents).unwrap_err().to_string();
        insta::assert_snapshot!(refused(&[agent("ada", 8000), agent("bert", 8001)]), @"BUG: both ada and bert have port 8001");
        let mut bare = agent("ada", 8000);
        bare.urls.clear();
        insta::assert_snapshot!(refused(&[bare]), @"BUG: ada has 2 ports and 0 URLs in place of 2");
    }
}
