//! Podman, over the Docker-compatible API of its service.
//!
//! A service that listens already (`systemctl --user enable --now podman.socket`) is used as it is. Where none does and the
//! `podman` command is there, a service is started on a socket in the broker's home when it is first needed, and ended
//! by [`Runtime::close`]. Should the broker be killed, the next one uses it and ends it as its own; else it ends by itself once no one has
//! asked it anything for a while. The containers do not depend on it.
//!
//! A service that listened and ends, as one that was started by hand does once no one asks it anything, is replaced by one of the
//! broker's own until it listens again: both are the Podman of one user, with the same containers. Nothing takes the place of a
//! service that was named, nor of another user's, which is that user's Podman: for anyone but root, `/run/podman/podman.sock`.
//! Whose a service is, the owner of its socket tells, and who listens there, that it is one of this system and leads nowhere else. Should the service and the command keep their containers in different places
//! all the same, because they read different configurations, the one that was asked first is out of reach while the other answers.
//!
//! # Limits
//!
//! - A start that fails because a port is held may leave that port bound by the service until the service ends (seen with
//!   Podman 4.3). The port is then blocked, as any that someone else holds.
//! - Who listens can be told on Linux alone. Elsewhere no service that listened is replaced, and one that a killed broker has left ends by itself.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use rustix::process::{Signal, geteuid};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::child;
use crate::docker::endpoint::named_by;
use crate::docker::{Docker, EngineEndpoint};
use crate::process::{Identity, end_of};
use crate::{
    Attached, Created, EngineInfo, ErrorKind, ExecRequest, HeldPort, LogRequest, LogStream, Observed,
    Progress, Runtime, RuntimeError, Spec, Streams,
};

const NAME: &str = "podman";
const FORWARD_A_SOCKET: &str =
    "forward its socket (`ssh -nNT -L /tmp/podman.sock:/run/podman/podman.sock HOST`) and name that";
/// For how long, in seconds, a service that no one asks goes on. One that has ended is started again when it is needed.
const IDLE: &str = "60";
/// How long a service may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a service that was seen is not looked for again.
const TRUSTED: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);
/// How long a service has to end when it is asked to.
const FAREWELL: Duration = Duration::from_secs(2);

/// Podman, on this host unless a service on another one is named.
pub struct Podman {
    place: Place,
    /// The lock is held while a service is being started, so that there is only one.
    service: Mutex<Service>,
    /// Whether none is to be started any more.
    closed: AtomicBool,
    /// When the service that listened by itself was last seen to do so.
    seen: std::sync::Mutex<Option<Instant>>,
}

enum Place {
    /// A service that was named, or that is another user's: nothing takes its place.
    There(Docker),
    /// A service of this user that listened by itself.
    Usual(Box<Usual>),
    /// None listened.
    Own(Own),
}

/// A service that listened by itself, and what is there when it no longer does.
struct Usual {
    path: PathBuf,
    docker: Docker,
    own: Own,
    /// Whether nothing but the same Podman would come in its place; it is found out while it listens.
    is_of_this_system: OnceLock<bool>,
}

/// The command, and the socket for a service of our own.
struct Own {
    program: PathBuf,
    socket: PathBuf,
    docker: Docker,
}

/// The service that was started here, and which one was asked last.
#[derive(Default)]
struct Service {
    child: Option<Child>,
    /// When one could not be started last, and why: who waited for that meanwhile need not try as long again.
    failed: Option<(Instant, String)>,
    asked: Option<EngineEndpoint>,
    /// Which Podman answers there, once it has told.
    identity: Option<String>,
}

