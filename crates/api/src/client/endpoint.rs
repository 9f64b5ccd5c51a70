//! Where a broker answers.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::{Host, Url};

/// Where a broker answers: a Unix socket, or an address of TCP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// A Unix socket. Who can open it may use the broker.
    Unix(PathBuf),
    /// An address of TCP, where the broker asks for its token.
    Tcp {
        /// A name or an address; an IPv6 address is in brackets.
        host: String,
        /// The port.
        port: u16,
    },
}

/// A text that is not an [`Endpoint`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{given}` does not say where a broker is: {reason}")]
pub struct EndpointError {
    /// What was given.
    pub given: String,
    /// What is wrong with it.
    pub reason: &'static str,
    /// What is meant, perhaps.
    pub suggestion: Option<String>,
}

impl Endpoint {
    /// The `Host` header of requests to it.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Tcp { host, port } => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp { host, port } => write!(f, "http://{host}:{port}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Takes `http://HOST:PORT`, `unix:///PATH`, or the path of a socket.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |reason| EndpointError { given: text.to_owned(), reason, suggestion: None };
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("unix", path)) => Err(EndpointError {
                suggestion: Some(format!("unix:///{path}")),
                ..wrong("the path after unix:// must be absolute")
            }),
            Some(("http", _)) => http(text).map_err(wrong),
            // Its port may well speak TLS; without that the token would go there for everyone to read.
            Some(("https", _)) => Err(wrong(
                "this speaks plain http, which is for this host: bring the broker's port here with `ssh -L 9800:127.0.0.1:9800 HOST`, \
                 and name http://127.0.0.1:9800",
            )),
            Some(_) => Err(wrong("only http:// and unix:// are known, and paths of sockets")),
            None if text.is_empty() => Err(wrong("it is empty")),
            None if is_host_and_port(text) => Err(EndpointError {
                suggestion: Some(format!("http://{text}")),
                ..wrong("an address starts with http://")
            }),
            None => Ok(Self::Unix(text.into())),
        }
    }
}

fn http(text: &str) -> Result<Endpoint, &'static str> {
    let url = Url::parse(text).map_err(|_| "it is not a URL")?;
    let bare = url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    if !bare {
        return Err("a broker's URL has a host and a port and nothing more");
    }
    let host = match url.host() {
        Some(Host::Ipv6(address)) => format!("[{address}]"),
        Some(host) => host.to_string(),
        None => return Err("it has no host"),
    };
    let port = url.port_or_known_default().ok_or("it has no port")?;
    Ok(Endpoint::Tcp { host, port })
}

fn is_host_and_port(text: &str) -> bool {
    let port = text.rsplit_once(':').map(|(_, port)| port);
    !text.contains('/') && port.is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let shown = match text.parse::<Endpoint>() {
            Ok(endpoint @ Endpoint::Unix(_)) => format!("unix {endpoint}"),
            Ok(endpoint @ Endpoint::Tcp { .. }) => format!("tcp {}", endpoint.authority()),
            Err(error) => match &error.suggestion {
                Some(suggestion) => format!("{} ({suggestion})", error.reason),
                None => error.reason.to_owned(),
            },
        };
        assert_eq!(shown, expected, "parsing {text:?}");
    }

    #[test]
    fn right_forms() {
        check("http://127.0.0.1:9800", "tcp 127.0.0.1:9800");
        check("http://localhost:9800/", "tcp localhost:9800");
        check("http://[::1]:9800", "tcp [::1]:9800");
        check("http://example.test", "tcp example.test:80");
        check("unix:///run/b.sock", "unix /run/b.sock");
        check("/run/b.sock", "unix /run/b.sock");
        check("b.sock", "unix b.sock");
    }

    #[test]
    fn wrong_forms_say_what_is_meant() {
        check("", "it is empty");
        check("127.0.0.1:9800", "an address starts with http:// (http://127.0.0.1:9800)");
        check("unix://b.sock", "the path after unix:// must be absolute (unix:///b.sock)");
        check(
            "https://h:1",
            "this speaks plain http, which is for this host: bring the broker's port here with `ssh -L 9800:127.0.0.1:9800 HOST`, \
             and name http://127.0.0.1:9800",
        );
        check("ftp://h", "only http:// and unix:// are known, and paths of sockets");
        check("http://h:99999", "it is not a URL");
        check("http://h:1/v1", "a broker's URL has a host and a port and nothing more");
        check("http://me@h:1", "a broker's URL has a host and a port and nothing more");
    }
}
