//! What the engine's answers say about a container.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryStateEnum, PortMap, PortSummary, PortSummaryTypeEnum,
};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Observed, ObservedState, Publish};

/// Podman's word (seen with 4.3) for what has ended while its ports and the like have yet to be taken down.
const STOPPED: &str = "stopped";

/// Whether an inspection is of what has ended but may still hold its ports.
pub(super) fn is_being_taken_down(answer: &Value) -> bool {
    answer.pointer("/State/Status").is_some_and(|status| status == STOPPED)
}

/// An inspection as the engine sends it.
pub(crate) fn inspection(mut answer: Value) -> serde_json::Result<ContainerInspectResponse> {
    if let Some(status) = answer.pointer_mut("/State/Status") {
        translate::<ContainerStateStatusEnum>(status);
    }
    serde_json::from_value(answer)
}

/// A listing as the engine sends it.
pub(crate) fn listing(mut answer: Value) -> serde_json::Result<Vec<ContainerSummary>> {
    for container in answer.as_array_mut().into_iter().flatten() {
        if let Some(state) = container.get_mut("State") {
            translate::<ContainerSummaryStateEnum>(state);
        }
    }
    serde_json::from_value(answer)
}

/// Puts Docker's word in place of one that is not among its words `W`. One of them that is not known must not keep all the others from
/// being seen; what it means is not taken for an end.
fn translate<W: DeserializeOwned>(word: &mut Value) {
    if W::deserialize(&*word).is_ok() {
        return;
    }
    *word = match word.as_str() {
        Some("initialized") => "created".into(),
        Some(STOPPED) => "exited".into(),
        _ => "stopping".into(),
    };
}

/// What an inspection says of the container `id`.
pub(crate) fn from_inspection(id: String, answer: ContainerInspectResponse) -> Observed {
    let config = answer.config.unwrap_or_default();
    let state = state(&answer.state.unwrap_or_default());
    let published = match state {
        ObservedState::Running { .. } => published(answer.network_settings.and_then(|network| network.ports)),
        ObservedState::Created | ObservedState::Exited { .. } => Vec::new(),
    };
    Observed {
        id,
        name: answer.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        labels: labels(config.labels),
        state,
        image: config.image,
        published,
    }
}

/// What a listing says of a container that runs; none if it does not run: then the listing does not say enough.
pub(crate) fn from_listing(summary: &ContainerSummary) -> Option<Observed> {
    let state = summary.state?;
    let runs = [
        ContainerSummaryStateEnum::RUNNING,
        ContainerSummaryStateEnum::PAUSED,
        ContainerSummaryStateEnum::RESTARTING,
    ];
    if !runs.contains(&state) {
        return None;
    }
    // Links of other containers appear as further names of two parts.
    let names = summary.names.as_deref().unwrap_or_default();
    let name = names.iter().map(|name| name.trim_start_matches('/')).find(|name| !name.contains('/'));
    Some(Observed {
        id: summary.id.clone()?,
        name: name.unwrap_or_default().to_owned(),
        labels: labels(summary.labels.clone()),
        state: ObservedState::Running { since: None },
        image: summary.image.clone(),
        published: published_of_listing(summary.ports.as_deref().unwrap_or_default()),
    })
}

fn labels(labels: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    labels.unwrap_or_default().into_iter().collect()
}

fn state(state: &ContainerState) -> ObservedState {
    use ContainerStateStatusEnum as Status;
    let runs = match state.status {
        Some(Status::CREATED) => return ObservedState::Created,
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING | Status::STOPPING) => true,
        Some(Status::EXITED | Status::DEAD | Status::REMOVING) => false,
        // What is not said to have ended is taken to run: its ports must not go to anyone else.
        Some(Status::EMPTY) | None => state.running.unwrap_or(true),
    };
    if runs {
        return ObservedState::Running { since: time(state.started_at.as_deref()) };
    }
    let out_of_memory = state.oom_killed.unwrap_or(false).then(|| "memory ran out".to_owned());
    let error = state.error.clone().filter(|error| !error.is_empty());
    let details: Vec<String> = out_of_memory.into_iter().chain(error).collect();
    ObservedState::Exited {
        code: state.exit_code,
        at: time(state.finished_at.as_deref()),
        detail: (!details.is_empty()).then(|| details.join("; ")),
    }
}

/// The time that the engine wrote; for "never" it writes the first instant of the year 1.
fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse::<Timestamp>().ok().filter(|time| *time > Timestamp::UNIX_EPOCH)
}

fn published(ports: Option<PortMap>) -> Vec<Publish> {
    let mut published = Vec::new();
    for (inside, bindings) in ports.unwrap_or_default() {
        let Some(container) = tcp_port(&inside) else { continue };
        for binding in bindings.unwrap_or_default() {
            let host = binding.host_port.and_then(|port| port.parse().ok()).filter(|port: &u16| *port != 0);
            let (Some(host), Some(address)) = (host, address(binding.host_ip.as_deref())) else { continue };
            published.push(Publish { address, host, container });
        }
    }
    published.sort_unstable();
    published
}