impl Podman {
    /// Podman as the settings name it, or where its service usually listens, or as a command with which a service can be
    /// started on `own_socket`; none if it is not here. Nothing is started yet.
    ///
    /// # Errors
    /// If the settings or `CONTAINER_HOST` name an endpoint that cannot be used.
    pub fn find(
        settings_host: Option<&str>,
        environment: &dyn Fn(&str) -> Option<String>,
        own_socket: &Path,
    ) -> Result<Option<Self>, RuntimeError> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let named = match (settings_host, variable("CONTAINER_HOST")) {
            (Some(host), _) => Some(endpoint(host)?),
            (None, Some(host)) => Some(endpoint(&host).map_err(|error| named_by("CONTAINER_HOST", error))?),
            (None, None) => None,
        };
        if let Some(named) = named {
            return Ok(Some(Self::at(Place::There(Docker::connect(NAME, &named)?))));
        }
        let own = match variable("PATH").and_then(|path| child::program(NAME, &path)) {
            Some(program) => {
                let docker = Docker::connect(NAME, &EngineEndpoint::unix(own_socket))?;
                Some(Own { program, socket: own_socket.to_owned(), docker })
            }
            None => None,
        };
        let in_session =
            variable("XDG_RUNTIME_DIR").map(|directory| Path::new(&directory).join("podman/podman.sock"));
        let usual = in_session.into_iter().chain([PathBuf::from("/run/podman/podman.sock")]);
        let listens = |path: &PathBuf| std::os::unix::net::UnixStream::connect(path).is_ok();
        let Some(path) = usual.into_iter().find(listens) else {
            return Ok(own.map(|own| Self::at(Place::Own(own))));
        };
        let docker = Docker::connect(NAME, &EngineEndpoint::unix(&path))?;
        let is_ours = path.metadata().is_ok_and(|socket| socket.uid() == geteuid().as_raw());
        Ok(Some(Self::at(match own.filter(|_| is_ours) {
            Some(own) => {
                Place::Usual(Box::new(Usual { path, docker, own, is_of_this_system: OnceLock::new() }))
            }
            None => Place::There(docker),
        })))
    }

    fn at(place: Place) -> Self {
        let closed = AtomicBool::new(false);
        Self { place, service: Mutex::default(), closed, seen: std::sync::Mutex::default() }
    }

    /// Whether it runs on this machine, so that the ports that it publishes are this machine's.
    pub fn is_local(&self) -> bool {
        match &self.place {
            Place::There(docker) => docker.is_local(),
            Place::Usual(_) | Place::Own(_) => true,
        }
    }

    /// The API, behind which a service listens by now.
    async fn api(&self) -> Result<&Docker, RuntimeError> {
        let own = match &self.place {
            Place::There(docker) => return Ok(docker),
            Place::Usual(usual) => &usual.own,
            Place::Own(own) => own,
        };
        let mut service = self.service.lock().await;
        let docker = match self.listening().await {
            Some(docker) => docker,
            None => {
                service.start(own, &self.closed).await?;
                &own.docker
            }
        };
        service.check_same(docker).await?;
        Ok(docker)
    }

    /// Where a service listens now. That a named one does is taken for granted.
    async fn listening(&self) -> Option<&Docker> {
        let own = match &self.place {
            Place::There(docker) => return Some(docker),
            Place::Usual(usual) => {
                let Usual { path, docker, own, is_of_this_system } = &**usual;
                let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                if seen().is_some_and(|at| at.elapsed() < TRUSTED) {
                    return Some(docker);
                }
                if !docker.is_gone().await {
                    if is_of_this_system.get().is_none()
                        && let Some(is_of_it) = listener_is_of_this_system(path).await
                    {
                        let _is_found_out_twice = is_of_this_system.set(is_of_it);
                    }
                    *seen() = Some(Instant::now());
                    return Some(docker);
                }
                match is_of_this_system.get() {
                    Some(true) => own,
                    _ => return Some(docker),
                }
            }
            Place::Own(own) => own,
        };
        // One that was started by a broker which has gone is as good as our own.
        UnixStream::connect(&own.socket).await.is_ok().then_some(&own.docker)
    }
}

/// Whether who listens there is Podman, or systemd on its behalf, on the file system that is seen from here: not something that leads to
/// another host, such as ssh, nor a Podman outside of the container in which the broker runs. Of a socket that listens the credentials of the
/// peer are those of whoever had it listen (`unix(7)`, SO_PEERCRED). None if nobody does.
async fn listener_is_of_this_system(path: &Path) -> Option<bool> {
    let stream = UnixStream::connect(path).await.ok()?;
    let Some(pid) = stream.peer_cred().ok().and_then(|peer| peer.pid()) else { return Some(false) };
    let process = PathBuf::from(format!("/proc/{pid}"));
    let command = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    let place = |root: &Path| root.metadata().ok().map(|root| (root.dev(), root.ino()));
    let root = place(&process.join("root"));
    Some(["podman", "systemd"].contains(&command.trim()) && root.is_some() && root == place(Path::new("/")))
}

/// How a service is started that listens there.
fn arguments(socket: &Path) -> [String; 5] {
    let place = format!("unix://{}", socket.display());
    ["system".to_owned(), "service".to_owned(), "--time".to_owned(), IDLE.to_owned(), place]
}

/// The service that listens there, if it is one as is started here: nobody else's. Its pid is that of who has the socket listen (`unix(7)`,
/// SO_PEERCRED).
async fn left_service(socket: &Path) -> Option<Identity> {
    let stream = UnixStream::connect(socket).await.ok()?;
    let service = Identity::of(u32::try_from(stream.peer_cred().ok()?.pid()?).ok()?).ok()??;
    let command = std::fs::read(format!("/proc/{}/cmdline", service.pid())).ok()?;
    let words: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let expected = arguments(socket);
    (words.get(1..=expected.len())? == expected).then_some(service)
}

