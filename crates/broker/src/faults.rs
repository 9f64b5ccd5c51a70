//! Has the broker die, or a call fail, at a step that a test chooses. No broker that is built for use has this: it takes the
//! feature `faults`, which the tests of `cli` switch on.
//!
//! What an operation changes outside of this process are calls of a runtime and commits of the ledger. Between two of them there is
//! only memory, which a crash loses wherever it comes. So every crash that can matter comes right after the n-th of these changes,
//! and no list of places has to be kept up to date by hand.
//!
//! `BERTHOLD_FAULT` says what is to happen, counted from the broker's start:
//!
//! | value | then |
//! |---|---|
//! | `none` | nothing, but each change is written down |
//! | `kill N` | SIGKILL right after the N-th change |
//! | `refuse N` | the N-th call, a question or a change, is not made, and fails |
//! | `refuse N WHAT` | the N-th call of that kind alone, such as `process remove` |
//! | `occupied N` | no runtime can have port N, though nothing on this host has it |
//! | `occupied N M` | the same of all ports from N to M |
//! | `lose N` | the N-th change of a runtime is made, and fails all the same; commits are not counted, whose answers cannot be lost |
//! | `unpublish` | runtimes have published nothing of what they started |
//!
//! What happened is in the file `faults.log` of the broker's home, one line a change, the last being the one with the fault.

use std::env;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use runtime::{
    Attached, Created, EngineInfo, ErrorKind, ExecRequest, HeldPort, LogRequest, LogStream, Observed,
    Progress, Runtime, RuntimeError, Spec, Streams,
};
use rustix::process::{Signal, getpid, kill_process};

use crate::ledger::LedgerError;

/// How long a commit takes at the least.
const SLOW_DISK: Duration = Duration::from_millis(30);

/// As what the ledger's changes are counted and written down.
const COMMIT: &str = "a commit";

/// What is to happen in this process; set once, before anything is called.
static FAULT: OnceLock<Fault> = OnceLock::new();

struct Fault {
    kind: Kind,
    at: u64,
    /// Which calls are counted that can be refused; empty for all.
    what: String,
    changes: AtomicU64,
    calls: AtomicU64,
    log: File,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kill,
    Refuse,
    Lose,
    Occupied,
    Unpublish,
    None,
}

/// Reads what is to happen, for a broker that keeps its things in `home`.
pub(crate) fn arm(home: &Path) {
    let Ok(wanted) = env::var("BERTHOLD_FAULT") else { return };
    let mut parts = wanted.splitn(3, ' ');
    let (kind, at) = (parts.next().unwrap_or_default(), parts.next().unwrap_or("0"));
    let what = parts.next().unwrap_or_default().to_owned();
    let kind = match kind {
        "kill" => Kind::Kill,
        "refuse" => Kind::Refuse,
        "lose" => Kind::Lose,
        "occupied" => Kind::Occupied,
        "unpublish" => Kind::Unpublish,
        _ => Kind::None,
    };
    let at = at.parse().unwrap_or(0);
    match File::options().create(true).append(true).open(home.join("faults.log")) {
        Ok(log) => {
            let fault = Fault { kind, at, what, changes: AtomicU64::new(0), calls: AtomicU64::new(0), log };
            drop(FAULT.set(fault));
        }
        Err(error) => tracing::error!(%error, "no fault will happen: the file faults.log cannot be written"),
    }
}

impl Fault {
    /// Whether this call is the one that is not to be made.
    fn refuses(&self, what: &str) -> bool {
        if !what.contains(&self.what) {
            return false;
        }
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let refuses = self.kind == Kind::Refuse && number == self.at;
        if refuses {
            self.note(&format!("{what} was refused"));
        }
        refuses
    }

    /// Whether what the change that was made led to is to be lost. May not return at all.
    fn loses(&self, what: &str) -> bool {
        self.note(what);
        // What SQLite says that it has not written, it has not.
        if self.kind == Kind::Lose && what == COMMIT {
            return false;
        }
        let number = self.changes.fetch_add(1, Ordering::Relaxed) + 1;
        if number != self.at {
            return false;
        }
        if self.kind == Kind::Kill {
            let died = kill_process(getpid(), Signal::KILL);
            tracing::error!(?died, "the broker should be dead");
        }
        if self.kind == Kind::Lose {
            self.note(&format!("the answer to {what} was lost"));
        }
        self.kind == Kind::Lose
    }

    /// The first port of those to be published that no runtime can have.
    fn occupied(&self, spec: &Spec) -> Option<u16> {
        let last = self.what.parse().unwrap_or(self.at);
        let mut ports = spec.publish.iter().map(|it| it.host).filter(|_| self.kind == Kind::Occupied);
        ports.find(|port| (self.at..=last).contains(&u64::from(*port)))
    }

    fn note(&self, what: &str) {
        if let Err(error) = writeln!(&self.log, "{what}") {
            tracing::error!(%error, "the file faults.log cannot be written");
        }
    }
}

/// To be asked before the ledger commits.
pub(crate) fn before_commit() -> Result<(), LedgerError> {
    match FAULT.get() {
        Some(fault) if fault.refuses(COMMIT) => {
            Err(LedgerError { reason: "a test has it so".to_owned(), disk_full: false })
        }
        // Whoever does not wait for the disk is found out by going on too early.
        Some(_) => {
            std::thread::sleep(SLOW_DISK);
            Ok(())
        }
        None => Ok(()),
    }
}

