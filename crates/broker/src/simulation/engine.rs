//! An engine that does everything that an engine may do: it takes its time, refuses, loses answers, does what it was asked for after
//! nobody waits any more, goes away and comes back.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use runtime::{
    Attached, Created, EngineInfo, ErrorKind, ExecRequest, HeldPort, LogRequest, LogStream, Observed,
    ObservedState, Progress, Runtime, RuntimeError, Spec, Streams,
};
use settings::RuntimeName;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, timeout_at};

use super::world::{Effect, Fate, World};

/// What the broker knows of the engine: it can be asked.
pub(super) struct Engine(pub(super) Arc<World>);

impl Engine {
    /// Asks for a change.
    async fn change(&self, effect: Effect) -> Result<Option<Created>, RuntimeError> {
        let (fate, [before, taking, after]) = self.0.fate(effect.kind());
        sleep(before).await;
        if fate == Fate::Refused || !self.0.is_up() {
            return Err(away());
        }
        // It comes about also if the one who asked is gone by then.
        let made = tokio::spawn(self.0.begin(effect, taking));
        if fate == Fate::Lost {
            sleep(after).await;
            return Err(away());
        }
        let answer = made.await;
        sleep(after).await;
        if !self.0.is_up() {
            return Err(away());
        }
        answer.unwrap_or_else(|_| Err(away()))
    }

    /// Asks for what is there; the answer may be older than it is when it comes.
    async fn question<T>(&self, answer: impl FnOnce(&World) -> T) -> Result<T, RuntimeError> {
        let (fate, [before, _, after]) = self.0.fate("question");
        sleep(before).await;
        let is_up = self.0.is_up();
        let answer = answer(&self.0);
        sleep(after).await;
        if is_up && fate == Fate::Done { Ok(answer) } else { Err(away()) }
    }
}

fn away() -> RuntimeError {
    RuntimeError::new(ErrorKind::Unreachable, "the engine does not answer")
}

fn is_running(observed: &Observed) -> bool {
    matches!(observed.state, ObservedState::Running { .. })
}

#[async_trait]
impl Runtime for Engine {
    fn name(&self) -> &'static str {
        RuntimeName::Docker.as_str()
    }

    fn needs_image(&self) -> bool {
        true
    }

    async fn engine(&self) -> Result<EngineInfo, RuntimeError> {
        self.question(|_| EngineInfo { version: "1".to_owned(), endpoint: "here".to_owned() }).await
    }

    async fn identity(&self) -> Result<Option<String>, RuntimeError> {
        self.question(|_| Some("the one".to_owned())).await
    }

    async fn prepare_image(&self, _image: &str, _progress: &dyn Progress) -> Result<(), RuntimeError> {
        self.question(|_| ()).await
    }

    async fn create(&self, spec: &Spec) -> Result<Created, RuntimeError> {
        self.0.check_asked(spec);
        let created = self.change(Effect::Create(Box::new(spec.clone()))).await?;
        created.ok_or_else(away)
    }

    async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        self.change(Effect::Start(id.to_owned())).await.map(drop)
    }

    async fn inspect(&self, id: &str) -> Result<Option<Observed>, RuntimeError> {
        self.question(|world| world.find(id)).await
    }

    async fn wait_for_end(&self, id: &str, limit: Duration) -> Result<Option<Observed>, RuntimeError> {
        let deadline = Instant::now() + limit;
        loop {
            let changed = self.0.changed();
            let observed = self.inspect(id).await?;
            if !observed.as_ref().is_some_and(is_running) || timeout_at(deadline, changed).await.is_err() {
                return Ok(observed);
            }
        }
    }

    async fn stop(&self, id: &str, _grace: Duration) -> Result<(), RuntimeError> {
        self.change(Effect::Stop(id.to_owned())).await.map(drop)
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.change(Effect::Remove(id.to_owned())).await.map(drop)
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        self.question(World::list).await
    }

    async fn held_ports(&self, _only_here: bool) -> Result<Vec<HeldPort>, RuntimeError> {
        self.question(World::held).await
    }

    async fn starts(&self) -> Result<Option<BoxStream<'static, String>>, RuntimeError> {
        let started = self.0.started();
        let heard = stream::unfold(started, |mut started| async move {
            loop {
                match started.recv().await {
                    Ok(lease) => return Some((lease, started)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        self.question(|_| ()).await?;
        Ok(Some(heard.boxed()))
    }

    async fn logs(&self, _id: &str, _request: &LogRequest) -> Result<LogStream, RuntimeError> {
        Ok(stream::empty().boxed())
    }

    async fn exec(&self, _id: &str, _request: &ExecRequest) -> Result<Attached, RuntimeError> {
        Err(RuntimeError::new(ErrorKind::Unsupported, "nobody asks for this here"))
    }

    async fn attach(&self, _id: &str, _stdin: bool) -> Result<Streams, RuntimeError> {
        Err(RuntimeError::new(ErrorKind::Unsupported, "nobody asks for this here"))
    }
}
