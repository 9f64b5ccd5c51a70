//! Makes ledger and runtime agree again: at start-up, on the timer, and when an agent ends.
//!
//! What is to be done with an agent is decided by [`decide`], a plain function. It is carried out under the agent's own
//! lock, after the runtime was asked for that one agent once more: a listing may be older than what happened since, and an
//! agent on which an operation is under way is left to that operation. A runtime that does not answer, or whose listing
//! failed half-way, changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pool::AgentKey;
use runtime::{Observed, ObservedState, Runtime, RuntimeError};
use settings::RuntimeName;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::clock;
use crate::core::Core;
use crate::engines::is_elsewhere;
use crate::error::chain;
use crate::labels::Tag;
use crate::launch;
use crate::leases::Ending;
use crate::listing::Listing;
use crate::meet::Met;
use crate::model::{AgentRecord, Stage};
use crate::verdict::{self, Verdict, decide};
use crate::warnings::About;

/// How long a runtime may take to answer that has no agents as far as is known.
pub(crate) const UNUSED: Duration = Duration::from_secs(5);
/// How long the first request waits for what is to be removed.
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

    /// The runtimes that have agents, or had some while this broker ran: something of those may still be there. Processes cost nothing to
    /// look at, so those are among them.
    pub(crate) fn runtimes_in_use(&self) -> BTreeSet<String> {
        let state = self.state();
        let own = RuntimeName::Process.as_str().to_owned();
        let used = state.agents.values().map(|agent| &agent.runtime).chain(&state.used).cloned();
        used.chain([own]).collect()
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
            let (core, (answered, answer)) = (Arc::clone(self), oneshot::channel());
            // A round that is not waited for any more goes on by itself.
            let round = tokio::spawn(async move {
                let answers = core.listed(runtime.as_ref()).await;
                let _nobody_waits_any_more = answered.send(());
                core.heed(&runtime, answers).await;
            });
            async move {
                if timeout(limit, answer).await.is_ok() {
                    drop(round.await);
                }
            }
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
        let answers = self.listed(runtime.as_ref()).await;
        self.heed(&runtime, answers).await;
    }

    /// Brings the ledger and the runtime to agree, given what that has said. What is to be removed comes last: it may take minutes,
    /// while numbers that nothing but a listing shows to be held are known only once all of that is entered.
    async fn heed(
        self: &Arc<Self>,
        runtime: &Arc<dyn Runtime>,
        answers: Result<(Listing, Option<String>), RuntimeError>,
    ) {
        let name = runtime.name();
        let (listing, engine) = match answers {
            Ok(answers) => answers,
            Err(error) => return self.warn_unreachable(name, &error),
        };
        if self.take_back(|it| *it == About::Unreachable(name.to_owned())) {
            tracing::info!(runtime = name, "answers again");
        }
        if let Some(unstarted) = self.state().unstarted.get_mut(name) {
            let is_it = |id: &str, it: &Observed| it.id == *id && it.state == ObservedState::Created;
            unstarted.retain(|id, _| listing.iter().any(|it| is_it(id, it)));
        }
        let Due { at_once, mut removals } = self.due(name, &listing, engine.as_deref());
        for key in at_once {
            self.settle(&key).await;
        }
        self.warn_of_engine(name, engine.as_deref());
        let (mut strays, mut in_conflict) = (Vec::new(), BTreeSet::new());
        for observed in listing.iter() {
            let Some(tag) = self.tag_of(observed) else { continue };
            match self.meet(runtime, observed, tag.clone(), false).await {
                Met::InOrder => {}
                Met::InConflict => drop(in_conflict.insert(About::conflict(name, observed))),
                Met::Leftover => strays.push((observed.clone(), tag)),
            }
        }
        self.take_back(|about| {
            matches!(about, About::Conflict { runtime, .. } if runtime == name)
                && !in_conflict.contains(about)
        });
        removals.extend(self.keys_to_forget(name));
        if !removals.is_empty() || !strays.is_empty() {
            self.remove_leftovers(Arc::clone(runtime), removals, strays).await;
        }
    }

    /// Removes what is left of agents and of starts. The first request does not wait for long for that: it goes on by itself then, with
    /// each agent locked and its ports leased, and is cut short by the end of the broker.
    async fn remove_leftovers(
        self: &Arc<Self>,
        runtime: Arc<dyn Runtime>,
        keys: Vec<AgentKey>,
        strays: Vec<(Observed, Tag)>,
    ) {
        let core = Arc::clone(self);
        let removals = async move {
            for key in keys {
                core.settle(&key).await;
                core.forget_ended(&key).await;
            }
            for (observed, tag) in strays {
                core.meet(&runtime, &observed, tag, true).await;
            }
        };
        if self.state().taken_up.is_some() {
            return removals.await;
        }
        let shutdown = self.shutdown.clone();
        let work = tokio::spawn(async move { shutdown.run_until_cancelled(removals).await });
        drop(timeout(TAKING_UP, work).await);
    }

    /// Tells that nothing is known of the agents of a runtime, if it has any that live.
    fn warn_unreachable(&self, name: &str, error: &RuntimeError) {
        tracing::debug!(runtime = name, error = %chain(error), "it was not looked at");
        if self.state().agents.values().any(|agent| agent.runtime == name && agent.is_live()) {
            let text = format!("{name} does not answer, so nothing of it is changed: {}", chain(error));
            self.warn(About::Unreachable(name.to_owned()), &text);
        }
    }

    /// The live agents of a runtime of which the listing does not show what is known.
    fn due(&self, runtime: &str, listing: &Listing, engine: Option<&str>) -> Due {
        let publishes_nothing = self.runtimes.get(runtime).is_ok_and(|it| !it.publishes());
        let mut state = self.state();
        let (mut due, mut seen_again) = (Due::default(), Vec::new());
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
            let is_removed = match verdict {
                Verdict::Ended => record.spec.as_ref().is_some_and(|spec| spec.remove),
                verdict => verdict == Verdict::Remove,
            };
            if is_removed {
                due.removals.push(record.key.clone());
            } else if is_new_to_it || is_news || is_unwatched || verdict != Verdict::Keep {
                due.at_once.push(record.key.clone());
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
}

/// The agents that are to be brought up to date.
#[derive(Default)]
struct Due {
    at_once: Vec<AgentKey>,
    /// Of these something is to be removed, as far as the listing tells.
    removals: Vec<AgentKey>,
}
