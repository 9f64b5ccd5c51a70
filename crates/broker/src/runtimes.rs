//! The runtimes that this broker knows of.
//!
//! One that is not there when the broker starts may come later: an engine takes its time after the host has started. So what was not found
//! is looked for again, whenever it is asked for.
//!
//! Where an agent names no runtime, the first engine that answers is taken. But whoever names an endpoint (`DOCKER_HOST`, a context) means
//! that engine: where it cannot be used at all, no other one takes its place, in which nobody would look for the agent.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::RuntimeStatus;
use futures_util::future::join_all;
use runtime::container::AppleContainer;
use runtime::docker::{Docker, EngineEndpoint, endpoint};
use runtime::podman::Podman;
use runtime::process::{Processes, ShimCommand};
use runtime::{EngineInfo, ErrorKind, Runtime, RuntimeError};
use settings::{RuntimeName, Settings};
use tokio::time::timeout;

use crate::home::Home;

/// A runtime, or why there is none of that name.
#[derive(Clone)]
enum Known {
    Here(Arc<dyn Runtime>, Locality),
    /// It does not answer, for this reason, and what does may come to be elsewhere than where this looks.
    Doubtful(Arc<dyn Runtime>, Locality, io::ErrorKind),
    Unusable(Lack),
}

/// Why a runtime cannot be used.
#[derive(Clone)]
struct Lack {
    reason: String,
    hint: Option<String>,
    /// Whether something names where it is, and that cannot be used. Else it is just not here.
    is_misnamed: bool,
}

impl Known {
    fn runtime(&self) -> Option<(&Arc<dyn Runtime>, Locality)> {
        match self {
            Self::Here(runtime, locality) | Self::Doubtful(runtime, locality, _) => {
                Some((runtime, *locality))
            }
            Self::Unusable(_) => None,
        }
    }

    fn absent(reason: &str, hint: Option<&str>) -> Self {
        let (reason, hint) = (reason.to_owned(), hint.map(str::to_owned));
        Self::Unusable(Lack { reason, hint, is_misnamed: false })
    }
}

impl From<RuntimeError> for Lack {
    fn from(error: RuntimeError) -> Self {
        let is_misnamed = matches!(error.kind, ErrorKind::Invalid | ErrorKind::Unsupported);
        Self { reason: error.message, hint: error.hint, is_misnamed }
    }
}

/// What is known under a name, and how it is found out.
struct Entry {
    find: Box<dyn Fn() -> Known + Send + Sync>,
    /// With the time when it was last looked for.
    known: Mutex<(Known, Instant)>,
}

impl Entry {
    fn new(find: impl Fn() -> Known + Send + Sync + 'static) -> Self {
        let known = find();
        Self { find: Box::new(find), known: Mutex::new((known, Instant::now())) }
    }

    fn known(&self) -> Known {
        let mut entry = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, looked) = &mut *entry;
        if !matches!(known, Known::Here(..)) && looked.elapsed() >= LOOKED_AGAIN {
            let found = (self.find)();
            // What was found and does not answer is kept for as long as nothing better is there.
            if matches!(found, Known::Here(..)) || known.runtime().is_none() {
                *known = found;
            }
            *looked = Instant::now();
        }
        known.clone()
    }
}

/// Whether what a runtime publishes is published on this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Locality {
    /// On this host: its ports can be probed here.
    Local,
    /// On another one.
    Remote,
}

/// All runtimes by name.
pub(crate) struct Runtimes {
    known: BTreeMap<&'static str, Entry>,
    preferred: Option<RuntimeName>,
}

/// How long what was not found is not looked for again.
const LOOKED_AGAIN: Duration = Duration::from_secs(1);
/// How long a runtime may take to say how it is.
const ANSWER: Duration = Duration::from_secs(5);
/// The order in which a default is looked for.
const BY_DEFAULT: [RuntimeName; 3] = [RuntimeName::Docker, RuntimeName::Podman, RuntimeName::Container];

impl Runtimes {
    /// The runtimes of these settings. Nothing is asked of them yet.
    pub(crate) fn new(settings: &Settings, home: &Home, shim: ShimCommand) -> Self {
        let processes: Arc<dyn Runtime> = Arc::new(Processes::new(home.processes(), shim));
        let (of_docker, of_podman, of_kubernetes) = (settings.clone(), settings.clone(), settings.clone());
        let podman_home = home.clone();
        let known = BTreeMap::from([
            (RuntimeName::Docker, entry(move || docker(&of_docker))),
            (RuntimeName::Podman, entry(move || podman(&of_podman, &podman_home))),
            (RuntimeName::Container, entry(apple_container)),
            (RuntimeName::Kubernetes, entry(move || kubernetes(&of_kubernetes))),
            (RuntimeName::Process, entry(move || Known::Here(Arc::clone(&processes), Locality::Local))),
        ]);
        let known = known.into_iter().map(|(name, entry)| (name.as_str(), entry)).collect();
        Self { known, preferred: settings.server.broker.default_runtime }
    }

