//! The host name under which a request was sent.

use axum::extract::Request;
use axum::http::header::HOST;

/// What the request was sent to, a host with its port: of HTTP/2 it is in the URI.
pub(crate) fn named(request: &Request) -> Option<&str> {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    authority.or_else(|| request.headers().get(HOST)?.to_str().ok())
}

/// The host without its port and without the brackets of an IPv6 address. What is no host with a port stays as it is.
pub(crate) fn name(host: &str) -> &str {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((address, rest)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_whole = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        return if is_whole { address } else { host };
    }
    match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_host() {
        for (host, expected) in [
            ("localhost:9800", "localhost"),
            ("localhost", "localhost"),
            ("[::1]:9800", "::1"),
            ("[::1]", "::1"),
            ("[localhost].evil.example", "[localhost].evil.example"),
            ("[::1]evil:80", "[::1]evil:80"),
            ("localhost:80x", "localhost:80x"),
        ] {
            assert_eq!(name(host), expected, "{host}");
        }
    }
}
