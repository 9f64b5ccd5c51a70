//! What a cluster's refusal means.

use std::io;

use kube::core::Status;

use crate::{ErrorKind, RuntimeError};

/// What helps where the cluster does not answer.
const LOOK: &str = "see whether `kubectl get pods` answers, and what `runtimes.kubernetes.context` names";
/// What helps where the broker's user may not do something.
pub(super) const ROLE: &str = "give the broker's user the rights of deploy/kubernetes/rbac.yaml";

/// The error for a call that failed; `doing` completes "kubernetes cannot …".
pub(super) fn refused(doing: &str, error: kube::Error) -> RuntimeError {
    match error {
        kube::Error::Api(status) => by_status(doing, &status),
        error => unreachable(doing, &chain(&error)),
    }
}

/// The error for a call that was answered with `status`.
pub(super) fn by_status(doing: &str, status: &Status) -> RuntimeError {
    let said = if status.message.is_empty() { &status.reason } else { &status.message };
    let error = |kind| RuntimeError::new(kind, format!("kubernetes cannot {doing}: {said}"));
    let about_port = |needle: &str| said.contains(needle).then(|| port_in(said));
    if let Some(port) = about_port("provided port is already allocated") {
        return error(ErrorKind::PortRefused { port });
    }
    if said.contains("not in the valid range") {
        return error(ErrorKind::Invalid)
            .hint("with `expose: node_port` the range of the port pool must lie in that of the cluster");
    }
    match (status.code, status.reason.as_str()) {
        (404, _) if said.contains("namespaces ") => error(ErrorKind::Invalid)
            .hint("create the namespace, or name another one in `runtimes.kubernetes.namespace`"),
        (404, _) if names_what_is_missing(status) => error(ErrorKind::NotFound),
        // What stands before an API server that is being started, or in place of one, has no such page; that says nothing of objects.
        (404, _) => error(ErrorKind::Unreachable).hint(LOOK),
        (409, "AlreadyExists") => error(ErrorKind::NameTaken),
        (401, _) => {
            error(ErrorKind::Unreachable).hint("the kubeconfig's credentials are not valid (any more)")
        }
        // Its message names the verb, the resource and the namespace.
        (403, _) => error(ErrorKind::Forbidden).hint(ROLE),
        (422 | 400, _) => error(ErrorKind::Invalid),
        (429 | 500..=599, _) => error(ErrorKind::Unreachable).hint(LOOK),
        _ => error(ErrorKind::Other),
    }
}

/// Whether an API server itself says that an object is not there: it says of which kind, and which one.
fn names_what_is_missing(status: &Status) -> bool {
    status.reason == "NotFound" && status.details.as_ref().is_some_and(|details| !details.name.is_empty())
}

/// The error for a cluster that did not answer.
pub(super) fn unreachable(doing: &str, why: &str) -> RuntimeError {
    RuntimeError::new(ErrorKind::Unreachable, format!("kubernetes cannot {doing}: {why}")).hint(LOOK)
}

/// The error for a creation that failed, and of which something may be left: taking that back failed as well.
pub(super) fn left_behind(error: &RuntimeError, second: &RuntimeError) -> RuntimeError {
    let message =
        format!("{}; and what was reserved for it is still there: {}", error.message, second.message);
    let left = RuntimeError::new(ErrorKind::Other, message);
    match second.hint.clone().or_else(|| error.hint.clone()) {
        Some(hint) => left.hint(hint),
        None => left,
    }
}

/// The error for a connection that broke off.
pub(super) fn broken_off(doing: &str, error: &io::Error) -> RuntimeError {
    unreachable(doing, &error.to_string())
}

/// The port that the sentence is about, as in `Service "dev-30000" is invalid: spec.ports[0].nodePort: Invalid value: 30080: …`.
fn port_in(sentence: &str) -> Option<u16> {
    let (_, behind) = sentence.split_once("Invalid value: ")?;
    let digits = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
    behind[..digits].parse().ok()
}

/// The error with its causes, each once: many repeat what the one below says.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: u16, reason: &str, message: &str) -> ErrorKind {
        by_status("do it", &Status::failure(message, reason).with_code(code)).kind
    }

    #[test]
    fn only_an_api_server_says_that_an_object_is_not_there() {
        let told = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"dev\" not found",
            "reason":"NotFound","details":{"name":"dev","kind":"pods"},"code":404}"#;
        let status: Status = serde_json::from_str(told).unwrap();
        assert_eq!(by_status("look at the pod", &status).kind, ErrorKind::NotFound);
        // As the client makes it of a proxy's page, and what an API server says of a path that it does not (yet) serve.
        for (message, reason) in [
            ("\"404 page not found\\n\"", "Failed to parse error data"),
            ("404 page not found", ""),
            ("the server could not find the requested resource", "NotFound"),
        ] {
            assert_eq!(kind(404, reason, message), ErrorKind::Unreachable, "{message}");
        }
    }

    #[test]
    fn refusals_as_an_api_server_words_them() {
        let taken = r#"Service "dev-30000" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"#;
        assert_eq!(kind(422, "Invalid", taken), ErrorKind::PortRefused { port: Some(30080) });
        let range = r#"Service "dev" is invalid: spec.ports[0].nodePort: Invalid value: 8000: provided port is not in the valid range. The range of valid ports is 30000-32767"#;
        assert_eq!(kind(422, "Invalid", range), ErrorKind::Invalid);
        assert_eq!(kind(409, "AlreadyExists", r#"pods "dev" already exists"#), ErrorKind::NameTaken);
        assert_eq!(kind(409, "Conflict", "the object has been modified"), ErrorKind::Other);
        assert_eq!(kind(404, "NotFound", r#"namespaces "gone" not found"#), ErrorKind::Invalid);
        assert_eq!(kind(503, "ServiceUnavailable", ""), ErrorKind::Unreachable);
        let forbidden = r#"pods is forbidden: User "nobody" cannot create resource "pods" in API group "" in the namespace "default""#;
        let error = by_status("create the pod", &Status::failure(forbidden, "Forbidden").with_code(403));
        assert!(error.message.contains("cannot create resource \"pods\""));
        assert!(error.hint.is_some());
    }
}
