//! One attempt to bring up an agent on its runtime, and the removal of what a failed one left.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use pool::{AgentKey, Port};
use runtime::{
    Console, ErrorKind, LogRequest, Network, Observed, ObservedState, Output, Progress, Publish, Runtime,
    RuntimeError, Spec,
};
use tokio::time::Instant;

use crate::core::Core;
use crate::error::{OperationError, shown};
use crate::labels;
use crate::lifecycle::{not_known_yet, runtime_error};
use crate::model::{AgentRecord, AgentSpec, join_ports};
use crate::runtimes::Locality;
use crate::spec;
use crate::view::{self, HOST_NETWORK};
use crate::warnings::About;

/// How long an agent is watched after its start for ending at once.
const SETTLE: Duration = Duration::from_millis(15);
/// How many lines of its log are shown when it did.
const LOG_LINES: usize = 20;

/// An attempt that did not succeed.
pub(crate) struct Failure {
    pub(crate) error: OperationError,
    /// Whether the runtime may have created something.
    pub(crate) touched: bool,
    /// Whether the runtime did not say what became of the creation, which may so come about later.
    unanswered: bool,
    /// Set if the engine refused a port; with its number if it was named.
    pub(crate) refused: Option<Option<u16>>,
}

impl Failure {
    fn untouched(error: OperationError) -> Self {
        Self { error, touched: false, unanswered: false, refused: None }
    }
}

impl Core {
    /// Creates and starts the agent, and looks whether it really runs with its ports published.
    pub(crate) async fn attempt(
        &self,
        runtime: &Arc<dyn Runtime>,
        record: &mut AgentRecord,
        leftover: Option<&(Arc<dyn Runtime>, String)>,
    ) -> Result<Observed, Failure> {
        let spec = record.spec.clone().ok_or_else(|| {
            Failure::untouched(OperationError::Lost(format!("{} has nothing to run", record.key)))
        })?;
        if let Some((runtime, id)) = leftover {
            let failed = |source| Failure::untouched(runtime_error(record, source));
            self.remove_known(runtime, &record.key, id).await.map_err(failed)?;
        }
        record.container = None;
        let wanted = self.runtime_spec(runtime.as_ref(), record, &spec).map_err(Failure::untouched)?;
        // Most often the image is there and the name is free, so neither is asked about beforehand.
        let mut created = runtime.create(&wanted).await;
        if created.as_ref().is_err_and(|error| error.kind == ErrorKind::Image) {
            self.prepare_image(runtime, &record.key, &spec).await.map_err(Failure::untouched)?;
            created = runtime.create(&wanted).await;
        }
        if created.as_ref().is_err_and(|error| error.kind == ErrorKind::NameTaken) {
            self.clear_name(runtime, record).await.map_err(Failure::untouched)?;
            created = runtime.create(&wanted).await;
        }
        let created = created.map_err(|error| {
            let touched = !refuses_all(&error.kind);
            let unanswered = error.kind == ErrorKind::Unreachable;
            Failure { touched, unanswered, ..failure(record, error) }
        })?;
        record.container = Some(created.id.clone());
        record.warnings.extend(created.warnings);
        let has_none = wanted.publish.is_empty() && !record.ports().is_empty();
        if has_none && runtime.needs_image() && wanted.network != Network::Host {
            let why = if runtime.publishes() {
                "its network is one from which nothing is published"
            } else {
                "`expose: none` publishes nothing"
            };
            record.warnings.push(format!("its ports cannot be reached from here: {why}"));
        }
        runtime.start(&created.id).await.map_err(|error| failure(record, error))?;
        let observed = runtime.wait_for_end(&created.id, SETTLE).await;
        let observed = observed.map_err(|error| failure(record, error))?;
        let checked = self.check_start(runtime, record, &wanted, observed).await;
        let observed = checked.map_err(|error| Failure { touched: true, ..Failure::untouched(error) })?;
        if let ObservedState::Exited { code: None, .. } = observed.state {
            record
                .warnings
                .push(format!("it has ended already; {} does not tell with which code", runtime.name()));
        }
        Ok(observed)
    }

    /// Sees to it that the image is there, telling the listeners how far that is.
    pub(crate) async fn prepare_image(
        &self,
        runtime: &Arc<dyn Runtime>,
        key: &AgentKey,
        spec: &AgentSpec,
    ) -> Result<(), OperationError> {
        let Some(image) = &spec.image else { return Ok(()) };
        let failed =
            |source| OperationError::Runtime { key: key.clone(), runtime: runtime.name().to_owned(), source };
        runtime.prepare_image(image, &Told { core: self, key }).await.map_err(failed)
    }

    /// Tells the listeners what an operation on the agent is about.
    pub(crate) fn tell_progress(&self, key: &AgentKey, message: &str) {
        Told { core: self, key }.report(message, None, None);
    }

