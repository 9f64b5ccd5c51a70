//! Apple's `container` (macOS 26 on Apple silicon), through its command.
//!
//! # Limits
//!
//! - It has no host network, publishes at most 64 ports a container, and does not tell exit codes.
//! - Whether a container is there is read from a listing that succeeded, never from a refusal: the command has one exit
//!   code for all that goes wrong.
//! - Its published ports may reset connections while the container's own address answers
//!   (<https://github.com/apple/container/issues/1180>).
//! - Before 1.0 it may leave out variables whose value is empty (<https://github.com/apple/container/pull/1014>, in a release of
//!   early 2026). A start warns of that; `exec` does not.

mod arguments;
mod command;
pub(crate) mod listing;
mod log;
#[cfg(test)]
mod scripted;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{FutureExt, pending};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use self::command::{ContainerCommand, Printed};
use crate::child::terminal::Terminal;
use crate::{
    Attached, BROKER_LABEL, Created, EngineInfo, ErrorKind, ExecRequest, LogRequest, LogStream, Observed,
    ObservedState, Progress, Runtime, RuntimeError, Spec, Streams, child,
};

const NAME: &str = "container";
/// For a question that the service answers from what it knows.
const ANSWER: Duration = Duration::from_secs(30);
/// For what has it boot or end a virtual machine.
const WORK: Duration = Duration::from_secs(120);
/// For a pull, whose progress it shows to terminals alone.
const PULL: Duration = Duration::from_secs(60 * 60);
/// How old a listing may be for those who wait for an end: all of them share one.
const PACE: Duration = Duration::from_secs(1);
/// How often the end of what was stopped is looked for.
const CONFIRMING_PACE: Duration = Duration::from_millis(100);

/// Apple's `container` on this host.
pub struct AppleContainer {
    command: ContainerCommand,
    /// The newest listing. The lock is held while one is made, so that many who wait ask once.
    recent: Mutex<Option<(Instant, Vec<Observed>)>>,
}

impl AppleContainer {
    /// The `container` command on `PATH`; none if there is none.
    pub fn find(environment: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let path = environment("PATH")?;
        Some(Self::at(child::program(NAME, &path)?))
    }

    fn at(program: PathBuf) -> Self {
        Self { command: ContainerCommand { program }, recent: Mutex::new(None) }
    }

    async fn run(&self, doing: &str, arguments: &[String], limit: Duration) -> Result<Printed, RuntimeError> {
        self.command.run(doing, arguments, limit).await
    }

    async fn version(&self) -> Result<String, RuntimeError> {
        let printed = self.run("say its version", &arguments::plain(&["--version"]), ANSWER).await?;
        // Such as `container CLI version 1.2.0 (build: release, commit: 0a1b2c3)`.
        let version = printed.stdout.trim().strip_prefix("container CLI version ");
        version.and_then(|rest| rest.split_whitespace().next()).map(str::to_owned).ok_or_else(|| {
            let message = format!("{} is not Apple's container", self.command.program.display());
            RuntimeError::new(ErrorKind::Unreachable, message)
        })
    }

    /// Which of the variables an old version may leave out.
    async fn warning_of_empty_values(&self, variables: &[(String, String)]) -> Option<String> {
        let empty = variables.iter().filter(|(_, value)| value.is_empty());
        let names: Vec<&str> = empty.map(|(name, _)| name.as_str()).collect();
        if names.is_empty() {
            return None;
        }
        let version = self.version().await.ok().filter(|version| version.starts_with("0."))?;
        let names = names.join(", ");
        Some(format!("container {version} may leave out variables whose value is empty: {names}"))
    }

    /// All containers, ours or not.
    async fn listing(&self) -> Result<Vec<Observed>, RuntimeError> {
        let arguments = arguments::plain(&["list", "--all", "--format", "json"]);
        let printed = self.run("list the containers", &arguments, ANSWER).await?;
        listing::read(&printed.stdout).map_err(|error| {
            let message = "container's listing is not understood";
            RuntimeError::new(ErrorKind::Other, message)
                .source(error)
                .hint("this version of `container` may be newer than Berthold knows")
        })
    }

    /// The same, at most [`PACE`] old.
    async fn recent_listing(&self) -> Result<Vec<Observed>, RuntimeError> {
        let mut recent = self.recent.lock().await;
        if let Some((_, listing)) = recent.as_ref().filter(|(at, _)| at.elapsed() < PACE) {
            return Ok(listing.clone());
        }
        let listing = self.listing().await?;
        *recent = Some((Instant::now(), listing.clone()));
        Ok(listing)
    }

    /// What is there, which must be.
    async fn existing(&self, id: &str) -> Result<Observed, RuntimeError> {
        let nothing = || RuntimeError::new(ErrorKind::NotFound, format!("there is no container `{id}`"));
        self.inspect(id).await?.ok_or_else(nothing)
    }

