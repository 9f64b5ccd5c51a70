//! What every test needs: a runtime in a scratch directory, and ways to look at real processes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use runtime::process::{Identity, Processes, ShimCommand};
use runtime::{LogRequest, LogStream, Network, Observed, ObservedState, Output, Runtime, Spec};

pub(crate) const SHIM: &str = "be-the-shim";
pub(crate) const BROKER: &str = "be-a-broker";
pub(crate) const SERVER: &str = "be-a-server";
/// Time enough on the slowest machine; no test waits for it unless it fails.
pub(crate) const ENOUGH: Duration = Duration::from_secs(60);

/// A runtime with a directory of its own.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) processes: Processes,
    scratch: Arc<tempfile::TempDir>,
}

impl Host {
    pub(crate) fn new() -> Self {
        let scratch = Arc::new(tempfile::tempdir().unwrap());
        Self { processes: processes(&scratch.path().join("agents")), scratch }
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.scratch.path().join("agents")
    }

    /// A directory for the test's own files.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn file(&self, agent: &str, name: &str) -> PathBuf {
        self.directory().join(agent).join(name)
    }

    /// Creates and starts a shell script, and waits until it has said `ready`.
    pub(crate) async fn start_ready(&self, name: &str, script: &str) -> String {
        let id = self.start(&shell(name, script)).await;
        self.output_with(name, "ready").await;
        id
    }

    pub(crate) async fn start(&self, spec: &Spec) -> String {
        let id = self.processes.create(spec).await.unwrap().id;
        self.processes.start(&id).await.unwrap();
        id
    }

    pub(crate) async fn state(&self, id: &str) -> ObservedState {
        self.processes.inspect(id).await.unwrap().expect("the agent is there").state
    }

    pub(crate) async fn is_running(&self, id: &str) -> bool {
        matches!(self.state(id).await, ObservedState::Running { .. })
    }

    /// Waits for the end of an agent that ends by itself, and says how.
    pub(crate) async fn ended(&self, id: &str) -> (Option<i64>, Option<String>) {
        exited(self.processes.wait_for_end(id, ENOUGH).await.unwrap())
    }

    pub(crate) async fn log(&self, id: &str, tail: Option<usize>) -> String {
        text(self.processes.logs(id, &LogRequest { tail, follow: false }).await.unwrap()).await
    }

    /// The log, once `wanted` is in it.
    pub(crate) async fn output_with(&self, id: &str, wanted: &str) -> String {
        let begun = Instant::now();
        loop {
            let log = self.log(id, None).await;
            if log.contains(wanted) {
                return log;
            }
            assert!(begun.elapsed() < ENOUGH, "{wanted:?} is not in the log: {log:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The process that `shim.json` or `started.json` names.
    pub(crate) fn recorded(&self, agent: &str, file: &str) -> Identity {
        serde_json::from_slice(&std::fs::read(self.file(agent, file)).unwrap()).unwrap()
    }

    pub(crate) async fn remove_all(&self) {
        for agent in self.processes.list().await.unwrap_or_default() {
            self.processes.remove(&agent.id).await.unwrap();
        }
    }
}

pub(crate) fn processes(directory: &Path) -> Processes {
    let shim = ShimCommand { program: std::env::current_exe().unwrap(), arguments: vec![SHIM.into()] };
    Processes::new(directory.to_owned(), shim)
}

pub(crate) fn spec(name: &str, command: &[&str]) -> Spec {
    Spec {
        name: name.to_owned(),
        image: None,
        command: command.iter().map(|part| (*part).to_owned()).collect(),
        env: Vec::new(),
        labels: BTreeMap::from([("berthold.broker".to_owned(), "tests".to_owned())]),
        volumes: Vec::new(),
        workdir: None,
        console: runtime::Console::default(),
        network: Network::Default,
        publish: Vec::new(),
        binds: Vec::new(),
    }
}

pub(crate) fn shell(name: &str, script: &str) -> Spec {
    spec(name, &["sh", "-c", script])
}

/// Everything that comes, both streams in one.
pub(crate) async fn text(stream: LogStream) -> String {
    let pieces: Vec<_> = stream.collect().await;
    let bytes = |piece| match piece {
        Ok(Output::Stdout(bytes) | Output::Stderr(bytes)) => bytes,
        Err(error) => panic!("{error}"),
    };
    String::from_utf8(pieces.into_iter().flat_map(bytes).collect()).unwrap()
}

pub(crate) fn exited(observed: Option<Observed>) -> (Option<i64>, Option<String>) {
    let observed = observed.expect("the agent is there");
    assert_eq!(observed.published, [], "nothing is published by what does not run");
    match observed.state {
        ObservedState::Exited { code, detail, .. } => (code, detail),
        other => panic!("{} has not ended: {other:?}", observed.name),
    }
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < ENOUGH, "{what}: not yet");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The process of the pid that stands before the word `what` in the text, as `PID what`.
pub(crate) fn process_called(what: &str, text: &str) -> Identity {
    let line = text.lines().find_map(|line| line.strip_suffix(&format!(" {what}")));
    let pid = line.unwrap_or_else(|| panic!("no {what} in {text:?}")).parse().unwrap();
    Identity::of(pid).unwrap().unwrap_or_else(|| panic!("{what} does not run"))
}
