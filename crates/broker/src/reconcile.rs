//! Makes ledger and runtime agree again: at start-up, on the timer, and when an agent ends.
//!
//! What is to be done with an agent is decided by [`decide`], a plain function. It is carried out under the agent's own
//! lock, after the runtime was asked for that one agent once more: a listing may be older than what happened since, and an
//! agent on which an operation is under way is left to that operation. A runtime that does not answer, or whose listing
//! failed half-way, changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pool::{AgentKey, Clash, Owner, Port};
use runtime::{Observed, ObservedState, Runtime, RuntimeError};
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::core::Core;
use crate::engines::is_elsewhere;
use crate::error::chain;
use crate::labels::{self, Tag};
use crate::launch;
use crate::leases::Ending;
use crate::ledger::Change;
use crate::listing::Listing;
use crate::model::{AgentRecord, Lease, Stage, join_ports};
use crate::verdict::{self, Meeting, Verdict, decide};

/// How long a runtime may take to answer that has no agents as far as is known.
pub(crate) const UNUSED: Duration = Duration::from_secs(5);
/// How long the first request waits for what is to be done about one agent.
const TAKING_UP: Duration = Duration::from_secs(3);
/// In every how manieth round of the timer such a runtime is looked at as well: what a lost ledger knew of may be there.
const UNUSED_EVERY: u32 = 30;

impl Core {
    /// Looks at every runtime once, as it is done before the first request: agents that the ledger has lost may be on any. One
    /// that has no agents as far as the ledger knows, such as a cluster that is out of reach, is not waited for for long; what
    /// it says later is heeded then.
    pub(crate) async fn reconcile_all(self: &Arc<Self>) {
        self.look_at(|_| true).await;
        self.settle_all_held().await;
        self.review_blocked("").await;
    }

    /// The runtimes that have agents, or had some while this broker ran: something of those may still be there.
    pub(crate) fn runtimes_in_use(&self) -> BTreeSet<String> {
        let state = self.state();
        state.agents.values().map(|agent| &agent.runtime).chain(&state.used).cloned().collect()
    }

    /// Looks once at the runtimes that are meant. One that is not in use is not waited for for long.
    async fn look_at(self: &Arc<Self>, is_meant: impl Fn(&str) -> bool) {
        let in_use = self.runtimes_in_use();
        for name in in_use.iter().filter(|name| is_meant(name)) {
            if let Err(error) = self.runtimes.get(name) {
                self.warn_unreachable(name, &error);
            }
        }
        let meant = self.runtimes.usable().filter(|runtime| is_meant(runtime.name()));
        let rounds = meant.map(|runtime| {
            let limit = if in_use.contains(runtime.name()) { Duration::MAX } else { UNUSED };
            let core = Arc::clone(self);
            let round = tokio::spawn(async move { core.reconcile_runtime(runtime).await });
            // A round that is not waited for any more goes on by itself.
            tokio::time::timeout(limit, round)
        });
        drop(futures_util::future::join_all(rounds).await);
    }

