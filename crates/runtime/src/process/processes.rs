//! The runtime: what is asked of it, done with folders and shims.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::beside::Beside;
use super::ending::{self, blocking};
use super::folder::{self, Folder, Life};
use super::record::{self, AgentRecord, PublishRecord, file_error};
use super::shim::Report;
use super::{environment, log, terminal};
use crate::{
    Attached, BROKER_LABEL, Console, Created, EngineInfo, ErrorKind, ExecRequest, LogRequest, LogStream,
    Network, Observed, ObservedState, Progress, Publish, Runtime, RuntimeError, Spec, Streams,
};

/// How a shim is called: a program that calls [`super::run_shim`] with its last argument, the agent's folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShimCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments; the folder is added as the last.
    pub arguments: Vec<OsString>,
}

/// Runs agents as processes of the host.
#[derive(Clone, Debug)]
pub struct Processes {
    directory: PathBuf,
    shim: ShimCommand,
}

impl Processes {
    /// Keeps its agents in `directory`, which is made when it is needed.
    pub fn new(directory: PathBuf, shim: ShimCommand) -> Self {
        // The shim works in another directory. Without a working directory of our own there is nothing to be relative to.
        let directory = std::path::absolute(&directory).unwrap_or(directory);
        Self { directory, shim }
    }

    async fn find(&self, id: &str) -> Result<Option<Folder>, RuntimeError> {
        let (directory, id) = (self.directory.clone(), id.to_owned());
        blocking(move || Folder::find(&directory, &id)).await
    }

    async fn existing(&self, id: &str) -> Result<Folder, RuntimeError> {
        let none = || RuntimeError::new(ErrorKind::NotFound, format!("there is no process agent {id}"));
        self.find(id).await?.ok_or_else(none)
    }

    /// Calls a shim, and waits for what it has to tell.
    async fn call_shim(&self, folder: &Folder) -> Result<Report, RuntimeError> {
        let program = &self.shim.program;
        let failed = |error| file_error("cannot run the shim", program, error);
        let complaints = folder.file("shim.log");
        let log = record::private().append(true).create(true).open(&complaints);
        let log = log.map_err(|error| file_error("cannot open", &complaints, error))?;
        let mut command = Command::new(program);
        command.args(&self.shim.arguments).arg(&folder.path).env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut shim = command.spawn().map_err(failed)?;

        // Without the id, a shim starts nothing. One that is gone already has told why.
        let mut input = shim.stdin.take().expect("standard input was asked for");
        let _told_in_the_report = input.write_all(folder.agent.id.as_bytes()).await;
        drop(input);
        let mut report = Vec::new();
        let mut output = shim.stdout.take().expect("standard output was asked for");
        output.read_to_end(&mut report).await.map_err(failed)?;
        match serde_json::from_slice(&report) {
            Ok(Report::Started) => {
                // Reaps it one day, if this broker is still there then.
                tokio::spawn(async move { shim.wait().await });
                Ok(Report::Started)
            }
            // It is about to end, and holds the lock until then.
            Ok(report) => shim.wait().await.map(|_| report).map_err(failed),
            Err(error) => {
                let status = shim.wait().await.map_err(failed)?;
                Err(no_report(folder, status, &complaints).source(error))
            }
        }
    }
}

