use std::io::IsTerminal;
use std::process::ExitCode;

use api::{Code, ExecRequest};
use serde_json::json;

use crate::context::Context;
use crate::conversation::{Ended, Kept, Manner, Sink, converse, exit_code};
use crate::error::CliError;
use crate::start_request::Surroundings;
use crate::{signals, terminal};

/// Run one more command beside an agent
///
/// The command has the agent's variables, also those with its ports. The exit code is the command's own.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold exec -it dev -- sh
  berthold exec dev -- printenv AVAILABLE_LOCALHOST_PORT_A
  berthold exec -i db -- psql -U postgres < dump.sql")]
pub(crate) struct Arguments {
    /// The agent, as NAME or PROJECT/NAME
    #[arg(add = crate::complete::agents())]
    name: String,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long = "tty")]
    terminal: bool,
    /// A further variable; without a value, that of your own environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// The directory inside in which it runs
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The command with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, CliError> {
    let key = context.agent(&arguments.name)?;
    let output = &context.output;
    if output.is_json() && (arguments.terminal || arguments.interactive) {
        return Err(CliError::usage("a conversation is not one JSON document")
            .with_hint("leave out -i and -t, or --json"));
    }
    // A terminal has no end of input that could be passed on, so the command might wait for ever.
    if arguments.terminal && arguments.interactive && !std::io::stdin().is_terminal() {
        return Err(CliError::usage("standard input is no terminal, so it cannot be the command's")
            .with_hint("leave out -t to pass it on as it is"));
    }
    let variable = |name: &str| std::env::var(name).ok();
    let around = Surroundings { directory: context.directory(), variable: &variable };
    let pair = |text: &String| around.env(text).map(|(name, value)| format!("{name}={value}"));
    let request = ExecRequest {
        command: arguments.command,
        env: arguments.env.iter().map(pair).collect::<Result<_, _>>()?,
        workdir: arguments.workdir,
        stdin: arguments.interactive,
        terminal: arguments.terminal.then(terminal::size),
    };
    let client = context.client().await?;
    let connection = match client.exec(key.project.as_str(), key.name.as_str(), &request).await {
        Err(error) if error.code() == Code::StartFailed => {
            let error = CliError::from(error);
            error.show(output);
            return Ok(cannot_run(&error.to_string()).into());
        }
        connection => connection?,
    };
    let mut sink = if output.is_json() { Sink::Kept(Kept::default()) } else { Sink::Passed(output) };
    let manner = Manner { stdin: request.stdin, terminal: request.terminal.is_some(), detach_keys: None };
    let code = match converse(connection, manner, &mut sink).await? {
        Ended::Exited(code) => code,
        Ended::Signalled(kind) => return Ok(signals::exit_code(kind).into()),
        Ended::Detached => return Ok(ExitCode::SUCCESS),
    };
    if let Sink::Kept(kept) = sink {
        output.document(&document(&kept, code))?;
    }
    Ok(exit_code(code).into())
}

/// The exit code for a command that could not be run, as shells and engines have it: 127 if it is not there, else 126.
fn cannot_run(why: &str) -> u8 {
    let why = why.to_lowercase();
    let is_missing = ["not found", "no such file", "not there"].iter().any(|needle| why.contains(needle));
    if is_missing { 127 } else { 126 }
}

fn document(kept: &Kept, code: i64) -> serde_json::Value {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    json!({ "exec": { "exit_code": code, "stdout": text(&kept.stdout), "stderr": text(&kept.stderr) } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_json_the_output_is_kept() {
        let mut sink = Sink::Kept(Kept::default());
        sink.stdout(b"out").unwrap();
        sink.stderr(b"err").unwrap();
        let Sink::Kept(kept) = sink else { unreachable!() };
        assert_eq!(
            document(&kept, 3),
            json!({ "exec": { "exit_code": 3, "stdout": "out", "stderr": "err" } })
        );
    }
}