    /// One runtime alone, which is on another host as far as ports go.
    #[cfg(test)]
    pub(crate) fn only(runtime: Arc<dyn Runtime>) -> Self {
        Self {
            known: BTreeMap::from([(
                runtime.name(),
                Entry::new(move || Known::Here(Arc::clone(&runtime), Locality::Remote)),
            )]),
            preferred: None,
        }
    }

    /// The runtime of that name.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if there is none, [`ErrorKind::Unreachable`] if it cannot be used here.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<dyn Runtime>, RuntimeError> {
        match self.known.get(name).map(Entry::known) {
            Some(Known::Here(runtime, _) | Known::Doubtful(runtime, _, _)) => Ok(runtime),
            // Whatever the reason, nothing is known of what runs there.
            Some(Known::Unusable(Lack { reason, hint, .. })) => {
                Err(RuntimeError { hint, ..RuntimeError::new(ErrorKind::Unreachable, reason) })
            }
            None => {
                let names: Vec<&str> = self.known.keys().copied().collect();
                let message = format!("there is no runtime `{name}`");
                Err(RuntimeError::new(ErrorKind::Invalid, message)
                    .hint(format!("this broker has {}", names.join(", "))))
            }
        }
    }

    /// Whether the ports of that runtime are this host's.
    pub(crate) fn locality(&self, name: &str) -> Locality {
        let known = self.known.get(name).map(Entry::known);
        known.as_ref().and_then(Known::runtime).map_or(Locality::Remote, |(_, locality)| locality)
    }

    /// Whether what that runtime publishes may be reached on this host's loopback.
    pub(crate) fn may_publish_here(&self, name: &str) -> bool {
        let known = self.known.get(name).map(Entry::known);
        known
            .as_ref()
            .and_then(Known::runtime)
            .is_some_and(|(runtime, locality)| locality == Locality::Local || runtime.may_publish_here())
    }

    /// Whether that runtime is here and may have published ports for this user, who has none where they may not speak to it.
    pub(crate) fn may_publish(&self, name: &str) -> bool {
        match self.known.get(name).map(Entry::known) {
            Some(Known::Here(..)) => true,
            Some(Known::Doubtful(_, _, why)) => why != io::ErrorKind::PermissionDenied,
            Some(Known::Unusable(_)) | None => false,
        }
    }

    /// Whether something names an endpoint for that runtime that cannot be used.
    fn is_misnamed(&self, name: &str) -> bool {
        let known = self.known.get(name).map(Entry::known);
        matches!(known, Some(Known::Unusable(Lack { is_misnamed: true, .. })))
    }

    /// The names of all.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.known.keys().copied()
    }

    /// Every runtime that can be asked.
    pub(crate) fn usable(&self) -> impl Iterator<Item = Arc<dyn Runtime>> {
        self.known.values().filter_map(|entry| Some(Arc::clone(entry.known().runtime()?.0)))
    }

    /// Whether agents may get ports of this host: not if the only engine is on another one.
    pub(crate) fn publish_here(&self) -> bool {
        let locality = |name: &RuntimeName| Some(self.known.get(name.as_str())?.known().runtime()?.1);
        let engines: Vec<Locality> = BY_DEFAULT.iter().filter_map(locality).collect();
        engines.is_empty() || engines.contains(&Locality::Local)
    }

    /// How every runtime is. One that takes too long does not answer.
    pub(crate) async fn statuses(&self) -> Vec<RuntimeStatus> {
        join_all(self.known.keys().map(|name| self.status(name))).await
    }

    async fn status(&self, name: &str) -> RuntimeStatus {
        let asked = async {
            let runtime = self.get(name)?;
            let info = runtime.engine().await?;
            Ok((runtime, info))
        };
        let answer = timeout(ANSWER, asked).await.unwrap_or_else(|_elapsed| {
            let message = format!("no answer after {} s", ANSWER.as_secs());
            Err(RuntimeError::new(ErrorKind::Unreachable, message))
        });
        let (misnamed, name) = (self.is_misnamed(name), name.to_owned());
        match answer {
            Ok((runtime, EngineInfo { version, endpoint })) => {
                // That it does not say what its user may do is no reason to call it out of reach.
                let lacks = timeout(ANSWER, runtime.lacks()).await.unwrap_or(Ok(None)).unwrap_or_default();
                RuntimeStatus {
                    name,
                    reachable: true,
                    version: Some(version),
                    endpoint: Some(endpoint),
                    detail: lacks.as_ref().map(ToString::to_string),
                    hint: lacks.and_then(|lacks| lacks.hint),
                    misnamed,
                    warning: None,
                }
            }
            Err(error) => RuntimeStatus {
                name,
                reachable: false,
                version: None,
                endpoint: None,
                detail: Some(error.message),
                hint: error.hint,
                misnamed,
                warning: None,
            },
        }
    }

    /// The runtime that an agent gets which names none, where the runtimes are so; none if it would get none.
    pub(crate) fn default_of(&self, statuses: &[RuntimeStatus]) -> Option<String> {
        let candidates = self.preferred.as_ref().map_or(&BY_DEFAULT[..], std::slice::from_ref);
        let status = |name: &RuntimeName| statuses.iter().find(|status| status.name == name.as_str());
        let decides = |status: &&RuntimeStatus| status.reachable || status.misnamed;
        let decisive = candidates.iter().filter_map(status).find(decides)?;
        decisive.reachable.then(|| decisive.name.clone())
    }

    /// The runtime that the settings name for such an agent.
    pub(crate) fn preferred(&self) -> Option<String> {
        self.preferred.map(|name| name.as_str().to_owned())
    }

    /// The runtime for an agent that names none: the one of the settings, else the first container engine that answers.
    ///
    /// # Errors
    /// If none answers, or if an endpoint is named for one that cannot be used: no later one takes its place.
    pub(crate) async fn default(&self) -> Result<Arc<dyn Runtime>, RuntimeError> {
        if let Some(preferred) = self.preferred {
            return self.get(preferred.as_str());
        }
        let mut reasons = Vec::new();
        for name in BY_DEFAULT {
            match self.get(name.as_str()) {
                Ok(runtime) => match runtime.engine().await {
                    Ok(_) => return Ok(runtime),
                    Err(error) => reasons.push(format!("{name}: {error}")),
                },
                Err(error) if self.is_misnamed(name.as_str()) => return Err(not_in_its_place(name, error)),
                Err(error) => reasons.push(format!("{name}: {error}")),
            }
        }
        let message = format!("no container engine answers ({})", reasons.join("; "));
        Err(RuntimeError::new(ErrorKind::Unreachable, message).hint(
            "start Docker, name another engine in the settings, or run the agent as a plain process with `--runtime process`",
        ))
    }
}

