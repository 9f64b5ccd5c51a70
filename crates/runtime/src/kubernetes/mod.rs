//! Kubernetes: an agent is a pod with one container.
//!
//! # How its ports are reached
//!
//! With [`Expose::Forward`] this process listens on the ports and passes connections on through the API server, so they are
//! reached on this host as with Docker, for as long as the broker runs. With [`Expose::NodePort`] and [`Expose::HostPort`] the
//! cluster's nodes have them; then the numbers must be unique in the whole cluster, which a Service's `nodePort` is by itself, and
//! a `hostPort` becomes by a claim (see the module `claims`), as does a number that a pod binds on its node's own network.
//!
//! # Limits
//!
//! - A pod cannot be stopped and kept: stopping it removes it, and its log with it.
//! - A pod has its `hostPort`s for as long as anything in it runs. So with [`Expose::HostPort`] the end of the agent is that of what a
//!   cluster has put beside it, too.
//! - Volumes of the host are those of the node on which the pod happens to be.

mod claims;
mod connection;
mod exec;
mod forward;
mod held;
mod pod;
mod refusal;
mod rights;
mod services;
mod session;
mod spdy;
mod starts;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{AsyncReadExt, StreamExt};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::api::{DeleteParams, ListParams, LogParams, PostParams, Preconditions};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use self::connection::{Connected, Connections};
use self::forward::{Forwards, Way};
use self::held::Held;
use self::pod::Obstacle;
use self::refusal::{refused, unreachable};
use crate::{
    Attached, BROKER_LABEL, Created, EngineInfo, ErrorKind, ExecRequest, HeldPort, LEASE_LABEL, LogRequest,
    LogStream, Observed, ObservedState, Output, Progress, Runtime, RuntimeError, Spec, Streams,
};

const NAME: &str = "kubernetes";
/// The namespace by which one cluster is told from another.
const IDENTITY: &str = "kube-system";
/// For a question that the API server answers from what it knows.
const ANSWER: Duration = Duration::from_secs(20);
/// For how long an API server may still be at a request that nobody waits for any more (kube-apiserver's `--request-timeout`: a minute,
/// unless it is told otherwise).
const LATE: Duration = Duration::from_secs(60);
/// How long a pod may take to be gone, beyond its own time to stop.
const WORK: Duration = Duration::from_secs(120);
/// The pauses between looks at a pod that is coming or going: at first, and at most.
const PACE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How often a pod that runs is looked at for its end.
const WATCHING_PACE: Duration = Duration::from_secs(2);
/// What is read of a log at once.
const CHUNK: usize = 16 * 1024;

/// How the ports of a pod are reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expose {
    /// This process listens on them and forwards.
    Forward,
    /// They are ports of the node that the pod is on.
    HostPort,
    /// They are ports of every node, by a Service.
    NodePort,
    /// They are not; the pod is only told its numbers.
    None,
}

/// Where the cluster is, and how agents run there.
#[derive(Clone, Debug)]
pub struct KubernetesOptions {
    /// The context of the kubeconfig; its current one if not set.
    pub context: Option<String>,
    /// The namespace of the agents.
    pub namespace: String,
    /// How their ports are reached.
    pub expose: Expose,
    /// How long a pod may take until it runs, with finding a node and pulling the image.
    pub start_timeout: Duration,
}

/// A cluster.
pub struct Kubernetes {
    options: KubernetesOptions,
    connections: Arc<Connections>,
    forwards: Forwards,
    held: Held,
    /// The pods, by their ids, that are known not to have what is to publish their ports in the cluster.
    unpublished: Mutex<HashSet<String>>,
}

