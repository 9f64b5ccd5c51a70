//! Tells where ledger and runtimes do not agree, and what follows from that, without doing it.

use std::sync::Arc;
use std::time::Duration;

use api::{Finding, ReconcileAction, Reconciliation, UnreachableRuntime};
use futures_util::future::join_all;
use pool::Owner;
use runtime::{Observed, Runtime};
use tokio::time::timeout;

use crate::core::Core;
use crate::engines::is_elsewhere;
use crate::error::chain;
use crate::labels::Tag;
use crate::listing::Listing;
use crate::meet::with_clash;
use crate::model::{AgentRecord, Stage};
use crate::reconcile::UNUSED;
use crate::verdict::{self, Meeting, Verdict, decide};

impl Core {
    /// What a look at every runtime finds. An agent on which an operation is under way is left to that.
    pub(crate) async fn survey(&self) -> Reconciliation {
        let in_use = self.runtimes_in_use();
        let mut found = Reconciliation::default();
        let asked = self.runtimes.usable().map(|runtime| {
            let limit = if in_use.contains(runtime.name()) { Duration::MAX } else { UNUSED };
            async move {
                let listed = timeout(limit, self.listed(runtime.as_ref())).await.ok()?;
                Some((runtime, listed))
            }
        });
        for (runtime, listed) in join_all(asked).await.into_iter().flatten() {
            match listed {
                Ok((listing, engine)) => {
                    found.findings.extend(self.findings(&runtime, &listing, engine.as_deref()));
                }
                Err(error) if in_use.contains(runtime.name()) => found
                    .unreachable
                    .push(UnreachableRuntime { runtime: runtime.name().to_owned(), detail: chain(&error) }),
                Err(_) => {}
            }
        }
        found.findings.sort_by(|a, b| (&a.agent, &a.id).cmp(&(&b.agent, &b.id)));
        found
    }

    /// Enters what was found before it was dealt with, and is found still.
    pub(crate) async fn see_what_is_left(&self, found: &mut Reconciliation) {
        if !found.findings.iter().any(Finding::is_to_be_done) {
            return;
        }
        let now = self.survey().await;
        let is_left = |it: &&Finding| {
            let is_it =
                |left: &Finding| (&it.agent, &it.runtime, &it.id) == (&left.agent, &left.runtime, &left.id);
            // Of a runtime that does not answer any more nothing is found, and nothing was done.
            let is_silent = now.unreachable.iter().any(|silent| silent.runtime == it.runtime);
            it.is_to_be_done() && (is_silent || now.findings.iter().any(is_it))
        };
        found.not_done = found.findings.iter().filter(is_left).cloned().collect();
        found.unreachable = now.unreachable;
    }

    fn findings(&self, runtime: &Arc<dyn Runtime>, listing: &Listing, engine: Option<&str>) -> Vec<Finding> {
        let records: Vec<AgentRecord> = {
            let state = self.state();
            state.agents.values().filter(|record| record.runtime == runtime.name()).cloned().collect()
        };
        let known = records.iter().filter_map(|record| {
            let seen = listing.agent(&self.id, record);
            if seen.is_none() && is_elsewhere(record, engine) {
                return None;
            }
            self.of_lease(record, seen)
        });
        let met = listing
            .iter()
            .filter_map(|observed| self.of_labels(runtime.name(), observed, &self.tag_of(observed)?));
        known.chain(met).filter(|finding| !self.is_under_way(finding)).collect()
    }

    fn is_under_way(&self, finding: &Finding) -> bool {
        finding.agent.parse().is_ok_and(|key| self.try_lock(&key).is_none())
    }

    /// What follows from what the runtime shows of a lease.
    fn of_lease(&self, record: &AgentRecord, seen: Option<&Observed>) -> Option<Finding> {
        if verdict::is_to_be_forgotten(record) {
            return Some(Finding {
                agent: record.key.to_string(),
                runtime: record.runtime.clone(),
                id: record.container.clone(),
                action: ReconcileAction::Remove,
                detail: "it has ended and was to be forgotten: it is removed".to_owned(),
            });
        }
        let lease = record.lease.as_ref()?;
        let absence = self.state().absence(lease, &record.runtime, seen);
        let verdict = decide(record.stage, seen.map(|it| &it.state), absence);
        let (action, detail) = match verdict {
            Verdict::Keep => return None,
            Verdict::Running => (ReconcileAction::MarkRunning, "it runs"),
            Verdict::Ended => (ReconcileAction::Release, "it has ended: its ports are given back"),
            Verdict::Remove if record.stage == Stage::Stopping => (
                ReconcileAction::Remove,
                "it was to stop and has not started: it is removed, and its ports are given back",
            ),
            Verdict::Remove => (
                ReconcileAction::Remove,
                "its start did not succeed: it is removed, and its ports are given back",
            ),
            Verdict::Missing => (
                ReconcileAction::Wait,
                "nothing is there: its ports are given back if it stays so for a while",
            ),
            Verdict::Gone => {
                (ReconcileAction::Release, "nothing has been there for a while: its ports are given back")
            }
        };
        Some(Finding {
            agent: record.key.to_string(),
            runtime: record.runtime.clone(),
            id: seen.map(|observed| observed.id.clone()),
            action,
            detail: detail.to_owned(),
        })
    }

    /// What follows from something that bears this broker's labels.
    fn of_labels(&self, runtime: &str, observed: &Observed, tag: &Tag) -> Option<Finding> {
        let known = self.agent(&tag.key);
        let unstarted = self.state().unstarted(runtime, observed, tag);
        let meeting = verdict::meet(&observed.state, &observed.id, &tag.lease, known.as_ref(), unstarted);
        let (action, detail) = match meeting {
            Meeting::Leave => return None,
            Meeting::Adopt => match self.state().pool.can_reserve(&tag.lease, &Owner::Agent(tag.key.clone()), &tag.ports) {
                Ok(()) => (
                    ReconcileAction::Adopt,
                    "it runs and has no lease: it gets one with its ports".to_owned(),
                ),
                Err(clash) => {
                    (ReconcileAction::Report, format!("it runs {}: end one of the two", with_clash(&clash)))
                }
            },
            Meeting::Twice(lease) => (
                ReconcileAction::Report,
                format!("it runs beside the one with the lease {lease}: end one of the two"),
            ),
            Meeting::Remember => {
                (ReconcileAction::Remember, "it has ended: its ports are remembered".to_owned())
            }
            Meeting::Await => (
                ReconcileAction::Wait,
                "it has not started, in place of one that has ended: it is removed if it stays so for a while"
                    .to_owned(),
            ),
            Meeting::Remove => (ReconcileAction::Remove, "it is a leftover: it is removed".to_owned()),
        };
        Some(Finding {
            agent: tag.key.to_string(),
            runtime: runtime.to_owned(),
            id: Some(observed.id.clone()),
            action,
            detail,
        })
    }
}