    /// Removes whatever a failed attempt left; when this returns without an error, nothing of it is there.
    pub(crate) async fn clean_up(
        &self,
        runtime: &Arc<dyn Runtime>,
        record: &AgentRecord,
        failure: &Failure,
    ) -> Result<(), OperationError> {
        if !failure.touched {
            return Ok(());
        }
        if failure.unanswered
            && let Some(lease) = &record.lease
        {
            self.state().late.insert(lease.id.clone(), Instant::now() + runtime.may_come_late());
        }
        let found = self.look(runtime, record).await?;
        if found.is_none() && failure.unanswered {
            return Err(not_known_yet(record));
        }
        let id = found.map(|observed| observed.id).or_else(|| record.container.clone());
        if let Some(id) = id {
            let removed = self.remove_known(runtime, &record.key, &id).await;
            removed.map_err(|source| runtime_error(record, source))?;
        }
        self.withdraw(runtime, record).await
    }

    /// Where the ports of a running agent are published, as its listing says it. That some of them are not is told.
    pub(crate) fn published(&self, record: &AgentRecord, observed: &Observed) -> Option<String> {
        let lacking = lacking(record, observed);
        let (about, address) = (About::Unpublished(record.key.clone()), address(record, observed));
        if address.is_some() || lacking.len() == record.ports().len() {
            self.take_back(|it| *it == about);
        } else {
            // It was not started so: someone has made it anew.
            let text = format!("{} runs without its ports {} published", record.key, join_ports(&lacking));
            self.warn(about, &text);
        }
        address
    }

    /// What the runtime is to run for this agent, with the lease that it has.
    pub(crate) fn runtime_spec(
        &self,
        runtime: &dyn Runtime,
        record: &AgentRecord,
        spec: &AgentSpec,
    ) -> Result<Spec, OperationError> {
        let (ports, pool) = (record.ports(), self.settings.server.broker.port_pool.as_ref());
        let address = pool.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |pool| pool.bind_address);
        let mut env = view::environment(record, &self.settings);
        env.extend(spec.env.clone());
        let lease = record.lease.as_ref();
        let network = Network::parse(&spec.network);
        let publish = |port: &Port| Publish { address, host: port.get(), container: port.get() };
        Ok(Spec {
            name: record.key.runtime_name(),
            image: spec.image.clone(),
            command: spec.command.clone(),
            env,
            labels: lease.map(|lease| labels::write(&self.id, &record.key, lease)).unwrap_or_default(),
            volumes: spec::mounts(spec, runtime.needs_image())?,
            workdir: spec.workspace.clone(),
            console: Console { stdin: spec.interactive, terminal: spec.terminal },
            publish: if network.publishes() && runtime.publishes() {
                ports.iter().map(publish).collect()
            } else {
                Vec::new()
            },
            binds: match network {
                Network::Host => ports.iter().map(|port| port.get()).collect(),
                _ => Vec::new(),
            },
            network,
        })
    }

    /// Makes way where the name is taken by what an earlier start of this agent left; anything else is a conflict.
    async fn clear_name(
        &self,
        runtime: &Arc<dyn Runtime>,
        record: &AgentRecord,
    ) -> Result<(), OperationError> {
        let name = record.key.runtime_name();
        let failed = |source| runtime_error(record, source);
        let Some(observed) = runtime.inspect(&name).await.map_err(failed)? else { return Ok(()) };
        let is_running = matches!(observed.state, ObservedState::Running { .. });
        let conflict = |what: &str, hint: String| {
            let mut details = serde_json::Map::new();
            details.insert("agent".to_owned(), record.key.to_string().into());
            details.insert("id".to_owned(), observed.id.clone().into());
            let message = format!("{} has {what} called {name} already", runtime.name());
            OperationError::Conflict { message, hint, details }
        };
        match labels::read(&self.id, &observed) {
            Some(tag) if tag.key == record.key && !is_running => {
                runtime.remove(&observed.id).await.map_err(|source| runtime_error(record, source))
            }
            Some(tag) if tag.key == record.key => Err(conflict(
                "a running agent of this broker, with a lease that is not in the ledger,",
                "`berthold broker status` tells of the conflict; end it by hand if it is not needed"
                    .to_owned(),
            )),
            _ if observed.labels.contains_key(labels::BROKER) => Err(conflict(
                "an agent of another broker",
                format!("choose another name or project than {}", shown(&record.key)),
            )),
            _ => Err(conflict(
                "something that Berthold did not start",
                format!("choose another name, or remove it by hand: it is {}", observed.id),
            )),
        }
    }

    /// Whether it runs as it should: P9, and "an agent that has already ended with a code other than 0 is a failed start".
    async fn check_start(
        &self,
        runtime: &Arc<dyn Runtime>,
        record: &AgentRecord,
        wanted: &Spec,
        observed: Option<Observed>,
    ) -> Result<Observed, OperationError> {
        let start_failed = |reason: String, log, exit_code| OperationError::StartFailed {
            key: record.key.clone(),
            reason,
            hint: None,
            log,
            exit_code,
        };
        let Some(observed) = observed else {
            return Err(start_failed(
                "it was removed while it was being started".to_owned(),
                Vec::new(),
                None,
            ));
        };
        match &observed.state {
            ObservedState::Exited { code: Some(0), .. } => Ok(observed),
            ObservedState::Exited { code: None, .. } if !runtime.tells_exit_codes() => Ok(observed),
            ObservedState::Exited { code, detail, .. } => {
                let log = last_lines(runtime, &observed.id).await;
                let code_text =
                    code.map_or_else(|| "an unknown code".to_owned(), |code| format!("code {code}"));
                let detail = detail.as_deref().filter(|text| !text.is_empty());
                let detail = detail.map_or_else(String::new, |text| format!(" ({text})"));
                Err(start_failed(format!("it ended at once with {code_text}{detail}"), log, *code))
            }
            ObservedState::Created => {
                Err(start_failed(format!("{} has not started it", runtime.name()), Vec::new(), None))
            }
            ObservedState::Running { .. } => {
                // On which of its addresses another host publishes is not ours to choose.
                let is_local = self.runtimes.locality(runtime.name()) == Locality::Local;
                let is_there = |wanted: &Publish| {
                    let is_it = |it: &Publish| it == wanted || !is_local && it.host == wanted.host;
                    observed.published.iter().any(is_it)
                };
                let missing = wanted.publish.iter().find(|wanted| !is_there(wanted));
                match missing {
                    None => Ok(observed),
                    Some(publish) => {
                        let name = runtime.name();
                        let reason =
                            format!("{name} says that it runs, but has not published port {}", publish.host);
                        Err(start_failed(reason, Vec::new(), None))
                    }
                }
            }
        }
    }
}