    /// Waits until `is_over` of what is there.
    async fn confirm(
        &self,
        id: &str,
        what: &str,
        is_over: impl Fn(Option<&ObservedState>) -> bool,
    ) -> Result<(), RuntimeError> {
        let deadline = Instant::now() + WORK;
        loop {
            if is_over(self.inspect(id).await?.map(|it| it.state).as_ref()) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let message = format!("container says that `{id}` was {what}, but it is still there");
                return Err(RuntimeError::new(ErrorKind::Other, message));
            }
            sleep(CONFIRMING_PACE).await;
        }
    }

    async fn has_image(&self, image: &str) -> Result<bool, RuntimeError> {
        let arguments = arguments::plain(&["image", "inspect", image]);
        match self.run("look for the image", &arguments, ANSWER).await {
            Ok(printed) => Ok(printed.stdout.trim() != "[]"),
            Err(error) if error.kind == ErrorKind::Unreachable => Err(error),
            Err(_) => Ok(false),
        }
    }
}

fn is_over(state: Option<&ObservedState>) -> bool {
    !matches!(state, Some(ObservedState::Running { .. }))
}

#[async_trait]
impl Runtime for AppleContainer {
    fn name(&self) -> &'static str {
        NAME
    }

    fn needs_image(&self) -> bool {
        true
    }

    fn reuses_ids(&self) -> bool {
        true
    }

    fn tells_exit_codes(&self) -> bool {
        false
    }

    async fn engine(&self) -> Result<EngineInfo, RuntimeError> {
        let version = self.version().await?;
        self.run("answer", &arguments::plain(&["system", "status"]), ANSWER).await.map_err(|error| {
            // It fails with a table that says that nothing is registered, or with a sentence.
            RuntimeError::new(ErrorKind::Unreachable, error.message)
                .hint("start its service: `container system start`")
        })?;
        let endpoint = self.command.program.display().to_string();
        Ok(EngineInfo { version, endpoint })
    }

    async fn prepare_image(&self, image: &str, progress: &dyn Progress) -> Result<(), RuntimeError> {
        if self.has_image(image).await? {
            return Ok(());
        }
        progress.report(&format!("container is pulling {image}"), None, None);
        let arguments = arguments::plain(&["image", "pull", image]);
        let pulled = self.run(&format!("pull the image {image}"), &arguments, PULL).await;
        pulled.map(drop).map_err(|mut error| {
            if error.kind != ErrorKind::Unreachable {
                error.kind = ErrorKind::Image;
            }
            error
        })
    }

    fn check(&self, spec: &Spec) -> Result<(), RuntimeError> {
        arguments::create(spec).map(drop)
    }

    async fn create(&self, spec: &Spec) -> Result<Created, RuntimeError> {
        let arguments = arguments::create(spec)?;
        let image = spec.image.as_deref().unwrap_or_default();
        // It would pull by itself, without a word and for as long as it takes.
        if !self.has_image(image).await? {
            let message = format!("container does not have the image {image}");
            return Err(RuntimeError::new(ErrorKind::Image, message));
        }
        let doing = format!("create the container `{}`", spec.name);
        let printed = self.run(&doing, &arguments, WORK).await?;
        let id = printed.stdout.lines().map(str::trim).rfind(|line| !line.is_empty());
        let mut warnings = printed.warnings();
        warnings.extend(self.warning_of_empty_values(&spec.env).await);
        Ok(Created { id: id.unwrap_or(&spec.name).to_owned(), warnings })
    }

    async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        self.existing(id).await?;
        self.run("start the container", &arguments::plain(&["start", id]), WORK).await.map(drop)
    }

    async fn inspect(&self, id: &str) -> Result<Option<Observed>, RuntimeError> {
        Ok(self.listing().await?.into_iter().find(|observed| observed.id == id))
    }

    async fn wait_for_end(&self, id: &str, limit: Duration) -> Result<Option<Observed>, RuntimeError> {
        let deadline = Instant::now() + limit;
        loop {
            sleep(PACE.min(deadline.saturating_duration_since(Instant::now()))).await;
            if Instant::now() >= deadline {
                return self.inspect(id).await;
            }
            let recent = self.recent_listing().await?;
            if is_over(recent.iter().find(|it| it.id == id).map(|it| &it.state)) {
                // The listing may be older than the question.
                return self.inspect(id).await;
            }
        }
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let Some(observed) = self.inspect(id).await? else { return Ok(()) };
        if !matches!(observed.state, ObservedState::Running { .. }) {
            return Ok(());
        }
        let stopped =
            self.run("stop the container", &arguments::stop(id, grace), grace.saturating_add(WORK)).await;
        // It may have ended by itself meanwhile, and refuse for that.
        if let Err(error) = stopped
            && !is_over(self.inspect(id).await?.map(|it| it.state).as_ref())
        {
            return Err(error);
        }
        self.confirm(id, "stopped", is_over).await
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        if self.inspect(id).await?.is_none() {
            return Ok(());
        }
        let removed =
            self.run("remove the container", &arguments::plain(&["delete", "--force", id]), WORK).await;
        if let Err(error) = removed
            && self.inspect(id).await?.is_some()
        {
            return Err(error);
        }
        self.confirm(id, "removed", |state| state.is_none()).await
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        let mut listing = self.listing().await?;
        listing.retain(|observed| observed.labels.contains_key(BROKER_LABEL));
        Ok(listing)
    }

    async fn logs(&self, id: &str, request: &LogRequest) -> Result<LogStream, RuntimeError> {
        let observed = self.existing(id).await?;
        // Nothing comes after the log of what has ended.
        let follow = request.follow && !is_over(Some(&observed.state));
        let arguments = arguments::logs(id, &LogRequest { follow, ..request.clone() });
        let command = self.command.with(&arguments).spawn().map_err(|error| self.command.unusable(&error))?;
        if !follow {
            return log::read(command, pending().boxed()).await;
        }
        let (watcher, id) = (Self::at(self.command.program.clone()), id.to_owned());
        let end = async move {
            while !is_over(watcher.wait_for_end(&id, ANSWER).await?.map(|it| it.state).as_ref()) {}
            Ok(())
        };
        log::read(command, end.boxed()).await
    }

    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<Attached, RuntimeError> {
        if request.command.is_empty() {
            return Err(RuntimeError::new(ErrorKind::Invalid, "there is no command to run"));
        }
        let observed = self.existing(id).await?;
        if !matches!(observed.state, ObservedState::Running { .. }) {
            return Err(RuntimeError::new(ErrorKind::NotRunning, format!("`{id}` does not run")));
        }
        let mut command = self.command.with(&arguments::exec(id, request));
        let unusable = |error: std::io::Error| self.command.unusable(&error);
        let Some(size) = request.terminal else {
            if request.stdin {
                command.stdin(Stdio::piped());
            }
            return Ok(child::on_pipes(command.spawn().map_err(unusable)?));
        };
        let (terminal, theirs) = Terminal::open(size).map_err(unusable)?;
        let copy = || theirs.try_clone().map_err(unusable);
        command.stdin(copy()?).stdout(copy()?).stderr(copy()?);
        drop(theirs);
        let child = command.spawn().map_err(unusable)?;
        // The broker's copies of the child's end: while one is open, the child's end is not seen.
        drop(command);
        terminal.attach_uncontrolled(child, request.stdin).map_err(unusable)
    }

    async fn attach(&self, _id: &str, _stdin: bool) -> Result<Streams, RuntimeError> {
        Err(arguments::unsupported("cannot attach to what runs", arguments::NO_CONSOLE))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures_util::StreamExt;
    use tokio::time::timeout;

    use super::*;
    use crate::{Console, Network, Output, TerminalSize};

    #[tokio::test]
    async fn an_old_version_may_leave_out_what_is_empty() {
        let here = tempfile::tempdir().unwrap();
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let spec = |env: Vec<(String, String)>| Spec {
            name: "web".to_owned(),
            image: Some("node:22".to_owned()),
            command: Vec::new(),
            env,
            labels: BTreeMap::new(),
            volumes: Vec::new(),
            workdir: None,
            console: Console::default(),
            network: Network::Default,
            publish: Vec::new(),
            binds: Vec::new(),
        };
        let warnings = async |version: &str, env| {
            let said = format!("--version) echo 'container CLI version {version} (build: release)' ;;");
            let cases = said + "image) echo '[{}]' ;; create) echo web; echo 'Warning: an old kernel' >&2 ;;";
            scripted::container(here.path(), &cases).create(&spec(env)).await.unwrap().warnings.join("; ")
        };
        let env = || vec![variable("A", ""), variable("B", "b"), variable("C", "")];
        assert_eq!(
            warnings("0.7.1", env()).await,
            "Warning: an old kernel; container 0.7.1 may leave out variables whose value is empty: A, C"
        );
        assert_eq!(warnings("0.7.1", vec![variable("B", "b")]).await, "Warning: an old kernel");
        assert_eq!(warnings("1.0.0", env()).await, "Warning: an old kernel");
    }

    #[tokio::test]
    async fn a_command_is_told_of_the_new_size_of_its_terminal() {
        let here = tempfile::tempdir().unwrap();
        let cases = "exec) trap 'stty size' WINCH; stty size; while :; do sleep 0.1; done ;;";
        let container = scripted::container(here.path(), cases);
        let request = ExecRequest {
            command: vec!["sh".to_owned()],
            terminal: Some(TerminalSize { columns: 80, rows: 24 }),
            ..ExecRequest::default()
        };
        let mut streams = container.exec("web", &request).await.unwrap().streams;
        let mut shown = String::new();
        let resize = streams.resize.take().unwrap();
        for (columns, rows) in [(80, 24), (100, 30), (120, 40)] {
            resize.send(TerminalSize { columns, rows }).await.unwrap();
            while !shown.contains(&format!("{rows} {columns}\r\n")) {
                let piece =
                    timeout(ANSWER, streams.output.next()).await.expect("it is told").unwrap().unwrap();
                let (Output::Stdout(bytes) | Output::Stderr(bytes)) = piece;
                shown += std::str::from_utf8(&bytes).unwrap();
            }
        }
    }
}
