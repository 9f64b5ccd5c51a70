//! Start, stop, restart and delete.
//!
//! Each holds the agent's lock from end to end, and changes things in one order only: decide (pool), record (ledger), act
//! (runtime), confirm (ledger). Whatever fails, what was created is removed and the lease ends, unless the runtime cannot
//! confirm that: then the lease stays until the reconciler has seen for itself. A crash between any two steps is the
//! reconciler's as well.

use std::sync::Arc;
use std::time::Duration;

use api::StartRequest;
use pool::{AgentKey, Port};
use runtime::{ErrorKind, Observed, ObservedState, Runtime, RuntimeError};

use crate::clock;
use crate::core::Core;
use crate::error::{OperationError, chain, shown};
use crate::labels;
use crate::launch::Failure;
use crate::leases::Ending;
use crate::model::{AgentRecord, AgentSpec, Stage};
use crate::outcome::Before;
use crate::plan::{Plan, differs};
use crate::probe;
use crate::runtimes::Locality;
use crate::spec;

/// How many sets of ports a start tries when the engine refuses one after another. Brokers that share a cluster's numbers and start at
/// once all try the lowest that they see free, and half of them lose: so it takes the logarithm of how many they are.
const MAX_PORT_SETS: u32 = 8;

/// What a start led to.
pub(crate) struct Started {
    pub(crate) record: AgentRecord,
    /// False if the agent ran already.
    pub(crate) created: bool,
}

impl Core {
    /// Starts an agent, or returns the one that runs.
    pub(crate) async fn start(
        self: &Arc<Self>,
        key: AgentKey,
        request: StartRequest,
    ) -> Result<Started, OperationError> {
        let _lock = self.lock(&key).await;
        let prior = self.agent(&key);
        if let Some(started) = self.found_running(prior.as_ref(), &request).await? {
            return Ok(started);
        }
        let plan = self.plan(&key, &request, prior.as_ref()).await?;
        let Some(mut record) = prior.filter(AgentRecord::is_live) else {
            let record = self.launch(key, plan).await?;
            return Ok(Started { record, created: true });
        };
        let held_by = self.runtime_of(&record)?;
        match self.look(&held_by, &record).await? {
            Some(observed) if matches!(observed.state, ObservedState::Running { .. }) => {
                let differences = plan.differences(&record);
                if differences.is_empty() {
                    return Ok(Started { record: self.confirm(record, &observed).await, created: false });
                }
                if !request.replace {
                    return Err(differs(&record, &differences));
                }
                self.foresee(&record, &plan.runtime, &plan.spec).await?;
                record.container = Some(observed.id);
                self.halt(&held_by, record, self.settings.server.broker.stop_timeout).await?;
            }
            Some(Observed { state: ObservedState::Exited { .. }, id, .. }) => {
                record.container = Some(id);
                self.publish(record);
            }
            found => {
                self.remove_unstarted(&held_by, &mut record, found.as_ref()).await?;
                self.publish(record);
            }
        }
        let record = self.launch(key, plan).await?;
        Ok(Started { record, created: true })
    }

    /// The agent if it was found by its labels and still runs, and nothing else is asked for than that it does: what it runs is
    /// not known, and need not be.
    async fn found_running(
        self: &Arc<Self>,
        prior: Option<&AgentRecord>,
        request: &StartRequest,
    ) -> Result<Option<Started>, OperationError> {
        let is_found = |record: &&AgentRecord| record.is_live() && record.spec.is_none();
        let Some(record) = prior.filter(is_found).filter(|_| spec::says_nothing(request)) else {
            return Ok(None);
        };
        let runtime = self.runtime_of(record)?;
        Ok(match self.look(&runtime, record).await? {
            Some(observed) if matches!(observed.state, ObservedState::Running { .. }) => {
                let record = self.confirm(record.clone(), &observed).await;
                Some(Started { record, created: false })
            }
            _ => None,
        })
    }