/// To be told after the ledger has committed.
pub(crate) fn after_commit() {
    if let Some(fault) = FAULT.get() {
        fault.loses(COMMIT);
    }
}

/// A runtime of which calls may fail.
pub(crate) struct Faulty(pub(crate) Arc<dyn Runtime>);

impl Faulty {
    fn question(&self, what: &str) -> Result<(), RuntimeError> {
        match FAULT.get() {
            Some(fault) if fault.refuses(&format!("{} {what}", self.0.name())) => Err(injected()),
            _ => Ok(()),
        }
    }

    async fn change<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, RuntimeError>> + Send,
    ) -> Result<T, RuntimeError> {
        self.question(what)?;
        let answer = call.await?;
        match FAULT.get() {
            Some(fault) if fault.loses(&format!("{} {what}", self.0.name())) => Err(injected()),
            _ => Ok(answer),
        }
    }
}

/// What a runtime says of itself, as this one tells it.
fn as_shown(mut observed: Option<Observed>) -> Option<Observed> {
    if let Some(observed) = &mut observed
        && FAULT.get().is_some_and(|fault| fault.kind == Kind::Unpublish)
    {
        observed.published.clear();
    }
    observed
}

fn injected() -> RuntimeError {
    RuntimeError::new(ErrorKind::Unreachable, "a test has it so")
}

#[async_trait]
impl Runtime for Faulty {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn needs_image(&self) -> bool {
        self.0.needs_image()
    }

    fn publishes(&self) -> bool {
        self.0.publishes()
    }

    fn may_publish_here(&self) -> bool {
        self.0.may_publish_here()
    }

    fn reuses_ids(&self) -> bool {
        self.0.reuses_ids()
    }

    fn tells_exit_codes(&self) -> bool {
        self.0.tells_exit_codes()
    }

    fn may_come_late(&self) -> Duration {
        self.0.may_come_late()
    }

    fn runs_on_unheard(&self) -> bool {
        self.0.runs_on_unheard()
    }

    async fn engine(&self) -> Result<EngineInfo, RuntimeError> {
        self.0.engine().await
    }

    async fn lacks(&self) -> Result<Option<RuntimeError>, RuntimeError> {
        self.0.lacks().await
    }

    async fn identity(&self) -> Result<Option<String>, RuntimeError> {
        self.0.identity().await
    }

    async fn prepare_image(&self, image: &str, progress: &dyn Progress) -> Result<(), RuntimeError> {
        self.question("prepare_image")?;
        self.0.prepare_image(image, progress).await
    }

    fn check(&self, spec: &Spec) -> Result<(), RuntimeError> {
        self.0.check(spec)
    }

    async fn create(&self, spec: &Spec) -> Result<Created, RuntimeError> {
        if let Some(port) = FAULT.get().and_then(|fault| fault.occupied(spec)) {
            return Err(RuntimeError::new(ErrorKind::PortRefused { port: Some(port) }, "a test has it so"));
        }
        self.change("create", self.0.create(spec)).await
    }

    async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        self.change("start", self.0.start(id)).await
    }

    async fn resume(&self, id: &str) -> Result<(), RuntimeError> {
        self.question("resume")?;
        self.0.resume(id).await
    }

    async fn accepts(&self, id: &str, port: u16) -> Result<Option<bool>, RuntimeError> {
        self.0.accepts(id, port).await
    }

    async fn held_ports(&self, only_here: bool) -> Result<Vec<HeldPort>, RuntimeError> {
        self.0.held_ports(only_here).await
    }

    async fn starts(&self) -> Result<Option<BoxStream<'static, String>>, RuntimeError> {
        self.0.starts().await
    }

    async fn inspect(&self, id: &str) -> Result<Option<Observed>, RuntimeError> {
        self.question("inspect")?;
        Ok(as_shown(self.0.inspect(id).await?))
    }

    async fn wait_for_end(&self, id: &str, limit: Duration) -> Result<Option<Observed>, RuntimeError> {
        // The watchers' long waits come and go at times of their own.
        if limit < Duration::from_secs(1) {
            self.question("wait_for_end")?;
        }
        Ok(as_shown(self.0.wait_for_end(id, limit).await?))
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        self.change("stop", self.0.stop(id, grace)).await
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.change("remove", self.0.remove(id)).await
    }

    async fn withdraw(&self, lease: &str) -> Result<(), RuntimeError> {
        // Elsewhere there is nothing that outlives what runs, so nothing is changed.
        if self.0.name() != "kubernetes" {
            return self.0.withdraw(lease).await;
        }
        self.change("withdraw", self.0.withdraw(lease)).await
    }

    async fn close(&self) {
        self.0.close().await;
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        self.question("list")?;
        self.0.list().await
    }

    async fn logs(&self, id: &str, request: &LogRequest) -> Result<LogStream, RuntimeError> {
        self.0.logs(id, request).await
    }

    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<Attached, RuntimeError> {
        self.0.exec(id, request).await
    }

    async fn attach(&self, id: &str, stdin: bool) -> Result<Streams, RuntimeError> {
        self.0.attach(id, stdin).await
    }
}
