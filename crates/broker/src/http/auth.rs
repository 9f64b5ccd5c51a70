//! Who may use the API on `listen`.

use std::sync::Arc;

use api::Code;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::problem::Refusal;

/// The token that is asked for.
pub(super) struct Token(String);

impl Token {
    pub(super) fn new(token: String) -> Self {
        Self(token)
    }

    fn admits(&self, request: &Request) -> bool {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = header.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            // RFC 9110, section 11.1: the scheme's letter case does not matter.
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        given.is_some_and(|given| given.as_bytes().ct_eq(self.0.as_bytes()).into())
    }
}

/// Lets a request through that brings the token, or that asks only whether the broker is alive.
pub(super) async fn require(State(token): State<Arc<Token>>, request: Request, next: Next) -> Response {
    if matches!(request.uri().path(), "/healthz" | "/readyz") || token.admits(&request) {
        return next.run(request).await;
    }
    Refusal::new(Code::Unauthorized, "this call needs the broker's token as a bearer token")
        .hint("the token is in the file `token` in the broker's home; `berthold` reads it from there or from BERTHOLD_TOKEN")
        .into_response()
}
