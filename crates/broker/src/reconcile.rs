//! Makes ledger and runtime agree again: at start-up, on the timer, and when an agent ends.
//!
//! What is to be done with an agent is decided by [`decide`], a plain function. It is carried out under the agent's own
//! lock, after the runtime was asked for that one agent once more: a listing may be older than what happened since, and an
//! agent on which an operation is under way is left to that operation. A runtime that does not answer, or whose listing
//! failed half-way, changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pool::{AgentKey, LeaseId, Moment, Owner};
use runtime::{Observed, ObservedState, Runtime};
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::core::Core;
use crate::error::chain;
use crate::labels::{self, Tag};
use crate::leases::Ending;
use crate::ledger::Change;
use crate::model::{AgentRecord, Lease, Stage};

/// How old a lease must be before "nothing is there" can end it: an engine may not show at once what it was asked for.
const GRACE: i64 = 10_000;
/// How long after "nothing is there" was first seen it must be seen again, in milliseconds.
const SECOND_LOOK: i64 = 1_000;
/// For how long a watcher waits in one request.
const WATCH_LIMIT: Duration = Duration::from_secs(600);
/// How long, at the start, a runtime may take to answer that has no agents as far as is known.
const UNUSED: Duration = Duration::from_secs(5);
/// The pauses of a watcher whose runtime does not answer: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What is to be done with an agent that holds a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// All is as it is known.
    Keep,
    /// It runs: enter that.
    Running,
    /// It has ended and nothing will bring it back: release.
    Ended,
    /// What is there never ran, or belongs to a failed start: remove it, and release.
    Remove,
    /// Nothing is there; that may be too early to tell.
    Missing,
    /// Nothing is there, for the second time, and the lease is old enough: release.
    Gone,
}

/// The table of what follows from the ledger's `stage` of an agent with a lease granted at `since`, and what the runtime
/// has under that lease. `missing_since` is when it was first found to have nothing.
pub(crate) fn decide(
    stage: Stage,
    since: Moment,
    seen: Option<&ObservedState>,
    missing_since: Option<Moment>,
    now: Moment,
) -> Verdict {
    match (seen, stage) {
        (Some(_), Stage::Failed) | (Some(ObservedState::Created), _) => Verdict::Remove,
        (Some(ObservedState::Running { .. }), Stage::Running) => Verdict::Keep,
        (Some(ObservedState::Running { .. }), _) => Verdict::Running,
        (Some(ObservedState::Exited { .. }), _) => Verdict::Ended,
        (None, _) => {
            let seen_twice = missing_since.is_some_and(|first| now.0 - first.0 >= SECOND_LOOK);
            if seen_twice && now.0 - since.0 >= GRACE { Verdict::Gone } else { Verdict::Missing }
        }
    }
}

impl Core {
    /// Looks at every runtime once, before the first request: agents that the ledger has lost may be on any. One that has no
    /// agents as far as the ledger knows, such as a cluster that is out of reach, is not waited for for long; what it says
    /// later is heeded then.
    pub(crate) async fn reconcile_at_start(self: &Arc<Self>) {
        let in_use: BTreeSet<String> =
            self.state().agents.values().map(|agent| agent.runtime.clone()).collect();
        let rounds = self.runtimes.usable().map(|runtime| {
            let limit = if in_use.contains(runtime.name()) { Duration::MAX } else { UNUSED };
            let core = Arc::clone(self);
            let round = tokio::spawn(async move { core.reconcile_runtime(runtime).await });
            // A round that is not waited for any more goes on by itself.
            tokio::time::timeout(limit, round)
        });
        drop(futures_util::future::join_all(rounds).await);
        self.review_blocked().await;
    }

    async fn reconcile_those(self: &Arc<Self>, is_due: impl Fn(&str) -> bool) {
        let due = self.runtimes.usable().filter(|runtime| is_due(runtime.name()));
        let rounds = due.map(|runtime| self.reconcile_runtime(runtime));
        futures_util::future::join_all(rounds).await;
        self.review_blocked().await;
    }

