//! Programs, and the ends of a child process to which someone is attached: what it writes, its input, its exit code.

pub(crate) mod terminal;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::{Attached, ErrorKind, LogStream, Output, RuntimeError, Streams};

const CHUNK: usize = 16 * 1024;
/// Pieces under way to a slow reader, who so slows the command down.
const PIECES: usize = 16;
/// A pipe that stays silent so long after the command's end is only held open by what the command left running.
const SILENCE: Duration = Duration::from_millis(100);

/// The program of that name in the directories of `path`, as the variable PATH has them.
pub(crate) fn program(name: &str, path: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|directory| directory.join(name)).find(|program| program.is_file())
}

/// The ends of a child whose standard output and error are pipes, and perhaps its input.
pub(crate) fn on_pipes(mut child: Child) -> Attached {
    let ended = CancellationToken::new();
    let (sender, output) = channel();
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(read(stdout, Output::Stdout, sender.clone(), ended.clone()));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(read(stderr, Output::Stderr, sender, ended.clone()));
    }
    let input = child.stdin.take().map(|stdin| write_to(stdin, ended.clone()));
    let streams = Streams { output: stream(output), input, resize: None };
    Attached { streams, exit: exit_of(child, ended) }
}

/// The pieces that [`read`] sends.
fn stream(output: mpsc::Receiver<Output>) -> LogStream {
    Box::pin(ReceiverStream::new(output).map(Ok))
}

/// A channel for [`read`]: the readers send and end it, who is attached receives.
fn channel() -> (mpsc::Sender<Output>, mpsc::Receiver<Output>) {
    mpsc::channel(PIECES)
}

/// Passes on what the command writes, until the end of the file, or until silence after the command's end.
async fn read(
    mut from: impl AsyncRead + Unpin,
    wrap: fn(Bytes) -> Output,
    to: mpsc::Sender<Output>,
    ended: CancellationToken,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        // Reading is cancel-safe: a read that is given up has taken nothing.
        let length = tokio::select! {
            biased;
            length = from.read_buf(&mut buffer) => length,
            () = silence_after(&ended) => return,
        };
        // A terminal whose last user is gone answers with an error instead of an end of file.
        if matches!(length, Err(_) | Ok(0)) || to.send(wrap(buffer.split().freeze())).await.is_err() {
            return;
        }
    }
}

async fn silence_after(ended: &CancellationToken) {
    ended.cancelled().await;
    tokio::time::sleep(SILENCE).await;
}

/// Writes what is sent to the command, and closes its input when the sender is dropped.
fn write_to(
    mut input: impl AsyncWrite + Unpin + Send + 'static,
    ended: CancellationToken,
) -> mpsc::Sender<Bytes> {
    // Who is attached sends and ends it.
    let (sender, mut receiver) = mpsc::channel::<Bytes>(PIECES);
    let writing = async move {
        while let Some(data) = receiver.recv().await {
            // A command may close its input and go on; then the rest is not wanted.
            if input.write_all(&data).await.and(input.flush().await).is_err() {
                return;
            }
        }
    };
    tokio::spawn(ended.run_until_cancelled_owned(writing));
    sender
}

/// The command's exit code. The command is waited for even if no one wants to know.
fn exit_of(
    mut child: Child,
    ended: CancellationToken,
) -> futures_util::future::BoxFuture<'static, Result<i64, RuntimeError>> {
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        let status = child.wait().await;
        ended.cancel();
        let _no_one_wants_to_know = sender.send(status);
    });
    async move {
        let lost =
            |error: io::Error| RuntimeError::new(ErrorKind::Other, "the exit code was lost").source(error);
        let status = receiver.await.unwrap_or_else(|_| Err(io::Error::other("the broker is shutting down")));
        status.map(exit_code).map_err(lost)
    }
    .boxed()
}

/// The code of an exit, 128 + n for signal n.
pub(crate) fn exit_code(status: ExitStatus) -> i64 {
    let signalled = || 128 + status.signal().unwrap_or_default();
    status.code().unwrap_or_else(signalled).into()
}
