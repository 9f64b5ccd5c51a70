//! The runtime: containers made, started, watched, stopped and removed by an engine.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::{ContainerInspectResponse, ContainerSummary, EventMessage};
use bollard::query_parameters::{
    CreateContainerOptions, EventsOptions, RemoveContainerOptions, StartContainerOptions,
    StopContainerOptions, WaitContainerOptions,
};
use bollard::{API_DEFAULT_VERSION, BollardRequest};
use futures_util::future::{FutureExt, ready};
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use super::asking::Asking;
use super::endpoint::EngineEndpoint;
use super::engine::Engine;
use super::limits::{ANSWER, GREETING, WORK};
use super::wire::Wire;
use super::{create, exec, observe, output};
use crate::asked_once::AskedOnce;
use crate::{
    Attached, BROKER_LABEL, Created, EngineInfo, ErrorKind, ExecRequest, HeldPort, LEASE_LABEL, LogRequest,
    LogStream, Observed, ObservedState, Progress, Publish, Runtime, RuntimeError, Spec, Streams,
};

/// For the engine to agree with itself that a container has ended.
const CONFIRMING: Duration = Duration::from_secs(10);

const CONFIRMING_PACE: Duration = Duration::from_millis(50);

/// For Podman to take down what has ended: half a second where it is busy. Where the process that does it has died, no one does.
const TAKING_DOWN: Duration = Duration::from_secs(3);

/// For the engine to show that it is there.
const GLANCE: Duration = Duration::from_secs(1);

/// For the engine to refuse to follow a log. If it does not, the first line may take as long as it likes.
const REFUSAL: Duration = Duration::from_secs(1);

/// Podman's own word about itself, which its answers to Docker's questions do not have.
const PODMAN_INFO: &str = "/v4.0.0/libpod/info";

/// How many containers are inspected at a time.
const AT_ONCE: usize = 8;

/// An engine that speaks Docker's API.
#[derive(Clone, Debug)]
pub struct Docker {
    pub(super) engine: Engine,
    endpoint: EngineEndpoint,
    pub(super) wire: Wire,
    pub(super) client: bollard::Docker,
    held: Arc<AskedOnce<Vec<HeldPort>>>,
}

impl Docker {
    /// The engine `name` (`docker`, `podman`) at `endpoint`. Nothing is sent before something is asked.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if `endpoint` cannot be used.
    pub fn connect(name: &'static str, endpoint: &EngineEndpoint) -> Result<Self, RuntimeError> {
        let wire = Wire::new(endpoint.clone());
        // Limits are set around each call, since bollard knows only one for all of them.
        let no_limit = u64::from(u32::MAX);
        let transport = {
            let wire = wire.clone();
            move |request: BollardRequest| {
                let wire = wire.clone();
                Box::pin(async move { wire.send(request).await })
            }
        };
        let client = bollard::Docker::connect_with_custom_transport(
            transport,
            Some("http://engine"),
            no_limit,
            API_DEFAULT_VERSION,
        );
        let client = client.map_err(|error| {
            RuntimeError::new(ErrorKind::Invalid, format!("{endpoint} cannot be used")).source(error)
        })?;
        Ok(Self { engine: Engine { name }, endpoint: endpoint.clone(), wire, client, held: Arc::default() })
    }

    /// Where the engine is.
    pub fn endpoint(&self) -> &EngineEndpoint {
        &self.endpoint
    }

    /// Whether the engine runs on this machine.
    pub fn is_local(&self) -> bool {
        self.endpoint.is_local()
    }

