//! Watches each running agent, so that its end is known at once, and keeps up what this process does for it.

use std::sync::Arc;
use std::time::Duration;

use pool::{AgentKey, LeaseId};
use runtime::{Observed, ObservedState, Runtime};
use tokio::time::{Instant, sleep};

use crate::core::Core;
use crate::error::chain;
use crate::model::AgentRecord;
use crate::verdict::SECOND_LOOK;

/// For how long a watcher waits in one request.
const WATCH_LIMIT: Duration = Duration::from_secs(600);
/// The pauses of a watcher whose runtime does not answer: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

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
}
