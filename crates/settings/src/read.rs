//! From the tree of what was written to settings: every value checked, every default filled in.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use pool::{Name, environment};

use crate::endpoint::engine;
use crate::field::{Block, Field, Result};
use crate::keys::{self, nearest};
use crate::model::{
    Broker, Expose, Kubernetes, Listen, PreviewHost, RuntimeName, Runtimes, Server, Settings, Template, Tls,
};
use crate::port_pool::port_pool;
use crate::tree::{Node, Place};

/// The port of the API where an address comes without one.
const API_PORT: u16 = 9800;

/// Reads everything.
pub(crate) fn settings(root: &Node) -> Result<Settings> {
    keys::check(root)?;
    let root = Block::of(Some(root), "")?;
    let runtimes = root.block("runtimes")?;
    let mut templates = BTreeMap::new();
    for template in root.block("templates")?.blocks() {
        let (name, block) = template?;
        templates.insert(name.clone(), self::template(&block)?);
    }
    Ok(Settings {
        server: Server { broker: broker(&root.block("server")?.block("broker")?)? },
        runtimes: Runtimes {
            docker: engine(&runtimes.block("docker")?, "/tmp/docker.sock:/var/run/docker.sock")?,
            podman: engine(&runtimes.block("podman")?, "/tmp/podman.sock:/run/podman/podman.sock")?,
            kubernetes: kubernetes(&runtimes.block("kubernetes")?)?,
        },
        templates,
    })
}

fn broker(block: &Block<'_>) -> Result<Broker> {
    let default = Broker::default();
    let field = block.get("preview_host");
    let preview_host = match field.scalar()? {
        None => default.preview_host,
        Some(text) => one_of(&field, &text, PreviewHost::ALL.map(|host| (host.as_str(), host)))?,
    };
    let reconcile = block.get("reconcile_interval");
    let reconcile_interval = reconcile.duration()?.unwrap_or(default.reconcile_interval);
    if reconcile_interval.is_zero() {
        return Err(reconcile.wrong("must be more than 0", Some("write a duration such as 10s")));
    }
    let listen = listen(&block.get("listen"))?;
    let port_pool = match block.written_block("port_pool")? {
        Some(block) => port_pool(&block)?,
        None => None,
    };
    let preview_url = block.block("port_pool")?.get("preview_url");
    if preview_url.place().is_some() && !matches!(listen, Listen::Address(_)) {
        let why = "leads a domain to the broker, but it has no fixed address to lead to";
        return Err(preview_url.wrong(why, Some("set server.broker.listen too, such as \"127.0.0.1:9800\"")));
    }
    Ok(Broker {
        listen,
        tls: tls(&block.block("tls")?)?,
        auto_start: block.get("auto_start").truth()?.unwrap_or(default.auto_start),
        port_pool,
        default_runtime: runtime(&block.get("default_runtime"))?,
        reconcile_interval,
        preview_host,
        stop_timeout: block.get("stop_timeout").duration()?.unwrap_or(default.stop_timeout),
    })
}

