//! Podman, over the Docker-compatible API of its service.
//!
//! A service that listens already (`systemctl --user enable --now podman.socket`) is used as it is. Where none does and the
//! `podman` command is there, a service is started on a socket in the broker's home when it is first needed, and ended
//! by [`Runtime::close`]. Should the broker be killed, the service ends by itself once no one has asked it anything for a while,
//! and until then the next broker uses it. The containers do not depend on it.
//!
//! # Limits
//!
//! - A start that fails because a port is held may leave that port bound by the service until the service ends (seen with
//!   Podman 4.3). The port is then blocked, as any that someone else holds.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::child;
use crate::docker::{Docker, EngineEndpoint};
use crate::{
    Attached, Created, EngineInfo, ErrorKind, ExecRequest, HeldPort, LogRequest, LogStream, Observed,
    Progress, Runtime, RuntimeError, Spec, Streams,
};

const NAME: &str = "podman";
/// For how long, in seconds, a service that no one asks goes on. One that has ended is started again when it is needed.
const IDLE: &str = "60";
/// How long a service may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// How long a service has to end when it is asked to.
const FAREWELL: Duration = Duration::from_secs(2);

/// Podman, on this host unless a service on another one is named.
pub struct Podman {
    place: Place,
    /// The lock is held while a service is being started, so that there is only one.
    service: Mutex<Service>,
}

/// The service that was started here.
#[derive(Default)]
struct Service {
    child: Option<Child>,
    /// Whether no more is to be started.
    closed: bool,
}

enum Place {
    /// A service that listens already, or was named.
    Listening(Docker),
    /// The command, and the socket for a service of our own.
    Own { program: PathBuf, socket: PathBuf, docker: Docker },
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
        if let Some(host) = settings_host.map(str::to_owned).or_else(|| variable("CONTAINER_HOST")) {
            return Ok(Some(Self::at(Place::Listening(Docker::connect(NAME, &host.parse()?)?))));
        }
        let own =
            variable("XDG_RUNTIME_DIR").map(|directory| Path::new(&directory).join("podman/podman.sock"));
        let usual = own.into_iter().chain([PathBuf::from("/run/podman/podman.sock")]);
        let listens = |path: &PathBuf| std::os::unix::net::UnixStream::connect(path).is_ok();
        if let Some(path) = usual.into_iter().find(listens) {
            return Ok(Some(Self::at(Place::Listening(Docker::connect(NAME, &EngineEndpoint::unix(path))?))));
        }
        let Some(program) = variable("PATH").and_then(|path| child::program(NAME, &path)) else {
            return Ok(None);
        };
        let docker = Docker::connect(NAME, &EngineEndpoint::unix(own_socket))?;
        Ok(Some(Self::at(Place::Own { program, socket: own_socket.to_owned(), docker })))
    }

    fn at(place: Place) -> Self {
        Self { place, service: Mutex::new(Service::default()) }
    }

    /// Whether it runs on this machine, so that the ports that it publishes are this machine's.
    pub fn is_local(&self) -> bool {
        match &self.place {
            Place::Listening(docker) => docker.is_local(),
            Place::Own { .. } => true,
        }
    }

    /// The API, behind which a service listens by now.
    async fn api(&self) -> Result<&Docker, RuntimeError> {
        let (program, socket, docker) = match &self.place {
            Place::Listening(docker) => return Ok(docker),
            Place::Own { program, socket, docker } => (program, socket, docker),
        };
        let mut service = self.service.lock().await;
        // One that was started by a broker which has gone is as good as our own.
        if UnixStream::connect(socket).await.is_ok() {
            return Ok(docker);
        }
        let failed = |message: String| {
            RuntimeError::new(ErrorKind::Unreachable, message)
                .hint("see what `podman info` says, or name a service that listens in runtimes.podman.host")
        };
        if service.closed {
            let message = "podman's service is not started any more: the broker is ending";
            return Err(RuntimeError::new(ErrorKind::Unreachable, message));
        }
        // What is there is a dead service's.
        drop(std::fs::remove_file(socket));
        let mut command = Command::new(program);
        command.args(["system", "service", "--time", IDLE]).arg(format!("unix://{}", socket.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        // A group of its own, so that Ctrl-C on the broker leaves it to the broker to end it.
        command.process_group(0).kill_on_drop(true);
        let spawned = command.spawn();
        let child =
            service.child.insert(spawned.map_err(|error| failed(format!("podman cannot be run: {error}")))?);
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(socket).await.is_err() {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(failed(format!("`podman system service` has ended: {status}")));
            }
            if Instant::now() >= deadline {
                return Err(failed(format!(
                    "`podman system service` does not listen after {} s",
                    PATIENCE.as_secs()
                )));
            }
            sleep(PAUSE).await;
        }
        Ok(docker)
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
        self.api().await?.identity().await
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
        let Place::Own { socket, .. } = &self.place else { return };
        let mut service = self.service.lock().await;
        service.closed = true;
        let Some(mut child) = service.child.take() else { return };
        if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            // It may have ended by itself just now.
            let _is_there = kill_process(pid, Signal::TERM);
        }
        if timeout(FAREWELL, child.wait()).await.is_err()
            && let Err(error) = child.kill().await
        {
            tracing::warn!(%error, "podman's service cannot be ended; it ends by itself once no one asks it anything");
        }
        // That it has removed its socket itself is fine.
        drop(std::fs::remove_file(socket));
    }

    /// A service is not started for that: what Podman publishes has a socket.
    async fn held_ports(&self, only_here: bool) -> Result<Vec<HeldPort>, RuntimeError> {
        if let Place::Own { socket, .. } = &self.place
            && UnixStream::connect(socket).await.is_err()
        {
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
}