/// What a text names.
fn endpoint(host: &str) -> Result<EngineEndpoint, RuntimeError> {
    host.parse().map_err(|error: RuntimeError| match error.kind {
        ErrorKind::Unsupported => error.hint(FORWARD_A_SOCKET),
        _ => error,
    })
}

impl Service {
    /// Starts a service, which listens when this returns, unless it is `closed` meanwhile.
    async fn start(&mut self, own: &Own, closed: &AtomicBool) -> Result<(), RuntimeError> {
        let unreachable = |message: &str| {
            RuntimeError::new(ErrorKind::Unreachable, message)
                .hint("see what `podman info` says, or name a service that listens in runtimes.podman.host")
        };
        // It counts from when it was tried, however many ask meanwhile.
        if let Some((_, message)) = self.failed.as_ref().filter(|(at, _)| at.elapsed() < TRUSTED) {
            return Err(unreachable(message));
        }
        let tried = self.try_start(own, closed).await;
        tried.map_err(|message| {
            let error = match closed.load(Ordering::Relaxed) {
                true => RuntimeError::new(ErrorKind::Unreachable, &message),
                false => unreachable(&message),
            };
            self.failed = Some((Instant::now(), message));
            error
        })
    }

    async fn try_start(&mut self, own: &Own, closed: &AtomicBool) -> Result<(), String> {
        let Own { program, socket, .. } = own;
        let check_open = || match closed.load(Ordering::Relaxed) {
            true => Err("podman's service is not started any more: the broker is ending".to_owned()),
            false => Ok(()),
        };
        check_open()?;
        // What is there is a dead service's.
        drop(std::fs::remove_file(socket));
        let mut command = Command::new(program);
        command.args(arguments(socket));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        // A group of its own, so that Ctrl-C on the broker leaves it to the broker to end it.
        command.process_group(0).kill_on_drop(true);
        let spawned = command.spawn().map_err(|error| format!("podman cannot be run: {error}"));
        let child = self.child.insert(spawned?);
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(socket).await.is_err() {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("`podman system service` has ended: {status}"));
            }
            if Instant::now() >= deadline {
                return Err(format!(
                    "`podman system service` does not listen after {} s",
                    PATIENCE.as_secs()
                ));
            }
            check_open()?;
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Sees to it that who is asked now is the Podman that was asked before.
    ///
    /// # Errors
    /// That this is another one, and the other out of reach.
    async fn check_same(&mut self, docker: &Docker) -> Result<(), RuntimeError> {
        if self.asked.as_ref() == Some(docker.endpoint()) {
            return Ok(());
        }
        if let (Some(asked), Some(known)) = (&self.asked, &self.identity) {
            let told = docker.identity().await?;
            if let Some(other) = told.filter(|told| told != known) {
                let message = format!(
                    "podman at {} is not the one that was asked before, at {asked}: it keeps its containers in {other}, not in \
                     {known}",
                    docker.endpoint()
                );
                return Err(RuntimeError::new(ErrorKind::Unreachable, message).hint(
                    "start the service again, give both the same configuration, or name the one that is meant in \
                     runtimes.podman.host",
                ));
            }
            tracing::info!(before = %asked, now = %docker.endpoint(), "podman is asked at another socket of the same user");
        }
        self.asked = Some(docker.endpoint().clone());
        Ok(())
    }
}