/// Both files or none. Whether they are any good is seen when they are opened.
fn tls(block: &Block<'_>) -> Result<Option<Tls>> {
    let (certificate, key) = (block.get("certificate"), block.get("key"));
    match (path(&certificate)?, path(&key)?) {
        (Some(certificate), Some(key)) => Ok(Some(Tls { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(certificate.wrong("has no key with it", Some("set tls.key too"))),
        (None, Some(_)) => Err(key.wrong("has no certificate with it", Some("set tls.certificate too"))),
    }
}

/// A whole path: the broker may be started in any directory.
fn path(field: &Field<'_>) -> Result<Option<PathBuf>> {
    let Some(path) = field.scalar()?.map(PathBuf::from) else { return Ok(None) };
    if path.is_absolute() {
        return Ok(Some(path));
    }
    let why = format!("is `{}`, which is not a whole path", path.display());
    Err(field.wrong(&why, Some("write it from the root on, such as /etc/berthold/cert.pem")))
}

fn listen(field: &Field<'_>) -> Result<Listen> {
    let Some(text) = field.scalar()? else { return Ok(Listen::Default) };
    if text == "none" {
        return Ok(Listen::None);
    }
    match text.parse() {
        Ok(address) => Ok(Listen::Address(address)),
        Err(_) => {
            let why = format!("is `{text}`, which is neither an address with a port nor `none`");
            Err(field.wrong(&why, Some(&listen_instead(&text))))
        }
    }
}

/// What was probably meant by an address to listen on that is none.
fn listen_instead(text: &str) -> String {
    if ["none", "off", "false", "no"].contains(&text.to_ascii_lowercase().as_str()) {
        return "write none".to_owned();
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let ip = match host {
        "" | "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        "*" => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        host => host.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
    };
    if let Some((ip, port)) = ip.zip(port.parse().ok()) {
        return format!("write \"{}\"", SocketAddr::new(ip, port));
    }
    if let Ok(ip) = text.parse() {
        return format!("write the port too, such as \"{}\"", SocketAddr::new(ip, API_PORT));
    }
    if port.parse::<u64>().is_ok_and(|port| port > u64::from(u16::MAX)) {
        return "ports go up to 65535".to_owned();
    }
    format!("write an IP address and a port, such as \"127.0.0.1:{API_PORT}\", or none")
}

/// Checks the name of a variable that the user sets.
pub(crate) fn check_variable(name: &str, key: &Place, field: &Field<'_>) -> Result<()> {
    if environment::is_reserved(name) {
        let hint = "choose a name that does not start with AVAILABLE_LOCALHOST_ or BERTHOLD_";
        return Err(field.wrong_key(key, "is a variable that only Berthold sets", hint));
    }
    let is_name = !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        let hint = "use letters, digits and _, and no digit first";
        return Err(field.wrong_key(key, "is not a name of a variable", hint));
    }
    Ok(())
}

fn kubernetes(block: &Block<'_>) -> Result<Kubernetes> {
    let default = Kubernetes::default();
    let expose = block.get("expose");
    let start = block.get("start_timeout");
    let start_timeout = start.duration()?.unwrap_or(default.start_timeout);
    if start_timeout.is_zero() {
        return Err(start.wrong("must be more than 0", Some("write a duration such as 2m")));
    }
    Ok(Kubernetes {
        start_timeout,
        context: block.get("context").scalar()?,
        namespace: namespace(&block.get("namespace"))?.unwrap_or(default.namespace),
        expose: match expose.scalar()? {
            None => default.expose,
            Some(text) => one_of(&expose, &text, Expose::ALL.map(|expose| (expose.as_str(), expose)))?,
        },
    })
}

/// Kubernetes wants of a namespace what Berthold wants of a name.
fn namespace(field: &Field<'_>) -> Result<Option<String>> {
    let Some(text) = field.scalar()? else { return Ok(None) };
    match Name::new(&text) {
        Ok(_) => Ok(Some(text)),
        Err(error) => {
            let hint = error.suggestion.as_ref().map(|name| format!("did you mean `{name}`?"));
            Err(field.wrong(&format!("is wrong: {error}"), hint.as_deref()))
        }
    }
}

fn template(block: &Block<'_>) -> Result<Template> {
    let mut env = BTreeMap::new();
    for (name, key, item) in block.get("env").map()? {
        check_variable(name, key, &item)?;
        env.insert(name.clone(), item.scalar()?.unwrap_or_default());
    }
    Ok(Template {
        image: block.get("image").scalar()?,
        command: block.get("command").texts()?,
        env,
        volumes: volumes(&block.get("volumes"))?,
        network: block.get("network").scalar()?,
        runtime: runtime(&block.get("runtime"))?,
        ports: block.get("ports").count()?,
        workspace: workspace(&block.get("workspace"))?,
        interactive: block.get("interactive").truth()?,
        terminal: block.get("terminal").truth()?,
    })
}

/// Only what is typed has a directory from which a path can be meant.
fn workspace(field: &Field<'_>) -> Result<Option<String>> {
    let Some(path) = field.scalar()? else { return Ok(None) };
    if !path.starts_with('/') {
        let hint = "write an absolute path; what is typed as `-w` may be a relative one";
        return Err(field.wrong(&format!("is `{path}`, which is a relative path"), Some(hint)));
    }
    Ok(Some(path))
}

fn volumes(field: &Field<'_>) -> Result<Vec<String>> {
    let texts = field.texts()?;
    for (item, text) in field.list()?.iter().zip(&texts) {
        let parts: Vec<&str> = text.split(':').collect();
        let is_volume = matches!(parts[..], [source, target] | [source, target, "ro" | "rw"]
            if !source.is_empty() && target.starts_with('/'));
        if !is_volume {
            let hint = "write SRC:DST or SRC:DST:ro, where DST is an absolute path";
            return Err(item.wrong(&format!("is `{text}`, which is no volume"), Some(hint)));
        }
        let source = parts[0];
        if !source.starts_with('/') && (source.starts_with(['.', '~']) || source.contains('/')) {
            let hint = "write an absolute path, or the name of a volume; what is typed as `-v` may be a relative path";
            return Err(item.wrong(&format!("is `{text}`, whose source is a relative path"), Some(hint)));
        }
    }
    Ok(texts)
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
