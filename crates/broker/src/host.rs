//! The host name under which a request was sent.

use axum::extract::Request;
use axum::http::header::HOST;

/// What the request was sent to, a host with its port: of HTTP/2 it is in the URI.
pub(crate) fn named(request: &Request) -> Option<&str> {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    authority.or_else(|| request.headers().get(HOST)?.to_str().ok())
}

/// The host without its port and without the brackets of an IPv6 address.
pub(crate) fn name(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}
