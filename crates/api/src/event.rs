//! What `GET /v1/events` streams.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Agent;

/// A change. On the wire each is one server-sent event: its `event` field is the tag, its `data` field the whole object as JSON.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// An agent is new or has changed.
    Agent {
        /// As it is now.
        agent: Box<Agent>,
    },
    /// An agent was deleted.
    AgentDeleted {
        /// Its project.
        project: String,
        /// Its name.
        name: String,
    },
    /// A long piece of work for an agent goes on, such as a pull.
    Progress {
        /// The agent's project.
        project: String,
        /// The agent's name.
        name: String,
        /// One short line for a person; it replaces the one before.
        message: String,
        /// How much is done, in bytes, where that is known.
        current: Option<u64>,
        /// Of how much, in bytes, where that is known.
        total: Option<u64>,
    },
    /// Ports have changed their state; ask for the pool.
    Pool {
        /// The lease that was granted or released, if it was one.
        lease: Option<String>,
        /// The ports in question.
        ports: Vec<u16>,
    },
    /// What the broker tells of itself has changed: its warnings, and with them which runtimes answer; ask for the broker.
    Broker,
    /// The reader was too slow and has missed events: ask for everything anew.
    Missed {
        /// How many were missed.
        count: u64,
    },
}

impl Event {
    /// The tag, as the `event` field of a server-sent event has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Agent { .. } => "agent",
            Self::AgentDeleted { .. } => "agent_deleted",
            Self::Progress { .. } => "progress",
            Self::Pool { .. } => "pool",
            Self::Broker => "broker",
            Self::Missed { .. } => "missed",
        }
    }
}

/// Which events are wanted: the query of `GET /v1/events`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Events {
    /// Only those of this agent, `project/name`.
    pub agent: Option<String>,
}
