use std::io::{IsTerminal, stdin};
use std::process::ExitCode;

use api::AttachRequest;
use api::exec::{Frame, Size};
use futures_util::SinkExt;

use crate::context::Context;
use crate::conversation::{Ended, Manner, Sink, converse, exit_code};
use crate::detach_keys::DetachKeys;
use crate::error::CliError;
use crate::{signals, terminal};

/// Have an agent's own input and output in this terminal
///
/// For agents that were started with -i (input) or -t (a terminal); of others the output is shown. The agent goes on when you leave, with
/// the keys ctrl-p ctrl-q; without a terminal, with ctrl-c. If it ends meanwhile, its exit code is passed on.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold start -it coder --image node:22 -w . -- bash
  berthold attach coder
  berthold attach --detach-keys ctrl-x,x coder
  berthold attach --no-stdin coder")]
pub(crate) struct Arguments {
    /// The agent, as NAME or PROJECT/NAME
    #[arg(add = crate::complete::agents())]
    name: String,
    /// Only look on
    #[arg(long)]
    no_stdin: bool,
    /// What is typed to leave, as Docker has it
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
}

pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, CliError> {
    let key = context.agent(&arguments.name)?;
    let output = &context.output;
    if output.is_json() {
        return Err(CliError::usage("a conversation is not one JSON document")
            .with_hint("leave out --json; `berthold logs` has what it wrote"));
    }
    let client = context.client().await?;
    let request = AttachRequest { stdin: !arguments.no_stdin };
    let attached = client.attach(key.project.as_str(), key.name.as_str(), &request).await?;
    let mut connection = attached.connection;
    let is_typed = attached.stdin && stdin().is_terminal();
    if attached.terminal && terminal::is_there() {
        // A size that differs for a moment makes whatever runs in it draw itself anew.
        let Size { columns, rows } = terminal::size();
        for rows in [rows.saturating_add(1), rows] {
            let resized = connection.send(Frame::Resize(Size { columns, rows })).await;
            resized.map_err(|source| CliError::io("the connection to the broker broke off", source))?;
        }
    }
    if !attached.stdin && !arguments.no_stdin && stdin().is_terminal() {
        output.say("it was started without -i: what is typed here does not reach it; leave with ctrl-c");
    } else if is_typed && attached.terminal {
        output.say(&format!("attached to {key}; leave with {}", arguments.detach_keys.shown()));
    }
    let manner = Manner {
        stdin: attached.stdin,
        terminal: attached.terminal,
        detach_keys: (is_typed && attached.terminal).then_some(arguments.detach_keys),
    };
    match converse(connection, manner, &mut Sink::Passed(output)).await? {
        Ended::Exited(code) => Ok(exit_code(code).into()),
        Ended::Detached => {
            output.say(&format!("left {key}, which goes on"));
            Ok(ExitCode::SUCCESS)
        }
        Ended::Signalled(kind) => Ok(signals::exit_code(kind).into()),
    }
}
