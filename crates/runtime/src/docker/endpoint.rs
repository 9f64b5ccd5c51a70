//! Where an engine listens, and how the `docker` command would find that out.
//!
//! Whatever names one endpoint (the settings, `DOCKER_HOST`, a context) is the only candidate, even if nothing listens
//! there: falling back to another engine would start agents where nobody looks for them. Without any of those, the
//! sockets of the usual installations are candidates in order, as far as they exist.
//!
//! Endpoints with TLS or through ssh are refused by name: each would bring a network stack of its own into the program,
//! and a forwarded socket does the same job.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{ErrorKind, RuntimeError};

const DEFAULT_TCP_PORT: u16 = 2375;

const FORWARD_A_SOCKET: &str =
    "forward the engine's socket (`ssh -nNT -L /tmp/docker.sock:/var/run/docker.sock HOST`) and name that";

/// Where an engine listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineEndpoint(Address);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Address {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
}

impl EngineEndpoint {
    /// The Unix socket at `path`.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self(Address::Unix(path.into()))
    }

    /// Whether the engine runs on this machine, so that the ports it publishes are this machine's.
    pub fn is_local(&self) -> bool {
        match &self.0 {
            Address::Unix(_) => true,
            Address::Tcp { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.0
    }
}

impl fmt::Display for EngineEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

impl FromStr for EngineEndpoint {
    type Err = RuntimeError;

    /// Takes `unix:///path`, `/path`, `tcp://host[:port]` and `http://host[:port]`.
    fn from_str(text: &str) -> Result<Self, RuntimeError> {
        let invalid = || {
            RuntimeError::new(ErrorKind::Invalid, format!("`{text}` is not an engine's endpoint"))
                .hint("an endpoint is unix:///PATH or tcp://HOST:PORT")
        };
        let (scheme, rest) = match text.split_once("://") {
            Some(parts) => parts,
            None if text.starts_with('/') => ("unix", text),
            None => return Err(invalid()),
        };
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::unix(rest)),
            "tcp" | "http" => {
                let (host, port) =
                    host_and_port(rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(invalid)?;
                Ok(Self(Address::Tcp { host, port }))
            }
            "https" | "ssh" | "npipe" | "fd" => Err(unsupported(text, scheme)),
            _ => Err(invalid()),
        }
    }
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    if host.is_empty() || !host.bytes().all(is_plain) {
        return None;
    }
    let port = port.map_or(Some(DEFAULT_TCP_PORT), |port| port.parse().ok().filter(|port| *port != 0))?;
    Some((host.to_owned(), port))
}

fn unsupported(endpoint: &str, what: &str) -> RuntimeError {
    RuntimeError::new(ErrorKind::Unsupported, format!("engines behind {what} cannot be used: `{endpoint}`"))
        .hint(FORWARD_A_SOCKET)
}

/// The endpoints at which the `docker` command would look for its engine, best first; empty if there are none.
///
/// # Errors
/// [`ErrorKind::Invalid`] if something names an endpoint but not rightly, [`ErrorKind::Unsupported`] if it names one that
/// needs TLS or ssh.
pub fn find(
    settings_host: Option<&str>,
    environment: &dyn Fn(&str) -> Option<String>,
    home: Option<&Path>,
) -> Result<Vec<EngineEndpoint>, RuntimeError> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    if let Some(host) = settings_host {
        return Ok(vec![host.parse()?]);
    }
    if let Some(host) = variable("DOCKER_HOST") {
        let endpoint: EngineEndpoint = host.parse().map_err(|error| named_by("DOCKER_HOST", error))?;
        let encrypted = variable("DOCKER_TLS_VERIFY").or_else(|| variable("DOCKER_TLS")).is_some();
        if encrypted && matches!(endpoint.0, Address::Tcp { .. }) {
            return Err(unsupported(&host, "TLS (DOCKER_TLS_VERIFY)"));
        }
        return Ok(vec![endpoint]);
    }
    let folder =
        variable("DOCKER_CONFIG").map(PathBuf::from).or_else(|| home.map(|home| home.join(".docker")));
    let context = match (variable("DOCKER_CONTEXT"), &folder) {
        (Some(context), _) => Some(context),
        (None, Some(folder)) => current_context(folder),
        (None, None) => None,
    };
    match (context.filter(|context| context != "default"), folder) {
        (Some(context), Some(folder)) => Ok(vec![endpoint_of_context(&folder, &context)?]),
        (Some(context), None) => Err(no_such_context(&context)),
        (None, _) => Ok(usual_sockets(variable("XDG_RUNTIME_DIR").as_deref(), home)),
    }
}

/// The error of an endpoint, and what named it.
pub(crate) fn named_by(source: &str, mut error: RuntimeError) -> RuntimeError {
    error.message = format!("{source}: {}", error.message);
    error
}

