//! What of the headers is for whom: what concerns one connection alone stays there, and the page's session reaches no agent.

use std::net::IpAddr;

use axum::http::HeaderMap;
use axum::http::header::{
    CONNECTION, COOKIE, HOST, HeaderName, HeaderValue, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

/// How the cookies of the page's sessions begin, which reach no agent.
pub(crate) const SESSION: &str = "berthold-session-";
/// Which brokers a request has come through, by their ids.
const PASSAGE: &str = "berthold-preview";

/// Removes what concerns one connection alone (RFC 9110, section 7.6.1). An upgrade, which it all is about, is kept.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap, keeps_upgrade: bool) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let upgrade = headers.get(UPGRADE).cloned().filter(|_| keeps_upgrade);
    for name in named {
        headers.remove(name);
    }
    let always =
        [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION];
    for name in always {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
}

/// Takes the page's session out of the cookies. HTTP/2 sends several headers where HTTP/1 wants one (RFC 9113, section 8.2.3).
pub(super) fn strip_session(headers: &mut HeaderMap) {
    let pairs = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let kept: Vec<&str> = pairs
        .flat_map(|value| value.split(';'))
        .map(str::trim)
        .filter(|pair| !pair.starts_with(SESSION))
        .collect();
    let kept = HeaderValue::from_str(&kept.join("; "));
    headers.remove(COOKIE);
    if let Ok(kept) = kept
        && !kept.is_empty()
    {
        headers.insert(COOKIE, kept);
    }
}

/// Says for whom, and under which name, the request came. What a proxy on this host has said before stays;
/// from elsewhere anyone could have said it.
pub(super) fn add_forwarded(headers: &mut HeaderMap, peer: IpAddr, host: &str, proto: &str) {
    let is_trusted = peer.is_loopback();
    let before = headers.get("x-forwarded-for").filter(|_| is_trusted).and_then(|value| value.to_str().ok());
    let path = before.map_or_else(|| peer.to_string(), |before| format!("{before}, {peer}"));
    for (name, value, replaces) in [
        ("x-forwarded-for", path.as_str(), true),
        ("x-forwarded-host", host, !is_trusted),
        ("x-forwarded-proto", proto, !is_trusted),
    ] {
        if let Ok(value) = HeaderValue::from_str(value)
            && (replaces || !headers.contains_key(name))
        {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

pub(super) fn set_host(headers: &mut HeaderMap, host: &str) {
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(HOST, host);
    }
}

/// Notes that the request has come through this broker.
pub(super) fn mark_passage(headers: &mut HeaderMap, broker: &str) {
    if let Ok(broker) = HeaderValue::from_str(broker) {
        headers.append(PASSAGE, broker);
    }
}

/// Whether it has come through this broker before. Another broker's previews may well lead here.
pub(super) fn has_passed(headers: &HeaderMap, broker: &str) -> bool {
    headers.get_all(PASSAGE).iter().any(|value| value.as_bytes() == broker.as_bytes())
}

/// Asks for a WebSocket as HTTP/1.1 does (RFC 6455, section 4.1). The key only shows that both sides speak the protocol, which HTTP/2
/// does without.
pub(super) fn ask_for_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("YmVydGhvbGQtcHJldmlldw=="));
}

/// Takes the answer to such a key away.
pub(super) fn strip_websocket_key(headers: &mut HeaderMap) {
    headers.remove(SEC_WEBSOCKET_ACCEPT);
}

/// A server that was asked as `sent_host` leads to that: its redirections lead back to the preview, which is at `proto://host`.
pub(super) fn lead_back(headers: &mut HeaderMap, sent_host: &str, proto: &str, host: &str) {
    let led = headers.get(LOCATION).and_then(|value| value.to_str().ok()).and_then(|location| {
        let rest = location.strip_prefix("http://")?.strip_prefix(sent_host)?;
        let is_whole = rest.is_empty() || rest.starts_with(['/', '?', '#']);
        HeaderValue::from_str(&format!("{proto}://{host}{rest}")).ok().filter(|_| is_whole)
    });
    if let Some(led) = led {
        headers.insert(LOCATION, led);
    }
}

/// Cookies of an agent are for its own host name: one for a `Domain` could reach others.
pub(super) fn confine_cookies(headers: &mut HeaderMap) {
    let confined: Vec<HeaderValue> = headers
        .get_all(SET_COOKIE)
        .into_iter()
        .filter_map(|value| {
            let parts = value.to_str().ok()?.split(';');
            let is_domain = |part: &str| {
                part.split('=').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("domain"))
            };
            let kept: Vec<&str> = parts.filter(|part| !is_domain(part)).collect();
            HeaderValue::from_str(&kept.join(";")).ok()
        })
        .collect();
    headers.remove(SET_COOKIE);
    for value in confined {
        headers.append(SET_COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn what_concerns_one_connection_stays_there() {
        let sent = [("connection", "close, X-Mine"), ("x-mine", "1"), ("keep-alive", "5"), ("accept", "*/*")];
        let mut headers = map(&sent);
        strip_hop_by_hop(&mut headers, false);
        assert_eq!(headers, map(&[("accept", "*/*")]));
        let mut headers = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        strip_hop_by_hop(&mut headers, true);
        assert_eq!(headers, map(&[("connection", "upgrade"), ("upgrade", "websocket")]));
    }

    #[test]
    fn a_session_reaches_no_agent_and_its_cookies_stay_its_own() {
        let mut headers = map(&[("cookie", "a=1; berthold-session-01ab=secret; b=2")]);
        strip_session(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1; b=2")]));
        let mut headers = map(&[("cookie", "berthold-session-01ab=secret")]);
        strip_session(&mut headers);
        assert!(headers.is_empty());
        let mut headers = map(&[("set-cookie", "a=1; Domain=localhost; Path=/")]);
        confine_cookies(&mut headers);
        assert_eq!(headers, map(&[("set-cookie", "a=1; Path=/")]));
    }

    #[test]
    fn a_redirection_leads_back_to_the_preview() {
        let check = |location: &str| {
            let mut headers = map(&[("location", location)]);
            lead_back(&mut headers, "localhost:8000", "https", "a-dev.example.com");
            headers["location"].to_str().unwrap().to_owned()
        };
        assert_eq!(check("http://localhost:8000/x?y"), "https://a-dev.example.com/x?y");
        assert_eq!(check("http://localhost:8000"), "https://a-dev.example.com");
        for other in ["/x", "http://localhost:80001/x", "https://localhost:8000/x", "http://other/"] {
            assert_eq!(check(other), other);
        }
    }

    #[test]
    fn a_request_passes_a_broker_once() {
        let mut headers = HeaderMap::new();
        mark_passage(&mut headers, "01AB");
        mark_passage(&mut headers, "01CD");
        assert!(
            has_passed(&headers, "01AB") && has_passed(&headers, "01CD") && !has_passed(&headers, "01EF")
        );
    }

    #[test]
    fn the_peer_is_added_and_the_first_name_stays() {
        let mut headers = map(&[("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "https")]);
        add_forwarded(&mut headers, [127, 0, 0, 1].into(), "a.dev.localhost:9800", "http");
        let value = |name: &str| headers[name].to_str().unwrap();
        assert_eq!(value("x-forwarded-for"), "192.0.2.1, 127.0.0.1");
        assert_eq!(
            (value("x-forwarded-proto"), value("x-forwarded-host")),
            ("https", "a.dev.localhost:9800")
        );
        let mut headers = map(&[("x-forwarded-for", "192.0.2.1"), ("x-forwarded-host", "evil.example")]);
        add_forwarded(&mut headers, [198, 51, 100, 7].into(), "a-dev.example.com", "https");
        let value = |name: &str| headers[name].to_str().unwrap();
        assert_eq!(value("x-forwarded-for"), "198.51.100.7");
        assert_eq!(value("x-forwarded-host"), "a-dev.example.com");
    }
}
