//! What came of it: an agent is entered as running, as ended, or as failed, and its lease ends with it.

use std::sync::Arc;

use pool::{Moment, Port};
use runtime::{Observed, ObservedState};

use crate::clock;
use crate::core::Core;
use crate::error::OperationError;
use crate::leases::Ending;
use crate::ledger::Change;
use crate::model::{AgentRecord, Stage};

/// The former ports that an agent has again if its start fails.
pub(crate) struct Before {
    former: Vec<Port>,
    released_at: Option<Moment>,
}

impl Before {
    pub(crate) fn of(prior: Option<&AgentRecord>) -> Self {
        match prior {
            Some(AgentRecord { lease: Some(lease), .. }) if !lease.ports.is_empty() => {
                Self { former: lease.ports.clone(), released_at: Some(clock::now()) }
            }
            Some(record) => Self { former: record.former.clone(), released_at: record.released_at },
            None => Self { former: Vec::new(), released_at: None },
        }
    }
}

impl From<Before> for Ending {
    fn from(before: Before) -> Self {
        Self::Restore { former: before.former, released_at: before.released_at }
    }
}

impl Core {
    /// Enters an agent as running, or as ended if it has done its work already; from here on it is watched.
    pub(crate) async fn confirm(
        self: &Arc<Self>,
        mut record: AgentRecord,
        observed: &Observed,
    ) -> AgentRecord {
        record.container = Some(observed.id.clone());
        let was_published = record.published.clone();
        record.published = self.published(&record, observed);
        let was_on = record.engine.clone();
        if let Some(Some(engine)) = self.state().engines.get(record.runtime.as_str()) {
            record.engine = Some(engine.clone());
        }
        match &observed.state {
            ObservedState::Exited { code, at, .. } => {
                let ended = at.map_or_else(clock::now, clock::moment);
                record.started_at = record.started_at.or(Some(ended));
                self.enter_exit(record, *code, at.map(clock::moment)).await
            }
            ObservedState::Running { since } => {
                let since = since.map_or_else(clock::now, clock::moment);
                let is_news = record.stage != Stage::Running
                    || record.started_at != Some(since)
                    || record.published != was_published
                    || record.engine != was_on;
                record.stage = Stage::Running;
                record.started_at = Some(since);
                record.ended_at = None;
                record.exit_code = None;
                record.reason = None;
                if is_news {
                    // Not waited for: the lease is on disk, and after a crash the reconciler sees for itself that it runs.
                    self.note_soon(&record);
                }
                self.watch(&record);
                record
            }
            ObservedState::Created => record,
        }
    }

    /// Enters an agent as ended by itself, which the runtime has confirmed.
    pub(crate) async fn enter_exit(
        &self,
        mut record: AgentRecord,
        code: Option<i64>,
        at: Option<Moment>,
    ) -> AgentRecord {
        let was_asked = record.stage == Stage::Stopping;
        record.stage = if was_asked { Stage::Stopped } else { Stage::Exited };
        record.exit_code = code;
        record.ended_at = Some(at.unwrap_or_else(clock::now));
        let mut ending = Ending::Remember;
        if record.spec.as_ref().is_some_and(|spec| spec.remove) {
            // What cannot be removed now is removed with the next look of the reconciler.
            let removed = match (self.runtimes.get(&record.runtime), &record.container) {
                (Ok(runtime), Some(id)) => self.remove_known(&runtime, &record.key, id).await.is_ok(),
                (_, container) => container.is_none(),
            };
            if removed {
                ending = Ending::Forget;
            }
        }
        match self.end_lease(record.clone(), ending).await {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(agent = %record.key, %error, "the end of an agent was not recorded; its lease stays");
                record
            }
        }
    }

    /// Ends the lease of a failed start, of which nothing is left.
    pub(crate) async fn fail(&self, mut record: AgentRecord, before: Before, reason: String) {
        let forget = record.spec.as_ref().is_some_and(|spec| spec.remove);
        record.stage = Stage::Failed;
        record.reason = Some(reason);
        record.container = None;
        record.started_at = None;
        record.ended_at = Some(clock::now());
        let ending = if forget { Ending::Forget } else { before.into() };
        if let Err(error) = self.end_lease(record.clone(), ending).await {
            tracing::error!(agent = %record.key, %error, "the end of a failed start was not recorded; its lease stays");
            self.publish(record);
        }
    }

    /// Ends the lease of an agent that has ended and cannot have another one.
    pub(crate) async fn end(&self, mut record: AgentRecord, why: &OperationError) {
        record.stage = Stage::Stopped;
        record.reason = Some(format!("not started again: {why}"));
        record.ended_at = record.ended_at.or(Some(clock::now()));
        if let Err(error) = self.end_lease(record.clone(), Ending::Remember).await {
            tracing::error!(agent = %record.key, %error, "the end of an agent was not recorded; its lease stays");
        }
    }

    /// Enters the record as it is now, and lets the disk take its time.
    fn note_soon(self: &Arc<Self>, record: &AgentRecord) {
        self.publish(record.clone());
        let recorded = self.ledger.record(vec![Change::Agent(Box::new(record.clone()))]);
        let key = record.key.clone();
        self.tasks.spawn(async move {
            if let Err(error) = recorded.on_disk().await {
                tracing::error!(agent = %key, %error, "a change was not recorded; the reconciler will find it again");
            }
        });
    }

    pub(crate) async fn note_or_log(&self, record: &AgentRecord) {
        if let Err(error) = self.note(record).await {
            tracing::error!(agent = %record.key, %error, "a change was not recorded; the reconciler will find it again");
        }
    }
}