#[async_trait]
impl Runtime for Processes {
    fn name(&self) -> &'static str {
        "process"
    }

    fn needs_image(&self) -> bool {
        false
    }

    async fn engine(&self) -> Result<EngineInfo, RuntimeError> {
        let (directory, shim) = (self.directory.clone(), self.shim.program.clone());
        blocking(move || {
            let unreachable = |error: RuntimeError| RuntimeError { kind: ErrorKind::Unreachable, ..error };
            folder::private_directory(&directory).map_err(unreachable)?;
            if !shim.is_file() {
                let message = format!("the shim {} is not there", shim.display());
                return Err(RuntimeError::new(ErrorKind::Unreachable, message));
            }
            Ok(EngineInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                endpoint: directory.display().to_string(),
            })
        })
        .await
    }

    fn check(&self, spec: &Spec) -> Result<(), RuntimeError> {
        check(spec)
    }

    async fn prepare_image(&self, image: &str, _progress: &dyn Progress) -> Result<(), RuntimeError> {
        Err(unsupported(&format!("images ({image})")))
    }

    async fn create(&self, spec: &Spec) -> Result<Created, RuntimeError> {
        let (directory, spec) = (self.directory.clone(), spec.clone());
        blocking(move || {
            let agent = agent(&spec)?;
            folder::sweep(&directory);
            let folder = Folder::make(&directory, agent)?;
            Ok(Created { id: folder.agent.id, warnings: Vec::new() })
        })
        .await
    }

    async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        let folder = self.existing(id).await?;
        if ending::is_running(ending::look(&folder).await?.as_ref()) {
            return Ok(());
        }
        match self.call_shim(&folder).await? {
            Report::Started => Ok(()),
            Report::Gone => {
                Err(RuntimeError::new(ErrorKind::NotFound, format!("there is no process agent {id}")))
            }
            Report::Failed(failure) => {
                let message = format!("{} cannot be started: {}", folder.agent.name, failure.message);
                Err(RuntimeError::new(failure.reason.kind(), message))
            }
            Report::Before if ending::is_running(ending::look(&folder).await?.as_ref()) => Ok(()),
            Report::Before => {
                let message = format!("{} has run already", folder.agent.name);
                let hint = "remove it and create it anew";
                Err(RuntimeError::new(ErrorKind::Other, message).hint(hint))
            }
        }
    }

    async fn inspect(&self, id: &str) -> Result<Option<Observed>, RuntimeError> {
        let (directory, id) = (self.directory.clone(), id.to_owned());
        blocking(move || {
            let Some(folder) = Folder::find(&directory, &id)? else { return Ok(None) };
            Ok(folder.life()?.map(|life| observed(&folder, life)))
        })
        .await
    }

    async fn wait_for_end(&self, id: &str, limit: Duration) -> Result<Option<Observed>, RuntimeError> {
        let Some(folder) = self.find(id).await? else { return Ok(None) };
        let life = ending::wait(&folder, ending::deadline(limit)).await?;
        Ok(life.map(|life| observed(&folder, life)))
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        match self.find(id).await? {
            Some(folder) => ending::end(&folder, Some(grace)).await,
            None => Ok(()),
        }
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let Some(folder) = self.find(id).await? else { return Ok(()) };
        ending::remove(&folder).await
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        let directory = self.directory.clone();
        blocking(move || {
            folder::sweep(&directory);
            let mut all = Vec::new();
            for folder in Folder::all(&directory)? {
                if folder.agent.labels.contains_key(BROKER_LABEL) {
                    all.extend(folder.life()?.map(|life| observed(&folder, life)));
                }
            }
            Ok(all)
        })
        .await
    }

    async fn logs(&self, id: &str, request: &LogRequest) -> Result<LogStream, RuntimeError> {
        log::open(self.existing(id).await?, request).await
    }

    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<Attached, RuntimeError> {
        let folder = self.existing(id).await?;
        let (shim, request) = (self.shim.clone(), request.clone());
        blocking(move || {
            if !ending::is_running(folder.life()?.as_ref()) {
                return Err(not_running(&folder));
            }
            check_variables(&request.env)?;
            let beside = Beside::new(&folder.agent, &request)?;
            match request.terminal {
                None => beside.run(&folder, request.stdin),
                Some(size) => terminal::run(&shim, &folder, beside, request.stdin, size),
            }
        })
        .await
    }

    async fn attach(&self, _id: &str, _stdin: bool) -> Result<Streams, RuntimeError> {
        Err(unsupported("streams to attach to").hint(NO_CONSOLE))
    }
}

/// What to do in place of attaching to a process, whose streams are `/dev/null` and its log.
const NO_CONSOLE: &str = "`berthold logs -f NAME` follows what it writes, `berthold run NAME -- COMMAND` has it in your own terminal";

/// The error for an agent that would have to run.
pub(super) fn not_running(folder: &Folder) -> RuntimeError {
    RuntimeError::new(ErrorKind::NotRunning, format!("{} does not run", folder.agent.name))
}