#[async_trait]
impl Runtime for Podman {
    fn name(&self) -> &'static str {
        NAME
    }

    fn needs_image(&self) -> bool {
        true
    }

    async fn engine(&self) -> Result<EngineInfo, RuntimeError> {
        self.api().await?.engine().await
    }

    async fn identity(&self) -> Result<Option<String>, RuntimeError> {
        let identity = self.api().await?.identity().await?;
        if identity.is_some() {
            self.service.lock().await.identity.clone_from(&identity);
        }
        Ok(identity)
    }

    async fn prepare_image(&self, image: &str, progress: &dyn Progress) -> Result<(), RuntimeError> {
        self.api().await?.prepare_image(image, progress).await
    }

    async fn create(&self, spec: &Spec) -> Result<Created, RuntimeError> {
        self.api().await?.create(spec).await
    }

    async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        self.api().await?.start(id).await
    }

    async fn close(&self) {
        let socket = match &self.place {
            Place::There(_) => return,
            Place::Usual(usual) => &usual.own.socket,
            Place::Own(own) => &own.socket,
        };
        // Whoever is about to start one has the lock.
        self.closed.store(true, Ordering::Relaxed);
        let mut service = self.service.lock().await;
        let child = service.child.take();
        let started = child.as_ref().and_then(|child| Identity::of_child(child.id()?).ok());
        // Else a broker that was killed may have left one.
        let own = match started {
            Some(started) => Some(started),
            None => left_service(socket).await,
        };
        let Some(own) = own else { return };
        for signal in [Signal::TERM, Signal::KILL] {
            // It may have ended by itself just now.
            let _was_there = own.signal(signal);
            if timeout(FAREWELL, end_of(&own)).await.is_ok() {
                // That it has removed its socket itself is fine.
                drop(std::fs::remove_file(socket));
                return;
            }
        }
        tracing::warn!("podman's service cannot be ended; it ends by itself once no one asks it anything");
    }

    async fn held_ports(&self, only_here: bool) -> Result<Vec<HeldPort>, RuntimeError> {
        if self.listening().await.is_none() {
            return Ok(Vec::new());
        }
        self.api().await?.held_ports(only_here).await
    }

    async fn starts(&self) -> Result<Option<BoxStream<'static, String>>, RuntimeError> {
        self.api().await?.starts().await
    }

    async fn inspect(&self, id: &str) -> Result<Option<Observed>, RuntimeError> {
        self.api().await?.inspect(id).await
    }

    async fn wait_for_end(&self, id: &str, limit: Duration) -> Result<Option<Observed>, RuntimeError> {
        self.api().await?.wait_for_end(id, limit).await
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        self.api().await?.stop(id, grace).await
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.api().await?.remove(id).await
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        self.api().await?.list().await
    }

    async fn logs(&self, id: &str, request: &LogRequest) -> Result<LogStream, RuntimeError> {
        self.api().await?.logs(id, request).await
    }

    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<Attached, RuntimeError> {
        self.api().await?.exec(id, request).await
    }

    async fn attach(&self, id: &str, stdin: bool) -> Result<Streams, RuntimeError> {
        self.api().await?.attach(id, stdin).await
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn only_a_service_on_this_machine_has_its_ports() {
        let is_local = |host: &str| {
            let found = Podman::find(Some(host), &|_| None, Path::new("/nowhere")).unwrap();
            found.is_some_and(|podman| podman.is_local())
        };
        assert!(is_local("unix:///run/podman/podman.sock"));
        assert!(is_local("tcp://127.0.0.1:2375"));
        assert!(!is_local("tcp://192.0.2.7:2375"));
    }

    #[test]
    fn an_endpoint_that_cannot_be_used_is_told_with_what_names_it() {
        let variable = |name: &str| (name == "CONTAINER_HOST").then(|| "ssh://me@build".to_owned());
        let Err(error) = Podman::find(None, &variable, Path::new("/nowhere")) else { panic!("it is found") };
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert_eq!(error.message, "CONTAINER_HOST: engines behind ssh cannot be used: `ssh://me@build`");
        assert!(error.hint.unwrap().contains("/tmp/podman.sock:/run/podman/podman.sock"));
    }

    /// A session's directory with a service that listens, and a `podman` command that only leaves word that it was run.
    struct Place {
        directory: tempfile::TempDir,
        /// What is taken for found out of who listens.
        is_of_this_system: bool,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let place = Self { directory, is_of_this_system: true };
            let program = place.path("commands/podman");
            std::fs::create_dir_all(program.parent().unwrap()).unwrap();
            std::fs::create_dir_all(place.usual().parent().unwrap()).unwrap();
            std::fs::write(&program, format!("#!/bin/sh\necho > {}\n", place.path("run").display())).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn usual(&self) -> PathBuf {
            self.path("session/podman/podman.sock")
        }

        fn own(&self) -> PathBuf {
            self.path("own.sock")
        }

        fn find(&self) -> Podman {
            let variable = |name: &str| match name {
                "XDG_RUNTIME_DIR" => Some(self.path("session").display().to_string()),
                "PATH" => Some(self.path("commands").display().to_string()),
                _ => None,
            };
            let podman = Podman::find(None, &variable, &self.own()).unwrap().unwrap();
            // What listens in these tests is no Podman.
            if let super::Place::Usual(usual) = &podman.place {
                usual.is_of_this_system.set(self.is_of_this_system).unwrap();
            }
            podman
        }

        fn command_was_run(&self) -> bool {
            self.path("run").exists()
        }
    }

    /// A service that says where it keeps its containers, until it is ended.
    struct Answering {
        path: PathBuf,
        task: tokio::task::JoinHandle<()>,
        /// On how many connections nothing was asked.
        silent: Arc<AtomicUsize>,
    }

    impl Answering {
        fn at(path: PathBuf, storage: &str) -> Self {
            let body = serde_json::json!({ "store": { "graphRoot": storage } }).to_string();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            let silent = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&silent);
            let task = tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    match stream.read(&mut [0; 4096]).await.unwrap_or(0) {
                        0 => drop(counted.fetch_add(1, Ordering::Relaxed)),
                        _ => stream.write_all(answer.as_bytes()).await.unwrap(),
                    }
                }
            });
            Self { path, task, silent }
        }

        async fn end(self) {
            self.task.abort();
            drop(self.task.await);
            std::fs::remove_file(self.path).unwrap();
        }
    }

    #[tokio::test]
    async fn a_service_that_listened_and_ended_is_replaced_by_one_of_ones_own_until_it_is_back() {
        let place = Place::new();
        let usual = Answering::at(place.usual(), "/store");
        let podman = place.find();
        let identity = async || podman.identity().await.unwrap().unwrap();
        let asked = async || podman.api().await.unwrap().endpoint().to_string();
        for _ in 0..3 {
            assert_eq!(identity().await, "/store");
        }
        // Podman's service warns of these in its log; one was to find it.
        assert_eq!(usual.silent.load(Ordering::Relaxed), 1);
        usual.end().await;
        sleep(TRUSTED).await;
        assert!(podman.held_ports(false).await.unwrap().is_empty());
        assert!(!place.command_was_run(), "none is started only to ask for ports");
        let error = podman.engine().await.unwrap_err();
        assert!(error.message.starts_with("`podman system service` has ended"), "{error}");
        assert!(place.command_was_run());
        // Those who ask again and again do not keep it from being tried again.
        std::fs::remove_file(place.path("run")).unwrap();
        for _ in 0..3 {
            sleep(TRUSTED / 2).await;
            drop(podman.engine().await.unwrap_err());
        }
        assert!(place.command_was_run());
        let _own = Answering::at(place.own(), "/store");
        assert_eq!(asked().await, format!("unix://{}", place.own().display()));
        assert_eq!(identity().await, "/store");
        let _back = Answering::at(place.usual(), "/store");
        assert_eq!(asked().await, format!("unix://{}", place.usual().display()));
    }

    /// Else a start would go where nobody looks for it, and what runs on the other would look gone.
    #[tokio::test]
    async fn what_keeps_its_containers_elsewhere_takes_no_one_s_place() {
        let place = Place::new();
        let usual = Answering::at(place.usual(), "/store");
        let podman = place.find();
        podman.identity().await.unwrap();
        usual.end().await;
        sleep(TRUSTED).await;
        let _own = Answering::at(place.own(), "/elsewhere");
        for _ in 0..2 {
            let error = podman.api().await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unreachable);
            assert!(error.message.ends_with("in /elsewhere, not in /store"), "{error}");
        }
        let _back = Answering::at(place.usual(), "/store");
        assert_eq!(podman.identity().await.unwrap().unwrap(), "/store");
    }

    /// P3: what leads to another host, or out of the container in which the broker runs, may keep its containers under the same path.
    #[tokio::test]
    async fn nothing_takes_the_place_of_what_leads_elsewhere() {
        let place = Place { is_of_this_system: false, ..Place::new() };
        let theirs = Answering::at(place.usual(), "/store");
        assert_eq!(
            listener_is_of_this_system(&place.usual()).await,
            Some(false),
            "this process is no Podman"
        );
        let podman = place.find();
        podman.identity().await.unwrap();
        theirs.end().await;
        sleep(TRUSTED).await;
        let _own = Answering::at(place.own(), "/store");
        let error = podman.engine().await.unwrap_err();
        assert!(error.message.contains("session/podman/podman.sock"), "{error}");
        assert!(!place.command_was_run());
    }

    #[tokio::test]
    async fn nothing_takes_the_place_of_another_user_s_podman() {
        if !geteuid().is_root() {
            return;
        }
        let place = Place::new();
        let theirs = Answering::at(place.usual(), "/store");
        std::os::unix::fs::chown(place.usual(), Some(65534), None).unwrap();
        let podman = place.find();
        theirs.end().await;
        let _own = Answering::at(place.own(), "/store");
        let error = podman.engine().await.unwrap_err();
        assert!(error.message.contains("session/podman/podman.sock"), "{error}");
        assert!(!place.command_was_run());
    }
}
