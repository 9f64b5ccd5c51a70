//! Who held which port when.

use std::sync::Arc;

use api::{Code, HistoryDocument, HistoryEntry, HistoryQuery, Problem};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use jiff::Timestamp;
use pool::{AgentKey, Label, Name, Owner, Port};
use tokio::task::spawn_blocking;

use super::agents::name;
use super::problem::Refusal;
use crate::clock;
use crate::core::Core;
use crate::ledger::{Held, Question, read_history};
use crate::spec::invalid;

/// How many entries are given if nothing else is said, and at the most.
const LIMITS: (u32, u32) = (1_000, 10_000);

/// Who held which port when, the latest first. Of what has ended, 30 days are kept, and 100,000 entries at the most.
#[utoipa::path(get, path = "/v1/history", tag = "pool", params(HistoryQuery),
    responses((status = 200, body = HistoryDocument), (status = 400, body = Problem), (status = 500, body = Problem)))]
pub(super) async fn history(
    State(core): State<Arc<Core>>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<HistoryDocument>, Refusal> {
    let Query(query) = query?;
    let (path, asked) = (core.home.ledger(), meant(&query)?);
    let limit = usize::try_from(asked.limit).unwrap_or(usize::MAX);
    // One more tells whether there are more.
    let question = Question { limit: asked.limit + 1, ..asked };
    let read =
        spawn_blocking(move || read_history(&path, &question).map_err(|error| error.to_string())).await;
    let held = read.unwrap_or_else(|error| Err(error.to_string())).map_err(|reason| {
        Refusal::new(Code::LedgerFailed, format!("the history could not be read: {reason}"))
            .hint("the broker's log says more; `berthold broker status` names its home")
    })?;
    let more = held.len() > limit;
    Ok(Json(HistoryDocument { history: held.iter().take(limit).map(entry).collect(), more }))
}

fn meant(query: &HistoryQuery) -> Result<Question, Refusal> {
    let port = match query.port {
        Some(number) => Some(Port::new(number).ok_or_else(|| {
            invalid(format!("`{number}` is no port"), Some("ports are 1 to 65535".to_owned()))
        })?),
        None => None,
    };
    let owner = query.agent.as_deref().map(|text| match text.split_once('/') {
        Some((project, agent)) => Ok(AgentKey::new(name(project)?, name(agent)?)),
        None => Ok::<_, Refusal>(AgentKey::new(Name::default(), name(text)?)),
    });
    let since = query.since.as_deref().map(|text| {
        text.parse::<Timestamp>().map(clock::moment).map_err(|_| {
            let hint = "write it as 2026-11-23T09:00:00Z".to_owned();
            invalid(format!("`{text}` is no time"), Some(hint))
        })
    });
    let limit = query.limit.unwrap_or(LIMITS.0);
    if !(1..=LIMITS.1).contains(&limit) {
        return Err(invalid(format!("the limit is 1 to {}, and not {limit}", LIMITS.1), None).into());
    }
    Ok(Question { port, owner: owner.transpose()?, since: since.transpose()?, limit })
}

fn entry(held: &Held) -> HistoryEntry {
    HistoryEntry {
        port: held.port.get(),
        label: Label::from_index(held.place).map(|label| label.to_string()).unwrap_or_default(),
        owner: held.owner.key().to_string(),
        bare: matches!(held.owner, Owner::Bare(_)),
        lease: held.lease.to_string(),
        from: clock::shown(held.since),
        to: held.until.map(clock::shown),
        reason: held.reason.clone(),
    }
}
