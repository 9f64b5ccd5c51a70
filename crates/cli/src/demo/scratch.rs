//! The scratch home of the demo with its broker, and the way to be rid of both.
//!
//! The broker is a process of its own: this program as `serve`, in a session of its own, so that Ctrl-C reaches only the demo, which
//! then ends everything in order: the agents, the broker, the image, the home. Only a broker can end agents of whatever runtime.
//! So one that has died meanwhile is started once more, and if agents still could not be ended, broker and home stay.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api::{Agent, Client, Code, Endpoint, StartRequest, StopRequest};
use broker::Home;
use pool::PortRange;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::sleep;

use super::image::DemoImage;
use super::ports::{Claim, SIZE};
use super::{AGENTS, PORTS_PER_AGENT};
use crate::error::CliError;
use crate::view;

/// How long the broker may take to come and to go.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it then has before it is ended by force.
const GRACE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);
/// How long an agent has to end by itself. The demo's own does so at once.
const STOP_TIMEOUT: &str = "2s";
/// The demo does not use Podman, and a broker for which none is named may start a service of Podman's.
const NO_PODMAN: &str = "unix:///nonexistent/podman.sock";
const LOG_LINES: usize = 15;

/// A home that goes with this value, and what runs in it.
pub(super) struct Scratch {
    directory: Option<TempDir>,
    home: Home,
    ports: Claim,
    client: Client,
    broker: Option<Child>,
    /// Whether an agent may be there.
    has_agents: bool,
    image: Option<DemoImage>,
}

impl Scratch {
    /// A home in which nothing runs yet, with a pool that has no port of `other`.
    pub(super) fn new(other: Option<PortRange>) -> Result<Self, CliError> {
        let ports = Claim::find(other).ok_or_else(|| {
            CliError::failed(Code::Conflict, format!("there are no {SIZE} free ports in a row on this host"))
        })?;
        let directory = tempfile::Builder::new().prefix("berthold-demo-").tempdir();
        let directory = directory.map_err(|source| CliError::io("no scratch home can be made", source))?;
        let home = Home::at(directory.path());
        let client = Client::new(Endpoint::Unix(home.socket().to_owned()), None);
        let directory = Some(directory);
        Ok(Self { directory, home, ports, client, broker: None, has_agents: false, image: None })
    }

    /// The directory of the home.
    pub(super) fn home(&self) -> &Path {
        self.home.state()
    }

    /// The range of the pool.
    pub(super) fn range(&self) -> PortRange {
        self.ports.range()
    }

    /// The project of the agents. Containers are called after it, and no other demo of this host has it at the same time.
    pub(super) fn project(&self) -> String {
        format!("demo-{}", self.range().low())
    }

    /// The way to the broker.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Removes `image` at the end.
    pub(super) fn hold(&mut self, image: DemoImage) -> &mut DemoImage {
        self.image.insert(image)
    }

    /// Writes the settings of the broker, which finds Docker at `engine`, or where Docker's own command would.
    pub(super) fn write_settings(&self, engine: Option<&str>) -> Result<(), CliError> {
        let text = settings(self.range(), engine);
        let path = self.home().join("settings.yaml");
        fs::write(&path, text)
            .map_err(|source| CliError::io(format!("{} cannot be written", path.display()), source))
    }