    /// Stops an agent and says how it is now; none if it is not known.
    pub(crate) async fn stop(
        self: &Arc<Self>,
        key: AgentKey,
        grace: Option<Duration>,
    ) -> Result<Option<AgentRecord>, OperationError> {
        let _lock = self.lock(&key).await;
        let Some(record) = self.agent(&key) else { return Ok(None) };
        let grace = grace.unwrap_or(self.settings.server.broker.stop_timeout);
        if !record.is_live() {
            self.stop_unleased(&record, grace).await?;
            return Ok(Some(record));
        }
        let runtime = self.runtime_of(&record)?;
        let mut record = self.halt(&runtime, record, grace).await?;
        record.stage = Stage::Stopped;
        let ending = match (&record.spec, &record.container) {
            (Some(AgentSpec { remove: true, .. }), container) => {
                if let Some(id) = container {
                    let failed = |source| runtime_error(&record, source);
                    self.remove_known(&runtime, &key, id).await.map_err(failed)?;
                }
                Ending::Forget
            }
            _ => Ending::Remember,
        };
        let ledger = |source| OperationError::Ledger { key: key.clone(), source };
        self.end_lease(record, ending).await.map(Some).map_err(ledger)
    }

    /// Stops what someone has started again of an agent that has no lease any more: its ports may have become another's, so that it has
    /// none. That it cannot be asked about is no news: to the broker it does not run.
    async fn stop_unleased(&self, record: &AgentRecord, grace: Duration) -> Result<(), OperationError> {
        let (Some(id), Ok(runtime)) = (&record.container, self.runtime_of(record)) else { return Ok(()) };
        let Ok(Some(observed)) = runtime.inspect(id).await else { return Ok(()) };
        let is_its = labels::read_known(&self.id, &observed, record).is_some();
        if !(is_its && matches!(observed.state, ObservedState::Running { .. })) {
            return Ok(());
        }
        runtime.stop(&observed.id, grace).await.map_err(|source| runtime_error(record, source))
    }

    /// Stops an agent if it runs, and starts it again with the ports that it had.
    pub(crate) async fn restart(
        self: &Arc<Self>,
        key: AgentKey,
        grace: Option<Duration>,
    ) -> Result<AgentRecord, OperationError> {
        let _lock = self.lock(&key).await;
        let record = self.agent(&key).ok_or_else(|| self.unknown(&key))?;
        let runtime = self.runtime_of(&record)?;
        let Some(spec) = record.spec.clone() else {
            let message =
                format!("what {key} runs is not known: the ledger was lost, and it was found by its labels");
            let hint = format!(
                "start it anew with `berthold start {} --replace` and all that it needs",
                shown(&key)
            );
            return Err(spec::invalid(message, Some(hint)));
        };
        if record.is_live() {
            // Whether it can be asked at all comes first: what is foreseen is foreseen for its own engine.
            self.look(&runtime, &record).await?;
            self.foresee(&record, &runtime, &spec).await?;
            let grace = grace.unwrap_or(self.settings.server.broker.stop_timeout);
            self.halt(&runtime, record, grace).await?;
        }
        self.launch(key, Plan { runtime, spec }).await
    }

    /// Stops an agent if it runs, removes what is left of it and forgets it; says how it was, none if it was not known. With
    /// `force` it is forgotten also if its runtime cannot be asked: who says so knows that nothing of it is left.
    pub(crate) async fn delete(
        self: &Arc<Self>,
        key: AgentKey,
        grace: Option<Duration>,
        force: bool,
    ) -> Result<Option<AgentRecord>, OperationError> {
        let _lock = self.lock(&key).await;
        let Some(record) = self.agent(&key) else { return Ok(None) };
        let record = match self.end_and_remove(record.clone(), grace).await {
            Err(error) if force && error.code() == api::Code::RuntimeUnreachable => {
                tracing::warn!(agent = %key, error = %chain(&error), "it is forgotten by force, and nothing is known of it");
                // Its runtime answers then, and what was reserved for it would be nobody's.
                if self.may_come_late(&record)
                    && let Ok(runtime) = self.runtime_of(&record)
                    && let Err(error) = self.withdraw(&runtime, &record).await
                {
                    tracing::warn!(agent = %key, error = %chain(&error), "what was reserved for it was not taken back");
                }
                record
            }
            ended => ended.map_err(|error| with_force(error, &key))?,
        };
        let ledger = |source| OperationError::Ledger { key: key.clone(), source };
        self.end_lease(record, Ending::Forget).await.map(Some).map_err(ledger)
    }

