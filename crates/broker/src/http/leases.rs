//! Bare leases: list, show, grant, release.
//!
//! An owner is named in two segments, `shop/db`, or in one: `db` of the project `default`, `shop%2Fdb`.

use std::sync::Arc;

use api::{LeaseDocument, LeaseRequest, LeasesDocument, Problem};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use pool::{AgentKey, Name};
use serde::Deserialize;
use utoipa::IntoParams;

use super::agents::{Filter, Optional, name, operate};
use super::problem::Refusal;
use crate::bare::Release;
use crate::core::Core;
use crate::error::OperationError;
use crate::model::BareLease;
use crate::view;

/// All bare leases, by their owners.
#[utoipa::path(get, path = "/v1/leases", tag = "leases", params(Filter),
    responses((status = 200, body = LeasesDocument), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(core): State<Arc<Core>>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<LeasesDocument>, Refusal> {
    let project = filter?.0.project()?;
    let state = core.state();
    let wanted = state.bare.values().filter(|bare| project.as_ref().is_none_or(|it| *it == bare.key.project));
    let leases = wanted.map(|bare| view::lease(bare, &core.settings)).collect();
    Ok(Json(LeasesDocument { leases }))
}

/// The bare lease of one owner. `/v1/leases/{owner}` is the same, as with the other methods: a name of the project `default`,
/// or `project%2Fname`.
#[utoipa::path(get, path = "/v1/leases/{project}/{name}", tag = "leases",
    params(("project" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = LeaseDocument), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(core): State<Arc<Core>>,
    Owner(key): Owner,
) -> Result<Json<LeaseDocument>, Refusal> {
    let bare = core.bare(&key).ok_or(OperationError::NoSuchLease { key })?;
    Ok(Json(document(&core, &bare)))
}

/// Leases ports to an owner (201), or returns the lease that it has (200). It lives until it is released.
#[utoipa::path(put, path = "/v1/leases/{project}/{name}", tag = "leases", request_body = Option<LeaseRequest>,
    params(("project" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = LeaseDocument), (status = 201, body = LeaseDocument), (status = 400, body = Problem),
        (status = 409, body = Problem), (status = 500, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn grant(
    State(core): State<Arc<Core>>,
    Owner(key): Owner,
    Optional(request): Optional<LeaseRequest>,
) -> Result<Response, Refusal> {
    let task = Arc::clone(&core);
    let granted = operate(&core, async move { task.lease_bare(key, request).await }).await?;
    let status = if granted.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(document(&core, &granted.bare))).into_response())
}

/// Releases the lease of an owner, and answers with it as it was. One that has none has nothing to release (204).
#[utoipa::path(delete, path = "/v1/leases/{project}/{name}", tag = "leases",
    params(("project" = String, Path), ("name" = String, Path), Which),
    responses((status = 200, body = LeaseDocument), (status = 204), (status = 400, body = Problem),
        (status = 409, body = Problem), (status = 500, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn release(
    State(core): State<Arc<Core>>,
    Owner(key): Owner,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(Which { lease, force }) = which?;
    let task = Arc::clone(&core);
    let release = Release { lease, force };
    let released = operate(&core, async move { task.release_bare(key, release).await }).await?;
    Ok(match released {
        Some(bare) => Json(document(&core, &bare)).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// What is released.
#[derive(Deserialize, IntoParams)]
pub(super) struct Which {
    /// Only the lease of this id: if the owner has another one by now, that is a conflict, and nothing is released.
    lease: Option<String>,
    /// Also while one of its ports is in use.
    #[serde(default)]
    force: bool,
}

/// The owner that the path names.
pub(super) struct Owner(AgentKey);

impl<S: Send + Sync> FromRequestParts<S> for Owner {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(segments) = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await?;
        let segments: Vec<String> = segments.into_iter().map(|(_, segment)| segment).collect();
        let text = segments.join("/");
        Ok(Self(match text.split_once('/') {
            Some((project, owner)) => AgentKey::new(name(project)?, name(owner)?),
            None => AgentKey::new(Name::default(), name(&text)?),
        }))
    }
}

fn document(core: &Core, bare: &BareLease) -> LeaseDocument {
    LeaseDocument { lease: view::lease(bare, &core.settings) }
}
