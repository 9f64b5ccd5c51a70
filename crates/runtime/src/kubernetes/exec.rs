//! Commands beside the agent, in its container, and the agent's own streams.

use bytes::Bytes;
use futures_util::FutureExt;
use kube::Client;
use kube::core::Status;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use url::form_urlencoded::Serializer;

use super::pod::CONTAINER;
use super::refusal::broken_off;
use super::session::{self, Io};
use super::spdy::{Connection, Outgoing, Reading};
use crate::{Attached, ErrorKind, ExecRequest, Output, RuntimeError, Streams, TerminalSize};

/// The protocol of the streams: the first that tells the exit code.
const PROTOCOL: &str = "v4.channel.k8s.io";
const DOING: &str = "run the command";
/// Pieces under way to a slow reader, who so slows the command down.
const PIECES: usize = 16;

/// Runs the command; `path` is that of the pod's exec.
pub(super) async fn run(
    client: &Client,
    path: &str,
    request: &ExecRequest,
) -> Result<Attached, RuntimeError> {
    let wanted = Wanted { stdin: request.stdin, terminal: request.terminal.is_some() };
    let (streams, status) = open(client, &path_with_query(path, wanted, &command(request)), wanted).await?;
    if let (Some(sizes), Some(size)) = (&streams.resize, request.terminal) {
        // Its receiver was just made, and has room for more than one.
        let _has_room = sizes.try_send(size);
    }
    let exit = async move {
        let gone = || RuntimeError::new(ErrorKind::Other, "the exit code was lost");
        exit_code(&status.await.map_err(|_| gone())??)
    };
    Ok(Attached { streams, exit: exit.boxed() })
}

/// Attaches to the agent's own streams, which are as `wanted`; `path` is that of the pod's attach.
pub(super) async fn attach(client: &Client, path: &str, wanted: Wanted) -> Result<Streams, RuntimeError> {
    // What the status says is seen in the pod as well, and there with the exit code.
    Ok(open(client, &path_with_query(path, wanted, &[]), wanted).await?.0)
}

/// Which streams are wanted, beside the output.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) terminal: bool,
}

/// Opens the streams, and gives what will be told in the end.
async fn open(
    client: &Client,
    path: &str,
    wanted: Wanted,
) -> Result<(Streams, oneshot::Receiver<Result<Vec<u8>, RuntimeError>>), RuntimeError> {
    let mut session = session::open(client, DOING, path, &[PROTOCOL]).await?;
    let lost = |error: std::io::Error| broken_off(DOING, &error);
    let open =
        async |session: &mut Connection<Io>, kind| session.open(&[("streamtype", kind)]).await.map_err(lost);
    // Nothing begins before all of them are open.
    let (_, status) = open(&mut session, "error").await?;
    let stdin = if wanted.stdin { Some(open(&mut session, "stdin").await?.0) } else { None };
    let (_, stdout) = open(&mut session, "stdout").await?;
    let stderr = if wanted.terminal { None } else { Some(open(&mut session, "stderr").await?.1) };
    let resize = if wanted.terminal { Some(open(&mut session, "resize").await?.0) } else { None };

    // The readers send and end it, who is attached receives.
    let (sender, output) = mpsc::channel(PIECES);
    let mut readers = vec![tokio::spawn(read(stdout, Output::Stdout, sender.clone()))];
    readers.extend(stderr.map(|stderr| tokio::spawn(read(stderr, Output::Stderr, sender.clone()))));
    let (ended, told) = oneshot::channel();
    tokio::spawn(async move {
        let all = async {
            let status = whole(status).await;
            for reader in readers {
                // It can only fail by a panic, which is told elsewhere.
                drop(reader.await);
            }
            status
        };
        let status = tokio::select! {
            status = all => Some(status),
            // Whoever is no longer attached needs no connection, which would else last as long as the agent.
            () = sender.closed() => None,
        };
        // The connection has been needed until here.
        drop(session);
        if let Some(status) = status {
            drop(ended.send(status));
        }
    });
    let streams = Streams {
        output: Box::pin(ReceiverStream::new(output).map(Ok)),
        input: stdin.map(written),
        resize: resize.map(resized),
    };
    Ok((streams, told))
}

fn path_with_query(path: &str, wanted: Wanted, command: &[String]) -> String {
    let mut query = Serializer::new(String::new());
    query.append_pair("container", CONTAINER).append_pair("stdout", "true");
    for (name, is_wanted) in [("stdin", wanted.stdin), ("stderr", !wanted.terminal), ("tty", wanted.terminal)]
    {
        if is_wanted {
            query.append_pair(name, "true");
        }
    }
    for argument in command {
        query.append_pair("command", argument);
    }
    format!("{path}?{}", query.finish())
}