/// That an engine is named and cannot be used, and what to do.
fn not_in_its_place(name: RuntimeName, error: RuntimeError) -> RuntimeError {
    let message =
        format!("{name} is named and cannot be used, so no other engine is taken by default: {error}");
    let choose = "choose another engine with `--runtime` or `server.broker.default_runtime`";
    let hint = match error.hint {
        Some(hint) => format!("{hint}; or {choose}"),
        None => choose.to_owned(),
    };
    RuntimeError { hint: Some(hint), message, ..error }
}

/// An entry of what `find` finds.
fn entry(find: impl Fn() -> Known + Send + Sync + 'static) -> Entry {
    #[cfg(feature = "faults")]
    let find = move || {
        let faulty = |runtime| -> Arc<dyn Runtime> { Arc::new(crate::faults::Faulty(runtime)) };
        match find() {
            Known::Here(runtime, locality) => Known::Here(faulty(runtime), locality),
            Known::Doubtful(runtime, locality, why) => Known::Doubtful(faulty(runtime), locality, why),
            unusable @ Known::Unusable(_) => unusable,
        }
    };
    Entry::new(find)
}

fn docker(settings: &Settings) -> Known {
    let variable = |name: &str| env::var(name).ok();
    let home = env::var_os("HOME").map(PathBuf::from);
    let host = settings.runtimes.docker.host.as_deref();
    let connected = endpoint::find(host, &variable, home.as_deref()).and_then(|candidates| {
        // A socket that nobody listens on any more must not hide one that answers.
        let connect = |endpoint: &EngineEndpoint| match endpoint.to_string().strip_prefix("unix://") {
            Some(path) => std::os::unix::net::UnixStream::connect(path).map(drop),
            None => Ok(()),
        };
        let mut failures = Vec::new();
        let answering = candidates.iter().find(|endpoint| match connect(endpoint) {
            Ok(()) => true,
            Err(error) => {
                failures.push(error.kind());
                false
            }
        });
        let endpoint = answering.or_else(|| candidates.first()).ok_or_else(|| {
            RuntimeError::new(ErrorKind::Unreachable, "no Docker socket was found")
                .hint("install or start Docker, or set `runtimes.docker.host` in the settings")
        })?;
        let denied = failures.iter().find(|why| **why == io::ErrorKind::PermissionDenied);
        let why = answering.is_none().then(|| denied.or(failures.first()).copied()).flatten();
        Ok((Docker::connect(RuntimeName::Docker.as_str(), endpoint)?, why))
    });
    match connected {
        Ok((docker, why)) => {
            let locality = if docker.is_local() { Locality::Local } else { Locality::Remote };
            let docker: Arc<dyn Runtime> = Arc::new(docker);
            match why {
                None => Known::Here(docker, locality),
                Some(why) => Known::Doubtful(docker, locality, why),
            }
        }
        Err(error) => Known::Unusable(error.into()),
    }
}

