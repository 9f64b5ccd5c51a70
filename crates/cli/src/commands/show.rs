use api::{Agent, AgentDocument};
use jiff::Timestamp;

use crate::context::Context;
use crate::error::CliError;
use crate::{table, view};

/// Show one agent with all its ports and URLs
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold show dev
  berthold show shop/dev
  berthold show dev --json | jq -r .agent.urls.A")]
pub(crate) struct Arguments {
    /// The agent, as NAME or PROJECT/NAME
    #[arg(add = crate::complete::agents())]
    name: String,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let key = context.agent(&arguments.name)?;
    let client = context.client().await?;
    let agent = client.agent(key.project.as_str(), key.name.as_str()).await?;
    if context.output.is_json() {
        return context.output.document(&AgentDocument { agent });
    }
    context.output.print(&shown(&agent, Timestamp::now()))
}

fn shown(agent: &Agent, now: Timestamp) -> String {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut add = |key: &str, value: Option<String>| {
        pairs.extend(value.filter(|value| !value.is_empty()).map(|value| (key.to_owned(), value)));
    };
    let state = match view::since(agent, now) {
        Some(since) => format!("{}, since {since}", view::state(agent)),
        None => view::state(agent),
    };
    let former: Vec<String> = agent.former_ports.iter().map(u16::to_string).collect();
    add("name", Some(format!("{}/{}", agent.project, agent.name)));
    add("state", Some(state));
    add("reason", agent.reason.clone());
    add("in doubt", agent.doubt.clone());
    add("runtime", Some(agent.runtime.clone()));
    add("image", agent.image.clone());
    add("command", Some(view::command(&agent.command)));
    add("ports", Some(view::port_lines(agent).join("\n")));
    add("previews", Some(agent.previews.values().cloned().collect::<Vec<_>>().join("\n")));
    add("published on", agent.published.clone());
    add("former ports", Some(former.join(", ")));
    add("started at", agent.started_at.clone());
    add("ended at", agent.ended_at.clone());
    add("exit code", agent.exit_code.map(|code| code.to_string()));
    add("id", agent.id.clone());
    add("lease", agent.lease.clone());
    add("warnings", Some(agent.warnings.join("\n")));
    table::aligned(&pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples::{exited, now, running};

    #[test]
    fn all_that_is_known() {
        insta::assert_snapshot!(shown(&running(), now()), @"
        name:          default/dev
        state:         running, since 3m
        runtime:       docker
        image:         node:22
        command:       npm run 'dev server'
        ports:         A  8000   http://localhost:8000
                       B  8001   http://localhost:8001
        previews:      http://a.dev.localhost:9800
                       http://b.dev.localhost:9800
        published on:  127.0.0.1
        started at:    2026-11-23T09:00:00Z
        id:            3f2a9c
        lease:         01J
        ");
        insta::assert_snapshot!(shown(&exited(), now()), @"
        name:          shop/tests
        state:         exited (2), since 24h
        reason:        it ended with code 2
        runtime:       process
        command:       make test
        former ports:  8002, 8003
        started at:    2026-11-23T09:00:00Z
        ended at:      2026-11-22T09:00:00Z
        exit code:     2
        warnings:      port 8002 was refused
        ");
    }
}