/// Where all ports of a running agent are published: where one leads nowhere, none is said to be reached.
pub(crate) fn address(record: &AgentRecord, observed: &Observed) -> Option<String> {
    if record.ports().is_empty() || !matches!(observed.state, ObservedState::Running { .. }) {
        return None;
    }
    let network = record.spec.as_ref().map(|spec| Network::parse(&spec.network)).unwrap_or_default();
    if network == Network::Host || record.runtime == settings::RuntimeName::Process.as_str() {
        return Some(HOST_NETWORK.to_owned());
    }
    let first = record.ports().first().filter(|_| lacking(record, observed).is_empty())?;
    observed.published.iter().find(|it| it.host == first.get()).map(|it| it.address.to_string())
}

/// The ports of an agent's lease that are not published.
fn lacking(record: &AgentRecord, observed: &Observed) -> Vec<Port> {
    let is_there = |port: &Port| observed.published.iter().any(|it| it.host == port.get());
    record.ports().iter().copied().filter(|port| !is_there(port)).collect()
}

/// Whether a creation that was refused so has certainly created nothing.
fn refuses_all(kind: &ErrorKind) -> bool {
    use ErrorKind::{Forbidden, Image, Invalid, NameTaken, Unsupported};
    matches!(kind, Forbidden | Image | Invalid | NameTaken | Unsupported)
}

fn failure(record: &AgentRecord, error: RuntimeError) -> Failure {
    let refused = match error.kind {
        ErrorKind::PortRefused { port } => Some(port),
        _ => None,
    };
    let error = match error.kind {
        ErrorKind::Command => OperationError::StartFailed {
            key: record.key.clone(),
            reason: error.message,
            hint: error.hint,
            log: Vec::new(),
            exit_code: None,
        },
        _ => runtime_error(record, error),
    };
    Failure { touched: true, refused, ..Failure::untouched(error) }
}

/// The last lines that it wrote; that they cannot be had is no error of its own here.
async fn last_lines(runtime: &Arc<dyn Runtime>, id: &str) -> Vec<String> {
    let request = LogRequest { tail: Some(LOG_LINES), follow: false };
    let Ok(mut stream) = runtime.logs(id, &request).await else { return Vec::new() };
    let mut written = Vec::new();
    while let Some(Ok(Output::Stdout(bytes) | Output::Stderr(bytes))) = stream.next().await {
        written.extend_from_slice(&bytes);
    }
    String::from_utf8_lossy(&written).lines().map(str::to_owned).collect()
}

/// Tells the listeners of the events how far a pull is.
struct Told<'a> {
    core: &'a Core,
    key: &'a AgentKey,
}

impl Progress for Told<'_> {
    fn report(&self, message: &str, current: Option<u64>, total: Option<u64>) {
        self.core.tell(api::Event::Progress {
            project: self.key.project.to_string(),
            name: self.key.name.to_string(),
            message: message.to_owned(),
            current,
            total,
        });
    }
}
