//! Where a person finds the host: scheme and host, to which a port is added.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use url::{Host, Url};

use crate::Port;

/// The scheme and host under which the pool's ports are reached, such as `http://203.0.113.7` or `https://[::1]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostUrl {
    scheme: Scheme,
    host: Host<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scheme {
    Http,
    Https,
}

/// Why a text is not a [`HostUrl`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HostUrlError {
    /// It does not start with `http://` or `https://`.
    #[error("`{given}` does not start with http:// or https://")]
    Scheme {
        /// What was given.
        given: String,
    },
    /// No host, or one that is not a host name or address.
    #[error("`{given}` has no valid host: {reason}")]
    Host {
        /// What was given.
        given: String,
        /// What the URL parser said.
        reason: String,
    },
    /// A part that a host URL cannot have, such as a port or a path.
    #[error("`{given}` has {part}, but a host URL is http or https and a host, nothing more")]
    Part {
        /// What was given.
        given: String,
        /// The part: `a port`, `a path`, `a query`, `a fragment` or `a user`.
        part: &'static str,
    },
}

impl HostUrlError {
    /// The same of a text of which what was given is a part.
    pub(crate) fn of_whole(self, whole: &str) -> Self {
        let given = whole.to_owned();
        match self {
            Self::Scheme { .. } => Self::Scheme { given },
            Self::Host { reason, .. } => Self::Host { given, reason },
            Self::Part { part, .. } => Self::Part { given, part },
        }
    }
}

impl HostUrl {
    /// The host, an IPv6 address without its brackets.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Ipv6(address) => address.to_string(),
            other => other.to_string(),
        }
    }

    /// The URL of `port` on this host, without a trailing slash.
    pub fn at(&self, port: Port) -> String {
        format!("{self}:{port}")
    }

    /// Whether the scheme is https.
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// The host, if it is an address and not a name.
    pub fn ip(&self) -> Option<IpAddr> {
        match &self.host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(IpAddr::V4(*address)),
            Host::Ipv6(address) => Some(IpAddr::V6(*address)),
        }
    }

    /// Whether the host is `localhost` or a loopback address: then nothing need be bound beyond loopback.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        }
    }
}

impl fmt::Display for HostUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        // `Host` shows an IPv6 address in brackets (RFC 3986, section 3.2.2).
        write!(f, "{scheme}://{}", self.host)
    }
}

impl FromStr for HostUrl {
    type Err = HostUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let given = || text.to_owned();
        let part = |part| HostUrlError::Part { given: given(), part };
        let trimmed = text.trim();
        let (scheme, rest) = if let Some(rest) = strip_prefix_ignoring_case(trimmed, "http://") {
            (Scheme::Http, rest)
        } else if let Some(rest) = strip_prefix_ignoring_case(trimmed, "https://") {
            (Scheme::Https, rest)
        } else {
            return Err(HostUrlError::Scheme { given: given() });
        };
        let rest = rest.trim_end_matches('/');
        let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or(rest);
        // The URL parser passes over further slashes, and takes for the host what is not looked at here.
        if authority.is_empty() {
            return Err(HostUrlError::Host { given: given(), reason: "empty host".to_owned() });
        }
        if authority.matches(':').count() > 1 && !authority.contains('[') {
            let reason = format!("an IPv6 address stands in brackets, like http://[{authority}]");
            return Err(HostUrlError::Host { given: given(), reason });
        }
        let url = Url::parse(&format!("http://{rest}"))
            .map_err(|error| HostUrlError::Host { given: given(), reason: error.to_string() })?;
        // The parser drops a port that is the scheme's own and an empty user, so the text itself is asked.
        if authority.contains('@') {
            return Err(part("a user"));
        }
        let after_address = authority.rsplit_once(']').map_or(authority, |(_, after)| after);
        if after_address.contains(':') {
            return Err(part("a port"));
        }
        if url.path() != "/" {
            return Err(part("a path"));
        }
        if url.query().is_some() {
            return Err(part("a query"));
        }
        if url.fragment().is_some() {
            return Err(part("a fragment"));
        }
        match url.host() {
            Some(host) => Ok(Self { scheme, host: host.to_owned() }),
            None => Err(HostUrlError::Host { given: given(), reason: "empty host".to_owned() }),
        }
    }
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let shown = match text.parse::<HostUrl>() {
            Ok(url) => url.at(Port::new(8000).expect("8000 is a port")),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected, "parsing {text:?}");
    }

    #[test]
    fn trailing_slashes_are_dropped() {
        check("http://203.0.113.7", "http://203.0.113.7:8000");
        check("http://203.0.113.7/", "http://203.0.113.7:8000");
        check("http://203.0.113.7//", "http://203.0.113.7:8000");
        check("https://box.example///", "https://box.example:8000");
        check("HTTP://Box.Example", "http://box.example:8000");
        check("http://[2001:db8::7]/", "http://[2001:db8::7]:8000");
    }

    #[test]
    fn what_a_host_url_cannot_have() {
        let only = "but a host URL is http or https and a host, nothing more";
        check("http://h:80", &format!("`http://h:80` has a port, {only}"));
        check("https://h:443/", &format!("`https://h:443/` has a port, {only}"));
        check("http://h:", &format!("`http://h:` has a port, {only}"));
        check("http://[::1]:8000", &format!("`http://[::1]:8000` has a port, {only}"));
        check("http://h/x", &format!("`http://h/x` has a path, {only}"));
        check("http://h/?", &format!("`http://h/?` has a query, {only}"));
        check("http://h?q=1", &format!("`http://h?q=1` has a query, {only}"));
        check("http://h#", &format!("`http://h#` has a fragment, {only}"));
        check("http://me@h", &format!("`http://me@h` has a user, {only}"));
        check("http://@h", &format!("`http://@h` has a user, {only}"));
    }

    #[test]
    fn wrong_schemes_and_hosts() {
        check("203.0.113.7", "`203.0.113.7` does not start with http:// or https://");
        check("ftp://h", "`ftp://h` does not start with http:// or https://");
        check("", "`` does not start with http:// or https://");
        check("http://", "`http://` has no valid host: empty host");
        check("http:///h:8080", "`http:///h:8080` has no valid host: empty host");
        check("http://\\me@h", "`http://\\me@h` has no valid host: empty host");
        check("http://a b", "`http://a b` has no valid host: invalid international domain name");
        check(
            "http://::1",
            "`http://::1` has no valid host: an IPv6 address stands in brackets, like http://[::1]",
        );
    }

    #[test]
    fn loopback_hosts() {
        let is_loopback = |text: &str| text.parse::<HostUrl>().unwrap().is_loopback();
        assert!(
            is_loopback("http://localhost") && is_loopback("http://127.0.0.2") && is_loopback("http://[::1]")
        );
        assert!(!is_loopback("http://203.0.113.7") && !is_loopback("http://box.example"));
    }
}
