//! Commands beside an agent, over an upgraded connection (see `api::exec`).

use std::sync::Arc;

use api::exec::{Frame, FrameCodec, MAX_PAYLOAD, PROTOCOL};
use api::{Code, ExecRequest, Problem};
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
use pool::environment;
use runtime::{Attached, Output, TerminalSize};
use tokio::sync::mpsc;
use tokio_util::codec::Framed;

use super::agents::key;
use super::problem::Refusal;
use crate::core::Core;
use crate::error::OperationError;
use crate::lifecycle::runtime_error;
use crate::model::Stage;
use crate::spec::invalid;

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
    let upgrade =
        request.extensions_mut().remove::<OnUpgrade>().filter(|_| asks_for_upgrade(request.headers()));
    let Some(upgrade) = upgrade else {
        let problem = format!("this call needs the headers `Connection: Upgrade` and `Upgrade: {PROTOCOL}`");
        return Err(Refusal::new(Code::InvalidRequest, problem));
    };
    let Json(wanted) = Json::<ExecRequest>::from_request(request, &()).await?;
    let record = core.agent(&key).ok_or_else(|| core.unknown(&key))?;
    let (Stage::Running, Some(id)) = (record.stage, &record.container) else {
        return Err(OperationError::NotRunning { key }.into());
    };
    let runtime = core.runtime_of(&record)?;
    let failed = |source| runtime_error(&record, source);
    let attached = runtime.exec(id, &meant(wanted)?).await.map_err(failed)?;
    let ended = core.shutdown.clone().cancelled_owned();
    tokio::spawn(async move {
        let frames = match upgrade.await {
            Ok(connection) => Framed::new(TokioIo::new(connection), FrameCodec),
            Err(error) => return tracing::debug!(%error, "a client did not go on with its command"),
        };
        tokio::select! {
            () = relay(frames, attached) => {}
            () = ended => {}
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, PROTOCOL)
        .body(Body::empty());
    response.map_err(|error| OperationError::Lost(error.to_string()).into())
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes()))
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

/// Carries frames both ways until the command has ended and all that it wrote was sent.
async fn relay<T>(frames: Framed<T, FrameCodec>, attached: Attached)
where
    Framed<T, FrameCodec>: Stream<Item = std::io::Result<Frame>> + Sink<Frame, Error = std::io::Error>,
{
    let (mut to_client, from_client) = frames.split();
    let Attached { mut output, input, resize, exit } = attached;
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
            Err(error) => Frame::Failed(error.to_string()),
        };
        to_client.send(last).await
    };
    let gone = read(from_client, input, resize);
    tokio::select! {
        result = written => if let Err(error) = result {
            tracing::debug!(%error, "a client went away before its command had ended");
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
