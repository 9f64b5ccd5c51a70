use std::path::PathBuf;
use std::time::Duration;

use api::{Agent, AgentDocument, AgentState};

use crate::context::Context;
use crate::duration;
use crate::error::CliError;
use crate::start_request::{self, Surroundings};
use crate::{progress, view};

/// How long `--wait` waits that names no duration.
pub(crate) const PATIENCE: &str = "30s";

/// What is said of an agent that has no ports, where there are none to have.
const NO_POOL: &str = "it has no ports, for the port pool is off; add `server: { broker: { port_pool: { range: 8000-9000 } } }` to the \
     settings (`berthold settings check` names the file), and `berthold broker stop` so that they are read";

/// Start an agent and give it ports of its own
///
/// Prints the ports and the URLs under which they can be reached. The agent is told its ports in $AVAILABLE_LOCALHOST_PORT_A,
/// _B and so on; its servers must listen on 0.0.0.0, not on 127.0.0.1.
///
/// Starting a running agent as it is returns it with the ports it has. If it is to be started otherwise, that is a conflict,
/// unless --replace is given. One that is not running is started again: with only its name as it was, and with its former
/// ports if they are still free.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold start dev --image node:22 -w . -- npm run dev
  berthold start web --template web --ports 3 --wait
  berthold start db --image postgres:18 -e POSTGRES_PASSWORD -v data:/var/lib/postgresql
  berthold start -it coder --image node:22 -w . -- npx some-agent    and then: berthold attach coder
  berthold start tests --runtime process -w ~/shop -- make test
  berthold start dev                      once more, as it was")]
pub(crate) struct Arguments {
    /// The agent, as NAME or PROJECT/NAME
    #[arg(add = crate::complete::agents())]
    name: String,
    /// The image to run
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// A template of the broker's settings; what else is typed goes before it
    #[arg(long, value_name = "NAME")]
    pub(crate) template: Option<String>,
    /// What runs it: docker, podman, container, kubernetes or process
    #[arg(long, value_name = "NAME")]
    pub(crate) runtime: Option<String>,
    /// How many ports it gets, if not the usual number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(..=i64::from(pool::label::LABEL_COUNT)))]
    pub(crate) ports: Option<u16>,
    /// A variable; without a value, that of your own environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// A file of variables, NAME=VALUE in each line
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// A directory or file of the host, or a named volume, and where it is inside
    #[arg(short, long, value_name = "SRC:DST[:ro]")]
    pub(crate) volume: Vec<String>,
    /// A directory that is mounted under its own path and in which the command starts
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
    /// Keep its standard input open, for `berthold attach`
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal, for `berthold attach`
    #[arg(short, long = "tty")]
    pub(crate) terminal: bool,
    /// The network: host, none, or the name of one
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<String>,
    /// Wait until port A answers [30s if no duration is given]
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = PATIENCE,
        value_parser = duration::parse)]
    pub(crate) wait: Option<Duration>,
    /// Recreate it if it is running otherwise than it is to be
    #[arg(long)]
    pub(crate) replace: bool,
    /// Forget it once it has ended
    #[arg(long)]
    pub(crate) rm: bool,
    /// The command, if not the image's own
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<(), CliError> {
    let key = context.agent(&arguments.name)?;
    let variable = |name: &str| std::env::var(name).ok();
    let request = start_request::meant(
        arguments,
        &Surroundings { directory: context.directory(), variable: &variable },
    )?;
    let client = context.client().await?;
    let output = &context.output;
    let work = client.start(key.project.as_str(), key.name.as_str(), &request);
    let (agent, created) = progress::shown_during(work, &client, &key, output).await?;
    if output.is_json() {
        return output.document(&AgentDocument { agent });
    }
    view::warn(&agent, output);
    output.print(&shown(&agent, created))?;
    if (request.interactive.is_some() || request.terminal.is_some()) && agent.state == AgentState::Running {
        output.say(&format!(
            "`berthold attach {}` has its input and output in your terminal",
            view::name(&agent)
        ));
    }
    if agent.ports.is_empty() && agent.state == AgentState::Running && request.ports != Some(0) {
        let has_pool = client.pool(false).await.is_ok_and(|pool| pool.enabled);
        output.say(if has_pool { "it was started without ports" } else { NO_POOL });
    }
    Ok(())
}

/// What came of a start: the state, and the ports with their URLs.
pub(crate) fn shown(agent: &Agent, created: bool) -> String {
    let state = match agent.state {
        AgentState::Running if created => "is running".to_owned(),
        AgentState::Running => "is running already".to_owned(),
        AgentState::Exited | AgentState::Failed => format!("has {}", view::state(agent)),
        _ => format!("is {}", view::state(agent)),
    };
    let mut lines = vec![format!("{} {state} on {}", view::name(agent), agent.runtime)];
    lines.extend(view::port_lines(agent).into_iter().map(|line| format!("  {line}")));
    lines.join("\n")
}

#[cfg(test)]
impl Arguments {
    /// What is typed after `berthold start`.
    pub(crate) fn from_words(words: &[&str]) -> Result<Self, clap::Error> {
        use clap::{Args, FromArgMatches};
        let command = Self::augment_args(clap::Command::new("start").no_binary_name(true));
        Self::from_arg_matches(&command.try_get_matches_from(words)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples::{exited, running};

    #[test]
    fn what_a_start_prints() {
        insta::assert_snapshot!(shown(&running(), true), @"
        dev is running on docker
          A  8000   http://localhost:8000
          B  8001   http://localhost:8001
        ");
        insta::assert_snapshot!(shown(&running(), false), @"
        dev is running already on docker
          A  8000   http://localhost:8000
          B  8001   http://localhost:8001
        ");
        insta::assert_snapshot!(shown(&exited(), true), @"shop/tests has exited (2) on process");
    }
}
