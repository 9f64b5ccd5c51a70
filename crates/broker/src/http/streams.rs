//! Logs and events, which stream.

use std::convert::Infallible;
use std::sync::Arc;

use api::{Event, Problem};
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use runtime::{ErrorKind, LogRequest, Output, RuntimeError};
use serde::Deserialize;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use utoipa::IntoParams;

use super::agents::key;
use super::problem::Refusal;
use crate::core::Core;
use crate::error::OperationError;
use crate::lifecycle::runtime_error;

/// Which part of a log is wanted.
#[derive(Deserialize, IntoParams)]
pub(super) struct Wanted {
    /// Go on with what is written later, until the agent ends.
    #[serde(default)]
    follow: bool,
    /// Only the last so many lines.
    tail: Option<usize>,
}

/// What the agent wrote on its standard output and error.
#[utoipa::path(get, path = "/v1/agents/{project}/{name}/logs", tag = "agents",
    params(("project" = String, Path), ("name" = String, Path), Wanted),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 404, body = Problem),
        (status = 502, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn logs(
    State(core): State<Arc<Core>>,
    path: Result<Path<(String, String)>, PathRejection>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Refusal> {
    let (key, Query(wanted)) = (key(path)?, wanted?);
    let record = core.agent(&key).ok_or_else(|| core.unknown(&key))?;
    let nothing_left = || {
        let hint = "the logs of an agent go with its container; start it again to have new ones".to_owned();
        let reason = record.reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
        let message = format!("there is nothing left of {key} that could have written anything{reason}");
        OperationError::Conflict { message, hint, details: serde_json::Map::new() }
    };
    let id = record.container.clone().ok_or_else(nothing_left)?;
    let runtime = core.runtime_of(&record)?;
    let request = LogRequest { tail: wanted.tail, follow: wanted.follow };
    let log = runtime.logs(&id, &request).await;
    let log = log.map_err(|source| match source.kind {
        ErrorKind::NotFound => nothing_left(),
        _ => runtime_error(&record, source),
    })?;
    let bytes = log.map(|output| output.map(|(Output::Stdout(bytes) | Output::Stderr(bytes))| bytes));
    let until_the_end = bytes.take_until(core.shutdown.clone().cancelled_owned());
    let shutdown = core.shutdown.clone();
    // A log that is followed and just ends is taken for that of an agent that has ended: one that the broker ends is broken off.
    let broken_off = stream::once(async move { wanted.follow && shutdown.is_cancelled() });
    let broken_off = broken_off.filter_map(async |is_so| is_so.then_some(Err(ended())));
    let body = Body::from_stream(until_the_end.chain(broken_off));
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

fn ended() -> RuntimeError {
    RuntimeError::new(ErrorKind::Unreachable, "the broker is being shut down")
}

/// Every change of an agent, lease or port, and of what the broker warns of, as server-sent events.
#[utoipa::path(get, path = "/v1/events", tag = "broker", params(("agent" = Option<String>, Query)),
    responses((status = 200, body = Event, content_type = "text/event-stream"), (status = 400, body = Problem)))]
pub(super) async fn events(
    State(core): State<Arc<Core>>,
    wanted: Result<Query<api::Events>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Refusal> {
    let Query(wanted) = wanted?;
    let events = BroadcastStream::new(core.events.subscribe()).filter_map(move |event| {
        let event = event.unwrap_or_else(|BroadcastStreamRecvError::Lagged(count)| Event::Missed { count });
        let shown = wanted.agent.as_deref().is_none_or(|agent| concerns(&event, agent));
        std::future::ready(shown.then(|| Ok(on_the_wire(&event))))
    });
    let until_the_end = events.take_until(core.shutdown.clone().cancelled_owned());
    Ok(Sse::new(until_the_end).keep_alive(KeepAlive::default()))
}

fn on_the_wire(event: &Event) -> sse::Event {
    let data = serde_json::to_string(event).expect("an event has only string keys and plain values");
    sse::Event::default().event(event.name()).data(data)
}

fn concerns(event: &Event, agent: &str) -> bool {
    let is = |project: &str, name: &str| agent.split_once('/') == Some((project, name));
    match event {
        Event::Agent { agent } => is(&agent.project, &agent.name),
        Event::AgentDeleted { project, name } | Event::Progress { project, name, .. } => is(project, name),
        Event::Pool { .. } | Event::Broker => false,
        Event::Missed { .. } => true,
    }
}
