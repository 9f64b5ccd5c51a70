//! Takes and ends leases: decide in the pool, record in the ledger, and only then go on.
//!
//! A lease is in the ledger, with its owner, before anyone is told its ports. It leaves the ledger before the pool hands
//! its ports to anyone else. If the ledger cannot be written, the pool is put back as it was.

use std::collections::BTreeMap;

use pool::{Exhausted, LeaseId, Moment, Owner, Port};
use tokio::time::Instant;

use crate::blocked::{self, is_held};
use crate::clock;
use crate::core::{Core, State};
use crate::error::OperationError;
use crate::ledger::{Change, LedgerError};
use crate::model::{AgentRecord, Lease};
use crate::reason;
use crate::runtimes::Locality;

impl Core {
    /// Gives `record` a lease of `count` ports in place of the one that it has, if any, and enters both into the ledger in
    /// one step. Nothing of the agent may run: the ports of its old lease are free for others afterwards.
    ///
    /// # Errors
    /// [`OperationError::Exhausted`] or [`OperationError::Ledger`]; then the agent has what it had before.
    pub(crate) async fn take_lease(
        &self,
        mut record: AgentRecord,
        count: u16,
    ) -> Result<AgentRecord, OperationError> {
        let (old, released_at) = (record.lease.take(), record.released_at.take());
        let former = std::mem::take(&mut record.former);
        let owner = Owner::Agent(record.key.clone());
        let undo = Undo { owner: owner.clone(), old, former, released_at, in_use: false };
        let since = clock::now();
        let exhausted =
            |source| OperationError::Exhausted { owner: record.key.to_string(), source: Box::new(source) };
        let id = Self::new_lease_id();
        let ports = self.choose(&id, usize::from(count), &undo, &record.runtime).await.map_err(exhausted)?;
        record.lease = Some(Lease { id: id.clone(), ports: ports.clone(), since });

        let mut changes = Vec::with_capacity(3);
        if let Some(old) = &undo.old {
            let reason = reason::STARTED_ANEW.to_owned();
            changes.push(Change::Release { lease: old.id.clone(), at: since, reason });
        }
        changes.push(Change::Agent(Box::new(record.clone())));
        let lease = Lease { id: id.clone(), ports: ports.clone(), since };
        changes.push(Change::Grant { owner, lease });
        if let Err(source) = self.ledger.record(changes).on_disk().await {
            self.undo(&undo, &id);
            return Err(OperationError::Ledger { key: record.key, source });
        }
        {
            let mut state = self.state();
            state.granted.insert(id.clone(), Instant::now());
            state.used.insert(record.runtime.clone());
            if let Some(old) = &undo.old {
                state.pool.complete_exchange(&old.id, clock::now());
                state.drop_traces(&old.id);
            }
        }
        self.tell_ports(&id, &ports);
        self.publish(record.clone());
        Ok(record)
    }

    /// Whether there are ports for a lease of `count` in place of the one that `record` has. None is taken.
    ///
    /// # Errors
    /// [`OperationError::Exhausted`].
    pub(crate) async fn check_lease(&self, record: &AgentRecord, count: u16) -> Result<(), OperationError> {
        let Some(old) = &record.lease else { return Ok(()) };
        let owner = Owner::Agent(record.key.clone());
        let taken = || {
            let mut pool = self.state().pool.clone();
            pool.exchange(&old.id, Self::new_lease_id(), usize::from(count), owner.clone(), clock::now())
        };
        let mut checked = taken();
        if checked.as_ref().is_err_and(may_be_over) {
            self.review_blocked(&record.runtime).await;
            checked = taken();
        }
        checked.map(drop).map_err(|source| OperationError::Exhausted {
            owner: record.key.to_string(),
            source: Box::new(source),
        })
    }

    /// Ends the lease of `record`, of which the runtime has confirmed that nothing runs any more, and enters the record as
    /// it is now. The ports become its former ports. With `forget` the agent goes with the lease.
    ///
    /// # Errors
    /// [`LedgerError`]; then the lease is held as before.
    pub(crate) async fn end_lease(
        &self,
        mut record: AgentRecord,
        ending: Ending,
    ) -> Result<AgentRecord, LedgerError> {
        let now = clock::now();
        let ended = record.lease.take();
        record.published = None;
        let remember = match ending {
            Ending::Remember => {
                if let Some(lease) = ended.as_ref().filter(|lease| !lease.ports.is_empty()) {
                    record.former.clone_from(&lease.ports);
                    record.released_at = Some(now);
                }
                true
            }
            Ending::Restore { ref former, released_at } => {
                record.former.clone_from(former);
                record.released_at = released_at;
                false
            }
            Ending::Forget => false,
        };
        let mut changes = Vec::with_capacity(2);
        if let Some(lease) = &ended {
            let reason = reason::of(&record, &ending);
            changes.push(Change::Release { lease: lease.id.clone(), at: now, reason });
        }
        changes.push(match ending {
            Ending::Forget => Change::Forget(record.key.clone()),
            _ => Change::Agent(Box::new(record.clone())),
        });
        self.ledger.record(changes).on_disk().await?;
        if let Some(lease) = &ended {
            let mut state = self.state();
            state.pool.release(&lease.id, now, remember);
            if matches!(ending, Ending::Remember) && !state.before.contains_key(&lease.id) {
                state.last_leases.insert(record.key.clone(), lease.id.clone());
            }
            state.drop_traces(&lease.id);
        }
        let owner = Owner::Agent(record.key.clone());
        match ending {
            Ending::Forget => {
                let mut state = self.state();
                state.pool.forget(&owner);
                state.agents.remove(&record.key);
                state.last_leases.remove(&record.key);
                drop(state);
                self.tell(api::Event::AgentDeleted {
                    project: record.key.project.to_string(),
                    name: record.key.name.to_string(),
                });
            }
            Ending::Restore { former, released_at } => {
                self.state().pool.remember(owner, &former, released_at.unwrap_or(now));
                self.publish(record.clone());
            }
            Ending::Remember => self.publish(record.clone()),
        }
        if let Some(lease) = &ended {
            self.tell_ports(&lease.id, &lease.ports);
        }
        Ok(record)
    }