fn podman(settings: &Settings, home: &Home) -> Known {
    let variable = |name: &str| env::var(name).ok();
    match Podman::find(settings.runtimes.podman.host.as_deref(), &variable, &home.podman_socket()) {
        Ok(Some(podman)) => {
            let locality = if podman.is_local() { Locality::Local } else { Locality::Remote };
            Known::Here(Arc::new(podman), locality)
        }
        Ok(None) => Known::absent(
            "podman is not here: no service listens, and there is no `podman` command",
            Some("install Podman, or set `runtimes.podman.host` in the settings"),
        ),
        Err(error) => Known::Unusable(error.into()),
    }
}

fn apple_container() -> Known {
    let variable = |name: &str| env::var(name).ok();
    match AppleContainer::find(&variable) {
        Some(container) => Known::Here(Arc::new(container), Locality::Local),
        None => Known::absent(
            "Apple's container is not here: there is no `container` command",
            Some("it needs macOS 26 on Apple silicon: https://github.com/apple/container"),
        ),
    }
}

#[cfg(feature = "kubernetes")]
fn kubernetes(settings: &Settings) -> Known {
    use runtime::kubernetes::{Expose, Kubernetes, KubernetesOptions};
    use settings::Expose as Wanted;

    let variable = |name: &str| env::var(name).ok();
    let wanted = &settings.runtimes.kubernetes;
    let options = KubernetesOptions {
        context: wanted.context.clone(),
        namespace: wanted.namespace.clone(),
        expose: match wanted.expose {
            Wanted::Forward => Expose::Forward,
            Wanted::HostPort => Expose::HostPort,
            Wanted::NodePort => Expose::NodePort,
            Wanted::None => Expose::None,
        },
        start_timeout: wanted.start_timeout,
    };
    match Kubernetes::find(options, &variable) {
        Some(kubernetes) => {
            let locality = if kubernetes.is_local() { Locality::Local } else { Locality::Remote };
            Known::Here(Arc::new(kubernetes), locality)
        }
        None => Known::absent(
            "no cluster is known: there is no kubeconfig",
            Some("set KUBECONFIG, or make ~/.kube/config"),
        ),
    }
}

