//! What of the headers is for whom: what concerns one connection alone stays there, and the page's session reaches no agent.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{
    CONNECTION, COOKIE, HOST, HeaderName, HeaderValue, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

/// How the cookies of the page's sessions begin, which reach no agent.
pub(crate) const SESSION: &str = "berthold-session-";
/// Which brokers a request has come through, by their ids.
const PASSAGE: HeaderName = HeaderName::from_static("berthold-preview");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What concerns one connection alone even if `Connection` does not name it.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Removes what concerns one connection alone (RFC 9110, section 7.6.1). An upgrade, which it all is about, is kept.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap, keeps_upgrade: bool) {
    let named = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse::<HeaderName>().ok());
    let always = headers.keys().filter(|name| HOP_BY_HOP.contains(name)).cloned();
    let gone: Vec<HeaderName> = named.chain(always).collect();
    let upgrade = headers.get(UPGRADE).cloned().filter(|_| keeps_upgrade);
    for name in gone {
        headers.remove(name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
}

/// Takes the page's session out of the cookies. HTTP/2 sends several headers where HTTP/1 wants one (RFC 9113, section 8.2.3).
pub(super) fn strip_session(headers: &mut HeaderMap) {
    if !headers.contains_key(COOKIE) {
        return;
    }
    let pairs =
        headers.get_all(COOKIE).into_iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let kept: Vec<&[u8]> =
        pairs.map(<[u8]>::trim_ascii).filter(|pair| !pair.starts_with(SESSION.as_bytes())).collect();
    let kept = HeaderValue::from_bytes(&kept.join(&b"; "[..]));
    headers.remove(COOKIE);
    if let Ok(kept) = kept
        && !kept.is_empty()
    {
        headers.insert(COOKIE, kept);
    }
}

/// The host that the request was sent to, with its port: of HTTP/2 it is in the URI.
pub(super) fn host(request: &Request) -> HeaderValue {
    let named = request.uri().authority().and_then(|named| HeaderValue::from_str(named.as_str()).ok());
    named.or_else(|| request.headers().get(HOST).cloned()).unwrap_or_else(|| HeaderValue::from_static(""))
}

/// The name under which servers know this host.
pub(super) fn localhost(port: u16) -> HeaderValue {
    HeaderValue::from_str(&format!("localhost:{port}"))
        .unwrap_or_else(|_| HeaderValue::from_static("localhost"))
}

/// Says for whom, and under which name, the request came. What a proxy on this host has said before stays;
/// from elsewhere anyone could have said it.
pub(super) fn add_forwarded(headers: &mut HeaderMap, peer: IpAddr, host: &HeaderValue, proto: &'static str) {
    let is_trusted = peer.is_loopback();
    let before = headers.get(FORWARDED_FOR).filter(|_| is_trusted).and_then(|value| value.to_str().ok());
    let path = before.map_or_else(|| peer.to_string(), |before| format!("{before}, {peer}"));
    if let Ok(path) = HeaderValue::try_from(path) {
        headers.insert(FORWARDED_FOR, path);
    }
    for (name, value) in [(FORWARDED_HOST, host.clone()), (FORWARDED_PROTO, HeaderValue::from_static(proto))]
    {
        if !(is_trusted && headers.contains_key(&name)) {
            headers.insert(name, value);
        }
    }
}

/// Notes that the request has come through the broker of this `mark`.
pub(super) fn mark_passage(headers: &mut HeaderMap, mark: HeaderValue) {
    headers.append(PASSAGE, mark);
}

/// Whether it has come through this broker before. Another broker's previews may well lead here.
pub(super) fn has_passed(headers: &HeaderMap, mark: &HeaderValue) -> bool {
    headers.get_all(PASSAGE).iter().any(|value| value == mark)
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
pub(super) fn lead_back(headers: &mut HeaderMap, sent_host: &HeaderValue, proto: &str, host: &HeaderValue) {
    let led = headers.get(LOCATION).and_then(|value| {
        let rest = value.to_str().ok()?.strip_prefix("http://")?.strip_prefix(sent_host.to_str().ok()?)?;
        let is_whole = rest.is_empty() || rest.starts_with(['/', '?', '#']);
        let led = HeaderValue::try_from(format!("{proto}://{}{rest}", host.to_str().ok()?));
        led.ok().filter(|_| is_whole)
    });
    if let Some(led) = led {
        headers.insert(LOCATION, led);
    }
}

/// Cookies of an agent are for its own host name: one for a `Domain` could reach others.
pub(super) fn confine_cookies(headers: &mut HeaderMap) {
    if !headers.contains_key(SET_COOKIE) {
        return;
    }
    let confined: Vec<HeaderValue> = headers
        .get_all(SET_COOKIE)
        .into_iter()
        .filter_map(|value| {
            let parts = value.as_bytes().split(|byte| *byte == b';');
            let is_domain = |part: &[u8]| {
                let name = part.split(|byte| *byte == b'=').next().unwrap_or_default();
                name.trim_ascii().eq_ignore_ascii_case(b"domain")
            };
            let kept: Vec<&[u8]> = parts.filter(|part| !is_domain(part)).collect();
            HeaderValue::from_bytes(&kept.join(&b";"[..])).ok()
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
        let raw = HeaderValue::from_bytes(b"berthold-session-01ab=secret; name=J\xc3\xb8rgen").unwrap();
        headers.insert(COOKIE, raw);
        strip_session(&mut headers);
        assert_eq!(headers[COOKIE].as_bytes(), b"name=J\xc3\xb8rgen");
        let mut headers = map(&[("set-cookie", "a=1; Domain=localhost; Path=/")]);
        confine_cookies(&mut headers);
        assert_eq!(headers, map(&[("set-cookie", "a=1; Path=/")]));
    }

    #[test]
    fn a_redirection_leads_back_to_the_preview() {
        let check = |location: &str| {
            let mut headers = map(&[("location", location)]);
            let host = HeaderValue::from_static("a-dev.example.com");
            lead_back(&mut headers, &localhost(8000), "https", &host);
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
        let [one, other, third] = ["01AB", "01CD", "01EF"].map(HeaderValue::from_static);
        mark_passage(&mut headers, one.clone());
        mark_passage(&mut headers, other.clone());
        assert!(has_passed(&headers, &one) && has_passed(&headers, &other) && !has_passed(&headers, &third));
    }

    #[test]
    fn the_peer_is_added_and_the_first_name_stays() {
        let mut headers = map(&[("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "https")]);
        let host = HeaderValue::from_static("a.dev.localhost:9800");
        add_forwarded(&mut headers, [127, 0, 0, 1].into(), &host, "http");
        let value = |name: &str| headers[name].to_str().unwrap();
        assert_eq!(value("x-forwarded-for"), "192.0.2.1, 127.0.0.1");
        assert_eq!(
            (value("x-forwarded-proto"), value("x-forwarded-host")),
            ("https", "a.dev.localhost:9800")
        );
        let mut headers = map(&[("x-forwarded-for", "192.0.2.1"), ("x-forwarded-host", "evil.example")]);
        let host = HeaderValue::from_static("a-dev.example.com");
        add_forwarded(&mut headers, [198, 51, 100, 7].into(), &host, "https");
        let value = |name: &str| headers[name].to_str().unwrap();
        assert_eq!(value("x-forwarded-for"), "198.51.100.7");
        assert_eq!(value("x-forwarded-host"), "a-dev.example.com");
    }
}
