//! Requests as values: method, path, query and body.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde::Serialize;
use url::{Position, Url};

/// How long a call may take behind which there is nothing long.
const SHORT: Duration = Duration::from_secs(30);

/// A request to a broker.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Path and query, as they stand in the request's first line.
    pub(super) target: String,
    pub(super) accept: &'static str,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    /// JSON.
    pub(super) body: Option<Bytes>,
    /// How long the headers, and then the body, may take to come; for ever if none.
    pub(super) limit: Option<Duration>,
}

impl Call {
    /// A call of the path made of `segments`, which are escaped where they need it.
    pub(super) fn new(method: Method, segments: &[&str]) -> Self {
        let mut url = Url::parse("http://localhost/").expect("the URL is right");
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop().extend(segments);
        }
        Self {
            method,
            target: url[Position::BeforePath..].to_owned(),
            accept: "application/json",
            headers: Vec::new(),
            body: None,
            limit: Some(SHORT),
        }
    }

    /// A call about an agent.
    pub(super) fn agent(method: Method, project: &str, name: &str, rest: &[&str]) -> Self {
        let segments: Vec<&str> =
            ["v1", "agents", project, name].into_iter().chain(rest.iter().copied()).collect();
        Self::new(method, &segments)
    }

    /// The same with a pair more in the query.
    pub(super) fn query(mut self, name: &str, value: &str) -> Self {
        let mut url =
            Url::parse("http://localhost/").and_then(|url| url.join(&self.target)).expect("BUG: not a path");
        url.query_pairs_mut().append_pair(name, value);
        url[Position::BeforePath..].clone_into(&mut self.target);
        self
    }

    /// The same with a body.
    pub(super) fn body(mut self, body: &impl Serialize) -> Self {
        let json = serde_json::to_vec(body).expect("the wire types have only string keys and plain values");
        self.body = Some(json.into());
        self
    }

    /// The same for as long as it takes.
    pub(super) fn unlimited(mut self) -> Self {
        self.limit = None;
        self
    }

    /// The same within `limit`.
    pub(super) fn within(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The same for another kind of answer.
    pub(super) fn accept(mut self, kind: &'static str) -> Self {
        self.accept = kind;
        self
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_escaped() {
        let call =
            Call::agent(Method::GET, "default", "dev", &["logs"]).query("tail", "3").query("agent", "a/b &c");
        assert_eq!(call.to_string(), "GET /v1/agents/default/dev/logs?tail=3&agent=a%2Fb+%26c");
        assert_eq!(Call::agent(Method::PUT, "a b", "c/d?", &[]).target, "/v1/agents/a%20b/c%2Fd%3F");
        assert_eq!(Call::new(Method::GET, &["readyz"]).target, "/readyz");
    }
}