    /// Enters the record as it is now; its lease stays what it is.
    ///
    /// # Errors
    /// [`LedgerError`]; the state has the record all the same, for it is what is true.
    pub(crate) async fn note(&self, record: &AgentRecord) -> Result<(), LedgerError> {
        self.publish(record.clone());
        self.ledger.record(vec![Change::Agent(Box::new(record.clone()))]).on_disk().await
    }

    /// Chooses ports that nobody on this host holds, blocking those that somebody does. Before there are said to be too few, those
    /// that somebody held are looked at anew.
    pub(crate) async fn choose(
        &self,
        id: &LeaseId,
        count: usize,
        undo: &Undo,
        runtime: &str,
    ) -> Result<Vec<Port>, Exhausted> {
        match self.choose_unblocked(id, count, undo, runtime).await {
            Err(exhausted) if may_be_over(&exhausted) => {
                self.review_blocked(runtime).await;
                self.choose_unblocked(id, count, undo, runtime).await
            }
            chosen => chosen,
        }
    }

    async fn choose_unblocked(
        &self,
        id: &LeaseId,
        count: usize,
        undo: &Undo,
        runtime: &str,
    ) -> Result<Vec<Port>, Exhausted> {
        let is_local = self.runtimes.locality(runtime) == Locality::Local;
        let unseen = self.held_unseen(runtime).await;
        loop {
            let ports = {
                let (mut state, now) = (self.state(), clock::now());
                match &undo.old {
                    Some(old) => state.pool.exchange(&old.id, id.clone(), count, undo.owner.clone(), now)?,
                    None => state.pool.allocate(id.clone(), undo.owner.clone(), count, now)?,
                }
            };
            let (mut held, mut busy) = (BTreeMap::new(), Vec::new());
            for port in ports.iter().filter(|port| !(undo.in_use && undo.had(**port))) {
                if let Some(by) = unseen.get(port) {
                    held.insert(*port, by.clone());
                } else if is_local && is_held(*port, undo.had(*port)).await {
                    busy.push(*port);
                }
            }
            held.extend(blocked::name(busy).await);
            if held.is_empty() {
                return Ok(ports);
            }
            let news = {
                // In one step, or someone else may lease such a port in between.
                let mut state = self.state();
                undo.carry_out(&mut state, id);
                state.block(&held)
            };
            self.tell_blocked(&news);
        }
    }

    /// Gives the owner back what it had before `new` was chosen for it.
    pub(crate) fn undo(&self, undo: &Undo, new: &LeaseId) {
        undo.carry_out(&mut self.state(), new);
    }

    /// Tells the listeners that a lease was granted or has ended.
    pub(crate) fn tell_ports(&self, lease: &LeaseId, ports: &[Port]) {
        if !ports.is_empty() {
            let ports = ports.iter().map(|port| port.get()).collect();
            self.tell(api::Event::Pool { lease: Some(lease.to_string()), ports });
        }
    }
}

/// Whether there are too few ports only because others hold some, which they may no longer do.
fn may_be_over(exhausted: &Exhausted) -> bool {
    exhausted.available + exhausted.blocked.len() >= exhausted.requested
}

/// What the owner had before, to give it back.
pub(crate) struct Undo {
    pub(crate) owner: Owner,
    pub(crate) old: Option<Lease>,
    pub(crate) former: Vec<Port>,
    pub(crate) released_at: Option<Moment>,
    /// Whether the owner may be listening on what it has: those ports it keeps, held or not.
    pub(crate) in_use: bool,
}

impl Undo {
    fn carry_out(&self, state: &mut State, new: &LeaseId) {
        match &self.old {
            Some(old) => state.pool.undo_exchange(&old.id, &old.ports, new),
            None => {
                state.pool.cancel(new);
                let released_at = self.released_at.unwrap_or_else(clock::now);
                state.pool.remember(self.owner.clone(), &self.former, released_at);
            }
        }
    }

    /// Whether `port` was the owner's own a moment ago.
    fn had(&self, port: Port) -> bool {
        self.former.contains(&port) || self.old.as_ref().is_some_and(|old| old.ports.contains(&port))
    }
}

/// What becomes of the ports of a lease that ends.
pub(crate) enum Ending {
    /// They are the agent's former ports from now on.
    Remember,
    /// The agent never ran with them: it has the former ports that it had before.
    Restore { former: Vec<Port>, released_at: Option<Moment> },
    /// The agent is forgotten, and its former ports with it.
    Forget,
}
