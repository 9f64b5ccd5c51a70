//! From the tree of what was written to settings: every value checked, every default filled in.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use pool::{HostUrl, Label, PortRange, environment, label};

use crate::error::{Problem, SettingsError};
use crate::model::{
    Broker, Engine, Expose, Kubernetes, Listen, PortPool, RuntimeName, Runtimes, Server, Settings, Template,
};
use crate::shape::Shape;
use crate::tree::{Entry, Node, Value};

type Result<T> = std::result::Result<T, SettingsError>;

const DEFAULT_RANGE: (u16, u16) = (8000, 9000);
const DEFAULT_PORTS_PER_AGENT: u16 = 2;

/// Reads everything.
pub(crate) fn settings(root: &Node) -> Result<Settings> {
    check_keys(root, &crate::shape::ROOT, "")?;
    let root = Block::of(Some(root), "")?;
    let server = root.block("server")?;
    let broker = match server.block("broker")? {
        Block { map: None, .. } => Broker::default(),
        block => self::broker(&block)?,
    };
    let runtimes = root.block("runtimes")?;
    let mut templates = BTreeMap::new();
    let block = root.block("templates")?;
    for (name, entry) in block.map.into_iter().flatten() {
        let template = Block::of(Some(&entry.node), &block.path_to(name))?;
        templates.insert(name.clone(), self::template(&template)?);
    }
    Ok(Settings {
        server: Server { broker },
        runtimes: Runtimes {
            docker: engine(&runtimes.block("docker")?)?,
            podman: engine(&runtimes.block("podman")?)?,
            kubernetes: kubernetes(&runtimes.block("kubernetes")?)?,
        },
        templates,
    })
}

fn broker(block: &Block<'_>) -> Result<Broker> {
    let default = Broker::default();
    let reconcile = block.get("reconcile_interval");
    let reconcile_interval = reconcile.duration()?.unwrap_or(default.reconcile_interval);
    if reconcile_interval.is_zero() {
        return Err(reconcile.wrong("must be more than 0", Some("write a duration such as 10s")));
    }
    Ok(Broker {
        listen: listen(&block.get("listen"))?,
        auto_start: block.get("auto_start").truth()?.unwrap_or(default.auto_start),
        port_pool: match block.map.and_then(|map| map.get("port_pool")) {
            Some(_) => port_pool(&block.block("port_pool")?)?,
            None => None,
        },
        default_runtime: runtime(&block.get("default_runtime"))?,
        reconcile_interval,
        stop_timeout: block.get("stop_timeout").duration()?.unwrap_or(default.stop_timeout),
    })
}

fn listen(field: &Field<'_>) -> Result<Listen> {
    let Some(text) = field.scalar()? else { return Ok(Listen::Default) };
    if text == "none" {
        return Ok(Listen::None);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Listen::Address(address));
    }
    let after = text.strip_prefix("localhost:").or_else(|| text.strip_prefix(':')).unwrap_or(&text);
    let hint = match after.parse::<u16>() {
        Ok(port) => format!("write \"127.0.0.1:{port}\""),
        Err(_) => "write an address and a port such as \"127.0.0.1:9800\", or none".to_owned(),
    };
    Err(field.wrong(&format!("is `{text}`, which is neither an address with a port nor `none`"), Some(&hint)))
}

