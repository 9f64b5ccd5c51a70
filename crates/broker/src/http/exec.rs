//! Commands beside an agent, and an agent's own streams, over an upgraded connection (see `api::exec`).

use std::sync::Arc;
use std::time::Duration;

use api::exec::{Frame, FrameCodec, MAX_PAYLOAD, PROTOCOL, STREAMS};
use api::{AttachRequest, Code, ExecRequest, Problem};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pool::{AgentKey, environment};
use runtime::{
    Attached, ErrorKind, Observed, ObservedState, Output, Runtime, RuntimeError, Streams, TerminalSize,
};
use tokio::sync::mpsc;
use tokio_util::codec::Framed;

use super::agents::key;
use super::problem::Refusal;
use crate::core::Core;
use crate::error::OperationError;
use crate::lifecycle::runtime_error;
use crate::model::{AgentRecord, Stage};
use crate::spec::invalid;

/// How long the end of an agent may lag behind that of its streams.
const SETTLING: Duration = Duration::from_secs(5);

/// Runs a command beside an agent. The connection is upgraded to `berthold-exec`.
#[utoipa::path(post, path = "/v1/agents/{project}/{name}/exec", tag = "agents", request_body = ExecRequest,
    params(("project" = String, Path), ("name" = String, Path)),
    responses((status = 101, description = "frames follow, both ways"), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 426, body = Problem),
        (status = 502, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn exec(
    State(core): State<Arc<Core>>,
    path: Result<Path<(String, String)>, PathRejection>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let key = key(path)?;
    let upgrade = upgrade(&mut request)?;
    let Json(wanted) = Json::<ExecRequest>::from_request(request, &()).await?;
    let (record, id, runtime) = running(&core, key)?;
    let wanted = meant(wanted)?;
    let failed = |source| runtime_error(&record, without_directory(source, &wanted));
    let Attached { streams, exit } = runtime.exec(&id, &wanted).await.map_err(failed)?;
    let exit = async { exit.await.map_err(|error| error.to_string()) };
    converse(&core, upgrade, streams, exit);
    switching(&[])
}

/// Attaches to an agent's own standard streams. The connection is upgraded to `berthold-exec`; the header `berthold-streams` says
/// which of `stdin` and `terminal` there is. The exit code is sent once the agent has ended.
#[utoipa::path(post, path = "/v1/agents/{project}/{name}/attach", tag = "agents", request_body = AttachRequest,
    params(("project" = String, Path), ("name" = String, Path)),
    responses((status = 101, description = "frames follow, both ways"), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 502, body = Problem),
        (status = 503, body = Problem)))]
pub(super) async fn attach(
    State(core): State<Arc<Core>>,
    path: Result<Path<(String, String)>, PathRejection>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let key = key(path)?;
    let upgrade = upgrade(&mut request)?;
    let Json(wanted) = Json::<AttachRequest>::from_request(request, &()).await?;
    let (record, id, runtime) = running(&core, key)?;
    let failed = |source| runtime_error(&record, source);
    let streams = runtime.attach(&id, wanted.stdin).await.map_err(failed)?;
    let has = [("stdin", streams.input.is_some()), ("terminal", streams.resize.is_some())];
    let has: Vec<&str> = has.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect();
    converse(&core, upgrade, streams, async move { end_of(runtime.as_ref(), &id, &record.key).await });
    switching(&[(STREAMS, has.join(","))])
}

/// The upgrade that the request asks for.
fn upgrade(request: &mut Request) -> Result<OnUpgrade, Refusal> {
    let upgrade =
        request.extensions_mut().remove::<OnUpgrade>().filter(|_| asks_for_upgrade(request.headers()));
    upgrade.ok_or_else(|| {
        let problem = format!("this call needs the headers `Connection: Upgrade` and `Upgrade: {PROTOCOL}`");
        Refusal::new(Code::InvalidRequest, problem)
    })
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes()))
}

/// The agent of that name, which runs, with its id on its runtime.
fn running(core: &Core, key: AgentKey) -> Result<(AgentRecord, String, Arc<dyn Runtime>), Refusal> {
    let record = core.agent(&key).ok_or_else(|| core.unknown(&key))?;
    let (Stage::Running, Some(id)) = (record.stage, record.container.clone()) else {
        return Err(OperationError::NotRunning { key }.into());
    };
    let runtime = core.runtime_of(&record)?;
    Ok((record, id, runtime))
}

/// Carries frames both ways as soon as the connection is upgraded, until the streams end or the broker does.
fn converse(
    core: &Core,
    upgrade: OnUpgrade,
    streams: Streams,
    exit: impl Future<Output = Result<i64, String>> + Send + 'static,
) {
    let ended = core.shutdown.clone().cancelled_owned();
    tokio::spawn(async move {
        let frames = match upgrade.await {
            Ok(connection) => Framed::new(TokioIo::new(connection), FrameCodec),
            Err(error) => return tracing::debug!(%error, "a client did not go on after its upgrade"),
        };
        tokio::select! {
            () = relay(frames, streams, exit) => {}
            () = ended => {}
        }
    });
}

