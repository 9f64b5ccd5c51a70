//! Errors as problem documents (RFC 9457).

use api::{Code, Problem};
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use crate::error::OperationError;

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct Refusal(Box<Problem>);

impl Refusal {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self(Box::new(Problem {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            hint: None,
            details: serde_json::Map::new(),
        }))
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.0)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl From<OperationError> for Refusal {
    fn from(error: OperationError) -> Self {
        let mut refusal = Self::new(error.code(), error.to_string());
        refusal.0.hint = error.hint();
        refusal.0.details = error.details();
        refusal
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(
            Code::InvalidRequest,
            format!("the body of the request is wrong: {}", rejection.body_text()),
        )
        .hint("`/openapi.json` says what it may hold")
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(
            Code::InvalidRequest,
            format!("the query of the request is wrong: {}", rejection.body_text()),
        )
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self::new(
            Code::InvalidRequest,
            format!("the path of the request is wrong: {}", rejection.body_text()),
        )
    }
}

/// The answer where there is no such route.
pub(super) async fn no_such_call(method: Method, uri: Uri) -> Refusal {
    Refusal::new(Code::NotFound, format!("there is no call {method} {}", uri.path()))
        .hint("`/openapi.json` lists the calls")
}

/// The answer where the route has no such method.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Response {
    let refusal = Refusal::new(Code::NotFound, format!("{} has no method {method}", uri.path()))
        .hint("`/openapi.json` lists the calls");
    let mut response = refusal.into_response();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}
