//! Bare leases: ports for what Berthold does not start itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Label;

/// A lease whose owner is no agent, only a name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    /// The namespace of its owner's name.
    pub project: String,
    /// Its owner's name. An agent of that name is another owner.
    pub name: String,
    /// The lease's id. Every lease has another one, also of the same owner.
    pub id: String,
    /// Its ports by label.
    pub ports: BTreeMap<Label, u16>,
    /// What a person can open once something listens, by label.
    pub urls: BTreeMap<Label, String>,
    /// The variables that tell a process its ports, by name: those that an agent would get.
    pub environment: BTreeMap<String, String>,
    /// The address on which its ports are to be published; none if the pool was switched off since.
    pub bind_address: Option<String>,
    /// When it was granted (RFC 3339).
    pub since: String,
    /// The process with which it ends; none if it lives until it is released.
    #[serde(default)]
    pub holder: Option<Holder>,
}

/// A process of the broker's host. The pid alone may mean another process by and by; with the rest it is this one for good.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Holder {
    /// Its pid.
    pub pid: u32,
    /// When it was started, as the host tells it: on Linux field 22 of `/proc/PID/stat`.
    pub start_time: String,
    /// In which boot of the host: on Linux `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// What it runs, for people.
    #[serde(default)]
    pub command: String,
}

/// `{"lease": …}`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LeaseDocument {
    /// The lease.
    pub lease: Lease,
}

/// `{"leases": […]}`
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LeasesDocument {
    /// The leases, by project and name of their owners.
    pub leases: Vec<Lease>,
}

/// Which lease is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseRequest {
    /// How many ports, 1–702. If not given: as many as the owner has, or the pool's `ports_per_agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<u16>,
    /// Whether a lease of another number of ports is to be replaced. Its owner keeps the ports of the labels that both have.
    #[serde(skip_serializing_if = "crate::is_false")]
    pub replace: bool,
    /// Whether ports that are given up thereby are released also while they are in use.
    #[serde(skip_serializing_if = "crate::is_false")]
    pub force: bool,
    /// The process with which the lease ends: once that has ended, with all that it started, and nobody has the ports. It must be
    /// one of the broker's host. An owner whose lease is bound to another process is a conflict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// With `holder`: the id of the lease, which its process hands over to that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// With `holder`: whether the ports are not remembered afterwards, for the owner will not come back.
    #[serde(skip_serializing_if = "crate::is_false")]
    pub forget: bool,
}
