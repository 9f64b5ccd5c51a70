//! What a look at every runtime found.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What was found where ledger and runtimes do not agree.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Reconciliation {
    /// Whether nothing was done about it.
    pub dry_run: bool,
    /// What was found, by agent.
    pub findings: Vec<Finding>,
    /// What was to be done about it and could not be: the broker's log says why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_done: Vec<Finding>,
    /// The runtimes with agents that did not answer: nothing of theirs is changed.
    pub unreachable: Vec<UnreachableRuntime>,
}

/// One thing on which ledger and runtime do not agree.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// The agent, `project/name`.
    pub agent: String,
    /// Its runtime.
    pub runtime: String,
    /// The runtime's id of what was found; none if nothing was.
    pub id: Option<String>,
    /// What is to be done, or was done unless it was a dry run.
    pub action: ReconcileAction,
    /// The same for a person, with the reason.
    pub detail: String,
}

impl Finding {
    /// Whether something is to be done about it now, by the broker.
    #[must_use]
    pub fn is_to_be_done(&self) -> bool {
        !matches!(self.action, ReconcileAction::Wait | ReconcileAction::Report)
    }
}

/// What follows from a finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReconcileAction {
    /// The agent is entered as running.
    MarkRunning,
    /// The agent is entered as ended, and its ports are given back.
    Release,
    /// Nothing yet: what is not there, or has not started, must be seen so for a while before its ports are given back or it is removed.
    Wait,
    /// What is left of a start or of an earlier agent is removed.
    Remove,
    /// The running agent gets a lease with the ports of its labels.
    Adopt,
    /// The ended agent is entered with its former ports.
    Remember,
    /// Nothing can be done without a person: the warning says what.
    Report,
}

/// A runtime that did not answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct UnreachableRuntime {
    /// Its name.
    pub runtime: String,
    /// Why.
    pub detail: String,
}

/// `{"reconciliation": …}`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReconciliationDocument {
    /// What was found.
    pub reconciliation: Reconciliation,
}
