//! What a broker says of itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Counts;

/// A broker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Broker {
    /// Its version.
    pub version: String,
    /// Its stable id, the value of the label `berthold.broker`.
    pub id: String,
    /// Its process id.
    pub pid: u32,
    /// When it was started (RFC 3339).
    pub started_at: String,
    /// The directory of its ledger.
    pub home: String,
    /// The path of its Unix socket.
    pub socket: String,
    /// The address of its API, as a URL; none with `listen: none`.
    pub listen: Option<String>,
    /// The settings files that it read, the weakest first.
    pub settings: Vec<String>,
    /// The runtimes that it knows of.
    pub runtimes: Vec<RuntimeStatus>,
    /// The runtime of an agent for which none is given, if there is one.
    pub default_runtime: Option<String>,
    /// The runtime that the settings name for such an agent, whether it answers or not.
    #[serde(default)]
    pub preferred_runtime: Option<String>,
    /// How many agents it knows of.
    pub agents: usize,
    /// How many of them are running.
    pub running: usize,
    /// How many ports are in each state; none without a pool.
    pub ports: Option<Counts>,
    /// The names of the templates from which agents can be started.
    #[serde(default)]
    pub templates: Vec<String>,
    /// What a person should know of: conflicts, settings that bite, runtimes that are gone.
    pub warnings: Vec<String>,
}

/// How a runtime is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RuntimeStatus {
    /// Its name.
    pub name: String,
    /// Whether it answers.
    pub reachable: bool,
    /// Its version, where it answers.
    pub version: Option<String>,
    /// Where it was found.
    pub endpoint: Option<String>,
    /// Why it does not answer; if it does, what cannot be done there.
    pub detail: Option<String>,
    /// What would have to be done about that.
    #[serde(default)]
    pub hint: Option<String>,
    /// Whether something names an endpoint for it that cannot be used. No other runtime is then taken by default that comes after it.
    #[serde(default)]
    pub misnamed: bool,
    /// Which of the broker's warnings says that it does not answer, if one does.
    #[serde(default)]
    pub warning: Option<String>,
}

/// `{"broker": …}`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct BrokerDocument {
    /// The broker.
    pub broker: Broker,
}
