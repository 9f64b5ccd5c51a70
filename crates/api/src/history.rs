//! Who held which port when.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A port in the hands of an owner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HistoryEntry {
    /// The port.
    pub port: u16,
    /// Its label in the lease.
    pub label: String,
    /// The agent, `project/name`; with `bare` the owner of a bare lease, which is no agent.
    pub owner: String,
    /// Whether that is the owner of a bare lease.
    pub bare: bool,
    /// The id of the lease.
    pub lease: String,
    /// When it was granted (RFC 3339).
    pub from: String,
    /// When it ended (RFC 3339); none while the port is held.
    pub to: Option<String>,
    /// Why it ended, where that is known.
    pub reason: Option<String>,
}

/// `{"history": […]}`
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct HistoryDocument {
    /// The entries, the latest first.
    pub history: Vec<HistoryEntry>,
    /// Whether there are older ones that were asked for, and left out because of the limit.
    pub more: bool,
}

/// What is asked of the history: the query of `GET /v1/history`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
pub struct HistoryQuery {
    /// Only of this port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Only of the agent, or the owner of bare leases, of this name: `project/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Only what was held at this time or later (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// At most so many entries, 1–10000; 1000 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