fn usual_sockets(runtime_directory: Option<&str>, home: Option<&Path>) -> Vec<EngineEndpoint> {
    let in_home = [
        ".docker/run/docker.sock",
        ".docker/desktop/docker.sock",
        ".colima/default/docker.sock",
        ".orbstack/run/docker.sock",
        ".rd/docker.sock",
    ];
    let mut candidates = vec![PathBuf::from("/var/run/docker.sock")];
    candidates.extend(runtime_directory.map(|directory| Path::new(directory).join("docker.sock")));
    candidates.extend(home.into_iter().flat_map(|home| in_home.map(|socket| home.join(socket))));
    candidates.into_iter().filter(|path| path.exists()).map(EngineEndpoint::unix).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CommandSettings {
    current_context: Option<String>,
}

/// The context that the command's settings select. Settings that cannot be read or understood, or are empty, select none, as the command
/// has it.
fn current_context(folder: &Path) -> Option<String> {
    let path = folder.join("config.json");
    let text = match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => text,
        Ok(_) => return None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "docker's settings cannot be read: no context is taken from them");
            return None;
        }
    };
    match understood::<CommandSettings>(&path, &text) {
        Ok(settings) => settings.current_context.filter(|context| !context.is_empty()),
        Err(error) => {
            tracing::warn!(%error, "no context is taken from docker's settings");
            None
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Context {
    endpoints: ContextEndpoints,
}

#[derive(Deserialize)]
struct ContextEndpoints {
    docker: Option<ContextEndpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContextEndpoint {
    host: Option<String>,
}

/// Each context has a folder in `contexts/meta` that is called after the SHA-256 of its name. What else lies there is not looked at.
fn endpoint_of_context(folder: &Path, name: &str) -> Result<EngineEndpoint, RuntimeError> {
    let called = folder_of_context(name);
    let path = folder.join("contexts/meta").join(&called).join("meta.json");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(no_such_context(name)),
        Err(error) => {
            let message = format!("{} cannot be read", path.display());
            return Err(RuntimeError::new(ErrorKind::Invalid, message).source(error));
        }
    };
    let context: Context = understood(&path, &text)?;
    let host = context.endpoints.docker.and_then(|endpoint| endpoint.host).ok_or_else(|| {
        RuntimeError::new(ErrorKind::Invalid, format!("the docker context `{name}` has no docker endpoint"))
    })?;
    let endpoint: EngineEndpoint =
        host.parse().map_err(|error| named_by(&format!("the docker context `{name}`"), error))?;
    let has_certificates = folder.join("contexts/tls").join(called).join("docker").exists();
    if has_certificates && matches!(endpoint.0, Address::Tcp { .. }) {
        return Err(unsupported(&host, &format!("TLS (the docker context `{name}`)")));
    }
    Ok(endpoint)
}

fn folder_of_context(name: &str) -> String {
    Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn no_such_context(name: &str) -> RuntimeError {
    RuntimeError::new(ErrorKind::Invalid, format!("there is no docker context `{name}`"))
        .hint("`docker context ls` lists them; `docker context use NAME` or DOCKER_CONTEXT selects one")
}

fn understood<T: for<'de> Deserialize<'de>>(path: &Path, text: &str) -> Result<T, RuntimeError> {
    serde_json::from_str(text).map_err(|error| {
        RuntimeError::new(ErrorKind::Invalid, format!("{} is not understood", path.display())).source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(settings: Option<&str>, variables: &[(&str, &str)], home: &Path) -> Result<Vec<String>, String> {
        let environment = |name: &str| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        };
        match find(settings, &environment, Some(home)) {
            Ok(found) => Ok(found.iter().map(ToString::to_string).collect()),
            Err(error) => Err(format!("{:?}: {error}", error.kind)),
        }
    }

    fn only(endpoint: &str) -> Result<Vec<String>, String> {
        Ok(vec![endpoint.to_owned()])
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn write_context(docker: &Path, name: &str, host: &str) {
        let meta = format!(
            r#"{{"Name":"{name}","Metadata":{{}},"Endpoints":{{"docker":{{"Host":"{host}","SkipTLSVerify":false}}}}}}"#
        );
        write(&docker.join("contexts/meta").join(folder_of_context(name)).join("meta.json"), &meta);
    }

    #[test]
    fn texts_of_endpoints() {
        for (text, shown, local) in [
            ("unix:///var/run/docker.sock", "unix:///var/run/docker.sock", true),
            ("/run/podman/podman.sock", "unix:///run/podman/podman.sock", true),
            ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375", true),
            ("tcp://localhost", "tcp://localhost:2375", true),
            ("http://[::1]:99/", "tcp://[::1]:99", true),
            ("tcp://build.example:2375", "tcp://build.example:2375", false),
        ] {
            let endpoint: EngineEndpoint = text.parse().unwrap();
            assert_eq!((endpoint.to_string(), endpoint.is_local()), (shown.to_owned(), local), "{text}");
        }
        for text in [
            "",
            "docker.sock",
            "unix://relative",
            "tcp://",
            "tcp://host:0",
            "tcp://host:x",
            "tcp://a/b",
            "foo://x",
        ] {
            assert_eq!(text.parse::<EngineEndpoint>().unwrap_err().kind, ErrorKind::Invalid, "{text}");
        }
        for text in ["ssh://me@host", "https://host:2376", "npipe:////./pipe/docker_engine"] {
            assert_eq!(text.parse::<EngineEndpoint>().unwrap_err().kind, ErrorKind::Unsupported, "{text}");
        }
    }

    #[test]
    fn what_is_said_explicitly_is_the_only_candidate() {
        let home = tempfile::tempdir().unwrap();
        let docker = home.path().join(".docker");
        write(&docker.join("config.json"), r#"{"auths":{},"currentContext":"colima"}"#);
        write_context(&docker, "colima", "unix:///colima.sock");
        write_context(&docker, "remote", "tcp://192.0.2.7:2375");
        write(&docker.join("run/docker.sock"), "");

        assert_eq!(check(None, &[], home.path()), only("unix:///colima.sock"));
        assert_eq!(check(None, &[("DOCKER_CONTEXT", "remote")], home.path()), only("tcp://192.0.2.7:2375"));
        let both = [("DOCKER_CONTEXT", "remote"), ("DOCKER_HOST", "unix:///host.sock")];
        assert_eq!(check(None, &both, home.path()), only("unix:///host.sock"));
        assert_eq!(check(Some("/settings.sock"), &both, home.path()), only("unix:///settings.sock"));

        let elsewhere = tempfile::tempdir().unwrap();
        write_context(elsewhere.path(), "other", "unix:///other.sock");
        let folder = elsewhere.path().to_str().unwrap();
        let variables = [("DOCKER_CONFIG", folder), ("DOCKER_CONTEXT", "other")];
        assert_eq!(check(None, &variables, home.path()), only("unix:///other.sock"));
    }

    #[test]
    fn without_a_word_the_usual_sockets_that_exist() {
        let home = tempfile::tempdir().unwrap();
        let run = home.path().join("run");
        let (rootless, colima) = (run.join("docker.sock"), home.path().join(".colima/default/docker.sock"));
        write(&rootless, "");
        write(&colima, "");
        let variables =
            [("XDG_RUNTIME_DIR", run.to_str().unwrap()), ("DOCKER_HOST", ""), ("DOCKER_CONTEXT", "default")];
        let mut found = check(None, &variables, home.path()).unwrap();
        found.retain(|endpoint| endpoint != "unix:///var/run/docker.sock");
        assert_eq!(found, [format!("unix://{}", rootless.display()), format!("unix://{}", colima.display())]);
    }

    #[test]
    fn what_lies_beside_a_context_is_not_looked_at() {
        // As `docker context create colima` calls it.
        let colima = "f24fd3749c1368328e2b149bec149cb6795619f244c5b584e844961215dadd16";
        assert_eq!(folder_of_context("colima"), colima);

        let home = tempfile::tempdir().unwrap();
        let docker = home.path().join(".docker");
        let meta = docker.join("contexts/meta");
        write(&meta.join(".DS_Store"), "");
        for number in 0..8 {
            write(&meta.join(format!("{number}/meta.json")), "{");
        }
        write_context(&docker, "colima", "unix:///colima.sock");
        assert_eq!(check(None, &[("DOCKER_CONTEXT", "colima")], home.path()), only("unix:///colima.sock"));
    }

    #[test]
    fn settings_of_the_command_that_say_nothing_select_no_context() {
        let home = tempfile::tempdir().unwrap();
        let settings = home.path().join(".docker/config.json");
        let without = check(None, &[], home.path());
        assert!(without.is_ok());
        for without_word in ["", " \n", "{}", "{", "[]"] {
            write(&settings, without_word);
            assert_eq!(check(None, &[], home.path()), without, "{without_word:?}");
        }
        // It cannot be read, whoever one is.
        fs::remove_file(&settings).unwrap();
        fs::create_dir(&settings).unwrap();
        assert_eq!(check(None, &[], home.path()), without);
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let docker = home.path().join(".docker");
        let refused = |variables: &[(&str, &str)]| check(None, variables, home.path()).unwrap_err();

        assert_eq!(refused(&[("DOCKER_CONTEXT", "gone")]), "Invalid: there is no docker context `gone`");
        assert_eq!(
            refused(&[("DOCKER_HOST", "what")]),
            "Invalid: DOCKER_HOST: `what` is not an engine's endpoint"
        );
        let encrypted = [("DOCKER_HOST", "tcp://192.0.2.7:2376"), ("DOCKER_TLS_VERIFY", "1")];
        assert!(refused(&encrypted).starts_with("Unsupported: engines behind TLS"));
        write_context(&docker, "remote", "tcp://192.0.2.7:2376");
        let certificates = docker.join("contexts/tls").join(folder_of_context("remote"));
        write(&certificates.join("docker/ca.pem"), "");
        assert!(refused(&[("DOCKER_CONTEXT", "remote")]).starts_with("Unsupported: engines behind TLS"));
    }
}
