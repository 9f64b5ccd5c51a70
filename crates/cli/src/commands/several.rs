//! One operation on several agents at once.

use api::{Agent, AgentsDocument, Client, ClientError, StopRequest};
use futures_util::future::join_all;
use pool::AgentKey;

use crate::context::Context;
use crate::duration::milliseconds;
use crate::error::CliError;
use crate::{duration, names, view};

/// Which agents, and how long they have.
#[derive(clap::Args, Debug)]
pub(crate) struct Selection {
    /// The agents, as NAME or PROJECT/NAME
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all", add = crate::complete::agents())]
    names: Vec<String>,
    /// Every agent of the project
    #[arg(long)]
    all: bool,
    /// How long an agent has to end by itself before it is ended by force, such as 30s
    #[arg(short, long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<std::time::Duration>,
}

/// What is done to each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Stop,
    Delete { force: bool },
}

impl Operation {
    fn verb(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Delete { .. } => "delete",
        }
    }

    fn past(self) -> &'static str {
        match self {
            Self::Stop => "stopped",
            Self::Delete { .. } => "deleted",
        }
    }

    async fn carry_out(
        self,
        client: &Client,
        key: &AgentKey,
        how: &StopRequest,
    ) -> Result<Option<Agent>, ClientError> {
        let (project, name) = (key.project.as_str(), key.name.as_str());
        match self {
            Self::Stop => client.stop(project, name, how).await,
            Self::Delete { force } => client.delete(project, name, how, force).await,
        }
    }
}

/// Does it to all that are selected, at the same time, and shows what came of it.
pub(crate) async fn run(
    operation: Operation,
    selection: &Selection,
    context: &Context,
) -> Result<(), CliError> {
    let mut keys = Vec::new();
    for typed in &selection.names {
        let key = context.agent(typed)?;
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let client = context.client().await?;
    if selection.all {
        for agent in client.agents(Some(context.project.as_str())).await? {
            keys.push(context.agent(&agent.name)?);
        }
    }
    let request = StopRequest { timeout_ms: selection.timeout.map(milliseconds) };
    let results = join_all(keys.iter().map(|key| operation.carry_out(&client, key, &request))).await;
    let output = &context.output;
    let (mut done, mut errors) = (Vec::new(), Vec::new());
    for (key, result) in keys.iter().zip(results) {
        match result {
            Ok(Some(agent)) => done.push(agent),
            Ok(None) => output.say(&format!("no agent {key}: nothing to {}", operation.verb())),
            Err(error) => errors.push(CliError::from(error)),
        }
    }
    if selection.all && keys.is_empty() {
        output.say(&format!("no agents in the project {}: nothing to {}", context.project, operation.verb()));
    }
    if !output.is_json() {
        for agent in &done {
            view::warn(agent, output);
            output.print(&format!("{} {}", operation.past(), names::shown(&agent.project, &agent.name)))?;
        }
    }
    match errors.len() {
        0 if output.is_json() => output.document(&AgentsDocument { agents: done }),
        0 => Ok(()),
        1 if done.is_empty() => Err(errors.remove(0)),
        _ => Err(CliError::Several { errors, done }),
    }
}
