//! Agents, and what can be asked of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// The namespace of its name.
    pub project: String,
    /// Its name.
    pub name: String,
    /// What runs it: `docker`, `process`, …
    pub runtime: String,
    /// Where it is in its life.
    pub state: AgentState,
    /// The runtime's id of it, while there is one.
    pub id: Option<String>,
    /// The id of the lease that it holds.
    pub lease: Option<String>,
    /// Its ports by label.
    pub ports: BTreeMap<Label, u16>,
    /// What a person can open, by label. Empty where nothing is published.
    pub urls: BTreeMap<Label, String>,
    /// Under which URLs the broker itself leads to them, by label. Empty where there is nothing to lead to, or the broker has no
    /// address for browsers.
    #[serde(default)]
    pub previews: BTreeMap<Label, String>,
    /// The variables that Berthold gives it while it has a lease, as the settings are now.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// The names of the variables that came with its start. What they are, which may be secret, is not told.
    #[serde(default)]
    pub own_variables: Vec<String>,
    /// The host's address on which its ports are published; `host network` where it binds them itself; nothing while it
    /// does not run or has no ports.
    pub published: Option<String>,
    /// The image, where there is one.
    pub image: Option<String>,
    /// The command with its arguments; empty for the image's own.
    pub command: Vec<String>,
    /// When it was started last (RFC 3339).
    pub started_at: Option<String>,
    /// When it ended last (RFC 3339).
    #[serde(default)]
    pub ended_at: Option<String>,
    /// The code with which it ended last, where that is known.
    #[serde(default)]
    pub exit_code: Option<i64>,
    /// The ports that it had until it ended, and gets again if they are free.
    pub former_ports: Vec<u16>,
    /// What the runtime or the broker warned of.
    pub warnings: Vec<String>,
    /// Why it is in this state, where there is something to say.
    pub reason: Option<String>,
    /// Why it may be in another state by now: its runtime does not answer, or another engine answers in its place.
    #[serde(default)]
    pub doubt: Option<String>,
}

/// A port label, `A` to `ZZ`. It sorts as labels do: by length, then by letters.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Label(pub String);

impl Ord for Label {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// Where an agent is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AgentState {
    /// It has its lease and the runtime is being asked.
    Starting,
    /// The runtime says that it runs.
    Running,
    /// It is being stopped and still has its lease.
    Stopping,
    /// It was stopped.
    Stopped,
    /// It ended by itself.
    Exited,
    /// Its start did not succeed.
    Failed,
}

impl AgentState {
    /// The state as the wire has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Exited => "exited",
            Self::Failed => "failed",
        }
    }
}

/// `{"agent": …}`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AgentDocument {
    /// The agent.
    pub agent: Agent,
}

/// `{"agents": […]}`
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct AgentsDocument {
    /// The agents, by project and name.
    pub agents: Vec<Agent>,
}

/// What to start. A request that says nothing of what to run (no image, template, runtime, command, …) means the agent as it
/// was last time.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StartRequest {
    /// The image; from the template if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The name of a template of the broker's settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// What is to run it; the broker's default if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// How many ports, 0–702; the pool's `ports_per_agent` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<u16>,
    /// Variables by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Mounts, `SRC:DST` or `SRC:DST:ro`; a source is an absolute path or the name of a volume.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// A host directory, absolute, that is mounted under the same path and in which the command starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// The caller's own directory, absolute: where the command starts on a runtime without images, if no workspace is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The network: `host`, `none`, or the name of one; the runtime's usual one if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The command with its arguments; the image's own if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Whether its standard input is kept open, so that who attaches can write to it; the template's word if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interactive: Option<bool>,
    /// Whether it gets a terminal; the template's word if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal: Option<bool>,
    /// Whether a running agent with another specification is to be recreated.
    #[serde(skip_serializing_if = "crate::is_false")]
    pub replace: bool,
    /// Whether the agent is to be forgotten once it has ended.
    #[serde(skip_serializing_if = "crate::is_false")]
    pub remove: bool,
    /// How long to wait, in milliseconds, for port A to answer; not at all if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// How to stop an agent.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StopRequest {
    /// How long, in milliseconds, it has to end by itself; `stop_timeout` of the settings if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// How to restart an agent.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RestartRequest {
    /// How long, in milliseconds, it has to end by itself; `stop_timeout` of the settings if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How long to wait, in milliseconds, for port A to answer; not at all if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}
