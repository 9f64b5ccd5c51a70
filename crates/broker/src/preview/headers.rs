//! What of the headers is for whom: what concerns one connection alone stays there, and the page's session reaches no agent.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, HeaderName, HeaderValue, LOCATION,
    ORIGIN, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, REFERER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE,
};
use subtle::ConstantTimeEq;

/// How the cookies of the page's sessions begin, which reach no agent.
pub(crate) const SESSION: &str = "berthold-session-";
/// The page's half of a session, which reaches none either.
pub(crate) const PAGE: HeaderName = HeaderName::from_static("berthold-page");
/// Which brokers a request has come through, by their ids.
const PASSAGE: HeaderName = HeaderName::from_static("berthold-preview");
/// How often a request may come through one broker.
const PASSAGES: usize = 8;
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// What else proxies say of who asks, and under which name; servers believe it.
const SAID_OF_PEERS: [HeaderName; 6] = [
    FORWARDED,
    HeaderName::from_static("x-real-ip"),
    FORWARDED_PORT,
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-ssl"),
];
/// What concerns one connection alone even if `Connection` does not name it.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    TE,
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
    let takes_trailers = headers.get_all(TE).iter().any(|value| value == "trailers");
    // A length beside it is not to be believed (RFC 9112, section 6.3).
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    for name in gone {
        headers.remove(name);
    }
    if takes_trailers {
        // Trailers are passed on.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
}

/// Takes out what lets its sender use the broker: both halves of a session of the page, and the broker's `token`. Of cookies HTTP/2
/// sends several headers where HTTP/1 wants one (RFC 9113, section 8.2.3).
pub(super) fn strip_session(headers: &mut HeaderMap, token: &str) {
    headers.remove(PAGE);
    if headers.get(AUTHORIZATION).is_some_and(|value| is_bearer(value, token)) {
        headers.remove(AUTHORIZATION);
    }
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

fn is_bearer(authorization: &HeaderValue, token: &str) -> bool {
    let given = authorization.to_str().ok().and_then(|value| value.split_once(' '));
    given.is_some_and(|(scheme, given)| {
        scheme.eq_ignore_ascii_case("bearer") && given.trim().as_bytes().ct_eq(token.as_bytes()).into()
    })
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
    if !is_trusted {
        for name in SAID_OF_PEERS {
            headers.remove(name);
        }
    }
    // Some proxies add a line of their own.
    let before = headers.get_all(FORWARDED_FOR).iter().filter(|_| is_trusted);
    let mut path: Vec<String> =
        before.filter_map(|value| value.to_str().ok()).map(ToOwned::to_owned).collect();
    path.push(peer.to_string());
    if let Ok(path) = HeaderValue::try_from(path.join(", ")) {
        headers.insert(FORWARDED_FOR, path);
    }
    for (name, value) in [(FORWARDED_HOST, host.clone()), (FORWARDED_PROTO, HeaderValue::from_static(proto))]
    {
        if !(is_trusted && headers.contains_key(&name)) {
            headers.insert(name, value);
        }
    }
}

/// Where people find a preview: the scheme, and the host with its port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Site {
    pub(super) proto: Cow<'static, str>,
    pub(super) host: HeaderValue,
}

