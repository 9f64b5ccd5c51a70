//! The scratch home of the demo with its broker, and the way to be rid of both.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api::{Client, Code, Endpoint};
use broker::Home;
use tempfile::TempDir;
use tokio::time::sleep;

use super::image::DemoImage;
use super::{AGENTS, PROJECT, at_once};
use crate::error::CliError;

/// How many ports the demo's pool has.
const PORTS: u16 = 20;
/// Where the pool is looked for: numbers that are easily kept in mind first.
const FIRST: u16 = 8000;
const LAST: u16 = 30_000;
/// How long the broker may take to come and to go.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
const LOG_LINES: usize = 15;

/// A home that goes with this value, and what runs in it.
pub(super) struct Scratch {
    directory: Option<TempDir>,
    path: PathBuf,
    range: String,
    client: Client,
    broker: Option<Child>,
    image: Option<DemoImage>,
}

impl Scratch {
    /// A home with settings, in which nothing runs yet.
    pub(super) fn new() -> Result<Self, CliError> {
        let failed = |source| CliError::io("no scratch home can be made", source);
        let directory = tempfile::Builder::new().prefix("berthold-demo-").tempdir().map_err(failed)?;
        let path = directory.path().to_owned();
        let range = free_range().ok_or_else(|| {
            CliError::failed(Code::Conflict, format!("there are no {PORTS} free ports in a row on this host"))
        })?;
        let settings = format!(
            "server:\n  broker:\n    listen: none\n    port_pool:\n      range: \"{range}\"\n      ports_per_agent: 2\n"
        );
        fs::write(path.join("settings.yaml"), settings).map_err(failed)?;
        let client = Client::new(Endpoint::Unix(Home::at(&path).socket().to_owned()), None);
        Ok(Self { directory: Some(directory), path, range, client, broker: None, image: None })
    }

    pub(super) fn home(&self) -> &Path {
        &self.path
    }

    pub(super) fn range(&self) -> &str {
        &self.range
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Keeps the image until all is cleaned up.
    pub(super) fn hold(&mut self, image: Option<DemoImage>) {
        self.image = image.or(self.image.take());
    }

    /// Starts the broker and waits until it answers.
    pub(super) async fn start_broker(&mut self) -> Result<(), CliError> {
        let failed = |source| CliError::io("the demo's broker cannot be started", source);
        let log = File::create(self.log()).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        for (name, _) in std::env::vars_os() {
            // The demo is its own world: what is set for another broker is not meant for it.
            if name.to_string_lossy().starts_with("BERTHOLD_") {
                command.env_remove(name);
            }
        }
        command.args(["serve", "--background"]).env("BERTHOLD_HOME", &self.path).current_dir(&self.path);
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

    /// Ends the agents and forgets them.
    pub(super) async fn delete_agents(&self) -> Result<(), CliError> {
        for name in AGENTS {
            self.client.delete(PROJECT, name, &at_once()).await?;
        }
        Ok(())
    }

    /// Ends all that was started, and removes the home.
    pub(super) async fn clean_up(mut self) -> Result<(), CliError> {
        let Some(mut broker) = self.broker.take() else { return Ok(()) };
        // If the agents could not be ended, the broker and the home stay, for they are what can still end them.
        let ended = match self.client.ready().await {
            Ok(()) => self.delete_agents().await,
            Err(_) => Ok(()),
        };
        if let Err(error) = ended {
            let text = format!("the agents could not be ended: {error}");
            return Err(CliError::failed(Code::Failed, text).with_hint(self.keep()));
        }
        if self.client.shutdown().await.is_err() {
            drop(broker.kill());
        }
        let deadline = Instant::now() + PATIENCE;
        let failed = |source| CliError::io("the demo's broker cannot be waited for", source);
        while broker.try_wait().map_err(failed)?.is_none() {
            if Instant::now() >= deadline {
                broker.kill().map_err(failed)?;
            }
            sleep(PAUSE).await;
        }
        if let Some(image) = self.image.take() {
            image.remove().await;
        }
        match self.directory.take().map(TempDir::close) {
            Some(Err(source)) => {
                Err(CliError::io(format!("{} cannot be removed", self.path.display()), source))
            }
            _ => Ok(()),
        }
    }

    /// Leaves all as it is, and says how to look at it and how to end it.
    pub(super) fn keep(mut self) -> String {
        if let Some(directory) = self.directory.take() {
            // From here on the directory is the user's.
            drop(directory.keep());
        }
        let program =
            std::env::current_exe().map_or_else(|_| "berthold".to_owned(), |path| path.display().to_string());
        let home = self.path.display();
        let image = self
            .image
            .as_ref()
            .map_or_else(String::new, |image| format!("\n  docker rmi {}", image.reference()));
        format!(
            "It goes on running. Look at it:\n  export BERTHOLD_HOME={home}\n  {program} list\n  {program} ports\n\
             End it:\n  {program} delete --all && {program} broker stop && rm -r {home}{image}"
        )
    }

    /// The last lines of the broker's log.
    pub(super) fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn log(&self) -> PathBuf {
        Home::at(&self.path).log()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.as_mut().filter(|_| self.directory.is_some()) {
            // Only reached when cleaning up failed before: the process must not outlive its home.
            drop(broker.kill());
            drop(broker.wait());
        }
    }
}

/// A range of which no port is held on this host.
fn free_range() -> Option<String> {
    let is_free = |port: u16| TcpListener::bind(("0.0.0.0", port)).is_ok();
    let starts = (FIRST..LAST).step_by(usize::from(PORTS));
    let first = starts.into_iter().find(|first| (*first..first + PORTS).all(is_free))?;
    Some(format!("{first}-{}", first + PORTS - 1))
}