    async fn end_and_remove(
        &self,
        mut record: AgentRecord,
        grace: Option<Duration>,
    ) -> Result<AgentRecord, OperationError> {
        if !record.is_live() && record.container.is_none() {
            return Ok(record);
        }
        let runtime = self.runtime_of(&record)?;
        if record.is_live() {
            let grace = grace.unwrap_or(self.settings.server.broker.stop_timeout);
            record = self.halt(&runtime, record, grace).await?;
            record.stage = Stage::Stopped;
        }
        if let Some(id) = &record.container {
            let removed = self.remove_known(&runtime, &record.key, id).await;
            removed.map_err(|source| runtime_error(&record, source))?;
        }
        Ok(record)
    }

    /// Does what is slow, and finds out what would keep an agent from being started anew, before the one that runs is touched.
    async fn foresee(
        &self,
        record: &AgentRecord,
        runtime: &Arc<dyn Runtime>,
        spec: &AgentSpec,
    ) -> Result<(), OperationError> {
        self.check_sources(runtime.as_ref(), spec, record.spec.as_ref())?;
        // Of another runtime than that which runs the agent nothing has been heard just now.
        let answers = match runtime.name() == record.runtime {
            true => self.engine_of(runtime.as_ref()).await,
            false => self.answering_engine(runtime.as_ref()).await,
        };
        answers.map_err(|source| not_answering(&record.key, runtime.as_ref(), source))?;
        self.check_lease(record, spec.ports).await?;
        self.prepare_image(runtime, &record.key, spec).await
    }

    /// Starts what does not run. What the agent had before has been confirmed to have ended.
    async fn launch(self: &Arc<Self>, key: AgentKey, plan: Plan) -> Result<AgentRecord, OperationError> {
        let Plan { runtime, spec } = plan;
        let prior = self.agent(&key);
        let leftover = match &prior {
            Some(AgentRecord { container: Some(id), runtime, .. }) => {
                let runtime = self.runtimes.get(runtime).map_err(|source| OperationError::Runtime {
                    key: key.clone(),
                    runtime: runtime.clone(),
                    source,
                })?;
                Some((runtime, id.clone()))
            }
            _ => None,
        };
        let before = Before::of(prior.as_ref());
        let count = spec.ports;
        let mut record = prior.clone().unwrap_or_else(|| AgentRecord::new(key, String::new()));
        // Of an engine that does not answer it would not be known what is left there, and so the ports be kept.
        let engine = match self.engine_of(runtime.as_ref()).await {
            Ok(engine) => engine,
            Err(source) => {
                let error = not_answering(&record.key, runtime.as_ref(), source);
                return Err(self.not_launched(prior, error).await);
            }
        };
        record = AgentRecord {
            runtime: runtime.name().to_owned(),
            engine,
            stage: Stage::Starting,
            spec: Some(spec),
            ended_at: None,
            exit_code: None,
            reason: None,
            warnings: Vec::new(),
            ..record
        };
        let mut record = match self.take_lease(record, count).await {
            Ok(record) => record,
            Err(error) => return Err(self.not_launched(prior, error).await),
        };
        let (mut attempt, mut all_refused) = (1, Vec::new());
        loop {
            let mut failure = match self.attempt(&runtime, &mut record, leftover.as_ref()).await {
                Ok(observed) => return Ok(self.confirm(record, &observed).await),
                Err(failure) => failure,
            };
            if let Err(error) = self.clean_up(&runtime, &record, &failure).await {
                record.stage = Stage::Failed;
                record.reason = Some(format!(
                    "{}; its ports stay leased until {} confirms that nothing is left of it: {error}",
                    failure.error,
                    runtime.name()
                ));
                self.note_or_log(&record).await;
                if let Some(lease) = &record.lease {
                    self.state().before.insert(lease.id.clone(), before);
                }
                return Err(failure.error);
            }
            record.container = None;
            let refused = failure.refused_ports(&record, self.runtimes.locality(runtime.name()));
            all_refused.extend(refused.iter().flatten());
            if attempt == MAX_PORT_SETS && refused.is_some() {
                failure.tell_refused(attempt, &all_refused);
            }
            if attempt < MAX_PORT_SETS
                && let Some(refused) = refused
            {
                self.block_refused(&refused, runtime.name()).await;
                attempt += 1;
                record.warnings.clear();
                match self.take_lease(record.clone(), count).await {
                    Ok(next) => {
                        record = next;
                        continue;
                    }
                    Err(error) => {
                        self.fail(record, before, error.to_string()).await;
                        return Err(error);
                    }
                }
            }
            if let (false, Some(AgentRecord { runtime, engine, spec: Some(spec), .. })) =
                (failure.touched, prior)
            {
                // What was refused whole has never been the agent.
                record = AgentRecord { runtime, engine, spec: Some(spec), ..record };
            }
            self.fail(record, before, failure.error.to_string()).await;
            return Err(failure.error);
        }
    }

