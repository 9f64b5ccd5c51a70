//! Completion in the shell, with the names of agents and leases as they are at that moment.

use std::ffi::OsStr;
use std::time::Duration;

use api::{Client, ClientError, Endpoint, Lease};
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
    ArgValueCompleter::new(|typed: &OsStr| {
        let agents = ask(async |client| client.agents(None).await);
        let named = agents.unwrap_or_default().into_iter();
        candidates(typed, named.map(|agent| (agent.project, agent.name, agent.state.as_str().to_owned())))
    })
}

/// Completes names of owners of bare leases, in the same way.
pub(crate) fn owners() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let leases = ask(async |client| client.leases(None).await);
        let ports = |lease: &Lease| lease.ports.values().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let named = leases.unwrap_or_default().into_iter().map(|lease| {
            let ports = ports(&lease);
            (lease.project, lease.name, ports)
        });
        candidates(typed, named)
    })
}

/// Asks the broker, if one answers at once.
fn ask<T>(question: impl AsyncFnOnce(Client) -> Result<T, ClientError>) -> Option<T> {
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
    runtime.block_on(async { tokio::time::timeout(PATIENCE, question(client)).await }).ok()?.ok()
}

/// Those of the names that go on from what was typed; each is a project, a name and what to say of it.
fn candidates(
    typed: &OsStr,
    named: impl Iterator<Item = (String, String, String)>,
) -> Vec<CompletionCandidate> {
    let project = std::env::var("BERTHOLD_PROJECT").ok();
    let Ok(project) = names::project(project.as_deref()) else { return Vec::new() };
    let named = named.map(|(of, name, help)| {
        let name = if of == project.as_str() { name } else { format!("{of}/{name}") };
        (name, help)
    });
    named
        .filter(|(name, _)| typed.to_str().is_some_and(|typed| name.starts_with(typed)))
        .map(|(name, help)| CompletionCandidate::new(name).help(Some(help.into())))
        .collect()
}
