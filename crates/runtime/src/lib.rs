//! What runs agents: one trait, and a module for each runtime.
//!
//! A runtime knows containers (or processes) and nothing of leases: it is told which ports to publish and which
//! labels to keep, and says truthfully what is there. Who may have which port is decided elsewhere.

mod asked_once;
mod child;
pub mod container;
pub mod docker;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod model;
pub mod podman;
pub mod process;

pub use error::{ErrorKind, RuntimeError};
pub use model::{
    Attached, Console, Created, EngineInfo, ExecRequest, HeldPort, LogRequest, LogStream, Network,
    NoProgress, Observed, ObservedState, Output, Progress, Publish, Spec, Streams, TerminalSize, Volume,
};

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

/// What [`Runtime::list`] goes by: the label whose value is the broker's id.
pub(crate) const BROKER_LABEL: &str = "berthold.broker";
/// By which a holder of ports is told to be an agent: the label whose value is its lease's id.
pub(crate) const LEASE_LABEL: &str = "berthold.lease";

/// Something that runs agents.
///
/// Every call may be repeated: creating apart, doing what is done already succeeds. No call leaves anything
/// behind when it fails, except [`Runtime::start`], after which the caller removes what it created.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// The name by which settings and `--runtime` call it: `docker`, `process`, …
    fn name(&self) -> &'static str;

    /// Whether agents run from images; otherwise they need a command.
    fn needs_image(&self) -> bool;

    /// Whether ports are published at all. Where they are not, agents are only told their numbers.
    fn publishes(&self) -> bool {
        true
    }

    /// Whether what it publishes on a loopback address may be of this host although its ports are not probed here, as where this host is a
    /// node of a cluster, or has its API server.
    fn may_publish_here(&self) -> bool {
        false
    }

    /// Whether the id of what is gone may become that of something else: where a name is the id.
    fn reuses_ids(&self) -> bool {
        false
    }

    /// Whether it tells with which code something ended.
    fn tells_exit_codes(&self) -> bool {
        true
    }

    /// For how long what was asked for, and not answered, may still come to be, where what is created runs without being started. Zero
    /// where it does not: until it is started it holds nothing.
    fn may_come_late(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether what runs there goes on holding ports while it does not answer, as pods do without their API server.
    fn runs_on_unheard(&self) -> bool {
        false
    }

    /// Asks whether it answers, and what it is.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`], with what to do about it as the hint.
    async fn engine(&self) -> Result<EngineInfo, RuntimeError>;

    /// What the broker's user may not do there that agents need, if it answers and there is anything.
    ///
    /// # Errors
    /// If it could not be asked.
    async fn lacks(&self) -> Result<Option<RuntimeError>, RuntimeError> {
        Ok(None)
    }

    /// What tells this engine from any other that may answer under the same name one day (another socket, another context), and stays as
    /// it is when the engine is restarted; none if it has nothing of the kind, or does not tell.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`]
    async fn identity(&self) -> Result<Option<String>, RuntimeError> {
        Ok(None)
    }

    /// Sees to it that `image` is there, pulling it if need be; tells `progress` how far it is.
    ///
    /// # Errors
    /// [`ErrorKind::Image`] with the registry's reason.
    async fn prepare_image(&self, image: &str, progress: &dyn Progress) -> Result<(), RuntimeError>;

    /// What it certainly cannot do of this, told without doing or asking anything.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`], with what to leave out as the hint.
    fn check(&self, _spec: &Spec) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Creates the agent without starting it.
    ///
    /// # Errors
    /// [`ErrorKind::NameTaken`] if something of that name is there; [`ErrorKind::Unsupported`] naming what this
    /// runtime cannot do; [`ErrorKind::Image`] if the image is not there.
    async fn create(&self, spec: &Spec) -> Result<Created, RuntimeError>;

    /// Starts what [`Runtime::create`] made, and publishes its ports.
    ///
    /// # Errors
    /// [`ErrorKind::PortRefused`] if the engine cannot have one of the ports; [`ErrorKind::Command`] if the
    /// command cannot be run.
    async fn start(&self, id: &str) -> Result<(), RuntimeError>;

    /// Takes up again what this process itself does for a running agent: after the broker was restarted, its ports may have to
    /// be published anew. Does nothing if all is in place.
    ///
    /// # Errors
    /// As [`Runtime::start`]; the agent goes on running.
    async fn resume(&self, _id: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Whether something in a running agent accepts connections on `port`, where a connection to the published port cannot tell:
    /// where it is this process that accepts those. Else none.
    ///
    /// # Errors
    /// If the runtime could not be asked.
    async fn accepts(&self, _id: &str, _port: u16) -> Result<Option<bool>, RuntimeError> {
        Ok(None)
    }

    /// Ports that something on this runtime holds and that no socket of this host need show; with `only_here`, those of this
    /// host alone are of interest, and where there can be none the answer need not be new.
    ///
    /// # Errors
    /// If the runtime could not be asked.
    async fn held_ports(&self, _only_here: bool) -> Result<Vec<HeldPort>, RuntimeError> {
        Ok(Vec::new())
    }

    /// Tells of every agent that is started from now on, by whomever, with the value of its label `berthold.lease`. It ends when
    /// the runtime cannot be listened to any more. None if the runtime does not tell by itself.
    ///
    /// # Errors
    /// If the runtime could not be asked.
    async fn starts(&self) -> Result<Option<BoxStream<'static, String>>, RuntimeError> {
        Ok(None)
    }

    /// What is there under this id or name; none if nothing is.
    ///
    /// # Errors
    /// If the runtime could not be asked: then nothing is known.
    async fn inspect(&self, id: &str) -> Result<Option<Observed>, RuntimeError>;

    /// Waits until it no longer runs, at most for `limit`; then like [`Runtime::inspect`].
    ///
    /// # Errors
    /// If the runtime could not be asked.
    async fn wait_for_end(&self, id: &str, limit: Duration) -> Result<Option<Observed>, RuntimeError>;

    /// Stops it: asks it to end, and after `grace` ends it by force. Returns once it holds no port any more.
    ///
    /// # Errors
    /// If that could not be confirmed.
    async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError>;

    /// Removes it with all that it left, ending it by force if it runs. Returns once it is gone.
    ///
    /// # Errors
    /// If that could not be confirmed.
    async fn remove(&self, id: &str) -> Result<(), RuntimeError>;

    /// Takes back what was reserved for the lease of that id beside an agent, such as a Service: whoever ends a lease calls it once
    /// nothing else is there under it. An agent that someone else removed, or that never came to be, may have left it.
    ///
    /// # Errors
    /// If that could not be confirmed.
    async fn withdraw(&self, _lease: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Everything with the label `berthold.broker`, in whatever state.
    ///
    /// # Errors
    /// If the listing is not complete, for whatever reason: an incomplete one is never returned.
    async fn list(&self) -> Result<Vec<Observed>, RuntimeError>;

    /// Ends what this process runs for the runtime, such as a service of it, and nothing of the agents. Nothing is asked of it
    /// afterwards.
    async fn close(&self) {}

    /// What it wrote on its standard output and error.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if nothing is there.
    async fn logs(&self, id: &str, request: &LogRequest) -> Result<LogStream, RuntimeError>;

    /// Runs one more command beside the agent, with its variables.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::NotRunning`], [`ErrorKind::Command`].
    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<Attached, RuntimeError>;

    /// Attaches to the standard streams of a running agent; with `stdin` also to its input, where that is kept open. What it
    /// wrote before is not among its output. Several may be attached at once, and going away ends nothing but the attachment.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::NotRunning`]; [`ErrorKind::Unsupported`] where it cannot be done.
    async fn attach(&self, id: &str, stdin: bool) -> Result<Streams, RuntimeError>;
}