/// The command, behind what sets its directory and its variables: Kubernetes itself takes neither.
fn command(request: &ExecRequest) -> Vec<String> {
    let mut command = Vec::new();
    if let Some(directory) = &request.workdir {
        command.extend(["sh", "-c", "cd \"$1\" && shift && exec \"$@\"", "sh"].map(str::to_owned));
        command.push(directory.display().to_string());
    }
    if !request.env.is_empty() {
        command.push("env".to_owned());
        command.extend(request.env.iter().map(|(name, value)| format!("{name}={value}")));
    }
    command.extend(request.command.iter().cloned());
    command
}

async fn read(mut from: Reading, wrap: fn(Bytes) -> Output, to: mpsc::Sender<Output>) {
    while let Some(Ok(piece)) = from.recv().await {
        if to.send(wrap(piece)).await.is_err() {
            // No one looks any more; what comes is taken all the same, so that the other streams go on.
            while from.recv().await.is_some() {}
        }
    }
}

/// All that comes on the stream of the status.
async fn whole(mut status: Reading) -> Result<Vec<u8>, RuntimeError> {
    let mut told = Vec::new();
    while let Some(piece) = status.recv().await {
        match piece {
            Ok(piece) => told.extend_from_slice(&piece),
            // Some nodes cut the stream off once they have told all.
            Err(_) if !told.is_empty() => break,
            Err(error) => return Err(broken_off(DOING, &error)),
        }
    }
    Ok(told)
}

fn written(outgoing: Outgoing<Io>) -> mpsc::Sender<Bytes> {
    // Who is attached sends and ends it.
    let (sender, mut receiver) = mpsc::channel::<Bytes>(PIECES);
    tokio::spawn(async move {
        while let Some(data) = receiver.recv().await {
            // A command may close its input and go on; then the rest is not wanted.
            if outgoing.write(&data).await.is_err() {
                return;
            }
        }
        drop(outgoing.finish().await);
    });
    sender
}

fn resized(outgoing: Outgoing<Io>) -> mpsc::Sender<TerminalSize> {
    // Who is attached sends and ends it; sizes come one at a time, from a person's hand.
    let (sender, mut receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(TerminalSize { columns, rows }) = receiver.recv().await {
            let size = serde_json::json!({ "Width": columns, "Height": rows }).to_string();
            if outgoing.write(size.as_bytes()).await.is_err() {
                return;
            }
        }
    });
    sender
}

/// The exit code in the status that ends a command.
fn exit_code(told: &[u8]) -> Result<i64, RuntimeError> {
    let status: Status = serde_json::from_slice(told).map_err(|error| {
        RuntimeError::new(ErrorKind::Other, "kubernetes did not tell how the command ended").source(error)
    })?;
    if status.is_success() {
        return Ok(0);
    }
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let code = causes.filter(|cause| cause.reason == "ExitCode").find_map(|cause| cause.message.parse().ok());
    code.ok_or_else(|| {
        let is_missing = ["executable file not found", "no such file or directory"];
        let is_missing = is_missing.iter().any(|needle| status.message.contains(needle));
        let kind = if is_missing { ErrorKind::Command } else { ErrorKind::Other };
        RuntimeError::new(kind, format!("kubernetes cannot {DOING}: {}", status.message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_tells_the_exit_code() {
        let code = |text: &str| exit_code(text.as_bytes());
        assert_eq!(code(r#"{"metadata":{},"status":"Success"}"#).unwrap(), 0);
        let failed = r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: exit status 42",
            "reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"42"}]}}"#;
        assert_eq!(code(failed).unwrap(), 42);
        let missing = r#"{"status":"Failure","message":"exec failed: \"nope\": executable file not found in $PATH","code":500}"#;
        assert_eq!(code(missing).unwrap_err().kind, ErrorKind::Command);
        assert_eq!(code("").unwrap_err().kind, ErrorKind::Other);
    }

    #[test]
    fn the_query_holds_the_command_with_its_variables_and_its_directory() {
        let request = ExecRequest {
            command: vec!["echo".to_owned(), "a b&c".to_owned()],
            env: vec![("A".to_owned(), "1".to_owned())],
            workdir: Some("/tmp".into()),
            stdin: true,
            terminal: None,
        };
        let wanted = Wanted { stdin: request.stdin, terminal: false };
        let path = path_with_query("/exec", wanted, &command(&request));
        assert!(path.starts_with("/exec?container=agent&stdout=true&stdin=true&stderr=true&command=sh&"));
        assert!(path.ends_with("command=env&command=A%3D1&command=echo&command=a+b%26c"), "{path}");
    }
}
