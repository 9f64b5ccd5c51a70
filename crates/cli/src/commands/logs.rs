use std::process::ExitCode;
use std::str::FromStr;

use futures_util::StreamExt;
use serde_json::json;

use crate::context::Context;
use crate::error::CliError;

/// The exit code of a command that was ended with Ctrl-C: 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;

/// Show what an agent has written
///
/// Its standard output and standard error, as they were written.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold logs dev
  berthold logs dev -f -n 20")]
pub(crate) struct Arguments {
    /// The agent, as NAME or PROJECT/NAME
    #[arg(add = crate::complete::agents())]
    name: String,
    /// Go on with what it writes from now on, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines, or `all`
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value = "all",
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    tail: Tail,
}

/// How much of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tail {
    All,
    Lines(usize),
}

impl FromStr for Tail {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(lines) => Ok(Self::Lines(lines)),
            Err(_) if text == "all" => Ok(Self::All),
            Err(_) => Err("a number of lines is written like 20, or `all`"),
        }
    }
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode, CliError> {
    let key = context.agent(&arguments.name)?;
    let output = &context.output;
    if output.is_json() && arguments.follow {
        return Err(CliError::usage("a log that is followed is not one JSON document")
            .with_hint("leave out --follow or --json"));
    }
    let client = context.client().await?;
    let (project, name) = (key.project.as_str(), key.name.as_str());
    let tail = match arguments.tail {
        Tail::All => None,
        Tail::Lines(lines) => Some(lines),
    };
    let mut log = client.logs(project, name, arguments.follow, tail).await?;
    let mut whole = Vec::new();
    loop {
        // Both branches are cancel-safe: a piece of the log is either taken or still to come.
        let piece = tokio::select! {
            piece = log.next() => piece,
            _ = tokio::signal::ctrl_c() => return Ok(INTERRUPTED.into()),
        };
        match piece.transpose()? {
            Some(bytes) if output.is_json() => whole.extend_from_slice(&bytes),
            Some(bytes) => output.write(&bytes)?,
            None => break,
        }
    }
    if output.is_json() {
        output.document(&document(&whole))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn document(log: &[u8]) -> serde_json::Value {
    json!({ "log": String::from_utf8_lossy(log).lines().collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_much_of_a_log_is_a_number_of_lines_or_all() {
        assert_eq!("all".parse(), Ok(Tail::All));
        assert_eq!("20".parse(), Ok(Tail::Lines(20)));
        assert!("-1".parse::<Tail>().is_err());
        assert!("some".parse::<Tail>().is_err());
    }

    #[test]
    fn a_log_as_a_document_has_its_lines() {
        assert_eq!(document(b"one\r\ntwo \xff\n"), json!({ "log": ["one", "two \u{fffd}"] }));
    }
}
