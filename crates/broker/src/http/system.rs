//! The pool, the broker itself, and its care.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use api::{BrokerDocument, PoolDocument, Problem, ReconciliationDocument};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::problem::Refusal;
use crate::clock;
use crate::core::Core;
use crate::listen::Address;
use crate::model::Stage;
use crate::view;
use crate::warnings::About;

/// Which ports are wanted.
#[derive(Deserialize, IntoParams)]
pub(super) struct Which {
    /// The free ones too.
    #[serde(default)]
    all: bool,
}

/// The pool: range, size, counts by state, ports. Who holds ports outside the ledger is looked up for the answer.
#[utoipa::path(get, path = "/v1/pool", tag = "pool", params(Which),
    responses((status = 200, body = PoolDocument), (status = 400, body = Problem)))]
pub(super) async fn pool(
    State(core): State<Arc<Core>>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<PoolDocument>, Refusal> {
    let Query(which) = which?;
    core.review_blocked("").await;
    let pool = view::pool(&core.state(), &core.settings, which.all, clock::now());
    Ok(Json(PoolDocument { pool }))
}

/// How much of the broker is wanted.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Looked {
    /// How its runtimes are, for which each of them is asked. Without it none is shown.
    #[serde(default = "yes")]
    runtimes: bool,
}

fn yes() -> bool {
    true
}

/// The broker: where it is, what it runs with, and how its runtimes are.
#[utoipa::path(get, path = "/v1/broker", tag = "broker", params(Looked),
    responses((status = 200, body = BrokerDocument), (status = 400, body = Problem)))]
pub(super) async fn broker(
    State(core): State<Arc<Core>>,
    looked: Result<Query<Looked>, QueryRejection>,
) -> Result<Json<BrokerDocument>, Refusal> {
    let Query(looked) = looked?;
    let mut runtimes = if looked.runtimes { core.runtimes.statuses().await } else { Vec::new() };
    let default_runtime = core.runtimes.default_of(&runtimes);
    let mut warnings = changed_settings(&core);
    let state = core.state();
    for runtime in &mut runtimes {
        runtime.warning = state.warnings.get(&About::Unreachable(runtime.name.clone())).cloned();
    }
    warnings.extend(state.warnings.values().cloned());
    Ok(Json(BrokerDocument {
        broker: api::Broker {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            id: core.id.clone(),
            pid: std::process::id(),
            started_at: clock::shown(core.started_at),
            home: core.home.state().display().to_string(),
            socket: core.home.socket().display().to_string(),
            listen: core.listen.as_ref().map(Address::url),
            settings: core.settings_files.clone(),
            runtimes,
            default_runtime,
            preferred_runtime: core.runtimes.preferred(),
            agents: state.agents.len(),
            running: running(&state),
            ports: core
                .settings
                .server
                .broker
                .port_pool
                .is_some()
                .then(|| view::counts(&state, clock::now())),
            templates: core.settings.templates.keys().cloned().collect(),
            warnings,
        },
    }))
}

/// What to say of settings files that are no longer what was read.
fn changed_settings(core: &Core) -> Vec<String> {
    let is_changed = |file: &&String| {
        let modified = std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok();
        let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        modified
            .is_some_and(|time| i64::try_from(time.as_millis()).is_ok_and(|time| time > core.started_at.0))
    };
    let say = |file: &String| {
        format!(
            "{file} has changed since the broker read it; `berthold broker stop` has the next one read it anew"
        )
    };
    core.settings_files.iter().filter(is_changed).map(say).collect()
}

/// Whether anything is to be done.
#[derive(Deserialize, IntoParams)]
pub(super) struct How {
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
}

/// Makes ledger and runtimes agree, now, and says where they did not.
#[utoipa::path(post, path = "/v1/reconcile", tag = "broker", params(How),
    responses((status = 200, body = ReconciliationDocument), (status = 400, body = Problem)))]
pub(super) async fn reconcile(
    State(core): State<Arc<Core>>,
    how: Result<Query<How>, QueryRejection>,
) -> Result<Json<ReconciliationDocument>, Refusal> {
    let Query(how) = how?;
    let mut reconciliation = core.survey().await;
    reconciliation.dry_run = how.dry_run;
    if !how.dry_run {
        core.reconcile_all().await;
        core.see_what_is_left(&mut reconciliation).await;
    }
    Ok(Json(ReconciliationDocument { reconciliation }))
}

/// Ends the broker; agents go on running.
#[utoipa::path(post, path = "/v1/shutdown", tag = "broker", responses((status = 202)))]
pub(super) async fn shutdown(State(core): State<Arc<Core>>) -> StatusCode {
    core.shutdown.cancel();
    StatusCode::ACCEPTED
}

/// Whether the broker is alive.
#[utoipa::path(get, path = "/healthz", tag = "broker", responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the broker takes requests. It answers only once it has looked at every runtime.
#[utoipa::path(get, path = "/readyz", tag = "broker",
    responses((status = 200, body = String, content_type = "text/plain"), (status = 503)))]
pub(super) async fn readyz(State(core): State<Arc<Core>>) -> Response {
    if core.shutdown.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "ending\n").into_response();
    }
    "ok\n".into_response()
}

/// Figures for Prometheus, in its text format.
#[utoipa::path(get, path = "/metrics", tag = "broker",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(core): State<Arc<Core>>) -> Response {
    let mut text = String::new();
    let state = core.state();
    let counts = view::counts(&state, clock::now());
    let mut gauge = |name: &str, help: &str, rows: &[(&str, &str, usize)]| {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
        for (label, value, count) in rows {
            text.push_str(&format!("{name}{{{label}=\"{value}\"}} {count}\n"));
        }
    };
    gauge(
        "berthold_ports",
        "Ports of the pool by state.",
        &[
            ("state", "free", counts.free),
            ("state", "leased", counts.leased),
            ("state", "remembered", counts.remembered),
            ("state", "cooling", counts.cooling),
            ("state", "blocked", counts.blocked),
        ],
    );
    let by_state = Stage::ALL.map(|stage| {
        ("state", stage.as_str(), state.agents.values().filter(|agent| agent.stage == stage).count())
    });
    gauge("berthold_agents", "Agents by state.", &by_state);
    drop(state);
    let flushes = core.ledger.flushes();
    text.push_str("# HELP berthold_ledger_flushes_total Flushes of the ledger to disk.\n");
    text.push_str(&format!(
        "# TYPE berthold_ledger_flushes_total counter\nberthold_ledger_flushes_total {flushes}\n"
    ));
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "broker", responses((status = 200, content_type = "application/json")))]
pub(super) async fn describe() -> Json<utoipa::openapi::OpenApi> {
    Json(super::openapi())
}

fn running(state: &crate::core::State) -> usize {
    state.agents.values().filter(|agent| agent.stage == Stage::Running).count()
}