impl Kubernetes {
    /// The cluster that the kubeconfig names, or in which this process runs; none if neither is there. Nothing is asked of it
    /// yet.
    pub fn find(options: KubernetesOptions, environment: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let usual = || variable("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
        let has_file = variable("KUBECONFIG").is_some() || usual().is_some_and(|path| path.is_file());
        let is_inside = variable("KUBERNETES_SERVICE_HOST").is_some();
        (has_file || is_inside).then(|| Self {
            connections: Arc::new(Connections::new(options.context.clone())),
            options,
            forwards: Forwards::default(),
            held: Held::default(),
            unpublished: Mutex::default(),
        })
    }

    /// Whether the ports of its agents are this host's.
    pub fn is_local(&self) -> bool {
        self.options.expose == Expose::Forward
    }

    async fn connected(&self) -> Result<Arc<Connected>, RuntimeError> {
        self.connections.get().await
    }

    async fn client(&self) -> Result<Client, RuntimeError> {
        Ok(self.connected().await?.client.clone())
    }

    async fn pods(&self) -> Result<Api<Pod>, RuntimeError> {
        Ok(Api::namespaced(self.client().await?, &self.options.namespace))
    }

    /// The pod of this id or name, if it is there.
    async fn pod(&self, id: &str) -> Result<Option<Pod>, RuntimeError> {
        let (name, uid) = pod::name_and_uid(id);
        let pods = self.pods().await?;
        let pod = found(within(ANSWER, "look at the pod", pods.get(name)).await)?;
        Ok(pod.filter(|pod| uid.is_none_or(|uid| pod.metadata.uid.as_deref() == Some(uid))))
    }

    async fn existing(&self, id: &str) -> Result<Pod, RuntimeError> {
        let nothing = || RuntimeError::new(ErrorKind::NotFound, format!("there is no pod `{id}`"));
        self.pod(id).await?.ok_or_else(nothing)
    }

    fn observed(&self, pod: &Pod) -> Observed {
        let published = match self.options.expose {
            Expose::Forward => self.forwards.of(&pod::id(pod)),
            Expose::HostPort => pod::host_ports(pod),
            Expose::NodePort if self.unpublished().contains(&pod::id(pod)) => Vec::new(),
            Expose::NodePort => services::published(&pod::publish(pod)),
            Expose::None => Vec::new(),
        };
        pod::observed(pod, published)
    }

    /// What is there under this id or name. What does not run any more is not published any more either.
    async fn look(&self, id: &str) -> Result<Option<(Pod, Observed)>, RuntimeError> {
        let Some(pod) = self.pod(id).await? else {
            self.forwards.withdraw(id).await;
            return Ok(None);
        };
        let mut observed = self.observed(&pod);
        // Under a bare name it may be anyone's.
        let is_ours = pod::name_and_uid(id).1.is_some();
        if let ObservedState::Exited { detail, .. } = &mut observed.state
            && is_ours
        {
            // What has ended holds no port, so nothing may hold one for it.
            if self.options.expose == Expose::HostPort && pod::outlives_agent(&pod) {
                *detail =
                    Some("its pod was deleted with what else ran in it, which held its ports".to_owned());
                self.delete(&pod::id(&pod), Duration::ZERO).await?;
            } else {
                self.unpublish(&pod).await?;
            }
        }
        Ok(Some((pod, observed)))
    }

    fn path(&self, pod: &str, subresource: &str) -> String {
        format!("/api/v1/namespaces/{}/pods/{pod}/{subresource}", self.options.namespace)
    }

    /// Waits until the pod runs or has ended.
    async fn await_start(&self, id: &str) -> Result<Pod, RuntimeError> {
        let deadline = Instant::now() + self.options.start_timeout;
        let (mut pause, mut were_taken) = (PACE.0, false);
        loop {
            let pod = self.existing(id).await?;
            if self.observed(&pod).state != ObservedState::Created {
                return Ok(pod);
            }
            match pod::obstacle(&pod) {
                // Seen once, they may be those of a pod that is just going.
                Obstacle::PortsTaken(reason) if were_taken => {
                    let port = self.held_by_others(&pod).await;
                    return Err(RuntimeError::new(ErrorKind::PortRefused { port }, reason));
                }
                Obstacle::PortsTaken(_) => {
                    were_taken = true;
                    sleep(pause).await;
                    continue;
                }
                Obstacle::Hopeless(kind, reason) => {
                    return Err(RuntimeError::new(
                        kind,
                        format!("kubernetes cannot start the pod: {reason}"),
                    ));
                }
                Obstacle::Waiting(reason) if Instant::now() >= deadline => {
                    let waited = self.options.start_timeout.as_secs();
                    let warning = self.warning_of(&pod).await.filter(|warning| !reason.contains(warning));
                    let reason = warning.map_or(reason.clone(), |warning| format!("{reason} ({warning})"));
                    let message = format!("the pod does not run after {waited} s: {reason}");
                    return Err(RuntimeError::new(ErrorKind::Other, message)
                        .hint("runtimes.kubernetes.start_timeout says how long it may take"));
                }
                // The node tells this nowhere else, and tries again for ever.
                Obstacle::Waiting(_) if pause == PACE.1 => {
                    let warning = self.warning_of(&pod).await;
                    if let Some(warning) = warning.filter(|text| text.contains("hostPath type check failed"))
                    {
                        let message = format!("kubernetes cannot start the pod: {warning}");
                        return Err(RuntimeError::new(ErrorKind::Invalid, message)
                            .hint("the workspace must be a directory of the node on which the pod is"));
                    }
                }
                Obstacle::Waiting(_) => {}
            }
            were_taken = false;
            sleep(pause).await;
            pause = (pause * 2).min(PACE.1);
        }
    }

    /// What the cluster last warned of about the pod; none if it lets no one see that.
    async fn warning_of(&self, pod: &Pod) -> Option<String> {
        let events: Api<Event> = Api::namespaced(self.client().await.ok()?, &self.options.namespace);
        let uid = pod.metadata.uid.as_deref()?;
        let warnings = ListParams::default().fields(&format!("involvedObject.uid={uid},type=Warning"));
        let told = within(ANSWER, "list the events", events.list(&warnings)).await.ok()?;
        let last =
            told.items.into_iter().max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0))?;
        Some(format!("{}: {}", last.reason.unwrap_or_default(), last.message.unwrap_or_default()))
    }

    /// The first port of the pod that something else in the cluster holds, if that can be told.
    async fn held_by_others(&self, pod: &Pod) -> Option<u16> {
        let lease = pod::lease(&pod.metadata);
        let held = self.held_ports(false).await.ok()?;
        let is_held = |port: &u16| held.iter().any(|it| it.port == *port && it.lease.as_ref() != lease);
        pod::numbers(pod).into_iter().find(is_held)
    }

    /// Publishes the ports of a pod that runs, as it was created to have them.
    async fn publish(&self, pod: &Pod) -> Result<(), RuntimeError> {
        let id = pod::id(pod);
        match self.options.expose {
            Expose::Forward => {
                let way = self.way(pod.metadata.name.as_deref().unwrap_or_default());
                self.forwards.publish(&id, &pod::publish(pod), way).await
            }
            Expose::NodePort => {
                let restored = self.restore_service(pod).await;
                match &restored {
                    Ok(()) => self.unpublished().remove(&id),
                    Err(_) => self.unpublished().insert(id),
                };
                restored
            }
            Expose::HostPort if pod::host_ports(pod) != pod::publish(pod) => {
                let message = "the pod was created when `expose` was something else, and has no host ports";
                Err(RuntimeError::new(ErrorKind::Invalid, message).hint("`berthold restart` gives it some"))
            }
            Expose::HostPort | Expose::None => Ok(()),
        }
    }

    /// Creates the Service of a pod that runs if it is not there: someone may have deleted it, or it was exposed otherwise before.
    async fn restore_service(&self, pod: &Pod) -> Result<(), RuntimeError> {
        if pod::publish(pod).is_empty() || self.has_service(pod).await? {
            return Ok(());
        }
        let (client, namespace) = (self.client().await?, &self.options.namespace);
        services::create(&client, namespace, &pod::all_labels(pod), &pod::publish(pod)).await?;
        tracing::warn!(pod = pod.metadata.name, "its service was not there any more, and was created again");
        services::own(&client, namespace, pod).await;
        Ok(())
    }

    async fn has_service(&self, pod: &Pod) -> Result<bool, RuntimeError> {
        let lease = pod::lease(&pod.metadata).map_or("", String::as_str);
        services::is_there(&self.client().await?, &self.options.namespace, lease).await
    }

    fn unpublished(&self) -> MutexGuard<'_, HashSet<String>> {
        self.unpublished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn way(&self, pod: &str) -> Way {
        Way { connections: Arc::clone(&self.connections), path: self.path(pod, "portforward") }
    }

    /// Whether what the pod was created to have published has yet to be, or to be again, by what [`Runtime::resume`] does.
    async fn lacks_ports(&self, pod: &Pod) -> bool {
        match self.options.expose {
            Expose::Forward => self.forwards.of(&pod::id(pod)) != pod::publish(pod),
            // If the cluster does not tell, nothing is known.
            Expose::NodePort if !pod::publish(pod).is_empty() => {
                self.has_service(pod).await.is_ok_and(|is_there| !is_there)
            }
            Expose::NodePort | Expose::HostPort | Expose::None => false,
        }
    }

    /// Deletes the pod and all that belongs to it, and waits until nothing of it is there.
    async fn delete(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let Some(pod) = self.pod(id).await? else {
            // What else there is of its lease goes when that ends.
            self.forwards.withdraw(id).await;
            return Ok(());
        };
        let doing = "delete the pod";
        let (pods, name) = (self.pods().await?, pod.metadata.name.as_deref().unwrap_or_default());
        // With none at all the API server would forget the pod without waiting for its node, where it may still run and hold ports.
        let seconds = grace.as_secs().saturating_add(u64::from(grace.subsec_nanos() > 0)).max(1);
        let parameters = DeleteParams {
            grace_period_seconds: Some(u32::try_from(seconds).unwrap_or(u32::MAX)),
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match within(ANSWER, doing, pods.delete(name, &parameters)).await {
            // It is gone, or another one of that name is there.
            Err(error) if ![ErrorKind::NotFound, ErrorKind::Other].contains(&error.kind) => {
                return Err(error);
            }
            Err(error) if self.pod(&pod::id(&pod)).await?.is_some() => return Err(error),
            _ => {}
        }
        let deadline = Instant::now() + grace.saturating_add(WORK);
        let mut pause = PACE.0;
        while self.pod(&pod::id(&pod)).await?.is_some() {
            if Instant::now() >= deadline {
                let message = format!("the pod {name} was deleted, but it is still there");
                return Err(RuntimeError::new(ErrorKind::Other, message)
                    .hint("does its node answer? `kubectl describe pod` says more"));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PACE.1);
        }
        self.unpublish(&pod).await
    }

    /// Ends what publishes the ports of a pod that is gone, or holds none any more.
    async fn unpublish(&self, pod: &Pod) -> Result<(), RuntimeError> {
        self.forwards.withdraw(&pod::id(pod)).await;
        self.unpublished().remove(&pod::id(pod));
        match pod::lease(&pod.metadata) {
            Some(lease) => self.unreserve(lease).await,
            None => Ok(()),
        }
    }

    /// Has the ports of the pod to be reserved in the cluster, before it is created.
    async fn reserve(&self, spec: &Spec) -> Result<(), RuntimeError> {
        if spec.publish.is_empty() && spec.binds.is_empty() {
            return Ok(());
        }
        let (client, namespace) = (self.client().await?, &self.options.namespace);
        match self.options.expose {
            // A number that a pod of another broker has on some node no Service may have, nor the other way round, which no API server
            // sees to: so both are claimed.
            Expose::NodePort => {
                match claims::take(&client, namespace, spec).await {
                    // Among Services, and on each node, the numbers are unique all the same.
                    Err(error) if error.kind == ErrorKind::Forbidden => {
                        tracing::warn!(%error, "pods of other brokers may have the same ports on their nodes");
                    }
                    taken => taken?,
                }
                if spec.publish.is_empty() {
                    return Ok(());
                }
                let created = services::create(&client, namespace, &spec.labels, &spec.publish).await;
                let Err(error) = created else { return Ok(()) };
                // One that may have been created keeps its numbers; the caller sees to both.
                if error.kind == ErrorKind::Unreachable {
                    return Err(error);
                }
                let lease = spec.labels.get(LEASE_LABEL).map_or("", String::as_str);
                match give_back_if_allowed(&client, namespace, lease).await {
                    Ok(()) => Err(error),
                    Err(second) => Err(refusal::left_behind(&error, &second)),
                }
            }
            Expose::HostPort => claims::take(&client, namespace, spec).await,
            Expose::Forward | Expose::None => Ok(()),
        }
    }

    /// Takes back what was reserved for the lease.
    async fn unreserve(&self, lease: &str) -> Result<(), RuntimeError> {
        let namespace = &self.options.namespace;
        match self.options.expose {
            Expose::NodePort => {
                let client = self.client().await?;
                services::delete(&client, namespace, lease).await?;
                give_back_if_allowed(&client, namespace, lease).await
            }
            Expose::HostPort => claims::give_back(&self.client().await?, namespace, lease).await,
            Expose::Forward | Expose::None => Ok(()),
        }
    }
}