    /// Starts the broker and waits until it answers.
    pub(super) async fn start_broker(&mut self) -> Result<(), CliError> {
        let failed = |source| CliError::io("the demo's broker cannot be started", source);
        let log = File::options().append(true).create(true).open(self.home.log()).map_err(failed)?;
        let mut command = Command::new(env::current_exe().map_err(failed)?);
        for (name, _) in env::vars_os() {
            // What is set for another broker is not meant for this one. The log can do no harm.
            if name.to_string_lossy().starts_with("BERTHOLD_") && name != "BERTHOLD_LOG" {
                command.env_remove(name);
            }
        }
        command.args(["serve", "--background"]).env("BERTHOLD_HOME", self.home()).current_dir(self.home());
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        let broker = self.broker.insert(command.spawn().map_err(failed)?);
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.client.ready().await {
            if let Some(status) = broker.try_wait().map_err(failed)? {
                return Err(CliError::failed(Code::Failed, format!("the demo's broker has ended: {status}")));
            }
            if Instant::now() >= deadline {
                return Err(error.into());
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// The image that is removed at the end.
    pub(super) fn image(&self) -> Option<&DemoImage> {
        self.image.as_ref()
    }

    /// Starts an agent.
    pub(super) async fn start_agent(
        &mut self,
        name: &str,
        request: &StartRequest,
    ) -> Result<Agent, CliError> {
        self.has_agents = true;
        Ok(self.client.start(&self.project(), name, request).await?.0)
    }

    /// Ends the agents and forgets them.
    pub(super) async fn delete_agents(&mut self) -> Result<(), CliError> {
        let project = self.project();
        for name in AGENTS {
            self.client.delete(&project, name, &StopRequest::default(), false).await?;
        }
        self.has_agents = false;
        Ok(())
    }

    /// Ends all that was started, and removes the home; gives what could not be removed but harms no one.
    pub(super) async fn clean_up(&mut self) -> Result<Option<String>, CliError> {
        if self.has_agents
            && let Err(error) = self.end_agents().await
        {
            let message = format!("the agents of the demo could not be ended: {error}");
            return Err(CliError::failed(error.code(), message).with_hint(self.keep()));
        }
        self.end_broker().await?;
        let mut stays = None;
        if let Some(mut image) = self.image.take()
            && let Err(error) = image.remove().await
        {
            stays = Some(format!("the image {} stays: {error}", image.reference()));
        }
        if let Some(directory) = self.directory.take() {
            let failed = format!("{} cannot be removed", self.home().display());
            directory.close().map_err(|source| CliError::io(failed, source))?;
        }
        Ok(stays)
    }

    async fn end_agents(&mut self) -> Result<(), CliError> {
        match self.delete_agents().await {
            Err(error) if error.code() == Code::BrokerUnreachable && self.broker_ends().await => {
                tracing::warn!(%error, "the demo's broker has died; another is started to end the agents");
                self.start_broker().await?;
                self.delete_agents().await
            }
            result => result,
        }
    }

    /// Whether the process of the broker has ended, or does so at once: one that dies stops answering before it is gone.
    async fn broker_ends(&mut self) -> bool {
        let deadline = Instant::now() + GRACE;
        loop {
            let ended = self.broker.as_mut().is_none_or(|broker| !matches!(broker.try_wait(), Ok(None)));
            if ended || Instant::now() >= deadline {
                return ended;
            }
            sleep(PAUSE).await;
        }
    }

    async fn end_broker(&mut self) -> Result<(), CliError> {
        let Some(mut broker) = self.broker.take() else { return Ok(()) };
        let mut patience = PATIENCE;
        if self.client.shutdown().await.is_err() {
            // It cannot be asked: it has ended already, or is not ready yet. The process is a child that nobody has waited
            // for, so that its number is still its own.
            patience = GRACE;
            if let Ok(None) = broker.try_wait() {
                kill_process(Pid::from_child(&broker), Signal::TERM).unwrap_or_default();
            }
        }
        let failed = |source| CliError::io("the demo's broker cannot be waited for", source);
        let deadline = Instant::now() + patience;
        while broker.try_wait().map_err(failed)?.is_none() {
            if Instant::now() >= deadline {
                broker.kill().map_err(failed)?;
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Leaves all as it is, and says how to look at it and how to end it.
    pub(super) fn keep(&mut self) -> String {
        if let Some(directory) = self.directory.take() {
            // From here on it is the user's, who is told how to remove it.
            drop(directory.keep());
        }
        let program = env::current_exe().unwrap_or_else(|_| PathBuf::from("berthold"));
        let image = self.image.as_ref().map(DemoImage::reference);
        instructions(self.home(), &self.project(), &program, image)
    }

    /// The last lines of the broker's log; empty if there are none.
    pub(super) fn log_tail(&self) -> String {
        let bytes = fs::read(self.home.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text.lines().map(|line| format!("  | {line}")).collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

fn settings(range: PortRange, engine: Option<&str>) -> String {
    let mut text = format!(
        "server:\n  broker:\n    listen: none\n    stop_timeout: {STOP_TIMEOUT}\n    port_pool:\n      \
         range: \"{range}\"\n      ports_per_agent: {PORTS_PER_AGENT}\n\
         runtimes:\n  podman:\n    host: {NO_PODMAN}\n"
    );
    if let Some(engine) = engine {
        // What JSON quotes, YAML reads the same.
        text.push_str(&format!("  docker:\n    host: {}\n", serde_json::Value::from(engine)));
    }
    text
}

fn instructions(home: &Path, project: &str, program: &Path, image: Option<&str>) -> String {
    let quoted = |path: &Path| view::command(&[path.display().to_string()]);
    let (home, program) = (quoted(home), quoted(program));
    let image = image.map_or_else(String::new, |image| format!("\n  docker image rm {image}"));
    format!(
        "To look at it:\n  export BERTHOLD_HOME={home} BERTHOLD_PROJECT={project}\n  {program} list\n  {program} ports\n\
         To end it:\n  {program} delete --all && {program} broker stop && rm -r {home}{image}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> settings::Loaded {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("settings.yaml");
        fs::write(&path, text).unwrap();
        let sources = settings::Sources { explicit: Some(path), ..settings::Sources::default() };
        settings::load(&sources).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_settings_are_what_a_broker_takes() {
        let broker = check(&settings("8000-8019".parse().unwrap(), None)).settings.server.broker;
        assert_eq!(broker.listen, settings::Listen::None);
        assert_eq!(broker.stop_timeout, Duration::from_secs(2));
        let pool = broker.port_pool.unwrap();
        assert_eq!((pool.range.to_string(), pool.ports_per_agent), ("8000-8019".into(), PORTS_PER_AGENT));
        let host = "unix:///a \"b\": c/docker.sock";
        let loaded = check(&settings("8000-8019".parse().unwrap(), Some(host))).settings;
        assert_eq!(loaded.runtimes.docker.host.as_deref(), Some(host));
    }

    #[test]
    fn what_is_kept_can_be_looked_at_and_ended() {
        let shown = |image| {
            let (home, program) = (Path::new("/tmp/berthold-demo-x"), Path::new("/a b/berthold"));
            instructions(home, "demo-8000", program, image)
        };
        insta::assert_snapshot!(shown(Some("localhost/berthold-demo:1")), @"
        To look at it:
          export BERTHOLD_HOME=/tmp/berthold-demo-x BERTHOLD_PROJECT=demo-8000
          '/a b/berthold' list
          '/a b/berthold' ports
        To end it:
          '/a b/berthold' delete --all && '/a b/berthold' broker stop && rm -r /tmp/berthold-demo-x
          docker image rm localhost/berthold-demo:1
        ");
        assert!(!shown(None).contains("docker"));
    }

    #[tokio::test]
    async fn a_home_in_which_nothing_was_started_goes_without_a_broker() {
        let mut scratch = Scratch::new(None).unwrap();
        scratch.write_settings(None).unwrap();
        let home = scratch.home().to_owned();
        assert!(home.join("settings.yaml").exists());
        assert_eq!(scratch.clean_up().await.unwrap(), None);
        assert!(!home.exists());
    }
}
