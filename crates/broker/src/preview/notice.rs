//! What is shown in place of an agent's own page when there is none.

use axum::extract::Request;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};

/// Why there is no page.
pub(super) struct Notice {
    pub(super) status: StatusCode,
    /// What there is to say: the first for the eye, the second what to do.
    pub(super) said: String,
    pub(super) hint: String,
    /// Whether it may be otherwise in a moment: then a browser looks again by itself.
    pub(super) passes: bool,
}

/// Who gets to see it.
#[derive(Clone, Copy)]
pub(super) struct Reader {
    /// Whether a browser asks for a page.
    wants_html: bool,
    /// Whether asking again is all that is to be done. A browser asks with `GET` and sends nothing then.
    may_look_again: bool,
}

impl Reader {
    /// Who has sent `request`.
    pub(super) fn of(request: &Request) -> Self {
        let accepted = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
        Self {
            wants_html: accepted.is_some_and(|text| text.contains("text/html")),
            may_look_again: matches!(*request.method(), Method::GET | Method::HEAD),
        }
    }
}

impl Notice {
    /// For a browser a page, for anything else a line of text.
    pub(super) fn answer(self, reader: Reader) -> Response {
        let Reader { wants_html, may_look_again } = reader;
        let kind = if wants_html { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
        let body =
            if wants_html { self.html(may_look_again) } else { format!("{}: {}\n", self.said, self.hint) };
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors *";
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        if self.passes {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    fn html(&self, may_look_again: bool) -> String {
        let (again, waits) = match (self.passes, may_look_again) {
            (false, _) => ("", ""),
            (true, true) => {
                ("<meta http-equiv=\"refresh\" content=\"1\">", "<p>This page looks again by itself.</p>")
            }
            (true, false) => ("", "<p>What was sent has had no answer: go back and send it again.</p>"),
        };
        let (said, hint) = (escaped(&self.said), escaped(&self.hint));
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">{again}\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{said}</title>\
             <style>:root{{color-scheme:light dark}}body{{font:1.05rem/1.6 system-ui,sans-serif;max-width:36rem;margin:18vh auto;padding:0 1.5rem}}\
             h1{{font-size:1.4rem}}</style></head><body><main><h1>{said}</h1><p>{hint}</p>{waits}</main></body></html>"
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
