//! What differs between the engines that speak this API: what they are called, and what helps when they do not answer.

use std::io;

use super::endpoint::EngineEndpoint;

/// One of the engines, by the name of its command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Engine {
    pub(super) name: &'static str,
}

impl Engine {
    pub(super) fn is_podman(self) -> bool {
        self.name == "podman"
    }

    /// Whether it closes a container's input, where that is a pipe, as soon as anyone who was attached to it goes away: Podman does
    /// (seen with 4.3), whatever `StdinOnce` says.
    pub(super) fn closes_input(self) -> bool {
        self.is_podman()
    }

    /// What to do about an engine that cannot be reached at `endpoint`.
    pub(super) fn remedy(self, endpoint: &EngineEndpoint, failure: io::ErrorKind) -> String {
        let name = self.name;
        match failure {
            io::ErrorKind::PermissionDenied if name == "docker" => format!(
                "add yourself to the group that owns {endpoint}, usually with `sudo usermod -aG docker $USER`, and log \
                 in again"
            ),
            io::ErrorKind::PermissionDenied => {
                format!("use your own rootless {name}, or have access to {endpoint} granted")
            }
            io::ErrorKind::TimedOut => {
                format!("see whether `{name} version` answers, and restart the engine if not")
            }
            _ if name == "docker" => {
                "start it (`sudo systemctl start docker`, or Docker Desktop), or name another endpoint in \
                 runtimes.docker.host or DOCKER_HOST"
                    .to_owned()
            }
            _ => format!("start its service, or name another endpoint in runtimes.{name}.host"),
        }
    }

    /// What to do about an image that could not be pulled.
    pub(super) fn pull_remedy(self, image: &str) -> String {
        let name = self.name;
        format!(
            "check the name; if its registry wants a login, run `{name} login` and `{name} pull {image}` by hand"
        )
    }
}
