//! Asking the engine within a limit, and telling what went wrong.

use std::future::Future;
use std::io;
use std::time::Duration;

use bollard::errors::Error;

use super::endpoint::EngineEndpoint;
use super::engine::Engine;
use super::refusal;
use crate::{ErrorKind, RuntimeError};

/// What helps when the engine's sentence does not.
const HINTS: [(&str, &str); 5] = [
    (
        "bind source path does not exist",
        "make it on the engine's host with `mkdir -p`, or write the name of a volume",
    ),
    ("iptables", "the engine's packet rules are gone; restarting the engine brings them back"),
    (
        "cannot assign requested address",
        "this host does not have the address to publish on: see bind_address",
    ),
    (
        "privileged port",
        "a rootless engine has no ports below net.ipv4.ip_unprivileged_port_start: choose a range above it, or have it lowered",
    ),
    ("nvalid container name", "Docker wants names of at least two characters"),
];

/// What is being asked, and of whom: what every failure has to say.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    pub(super) engine: Engine,
    pub(super) endpoint: EngineEndpoint,
    /// As in "docker cannot …".
    pub(super) doing: String,
}

impl Asking {
    /// The answer to `question`, if it comes within `limit`.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        question: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, RuntimeError> {
        match tokio::time::timeout(limit, question).await {
            Ok(answer) => answer.map_err(|error| self.failed(error)),
            Err(_elapsed) => Err(self.timed_out(limit)),
        }
    }

    /// The engine refused, for the reason that `sentence` gives.
    pub(super) fn refused(&self, kind: ErrorKind, sentence: &str) -> RuntimeError {
        let message = format!("{} cannot {}: {sentence}", self.engine.name, self.doing);
        let error = RuntimeError::new(kind, message);
        if error.kind == ErrorKind::Unreachable {
            return self.with_remedy(error, io::ErrorKind::Other);
        }
        match HINTS.iter().find(|(part, _)| sentence.contains(part)) {
            Some((_, hint)) => error.hint(*hint),
            None => error,
        }
    }

    /// The engine did not answer.
    pub(super) fn timed_out(&self, limit: Duration) -> RuntimeError {
        let (name, seconds) = (self.engine.name, limit.as_secs());
        let message = format!("{name} cannot {}: no answer within {seconds} seconds", self.doing);
        self.with_remedy(RuntimeError::new(ErrorKind::Unreachable, message), io::ErrorKind::TimedOut)
    }

    /// The engine sent something else than was agreed.
    pub(super) fn out_of_step(&self) -> RuntimeError {
        self.refused(ErrorKind::Other, "what it sends is not understood")
    }

    /// What `error` means.
    pub(super) fn failed(&self, error: Error) -> RuntimeError {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                let refusal = refusal::classify(Some(status_code), &message);
                self.refused(refusal.kind, &refusal.sentence)
            }
            Error::DockerStreamError { error } => {
                let refusal = refusal::classify(None, &error);
                self.refused(refusal.kind, &refusal.sentence)
            }
            Error::IOError { err } => self.unreachable(&err),
            Error::HyperResponseError { err } => {
                let message = format!("the connection to {} at {} broke", self.engine.name, self.endpoint);
                self.with_remedy(RuntimeError::new(ErrorKind::Unreachable, message), io::ErrorKind::Other)
                    .source(err)
            }
            other => self.out_of_step().source(other),
        }
    }

    fn unreachable(&self, error: &io::Error) -> RuntimeError {
        let (name, endpoint) = (self.engine.name, &self.endpoint);
        let message = match error.kind() {
            io::ErrorKind::NotFound => format!("{name} cannot be reached: there is no {endpoint}"),
            io::ErrorKind::ConnectionRefused => {
                format!("{name} cannot be reached: nothing listens at {endpoint}")
            }
            io::ErrorKind::PermissionDenied => {
                format!("{name} cannot be reached: you have no permission to use {endpoint}")
            }
            io::ErrorKind::TimedOut => format!("{name} cannot be reached: {endpoint} does not answer"),
            _ => format!("{name} cannot be reached at {endpoint}: {error}"),
        };
        self.with_remedy(RuntimeError::new(ErrorKind::Unreachable, message), error.kind())
    }

    fn with_remedy(&self, error: RuntimeError, failure: io::ErrorKind) -> RuntimeError {
        error.hint(self.engine.remedy(&self.endpoint, failure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking() -> Asking {
        let endpoint = EngineEndpoint::unix("/var/run/docker.sock");
        Asking { engine: Engine { name: "docker" }, endpoint, doing: "list the containers".to_owned() }
    }

    fn shown(error: &RuntimeError) -> String {
        format!("{:?}: {error}; {}", error.kind, error.hint.as_deref().unwrap_or("no hint"))
    }

    #[tokio::test]
    async fn an_engine_that_hangs_is_unreachable() {
        let hanging = std::future::pending::<Result<(), Error>>();
        let error = asking().within(Duration::from_millis(1), hanging).await.unwrap_err();
        assert_eq!(
            shown(&error),
            "Unreachable: docker cannot list the containers: no answer within 0 seconds; \
             see whether `docker version` answers, and restart the engine if not"
        );
    }

    #[test]
    fn failures_to_connect_say_what_to_do() {
        let failed = |kind: io::ErrorKind| shown(&asking().failed(io::Error::from(kind).into()));
        assert_eq!(
            failed(io::ErrorKind::PermissionDenied),
            "Unreachable: docker cannot be reached: you have no permission to use unix:///var/run/docker.sock; \
             add yourself to the group that owns unix:///var/run/docker.sock, usually with \
             `sudo usermod -aG docker $USER`, and log in again"
        );
        assert_eq!(
            failed(io::ErrorKind::ConnectionRefused),
            "Unreachable: docker cannot be reached: nothing listens at unix:///var/run/docker.sock; \
             start it (`sudo systemctl start docker`, or Docker Desktop), or name another endpoint in \
             runtimes.docker.host or DOCKER_HOST"
        );
        let short = "Invalid container name (a), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed";
        let short = Error::DockerResponseServerError { status_code: 400, message: short.to_owned() };
        assert_eq!(
            shown(&asking().failed(short)),
            "Invalid: docker cannot list the containers: invalid container name (a), only \
             [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed; Docker wants names of at least two characters"
        );
        let starting = Error::DockerResponseServerError { status_code: 503, message: String::new() };
        assert_eq!(asking().failed(starting).kind, ErrorKind::Unreachable);
    }
}