    /// Whether nothing listens there. Something is asked for that: Podman's service warns in its log of each connection on which nothing
    /// was. One that does not answer is there.
    pub(crate) async fn is_gone(&self) -> bool {
        let refused = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        };
        match timeout(GLANCE, self.wire.get("/_ping")).await {
            Ok(Err(bollard::errors::Error::IOError { err })) => refused(&err),
            _ => false,
        }
    }

    pub(super) fn asking(&self, doing: impl Into<String>) -> Asking {
        Asking { engine: self.engine, endpoint: self.endpoint.clone(), doing: doing.into() }
    }

    /// What is there under exactly this id or name, and its whole id.
    async fn look(&self, id: &str) -> Result<Option<(String, ContainerInspectResponse)>, RuntimeError> {
        if !is_addressable(id) {
            return Ok(None);
        }
        let asking = self.asking("inspect the container");
        let path = format!("/containers/{id}/json");
        let deadline = Instant::now() + TAKING_DOWN;
        let answer = loop {
            match asking.within(ANSWER, self.wire.json(&path)).await {
                Ok(answer) if observe::is_being_taken_down(&answer) && Instant::now() < deadline => {
                    sleep(CONFIRMING_PACE).await;
                }
                Ok(answer) => break answer,
                Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        };
        let mut answer = observe::inspection(answer).map_err(|error| asking.out_of_step().source(error))?;
        let whole_id = answer.id.take().ok_or_else(|| asking.out_of_step())?;
        let name = answer.name.as_deref().map(|name| name.trim_start_matches('/'));
        let is_meant = whole_id == id || name == Some(id);
        Ok(is_meant.then_some((whole_id, answer)))
    }

    async fn listed(
        &self,
        asking: &Asking,
        limit: Duration,
        query: &str,
    ) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let answer = asking.within(limit, self.wire.json(&format!("/containers/json?{query}"))).await?;
        observe::listing(answer).map_err(|error| asking.out_of_step().source(error))
    }

    /// The whole id of what is there under this id or name.
    async fn whole_id(&self, id: &str) -> Result<Option<String>, RuntimeError> {
        if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Some(id.to_owned()));
        }
        Ok(self.look(id).await?.map(|(whole_id, _)| whole_id))
    }

    async fn whole_id_of_existing(&self, asking: &Asking, id: &str) -> Result<String, RuntimeError> {
        self.whole_id(id).await?.ok_or_else(|| nothing_there(asking, id))
    }
}

/// Whether `id` can stand in the path of a request and means one container.
fn is_addressable(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    id.starts_with(|first: char| first.is_ascii_alphanumeric()) && id.bytes().all(plain)
}

