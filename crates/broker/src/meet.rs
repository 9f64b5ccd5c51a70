//! What a listing shows under this broker's labels while the ledger has no such lease: it is adopted, remembered, told of or removed.

use std::sync::Arc;

use pool::{Clash, Owner, Port};
use runtime::{Observed, ObservedState, Runtime};
use tokio::time::Instant;

use crate::clock;
use crate::core::Core;
use crate::error::chain;
use crate::labels::{self, Tag};
use crate::ledger::Change;
use crate::model::{AgentRecord, Lease, Stage, join_ports};
use crate::verdict::{self, Meeting};
use crate::warnings::About;

/// What came of meeting something that carries this broker's labels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Met {
    InOrder,
    /// A person was told that something is to be done about it.
    InConflict,
    /// It is to be removed, which was not wanted now.
    Leftover,
}

impl Core {
    /// What the labels of something on a runtime say, if it is one of this broker's agents.
    pub(crate) fn tag_of(&self, observed: &Observed) -> Option<Tag> {
        let by_id = || {
            let state = self.state();
            let known =
                state.agents.values().find(|record| record.container.as_deref() == Some(&observed.id))?;
            labels::read_known(&self.id, observed, known)
        };
        labels::read(&self.id, observed).or_else(by_id)
    }

    /// Deals with something on a runtime that carries this broker's labels but no lease that the ledger has. What is to be removed
    /// is left as it is unless it `may_remove` that, which may take minutes.
    pub(crate) async fn meet(
        self: &Arc<Self>,
        runtime: &Arc<dyn Runtime>,
        listed: &Observed,
        tag: Tag,
        may_remove: bool,
    ) -> Met {
        let name = runtime.name();
        let meeting = |seen: &Observed, known: Option<&AgentRecord>| {
            let unstarted = self.state().unstarted(name, seen, &tag);
            verdict::meet(&seen.state, &seen.id, &tag.lease, known, unstarted)
        };
        let known = self.agent(&tag.key);
        match meeting(listed, known.as_ref()) {
            Meeting::Leave => return self.warn_of_labels(name, listed, &tag, known.as_ref()),
            Meeting::Remove if !may_remove => return Met::Leftover,
            _ => {}
        }
        // What was told of it before may hold still.
        let told = About::conflict(name, listed);
        let as_before =
            || if self.state().warnings.contains_key(&told) { Met::InConflict } else { Met::InOrder };
        let Some(_lock) = self.try_lock(&tag.key) else { return as_before() };
        let Ok(Some(observed)) = runtime.inspect(&listed.id).await else { return as_before() };
        // Where names are ids, it may be another by now (L7).
        if self.tag_of(&observed).as_ref() != Some(&tag) {
            return Met::InOrder;
        }
        let known = self.agent(&tag.key);
        match meeting(&observed, known.as_ref()) {
            Meeting::Leave => {}
            Meeting::Adopt => return self.adopt(runtime, &observed, tag, known).await,
            Meeting::Twice(lease) => {
                let text = format!(
                    "{} runs twice: {} is not the one that the ledger knows (lease {lease}); end it by hand",
                    tag.key, observed.id
                );
                self.warn(told, &text);
                return Met::InConflict;
            }
            Meeting::Remember => self.enter_past(name, &observed, tag).await,
            Meeting::Remove if !may_remove => return Met::Leftover,
            Meeting::Await => self.state().note_unstarted(name, &observed.id),
            Meeting::Remove => match runtime.remove(&observed.id).await {
                Ok(()) => tracing::info!(agent = %tag.key, id = observed.id, "removed a leftover"),
                Err(error) => {
                    tracing::warn!(agent = %tag.key, id = observed.id, error = %chain(&error), "a leftover could not be removed");
                }
            },
        }
        Met::InOrder
    }

    /// Tells of an agent under its lease whose labels name other ports than that has: someone has made it anew.
    fn warn_of_labels(
        &self,
        runtime: &str,
        listed: &Observed,
        tag: &Tag,
        known: Option<&AgentRecord>,
    ) -> Met {
        let lease = known.and_then(|record| record.lease.as_ref()).filter(|held| held.id == tag.lease);
        let Some(lease) = lease.filter(|held| held.ports != tag.ports) else { return Met::InOrder };
        let text = format!(
            "{} runs with labels that name the ports {}, while its lease has {}: start it anew with `--replace`",
            tag.key,
            join_ports(&tag.ports),
            join_ports(&lease.ports)
        );
        self.warn(About::conflict(runtime, listed), &text);
        Met::InConflict
    }