/// What the specification means here, or why it cannot be done.
fn agent(spec: &Spec) -> Result<AgentRecord, RuntimeError> {
    let invalid = |message: String| Err(RuntimeError::new(ErrorKind::Invalid, message));
    if !folder::is_name(&spec.name) {
        return invalid(format!("{:?} cannot be the name of a process agent", spec.name));
    }
    check(spec)?;
    if spec.command.is_empty() {
        let message = format!("{} has no command", spec.name);
        return Err(
            RuntimeError::new(ErrorKind::Invalid, message).hint("a process needs one: add `-- COMMAND`")
        );
    }
    if spec.command.iter().any(|part| part.contains('\0')) {
        return invalid(format!("the command of {} has a zero byte in it", spec.name));
    }
    check_variables(&spec.env)?;
    let env = environment::merged(std::env::vars_os(), &spec.env);
    let home = environment::value(&env, "HOME").map(Path::new).filter(|home| home.is_dir());
    let workdir = spec.workdir.as_deref().map(Path::new).or(home).unwrap_or(Path::new("/")).to_owned();
    if !workdir.is_absolute() || !workdir.is_dir() {
        return invalid(format!(
            "the directory {} is not there, or its path is not absolute",
            workdir.display()
        ));
    }
    let publish = if spec.network.publishes() { spec.publish.as_slice() } else { &[] };
    Ok(AgentRecord {
        id: format!("{}.{}", spec.name, random_suffix()?),
        name: spec.name.clone(),
        labels: spec.labels.clone(),
        command: spec.command.clone(),
        env,
        workdir,
        publish: publish.iter().map(published_record).collect(),
    })
}

/// What cannot be done here of the specification.
fn check(spec: &Spec) -> Result<(), RuntimeError> {
    if let Some(image) = &spec.image {
        let hint = "leave out `--image`, or a template that has one";
        return Err(unsupported(&format!("images ({image})")).hint(hint));
    }
    if let Some(volume) = spec.volumes.first() {
        return Err(unsupported(&format!("volumes ({}:{})", volume.source, volume.target))
            .hint("a process sees the host's files where they are"));
    }
    if spec.console != Console::default() {
        return Err(unsupported("terminal or input for an agent").hint(NO_CONSOLE));
    }
    let network = match &spec.network {
        Network::Default | Network::Host => return Ok(()),
        Network::None => "none",
        Network::Named(name) => name,
    };
    let hint = "leave out `--network`: a process has the host's";
    Err(unsupported(&format!("networks of its own (`{network}`)")).hint(hint))
}

fn check_variables(variables: &[(String, String)]) -> Result<(), RuntimeError> {
    let is_wrong = |(name, value): &&(String, String)| !environment::is_name(name) || value.contains('\0');
    match variables.iter().find(is_wrong) {
        Some((name, _)) => {
            Err(RuntimeError::new(ErrorKind::Invalid, format!("no variable can be set as {name:?}")))
        }
        None => Ok(()),
    }
}

fn observed(folder: &Folder, life: Life) -> Observed {
    let agent = &folder.agent;
    let published = match life {
        Life::Running { .. } => agent.publish.iter().map(published).collect(),
        Life::Created | Life::Ended(_) => Vec::new(),
    };
    let state = match life {
        Life::Created => ObservedState::Created,
        Life::Running { since, .. } => ObservedState::Running { since },
        Life::Ended(exit) => ObservedState::Exited { code: exit.code, at: exit.at, detail: exit.detail },
    };
    Observed {
        id: agent.id.clone(),
        name: agent.name.clone(),
        labels: agent.labels.clone(),
        state,
        image: None,
        published,
    }
}

fn published(record: &PublishRecord) -> Publish {
    Publish { address: record.address, host: record.host, container: record.container }
}

fn published_record(publish: &Publish) -> PublishRecord {
    PublishRecord { address: publish.address, host: publish.host, container: publish.container }
}

fn no_report(folder: &Folder, status: ExitStatus, complaints: &Path) -> RuntimeError {
    let message = format!("the shim of {} ended without a word ({status})", folder.agent.name);
    let text = std::fs::read_to_string(complaints).unwrap_or_default();
    let error = RuntimeError::new(ErrorKind::Other, message);
    match text.trim() {
        "" => error,
        text => error.hint(format!("it complained: {text}")),
    }
}

fn unsupported(what: &str) -> RuntimeError {
    RuntimeError::new(ErrorKind::Unsupported, format!("the runtime process has no {what}"))
}

/// Sixteen digits that were never used before.
pub(super) fn random_suffix() -> Result<String, RuntimeError> {
    let random = getrandom::u64().map_err(|error| {
        RuntimeError::new(ErrorKind::Other, "the host gives no random numbers").source(error)
    })?;
    Ok(format!("{random:016x}"))
}