fn port_pool(block: &Block<'_>) -> Result<Option<PortPool>> {
    let range_field = block.get("range");
    let default = || {
        let [low, high] = [DEFAULT_RANGE.0, DEFAULT_RANGE.1].map(pool::Port::new);
        low.zip(high)
            .and_then(|(low, high)| PortRange::new(low, high).ok())
            .expect("8000-9000 is a range of ports")
    };
    let range = range_field.parsed::<PortRange>()?.unwrap_or_else(default);
    let mut exclude = Vec::new();
    for item in block.get("exclude").list()? {
        exclude.extend(item.parsed::<PortRange>()?);
    }
    let excluded = |port: pool::Port| exclude.iter().any(|range: &PortRange| range.contains(port));
    let size = range.ports().filter(|port| !excluded(*port)).count();
    if size == 0 {
        let why = format!("leaves no port of the range {range}");
        return Err(block.get("exclude").wrong(&why, Some("exclude fewer ports, or widen the range")));
    }
    let ports_per_agent = ports_per_agent(block, &range_field, size)?;
    let host_url = block.get("host_url").parsed::<HostUrl>()?;
    let bind = block.get("bind_address");
    let hint = "write an IP address such as 127.0.0.1, 0.0.0.0 or \"::1\"";
    let bind_address = match bind.scalar()? {
        Some(text) => text
            .parse()
            .map_err(|_| bind.wrong(&format!("is `{text}`, which is no IP address"), Some(hint)))?,
        None if host_url.as_ref().is_some_and(|url| !url.is_loopback()) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let pool = PortPool {
        range,
        ports_per_agent,
        host_url,
        exclude,
        bind_address,
        cool_down: block.get("cool_down").duration()?.unwrap_or_default(),
        env_aliases: env_aliases(&block.get("env_aliases"))?,
    };
    Ok(block.get("enabled").truth()?.unwrap_or(true).then_some(pool))
}

/// Checked against the size of the pool, and blamed on whichever of the two was written.
fn ports_per_agent(block: &Block<'_>, range: &Field<'_>, size: usize) -> Result<u16> {
    let field = block.get("ports_per_agent");
    match field.count()? {
        Some(count) if usize::from(count) > size => {
            let why = format!("is {count}, but the pool holds only {size} ports");
            Err(field.wrong(&why, Some("ask for fewer ports, or widen the range")))
        }
        Some(count) => Ok(count),
        None if usize::from(DEFAULT_PORTS_PER_AGENT) > size => {
            let why = format!("leaves too few ports: {size}, where an agent gets {DEFAULT_PORTS_PER_AGENT}");
            let blamed = if range.node.is_some() { range } else { &block.get("exclude") };
            Err(blamed.wrong(&why, Some("widen the range, or set ports_per_agent to less")))
        }
        None => Ok(DEFAULT_PORTS_PER_AGENT),
    }
}

fn env_aliases(field: &Field<'_>) -> Result<BTreeMap<String, Label>> {
    let mut aliases = BTreeMap::new();
    for (name, entry) in field.map()? {
        let item = Field { node: Some(&entry.node), path: format!("{}.{name}", field.path) };
        check_variable(name, entry, &item)?;
        let label = item.parsed::<Label>()?;
        let hint = "write a label, A to ZZ";
        aliases.insert(name.clone(), label.ok_or_else(|| item.wrong("has no label", Some(hint)))?);
    }
    Ok(aliases)
}

fn check_variable(name: &str, entry: &Entry, field: &Field<'_>) -> Result<()> {
    let wrong = |why: &str, hint: &str| {
        let problem =
            Problem::Wrong { key: field.path.clone(), why: why.to_owned(), hint: Some(hint.to_owned()) };
        Err(SettingsError::new(problem, entry.key.clone()))
    };
    if environment::is_reserved(name) {
        return wrong(
            "is a variable that only Berthold sets",
            "choose a name that does not start with AVAILABLE_LOCALHOST_ or BERTHOLD_",
        );
    }
    let is_name = !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        return wrong("is not a name of a variable", "use letters, digits and _, and no digit first");
    }
    Ok(())
}

fn engine(block: &Block<'_>) -> Result<Engine> {
    let field = block.get("host");
    let Some(host) = field.scalar()? else { return Ok(Engine::default()) };
    let schemes = ["unix://", "tcp://", "http://", "https://", "ssh://", "npipe://", "/"];
    if !schemes.iter().any(|scheme| host.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty())) {
        let hint = "write unix:///PATH, tcp://HOST:PORT, or the absolute path of a socket";
        return Err(field.wrong(&format!("is `{host}`, which is no endpoint of an engine"), Some(hint)));
    }
    Ok(Engine { host: Some(host) })
}

fn kubernetes(block: &Block<'_>) -> Result<Kubernetes> {
    let default = Kubernetes::default();
    let text = |name: &str| block.get(name).scalar().map(|text| text.filter(|text| !text.is_empty()));
    let expose = block.get("expose");
    Ok(Kubernetes {
        context: text("context")?,
        namespace: text("namespace")?.unwrap_or(default.namespace),
        expose: match expose.scalar()? {
            None => default.expose,
            Some(text) => one_of(&expose, &text, Expose::ALL.map(|expose| (expose.as_str(), expose)))?,
        },
    })
}

