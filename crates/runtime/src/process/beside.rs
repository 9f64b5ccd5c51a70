//! Commands that run beside an agent: with its variables, in its directory, and ended with it.
//!
//! They are children of the broker, whose death closes their pipes. They carry the agent's mark, so that stopping the
//! agent, or its own end, ends them too.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::becoming::cannot_execute;
use super::ending::is_running;
use super::environment;
use super::folder::Folder;
use super::processes::not_running;
use super::record::{AgentRecord, Left};
use super::table::MARK;
use crate::{Attached, ErrorKind, ExecRequest, LogStream, Output, RuntimeError};

const CHUNK: usize = 16 * 1024;
/// Pieces under way to a slow reader, who so slows the command down.
const PIECES: usize = 16;
/// A pipe that stays silent so long after the command's end is only held open by what the command left running.
const SILENCE: Duration = Duration::from_millis(100);

/// A command with all that it needs.
pub(super) struct Beside {
    pub(super) command: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) workdir: PathBuf,
}

impl Beside {
    /// What the request means for this agent. That the program is there is seen here, for a terminal's sake: there
    /// the command's start is not reported back.
    pub(super) fn new(agent: &AgentRecord, request: &ExecRequest) -> Result<Self, RuntimeError> {
        let Some(program) = request.command.first() else {
            return Err(RuntimeError::new(ErrorKind::Invalid, "there is no command to run"));
        };
        let mark = (MARK.to_owned(), agent.id.clone());
        let env: Vec<_> = agent.env.iter().chain(&request.env).cloned().chain([mark]).collect();
        let workdir =
            request.workdir.as_ref().map_or_else(|| agent.workdir.clone(), |dir| agent.workdir.join(dir));
        if !workdir.is_dir() {
            let message = format!("the directory {} is not there", workdir.display());
            return Err(RuntimeError::new(ErrorKind::Invalid, message));
        }
        find_program(program, environment::value(&env, "PATH").unwrap_or_default(), &workdir)
            .map_err(|error| command_error(program, &error))?;
        Ok(Self { command: request.command.clone(), env, workdir })
    }

    /// Runs it on pipes.
    pub(super) fn run(&self, folder: &Folder, with_input: bool) -> Result<Attached, RuntimeError> {
        let (program, arguments) = self.command.split_first().expect("an empty command was refused");
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        // Its own group, so that Ctrl-C at a broker in the foreground does not reach it.
        command.current_dir(&self.workdir).process_group(0);
        command.stdin(if with_input { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| command_error(program, &error))?;
        confirm(folder, &mut child)?;

        let ended = CancellationToken::new();
        let (sender, output) = channel();
        let stdout = child.stdout.take().expect("standard output was asked for");
        let stderr = child.stderr.take().expect("standard error was asked for");
        tokio::spawn(read(stdout, Output::Stdout, sender.clone(), ended.clone()));
        tokio::spawn(read(stderr, Output::Stderr, sender, ended.clone()));
        let input = child.stdin.take().map(|stdin| write_to(stdin, ended.clone()));
        Ok(Attached { output: stream(output), input, resize: None, exit: exit_of(child, ended) })
    }
}

/// Ends the command again if the agent has ended meanwhile, so that nothing runs beside what is gone.
pub(super) fn confirm(folder: &Folder, child: &mut Child) -> Result<(), RuntimeError> {
    let is_wanted = || -> Result<bool, RuntimeError> {
        let may_come = folder.exited()?.is_none_or(|exited| exited.left == Left::Descendants);
        Ok(may_come && is_running(folder.life()?.as_ref()))
    };
    let outcome =
        is_wanted().and_then(|is_wanted| is_wanted.then_some(()).ok_or_else(|| not_running(folder)));
    outcome.inspect_err(|_| {
        // It can only fail for a command that has ended by itself.
        let _has_ended = child.start_kill();
    })
}

/// The pieces that [`read`] sends.
pub(super) fn stream(output: mpsc::Receiver<Output>) -> LogStream {
    Box::pin(ReceiverStream::new(output).map(Ok))
}

/// A channel for [`read`]: the readers send and end it, who is attached receives.
pub(super) fn channel() -> (mpsc::Sender<Output>, mpsc::Receiver<Output>) {
    mpsc::channel(PIECES)
}

/// Passes on what the command writes, until the end of the file, or until silence after the command's end.
pub(super) async fn read(
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
pub(super) fn write_to(
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
pub(super) fn exit_of(
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

fn exit_code(status: ExitStatus) -> i64 {
    let signalled = || 128 + status.signal().unwrap_or_default();
    status.code().unwrap_or_else(signalled).into()
}

fn command_error(program: &str, error: &io::Error) -> RuntimeError {
    let failure = cannot_execute(program, error);
    RuntimeError::new(failure.reason.kind(), failure.message)
}

/// Whether a program would be found and may be executed.
fn find_program(program: &str, path: &str, workdir: &Path) -> io::Result<()> {
    if program.contains('/') {
        return is_program(&workdir.join(program));
    }
    let mut result = Err(io::ErrorKind::NotFound.into());
    for directory in path.split(':') {
        match is_program(&workdir.join(directory).join(program)) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => result = Err(error),
            Err(_) => {}
        }
    }
    result
}

fn is_program(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(rustix::fs::access(path, rustix::fs::Access::EXEC_OK)?)
}