/// Gives back what a Service's numbers were claimed with; who may not do that has claimed none.
async fn give_back_if_allowed(client: &Client, namespace: &str, lease: &str) -> Result<(), RuntimeError> {
    match claims::give_back(client, namespace, lease).await {
        Err(error) if error.kind == ErrorKind::Forbidden => Ok(()),
        given_back => given_back,
    }
}

/// The answer to `question`, if it comes within `limit`.
async fn within<T>(
    limit: Duration,
    doing: &str,
    question: impl Future<Output = kube::Result<T>>,
) -> Result<T, RuntimeError> {
    match timeout(limit, question).await {
        Ok(answer) => answer.map_err(|error| refused(doing, error)),
        Err(_elapsed) => Err(unreachable(doing, &format!("no answer after {} s", limit.as_secs()))),
    }
}

/// What was asked for, or that it is not there.
fn found<T>(answer: Result<T, RuntimeError>) -> Result<Option<T>, RuntimeError> {
    match answer {
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        answer => answer.map(Some),
    }
}

#[async_trait]
impl Runtime for Kubernetes {
    fn name(&self) -> &'static str {
        NAME
    }

    fn needs_image(&self) -> bool {
        true
    }

    fn may_publish_here(&self) -> bool {
        self.is_local() || self.connections.is_near() || self.held.is_node()
    }

    fn publishes(&self) -> bool {
        self.options.expose != Expose::None
    }

    fn may_come_late(&self) -> Duration {
        LATE
    }

    fn runs_on_unheard(&self) -> bool {
        true
    }

    async fn engine(&self) -> Result<EngineInfo, RuntimeError> {
        let connected = self.connected().await?;
        let version =
            within(ANSWER, "say its version", connected.client.apiserver_version()).await?.git_version;
        let endpoint = connected.endpoint.trim_end_matches('/');
        let endpoint = format!("{endpoint}, namespace {}", self.options.namespace);
        Ok(EngineInfo { version: version.trim_start_matches('v').to_owned(), endpoint })
    }

    async fn lacks(&self) -> Result<Option<RuntimeError>, RuntimeError> {
        let missing =
            rights::missing(&self.client().await?, &self.options.namespace, self.options.expose).await?;
        if missing.is_empty() {
            return Ok(None);
        }
        let message = format!("the broker's user may not {}", missing.join("; "));
        Ok(Some(RuntimeError::new(ErrorKind::Forbidden, message).hint(refusal::ROLE)))
    }

    /// A cluster has no id; the namespace that each has, and none has twice, stands for it.
    async fn identity(&self) -> Result<Option<String>, RuntimeError> {
        let namespaces: Api<Namespace> = Api::all(self.client().await?);
        match within(ANSWER, "say which cluster it is", namespaces.get(IDENTITY)).await {
            Ok(found) => Ok(found.metadata.uid.map(|uid| format!("{uid}/{}", self.options.namespace))),
            // Most who may use one namespace may not look at this one.
            Err(error) if error.kind == ErrorKind::Forbidden => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The cluster pulls by itself, on the node on which the pod comes to be.
    async fn prepare_image(&self, _image: &str, _progress: &dyn Progress) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn create(&self, spec: &Spec) -> Result<Created, RuntimeError> {
        let pod = pod::pod(spec, self.options.expose)?;
        let pods = self.pods().await?;
        self.reserve(spec).await?;
        let doing = format!("create the pod `{}`", spec.name);
        let created = within(ANSWER, &doing, pods.create(&PostParams::default(), &pod)).await;
        let created = match created {
            Ok(created) => created,
            Err(error) => {
                // A pod that may have been created keeps what is reserved; the caller sees to both.
                if error.kind != ErrorKind::Unreachable
                    && let Some(lease) = spec.labels.get(LEASE_LABEL)
                    && let Err(second) = self.unreserve(lease).await
                {
                    return Err(refusal::left_behind(&error, &second));
                }
                return Err(error);
            }
        };
        let (client, namespace) = (self.client().await?, &self.options.namespace);
        match self.options.expose {
            Expose::NodePort => {
                if !spec.publish.is_empty() {
                    services::own(&client, namespace, &created).await;
                }
                claims::own(&client, namespace, spec, &created).await;
            }
            Expose::HostPort => claims::own(&client, namespace, spec, &created).await,
            Expose::Forward | Expose::None => {}
        }
        Ok(Created { id: pod::id(&created), warnings: Vec::new() })
    }

    async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        // Before the pod runs, for its ports may be refused at once.
        self.publish(&self.existing(id).await?).await?;
        let pod = self.await_start(id).await?;
        if let ObservedState::Exited { code: Some(128), detail: Some(detail), .. } = self.observed(&pod).state
            && detail.starts_with("StartError")
        {
            return Err(RuntimeError::new(
                ErrorKind::Command,
                format!("kubernetes cannot start it: {detail}"),
            ));
        }
        Ok(())
    }

    async fn resume(&self, id: &str) -> Result<(), RuntimeError> {
        match self.pod(id).await? {
            Some(pod) => self.publish(&pod).await,
            None => Ok(()),
        }
    }

    async fn held_ports(&self, only_here: bool) -> Result<Vec<HeldPort>, RuntimeError> {
        let connected = self.connected().await?;
        self.held.ports(&connected.client, only_here, connected.is_near).await
    }

    async fn accepts(&self, id: &str, port: u16) -> Result<Option<bool>, RuntimeError> {
        if !self.forwards.of(id).iter().any(|it| it.host == port) {
            return Ok(None);
        }
        let way = self.way(pod::name_and_uid(id).0);
        let accepts = forward::accepts(&way, port).await;
        accepts.map(Some).map_err(|error| refusal::broken_off("reach the pod", &error))
    }

    async fn starts(&self) -> Result<Option<BoxStream<'static, String>>, RuntimeError> {
        starts::starts(self.pods().await?).await
    }

    async fn inspect(&self, id: &str) -> Result<Option<Observed>, RuntimeError> {
        Ok(self.look(id).await?.map(|(_, observed)| observed))
    }

    async fn wait_for_end(&self, id: &str, limit: Duration) -> Result<Option<Observed>, RuntimeError> {
        let (deadline, mut lacked_ports) = (Instant::now() + limit, false);
        loop {
            let Some((pod, observed)) = self.look(id).await? else { return Ok(None) };
            let is_running = matches!(observed.state, ObservedState::Running { .. });
            if !is_running || Instant::now() >= deadline {
                return Ok(Some(observed));
            }
            // That it is not reached any more is not kept from whoever waits, who can see to that; but it may have ended meanwhile,
            // and so be published no more.
            let lacks_ports = self.lacks_ports(&pod).await;
            if lacks_ports && lacked_ports {
                return Ok(Some(observed));
            }
            lacked_ports = lacks_ports;
            if lacks_ports {
                sleep(PACE.0).await;
                continue;
            }
            sleep(WATCHING_PACE.min(deadline.saturating_duration_since(Instant::now()))).await;
        }
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        self.delete(id, grace).await
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.delete(id, Duration::ZERO).await
    }

    async fn withdraw(&self, lease: &str) -> Result<(), RuntimeError> {
        self.unreserve(lease).await
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        let pods = self.pods().await?;
        // Those of pods that come meanwhile are none of those that the listing tells to be gone.
        let published = self.forwards.ids();
        // Not in pages: a listing that changes meanwhile could be cut.
        let ours = ListParams::default().labels(BROKER_LABEL);
        let pods = within(ANSWER, "list the pods", pods.list(&ours)).await?;
        for id in published {
            if !pods.items.iter().any(|pod| pod::id(pod) == id) {
                self.forwards.withdraw(&id).await;
            }
        }
        self.unpublished().retain(|id| pods.items.iter().any(|pod| pod::id(pod) == *id));
        Ok(pods.items.iter().map(|pod| self.observed(pod)).collect())
    }

    async fn logs(&self, id: &str, request: &LogRequest) -> Result<LogStream, RuntimeError> {
        let pod = self.existing(id).await?;
        let parameters = LogParams {
            container: Some(pod::CONTAINER.to_owned()),
            follow: request.follow,
            tail_lines: request.tail.map(|lines| i64::try_from(lines).unwrap_or(i64::MAX)),
            ..LogParams::default()
        };
        let (pods, name) = (self.pods().await?, pod.metadata.name.as_deref().unwrap_or_default());
        let log = within(ANSWER, "read the log", pods.log_stream(name, &parameters)).await?;
        let pieces = futures_util::stream::unfold(Box::pin(log), |mut log| async {
            let mut buffer = vec![0; CHUNK];
            match log.read(&mut buffer).await {
                Ok(0) => None,
                Ok(length) => {
                    buffer.truncate(length);
                    Some((Ok(Output::Stdout(buffer.into())), log))
                }
                Err(error) => Some((Err(refusal::broken_off("read the log", &error)), log)),
            }
        });
        // Nothing can follow an error.
        let mut failed = false;
        let until_error = move |piece: &Result<Output, RuntimeError>| {
            let goes_on = !failed;
            failed |= piece.is_err();
            std::future::ready(goes_on)
        };
        Ok(pieces.take_while(until_error).boxed())
    }

    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<Attached, RuntimeError> {
        if request.command.is_empty() {
            return Err(RuntimeError::new(ErrorKind::Invalid, "there is no command to run"));
        }
        let pod = self.existing(id).await?;
        if !matches!(self.observed(&pod).state, ObservedState::Running { .. }) {
            return Err(RuntimeError::new(ErrorKind::NotRunning, format!("the pod `{id}` does not run")));
        }
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        exec::run(&self.client().await?, &self.path(name, "exec"), request).await
    }

    async fn attach(&self, id: &str, stdin: bool) -> Result<Streams, RuntimeError> {
        let pod = self.existing(id).await?;
        if !matches!(self.observed(&pod).state, ObservedState::Running { .. }) {
            return Err(RuntimeError::new(ErrorKind::NotRunning, format!("the pod `{id}` does not run")));
        }
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let console = pod::console(&pod);
        let wanted = exec::Wanted { stdin: stdin && console.stdin, terminal: console.terminal };
        exec::attach(&self.client().await?, &self.path(name, "attach"), wanted).await
    }
}
