//! The web page: files that are part of the program. They say nothing of this broker; what they show they ask of the API.

use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem;

/// Each file: path, type, content.
const FILES: [(&str, &str, &str); 9] = [
    ("/", "text/html; charset=utf-8", include_str!("../../web/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("../../web/style.css")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("../../web/app.js")),
    ("/broker.js", "text/javascript; charset=utf-8", include_str!("../../web/broker.js")),
    ("/map.js", "text/javascript; charset=utf-8", include_str!("../../web/map.js")),
    ("/agents.js", "text/javascript; charset=utf-8", include_str!("../../web/agents.js")),
    ("/detail.js", "text/javascript; charset=utf-8", include_str!("../../web/detail.js")),
    ("/sight.js", "text/javascript; charset=utf-8", include_str!("../../web/sight.js")),
    ("/icon.svg", "image/svg+xml", include_str!("../../web/icon.svg")),
];

/// Nothing but the broker's own files and answers, and nobody frames them.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// Whether `path` is one of the page's files.
pub(super) fn is_part(path: &str) -> bool {
    FILES.iter().any(|(file, _, _)| *file == path)
}

/// Answers with a file of the page.
pub(super) async fn file(request: Request) -> Response {
    match FILES.iter().find(|(path, _, _)| *path == request.uri().path()) {
        // A newer broker has newer files.
        Some((_, kind, content)) => {
            ([(CONTENT_TYPE, *kind), (CACHE_CONTROL, "no-cache")], *content).into_response()
        }
        None => problem::no_such_call(request.method().clone(), request.uri().clone()).await.into_response(),
    }
}

/// Tells browsers what they may do with whatever is answered: logs, too, are an agent's own words.
pub(super) async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
