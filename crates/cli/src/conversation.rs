//! The terminal of the person on one side, the streams of a command or an agent on the other.

use api::exec::{Frame, MAX_PAYLOAD};
use api::{Code, ExecConnection};
use bytes::{Bytes, BytesMut};
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, stdin};
use tokio::signal::unix::{SignalKind, signal};

use crate::detach_keys::DetachKeys;
use crate::error::CliError;
use crate::output::Output;
use crate::signals::EndSignals;
use crate::terminal::{self, RawMode};

/// What is passed on.
pub(crate) struct Manner {
    /// Whether standard input is.
    pub(crate) stdin: bool,
    /// Whether the other side is a terminal, which has to have the size of this one.
    pub(crate) terminal: bool,
    /// What is typed to leave; not passed on.
    pub(crate) detach_keys: Option<DetachKeys>,
}

/// How a conversation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// The other side did, with this code.
    Exited(i64),
    /// The person left.
    Detached,
    /// A signal asked this side for an end, while it had the terminal.
    Signalled(SignalKind),
}

/// Where the output goes.
pub(crate) enum Sink<'a> {
    Passed(&'a Output),
    Kept(Kept),
}

/// What was written.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Sink<'_> {
    pub(crate) fn stdout(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        match self {
            Self::Passed(output) => output.write(bytes)?,
            Self::Kept(kept) => kept.stdout.extend_from_slice(bytes),
        }
        Ok(())
    }

    pub(crate) fn stderr(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        match self {
            Self::Passed(output) => output.write_beside(bytes)?,
            Self::Kept(kept) => kept.stderr.extend_from_slice(bytes),
        }
        Ok(())
    }
}

/// Passes everything on, both ways, until one side ends it. The terminal is taken meanwhile, if there is one on both sides.
pub(crate) async fn converse(
    connection: ExecConnection,
    manner: Manner,
    sink: &mut Sink<'_>,
) -> Result<Ended, CliError> {
    let taken = |source| CliError::io("the terminal cannot be taken", source);
    let raw = if manner.stdin && manner.terminal { RawMode::enter().map_err(taken)? } else { None };
    // Without a terminal to give back they end this process as they end any.
    let mut signals = raw.is_some().then(EndSignals::listen).transpose().map_err(taken)?;
    let (mut to_broker, mut from_broker) = connection.split();
    let forward = forward(&mut to_broker, manner);
    let mut forward = std::pin::pin!(forward);
    let mut forwards = true;
    loop {
        // All branches are cancel-safe: the forwarding is pinned outside, the stream keeps what has come, and so do the signals.
        let frame = tokio::select! {
            frame = from_broker.next() => frame,
            Some(kind) = next(&mut signals) => return Ok(Ended::Signalled(kind)),
            forwarded = &mut forward, if forwards => {
                if let Ok(Forwarded::Detached) = forwarded {
                    return Ok(Ended::Detached);
                }
                // Whatever else ended it, the last words of the other side are still to come.
                forwards = false;
                continue;
            }
        };
        match frame {
            Some(Ok(Frame::Stdout(bytes))) => sink.stdout(&bytes)?,
            Some(Ok(Frame::Stderr(bytes))) => sink.stderr(&bytes)?,
            Some(Ok(Frame::Exit(code))) => return Ok(Ended::Exited(code)),
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

/// The next signal; none if they are not listened to.
async fn next(signals: &mut Option<EndSignals>) -> Option<SignalKind> {
    Some(signals.as_mut()?.next().await)
}

/// Why nothing more is passed on.
enum Forwarded {
    /// There is nothing more.
    All,
    /// The keys to leave were typed.
    Detached,
}

/// Passes on standard input and the size of the terminal, each if it was asked for.
async fn forward(
    to_broker: &mut SplitSink<ExecConnection, Frame>,
    mut manner: Manner,
) -> std::io::Result<Forwarded> {
    let mut resized = signal(SignalKind::window_change())?;
    let mut input = stdin();
    let mut buffer = BytesMut::with_capacity(MAX_PAYLOAD.min(64 << 10));
    // Where nothing is shown in a terminal there is no size.
    let has_size = manner.terminal && terminal::is_there();
    if !manner.stdin && !has_size {
        return Ok(Forwarded::All);
    }
    loop {
        buffer.reserve(8 << 10);
        // Both branches are cancel-safe (tokio says so of `read_buf` and `recv`).
        let frame = tokio::select! {
            // Input that cannot be read has ended too, as far as the other side is concerned.
            read = input.read_buf(&mut buffer), if manner.stdin => match read.unwrap_or(0) {
                0 => {
                    manner.stdin = false;
                    Frame::StdinEnd
                }
                _ => {
                    let typed = Bytes::from(buffer.split());
                    let Some(keys) = &mut manner.detach_keys else {
                        to_broker.send(Frame::Stdin(typed)).await?;
                        continue;
                    };
                    let (passed_on, leaves) = keys.take(&typed);
                    if !passed_on.is_empty() {
                        to_broker.send(Frame::Stdin(passed_on.into())).await?;
                    }
                    if leaves {
                        return Ok(Forwarded::Detached);
                    }
                    continue;
                }
            },
            Some(()) = resized.recv(), if has_size => Frame::Resize(terminal::size()),
            else => return Ok(Forwarded::All),
        };
        to_broker.send(frame).await?;
    }
}

/// The code as a process can have it.
pub(crate) fn exit_code(code: i64) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_cut_to_a_byte_as_a_shell_does() {
        assert_eq!([0, 1, 137, 256, -1].map(exit_code), [0, 1, 137, 0, 255]);
    }
}
