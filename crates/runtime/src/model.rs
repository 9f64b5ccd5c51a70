//! What a runtime is asked for and what it answers, in the words of all runtimes alike.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::RuntimeError;

/// What to create.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spec {
    /// The name on the runtime, unique there.
    pub name: String,
    /// The image; none for runtimes that have none.
    pub image: Option<String>,
    /// The command with its arguments; empty for the image's own.
    pub command: Vec<String>,
    /// Variables, later ones winning.
    pub env: Vec<(String, String)>,
    /// Labels, kept as they are and given back by [`crate::Runtime::list`].
    pub labels: BTreeMap<String, String>,
    /// What is mounted.
    pub volumes: Vec<Volume>,
    /// The directory inside in which the command starts; none for the image's own.
    pub workdir: Option<String>,
    /// What its standard streams are.
    pub console: Console,
    /// The network.
    pub network: Network,
    /// The ports to publish, each with the same number inside. Ignored with [`Network::Host`].
    pub publish: Vec<Publish>,
    /// The ports that it binds on its host by itself, as with [`Network::Host`]: nothing publishes them, and no one else must get them.
    pub binds: Vec<u16>,
}

impl Spec {
    /// The numbers that are its own on whatever publishes them or has it bind them.
    pub fn numbers(&self) -> impl Iterator<Item = u16> {
        self.publish.iter().map(|port| port.host).chain(self.binds.iter().copied())
    }
}

/// What the standard streams of an agent are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Console {
    /// Whether its standard input is kept open, for [`crate::Runtime::attach`]; else it reads nothing.
    pub stdin: bool,
    /// Whether they are a terminal, which makes one stream of its output.
    pub terminal: bool,
}

/// A port to publish, or one that is published.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Publish {
    /// The host's address on which it is published.
    pub address: IpAddr,
    /// The number on the host.
    pub host: u16,
    /// The number inside.
    pub container: u16,
}

/// A mount of a host directory or a named volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    /// An absolute path on the host, or the name of a volume.
    pub source: String,
    /// The absolute path inside.
    pub target: String,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}

/// The network of an agent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Network {
    /// The runtime's usual one.
    #[default]
    Default,
    /// The host's own: nothing is published, the agent binds the host's ports itself.
    Host,
    /// None at all.
    None,
    /// One of that name, or another mode of the engine's such as `container:ID`.
    Named(String),
}

impl Network {
    /// The network that `--network TEXT` means; empty for the default.
    pub fn parse(text: &str) -> Self {
        match text {
            "" | "default" => Self::Default,
            "host" => Self::Host,
            "none" => Self::None,
            name => Self::Named(name.to_owned()),
        }
    }

    /// Whether ports can be published from it.
    pub fn publishes(&self) -> bool {
        match self {
            Self::Default => true,
            Self::Host | Self::None => false,
            Self::Named(name) => !name.starts_with("container:"),
        }
    }
}

/// What [`crate::Runtime::create`] made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Created {
    /// The runtime's id of it.
    pub id: String,
    /// What the runtime warned of.
    pub warnings: Vec<String>,
}

/// What a runtime says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineInfo {
    /// Its version, such as `28.2.2`.
    pub version: String,
    /// Where it was found, such as `unix:///var/run/docker.sock`.
    pub endpoint: String,
}

/// A port that something on a runtime holds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HeldPort {
    /// Its number.
    pub port: u16,
    /// Who holds it, for a person.
    pub by: String,
    /// Whether it is a port of this host, and not only of others of the runtime.
    pub is_here: bool,
    /// The label `berthold.lease` of the holder, if it has one.
    pub lease: Option<String>,
}

/// What is there on a runtime.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observed {
    /// The runtime's id.
    pub id: String,
    /// The name on the runtime.
    pub name: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// What it is doing.
    pub state: ObservedState,
    /// The image, where there is one.
    pub image: Option<String>,
    /// The ports that the runtime says are published now. Empty while it does not run.
    pub published: Vec<Publish>,
}

/// What something on a runtime is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ObservedState {
    /// Created, never started.
    Created,
    /// Running, paused, or about to be started again by the runtime itself.
    Running {
        /// Since when, where that is known.
        since: Option<Timestamp>,
    },
    /// Ended.
    Exited {
        /// The exit code, 128 + n for signal n; none if no one was there to see it.
        code: Option<i64>,
        /// When it ended, where that is known.
        at: Option<Timestamp>,
        /// What the runtime adds, such as that memory ran out or that the command was not found.
        detail: Option<String>,
    },
}

/// Which part of a log is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogRequest {
    /// Only the last so many lines.
    pub tail: Option<usize>,
    /// Whether to go on with what is written later, until the agent ends.
    pub follow: bool,
}

/// A piece of what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// On standard output; everything, with a terminal.
    Stdout(Bytes),
    /// On standard error.
    Stderr(Bytes),
}

/// What was written, in order.
pub type LogStream = BoxStream<'static, Result<Output, RuntimeError>>;

/// A command to run beside an agent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExecRequest {
    /// The command with its arguments; not empty.
    pub command: Vec<String>,
    /// Further variables.
    pub env: Vec<(String, String)>,
    /// The directory inside; none for the agent's own.
    pub workdir: Option<PathBuf>,
    /// Whether standard input is forwarded.
    pub stdin: bool,
    /// A terminal of that size, or none.
    pub terminal: Option<TerminalSize>,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TerminalSize {
    /// Width.
    pub columns: u16,
    /// Height.
    pub rows: u16,
}

/// The other ends of standard streams.
pub struct Streams {
    /// What is written; ends when the writer has ended.
    pub output: LogStream,
    /// The standard input, if that was asked for and is open; dropping the sender closes it. The runtime receives; the bound
    /// keeps a fast writer from filling memory.
    pub input: Option<mpsc::Sender<Bytes>>,
    /// New sizes of the terminal, if there is one; the runtime receives.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
}

/// The ends of a command that runs beside an agent.
pub struct Attached {
    /// Its standard streams.
    pub streams: Streams,
    /// The exit code, to be awaited after the output has ended.
    pub exit: futures_util::future::BoxFuture<'static, Result<i64, RuntimeError>>,
}

/// Is told how far a long piece of work is.
pub trait Progress: Send + Sync {
    /// One short line for a person; replaces the one before. With `current` and `total` (bytes) where known.
    fn report(&self, message: &str, current: Option<u64>, total: Option<u64>);
}

/// Listens to no progress.
pub struct NoProgress;

impl Progress for NoProgress {
    fn report(&self, _message: &str, _current: Option<u64>, _total: Option<u64>) {}
}
