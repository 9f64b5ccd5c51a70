//! The broker's durable record of leases and agents: one SQLite file in the broker's home.
//!
//! **Layout.** `schema/1.sql` and what follows it: a row a lease, a row a port that a lease holds, a row an agent, a row for
//! each owner of a bare lease that was released (the latest of them, see `bare`), what runtimes told last of the ports of others (see
//! `told`), and the history (see `history`). The database itself forbids that a port is in
//! two leases and that an owner has two leases.
//!
//! **Order.** Everything that changes is sent to one writer thread, which commits in the order of arrival. What waits when
//! it comes round is committed together, each transaction in a savepoint of its own: many leases cost few flushes,
//! and one that the database refuses fails alone. A caller that was told "done" finds its change after any crash (WAL,
//! `synchronous=FULL`).
//!
//! **After a crash.** SQLite replays or drops the last commit as a whole. A file that is no sound database is kept beside the
//! new one under another name, and the broker rebuilds from the labels of what runs. A file from a newer version is left alone;
//! one from an older version is brought up to date in one transaction.
//!
//! **Limits.** One process a file; the broker's lock sees to that. A full disk fails the change, not the broker.

#[cfg(test)]
mod damaged;
mod history;
mod open;
mod rows;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;

use pool::{AgentKey, LeaseId, Moment, Owner};

pub(crate) use history::{Held, Question, read as read_history};
pub(crate) use open::{OpenError, is_missing, open};
#[cfg(test)]
pub(crate) use writer::ByHand;
pub(crate) use writer::Ledger;

use crate::model::{AgentRecord, BareLease, Former, Holder, Lease, ToldPorts};

/// One step of a transaction.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Enters a lease with its owner.
    Grant { owner: Owner, lease: Lease },
    /// Enters with which process a bare lease ends.
    Hold { lease: LeaseId, holder: Holder },
    /// Ends a lease, for that reason; nothing happens if it ended before.
    Release { lease: LeaseId, at: Moment, reason: String },
    /// Writes what is known of an agent, its lease apart.
    Agent(Box<AgentRecord>),
    /// Forgets an agent.
    Forget(AgentKey),
    /// Writes which ports the owner of a bare lease had, or forgets it.
    Former { owner: AgentKey, former: Option<Former> },
    /// Writes which ports others hold on a runtime, in place of what was known of it.
    Told { runtime: &'static str, told: ToldPorts },
}

/// All that the ledger holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Contents {
    /// The agents, with the leases that they hold.
    pub(crate) agents: Vec<AgentRecord>,
    /// The leases of owners that are no agents.
    pub(crate) bare: Vec<BareLease>,
    /// The ports that such owners had.
    pub(crate) former: Vec<(AgentKey, Former)>,
    /// What runtimes told last of the ports that others hold, by their names.
    pub(crate) told: BTreeMap<String, ToldPorts>,
}

/// Leases by their ids: the owner as it is shown, and the ports in label order.
#[cfg(test)]
pub(crate) type Leases = BTreeMap<String, (String, Vec<u16>)>;

#[cfg(test)]
impl Contents {
    /// The leases alone. An owner that is no agent has `bare` before its name.
    pub(crate) fn leases(&self) -> Leases {
        let agents =
            self.agents.iter().filter_map(|agent| Some((agent.key.to_string(), agent.lease.as_ref()?)));
        let bare = self.bare.iter().map(|bare| (format!("bare {}", bare.key), &bare.lease));
        let ports = |lease: &Lease| lease.ports.iter().map(|port| port.get()).collect();
        agents.chain(bare).map(|(owner, lease)| (lease.id.to_string(), (owner, ports(lease)))).collect()
    }
}

/// The ledger could not be written. Nothing of the transaction was recorded.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the ledger could not be written: {reason}")]
pub(crate) struct LedgerError {
    /// What SQLite said.
    pub(crate) reason: String,
    /// Whether the disk is full.
    pub(crate) disk_full: bool,
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        let disk_full = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
        Self { reason: error.to_string(), disk_full }
    }
}