/// Says, after [`add_forwarded`], nothing but `localhost:PORT` (`sent_host`) of where the browser is, beside `Host`. Servers that take requests for
/// names that they know alone look for names in more places than `Host`: Rails in `X-Forwarded-Host` (ActionDispatch::HostAuthorization), Next.js
/// in `Origin` (`allowedDevOrigins`); and both want these to agree before they believe a form. The scheme stays the true one. Another site's
/// origin stays too, so that the server can tell it.
pub(super) fn ask_as_localhost(headers: &mut HeaderMap, sent_host: &HeaderValue, host: &HeaderValue) -> Site {
    // Of several proxies the first has spoken to the browser.
    let first = |value: Option<HeaderValue>| {
        let value = value.as_ref()?.to_str().ok()?.split(',').next()?.trim();
        (!value.is_empty()).then(|| value.to_owned())
    };
    let proto: Cow<'static, str> = match first(headers.get(FORWARDED_PROTO).cloned()).as_deref() {
        None | Some("http" | "ws") => "http".into(),
        Some("https" | "wss") => "https".into(),
        Some(other) => other.to_owned().into(),
    };
    let public = first(headers.remove(FORWARDED_HOST));
    let port = first(headers.remove(FORWARDED_PORT));
    headers.remove(FORWARDED);
    // One that the proxy names apart, unless it is a usual one, which browsers leave out: 80 with https is that of a proxy further in.
    let port = port.filter(|port| !["80", "443"].contains(&port.as_str()));
    let with_port = match (&public, port) {
        (Some(name), Some(port)) if !name.contains(':') => Some(format!("{name}:{port}")),
        _ => None,
    };
    let names = [with_port.as_deref(), public.as_deref(), host.to_str().ok()];
    // What a browser says to come from another site does, whatever its other headers say.
    let is_foreign =
        headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site");
    for header in [ORIGIN, REFERER] {
        let led = headers.get(&header).filter(|_| !is_foreign).and_then(|value| {
            let rest = value.to_str().ok()?.strip_prefix(&*proto)?.strip_prefix("://")?;
            let whole = |name: &str| rest.strip_prefix(name).filter(|rest| ends_a_host(rest));
            let rest = names.iter().flatten().find_map(|name| whole(name))?;
            HeaderValue::try_from(format!("{proto}://{}{rest}", sent_host.to_str().ok()?)).ok()
        });
        if let Some(led) = led {
            headers.insert(header, led);
        }
    }
    let public = names.into_iter().flatten().next().and_then(|name| HeaderValue::from_str(name).ok());
    Site { proto, host: public.unwrap_or_else(|| host.clone()) }
}

/// Whether what follows a host in a URL shows that it is whole.
fn ends_a_host(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['/', '?', '#'])
}

/// Notes that the request has come through the broker of this `mark`.
pub(super) fn mark_passage(headers: &mut HeaderMap, mark: HeaderValue) {
    headers.append(PASSAGE, mark);
}

