//! What names a lease, who can hold one, and when something happened.

use std::fmt;
use std::sync::Arc;

use crate::AgentKey;

/// The id of a lease. It is never used again, so that a late release cannot hit a newer lease.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(Arc<str>);

impl LeaseId {
    /// Takes `text` as an id. Ids are made by the broker; this crate only compares them.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Who holds a lease.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Owner {
    /// An agent that the broker runs.
    Agent(AgentKey),
    /// Something that Berthold does not start itself, by the name it gave (`berthold lease OWNER`).
    Bare(AgentKey),
}

impl Owner {
    /// The `project/name` of the owner.
    pub fn key(&self) -> &AgentKey {
        match self {
            Self::Agent(key) | Self::Bare(key) => key,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(key) => key.fmt(f),
            Self::Bare(key) => write!(f, "lease {key}"),
        }
    }
}

/// A point in time, in milliseconds since the Unix epoch, as the caller's clock gave it. The clock may be set
/// back, so nothing here takes a later call for a later moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Moment(pub i64);
