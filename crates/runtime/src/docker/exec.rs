//! A command beside the agent, and the agent's own streams.
//!
//! Docker answers "started" before it starts anything, and writes into the output what went wrong. So [`run`] looks at
//! the command until it has a pid or an exit code, and turns the output of what was never started into an error.

use std::time::Duration;

use bollard::exec::ResizeExecOptions;
use bollard::models::{ContainerConfig, ExecConfig, ExecInspectResponse};
use bollard::query_parameters::ResizeContainerTTYOptions;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::ReaderStream;

use super::asking::Asking;
use super::limits::ANSWER;
use super::output::{self, Source};
use super::wire::Hijacked;
use super::{Docker, create, refusal};
use crate::{Attached, ErrorKind, ExecRequest, LogStream, Output, RuntimeError, Streams, TerminalSize};

/// How long a command may take to get a pid, and how long its exit code may lag behind the end of its output.
const SETTLING: Duration = Duration::from_secs(30);

/// How long a command that could not be started is read for the reason, and how far.
const REASON: Duration = Duration::from_secs(2);
const REASON_LENGTH: usize = 16 * 1024;

/// The channels to a command are read by the tasks below, which end when the caller drops its ends or the command its own;
/// so many pieces wait in them before a sender does.
const PIECES: usize = 16;

/// Runs the command of `request` in the container `id`.
pub(super) async fn run(
    docker: &Docker,
    asking: &Asking,
    id: &str,
    request: &ExecRequest,
) -> Result<Attached, RuntimeError> {
    if request.command.is_empty() {
        return Err(RuntimeError::new(ErrorKind::Invalid, "there is no command to run"));
    }
    let terminal = request.terminal.is_some();
    let config = ExecConfig {
        attach_stdin: Some(request.stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(terminal),
        console_size: request.terminal.map(|size| vec![size.rows.into(), size.columns.into()]),
        env: Some(create::variables(&request.env)),
        cmd: Some(request.command.clone()),
        working_dir: request.workdir.as_ref().map(|workdir| workdir.to_string_lossy().into_owned()),
        ..ExecConfig::default()
    };
    let command = asking.within(ANSWER, docker.client.create_exec(id, config)).await?.id;
    let start = serde_json::json!({ "Detach": false, "Tty": terminal });
    let path = format!("/exec/{command}/start");
    let connection =
        asking.within(SETTLING, docker.wire.hijack(&path, start.to_string().into_bytes())).await?;

    let (reader, writer) = tokio::io::split(connection);
    let source: Source = ReaderStream::new(reader).map(|bytes| Ok(bytes?)).boxed();
    let mut output = output::taken_apart(source, terminal, asking.clone());
    if may_have_failed_to_start(docker, asking, &command).await? {
        let beginning = beginning(&mut output).await;
        if let Some(error) = reason(asking, &beginning) {
            return Err(error);
        }
        output = stream::iter(beginning.into_iter().map(Ok)).chain(output).boxed();
    }

    let resize = match request.terminal {
        Some(size) => Some(forward_sizes(docker, asking, command.clone(), size).await?),
        None => None,
    };
    let input = request.stdin.then(|| forward_input(writer, true));
    let (docker, asking) = (docker.clone(), asking.clone());
    let exit = Box::pin(async move { exit_code(&docker, &asking, &command).await });
    Ok(Attached { streams: Streams { output, input, resize }, exit })
}

/// Attaches to the streams of the container `id`, which runs and was created as `config` says.
pub(super) async fn attach(
    docker: &Docker,
    asking: &Asking,
    id: &str,
    config: &ContainerConfig,
    stdin: bool,
) -> Result<Streams, RuntimeError> {
    let terminal = config.tty.unwrap_or(false);
    let stdin = stdin && config.open_stdin.unwrap_or(false);
    let path = format!(
        "/containers/{id}/attach?stream=true&stdin={stdin}&stdout=true&stderr=true&detachKeys={NO_DETACHING}"
    );
    let connection = asking.within(SETTLING, docker.wire.hijack(&path, Vec::new())).await?;
    let (reader, writer) = tokio::io::split(connection);
    let mut source: Source = ReaderStream::new(reader).map(|bytes| Ok(bytes?)).boxed();
    if stdin && !terminal && docker.engine.closes_input() {
        source = kept(source);
    }
    let resize = terminal.then(|| {
        let (client, id) = (docker.client.clone(), id.to_owned());
        sizes(move |size: TerminalSize| {
            let (client, id) = (client.clone(), id.clone());
            let options = ResizeContainerTTYOptions { w: size.columns.into(), h: size.rows.into() };
            async move { client.resize_container_tty(&id, options).await.is_ok() }
        })
    });
    // Podman would close the agent's input with that of the attachment.
    let input = stdin.then(|| forward_input(writer, false));
    Ok(Streams { output: output::taken_apart(source, terminal, asking.clone()), input, resize })
}

/// `source`, which is read to its end also when nobody listens any more, so that its connection lives as long as the container.
fn kept(mut source: Source) -> Source {
    // The task below sends and ends it, who is attached receives.
    let (sender, pieces) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        while let Some(piece) = source.next().await {
            // What nobody listens to is in the log.
            let _gone = sender.send(piece).await;
        }
    });
    ReceiverStream::new(pieces).boxed()
}

