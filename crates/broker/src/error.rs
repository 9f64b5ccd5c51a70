//! What can go wrong with what a caller asked for.
//!
//! Each error has a stable code, a message that names the agent or port, and where possible a hint: what to do next.

use std::error::Error;

use api::Code;
use pool::{AgentKey, Exhausted, Owner};
use runtime::{ErrorKind, RuntimeError};
use serde_json::{Map, Value, json};

use crate::clock;
use crate::ledger::LedgerError;

/// Why an operation was not carried out, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperationError {
    #[error("{message}")]
    Invalid { message: String, hint: Option<String> },
    #[error("there is no agent {key}")]
    NoSuchAgent { key: AgentKey, nearest: Option<AgentKey> },
    #[error("{key} has no bare lease")]
    NoSuchLease { key: AgentKey },
    #[error("the agent {key} does not run")]
    NotRunning { key: AgentKey },
    #[error("no ports for {owner}: {source}")]
    Exhausted { owner: String, source: Box<Exhausted> },
    #[error("{message}")]
    Conflict { message: String, hint: String, details: Map<String, Value> },
    #[error("{key}: {source}")]
    Runtime { key: AgentKey, runtime: String, source: RuntimeError },
    #[error("the agent {key} did not start: {reason}")]
    StartFailed {
        key: AgentKey,
        reason: String,
        hint: Option<String>,
        log: Vec<String>,
        exit_code: Option<i64>,
    },
    #[error("nothing was done for {key}, because {source}")]
    Ledger { key: AgentKey, source: LedgerError },
    #[error("the broker is being shut down")]
    ShuttingDown,
    #[error("BUG: the operation ended without an answer: {0}")]
    Lost(String),
}

impl OperationError {
    /// The stable code.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } => Code::InvalidRequest,
            Self::NoSuchAgent { .. } => Code::NoSuchAgent,
            Self::NoSuchLease { .. } => Code::NoSuchLease,
            Self::NotRunning { .. } => Code::NotRunning,
            Self::Exhausted { .. } => Code::PoolExhausted,
            Self::Conflict { .. } => Code::Conflict,
            Self::Runtime { source, .. } => match source.kind {
                ErrorKind::Unreachable => Code::RuntimeUnreachable,
                ErrorKind::NameTaken | ErrorKind::PortRefused { .. } => Code::Conflict,
                ErrorKind::Unsupported => Code::Unsupported,
                ErrorKind::Invalid => Code::InvalidRequest,
                ErrorKind::NotRunning => Code::NotRunning,
                ErrorKind::Forbidden => Code::Forbidden,
                ErrorKind::Command => Code::StartFailed,
                ErrorKind::NotFound | ErrorKind::Image | ErrorKind::Other => Code::RuntimeFailed,
            },
            Self::StartFailed { .. } => Code::StartFailed,
            Self::Ledger { .. } => Code::LedgerFailed,
            Self::ShuttingDown => Code::ShuttingDown,
            Self::Lost(_) => Code::Failed,
        }
    }

    /// What to do next.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Invalid { hint, .. } | Self::StartFailed { hint, .. } => hint.clone(),
            Self::NoSuchAgent { nearest: Some(nearest), .. } => Some(format!("did you mean {nearest}?")),
            Self::NoSuchAgent { nearest: None, .. } => {
                Some("`berthold list -A` shows the agents that there are".to_owned())
            }
            Self::NoSuchLease { key } => Some(format!(
                "take one with `berthold lease {}`; `berthold leases -A` shows those that there are",
                shown(key)
            )),
            Self::NotRunning { key } => Some(format!("start it with `berthold start {}`", shown(key))),
            Self::Exhausted { source, .. } => Some(exhausted_hint(source)),
            Self::Conflict { hint, .. } => Some(hint.clone()),
            Self::Runtime { source, .. } => source.hint.clone(),
            Self::Ledger { source, .. } if source.disk_full => {
                Some("the disk is full: make room in the broker's home and try again".to_owned())
            }
            Self::Ledger { .. } => {
                Some("the broker's log says more; `berthold broker status` names its home".to_owned())
            }
            Self::ShuttingDown => Some("start it again with `berthold serve`".to_owned()),
            Self::Lost(_) => Some("the broker's log says more; please report it".to_owned()),
        }
    }

    /// What a program may want to know.
    pub(crate) fn details(&self) -> Map<String, Value> {
        let value = match self {
            Self::NoSuchAgent { key, nearest } => {
                json!({ "agent": key.to_string(), "nearest": nearest.as_ref().map(ToString::to_string) })
            }
            Self::NoSuchLease { key } => json!({ "owner": key.to_string() }),
            Self::NotRunning { key } | Self::Ledger { key, .. } => json!({ "agent": key.to_string() }),
            Self::Exhausted { owner, source } => exhausted_details(owner, source),
            Self::Conflict { details, .. } => Value::Object(details.clone()),
            Self::Runtime { key, runtime, .. } => json!({ "agent": key.to_string(), "runtime": runtime }),
            Self::StartFailed { key, log, exit_code, .. } => {
                json!({ "agent": key.to_string(), "log": log, "exit_code": exit_code })
            }
            Self::Invalid { .. } | Self::ShuttingDown | Self::Lost(_) => json!({}),
        };
        match value {
            Value::Object(details) => details,
            _ => Map::new(),
        }
    }
}

/// An agent as a person would type it.
pub(crate) fn shown(key: &AgentKey) -> String {
    if key.project == pool::Name::default() { key.name.to_string() } else { key.to_string() }
}

/// An error with all its causes, for a log line or a reason.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn exhausted_hint(exhausted: &Exhausted) -> String {
    if exhausted.requested > exhausted.size {
        return format!(
            "ask for {} ports or fewer, or widen `server.broker.port_pool.range` in the settings",
            exhausted.size
        );
    }
    match exhausted.holders.iter().max_by_key(|holder| holder.ports.len()) {
        Some(holder) => {
            let (what, command) = match holder.owner {
                Owner::Agent(_) => ("stop an agent", "stop"),
                Owner::Bare(_) => ("release a lease", "release"),
            };
            format!(
                "{what} that is no longer needed, such as `berthold {command} {}` ({} ports), or widen \
                 `server.broker.port_pool.range` in the settings",
                shown(holder.owner.key()),
                holder.ports.len()
            )
        }
        None => "`berthold ports` shows who holds the others; ask for fewer ports, or choose another \
                 `server.broker.port_pool.range` in the settings"
            .to_owned(),
    }
}

fn exhausted_details(owner: &str, exhausted: &Exhausted) -> Value {
    let numbers = |ports: &[pool::Port]| ports.iter().map(|port| port.get()).collect::<Vec<_>>();
    let holders: Vec<Value> = exhausted
        .holders
        .iter()
        .map(|holder| {
            json!({
                "owner": holder.owner.to_string(),
                "ports": numbers(&holder.ports),
                "since": clock::shown(holder.since),
            })
        })
        .collect();
    let blocked: Vec<Value> =
        exhausted.blocked.iter().map(|(port, by)| json!({ "port": port.get(), "by": by })).collect();
    json!({
        "agent": owner,
        "requested": exhausted.requested,
        "available": exhausted.available,
        "size": exhausted.size,
        "range": exhausted.range.to_string(),
        "holders": holders,
        "blocked": blocked,
    })
}
