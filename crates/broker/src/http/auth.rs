//! Who may use what is on `listen`: the API, with the token or a session; the page, which says nothing by itself, for everyone.

use std::sync::Arc;

use api::Code;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, ORIGIN};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::problem::Refusal;
use super::sessions::Sessions;
use super::{page, site};
use crate::host;

/// What is asked for.
pub(super) struct Guard {
    pub(super) token: String,
    pub(super) sessions: Arc<Sessions>,
    /// One more name of the broker's host, beside its addresses and `localhost`.
    pub(super) host: Option<String>,
}

impl Guard {
    fn knows(&self, headers: &HeaderMap) -> bool {
        let given = text(headers, AUTHORIZATION.as_str()).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            // RFC 9110, section 11.1: the scheme's letter case does not matter.
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        given.is_some_and(|given| given.as_bytes().ct_eq(self.token.as_bytes()).into())
    }

    fn judge(&self, request: &Request) -> Result<(), Refusal> {
        let (headers, path) = (request.headers(), request.uri().path());
        if matches!(path, "/healthz" | "/readyz") || self.knows(headers) {
            return Ok(());
        }
        if !host::named(request).is_some_and(|host| site::is_own(host, self.host.as_deref())) {
            return Err(Refusal::new(Code::Forbidden, "this broker does not answer under this name").hint(
                "use localhost or the address; a name of its own is that of `host_url` in the settings",
            ));
        }
        if page::is_part(path) {
            return Ok(());
        }
        let has_session = self.sessions.admits(headers);
        if !(has_session || path == "/signin") {
            return Err(Refusal::new(
                Code::Unauthorized,
                "this call needs the broker's token as a bearer token",
            )
            .hint("the token is in the file `token` in the broker's home; `berthold` takes it from the variable BERTHOLD_TOKEN"));
        }
        // The cookie comes with whatever the browser sends; only the broker's own page may have it sent.
        if !is_own_page(request) {
            return Err(Refusal::new(Code::Forbidden, "this was sent from a page of another site"));
        }
        if path == "/v1/sessions" {
            return Err(Refusal::new(Code::Forbidden, "a session cannot let others in")
                .hint("`berthold open` does, on the broker's host"));
        }
        Ok(())
    }
}

/// Whether a page of this very origin sent it, or, for what changes nothing, a person who typed the address. Browsers say so in
/// `Sec-Fetch-Site` (Fetch Metadata), older ones only in `Origin` (RFC 6454), and not always there.
fn is_own_page(request: &Request) -> bool {
    let headers = request.headers();
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if let Some(site) = text(headers, "sec-fetch-site") {
        return site == "same-origin" || is_safe && site == "none";
    }
    match (text(headers, ORIGIN.as_str()), host::named(request)) {
        (Some(origin), Some(host)) => {
            origin.split_once("://").is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host))
        }
        (Some(_), None) => false,
        (None, _) => is_safe,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Lets a request through that may be answered.
pub(super) async fn require(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.judge(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_broker_s_own_page_has_its_cookie_sent() {
        let sent = |method: Method, uri: &str, pairs: &[(&'static str, &str)]| {
            let request = axum::http::Request::builder().method(method).uri(uri);
            let request = pairs.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            is_own_page(&request.body(axum::body::Body::empty()).unwrap())
        };
        let check = |method, pairs: &[(&'static str, &str)]| sent(method, "/", pairs);
        let host = ("host", "localhost:9800");
        assert!(check(Method::POST, &[host, ("sec-fetch-site", "same-origin")]));
        assert!(check(Method::GET, &[host, ("sec-fetch-site", "none")]));
        for site in ["cross-site", "same-site", "none", ""] {
            assert!(!check(Method::POST, &[host, ("sec-fetch-site", site)]), "{site}");
        }
        assert!(!check(Method::GET, &[host, ("sec-fetch-site", "same-site")]), "a preview reads nothing");
        assert!(check(Method::POST, &[host, ("origin", "http://localhost:9800")]));
        for origin in ["http://localhost:8000", "http://a.dev.localhost:9800", "https://evil.example", "null"]
        {
            assert!(!check(Method::POST, &[host, ("origin", origin)]), "{origin}");
            assert!(!check(Method::GET, &[host, ("origin", origin)]), "{origin}");
        }
        assert!(!check(Method::POST, &[host]) && check(Method::GET, &[host]));
        // HTTP/2 has the host in the URI.
        let own = "http://localhost:9800/";
        assert!(sent(Method::POST, own, &[("origin", "http://localhost:9800")]));
        assert!(!sent(Method::POST, own, &[("origin", "http://localhost:8000")]));
    }
}
