//! Completion in the shell, with the names of agents as they are at that moment.

use std::ffi::OsStr;
use std::time::Duration;

use api::{Client, Endpoint};
use broker::Home;
use clap::CommandFactory;
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use crate::arguments::Arguments;
use crate::names;

/// The variable by which a shell asks for completions.
pub(crate) const VARIABLE: &str = "BERTHOLD_COMPLETE";
/// How long a shell is kept waiting for the broker.
const PATIENCE: Duration = Duration::from_millis(500);

/// Answers the shell and ends, if it is the shell that asks.
pub(crate) fn answer_the_shell() {
    CompleteEnv::with_factory(Arguments::command).var(VARIABLE).complete();
}

/// Completes names of agents. Where no broker answers at once there are none.
pub(crate) fn agents() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| candidates(typed).unwrap_or_default())
}

fn candidates(typed: &OsStr) -> Option<Vec<CompletionCandidate>> {
    let typed = typed.to_str()?;
    let endpoint = match std::env::var("BERTHOLD_BROKER").ok().filter(|text| !text.is_empty()) {
        Some(text) => text.parse().ok()?,
        None => Endpoint::Unix(
            Home::find(|name| std::env::var_os(name), &std::env::current_dir().ok()?)
                .ok()?
                .socket()
                .to_owned(),
        ),
    };
    let client = Client::new(endpoint, std::env::var("BERTHOLD_TOKEN").ok());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, client.agents(None)).await });
    let project = std::env::var("BERTHOLD_PROJECT").ok();
    let project = names::project(project.as_deref()).ok()?;
    let agents = answer.ok()?.ok()?;
    let named = agents.into_iter().map(|agent| {
        let name = if agent.project == project.as_str() {
            agent.name
        } else {
            format!("{}/{}", agent.project, agent.name)
        };
        CompletionCandidate::new(name).help(Some(agent.state.as_str().into()))
    });
    Some(
        named
            .filter(|candidate| candidate.get_value().to_str().is_some_and(|name| name.starts_with(typed)))
            .collect(),
    )
}