#[async_trait]
impl Runtime for Docker {
    fn name(&self) -> &'static str {
        self.engine.name
    }

    fn needs_image(&self) -> bool {
        true
    }

    async fn engine(&self) -> Result<EngineInfo, RuntimeError> {
        let version = self.asking("say its version").within(GREETING, self.client.version()).await?;
        let version = version.version.unwrap_or_else(|| "unknown".to_owned());
        Ok(EngineInfo { version, endpoint: self.endpoint.to_string() })
    }

    async fn identity(&self) -> Result<Option<String>, RuntimeError> {
        let asking = self.asking("say which engine it is");
        let told = asking.within(GREETING, self.told_identity()).await;
        match told {
            // What stands between us and the engine may let other questions through, and not this one.
            Err(error) if error.kind != ErrorKind::Unreachable => Ok(None),
            told => told,
        }
    }

    async fn prepare_image(&self, image: &str, progress: &dyn Progress) -> Result<(), RuntimeError> {
        if self.has_image(image).await? {
            return Ok(());
        }
        self.pull(image, progress).await
    }

    async fn create(&self, spec: &Spec) -> Result<Created, RuntimeError> {
        let asking = self.asking(format!("create the container `{}`", spec.name));
        let options =
            CreateContainerOptions { name: Some(spec.name.clone()), ..CreateContainerOptions::default() };
        let request = self.client.create_container(Some(options), create::request(spec)?);
        let created = asking.within(WORK, request).await?;
        Ok(Created { id: created.id, warnings: created.warnings })
    }

    async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        let asking = self.asking("start the container");
        let id = self.whole_id_of_existing(&asking, id).await?;
        asking.within(WORK, self.client.start_container(&id, None::<StartContainerOptions>)).await
    }

    async fn starts(&self) -> Result<Option<BoxStream<'static, String>>, RuntimeError> {
        // An engine that is out of reach says so here, and not by a stream that is over at once.
        self.engine().await?;
        let filter = |name: &str, value: &str| (name.to_owned(), vec![value.to_owned()]);
        // Not by label too: Podman 4.3 wants its value with it, and else tells of nothing.
        let filters = [filter("type", "container"), filter("event", "start")];
        let options = EventsOptions {
            // So that nothing is missed between this call and the engine's.
            since: Some(Timestamp::now().as_second().to_string()),
            filters: Some(HashMap::from(filters)),
            ..EventsOptions::default()
        };
        let lease = |event: EventMessage| event.actor?.attributes?.remove(LEASE_LABEL);
        let events = self.client.events(Some(options)).take_while(|event| ready(event.is_ok()));
        Ok(Some(events.filter_map(move |event| ready(event.ok().and_then(lease))).boxed()))
    }

    async fn inspect(&self, id: &str) -> Result<Option<Observed>, RuntimeError> {
        Ok(self.look(id).await?.map(|(id, answer)| observe::from_inspection(id, answer)))
    }

    async fn wait_for_end(&self, id: &str, limit: Duration) -> Result<Option<Observed>, RuntimeError> {
        let Some(whole_id) = self.whole_id(id).await? else { return Ok(None) };
        let options = WaitContainerOptions { condition: "not-running".to_owned() };
        let mut end = self.client.wait_container(&whole_id, Some(options)).boxed();
        // Whether the time is up, the agent has ended, is gone, or the engine has: the inspection says which.
        let _ended_or_elapsed = timeout(limit, end.next()).await;
        self.inspect(&whole_id).await
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let asking = self.asking("stop the container");
        let Some(id) = self.whole_id(id).await? else { return Ok(()) };
        let seconds = grace.as_secs().saturating_add(u64::from(grace.subsec_nanos() > 0));
        let options =
            StopContainerOptions { t: Some(i32::try_from(seconds).unwrap_or(i32::MAX)), signal: None };
        let stopped =
            asking.within(grace.saturating_add(WORK), self.client.stop_container(&id, Some(options))).await;
        match stopped {
            Err(error) if !matches!(error.kind, ErrorKind::NotFound | ErrorKind::NotRunning) => {
                return Err(error);
            }
            _ => self.confirm_end(&asking, &id).await,
        }
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let asking = self.asking("remove the container");
        let Some(id) = self.whole_id(id).await? else { return Ok(()) };
        let deadline = Instant::now() + WORK;
        loop {
            let options = RemoveContainerOptions { force: true, v: true, link: false };
            match asking.within(WORK, self.client.remove_container(&id, Some(options))).await {
                Err(error) if error.kind != ErrorKind::NotFound && !is_being_removed(&error) => {
                    return Err(error);
                }
                _ if self.look(&id).await?.is_none() => return Ok(()),
                _ if Instant::now() > deadline => {
                    return Err(asking.refused(ErrorKind::Other, "it is still there"));
                }
                _ => sleep(CONFIRMING_PACE).await,
            }
        }
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        let asking = self.asking("list the containers");
        // {"label":["berthold.broker"]}
        let query = format!("all=true&filters=%7B%22label%22%3A%5B%22{BROKER_LABEL}%22%5D%7D");
        let listed = self.listed(&asking, ANSWER, &query).await?;
        let observed = listed.into_iter().map(|summary| async {
            if let Some(observed) = observe::from_listing(&summary) {
                return Ok(Some(observed));
            }
            let id = summary.id.ok_or_else(|| asking.out_of_step())?;
            self.inspect(&id).await
        });
        let observed: Vec<Option<Observed>> = stream::iter(observed).buffered(AT_ONCE).try_collect().await?;
        Ok(observed.into_iter().flatten().collect())
    }

    async fn held_ports(&self, _only_here: bool) -> Result<Vec<HeldPort>, RuntimeError> {
        self.held.get(self.published_ports()).await
    }

    async fn logs(&self, id: &str, request: &LogRequest) -> Result<LogStream, RuntimeError> {
        let asking = self.asking("read the log");
        let found = self.look(id).await?;
        let (id, container) = found.ok_or_else(|| nothing_there(&asking, id))?;
        let terminal = container.config.and_then(|config| config.tty).unwrap_or(false);
        let tail = request.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let follow = request.follow;
        let path = format!("/containers/{id}/logs?stdout=true&stderr=true&follow={follow}&tail={tail}");
        let wire = self.wire.clone();
        let mut answer = async move { wire.get(&path).await }.boxed();
        let body = |answer: Response<Incoming>| answer.into_body().into_data_stream().map(|bytes| Ok(bytes?));
        let limit = if follow { REFUSAL } else { ANSWER };
        let source = match timeout(limit, &mut answer).await {
            Ok(answer) => body(answer.map_err(|error| asking.failed(error))?).boxed(),
            // Podman (4.3) does not even begin to answer before the first line.
            Err(_elapsed) if follow => stream::once(answer).map_ok(body).try_flatten().boxed(),
            Err(_elapsed) => return Err(asking.timed_out(limit)),
        };
        Ok(output::taken_apart(source, terminal, asking))
    }

    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<Attached, RuntimeError> {
        let asking = self.asking("run the command");
        let id = self.whole_id_of_existing(&asking, id).await?;
        exec::run(self, &asking, &id, request).await
    }

    async fn attach(&self, id: &str, stdin: bool) -> Result<Streams, RuntimeError> {
        let asking = self.asking("attach to the container");
        let (id, container) = self.look(id).await?.ok_or_else(|| nothing_there(&asking, id))?;
        let config = container.config.clone().unwrap_or_default();
        if !matches!(observe::from_inspection(id.clone(), container).state, ObservedState::Running { .. }) {
            return Err(asking.refused(ErrorKind::NotRunning, "it does not run"));
        }
        exec::attach(self, &asking, &id, &config, stdin).await
    }
}

