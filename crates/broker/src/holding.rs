//! Bare leases that end with a process: those of `berthold run`.
//!
//! Such a lease has a *holder*, a process of this host, known by pid, start time and boot (never by the pid alone) and kept in the
//! ledger. First that is the command `berthold run` itself. Once it has started what it is to run, it hands the lease over to that child;
//! and when the child has ended, it releases the lease. None of this is relied upon: whoever of the three (the command, its child, the
//! broker) is killed at whichever step, the lease ends when nobody uses it any more, and not before:
//!
//! - The holder lives, or anything that it started: the lease stays. What it started is told by descent and by the variable
//!   `BERTHOLD_LEASE` with the lease's id, which all of it inherits. So a child whose parent was killed before it could hand the lease over
//!   is known all the same.
//! - Nothing of it lives, but someone has a port of the lease: the lease stays (a server may have emptied its environment).
//! - Neither: the lease ends.
//!
//! This is looked at when the holder ends, which the kernel tells at once; at the broker's start; with every look of the reconciler; and
//! when the owner asks for a lease anew. Where the host does not tell what runs, nothing is ended.
//!
//! **Rejected.** A connection that is held open for as long as the command runs: it ends with the command and not with its child, it
//! breaks when the broker is restarted, and the process would have to be looked at all the same. A signal to the child when its parent dies:
//! it is Linux's alone, does not reach grandchildren, and ends what may be left to run.
//!
//! **Limits.** Where there is no `/proc`, variables cannot be read: only the holder, its descendants and listeners keep the lease.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pool::{AgentKey, LeaseId, environment};
use runtime::process::{Identity, belonging, end_of};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::core::Core;
use crate::error::{OperationError, shown};
use crate::ledger::Change;
use crate::model::{BareLease, Holder};
use crate::reason;
use crate::spec;

/// For how long the end of a holder is waited for before it is looked at again.
const WATCH_LIMIT: Duration = Duration::from_secs(60);
/// The pauses between two looks once the holder has ended and something of it is left: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

impl Core {
    /// Hands the lease of that id over to another process.
    pub(crate) async fn hand_over(&self, bare: BareLease, to: Holder) -> Result<BareLease, OperationError> {
        let change = Change::Hold { lease: bare.lease.id.clone(), holder: to.clone() };
        let ledger = |source| OperationError::Ledger { key: bare.key.clone(), source };
        self.ledger.record(vec![change]).on_disk().await.map_err(ledger)?;
        let bare = BareLease { holder: Some(to), ..bare };
        self.state().bare.insert(bare.key.clone(), bare.clone());
        Ok(bare)
    }

    /// Ends the lease of that id if its holder is gone and nobody uses it. Whether it is over with it, by now or before.
    pub(crate) async fn settle_held(&self, owner: &AgentKey, id: &LeaseId) -> bool {
        let _lock = self.lock_bare(owner).await;
        let held = self.bare(owner).filter(|bare| bare.lease.id == *id && bare.holder.is_some());
        let Some(bare) = held else { return true };
        self.end_if_unused(&bare).await
    }

    /// The same of a lease whose owner is locked already.
    pub(crate) async fn end_if_unused(&self, bare: &BareLease) -> bool {
        match self.left_of(bare).await {
            Ok(left) if left.is_empty() => {}
            Ok(_) => return false,
            Err(error) => {
                tracing::warn!(owner = %bare.key, %error, "nothing is known of the holder of a lease for now; it stays");
                return false;
            }
        }
        if !self.in_use(&bare.lease.ports).await.is_empty() {
            return false;
        }
        // A container may have a port without a socket of this host.
        if let Some(runtime) = self.silent_here() {
            tracing::warn!(owner = %bare.key, runtime, "it is not known whether a port of a lease is published there; the lease stays");
            return false;
        }
        match self.end_bare(bare, reason::PROCESS_ENDED).await {
            Ok(()) => {
                tracing::info!(owner = %bare.key, lease = %bare.lease.id, "a lease has ended with its process");
                true
            }
            Err(error) => {
                tracing::error!(owner = %bare.key, %error, "the end of a lease was not recorded; it stays");
                false
            }
        }
    }

    /// The processes that hold a lease: its holder, and what that started. A lease without a holder has none.
    pub(crate) async fn left_of(&self, bare: &BareLease) -> io::Result<Vec<Identity>> {
        let Some(holder) = bare.holder.clone() else { return Ok(Vec::new()) };
        let mark = format!("{}={}", environment::LEASE_VARIABLE, bare.lease.id);
        spawn_blocking(move || belonging(&holder.process, &mark)).await.map_err(io::Error::other)?
    }

    /// Looks at every lease that has a holder.
    pub(crate) async fn settle_all_held(&self) {
        let held: Vec<(AgentKey, LeaseId)> = {
            let state = self.state();
            let held = state.bare.values().filter(|bare| bare.holder.is_some());
            held.map(|bare| (bare.key.clone(), bare.lease.id.clone())).collect()
        };
        for (owner, id) in held {
            self.settle_held(&owner, &id).await;
        }
    }

    /// Watches a lease until it has ended, so that the end of its holder is known at once.
    pub(crate) fn watch_held(self: &Arc<Self>, bare: &BareLease) {
        if bare.holder.is_none() {
            return;
        }
        let (core, owner, id) = (Arc::clone(self), bare.key.clone(), bare.lease.id.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = core.shutdown.cancelled() => {}
                () = core.watch_to_the_end(&owner, &id) => {}
            }
        });
    }

    async fn watch_to_the_end(&self, owner: &AgentKey, id: &LeaseId) {
        let mut pause = PAUSE.0;
        while !self.settle_held(owner, id).await {
            let holder = self.bare(owner).and_then(|bare| bare.holder);
            match holder {
                Some(holder) if holder.process.is_alive().unwrap_or(false) => {
                    // That it has not ended yet is no error.
                    drop(timeout(WATCH_LIMIT, end_of(&holder.process)).await);
                    pause = PAUSE.0;
                }
                _ => {
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }
}

/// The process that a caller names as the holder, and that lives.
pub(crate) fn holder(owner: &AgentKey, named: &api::Holder, forget: bool) -> Result<Holder, OperationError> {
    let holder = named_holder(named, forget);
    if holder.process.is_alive().unwrap_or(false) {
        return Ok(holder);
    }
    let message = format!(
        "no ports for {owner}: the broker's host has no process {} that was started when the caller says",
        named.pid
    );
    let hint = format!(
        "a lease ends with a process only where the broker sees it: not on another host or in another container; there, \
         `berthold lease {}` gives one that lives until it is released",
        shown(owner)
    );
    Err(spec::invalid(message, Some(hint)))
}

/// The process that a caller names as the holder, be it that it has ended.
pub(crate) fn named_holder(named: &api::Holder, forget: bool) -> Holder {
    Holder {
        process: Identity::from_parts(named.pid, &named.start_time, &named.boot_id),
        command: named.command.clone(),
        forget,
    }
}