fn switching(headers: &[(&str, String)]) -> Result<Response, Refusal> {
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, PROTOCOL);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(Body::empty()).map_err(|error| OperationError::Lost(error.to_string()).into())
}

/// The code with which an agent has ended whose streams are over.
async fn end_of(runtime: &dyn Runtime, id: &str, key: &AgentKey) -> Result<i64, String> {
    match runtime.wait_for_end(id, SETTLING).await.map_err(|error| error.to_string())? {
        Some(Observed { state: ObservedState::Exited { code: Some(code), .. }, .. }) => Ok(code),
        Some(Observed { state: ObservedState::Exited { code: None, .. }, .. }) => {
            Err(format!("{key} has ended, with an unknown code"))
        }
        Some(_) => Err(format!("the connection to {key} broke off; it goes on")),
        None => Err(format!("{key} has ended and was removed")),
    }
}

fn meant(request: ExecRequest) -> Result<runtime::ExecRequest, OperationError> {
    if request.command.first().is_none_or(String::is_empty) {
        let hint = "add it after `--`: `berthold exec NAME -- COMMAND`".to_owned();
        return Err(invalid("there is no command to run".to_owned(), Some(hint)));
    }
    let pair = |text: &String| match text.split_once('=') {
        Some((name, _)) if environment::is_reserved(name) => {
            Err(invalid(format!("the variable {name} is set by the broker alone"), None))
        }
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(invalid(format!("the variable `{text}` is not of the form NAME=VALUE"), None)),
    };
    Ok(runtime::ExecRequest {
        env: request.env.iter().map(pair).collect::<Result<_, _>>()?,
        command: request.command,
        workdir: request.workdir.map(Into::into),
        stdin: request.stdin,
        terminal: request.terminal.map(|size| TerminalSize { columns: size.columns, rows: size.rows }),
    })
}

/// The error of a command that cannot run where it is to run, which is as one that cannot be run at all: nothing is wrong with the
/// request itself.
fn without_directory(error: RuntimeError, wanted: &runtime::ExecRequest) -> RuntimeError {
    let directory = wanted.workdir.as_ref().map(|directory| directory.display().to_string());
    match directory
        .filter(|it| error.kind == ErrorKind::Invalid && it.len() > 1 && error.message.contains(it.as_str()))
    {
        Some(directory) => {
            let message = format!("no command can run in {directory}, which is no directory inside");
            RuntimeError::new(ErrorKind::Command, message)
        }
        None => error,
    }
}

/// Carries frames both ways until the streams have ended and all that came of them was sent, and with what they ended.
async fn relay<T>(
    frames: Framed<T, FrameCodec>,
    streams: Streams,
    exit: impl Future<Output = Result<i64, String>>,
) where
    Framed<T, FrameCodec>: Stream<Item = std::io::Result<Frame>> + Sink<Frame, Error = std::io::Error>,
{
    let (mut to_client, from_client) = frames.split();
    let Streams { mut output, input, resize } = streams;
    let written = async {
        while let Some(piece) = output.next().await {
            let (bytes, frame): (Bytes, fn(Bytes) -> Frame) = match piece {
                Ok(Output::Stdout(bytes)) => (bytes, Frame::Stdout),
                Ok(Output::Stderr(bytes)) => (bytes, Frame::Stderr),
                Err(error) => return to_client.send(Frame::Failed(error.to_string())).await,
            };
            for start in (0..bytes.len()).step_by(MAX_PAYLOAD) {
                to_client.send(frame(bytes.slice(start..bytes.len().min(start + MAX_PAYLOAD)))).await?;
            }
        }
        let last = match exit.await {
            Ok(code) => Frame::Exit(code),
            Err(reason) => Frame::Failed(reason),
        };
        to_client.send(last).await
    };
    let gone = read(from_client, input, resize);
    tokio::select! {
        result = written => if let Err(error) = result {
            tracing::debug!(%error, "a client went away before its streams had ended");
        },
        () = gone => {}
    }
}

/// Takes what the client sends; returns only when the client has gone.
async fn read(
    mut from_client: impl Stream<Item = std::io::Result<Frame>> + Unpin,
    mut input: Option<mpsc::Sender<Bytes>>,
    resize: Option<mpsc::Sender<TerminalSize>>,
) {
    while let Some(Ok(frame)) = from_client.next().await {
        match frame {
            Frame::Stdin(bytes) => {
                if let Some(sender) = &input
                    && sender.send(bytes).await.is_err()
                {
                    // The command no longer reads; what it still writes is wanted all the same.
                    input = None;
                }
            }
            Frame::StdinEnd => input = None,
            Frame::Resize(size) => {
                // A command that has ended has no terminal to resize.
                if let Some(sender) = &resize
                    && sender.send(TerminalSize { columns: size.columns, rows: size.rows }).await.is_err()
                {
                    tracing::trace!("a resize came after the end of the command");
                }
            }
            Frame::Stdout(_) | Frame::Stderr(_) | Frame::Exit(_) | Frame::Failed(_) => return,
        }
    }
}
