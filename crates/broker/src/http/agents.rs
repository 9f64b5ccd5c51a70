//! Agents: list, show, start, stop, restart, delete.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use api::{AgentDocument, AgentsDocument, Problem, RestartRequest, StartRequest, StopRequest};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pool::{AgentKey, Name};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::problem::Refusal;
use crate::core::Core;
use crate::error::OperationError;
use crate::model::AgentRecord;
use crate::spec::invalid;

/// Which agents, or leases, are wanted.
#[derive(Deserialize, IntoParams)]
pub(super) struct Filter {
    /// Only those of this project.
    project: Option<String>,
}

impl Filter {
    /// The project, if one was named.
    pub(super) fn project(&self) -> Result<Option<Name>, OperationError> {
        self.project.as_deref().map(name).transpose()
    }
}

type Parts = (String, String);

/// All agents, by project and name.
#[utoipa::path(get, path = "/v1/agents", tag = "agents", params(Filter),
    responses((status = 200, body = AgentsDocument), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(core): State<Arc<Core>>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<AgentsDocument>, Refusal> {
    let project = filter?.0.project()?;
    let wanted: Vec<AgentRecord> = {
        let state = core.state();
        let is_wanted = |record: &&AgentRecord| project.as_ref().is_none_or(|it| *it == record.key.project);
        state.agents.values().filter(is_wanted).cloned().collect()
    };
    let agents = wanted.iter().map(|record| core.shown(record)).collect();
    Ok(Json(AgentsDocument { agents }))
}

/// One agent.
#[utoipa::path(get, path = "/v1/agents/{project}/{name}", tag = "agents",
    params(("project" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = AgentDocument), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(core): State<Arc<Core>>,
    path: Result<Path<Parts>, PathRejection>,
) -> Result<Json<AgentDocument>, Refusal> {
    let key = key(path)?;
    let record = core.agent(&key).ok_or_else(|| core.unknown(&key))?;
    Ok(Json(document(&core, &record)))
}

/// Starts an agent (201), or returns the one that runs (200).
#[utoipa::path(put, path = "/v1/agents/{project}/{name}", tag = "agents", request_body = StartRequest,
    params(("project" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = AgentDocument), (status = 201, body = AgentDocument),
        (status = 400, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem),
        (status = 500, body = Problem), (status = 502, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn start(
    State(core): State<Arc<Core>>,
    path: Result<Path<Parts>, PathRejection>,
    body: Result<Json<StartRequest>, JsonRejection>,
) -> Result<Response, Refusal> {
    let (key, Json(request)) = (key(path)?, body?);
    let wait = request.wait_ms.map(Duration::from_millis);
    let task = Arc::clone(&core);
    let started = operate(&core, async move { task.start(key, request).await }).await?;
    let record = match wait {
        Some(limit) => core.wait_for_answer(started.record, limit).await,
        None => started.record,
    };
    let status = if started.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(document(&core, &record))).into_response())
}

/// Stops an agent. One that is not known is stopped already (204).
#[utoipa::path(post, path = "/v1/agents/{project}/{name}/stop", tag = "agents", request_body = Option<StopRequest>,
    params(("project" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = AgentDocument), (status = 204), (status = 400, body = Problem),
        (status = 500, body = Problem), (status = 502, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn stop(
    State(core): State<Arc<Core>>,
    path: Result<Path<Parts>, PathRejection>,
    Optional(request): Optional<StopRequest>,
) -> Result<Response, Refusal> {
    let key = key(path)?;
    let grace = request.timeout_ms.map(Duration::from_millis);
    let task = Arc::clone(&core);
    let stopped = operate(&core, async move { task.stop(key, grace).await }).await?;
    Ok(optional(&core, stopped.as_ref()))
}

/// Stops an agent if it runs, and starts it again with the ports that it had.
#[utoipa::path(post, path = "/v1/agents/{project}/{name}/restart", tag = "agents", request_body = Option<RestartRequest>,
    params(("project" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = AgentDocument), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem), (status = 502, body = Problem),
        (status = 503, body = Problem)))]
pub(super) async fn restart(
    State(core): State<Arc<Core>>,
    path: Result<Path<Parts>, PathRejection>,
    Optional(request): Optional<RestartRequest>,
) -> Result<Json<AgentDocument>, Refusal> {
    let key = key(path)?;
    let grace = request.timeout_ms.map(Duration::from_millis);
    let task = Arc::clone(&core);
    let mut record = operate(&core, async move { task.restart(key, grace).await }).await?;
    if let Some(limit) = request.wait_ms.map(Duration::from_millis) {
        record = core.wait_for_answer(record, limit).await;
    }
    Ok(Json(document(&core, &record)))
}

/// Stops an agent if it runs, and forgets it. The answer is the agent as it was; one that is not known is gone (204).
#[utoipa::path(delete, path = "/v1/agents/{project}/{name}", tag = "agents",
    params(("project" = String, Path), ("name" = String, Path), Grace),
    responses((status = 200, body = AgentDocument), (status = 204), (status = 400, body = Problem),
        (status = 500, body = Problem), (status = 502, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn delete(
    State(core): State<Arc<Core>>,
    path: Result<Path<Parts>, PathRejection>,
    grace: Result<Query<Grace>, QueryRejection>,
) -> Result<Response, Refusal> {
    let key = key(path)?;
    let Query(Grace { timeout_ms, force }) = grace?;
    let grace = timeout_ms.map(Duration::from_millis);
    let task = Arc::clone(&core);
    let deleted = operate(&core, async move { task.delete(key, grace, force).await }).await?;
    Ok(optional(&core, deleted.as_ref()))
}

/// How long a deleted agent has to end.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Grace {
    /// In milliseconds; `stop_timeout` of the settings if not given.
    timeout_ms: Option<u64>,
    /// Whether it is forgotten also if its runtime cannot be asked.
    #[serde(default)]
    #[param(required = false)]
    force: bool,
}

/// Runs an operation as a task of its own, so that it goes on when the caller hangs up.
pub(super) async fn operate<T: Send + 'static>(
    core: &Arc<Core>,
    operation: impl Future<Output = Result<T, OperationError>> + Send + 'static,
) -> Result<T, OperationError> {
    if core.shutdown.is_cancelled() {
        return Err(OperationError::ShuttingDown);
    }
    core.tasks.spawn(operation).await.unwrap_or_else(|error| Err(OperationError::Lost(error.to_string())))
}

/// The agent that the path names.
pub(super) fn key(path: Result<Path<Parts>, PathRejection>) -> Result<AgentKey, Refusal> {
    let Path((project, agent)) = path?;
    Ok(AgentKey::new(name(&project)?, name(&agent)?))
}

/// The name that was given.
pub(super) fn name(text: &str) -> Result<Name, OperationError> {
    Name::new(text).map_err(|error| {
        let hint = error.suggestion.as_ref().map(|name| format!("did you mean `{name}`?"));
        invalid(error.to_string(), hint)
    })
}

fn document(core: &Core, record: &AgentRecord) -> AgentDocument {
    AgentDocument { agent: core.shown(record) }
}

fn optional(core: &Core, record: Option<&AgentRecord>) -> Response {
    match record {
        Some(record) => Json(document(core, record)).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// A JSON body that may be left out.
pub(super) struct Optional<T>(pub(super) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for Optional<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|error| {
            Refusal::new(api::Code::InvalidRequest, format!("the body of the request is wrong: {error}"))
        })?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        Ok(Self(Json::from_bytes(&body)?.0))
    }
}
