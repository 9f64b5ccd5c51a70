//! Watches each running agent, so that its end is known at once, keeps up what this process does for it, and listens for what others
//! start.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use pool::{AgentKey, LeaseId};
use runtime::{ErrorKind, Observed, ObservedState, Runtime};
use tokio::time::{Instant, sleep};

use crate::core::Core;
use crate::error::chain;
use crate::model::AgentRecord;
use crate::verdict::SECOND_LOOK;
use crate::warnings::About;

/// For how long a watcher waits in one request.
const WATCH_LIMIT: Duration = Duration::from_secs(600);
/// The pauses of a watcher whose runtime does not answer: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How often a watcher looks for nothing before it takes its time.
const MANY_LOOKS: u32 = 20;

impl Core {
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
                () = core.watch_lease(&key, &lease.id, runtime, id) => {}
            }
            core.state().watched.remove(&lease.id);
            let of_ports = [About::Unreached(key.clone()), About::Unpublished(key)];
            core.take_back(|about| of_ports.contains(about));
        });
    }

    async fn watch_lease(
        self: &Arc<Self>,
        key: &AgentKey,
        lease: &LeaseId,
        mut runtime: Arc<dyn Runtime>,
        mut id: String,
    ) {
        let (mut pause, mut looks) = (BACKOFF.0, 0);
        let (mut is_published, mut was_missing) = (false, false);
        let holder =
            || self.agent(key).filter(|record| record.lease.as_ref().is_some_and(|held| held.id == *lease));
        while let Some(record) = holder() {
            // Someone may have made it anew under its lease.
            if let Some(other) = record.container.as_ref().filter(|other| **other != id) {
                id.clone_from(other);
                (is_published, was_missing) = (false, true);
            }
            if !is_published {
                is_published = self.resume(key, lease, runtime.as_ref(), &id).await;
                was_missing |= !is_published;
                if is_published && was_missing {
                    self.settle(key).await;
                }
            }
            let limit = if is_published { WATCH_LIMIT } else { BACKOFF.1 };
            let asked = Instant::now();
            match runtime.wait_for_end(&id, limit).await {
                Ok(Some(Observed { state: ObservedState::Running { .. }, .. })) => {
                    pause = BACKOFF.0;
                    looks = 0;
                    // An engine that answers at once without having waited is not asked without a pause; it may do so because
                    // what this process has to do for the agent is not done any more.
                    if asked.elapsed() < BACKOFF.0 {
                        (is_published, was_missing) = (false, true);
                        sleep(BACKOFF.0).await;
                    }
                }
                Ok(_) => {
                    self.settle(key).await;
                    looks += 1;
                    if holder().is_some() {
                        // By then something else keeps it from being settled, such as that another engine answers.
                        sleep(if looks < MANY_LOOKS { SECOND_LOOK } else { BACKOFF.1 }).await;
                    }
                }
                Err(_) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                    // It may answer elsewhere by now.
                    runtime = self.runtimes.get(&record.runtime).unwrap_or(runtime);
                }
            }
        }
    }

    /// Hears of what is started behind the broker's back, for as long as the broker runs. Whenever it has not been able to, it
    /// looks at the whole runtime.
    pub(crate) async fn keep_listening(self: Arc<Self>, runtime: &'static str) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = self.listen(runtime) => {}
        }
    }

    async fn listen(self: &Arc<Self>, name: &'static str) {
        let mut pause = BACKOFF.0;
        loop {
            // An engine that has no agents is left in peace.
            while !self.state().agents.values().any(|agent| agent.runtime == name) {
                sleep(BACKOFF.0).await;
            }
            let Ok(runtime) = self.runtimes.get(name) else {
                sleep(BACKOFF.0).await;
                continue;
            };
            match runtime.starts().await {
                Ok(None) => return,
                Ok(Some(mut starts)) => {
                    let began = Instant::now();
                    self.doubt_engine(runtime.as_ref());
                    self.reconcile_runtime(Arc::clone(&runtime)).await;
                    tracing::debug!(runtime = name, "listening to what is started there");
                    while let Some(lease) = starts.next().await {
                        let (core, runtime) = (Arc::clone(self), Arc::clone(&runtime));
                        tokio::spawn(async move { core.hear(runtime, LeaseId::new(&lease)).await });
                    }
                    if began.elapsed() > BACKOFF.1 {
                        pause = BACKOFF.0;
                    }
                }
                Err(error) => {
                    tracing::debug!(runtime = name, %error, "it cannot be listened to");
                    // Told at once, and not with the next round.
                    if error.kind == ErrorKind::Unreachable {
                        self.reconcile_runtime(runtime).await;
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Something with that lease was started. Most often it was by this broker.
    async fn hear(self: &Arc<Self>, runtime: Arc<dyn Runtime>, lease: LeaseId) {
        // One that someone has restarted loses its lease with its end, of which the broker may hear a little later.
        sleep(SECOND_LOOK).await;
        if self.state().pool.ports_of(&lease).is_none() {
            self.reconcile_runtime(runtime).await;
        }
    }

    /// Has the runtime do again what this process has to do for a running agent, such as to listen on its ports. Whether that
    /// worked; if not, the agent goes on, and the broker says what is missing.
    pub(crate) async fn resume(
        &self,
        key: &AgentKey,
        lease: &LeaseId,
        runtime: &dyn Runtime,
        id: &str,
    ) -> bool {
        let about = About::Unreached(key.clone());
        match runtime.resume(id).await {
            Ok(()) => {
                if self.take_back(|it| *it == about) {
                    tracing::info!(agent = %key, "its ports can be reached again");
                }
                true
            }
            Err(error) => {
                self.warn(about, &format!("the ports of {key} cannot be reached: {}", chain(&error)));
                self.enter_unpublished(key, lease);
                false
            }
        }
    }

    /// Enters that the ports of this lease are not published, and nothing else: an operation on the agent may be under way, and what
    /// is known of it may have become another while the runtime was asked.
    fn enter_unpublished(&self, key: &AgentKey, lease: &LeaseId) {
        let changed = {
            let mut state = self.state();
            let record = state.agents.get_mut(key).filter(|record| {
                record.published.is_some() && record.lease.as_ref().is_some_and(|held| held.id == *lease)
            });
            record.map(|record| {
                record.published = None;
                record.clone()
            })
        };
        if let Some(record) = changed {
            self.tell(api::Event::Agent { agent: Box::new(self.shown(&record)) });
        }
    }
}
