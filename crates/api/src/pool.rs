//! The pool and its ports.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The pool of a broker. Without one, `enabled` is false and the rest is empty.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Whether agents get ports at all.
    pub enabled: bool,
    /// The range, `8000-9000`.
    pub range: String,
    /// How many ports the range has, less the excluded ones.
    pub size: usize,
    /// What of the range is not in the pool, as ranges.
    #[serde(default)]
    pub excluded: Vec<String>,
    /// How many ports an agent gets that asks for none in particular.
    pub ports_per_agent: u16,
    /// Where a person finds the host, if configured.
    pub host_url: Option<String>,
    /// The address on which ports are published.
    #[serde(default)]
    pub bind_address: Option<String>,
    /// How many ports are in each state.
    pub counts: Counts,
    /// The ports that are not free; with `?all=true` every port. Leased ones outside the range are among them.
    pub ports: Vec<PoolPort>,
}

/// How many ports are in each state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "each field counts the state of its name")]
pub struct Counts {
    pub free: usize,
    pub leased: usize,
    pub remembered: usize,
    pub cooling: usize,
    pub blocked: usize,
}

/// One port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PoolPort {
    /// The number.
    pub port: u16,
    /// Its state.
    pub state: PoolPortState,
    /// The agent that holds or remembers it, `project/name`; with `bare` the owner of a bare lease, which is no agent.
    pub agent: Option<String>,
    /// Whether that is the owner of a bare lease.
    #[serde(default)]
    pub bare: bool,
    /// Its label in the lease.
    pub label: Option<String>,
    /// Since when it is in this state (RFC 3339).
    pub since: Option<String>,
    /// What else there is to say, such as who blocks it.
    pub detail: Option<String>,
}

/// The state of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoolPortState {
    /// No one holds or remembers it.
    Free,
    /// A lease holds it.
    Leased,
    /// A former port of a stopped agent.
    Remembered,
    /// Released a short while ago.
    Cooling,
    /// Held by someone outside the ledger.
    Blocked,
}

impl PoolPortState {
    /// The state as the wire has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Leased => "leased",
            Self::Remembered => "remembered",
            Self::Cooling => "cooling",
            Self::Blocked => "blocked",
        }
    }
}

/// `{"pool": …}`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PoolDocument {
    /// The pool.
    pub pool: Pool,
}
