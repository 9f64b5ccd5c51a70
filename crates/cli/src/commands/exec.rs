use std::process::ExitCode;

use api::exec::{Frame, MAX_PAYLOAD};
use api::{Code, ExecConnection, ExecRequest};
use bytes::{Bytes, BytesMut};
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, stdin};
use tokio::signal::unix::{SignalKind, signal};

use crate::context::Context;
use crate::error::CliError;
use crate::output::Output;
use crate::terminal::{self, RawMode};

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
    /// A further variable
    #[arg(short, long, value_name = "NAME=VALUE")]
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
    let request = ExecRequest {
        command: arguments.command,
        env: arguments.env,
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
    let raw = match request.stdin && request.terminal.is_some() {
        true => RawMode::enter().map_err(|source| CliError::io("the terminal cannot be taken", source))?,
        false => None,
    };
    let mut sink = if output.is_json() { Sink::Kept(Kept::default()) } else { Sink::Passed(output) };
    let ended = converse(connection, &request, &mut sink).await;
    drop(raw);
    let code = ended?;
    if let Sink::Kept(kept) = sink {
        output.document(&kept.document(code))?;
    }
    Ok(exit_code(code).into())
}

/// The exit code for a command that could not be run, as shells and engines have it: 127 if it is not there, else 126.
fn cannot_run(why: &str) -> u8 {
    let why = why.to_lowercase();
    let is_missing = ["not found", "no such file", "not there"].iter().any(|needle| why.contains(needle));
    if is_missing { 127 } else { 126 }
}

/// The code as a process can have it.
fn exit_code(code: i64) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// Where the command's output goes.
enum Sink<'a> {
    Passed(&'a Output),
    Kept(Kept),
}

#[derive(Default)]
struct Kept {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Kept {
    fn document(&self, code: i64) -> serde_json::Value {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        json!({ "exec": { "exit_code": code, "stdout": text(&self.stdout), "stderr": text(&self.stderr) } })
    }
}

impl Sink<'_> {
    fn stdout(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        match self {
            Self::Passed(output) => output.write(bytes)?,
            Self::Kept(kept) => kept.stdout.extend_from_slice(bytes),
        }
        Ok(())
    }

    fn stderr(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        match self {
            Self::Passed(output) => output.write_beside(bytes)?,
            Self::Kept(kept) => kept.stderr.extend_from_slice(bytes),
        }
        Ok(())
    }
}

/// Passes everything on, both ways, until the command has ended; its exit code.
async fn converse(
    connection: ExecConnection,
    request: &ExecRequest,
    sink: &mut Sink<'_>,
) -> Result<i64, CliError> {
    let (mut to_broker, mut from_broker) = connection.split();
    let forward = forward(&mut to_broker, request);
    let mut forward = std::pin::pin!(forward);
    let mut forwards = true;
    loop {
        // Both branches are cancel-safe: the forwarding is pinned outside, and the stream keeps what has come.
        let frame = tokio::select! {
            frame = from_broker.next() => frame,
            // Whatever ended it, the command's last words are still to come.
            _ = &mut forward, if forwards => {
                forwards = false;
                continue;
            }
        };
        match frame {
            Some(Ok(Frame::Stdout(bytes))) => sink.stdout(&bytes)?,
            Some(Ok(Frame::Stderr(bytes))) => sink.stderr(&bytes)?,
            Some(Ok(Frame::Exit(code))) => return Ok(code),
            Some(Ok(Frame::Failed(reason))) => return Err(CliError::failed(Code::RuntimeFailed, reason)),
            Some(Ok(Frame::Stdin(_) | Frame::StdinEnd | Frame::Resize(_))) => {
                return Err(CliError::failed(Code::Failed, "the broker sent what only a client sends"));
            }
            Some(Err(source)) => return Err(CliError::io("the connection to the broker broke off", source)),
            None => {
                let message = "the broker ended the connection before the command had ended";
                return Err(CliError::failed(Code::BrokerUnreachable, message));
            }
        }
    }
}

/// Passes on standard input and the size of the terminal, each if it was asked for.
async fn forward(
    to_broker: &mut SplitSink<ExecConnection, Frame>,
    request: &ExecRequest,
) -> std::io::Result<()> {
    let mut resized = signal(SignalKind::window_change())?;
    let mut input = stdin();
    let mut reads = request.stdin;
    let mut buffer = BytesMut::with_capacity(MAX_PAYLOAD.min(64 << 10));
    if !reads && request.terminal.is_none() {
        return Ok(());
    }
    loop {
        buffer.reserve(8 << 10);
        // Both branches are cancel-safe (tokio says so of `read_buf` and `recv`).
        let frame = tokio::select! {
            // Input that cannot be read has ended too, as far as the command is concerned.
            read = input.read_buf(&mut buffer), if reads => match read.unwrap_or(0) {
                0 => {
                    reads = false;
                    Frame::StdinEnd
                }
                _ => Frame::Stdin(Bytes::from(buffer.split())),
            },
            Some(()) = resized.recv(), if request.terminal.is_some() => Frame::Resize(terminal::size()),
            else => return Ok(()),
        };
        to_broker.send(frame).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_cut_to_a_byte_as_a_shell_does() {
        assert_eq!([0, 1, 137, 256, -1].map(exit_code), [0, 1, 137, 0, 255]);
    }

    #[test]
    fn with_json_the_output_is_kept() {
        let mut sink = Sink::Kept(Kept::default());
        sink.stdout(b"out").unwrap();
        sink.stderr(b"err").unwrap();
        let Sink::Kept(kept) = sink else { unreachable!() };
        assert_eq!(kept.document(3), json!({ "exec": { "exit_code": 3, "stdout": "out", "stderr": "err" } }));
    }
}
