//! The settings as the rest of Berthold uses them: checked, with every default filled in.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pool::environment::UrlForms;
use pool::{HostUrl, Label, PortRange, PreviewUrl};

/// All settings. [`Settings::default`] is what an empty file means.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Settings {
    /// What concerns the server.
    pub server: Server,
    /// Where the runtimes are.
    pub runtimes: Runtimes,
    /// What `--template` can name.
    pub templates: BTreeMap<String, Template>,
}

/// What concerns the server.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Server {
    /// What concerns the broker.
    pub broker: Broker,
}

/// What concerns the broker.
#[derive(Clone, PartialEq, Debug)]
pub struct Broker {
    /// Where the API listens besides the Unix socket.
    pub listen: Listen,
    /// With what `listen` speaks TLS; plain HTTP without.
    pub tls: Option<Tls>,
    /// Whether a command that needs a broker starts one.
    pub auto_start: bool,
    /// The pool of ports; none if it is absent or switched off.
    pub port_pool: Option<PortPool>,
    /// The runtime of an agent that names none; the first container engine that answers if not set.
    pub default_runtime: Option<RuntimeName>,
    /// How often the broker compares its ledger with the runtimes.
    pub reconcile_interval: Duration,
    /// Under which name previews ask an agent's server.
    pub preview_host: PreviewHost,
    /// How long an agent has to end by itself when it is stopped.
    pub stop_timeout: Duration,
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            listen: Listen::Default,
            tls: None,
            auto_start: true,
            port_pool: None,
            default_runtime: None,
            reconcile_interval: Duration::from_secs(10),
            preview_host: PreviewHost::Keep,
            stop_timeout: Duration::from_secs(10),
        }
    }
}

/// Where the API listens besides the Unix socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listen {
    /// On 127.0.0.1:9800, or on another free port if that is taken.
    Default,
    /// Nowhere.
    None,
    /// Here; it is an error if that is taken.
    Address(SocketAddr),
}

/// The files with which `listen` speaks TLS, both in PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// The certificate, followed by those that sign it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The pool of ports.
#[derive(Clone, PartialEq, Debug)]
pub struct PortPool {
    /// The ports from which leases are granted.
    pub range: PortRange,
    /// How many ports an agent gets that asks for none in particular: 0–702, and no more than the pool holds.
    pub ports_per_agent: u16,
    /// Where people find this host.
    pub host_url: Option<HostUrl>,
    /// The pattern of the URLs of previews, where something leads a domain to the broker.
    pub preview_url: Option<PreviewUrl>,
    /// What is left out of the range.
    pub exclude: Vec<PortRange>,
    /// The address on which ports are published.
    pub bind_address: IpAddr,
    /// For how long a released port is handed out only if nothing else is left.
    pub cool_down: Duration,
    /// Whether idle ports are kept from being taken by accident.
    pub guards: bool,
    /// Further names of variables, and the label whose port each gets.
    pub env_aliases: BTreeMap<String, Label>,
}

impl PortPool {
    /// From what the URLs of an agent's ports are made.
    pub fn url_forms(&self) -> UrlForms<'_> {
        UrlForms { preview_url: self.preview_url.as_ref(), host_url: self.host_url.as_ref() }
    }
}

/// What runs agents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RuntimeName {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// Apple's `container`.
    Container,
    /// Kubernetes.
    Kubernetes,
    /// Plain processes of this host.
    Process,
}

impl RuntimeName {
    /// All of them, in the order in which a default is looked for.
    pub const ALL: [Self; 5] = [Self::Docker, Self::Podman, Self::Container, Self::Kubernetes, Self::Process];

    /// The name as settings and commands have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Container => "container",
            Self::Kubernetes => "kubernetes",
            Self::Process => "process",
        }
    }
}

impl fmt::Display for RuntimeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no runtime of that name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no runtime `{0}`; there are docker, podman, container, kubernetes and process")]
pub struct UnknownRuntime(pub String);

impl FromStr for RuntimeName {
    type Err = UnknownRuntime;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|name| name.as_str() == text)
            .ok_or_else(|| UnknownRuntime(text.to_owned()))
    }
}

/// Where the runtimes are.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Runtimes {
    /// Docker.
    pub docker: Engine,
    /// Podman.
    pub podman: Engine,
    /// Kubernetes.
    pub kubernetes: Kubernetes,
}

/// Where an engine listens.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Engine {
    /// Its URL or the path of its socket; found as its own command would find it if not set.
    pub host: Option<String>,
}

/// How Kubernetes is reached, and how its agents' ports are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kubernetes {
    /// The context of the kubeconfig; its current one if not set.
    pub context: Option<String>,
    /// The namespace of the agents.
    pub namespace: String,
    /// How ports are reached.
    pub expose: Expose,
    /// How long a pod may take until it runs.
    pub start_timeout: Duration,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            context: None,
            namespace: "default".to_owned(),
            expose: Expose::Forward,
            start_timeout: Duration::from_secs(120),
        }
    }
}

/// How the ports of an agent on Kubernetes are reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expose {
    /// The broker listens and forwards.
    Forward,
    /// By the pod's `hostPort`.
    HostPort,
    /// By a Service.
    NodePort,
    /// Not at all.
    None,
}

impl Expose {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Forward, Self::HostPort, Self::NodePort, Self::None];

    /// The word as the settings have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::HostPort => "host_port",
            Self::NodePort => "node_port",
            Self::None => "none",
        }
    }
}

/// Under which name previews ask an agent's server, which may refuse names that it does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PreviewHost {
    /// The preview's own, as the browser has it.
    #[default]
    Keep,
    /// `localhost` with the port, also in what else says where the browser is.
    Localhost,
}

impl PreviewHost {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Keep, Self::Localhost];

    /// The word as the settings have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Localhost => "localhost",
        }
    }
}

/// What `--template` fills in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Template {
    /// The image.
    pub image: Option<String>,
    /// The command with its arguments.
    pub command: Vec<String>,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// Mounts, `SRC:DST[:ro]`.
    pub volumes: Vec<String>,
    /// The network.
    pub network: Option<String>,
    /// The runtime.
    pub runtime: Option<RuntimeName>,
    /// How many ports.
    pub ports: Option<u16>,
    /// A host directory that is mounted under its own path and in which the command starts.
    pub workspace: Option<String>,
    /// Whether its standard input is kept open.
    pub interactive: Option<bool>,
    /// Whether it gets a terminal.
    pub terminal: Option<bool>,
}