    /// Enters an agent of which the ledger knows nothing and that has ended.
    async fn enter_past(&self, runtime: &str, observed: &Observed, tag: Tag) {
        let ObservedState::Exited { code, at, .. } = &observed.state else { return };
        let mut record = AgentRecord::new(tag.key, runtime.to_owned());
        record.stage = Stage::Exited;
        record.container = Some(observed.id.clone());
        record.former.clone_from(&tag.ports);
        record.released_at = Some(clock::now());
        record.ended_at = at.map(clock::moment);
        record.exit_code = *code;
        let owner = Owner::Agent(record.key.clone());
        self.state().pool.remember(owner, &tag.ports, clock::now());
        self.note_or_log(&record).await;
    }

    /// Takes a running agent into the ledger with exactly the ports that its labels tell.
    async fn adopt(
        self: &Arc<Self>,
        runtime: &Arc<dyn Runtime>,
        observed: &Observed,
        tag: Tag,
        known: Option<AgentRecord>,
    ) -> Met {
        let lease = Lease { id: tag.lease.clone(), ports: tag.ports.clone(), since: clock::now() };
        let owner = Owner::Agent(tag.key.clone());
        let reserved = {
            let mut state = self.state();
            let reserved = state.pool.reserve(lease.id.clone(), owner.clone(), &lease.ports, lease.since);
            if reserved.is_ok() {
                // It may have been taken for a stranger's.
                let is_its = |port: &&Port| observed.published.iter().any(|it| it.host == port.get());
                for port in lease.ports.iter().filter(is_its) {
                    state.pool.unblock(*port);
                }
            }
            reserved
        };
        if let Err(clash) = reserved {
            let text = format!(
                "{} runs as {} {}; it goes on, but has no lease: end one of the two",
                tag.key,
                observed.id,
                with_clash(&clash)
            );
            self.warn(About::conflict(runtime.name(), observed), &text);
            return Met::InConflict;
        }
        let (former, released_at) =
            known.as_ref().map(|record| (record.former.clone(), record.released_at)).unwrap_or_default();
        let mut record = known.unwrap_or_else(|| AgentRecord::new(tag.key, runtime.name().to_owned()));
        record.runtime = runtime.name().to_owned();
        record.container = Some(observed.id.clone());
        record.engine = self.engine_of(runtime.as_ref()).await.unwrap_or_default();
        record.former.clear();
        record.released_at = None;
        // It may be of an earlier request than the one that is known, and keeps what it has when it is started anew.
        let size = self.state().pool.size();
        if let (Some(spec), Ok(count)) = (&mut record.spec, u16::try_from(lease.ports.len().min(size))) {
            spec.ports = count;
        }
        record.lease = Some(lease.clone());
        // Of what has failed nothing may be left, and this runs: whoever finds it so after a crash enters that it does.
        record.stage = Stage::Starting;
        record.reason = None;
        let grant = Change::Grant { owner: owner.clone(), lease: lease.clone() };
        let changes = vec![Change::Agent(Box::new(record.clone())), grant];
        if let Err(error) = self.ledger.record(changes).on_disk().await {
            tracing::error!(agent = %record.key, %error, "a running agent was not adopted; it will be tried again");
            let mut state = self.state();
            state.pool.cancel(&lease.id);
            state.pool.remember(owner, &former, released_at.unwrap_or_default());
            return Met::InOrder;
        }
        self.state().granted.insert(lease.id.clone(), Instant::now());
        // It may have ended already, and that may not be recorded: then this is what is known, and the next look tries it again.
        self.publish(record.clone());
        tracing::info!(agent = %record.key, id = observed.id, ports = ?lease.ports, "adopted a running agent by its labels");
        self.resume(&record.key, &lease.id, runtime.as_ref(), &observed.id).await;
        let now = runtime.inspect(&observed.id).await.ok().flatten();
        drop(self.confirm(record, now.as_ref().unwrap_or(observed)).await);
        Met::InOrder
    }
}

/// With what something runs that cannot be adopted.
pub(crate) fn with_clash(clash: &Clash) -> String {
    match clash {
        Clash::Port { port, holder } => format!("with port {port}, which {holder} has too"),
        Clash::Id { lease, holder } => format!("with the lease {lease}, which is that of {holder}"),
    }
}