    /// Looks at everything again and again, until the broker ends.
    pub(crate) async fn keep_reconciling(self: Arc<Self>) {
        let interval = self.settings.server.broker.reconcile_interval;
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = sleep(interval) => {
                    // An engine that has no agents is left in peace.
                    let in_use: BTreeSet<String> =
                        self.state().agents.values().map(|agent| agent.runtime.clone()).collect();
                    self.reconcile_those(|name| in_use.contains(name)).await;
                }
            }
        }
    }

    async fn reconcile_runtime(self: &Arc<Self>, runtime: Arc<dyn Runtime>) {
        let name = runtime.name();
        let about = format!("runtime {name}");
        let listing = match runtime.list().await {
            Ok(listing) => listing,
            Err(error) => {
                let concerned =
                    self.state().agents.values().any(|agent| agent.runtime == name && agent.is_live());
                if concerned {
                    let text =
                        format!("{name} does not answer, so nothing of it is changed: {}", chain(&error));
                    self.warn(&about, &text);
                }
                return;
            }
        };
        self.unwarn(&about);
        self.state().warnings.retain(|about, _| !about.starts_with(&format!("conflict {name} ")));
        for key in self.keys_to_settle(name, &listing) {
            self.settle(&key).await;
        }
        for observed in &listing {
            if let Some(tag) = labels::read(&self.id, observed) {
                self.meet(&runtime, observed, tag).await;
            }
        }
    }

    /// The live agents of a runtime of which the listing does not show what is known.
    fn keys_to_settle(&self, runtime: &str, listing: &[Observed]) -> Vec<AgentKey> {
        let (state, now) = (self.state(), clock::now());
        let is_due = |record: &&AgentRecord| {
            let Some(lease) = record.lease.as_ref().filter(|_| record.runtime == runtime) else {
                return false;
            };
            let seen = listing.iter().find(|observed| self.is_of_lease(observed, record));
            let missing = state.missing.get(&lease.id).copied();
            decide(record.stage, lease.since, seen.map(|it| &it.state), missing, now) != Verdict::Keep
        };
        state.agents.values().filter(is_due).map(|record| record.key.clone()).collect()
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
                tracing::warn!(agent = %key, error = %chain(&error), "nothing is known of the agent for now");
                return;
            }
        };
        let (missing, now) = (self.state().missing.get(&lease.id).copied(), clock::now());
        let verdict = decide(record.stage, lease.since, seen.as_ref().map(|it| &it.state), missing, now);
        tracing::debug!(agent = %key, ?verdict, "looked at");
        if verdict != Verdict::Missing {
            self.state().missing.remove(&lease.id);
        }
        match (verdict, seen) {
            (Verdict::Missing, _) => {
                self.state().missing.entry(lease.id).or_insert(now);
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

    /// Watches a running agent until it no longer has the lease that it has now, so that its end is known at once.
    pub(crate) fn watch(self: &Arc<Self>, record: &AgentRecord) {
        let (Some(lease), Some(id)) = (record.lease.clone(), record.container.clone()) else { return };
        let Ok(runtime) = self.runtimes.get(&record.runtime) else { return };
        if !self.state().watched.insert(lease.id.clone()) {
            return;
        }
        let (core, key) = (Arc::clone(self), record.key.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = core.shutdown.cancelled() => {}
                () = core.watch_lease(&key, &lease.id, runtime, &id) => {}
            }
            let mut state = core.state();
            state.watched.remove(&lease.id);
            state.warnings.remove(&format!("ports {key}"));
        });
    }

    async fn watch_lease(
        self: &Arc<Self>,
        key: &AgentKey,
        lease: &LeaseId,
        runtime: Arc<dyn Runtime>,
        id: &str,
    ) {
        let mut pause = BACKOFF.0;
        let (mut is_published, mut was_missing) = (false, false);
        let holds = || self.agent(key).and_then(|record| record.lease).is_some_and(|held| held.id == *lease);
        while holds() {
            if !is_published {
                is_published = self.resume(key, runtime.as_ref(), id).await;
                was_missing |= !is_published;
                if is_published && was_missing {
                    self.settle(key).await;
                }
            }
            let limit = if is_published { WATCH_LIMIT } else { BACKOFF.1 };
            let asked = Instant::now();
            match runtime.wait_for_end(id, limit).await {
                Ok(Some(Observed { state: ObservedState::Running { .. }, .. })) => {
                    pause = BACKOFF.0;
                    // An engine that answers at once without having waited is not asked without a pause.
                    if asked.elapsed() < BACKOFF.0 {
                        sleep(BACKOFF.0).await;
                    }
                }
                Ok(_) => {
                    self.settle(key).await;
                    if holds() {
                        sleep(Duration::from_millis(SECOND_LOOK.unsigned_abs())).await;
                    }
                }
                Err(_) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Has the runtime do again what this process has to do for a running agent, such as to listen on its ports. Whether that
    /// worked; if not, the agent goes on, and the broker says what is missing.
    pub(crate) async fn resume(&self, key: &AgentKey, runtime: &dyn Runtime, id: &str) -> bool {
        let about = format!("ports {key}");
        match runtime.resume(id).await {
            Ok(()) => {
                self.unwarn(&about);
                true
            }
            Err(error) => {
                self.warn(&about, &format!("the ports of {key} cannot be reached: {}", chain(&error)));
                if let Some(mut record) = self.agent(key).filter(|record| record.published.is_some()) {
                    record.published = None;
                    self.publish(record);
                }
                false
            }
        }
    }

    /// Someone has removed it behind the broker's back.
    async fn enter_gone(&self, mut record: AgentRecord, runtime: &Arc<dyn Runtime>) {
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
        let ending = if record.spec.as_ref().is_some_and(|spec| spec.remove) {
            Ending::Forget
        } else {
            // Most often these were its former ports before the start that was cut short.
            Ending::Remember
        };
        let key = record.key.clone();
        if let Err(error) = self.end_lease(record, ending).await {
            tracing::error!(agent = %key, %error, "the end of a lease was not recorded; it stays");
        }
    }

    /// Deals with something on a runtime that carries this broker's labels but no lease that the ledger has.
    async fn meet(self: &Arc<Self>, runtime: &Arc<dyn Runtime>, listed: &Observed, tag: Tag) {
        let is_known = |core: &Self| {
            let record = core.agent(&tag.key)?;
            let has_lease = record.lease.as_ref().is_some_and(|lease| lease.id == tag.lease);
            let is_its_past = record.lease.is_none() && record.container.as_deref() == Some(&*listed.id);
            (has_lease || is_its_past).then_some(record)
        };
        let may_run = |state: &ObservedState| matches!(state, ObservedState::Running { .. });
        if let Some(record) = is_known(self)
            && (record.lease.is_some() || !may_run(&listed.state))
        {
            return;
        }
        let Some(_lock) = self.try_lock(&tag.key) else { return };
        let Ok(Some(observed)) = runtime.inspect(&listed.id).await else { return };
        let known = self.agent(&tag.key);
        if known.as_ref().and_then(|record| record.lease.as_ref()).is_some_and(|lease| lease.id == tag.lease)
        {
            return;
        }
        match (&observed.state, known) {
            (ObservedState::Running { .. }, known) => self.adopt(runtime, &observed, tag, known).await,
            (ObservedState::Exited { code, at, .. }, None) => {
                let mut record = AgentRecord::new(tag.key, runtime.name().to_owned());
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
            (ObservedState::Exited { .. }, Some(record))
                if record.container.as_deref() == Some(&*observed.id) => {}
            (ObservedState::Created | ObservedState::Exited { .. }, _) => {
                // A start that was cut short, or what was left of an agent that has moved on.
                match runtime.remove(&observed.id).await {
                    Ok(()) => tracing::info!(agent = %tag.key, id = observed.id, "removed a leftover"),
                    Err(error) => {
                        tracing::warn!(agent = %tag.key, id = observed.id, error = %chain(&error), "a leftover could not be removed");
                    }
                }
            }
        }
    }

    /// Takes a running agent into the ledger with exactly the ports that its labels tell.
    async fn adopt(
        self: &Arc<Self>,
        runtime: &Arc<dyn Runtime>,
        observed: &Observed,
        tag: Tag,
        known: Option<AgentRecord>,
    ) {
        let about = format!("conflict {} {}", runtime.name(), observed.id);
        if let Some(lease) = known.as_ref().and_then(|record| record.lease.as_ref()) {
            let text = format!(
                "{} runs twice: {} is not the one that the ledger knows (lease {}); end it by hand",
                tag.key, observed.id, lease.id
            );
            return self.warn(&about, &text);
        }
        let lease = Lease { id: tag.lease.clone(), ports: tag.ports.clone(), since: clock::now() };
        let owner = Owner::Agent(tag.key.clone());
        let reserved = self.state().pool.reserve(lease.id.clone(), owner.clone(), &lease.ports, lease.since);
        if let Err(clash) = reserved {
            let text = format!(
                "{} runs as {} with port {}, which {} has too; it goes on, but has no lease: end one of the two",
                tag.key, observed.id, clash.port, clash.holder
            );
            return self.warn(&about, &text);
        }
        let mut record = known.unwrap_or_else(|| AgentRecord::new(tag.key, runtime.name().to_owned()));
        record.runtime = runtime.name().to_owned();
        record.container = Some(observed.id.clone());
        record.former.clear();
        record.released_at = None;
        record.lease = Some(lease.clone());
        let changes =
            vec![Change::Agent(Box::new(record.clone())), Change::Grant { owner, lease: lease.clone() }];
        if let Err(error) = self.ledger.record(changes).on_disk().await {
            tracing::error!(agent = %record.key, %error, "a running agent was not adopted; it will be tried again");
            self.state().pool.release(&lease.id, clock::now(), false);
            return;
        }
        tracing::info!(agent = %record.key, id = observed.id, ports = ?lease.ports, "adopted a running agent by its labels");
        self.resume(&record.key, runtime.as_ref(), &observed.id).await;
        let now = runtime.inspect(&observed.id).await.ok().flatten();
        drop(self.confirm(record, now.as_ref().unwrap_or(observed)).await);
    }

    /// Tells a person of something, once for each change.
    pub(crate) fn warn(&self, about: &str, text: &str) {
        let before = self.state().warnings.insert(about.to_owned(), text.to_owned());
        if before.as_deref() != Some(text) {
            tracing::error!("{text}");
        }
    }

    fn unwarn(&self, about: &str) {
        if self.state().warnings.remove(about).is_some() {
            tracing::info!("{about} answers again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER_ENDED: ObservedState = ObservedState::Running { since: None };
    const EXITED: ObservedState = ObservedState::Exited { code: Some(0), at: None, detail: None };

    fn check(
        stage: Stage,
        seen: Option<&ObservedState>,
        missing_since: Option<i64>,
        now: i64,
        expected: Verdict,
    ) {
        let verdict = decide(stage, Moment(0), seen, missing_since.map(Moment), Moment(now));
        assert_eq!(verdict, expected, "{stage:?}, seen {seen:?}, missing since {missing_since:?}, at {now}");
    }

    #[test]
    fn the_table_of_the_reconciler() {
        check(Stage::Running, Some(&NEVER_ENDED), None, 1, Verdict::Keep);
        check(Stage::Starting, Some(&NEVER_ENDED), None, 1, Verdict::Running);
        check(Stage::Stopping, Some(&NEVER_ENDED), None, 1, Verdict::Running);
        check(Stage::Failed, Some(&NEVER_ENDED), None, 1, Verdict::Remove);
        check(Stage::Starting, Some(&ObservedState::Created), None, 1, Verdict::Remove);
        for stage in [Stage::Starting, Stage::Running, Stage::Stopping] {
            check(stage, Some(&EXITED), None, 1, Verdict::Ended);
        }
    }

    /// L5: what was just granted is not freed because it cannot be seen yet.
    #[test]
    fn nothing_there_must_be_seen_twice_and_the_lease_be_old_enough() {
        check(Stage::Running, None, None, 100_000, Verdict::Missing);
        check(Stage::Running, None, Some(99_500), 100_000, Verdict::Missing);
        check(Stage::Running, None, Some(99_000), 100_000, Verdict::Gone);
        check(Stage::Starting, None, Some(1_000), 9_999, Verdict::Missing);
        check(Stage::Starting, None, Some(1_000), 10_000, Verdict::Gone);
    }
}