    /// What is to be said of a start before which nothing was done. What ran `prior` has ended, and it does not go on.
    async fn not_launched(&self, prior: Option<AgentRecord>, error: OperationError) -> OperationError {
        if let Some(prior) = prior.filter(AgentRecord::is_live) {
            self.end(prior, &error).await;
        }
        error
    }

    /// Asks the agent to end, and sees to it. The lease is still held afterwards.
    async fn halt(
        &self,
        runtime: &Arc<dyn Runtime>,
        mut record: AgentRecord,
        grace: Duration,
    ) -> Result<AgentRecord, OperationError> {
        let Some(observed) = self.look(runtime, &record).await? else {
            self.remove_unstarted(runtime, &mut record, None).await?;
            record.ended_at = record.ended_at.or(Some(clock::now()));
            record.stage = Stage::Stopping;
            self.publish(record.clone());
            return Ok(record);
        };
        record.stage = Stage::Stopping;
        record.container = Some(observed.id.clone());
        let ledger = |source| OperationError::Ledger { key: record.key.clone(), source };
        self.note(&record).await.map_err(ledger)?;
        let failed = |source| runtime_error(&record, source);
        runtime.stop(&observed.id, grace).await.map_err(failed)?;
        match runtime.inspect(&observed.id).await.map_err(failed)? {
            Some(Observed { state: ObservedState::Running { .. }, .. }) => {
                let message = format!("{} says that it still runs", runtime.name());
                Err(failed(RuntimeError::new(ErrorKind::Other, message)))
            }
            Some(Observed { state: ObservedState::Exited { code, at, .. }, .. }) => {
                record.exit_code = code;
                record.ended_at = Some(at.map_or_else(clock::now, clock::moment));
                self.publish(record.clone());
                Ok(record)
            }
            found => {
                self.remove_unstarted(runtime, &mut record, found.as_ref()).await?;
                record.ended_at = Some(clock::now());
                self.publish(record.clone());
                Ok(record)
            }
        }
    }

    /// Whether something of the agent may still come to be, and run, though nothing of it is there.
    fn may_come_late(&self, record: &AgentRecord) -> bool {
        record.lease.as_ref().is_some_and(|lease| self.state().may_come_late(&lease.id))
    }

    /// Removes what was created for the agent's lease and has not started, if it is there, and all that belongs to it. To the broker it
    /// may seem not to have started because that answer was lost, and it may start yet: while it is there, its ports are not free.
    async fn remove_unstarted(
        &self,
        runtime: &Arc<dyn Runtime>,
        record: &mut AgentRecord,
        found: Option<&Observed>,
    ) -> Result<(), OperationError> {
        if let Some(observed) = found {
            let removed = self.remove_known(runtime, &record.key, &observed.id).await;
            removed.map_err(|source| runtime_error(record, source))?;
        } else if self.may_come_late(record) {
            return Err(not_known_yet(record));
        }
        self.withdraw(runtime, record).await?;
        record.container = None;
        Ok(())
    }

    /// Has the runtime take back what it reserved for the lease of an agent of which nothing else is there.
    pub(crate) async fn withdraw(
        &self,
        runtime: &Arc<dyn Runtime>,
        record: &AgentRecord,
    ) -> Result<(), OperationError> {
        let Some(lease) = &record.lease else { return Ok(()) };
        runtime.withdraw(lease.id.as_str()).await.map_err(|source| runtime_error(record, source))
    }

    /// What the runtime has of the agent's present lease.
    pub(crate) async fn look(
        &self,
        runtime: &Arc<dyn Runtime>,
        record: &AgentRecord,
    ) -> Result<Option<Observed>, OperationError> {
        // The id that is known may still be that of the container before: a start may have been cut short between the
        // creation of the new one and the note of its id.
        let by_name = record.key.runtime_name();
        for id in record.container.iter().chain([&by_name]) {
            let observed = runtime.inspect(id).await.map_err(|source| runtime_error(record, source))?;
            if let Some(observed) = observed.filter(|observed| self.is_of_lease(observed, record)) {
                return Ok(Some(observed));
            }
        }
        self.check_engine(runtime.as_ref(), record).await?;
        Ok(None)
    }