    /// Looks at everything again and again, until the broker ends.
    pub(crate) async fn keep_reconciling(self: Arc<Self>) {
        let interval = self.settings.server.broker.reconcile_interval;
        for round in 1_u32.. {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = sleep(interval) => {
                    let in_use = self.runtimes_in_use();
                    // An engine that nobody uses is left in peace most of the time: Podman's service would never end.
                    self.look_at(|name| in_use.contains(name) || round % UNUSED_EVERY == 0).await;
                    self.review_blocked("").await;
                    self.settle_all_held().await;
                }
            }
        }
    }

    /// Looks at one runtime.
    pub(crate) async fn reconcile_runtime(self: &Arc<Self>, runtime: Arc<dyn Runtime>) {
        let name = runtime.name();
        let about = format!("runtime {name}");
        let (listing, engine) = match self.listed(runtime.as_ref()).await {
            Ok(answers) => answers,
            Err(error) => return self.warn_unreachable(name, &error),
        };
        self.unwarn(&about);
        if let Some(unstarted) = self.state().unstarted.get_mut(name) {
            let is_it = |id: &str, it: &Observed| it.id == *id && it.state == ObservedState::Created;
            unstarted.retain(|id, _| listing.iter().any(|it| is_it(id, it)));
        }
        for key in self.keys_to_settle(name, &listing, engine.as_deref()) {
            let core = Arc::clone(self);
            self.see_to(async move { core.settle(&key).await }).await;
        }
        self.warn_of_engine(name, engine.as_deref());
        for key in self.keys_to_forget(name) {
            let core = Arc::clone(self);
            self.see_to(async move { core.forget_ended(&key).await }).await;
        }
        let mut in_conflict = BTreeSet::new();
        for observed in listing.iter() {
            let Some(tag) = self.tag_of(observed) else { continue };
            let (core, runtime, seen) = (Arc::clone(self), Arc::clone(&runtime), observed.clone());
            let met = self.see_to(async move { core.meet(&runtime, &seen, tag).await }).await;
            if met == Some(Met::InConflict) {
                in_conflict.insert(conflict(name, observed));
            }
        }
        let is_over = |about: &str| about.starts_with(&conflicts(name)) && !in_conflict.contains(about);
        self.take_back(is_over);
    }

    /// Does what is to be done about one agent. The removal of a pod may take minutes, for which the first request does not wait: the work goes on
    /// by itself then, with the agent locked and its ports leased. None if it does.
    async fn see_to<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        if self.state().taken_up.is_some() {
            return Some(work.await);
        }
        tokio::time::timeout(TAKING_UP, self.tasks.spawn(work)).await.ok()?.ok()
    }

    /// Tells that nothing is known of the agents of a runtime, if it has any that live.
    fn warn_unreachable(&self, name: &str, error: &RuntimeError) {
        if self.state().agents.values().any(|agent| agent.runtime == name && agent.is_live()) {
            let text = format!("{name} does not answer, so nothing of it is changed: {}", chain(error));
            self.warn(&format!("runtime {name}"), &text);
        }
    }

    /// The live agents of a runtime of which the listing does not show what is known.
    fn keys_to_settle(&self, runtime: &str, listing: &Listing, engine: Option<&str>) -> Vec<AgentKey> {
        let publishes_nothing = self.runtimes.get(runtime).is_ok_and(|it| !it.publishes());
        let mut state = self.state();
        let (mut due, mut seen_again) = (Vec::new(), Vec::new());
        for record in state.agents.values().filter(|record| record.runtime == runtime) {
            let Some(lease) = &record.lease else { continue };
            let seen = listing.agent(&self.id, record);
            if seen.is_none() && is_elsewhere(record, engine) {
                continue;
            }
            let absence = state.absence(lease, runtime, seen);
            let verdict = decide(record.stage, seen.map(|it| &it.state), absence);
            if ![Verdict::Missing, Verdict::Gone].contains(&verdict) {
                seen_again.push(lease.id.clone());
            }
            let is_new_to_it = seen.is_some() && engine.is_some() && record.engine.as_deref() != engine;
            // Another `expose` may be in force since the broker was started anew. What this process publishes comes a moment later.
            let address = seen.and_then(|seen| launch::address(record, seen));
            let is_news = record.published != address && (address.is_some() || publishes_nothing);
            // Its engine was not there when this broker started.
            let is_unwatched =
                state.taken_up.is_some() && seen.is_some() && !state.watched.contains(&lease.id);
            if is_new_to_it || is_news || is_unwatched || verdict != Verdict::Keep {
                due.push(record.key.clone());
            }
        }
        for lease in seen_again {
            state.missing.remove(&lease);
        }
        due
    }

    /// The agents of a runtime that have ended and are still there, though they were to be forgotten.
    fn keys_to_forget(&self, runtime: &str) -> Vec<AgentKey> {
        let state = self.state();
        let of_runtime = state.agents.values().filter(|record| record.runtime == runtime);
        of_runtime.filter(|it| verdict::is_to_be_forgotten(it)).map(|record| record.key.clone()).collect()
    }

    /// Removes what is left of an agent that was to be forgotten with its end.
    async fn forget_ended(&self, key: &AgentKey) {
        let Some(_lock) = self.try_lock(key) else { return };
        let Some(record) = self.agent(key).filter(verdict::is_to_be_forgotten) else { return };
        let Ok(runtime) = self.runtime_of(&record) else { return };
        if let Some(id) = &record.container
            && let Err(error) = self.remove_known(&runtime, key, id).await
        {
            tracing::warn!(agent = %key, id, error = %chain(&error), "what was to be forgotten cannot be removed yet");
            return;
        }
        match self.end_lease(record, Ending::Forget).await {
            Ok(_) => tracing::info!(agent = %key, "removed what was to be forgotten with its end"),
            Err(error) => tracing::error!(agent = %key, %error, "an agent could not be forgotten yet"),
        }
    }

    /// Brings one agent up to date, unless an operation on it is under way.
    pub(crate) async fn settle(self: &Arc<Self>, key: &AgentKey) {
        let Some(_lock) = self.try_lock(key) else { return };
        let Some(record) = self.agent(key) else { return };
        let Some(lease) = record.lease.clone() else { return };
        let Ok(runtime) = self.runtime_of(&record) else { return };
        let seen = match self.look(&runtime, &record).await {
            Ok(seen) => seen,
            Err(error) => {
                let engine = self.state().engines.get(runtime.name()).cloned().flatten();
                // Of this there is a warning, and it may last for long.
                if !is_elsewhere(&record, engine.as_deref()) {
                    tracing::warn!(agent = %key, error = %chain(&error), "nothing is known of the agent for now");
                }
                return;
            }
        };
        let absence = self.state().absence(&lease, runtime.name(), seen.as_ref());
        let verdict = decide(record.stage, seen.as_ref().map(|it| &it.state), absence);
        tracing::debug!(agent = %key, ?verdict, "looked at");
        if verdict != Verdict::Missing {
            self.state().missing.remove(&lease.id);
        }
        match (verdict, seen) {
            (Verdict::Missing, Some(observed)) => {
                let mut state = self.state();
                state.missing.remove(&lease.id);
                state.note_unstarted(runtime.name(), &observed.id);
            }
            (Verdict::Missing, None) => {
                self.state().missing.entry(lease.id).or_insert_with(Instant::now);
            }
            (Verdict::Gone, _) => self.enter_gone(record, &runtime).await,
            (Verdict::Keep | Verdict::Running, Some(observed)) => drop(self.confirm(record, &observed).await),
            (Verdict::Ended, Some(observed)) => {
                if let ObservedState::Exited { code, at, detail } = observed.state {
                    let mut record = record;
                    record.container = Some(observed.id);
                    record.reason = detail.filter(|text| !text.is_empty());
                    tracing::info!(agent = %key, ?code, "ended by itself");
                    drop(self.enter_exit(record, code, at.map(clock::moment)).await);
                }
            }
            (Verdict::Remove, Some(observed)) => self.remove_leftover(record, &runtime, &observed.id).await,
            (Verdict::Keep | Verdict::Running | Verdict::Ended | Verdict::Remove, None) => {}
        }
    }

    /// Someone has removed it behind the broker's back.
    async fn enter_gone(&self, mut record: AgentRecord, runtime: &Arc<dyn Runtime>) {
        if let Err(error) = self.withdraw(runtime, &record).await {
            tracing::warn!(agent = %record.key, error = %chain(&error), "what belongs to an agent that is gone was not taken back; its lease stays");
            return;
        }
        tracing::warn!(agent = %record.key, runtime = runtime.name(), "nothing is left of the agent");
        record.reason = Some(match record.stage {
            Stage::Starting | Stage::Failed => "its start was cut short".to_owned(),
            _ => format!("it was removed from {} by someone else", runtime.name()),
        });
        if matches!(record.stage, Stage::Starting | Stage::Failed) {
            record.stage = Stage::Failed;
            return self.drop_lease(record).await;
        }
        record.container = None;
        drop(self.enter_exit(record, None, None).await);
    }

    /// Removes what a start that failed or was cut short left.
    async fn remove_leftover(&self, mut record: AgentRecord, runtime: &Arc<dyn Runtime>, id: &str) {
        if let Err(error) = runtime.remove(id).await {
            tracing::warn!(agent = %record.key, id, error = %chain(&error), "a leftover could not be removed; its lease stays");
            return;
        }
        if let Err(error) = self.withdraw(runtime, &record).await {
            tracing::warn!(agent = %record.key, id, error = %chain(&error), "what belongs to a leftover was not taken back; its lease stays");
            return;
        }
        if record.stage == Stage::Stopping {
            tracing::info!(agent = %record.key, id, "removed what had not started of an agent that was to stop");
            record.container = None;
            drop(self.enter_exit(record, None, None).await);
            return;
        }
        tracing::info!(agent = %record.key, id, "removed what a start that did not succeed left");
        record.stage = Stage::Failed;
        if record.reason.is_none() {
            record.reason = Some("its start was cut short".to_owned());
        }
        self.drop_lease(record).await;
    }

    async fn drop_lease(&self, mut record: AgentRecord) {
        record.container = None;
        record.ended_at = Some(clock::now());
        let before = record.lease.as_ref().and_then(|lease| self.state().before.remove(&lease.id));
        let ending = match before {
            _ if record.spec.as_ref().is_some_and(|spec| spec.remove) => Ending::Forget,
            Some(before) => before.into(),
            // After a crash it is not known any more. Most often these were its former ports before the start that was cut short.
            None => Ending::Remember,
        };
        let key = record.key.clone();
        if let Err(error) = self.end_lease(record, ending).await {
            tracing::error!(agent = %key, %error, "the end of a lease was not recorded; it stays");
        }
    }

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

    /// Deals with something on a runtime that carries this broker's labels but no lease that the ledger has.
    async fn meet(self: &Arc<Self>, runtime: &Arc<dyn Runtime>, listed: &Observed, tag: Tag) -> Met {
        let name = runtime.name();
        let meeting = |seen: &Observed, known: Option<&AgentRecord>| {
            let unstarted = self.state().unstarted(name, seen, &tag);
            verdict::meet(&seen.state, &seen.id, &tag.lease, known, unstarted)
        };
        let known = self.agent(&tag.key);
        if meeting(listed, known.as_ref()) == Meeting::Leave {
            return self.warn_of_labels(name, listed, &tag, known.as_ref());
        }
        // What was told of it before may hold still.
        let told = conflict(name, listed);
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
                self.warn(&told, &text);
                return Met::InConflict;
            }
            Meeting::Remember => self.enter_past(name, &observed, tag).await,
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
        self.warn(&conflict(runtime, listed), &text);
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
            self.warn(&conflict(runtime.name(), observed), &text);
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
        tracing::info!(agent = %record.key, id = observed.id, ports = ?lease.ports, "adopted a running agent by its labels");
        self.resume(&record.key, &lease.id, runtime.as_ref(), &observed.id).await;
        let now = runtime.inspect(&observed.id).await.ok().flatten();
        drop(self.confirm(record, now.as_ref().unwrap_or(observed)).await);
        Met::InOrder
    }

    /// Tells a person of something, once for each change.
    pub(crate) fn warn(&self, about: &str, text: &str) {
        let before = self.state().warnings.insert(about.to_owned(), text.to_owned());
        if before.as_deref() != Some(text) {
            tracing::error!("{text}");
            self.tell(api::Event::Broker);
        }
    }

    pub(crate) fn unwarn(&self, about: &str) {
        if self.take_back(|it| it == about) {
            tracing::info!("{about} answers again");
        }
    }

    /// Tells no longer of what is over; whether there was any of that.
    pub(crate) fn take_back(&self, is_over: impl Fn(&str) -> bool) -> bool {
        let is_less = {
            let mut state = self.state();
            let before = state.warnings.len();
            state.warnings.retain(|about, _| !is_over(about));
            state.warnings.len() < before
        };
        if is_less {
            self.tell(api::Event::Broker);
        }
        is_less
    }
}

/// With what something runs that cannot be adopted.
pub(crate) fn with_clash(clash: &Clash) -> String {
    match clash {
        Clash::Port { port, holder } => format!("with port {port}, which {holder} has too"),
        Clash::Id { lease, holder } => format!("with the lease {lease}, which is that of {holder}"),
    }
}

/// What came of meeting something that carries this broker's labels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    InOrder,
    /// A person was told that something is to be done about it.
    InConflict,
}

/// What a conflict is about, by which its warning is found again.
fn conflict(runtime: &str, observed: &Observed) -> String {
    format!("{}{}", conflicts(runtime), observed.id)
}

/// How all of a runtime begin.
fn conflicts(runtime: &str) -> String {
    format!("conflict {runtime} ")
}