fn published_of_listing(ports: &[PortSummary]) -> Vec<Publish> {
    let is_tcp = |port: &&PortSummary| port.typ.is_none_or(|protocol| protocol == PortSummaryTypeEnum::TCP);
    let publish = |port: &PortSummary| {
        let host = port.public_port.filter(|port| *port != 0)?;
        Some(Publish { address: address(port.ip.as_deref())?, host, container: port.private_port })
    };
    let mut published: Vec<Publish> = ports.iter().filter(is_tcp).filter_map(publish).collect();
    published.sort_unstable();
    published
}

fn tcp_port(text: &str) -> Option<u16> {
    text.strip_suffix("/tcp").unwrap_or(text).parse().ok()
}

/// Podman leaves the address empty where it means all of them.
fn address(text: Option<&str>) -> Option<IpAddr> {
    match text.unwrap_or_default() {
        "" => Some(Ipv4Addr::UNSPECIFIED.into()),
        text => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(json: &str) -> Observed {
        from_inspection("0a1b".to_owned(), inspection(serde_json::from_str(json).unwrap()).unwrap())
    }

    fn shown(published: &[Publish]) -> Vec<String> {
        published.iter().map(|port| format!("{} {} {}", port.address, port.host, port.container)).collect()
    }

    #[test]
    fn a_running_container() {
        let observed = inspected(
            r#"{"Id":"0a1b","Name":"/shop--web","Config":{"Image":"node:22","Labels":{"berthold.broker":"b"}},
                "State":{"Status":"running","Running":true,"StartedAt":"2026-11-23T09:00:00.123456789Z"},
                "NetworkSettings":{"Ports":{"8000/tcp":[{"HostIp":"0.0.0.0","HostPort":"8000"},{"HostIp":"::","HostPort":"8000"}],
                    "9000/tcp":null,"53/udp":[{"HostIp":"","HostPort":"53"}],"8001/tcp":[{"HostIp":"","HostPort":"8001"}]}}}"#,
        );
        assert_eq!((observed.id.as_str(), observed.name.as_str()), ("0a1b", "shop--web"));
        assert_eq!(observed.image.as_deref(), Some("node:22"));
        assert_eq!(observed.labels["berthold.broker"], "b");
        assert_eq!(
            observed.state,
            ObservedState::Running { since: "2026-11-23T09:00:00.123456789Z".parse().ok() }
        );
        assert_eq!(shown(&observed.published), ["0.0.0.0 8000 8000", "0.0.0.0 8001 8001", ":: 8000 8000"]);
    }

    #[test]
    fn states() {
        let check = |state: &str, expected: ObservedState| {
            assert_eq!(inspected(&format!(r#"{{"Id":"0a","State":{state}}}"#)).state, expected, "{state}");
        };
        let ended = |code, detail: Option<&str>| ObservedState::Exited {
            code,
            at: None,
            detail: detail.map(str::to_owned),
        };
        let never = "0001-01-01T00:00:00Z";
        check(
            &format!(
                r#"{{"Status":"created","ExitCode":128,"Error":"port is already allocated","StartedAt":"{never}"}}"#
            ),
            ObservedState::Created,
        );
        check(
            &format!(r#"{{"Status":"paused","StartedAt":"{never}"}}"#),
            ObservedState::Running { since: None },
        );
        check(r#"{"Status":"restarting"}"#, ObservedState::Running { since: None });
        check(
            r#"{"Status":"exited","ExitCode":137,"OOMKilled":true}"#,
            ended(Some(137), Some("memory ran out")),
        );
        check(r#"{"Status":"dead","ExitCode":1,"Error":"device busy"}"#, ended(Some(1), Some("device busy")));
        check(r#"{"Status":"removing"}"#, ended(None, None));
        check(r#"{"Running":false}"#, ended(None, None));
        check(r#"{"Status":"initialized","Running":false}"#, ObservedState::Created);
        check(r#"{"Status":"stopped","Running":false,"ExitCode":3}"#, ended(Some(3), None));
        check(r#"{"Status":"of another engine","Running":false}"#, ObservedState::Running { since: None });
        check("{}", ObservedState::Running { since: None });
    }

    #[test]
    fn listings() {
        let summary = |json: &str| {
            let listed = listing(serde_json::from_str(&format!("[{json}]")).unwrap()).unwrap();
            from_listing(&listed[0])
        };
        let running = r#"{"Id":"0a","Names":["/other/alias","/web"],"Image":"node:22","State":"running","Labels":{"a":"b"},
            "Ports":[{"IP":"127.0.0.1","PrivatePort":8000,"PublicPort":8000,"Type":"tcp"},{"PrivatePort":9000,"Type":"tcp"},
                {"IP":"127.0.0.1","PrivatePort":53,"PublicPort":53,"Type":"udp"}]}"#;
        let observed = summary(running).unwrap();
        assert_eq!((observed.name.as_str(), observed.labels["a"].as_str()), ("web", "b"));
        assert_eq!(shown(&observed.published), ["127.0.0.1 8000 8000"]);
        for word in ["exited", "initialized", "stopped", "of another engine"] {
            assert_eq!(summary(&format!(r#"{{"Id":"0a","State":"{word}"}}"#)), None);
        }
    }
}