fn template(block: &Block<'_>) -> Result<Template> {
    let texts = |name: &str| -> Result<Vec<String>> {
        let items = block.get(name).list()?;
        items.iter().map(|item| item.scalar().map(Option::unwrap_or_default)).collect()
    };
    let env_field = block.get("env");
    let mut env = BTreeMap::new();
    for (name, entry) in env_field.map()? {
        let item = Field { node: Some(&entry.node), path: format!("{}.{name}", env_field.path) };
        check_variable(name, entry, &item)?;
        env.insert(name.clone(), item.scalar()?.unwrap_or_default());
    }
    for item in block.get("volumes").list()? {
        let text = item.scalar()?.unwrap_or_default();
        let parts: Vec<&str> = text.split(':').collect();
        let is_volume = matches!(parts[..], [source, target] | [source, target, "ro" | "rw"]
            if !source.is_empty() && target.starts_with('/'));
        if !is_volume {
            let hint = "write SRC:DST or SRC:DST:ro, where DST is an absolute path";
            return Err(item.wrong(&format!("is `{text}`, which is no volume"), Some(hint)));
        }
    }
    let text = |name: &str| block.get(name).scalar().map(|text| text.filter(|text| !text.is_empty()));
    Ok(Template {
        image: text("image")?,
        command: texts("command")?,
        env,
        volumes: texts("volumes")?,
        network: text("network")?,
        runtime: runtime(&block.get("runtime"))?,
        ports: block.get("ports").count()?,
        workspace: text("workspace")?,
    })
}

fn runtime(field: &Field<'_>) -> Result<Option<RuntimeName>> {
    let Some(text) = field.scalar()? else { return Ok(None) };
    one_of(field, &text, RuntimeName::ALL.map(|name| (name.as_str(), name))).map(Some)
}

fn one_of<T: Copy, const N: usize>(field: &Field<'_>, text: &str, choices: [(&str, T); N]) -> Result<T> {
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*choice);
    }
    let names = choices.map(|(name, _)| name);
    let hint = match nearest(text, names.into_iter()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("write one of {}", names.join(", ")),
    };
    Err(field.wrong(&format!("is `{text}`, which is not one of {}", names.join(", ")), Some(&hint)))
}

/// The candidate that `given` was probably meant to be.
pub(crate) fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = candidates.map(|candidate| (strsim::damerau_levenshtein(given, candidate), candidate));
    scored.filter(|(distance, _)| *distance <= 1 + given.len() / 3).min().map(|(_, candidate)| candidate)
}

/// Tells keys that there are not.
fn check_keys(node: &Node, shape: &Shape, path: &str) -> Result<()> {
    let Value::Map(map) = &node.value else { return Ok(()) };
    for (name, entry) in map {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match shape {
            Shape::Leaf(_) => {}
            Shape::Named(shape) => check_keys(&entry.node, shape, &below)?,
            Shape::Block(keys) => match keys.iter().find(|key| key.name == name) {
                Some(key) => check_keys(&entry.node, &key.shape, &below)?,
                None => {
                    let nearest = nearest(name, keys.iter().map(|key| key.name)).map(str::to_owned);
                    let known = keys.iter().map(|key| key.name.to_owned()).collect();
                    let problem =
                        Problem::UnknownKey { key: name.clone(), parent: path.to_owned(), nearest, known };
                    return Err(SettingsError::new(problem, entry.key.clone()));
                }
            },
        }
    }
    Ok(())
}

/// A block of keys, or none where it was not written or left empty.
struct Block<'a> {
    map: Option<&'a BTreeMap<String, Entry>>,
    path: String,
}

impl<'a> Block<'a> {
    fn of(node: Option<&'a Node>, path: &str) -> Result<Self> {
        let map = match node.map(|node| (&node.value, node)) {
            None | Some((Value::Null, _)) => None,
            Some((Value::Map(map), _)) => Some(map),
            Some((_, node)) => {
                let what = if path.is_empty() { "the file" } else { path };
                let why = format!("must be a block of keys, not {}", node.kind());
                let hint = Some("write `key: value` lines, indented below it".to_owned());
                let problem = Problem::Wrong { key: what.to_owned(), why, hint };
                return Err(SettingsError::new(problem, node.place.clone()));
            }
        };
        Ok(Self { map, path: path.to_owned() })
    }

    fn path_to(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn node(&self, name: &str) -> Option<&'a Node> {
        self.map.and_then(|map| map.get(name)).map(|entry| &entry.node)
    }