#[cfg(not(feature = "kubernetes"))]
fn kubernetes(_settings: &Settings) -> Known {
    Known::absent("this `berthold` was built without Kubernetes", None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An engine may start after the broker, and elsewhere than where a dead one's socket is.
    #[test]
    fn what_was_not_there_is_looked_for_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let [dead, live] = [path("dead"), path("live")];
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        let sockets = [dead.clone(), live.clone()];
        let begin = Instant::now();
        let entry = Entry::new(move || {
            let mut settings = Settings::default();
            let listens = |path: &&String| std::os::unix::net::UnixStream::connect(path).is_ok();
            settings.runtimes.docker.host =
                sockets.iter().find(listens).or(sockets.first()).map(|path| format!("unix://{path}"));
            docker(&settings)
        });
        let _engine = std::os::unix::net::UnixListener::bind(&live).unwrap();
        let known = entry.known();
        if begin.elapsed() < LOOKED_AGAIN {
            assert!(matches!(known, Known::Doubtful(..)), "it was looked for a moment ago");
        }
        std::thread::sleep(LOOKED_AGAIN);
        assert!(matches!(entry.known(), Known::Here(..)));
        drop(_engine);
        std::thread::sleep(LOOKED_AGAIN);
        assert!(matches!(entry.known(), Known::Here(..)), "one that answered once is the one");
    }

    #[test]
    fn a_podman_on_another_host_is_not_of_this_one() {
        let home = Home::at(std::path::Path::new("/nowhere"));
        let locality = |host: &str| {
            let mut settings = Settings::default();
            settings.runtimes.podman.host = Some(host.to_owned());
            match podman(&settings, &home) {
                Known::Here(_, locality) | Known::Doubtful(_, locality, _) => locality,
                Known::Unusable(lack) => panic!("{}", lack.reason),
            }
        };
        assert_eq!(locality("unix:///run/podman/podman.sock"), Locality::Local);
        assert_eq!(locality("tcp://192.0.2.7:8080"), Locality::Remote);
    }

    /// What the settings let through, the runtimes can use, and the other way round: what they cannot keeps the broker from starting.
    #[test]
    fn settings_take_the_endpoints_that_can_be_used() {
        let takes = |text: &str| {
            let environment = vec![("BERTHOLD_RUNTIMES_DOCKER_HOST".to_owned(), text.to_owned())];
            settings::load(&settings::Sources { environment, ..settings::Sources::default() }).is_ok()
        };
        let usable = [
            "unix:///var/run/docker.sock",
            "/run/podman/podman.sock",
            "tcp://127.0.0.1:2375",
            "tcp://localhost",
            "tcp://build_1.example:2375/",
            "http://[::1]:99/",
            "http://[::1]",
        ];
        let unusable = [
            "docker.sock",
            "unix://relative",
            "unix://",
            "tcp://",
            "tcp://host:0",
            "tcp://host:x",
            "tcp://host:70000",
            "tcp://a/b",
            "tcp://me@host",
            "tcp://[::1",
            "tcp://[::1]2375",
            "tcp://[host]:1",
            "foo://x",
            "ssh://me@host",
            "https://host:2376",
            "npipe:////./pipe/docker_engine",
            "fd://",
        ];
        for (texts, is_usable) in [(&usable[..], true), (&unusable, false)] {
            for text in texts {
                assert_eq!(text.parse::<EngineEndpoint>().is_ok(), is_usable, "{text}");
                assert_eq!(takes(text), is_usable, "{text}");
            }
        }
    }

    #[tokio::test]
    async fn nothing_takes_the_place_of_what_is_named_and_cannot_be_used() {
        let directory = tempfile::tempdir().unwrap();
        let docker_at = |host: &str| {
            let mut settings = Settings::default();
            settings.runtimes.docker.host = Some(host.to_owned());
            entry(move || docker(&settings))
        };
        let answering = || {
            let shim = ShimCommand { program: env::current_exe().unwrap(), arguments: Vec::new() };
            let processes: Arc<dyn Runtime> = Arc::new(Processes::new(directory.path().into(), shim));
            entry(move || Known::Here(Arc::clone(&processes), Locality::Local))
        };
        let check = async |entries: [(&'static str, Entry); 2]| {
            let runtimes = Runtimes { known: BTreeMap::from(entries), preferred: None };
            let chosen = runtimes.default().await.map(|runtime| runtime.name());
            (chosen, runtimes.default_of(&runtimes.statuses().await))
        };
        let (chosen, told) = check([("docker", docker_at("ssh://me@build")), ("podman", answering())]).await;
        let error = chosen.unwrap_err();
        assert_eq!((error.kind.clone(), told), (ErrorKind::Unreachable, None));
        assert_eq!(
            error.message,
            "docker is named and cannot be used, so no other engine is taken by default: engines behind ssh cannot be used: \
             `ssh://me@build`"
        );
        let hint = error.hint.unwrap();
        assert!(hint.starts_with("forward the engine's socket") && hint.contains("`--runtime`"), "{hint}");
        // What answers before it is not in its place.
        let (chosen, told) = check([("docker", answering()), ("podman", docker_at("ssh://me@build"))]).await;
        assert_eq!((chosen.unwrap(), told.as_deref()), ("process", Some("docker")));
        // One that is only down may be passed over, or one that is not there at all.
        let absent = entry(|| Known::Unusable(RuntimeError::new(ErrorKind::Unreachable, "no socket").into()));
        let (chosen, told) = check([("docker", absent), ("podman", answering())]).await;
        assert_eq!((chosen.unwrap(), told.as_deref()), ("process", Some("podman")));
        let (chosen, told) = check([("docker", docker_at("/nowhere")), ("podman", answering())]).await;
        assert_eq!((chosen.unwrap(), told.as_deref()), ("process", Some("podman")));
    }
}
