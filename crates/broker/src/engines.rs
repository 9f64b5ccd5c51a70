//! Which engine it is that answers under the name of a runtime.
//!
//! A name such as `docker` leads to an engine by a socket, a variable or a context, and each of these may lead to another engine one
//! day. That one truthfully says that nothing is there of agents that the first one still runs. So the ledger has with each
//! agent which engine runs it, and "nothing is there" is believed of that one alone: while another one answers, the agent's own is
//! out of reach, and its ports stay leased.
//!
//! **Limits.** What does not tell who it is (see `Runtime::identity`) is taken for the one that it was.

use runtime::{ErrorKind, Runtime, RuntimeError};

use crate::core::Core;
use crate::error::{OperationError, shown};
use crate::lifecycle::runtime_error;
use crate::listing::Listing;
use crate::model::AgentRecord;
use crate::warnings::About;

impl Core {
    /// Which engine answers under the name of this runtime; none if it does not tell. It is asked unless an agent that it runs vouches
    /// for what is known: were it another one by now, that agent would be missed in its listing.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] if none answers.
    pub(crate) async fn engine_of(&self, runtime: &dyn Runtime) -> Result<Option<String>, RuntimeError> {
        let known = {
            let state = self.state();
            let known = state.engines.get(runtime.name());
            let vouches = |record: &AgentRecord| {
                record.runtime == runtime.name() && record.lease.is_some() && Some(&record.engine) == known
            };
            known.filter(|_| state.agents.values().any(vouches)).cloned()
        };
        match known {
            Some(known) => Ok(known),
            None => self.answering_engine(runtime).await,
        }
    }

    /// Which engine answers under the name of this runtime at this moment; none if it does not tell.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] if none answers.
    pub(crate) async fn answering_engine(
        &self,
        runtime: &dyn Runtime,
    ) -> Result<Option<String>, RuntimeError> {
        match self.ask_engine(runtime).await {
            // What does not tell who it is need not answer for that, and one that is slow to tell may answer all the same.
            Ok(None) => match runtime.engine().await {
                Err(error) if error.kind == ErrorKind::Unreachable => Err(error),
                _ => Ok(None),
            },
            Err(error) if error.kind == ErrorKind::Unreachable => {
                runtime.engine().await.map(|_answers| None).map_err(|_silence| error)
            }
            // Who it is is not needed to run something there.
            answer => Ok(answer.unwrap_or_default()),
        }
    }

    /// Asks which engine it is that answers now.
    pub(crate) async fn ask_engine(&self, runtime: &dyn Runtime) -> Result<Option<String>, RuntimeError> {
        let engine = runtime.identity().await?;
        self.state().engines.insert(runtime.name(), engine.clone());
        Ok(engine)
    }

    /// What is on a runtime, and which engine says so.
    ///
    /// An engine takes long to say who it is (Podman on Debian: 0.4 s of a processor). So it is asked only if something follows from
    /// that: an agent is not there, or was on another one than the last that said so; or it was out of reach since.
    pub(crate) async fn listed(
        &self,
        runtime: &dyn Runtime,
    ) -> Result<(Listing, Option<String>), RuntimeError> {
        let listing = match runtime.list().await {
            Ok(listing) => Listing::new(listing),
            Err(error) => {
                self.doubt_engine(runtime);
                return Err(error);
            }
        };
        let (known, is_asked) = {
            let state = self.state();
            let known = state.engines.get(runtime.name()).cloned();
            let mut leased = state
                .agents
                .values()
                .filter(|record| record.runtime == runtime.name() && record.lease.is_some());
            let is_its = |record: &AgentRecord| {
                listing.agent(&self.id, record).is_some() && known.as_ref() == Some(&record.engine)
            };
            let is_asked = !leased.all(is_its);
            (known, is_asked)
        };
        let engine = if is_asked { self.ask_engine(runtime).await? } else { known.flatten() };
        Ok((listing, engine))
    }

    /// Notes that another engine may answer from now on.
    pub(crate) fn doubt_engine(&self, runtime: &dyn Runtime) {
        self.state().engines.remove(runtime.name());
    }

    /// Sees to it that what the runtime says of the agent comes from the engine that runs it.
    ///
    /// # Errors
    /// That the agent's own engine is out of reach.
    pub(crate) async fn check_engine(
        &self,
        runtime: &dyn Runtime,
        record: &AgentRecord,
    ) -> Result<(), OperationError> {
        if record.engine.is_none() {
            return Ok(());
        }
        let engine = self.ask_engine(runtime).await.map_err(|source| runtime_error(record, source))?;
        if !is_elsewhere(record, engine.as_deref()) {
            return Ok(());
        }
        let name = runtime.name();
        let message = format!(
            "{name} is another engine now than the one that runs it, so nothing is known of it, and its ports stay leased"
        );
        let error =
            RuntimeError::new(ErrorKind::Unreachable, message).hint(remedy(name, &shown(&record.key)));
        Err(runtime_error(record, error))
    }

    /// Warns of the live agents of a runtime that are on another engine than the one that answers now, or takes that back.
    pub(crate) fn warn_of_engine(&self, runtime: &str, engine: Option<&str>) {
        let elsewhere: Vec<String> = {
            let state = self.state();
            let records =
                state.agents.values().filter(|record| record.runtime == runtime && record.is_live());
            records.filter(|it| is_elsewhere(it, engine)).map(|record| shown(&record.key)).collect()
        };
        let about = About::OtherEngine(runtime.to_owned());
        let Some(first) = elsewhere.first() else {
            self.take_back(|it| *it == about);
            return;
        };
        let text = format!(
            "{runtime} is another engine now than the one that runs {}: nothing is known of that, and its ports stay leased; {}",
            elsewhere.join(", "),
            remedy(runtime, first)
        );
        self.warn(about, &text);
    }

    /// Why the agent may be in another state than the one that is known.
    pub(crate) fn doubt(&self, record: &AgentRecord) -> Option<String> {
        if !record.is_live() {
            return None;
        }
        let (state, runtime) = (self.state(), &record.runtime);
        if let Some(text) = state.warnings.get(&About::Unreachable(runtime.clone())) {
            return Some(text.clone());
        }
        let engine = state.engines.get(runtime.as_str()).and_then(Option::as_deref);
        is_elsewhere(record, engine)
            .then(|| format!("{runtime} is another engine now than the one that runs it"))
    }
}

/// Whether the agent is on another engine than this one.
pub(crate) fn is_elsewhere(record: &AgentRecord, engine: Option<&str>) -> bool {
    matches!((record.engine.as_deref(), engine), (Some(own), Some(engine)) if own != engine)
}

fn remedy(runtime: &str, agent: &str) -> String {
    let lead = match runtime {
        "docker" => "DOCKER_HOST, the docker context or `runtimes.docker.host`",
        "podman" => "CONTAINER_HOST or `runtimes.podman.host`",
        _ => "the context and namespace in `runtimes.kubernetes`",
    };
    format!(
        "lead {runtime} to that engine again ({lead}) and start the broker anew; if that engine is gone for good with all that it ran, \
         `berthold delete {agent} --force` gives the ports back"
    )
}