    fn block(&self, name: &str) -> Result<Block<'a>> {
        Block::of(self.node(name), &self.path_to(name))
    }

    fn get(&self, name: &str) -> Field<'a> {
        let node = self.node(name).filter(|node| !matches!(node.value, Value::Null));
        Field { node, path: self.path_to(name) }
    }
}

/// A single setting, or none where it was not written or left empty.
struct Field<'a> {
    node: Option<&'a Node>,
    path: String,
}

impl<'a> Field<'a> {
    fn wrong(&self, why: &str, hint: Option<&str>) -> SettingsError {
        let problem =
            Problem::Wrong { key: self.path.clone(), why: why.to_owned(), hint: hint.map(str::to_owned) };
        match self.node {
            Some(node) => SettingsError::new(problem, node.place.clone()),
            None => SettingsError::without_place(problem),
        }
    }

    /// The value as text, whatever scalar it is.
    fn scalar(&self) -> Result<Option<String>> {
        let Some(node) = self.node else { return Ok(None) };
        match &node.value {
            Value::Null => Ok(None),
            Value::Bool(value) => Ok(Some(value.to_string())),
            Value::Integer(value) => Ok(Some(value.to_string())),
            Value::Float(value) => Ok(Some(value.to_string())),
            Value::Text(text) => Ok(Some(text.clone())),
            Value::List(_) | Value::Map(_) => {
                Err(self.wrong(&format!("must be a single value, not {}", node.kind()), None))
            }
        }
    }

    /// A value whose own type says what is wrong with it.
    fn parsed<T: std::str::FromStr<Err: Display>>(&self) -> Result<Option<T>> {
        let Some(text) = self.scalar()? else { return Ok(None) };
        text.parse().map(Some).map_err(|error: T::Err| self.wrong(&format!("is wrong: {error}"), None))
    }

    fn truth(&self) -> Result<Option<bool>> {
        match self.node.map(|node| &node.value) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => {
                let text = self.scalar()?.unwrap_or_default();
                match text.as_str() {
                    "true" => Ok(Some(true)),
                    "false" => Ok(Some(false)),
                    _ => Err(self.wrong(
                        &format!("is `{text}`, which is neither true nor false"),
                        Some("write true or false"),
                    )),
                }
            }
        }
    }

    /// A number of ports of an agent.
    fn count(&self) -> Result<Option<u16>> {
        let Some(text) = self.scalar()? else { return Ok(None) };
        let most = label::LABEL_COUNT;
        let hint = format!("write a whole number from 0 to {most}");
        match text.parse::<i128>() {
            Err(_) => Err(self.wrong(&format!("is `{text}`, which is not a whole number"), Some(&hint))),
            Ok(number) => match u16::try_from(number) {
                Ok(count) if count <= most => Ok(Some(count)),
                _ => {
                    Err(self
                        .wrong(&format!("is {number}, but an agent can have 0 to {most} ports"), Some(&hint)))
                }
            },
        }
    }

    fn duration(&self) -> Result<Option<Duration>> {
        let Some(text) = self.scalar()? else { return Ok(None) };
        if text == "0" {
            return Ok(Some(Duration::ZERO));
        }
        if text.parse::<f64>().is_ok() {
            let hint = format!("write the unit too, such as {text}s");
            return Err(self.wrong(&format!("is `{text}`, which has no unit"), Some(&hint)));
        }
        let hint = "write a duration such as 10s, 500ms or 1m 30s";
        let parsed = humantime::parse_duration(&text);
        parsed
            .map(Some)
            .map_err(|error| self.wrong(&format!("is `{text}`, which is no duration: {error}"), Some(hint)))
    }

    fn list(&self) -> Result<Vec<Field<'a>>> {
        let Some(node) = self.node else { return Ok(Vec::new()) };
        match &node.value {
            Value::List(items) => {
                let item = |(index, node): (usize, &'a Node)| Field {
                    node: Some(node),
                    path: format!("{}[{index}]", self.path),
                };
                Ok(items.iter().enumerate().map(item).collect())
            }
            _ => {
                let text = self.scalar().ok().flatten();
                let hint =
                    text.map_or_else(|| "write it like [a, b]".to_owned(), |text| format!("write [{text}]"));
                Err(self.wrong(&format!("must be a list, not {}", node.kind()), Some(&hint)))
            }
        }
    }

    fn map(&self) -> Result<impl Iterator<Item = (&'a String, &'a Entry)>> {
        let block = Block::of(self.node, &self.path)?;
        Ok(block.map.into_iter().flatten())
    }
}