    /// Removes what is known under `id` to be left of an agent. Where ids are used again, what has it by now may be someone else's:
    /// that is left alone.
    pub(crate) async fn remove_known(
        &self,
        runtime: &Arc<dyn Runtime>,
        key: &AgentKey,
        id: &str,
    ) -> Result<(), RuntimeError> {
        if runtime.reuses_ids() {
            let Some(observed) = runtime.inspect(id).await? else { return Ok(()) };
            if labels::read(&self.id, &observed).is_none_or(|tag| tag.key != *key) {
                tracing::info!(agent = %key, id, "what is there now is not the agent's, and is left");
                return Ok(());
            }
        }
        runtime.remove(id).await
    }

    /// Whether this is the agent under the lease that it has now.
    pub(crate) fn is_of_lease(&self, observed: &Observed, record: &AgentRecord) -> bool {
        labels::is_of_lease(&self.id, observed, record)
    }

    pub(crate) fn runtime_of(&self, record: &AgentRecord) -> Result<Arc<dyn Runtime>, OperationError> {
        self.runtimes.get(&record.runtime).map_err(|source| runtime_error(record, source))
    }

    /// The error for an agent that is not there, with the nearest that is.
    pub(crate) fn unknown(&self, key: &AgentKey) -> OperationError {
        let state = self.state();
        let known: Vec<String> = state.agents.keys().map(ToString::to_string).collect();
        let nearest = spec::nearest(&key.to_string(), known.iter().map(String::as_str));
        OperationError::NoSuchAgent { key: key.clone(), nearest: nearest.and_then(|text| text.parse().ok()) }
    }
}

/// The error of a deletion, with what is left to do about an engine that will never answer again.
fn with_force(mut error: OperationError, key: &AgentKey) -> OperationError {
    if let OperationError::Runtime { source, .. } = &mut error
        && source.kind == ErrorKind::Unreachable
        && !source.hint.as_ref().is_some_and(|hint| hint.contains("--force"))
    {
        let others = source.hint.take().map(|hint| format!("{hint}; ")).unwrap_or_default();
        source.hint = Some(format!(
            "{others}if it is gone for good with all that it ran, `berthold delete {} --force` gives the ports back",
            shown(key)
        ));
    }
    error
}

/// That the runtime on which the agent is to be started does not answer.
fn not_answering(key: &AgentKey, runtime: &dyn Runtime, source: RuntimeError) -> OperationError {
    OperationError::Runtime { key: key.clone(), runtime: runtime.name().to_owned(), source }
}

/// That the runtime has nothing of the agent, and may have something in the next moment.
pub(crate) fn not_known_yet(record: &AgentRecord) -> OperationError {
    let message = format!("{} has not said whether it comes to be", record.runtime);
    runtime_error(
        record,
        RuntimeError::new(ErrorKind::Unreachable, message)
            .hint("its ports stay leased meanwhile: try again in a minute"),
    )
}

pub(crate) fn runtime_error(record: &AgentRecord, source: RuntimeError) -> OperationError {
    OperationError::Runtime { key: record.key.clone(), runtime: record.runtime.clone(), source }
}

impl Failure {
    /// The ports that the engine refused; none if the failure is of another kind. Where it named none, they are those that are
    /// seen to be held on this host, or else any of them may be.
    fn refused_ports(&self, record: &AgentRecord, locality: Locality) -> Option<Vec<Port>> {
        let named = self.refused?.and_then(Port::new).filter(|port| record.ports().contains(port));
        if let Some(port) = named {
            return Some(vec![port]);
        }
        let held = |port: &Port| locality == Locality::Local && probe::is_busy(*port);
        let refused: Vec<Port> = record.ports().iter().copied().filter(held).collect();
        Some(if refused.is_empty() { record.ports().to_vec() } else { refused })
    }

    /// Adds what was tried in vain.
    fn tell_refused(&mut self, sets: u32, refused: &[Port]) {
        if let OperationError::Runtime { source, .. } = &mut self.error {
            let ports: Vec<String> = refused.iter().map(ToString::to_string).collect();
            source.message = format!(
                "{}; {sets} sets of ports were tried, of which these were refused: {}",
                source.message,
                ports.join(", ")
            );
        }
    }
}
