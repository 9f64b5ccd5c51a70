//! What the broker knows of an agent or a bare lease. Neither the wire nor the ledger: both have forms of their own.

use std::collections::BTreeMap;

use pool::{AgentKey, LeaseId, Moment, Port};
use runtime::HeldPort;
use runtime::process::Identity;

/// Everything that the broker knows of one agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AgentRecord {
    pub(crate) key: AgentKey,
    /// The name of its runtime.
    pub(crate) runtime: String,
    pub(crate) stage: Stage,
    /// What to run; none if it was adopted from its labels, which do not tell.
    pub(crate) spec: Option<AgentSpec>,
    /// The runtime's id of it.
    pub(crate) container: Option<String>,
    /// Which engine has it, see `engines`; none if that is not known.
    pub(crate) engine: Option<String>,
    /// Held from before the runtime is asked until the runtime confirms the end.
    pub(crate) lease: Option<Lease>,
    /// Where its ports are published, while it runs.
    pub(crate) published: Option<String>,
    /// The ports that it had until it ended, in label order.
    pub(crate) former: Vec<Port>,
    pub(crate) released_at: Option<Moment>,
    pub(crate) started_at: Option<Moment>,
    pub(crate) ended_at: Option<Moment>,
    pub(crate) exit_code: Option<i64>,
    pub(crate) reason: Option<String>,
    pub(crate) warnings: Vec<String>,
}

/// A lease as the ledger has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lease {
    pub(crate) id: LeaseId,
    pub(crate) ports: Vec<Port>,
    pub(crate) since: Moment,
}

/// A lease of something that the broker does not start itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BareLease {
    /// The name of its owner, which is not an agent of that name.
    pub(crate) key: AgentKey,
    pub(crate) lease: Lease,
    /// With which process it ends; none if it lives until it is released.
    pub(crate) holder: Option<Holder>,
}

/// The process with which a bare lease ends.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Holder {
    pub(crate) process: Identity,
    /// What it runs, for people.
    pub(crate) command: String,
    /// Whether the ports are not remembered afterwards.
    pub(crate) forget: bool,
}

/// What the owner of a bare lease had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Former {
    /// In label order.
    pub(crate) ports: Vec<Port>,
    pub(crate) released_at: Moment,
}

/// The ports of this host that others held on a runtime when it last told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ToldPorts {
    /// In which boot of the host that was.
    pub(crate) boot: String,
    /// When that was, or a little earlier.
    pub(crate) at: Moment,
    /// In the order of their numbers.
    pub(crate) held: Vec<HeldPort>,
}

/// Where an agent is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    Starting,
    Running,
    Stopping,
    Stopped,
    Exited,
    Failed,
}

impl Stage {
    pub(crate) const ALL: [Self; 6] =
        [Self::Starting, Self::Running, Self::Stopping, Self::Stopped, Self::Exited, Self::Failed];

    pub(crate) fn as_str(self) -> &'static str {
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

/// What to run: a start request with its template and the defaults filled in. Two that are equal start the same.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct AgentSpec {
    pub(crate) image: Option<String>,
    pub(crate) command: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    /// `SRC:DST` or `SRC:DST:ro`.
    pub(crate) volumes: Vec<String>,
    /// A host directory that is mounted under its own path and in which the command starts.
    pub(crate) workspace: Option<String>,
    /// As typed: empty for the runtime's usual one.
    pub(crate) network: String,
    /// How many ports it gets.
    pub(crate) ports: u16,
    /// Whether its standard input is kept open, and whether it has a terminal.
    #[serde(default)]
    pub(crate) interactive: bool,
    #[serde(default)]
    pub(crate) terminal: bool,
    /// Whether the agent is forgotten once it has ended.
    pub(crate) remove: bool,
}

impl AgentRecord {
    /// A record of an agent that was never seen before.
    pub(crate) fn new(key: AgentKey, runtime: String) -> Self {
        Self {
            key,
            runtime,
            stage: Stage::Starting,
            spec: None,
            container: None,
            engine: None,
            lease: None,
            published: None,
            former: Vec::new(),
            released_at: None,
            started_at: None,
            ended_at: None,
            exit_code: None,
            reason: None,
            warnings: Vec::new(),
        }
    }

    /// Whether the runtime may have something of it that runs.
    pub(crate) fn is_live(&self) -> bool {
        self.lease.is_some() || matches!(self.stage, Stage::Starting | Stage::Running | Stage::Stopping)
    }

    /// The ports that it holds, in label order.
    pub(crate) fn ports(&self) -> &[Port] {
        self.lease.as_ref().map_or(&[], |lease| lease.ports.as_slice())
    }
}

/// Ports in label order, as `berthold.ports` and the ledger have them: `8000-8001-8010`.
pub(crate) fn join_ports(ports: &[Port]) -> String {
    let texts: Vec<String> = ports.iter().map(ToString::to_string).collect();
    texts.join("-")
}

/// The reverse of [`join_ports`]; none if the text is something else.
pub(crate) fn split_ports(text: &str) -> Option<Vec<Port>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.split('-').map(|part| part.parse().ok().and_then(Port::new)).collect()
}
