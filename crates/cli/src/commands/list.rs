use std::collections::BTreeSet;

use api::{Agent, AgentState, AgentsDocument};
use jiff::Timestamp;

use crate::context::Context;
use crate::error::CliError;
use crate::table::{Field, Table};
use crate::view;

/// List agents with their states, ports and URLs
///
/// Shows the agents of the project, running or not; a state with a question mark is the last that was known. The URL is that of port A; `berthold show NAME` has all of them.
#[derive(clap::Args, Debug)]
#[command(
    visible_alias = "ls",
    after_help = "\
Examples:
  berthold list
  berthold list --all-projects
  berthold list --json | jq '.agents[].urls'
  berthold stop $(berthold list -q)"
)]
pub(crate) struct Arguments {
    /// The agents of every project
    #[arg(short = 'A', long)]
    all_projects: bool,
    /// Only names
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let project = (!arguments.all_projects).then(|| context.project.as_str());
    let agents = context.client().await?.agents(project).await?;
    let output = &context.output;
    if output.is_json() {
        return output.document(&AgentsDocument { agents });
    }
    if agents.is_empty() {
        if !arguments.quiet {
            output.say(&nothing(project));
        }
        return Ok(());
    }
    let doubts: BTreeSet<&String> = agents.iter().filter_map(|agent| agent.doubt.as_ref()).collect();
    for doubt in doubts {
        output.warn(doubt);
    }
    let full_names = arguments.all_projects;
    if arguments.quiet {
        let names: Vec<String> = agents.iter().map(|agent| name(agent, full_names)).collect();
        return output.print(&names.join("\n"));
    }
    output.print(&table(&agents, full_names, Timestamp::now()).render(output.width()))
}

fn nothing(project: Option<&str>) -> String {
    let next = "start one with `berthold start NAME --image IMAGE`";
    match project {
        None => format!("no agents; {next}"),
        Some(project) => {
            format!(
                "no agents in the project {project}; {next}, or see those of every project with `berthold list -A`"
            )
        }
    }
}

fn name(agent: &Agent, full: bool) -> String {
    if full { format!("{}/{}", agent.project, agent.name) } else { view::name(agent) }
}

/// The URL of port A, with what is special about it: on the host's network the agent itself has to listen there.
fn url(agent: &Agent) -> String {
    let url = agent.urls.values().next().cloned().unwrap_or_default();
    match agent.published.as_deref() {
        Some("host network") if agent.runtime != "process" => format!("{url} (host network)"),
        None if agent.state == AgentState::Running && !agent.ports.is_empty() => "not published".to_owned(),
        _ => url,
    }
}

fn table(agents: &[Agent], full_names: bool, now: Timestamp) -> Table {
    let headers = ["NAME", "STATE", "RUNTIME", "PORTS", "URL", "AGE", "IMAGE", "COMMAND"];
    let mut table = Table::new(&headers).expendable(&["COMMAND", "IMAGE", "RUNTIME"]);
    for agent in agents {
        let ports: Vec<String> = agent.ports.values().map(u16::to_string).collect();
        table.row([
            name(agent, full_names).into(),
            Field::colored(view::supposed_state(agent), view::color(agent)),
            agent.runtime.as_str().into(),
            ports.join(",").into(),
            url(agent).into(),
            view::since(agent, now).unwrap_or_default().into(),
            agent.image.clone().unwrap_or_default().into(),
            view::command(&agent.command).into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples::{exited, now, running};

    fn shown(full_names: bool, width: Option<u16>) -> String {
        anstream::adapter::strip_str(&table(&[running(), exited()], full_names, now()).render(width))
            .to_string()
    }

    #[test]
    fn a_table_of_agents() {
        insta::assert_snapshot!(shown(false, None), @"
        NAME        STATE       RUNTIME  PORTS      URL                    AGE  IMAGE    COMMAND
        dev         running     docker   8000,8001  http://localhost:8000  3m   node:22  npm run 'dev server'
        shop/tests  exited (2)  process  -          -                      24h  -        make test
        ");
        insta::assert_snapshot!(shown(true, Some(80)), @"
        NAME         STATE       RUNTIME  PORTS      URL                    AGE  IMAGE
        default/dev  running     docker   8000,8001  http://localhost:8000  3m   node:22
        shop/tests   exited (2)  process  -          -                      24h  -
        ");
    }

    #[test]
    fn a_state_that_may_be_another_by_now() {
        let agent = Agent { doubt: Some("docker does not answer".to_owned()), ..running() };
        let table = table(&[agent], false, now()).render(Some(80));
        assert!(anstream::adapter::strip_str(&table).to_string().contains(" running?  docker "), "{table}");
    }

    #[test]
    fn an_empty_list_says_what_to_do_next() {
        insta::assert_snapshot!(nothing(None), @"no agents; start one with `berthold start NAME --image IMAGE`");
        insta::assert_snapshot!(nothing(Some("shop")), @"no agents in the project shop; start one with `berthold start NAME --image IMAGE`, or see those of every project with `berthold list -A`");
    }
}