/// Keys that nobody types: who is attached has its own way to leave. An engine that is told of none takes Docker's.
const NO_DETACHING: &str = "ctrl-%5E,ctrl-%5D,ctrl-%5E,ctrl-%5D,ctrl-_,ctrl-%5E,ctrl-%5D";

/// Waits until the command runs or has run, and tells whether it may never have done so.
///
/// Docker says for certain: what was never started has no pid. Podman refuses to start it in the first place, but shows no
/// pid of what has already ended.
async fn may_have_failed_to_start(
    docker: &Docker,
    asking: &Asking,
    command: &str,
) -> Result<bool, RuntimeError> {
    let deadline = Instant::now() + SETTLING;
    let mut pause = Duration::from_millis(2);
    loop {
        let seen = look_at(docker, asking, command).await?;
        let was_started = seen.pid.is_some_and(|pid| pid != 0);
        match seen.exit_code {
            _ if was_started => return Ok(false),
            Some(code) if seen.running == Some(false) => return Ok(code != 0),
            _ if Instant::now() > deadline => return Err(asking.timed_out(SETTLING)),
            _ => sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// What a command that has ended wrote, as far as a reason for not starting it reaches.
async fn beginning(output: &mut LogStream) -> Vec<Output> {
    let mut beginning = Vec::new();
    let reading = async {
        let mut length = 0;
        while let Some(Ok(piece)) = output.next().await {
            length += content(&piece).len();
            beginning.push(piece);
            if length > REASON_LENGTH {
                break;
            }
        }
    };
    // Whatever has come by then has to do.
    let _elapsed = tokio::time::timeout(REASON, reading).await;
    beginning
}

/// The error, if `output` is what the engine writes for a command that it cannot start.
fn reason(asking: &Asking, output: &[Output]) -> Option<RuntimeError> {
    let told: Vec<u8> = output.iter().flat_map(|piece| content(piece).to_vec()).collect();
    let told = String::from_utf8_lossy(&told);
    if !told.trim_start().starts_with("OCI runtime exec failed") {
        return None;
    }
    let refusal = refusal::classify(None, &told);
    let kind = if refusal.kind == ErrorKind::Other { ErrorKind::Command } else { refusal.kind };
    Some(asking.refused(kind, &refusal.sentence))
}

fn content(piece: &Output) -> &Bytes {
    match piece {
        Output::Stdout(bytes) | Output::Stderr(bytes) => bytes,
    }
}

/// The exit code, once the engine has noticed the end.
async fn exit_code(docker: &Docker, asking: &Asking, command: &str) -> Result<i64, RuntimeError> {
    let deadline = Instant::now() + SETTLING;
    let mut pause = Duration::from_millis(2);
    loop {
        let seen = look_at(docker, asking, command).await?;
        match seen.exit_code {
            Some(code) if seen.running != Some(true) => return Ok(code),
            _ if Instant::now() > deadline => return Err(asking.timed_out(SETTLING)),
            _ => sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

async fn look_at(
    docker: &Docker,
    asking: &Asking,
    command: &str,
) -> Result<ExecInspectResponse, RuntimeError> {
    asking.within(ANSWER, docker.client.inspect_exec(command)).await
}

/// Writes what is sent into a standard input; if that `closes`, then once the sender is dropped.
fn forward_input(mut writer: WriteHalf<Hijacked>, closes: bool) -> mpsc::Sender<Bytes> {
    let (sender, mut pieces) = mpsc::channel::<Bytes>(PIECES);
    tokio::spawn(async move {
        while let Some(piece) = pieces.recv().await {
            // A command may end, or close its input, before all is written: then the rest is for nobody.
            if writer.write_all(&piece).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
        if closes {
            let _the_command_has_ended = writer.shutdown().await;
        }
    });
    sender
}

/// Gives the terminal its size, and then whichever is sent.
async fn forward_sizes(
    docker: &Docker,
    asking: &Asking,
    command: String,
    size: TerminalSize,
) -> Result<mpsc::Sender<TerminalSize>, RuntimeError> {
    let client = docker.client.clone();
    let options = |size: TerminalSize| ResizeExecOptions { width: size.columns, height: size.rows };
    // A command that has already ended has no terminal any more, which is no failure.
    if let Err(error) = asking.within(ANSWER, client.resize_exec(&command, options(size))).await {
        tracing::debug!(%error, "the terminal was not resized");
    }
    Ok(sizes(move |size| {
        let (client, command) = (client.clone(), command.clone());
        async move { client.resize_exec(&command, options(size)).await.is_ok() }
    }))
}

/// How often, and with which pause, a terminal is given a size that it does not take: an engine may refuse one for a moment after
/// an attachment has begun, and a terminal that is gone takes none.
const RESIZING: (usize, Duration) = (20, Duration::from_millis(250));

/// How often, and after which pause, a size is given again that was taken: Podman 4.3 takes one also before its terminal is there, on a busy
/// host, and loses it. To a terminal that has it already it is no news.
const REPEATED: (usize, Duration) = (2, Duration::from_secs(2));

/// Hands each size that is sent to `resize`; the latest alone where one is not taken.
fn sizes<F>(resize: impl Fn(TerminalSize) -> F + Send + 'static) -> mpsc::Sender<TerminalSize>
where
    F: Future<Output = bool> + Send,
{
    let (sender, mut sizes) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        let mut next = sizes.recv().await;
        while let Some(size) = next {
            let (mut refused, mut taken) = (0, 0);
            next = loop {
                let pause = match resize(size).await {
                    true => {
                        taken += 1;
                        REPEATED.1
                    }
                    false => {
                        refused += 1;
                        RESIZING.1
                    }
                };
                if refused == RESIZING.0 || taken > REPEATED.0 {
                    break sizes.recv().await;
                }
                if let Ok(newer) = tokio::time::timeout(pause, sizes.recv()).await {
                    break newer;
                }
            };
        }
    });
    sender
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn a_size_that_is_not_taken_at_first_is_given_again() {
        let (given, shared) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let seen = (Arc::clone(&given), Arc::clone(&shared));
        let sender = sizes(move |size| {
            let (given, taken) = seen.clone();
            async move {
                given.lock().unwrap().push(size.columns);
                let is_taken = given.lock().unwrap().len() > 2;
                if is_taken {
                    taken.lock().unwrap().push(size.columns);
                }
                is_taken
            }
        });
        for columns in [80, 90] {
            sender.send(TerminalSize { columns, rows: 20 }).await.unwrap();
            tokio::time::sleep(RESIZING.1 * 4).await;
        }
        assert_eq!(*given.lock().unwrap(), [80, 80, 80, 90]);
        assert_eq!(*shared.lock().unwrap(), [80, 90]);
    }

    #[tokio::test]
    async fn a_size_that_was_taken_may_have_been_lost() {
        let given = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&given);
        let sender = sizes(move |size| {
            seen.lock().unwrap().push(size.columns);
            std::future::ready(true)
        });
        sender.send(TerminalSize { columns: 80, rows: 20 }).await.unwrap();
        tokio::time::sleep(REPEATED.1 * 4).await;
        assert_eq!(*given.lock().unwrap(), [80, 80, 80]);
        sender.send(TerminalSize { columns: 90, rows: 20 }).await.unwrap();
        tokio::time::sleep(REPEATED.1 / 4).await;
        assert_eq!(given.lock().unwrap().last(), Some(&90));
    }
}