impl Docker {
    /// Docker's own id; of Podman, where it keeps its containers.
    async fn told_identity(&self) -> Result<Option<String>, bollard::errors::Error> {
        if self.engine.is_podman() {
            let body = self.wire.get(PODMAN_INFO).await?.into_body().collect().await?.to_bytes();
            let told = serde_json::from_slice::<serde_json::Value>(&body).ok();
            let storage = told.as_ref().and_then(|told| told.pointer("/store/graphRoot")?.as_str());
            return Ok(storage.map(str::to_owned));
        }
        let (first, second) = (self.client.info().await?.id, self.client.info().await?.id);
        // Podman behind this API makes up another one with each answer.
        Ok(first.filter(|id| !id.is_empty() && second.as_ref() == Some(id)))
    }

    /// What containers publish, whoever started them. The engine is asked, because a port that it publishes by packet rules
    /// alone has no socket.
    async fn published_ports(&self) -> Result<Vec<HeldPort>, RuntimeError> {
        // Those that run; what was paused or is about to be started again is among them.
        let listed = self.listed(&self.asking("list the published ports"), GREETING, "all=false").await?;
        let (engine, is_here) = (self.engine.name, self.is_local());
        let held = listed.iter().filter_map(observe::from_listing).flat_map(|container| {
            let by = format!("the {engine} container {}", container.name);
            let lease = container.labels.get(LEASE_LABEL).cloned();
            let held =
                move |it: Publish| HeldPort { port: it.host, by: by.clone(), is_here, lease: lease.clone() };
            container.published.into_iter().map(held)
        });
        Ok(held.collect())
    }

    /// Waits until the container does not run, which the engine has just said.
    async fn confirm_end(&self, asking: &Asking, id: &str) -> Result<(), RuntimeError> {
        let deadline = Instant::now() + CONFIRMING;
        loop {
            match self.inspect(id).await?.map(|found| found.state) {
                Some(ObservedState::Running { .. }) if Instant::now() > deadline => {
                    return Err(asking.refused(ErrorKind::Other, "it still runs"));
                }
                Some(ObservedState::Running { .. }) => sleep(CONFIRMING_PACE).await,
                Some(ObservedState::Created | ObservedState::Exited { .. }) | None => return Ok(()),
            }
        }
    }
}

fn nothing_there(asking: &Asking, id: &str) -> RuntimeError {
    asking.refused(ErrorKind::NotFound, &format!("there is no container `{id}`"))
}

/// Whether the engine refused because it is removing the container already.
fn is_being_removed(error: &RuntimeError) -> bool {
    error.message.contains("already in progress")
}