/// Whether it goes round in circles: it has come through this broker too often. An agent's server may well pass on to another agent,
/// and another broker's previews may lead here.
pub(super) fn goes_round(headers: &HeaderMap, mark: &HeaderValue) -> bool {
    headers.get_all(PASSAGE).iter().filter(|value| *value == mark).count() >= PASSAGES
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

/// A server that was asked as `sent_host` leads to that: its redirections lead back to the preview, which is at `site`.
pub(super) fn lead_back(headers: &mut HeaderMap, sent_host: &HeaderValue, site: &Site) {
    let led = headers.get(LOCATION).and_then(|value| {
        let (value, proto) = (value.to_str().ok()?, &*site.proto);
        // It may know by which scheme it is asked; one that wants another is not made to go round in circles.
        let rest =
            value.strip_prefix("http://").or_else(|| value.strip_prefix(proto)?.strip_prefix("://"))?;
        let rest = rest.strip_prefix(sent_host.to_str().ok()?).filter(|rest| ends_a_host(rest))?;
        HeaderValue::try_from(format!("{proto}://{}{rest}", site.host.to_str().ok()?)).ok()
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
            // The first is the cookie itself, whatever it is called.
            let parts = value.as_bytes().split(|byte| *byte == b';').enumerate();
            let is_domain = |part: &[u8]| {
                let name = part.split(|byte| *byte == b'=').next().unwrap_or_default();
                name.trim_ascii().eq_ignore_ascii_case(b"domain")
            };
            let kept = parts.filter(|(index, part)| *index == 0 || !is_domain(part));
            let kept: Vec<&[u8]> = kept.map(|(_, part)| part).collect();
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
        let mut headers = map(&[("transfer-encoding", "chunked"), ("content-length", "5"), ("trailer", "x")]);
        strip_hop_by_hop(&mut headers, false);
        assert_eq!(headers, map(&[("trailer", "x")]), "a length beside chunks is not to be believed");
        let mut headers = map(&[("connection", "TE"), ("te", "trailers")]);
        strip_hop_by_hop(&mut headers, false);
        assert_eq!(headers, map(&[("te", "trailers")]));
        let mut headers = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        strip_hop_by_hop(&mut headers, true);
        assert_eq!(headers, map(&[("connection", "upgrade"), ("upgrade", "websocket")]));
    }

    #[test]
    fn a_session_reaches_no_agent_and_its_cookies_stay_its_own() {
        let mut headers = map(&[("cookie", "a=1; berthold-session-01ab=secret; b=2")]);
        strip_session(&mut headers, "token");
        assert_eq!(headers, map(&[("cookie", "a=1; b=2")]));
        let mut headers = map(&[("cookie", "berthold-session-01ab=secret")]);
        strip_session(&mut headers, "token");
        assert!(headers.is_empty());
        let raw = HeaderValue::from_bytes(b"berthold-session-01ab=secret; name=J\xc3\xb8rgen").unwrap();
        headers.insert(COOKIE, raw);
        strip_session(&mut headers, "token");
        assert_eq!(headers[COOKIE].as_bytes(), b"name=J\xc3\xb8rgen");
        let mut headers = map(&[("berthold-page", "half"), ("authorization", "bearer  token")]);
        strip_session(&mut headers, "token");
        assert!(headers.is_empty(), "{headers:?}");
        for own in ["Bearer another", "Basic token", "token"] {
            let mut headers = map(&[("authorization", own)]);
            strip_session(&mut headers, "token");
            assert_eq!(
                headers,
                map(&[("authorization", own)]),
                "an agent's server may have a token of its own"
            );
        }
        for (set, kept) in [
            ("a=1; Domain=localhost; Path=/", "a=1; Path=/"),
            ("domain=shop; Path=/; HttpOnly", "domain=shop; Path=/; HttpOnly"),
        ] {
            let mut headers = map(&[("set-cookie", set)]);
            confine_cookies(&mut headers);
            assert_eq!(headers, map(&[("set-cookie", kept)]));
        }
    }

    #[test]
    fn a_redirection_leads_back_to_the_preview() {
        let check = |proto: &'static str, location: &str| {
            let mut headers = map(&[("location", location)]);
            let site = Site { proto: proto.into(), host: HeaderValue::from_static("a-dev.example.com") };
            lead_back(&mut headers, &localhost(8000), &site);
            headers["location"].to_str().unwrap().to_owned()
        };
        assert_eq!(check("https", "http://localhost:8000/x?y"), "https://a-dev.example.com/x?y");
        assert_eq!(check("https", "https://localhost:8000/x"), "https://a-dev.example.com/x");
        assert_eq!(check("https", "http://localhost:8000"), "https://a-dev.example.com");
        for other in ["/x", "http://localhost:80001/x", "https://localhost:8000/x", "http://other/"] {
            assert_eq!(check("http", other), other);
        }
    }

    #[test]
    fn as_localhost_all_names_agree_but_those_of_other_sites() {
        let check = |sent: &[(&'static str, &str)]| {
            let mut headers = map(sent);
            let host = HeaderValue::from_static("a.dev.localhost:9800");
            add_forwarded(&mut headers, [127, 0, 0, 1].into(), &host, "http");
            let site = ask_as_localhost(&mut headers, &localhost(8000), &host);
            for name in ["x-forwarded-host", "x-forwarded-port", "forwarded"] {
                assert!(!headers.contains_key(name), "{name}");
            }
            let told =
                |name: &str| headers.get(name).map_or("none", |value| value.to_str().unwrap()).to_owned();
            (told("origin"), told("referer"), format!("{}://{}", site.proto, site.host.to_str().unwrap()))
        };
        let expected = |origin: &str, referer: &str, site: &str| {
            (origin.to_owned(), referer.to_owned(), site.to_owned())
        };
        let here = "http://a.dev.localhost:9800";
        let own = [("origin", here), ("referer", "http://a.dev.localhost:9800/x?y")];
        assert_eq!(check(&own), expected("http://localhost:8000", "http://localhost:8000/x?y", here));
        assert_eq!(check(&[]), expected("none", "none", here));
        for other in
            ["null", "http://evil.example", "http://a.dev.localhost:98001", "https://a.dev.localhost:9800"]
        {
            assert_eq!(check(&[("origin", other), ("referer", other)]), expected(other, other, here));
        }
        // A proxy on this host that ends TLS, and asks under a name of its own.
        for (said, port, public) in [
            ("dev.example.com", "443", "https://dev.example.com"),
            ("dev.example.com, inner.example.com", "443", "https://dev.example.com"),
            // That of a proxy further in, which is asked without TLS.
            ("dev.example.com", "80", "https://dev.example.com"),
            ("dev.example.com", "8443", "https://dev.example.com:8443"),
            ("dev.example.com:8443", "8443", "https://dev.example.com:8443"),
        ] {
            for proto in ["https", "wss", "https, http"] {
                let proxied = [
                    ("x-forwarded-host", said),
                    ("x-forwarded-proto", proto),
                    ("x-forwarded-port", port),
                    ("forwarded", "host=dev.example.com"),
                    ("origin", public),
                ];
                assert_eq!(
                    check(&proxied),
                    expected("https://localhost:8000", "none", public),
                    "{said} {proto}"
                );
            }
        }
        // Whoever says so of itself is not believed more than the browser.
        let forged = [
            ("x-forwarded-host", "evil.example"),
            ("origin", "http://evil.example"),
            ("sec-fetch-site", "cross-site"),
        ];
        assert_eq!(check(&forged).0, "http://evil.example");
    }

    #[test]
    fn a_request_passes_a_broker_a_few_times() {
        let mut headers = HeaderMap::new();
        let [one, other, third] = ["01AB", "01CD", "01EF"].map(HeaderValue::from_static);
        mark_passage(&mut headers, one.clone());
        mark_passage(&mut headers, other.clone());
        assert!(!goes_round(&headers, &one), "an agent's server may pass on to another agent");
        for _ in 1..PASSAGES {
            mark_passage(&mut headers, one.clone());
        }
        assert!(goes_round(&headers, &one) && !goes_round(&headers, &other) && !goes_round(&headers, &third));
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
        let mut headers = map(&[("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2")]);
        add_forwarded(&mut headers, [127, 0, 0, 1].into(), &host, "http");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1, 192.0.2.2, 127.0.0.1");
        let said = [("forwarded", "for=192.0.2.1"), ("x-real-ip", "192.0.2.1")];
        let mut headers = map(&said);
        add_forwarded(&mut headers, [127, 0, 0, 1].into(), &host, "http");
        assert!(said.iter().all(|(name, value)| headers[*name] == *value), "a proxy of this host said so");
        add_forwarded(&mut headers, [198, 51, 100, 7].into(), &host, "http");
        assert!(!said.iter().any(|(name, _)| headers.contains_key(*name)), "{headers:?}");
        let mut headers = map(&[("x-forwarded-for", "192.0.2.1"), ("x-forwarded-host", "evil.example")]);
        let host = HeaderValue::from_static("a-dev.example.com");
        add_forwarded(&mut headers, [198, 51, 100, 7].into(), &host, "https");
        let value = |name: &str| headers[name].to_str().unwrap();
        assert_eq!(value("x-forwarded-for"), "198.51.100.7");
        assert_eq!(value("x-forwarded-host"), "a-dev.example.com");
    }
}
