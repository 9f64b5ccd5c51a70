//! An agent as a pod: what is asked of the cluster, and what it says.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerState, ContainerStatus, EnvVar, HostPathVolumeSource,
    PersistentVolumeClaimVolumeSource, Pod, PodSpec, Volume as PodVolume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::Expose;
use crate::{Console, ErrorKind, LEASE_LABEL, Network, Observed, ObservedState, Publish, RuntimeError, Spec};

/// The container of the agent.
pub(super) const CONTAINER: &str = "agent";
/// What begins so is an agent's label. All of them are annotations of the pod too, since those may hold anything.
const OURS: &str = "berthold.";
/// The annotation that says which ports are published where: `127.0.0.1:8000,127.0.0.1:8001`.
const PUBLISH: &str = "berthold.publish";
/// The annotation that says to a person who has this pod.
const OWNER: &str = "berthold.owner";
/// The longest value of a label.
const LONGEST_LABEL: usize = 63;

/// The pod for `spec`.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for what a pod cannot do.
pub(super) fn pod(spec: &Spec, expose: Expose) -> Result<Pod, RuntimeError> {
    let image =
        spec.image.clone().ok_or_else(|| RuntimeError::new(ErrorKind::Invalid, "an image is needed"))?;
    let on_host = match &spec.network {
        Network::Default => false,
        Network::Host => true,
        Network::None | Network::Named(_) => {
            let message = "a pod has its own network or the host's, and no other";
            let hint = "leave out `--network`, or say `--network host`";
            return Err(RuntimeError::new(ErrorKind::Unsupported, message).hint(hint));
        }
    };
    let published = spec.publish.iter().map(|port| ContainerPort {
        container_port: port.container.into(),
        host_port: (expose == Expose::HostPort).then(|| port.host.into()),
        host_ip: (expose == Expose::HostPort).then(|| port.address.to_string()),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    });
    // So that no node gets two pods that bind the same port. With `none` nothing is to be claimed, not even that.
    let bound = spec.binds.iter().filter(|_| expose != Expose::None).map(|port| ContainerPort {
        container_port: (*port).into(),
        host_port: Some((*port).into()),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    });
    let ports: Vec<ContainerPort> = published.chain(bound).collect();
    let (volumes, mounts) = volumes(spec)?;
    let env = spec.env.iter().map(|(name, value)| EnvVar {
        name: name.clone(),
        value: Some(escaped(value)),
        value_from: None,
    });
    let container = Container {
        name: CONTAINER.to_owned(),
        image: Some(image),
        // As with Docker, what is typed replaces the image's command and not its entry point.
        args: (!spec.command.is_empty()).then(|| spec.command.iter().map(|it| escaped(it)).collect()),
        env: Some(env.collect()),
        ports: (!ports.is_empty()).then_some(ports),
        volume_mounts: (!mounts.is_empty()).then_some(mounts),
        working_dir: spec.workdir.clone(),
        // Without stdinOnce: the end of one attachment's input is not that of the agent's.
        stdin: spec.console.stdin.then_some(true),
        tty: spec.console.terminal.then_some(true),
        // What Docker does: an image that is there is not asked for again, also when it is called `latest`.
        image_pull_policy: Some("IfNotPresent".to_owned()),
        ..Container::default()
    };
    Ok(Pod {
        metadata: ObjectMeta {
            name: Some(spec.name.clone()),
            labels: Some(labels(&spec.labels)),
            annotations: Some(annotations(spec)),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![container],
            restart_policy: Some("Never".to_owned()),
            host_network: on_host.then_some(true),
            volumes: (!volumes.is_empty()).then_some(volumes),
            // An agent has no business with the cluster, and needs no variables for each of its services.
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            ..PodSpec::default()
        }),
        status: None,
    })
}

/// The lease of what a broker has made, a pod or what belongs to one.
pub(super) fn lease(metadata: &ObjectMeta) -> Option<&String> {
    metadata.labels.as_ref()?.get(LEASE_LABEL)
}

/// What its standard streams are.
pub(super) fn console(pod: &Pod) -> Console {
    let container = container(pod);
    Console {
        stdin: container.and_then(|container| container.stdin).unwrap_or(false),
        terminal: container.and_then(|container| container.tty).unwrap_or(false),
    }
}

/// Those that can be labels: with `/` in it, or too long, a value cannot.
pub(super) fn labels(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let can_be = |value: &str| value.len() <= LONGEST_LABEL && value.chars().all(plain);
    labels.iter().filter(|(_, value)| can_be(value)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn annotations(spec: &Spec) -> BTreeMap<String, String> {
    let mut annotations = spec.labels.clone();
    let addresses: Vec<String> = spec
        .publish
        .iter()
        .map(|port| std::net::SocketAddr::new(port.address, port.host).to_string())
        .collect();
    annotations.insert(PUBLISH.to_owned(), addresses.join(","));
    let label = |name: &str| spec.labels.get(name).map_or("?", String::as_str);
    let owner = format!("agent {} of the broker {}", label("berthold.agent"), label("berthold.broker"));
    annotations.insert(OWNER.to_owned(), owner);
    annotations
}

/// Kubernetes puts variables in place of `$(NAME)`; a doubled `$` is a plain one.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

fn volumes(spec: &Spec) -> Result<(Vec<PodVolume>, Vec<VolumeMount>), RuntimeError> {
    let mut volumes = Vec::new();
    let mut mounts = Vec::new();
    for (number, volume) in spec.volumes.iter().enumerate() {
        if !volume.target.starts_with('/') {
            let message =
                format!("the volume {}:{} has no absolute path inside", volume.source, volume.target);
            return Err(RuntimeError::new(ErrorKind::Invalid, message));
        }
        let name = format!("volume-{number}");
        let is_path = volume.source.starts_with('/');
        // A workspace that is not there must not come to be, empty; of another volume it is not known what it is meant to be.
        let is_workspace = volume.source == volume.target && spec.workdir.as_ref() == Some(&volume.source);
        let type_ = is_workspace.then(|| "Directory".to_owned());
        volumes.push(PodVolume {
            name: name.clone(),
            host_path: is_path.then(|| HostPathVolumeSource { path: volume.source.clone(), type_ }),
            persistent_volume_claim: (!is_path).then(|| PersistentVolumeClaimVolumeSource {
                claim_name: volume.source.clone(),
                read_only: Some(volume.read_only),
            }),
            ..PodVolume::default()
        });
        mounts.push(VolumeMount {
            name,
            mount_path: volume.target.clone(),
            read_only: Some(volume.read_only),
            ..VolumeMount::default()
        });
    }
    Ok((volumes, mounts))
}

/// The id of a pod: its name, and the uid by which it differs from others of that name.
pub(super) fn id(pod: &Pod) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    format!("{}@{uid}", pod.metadata.name.as_deref().unwrap_or_default())
}

/// The name in an id, and the uid if it has one.
pub(super) fn name_and_uid(id: &str) -> (&str, Option<&str>) {
    match id.split_once('@') {
        Some((name, uid)) => (name, Some(uid).filter(|uid| !uid.is_empty())),
        None => (id, None),
    }
}

/// The ports that the pod was created to have published.
pub(super) fn publish(pod: &Pod) -> Vec<Publish> {
    let text = pod.metadata.annotations.as_ref().and_then(|it| it.get(PUBLISH));
    let addresses = text.into_iter().flat_map(|text| text.split(','));
    let publish = |address: std::net::SocketAddr| Publish {
        address: address.ip(),
        host: address.port(),
        container: address.port(),
    };
    addresses.filter_map(|address| address.parse().ok()).map(publish).collect()
}

/// The numbers that the pod has, whichever way they are reached.
pub(super) fn numbers(pod: &Pod) -> Vec<u16> {
    let ports = container(pod).into_iter().flat_map(|container| container.ports.iter().flatten());
    ports.filter_map(|port| u16::try_from(port.container_port).ok()).collect()
}

/// The ports of the node that the pod has.
pub(super) fn host_ports(pod: &Pod) -> Vec<Publish> {
    let ports = container(pod).into_iter().flat_map(|container| container.ports.iter().flatten());
    let numbers: Vec<i32> = ports.filter_map(|port| port.host_port).collect();
    publish(pod).into_iter().filter(|port| numbers.contains(&port.host.into())).collect()
}

/// What the cluster says of the pod. `published` are the ports that are known to be published while it runs.
pub(super) fn observed(pod: &Pod, published: Vec<Publish>) -> Observed {
    let state = state(pod);
    let is_running = matches!(state, ObservedState::Running { .. });
    let labels = all_labels(pod);
    let container = container(pod);
    Observed {
        id: id(pod),
        name: pod.metadata.name.clone().unwrap_or_default(),
        labels,
        state,
        image: container.and_then(|container| container.image.clone()),
        published: if is_running { published } else { Vec::new() },
    }
}

/// The labels of the agent, with those that cannot be labels here and are annotations alone.
pub(super) fn all_labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    let annotations = pod.metadata.annotations.iter().flatten();
    labels.extend(
        annotations
            .filter(|(name, _)| name.starts_with(OURS) && ![PUBLISH, OWNER].contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    labels
}

fn state(pod: &Pod) -> ObservedState {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    let container = container_state(pod);
    if let Some(ended) = container.and_then(|state| state.terminated.as_ref()) {
        let reason = ended.reason.as_deref().filter(|reason| !["Completed", "Error"].contains(reason));
        // Of the pod: that it was evicted, say, whose container the node then killed.
        let why = status.filter(|_| phase == "Failed");
        let parts = [
            why.and_then(|status| status.reason.as_deref()),
            why.and_then(|status| status.message.as_deref()),
            reason,
            ended.message.as_deref(),
        ];
        let parts = parts.into_iter().flatten().map(str::trim).filter(|text| !text.is_empty());
        let detail = parts.collect::<Vec<_>>().join(": ");
        return ObservedState::Exited {
            code: Some(ended.exit_code.into()),
            at: ended.finished_at.as_ref().and_then(moment),
            detail: Some(detail).filter(|text| !text.is_empty()),
        };
    }
    if let Some(running) = container.and_then(|state| state.running.as_ref()) {
        return ObservedState::Running { since: running.started_at.as_ref().and_then(moment) };
    }
    match phase {
        "Pending" => ObservedState::Created,
        // Evicted, or gone with its node: no one saw how its container ended.
        "Failed" | "Succeeded" => {
            let said = |text: Option<&String>| text.cloned().filter(|text| !text.is_empty());
            let parts = [
                said(status.and_then(|status| status.reason.as_ref())),
                said(status.and_then(|status| status.message.as_ref())),
            ];
            let detail = parts.into_iter().flatten().collect::<Vec<_>>().join(": ");
            let code = (phase == "Succeeded").then_some(0);
            ObservedState::Exited { code, at: None, detail: Some(detail).filter(|text| !text.is_empty()) }
        }
        // Running, or on a node that does not answer: nothing may be given back.
        _ => ObservedState::Running { since: None },
    }
}

/// Whether others in the pod run although the agent has ended. (What is a sidecar to the cluster itself ends with it.)
pub(super) fn outlives_agent(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let others = status.into_iter().flat_map(|status| status.container_statuses.iter().flatten());
    let runs = |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.running.is_some());
    others.filter(|status| status.name != CONTAINER).any(runs)
}

fn container_state(pod: &Pod) -> Option<&ContainerState> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == CONTAINER)?.state.as_ref()
}

/// That of the agent: a cluster may have put others beside it.
fn container(pod: &Pod) -> Option<&Container> {
    pod.spec.as_ref()?.containers.iter().find(|container| container.name == CONTAINER)
}

fn moment(time: &Time) -> Option<Timestamp> {
    Timestamp::from_nanosecond(time.0.as_nanosecond()).ok()
}

/// Why a pod that was created does not run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Obstacle {
    /// It is on its way; with what it waits for, if that is known.
    Waiting(String),
    /// No node has its ports free; this is what the scheduler says.
    PortsTaken(String),
    /// It cannot run, for this reason.
    Hopeless(ErrorKind, String),
}

/// Why the pod, which is neither running nor ended, does not run yet.
pub(super) fn obstacle(pod: &Pod) -> Obstacle {
    if let Some(waiting) = container_state(pod).and_then(|state| state.waiting.as_ref()) {
        let reason = waiting.reason.clone().unwrap_or_default();
        let text = match &waiting.message {
            Some(message) => format!("{reason}: {message}"),
            None => reason.clone(),
        };
        return match reason.as_str() {
            "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
                Obstacle::Hopeless(ErrorKind::Image, text)
            }
            "CreateContainerConfigError" | "CreateContainerError" => {
                Obstacle::Hopeless(ErrorKind::Invalid, text)
            }
            "RunContainerError" => Obstacle::Hopeless(ErrorKind::Command, text),
            _ => Obstacle::Waiting(text),
        };
    }
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let unscheduled = conditions
        .filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
        .find_map(|condition| condition.message.clone());
    match unscheduled {
        Some(message) if message.contains("free ports for the requested pod ports") => {
            Obstacle::PortsTaken(format!("no node takes it: {message}"))
        }
        Some(message) => Obstacle::Waiting(format!("no node takes it: {message}")),
        None => Obstacle::Waiting("it is being created".to_owned()),
    }
}

/// The address of the node that the pod is on.
pub(super) fn node_address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.host_ip.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::json;

    use super::*;
    use crate::Volume;

    fn spec() -> Spec {
        let port = |host| Publish { address: Ipv4Addr::LOCALHOST.into(), host, container: host };
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Spec {
            name: "shop--web".to_owned(),
            image: Some("node:22".to_owned()),
            command: vec!["sh".to_owned(), "-c".to_owned(), "echo $$ $(date) $PORT".to_owned()],
            env: vec![("PRICE".to_owned(), "$5".to_owned())],
            labels: [
                label("berthold.agent", "shop/web"),
                label("berthold.broker", "01J"),
                label("berthold.ports", "8000-8001"),
            ]
            .into(),
            volumes: vec![
                Volume { source: "/src".to_owned(), target: "/work".to_owned(), read_only: false },
                Volume { source: "cache".to_owned(), target: "/cache".to_owned(), read_only: true },
            ],
            workdir: Some("/work".to_owned()),
            console: Console::default(),
            network: Network::Default,
            publish: vec![port(8000), port(8001)],
            binds: Vec::new(),
        }
    }

    fn sent(spec: &Spec, expose: Expose) -> serde_json::Value {
        serde_json::to_value(pod(spec, expose).unwrap()).unwrap()
    }

    #[test]
    fn a_pod_has_all_that_was_asked_for() {
        let pod = sent(&spec(), Expose::Forward);
        let container = &pod["spec"]["containers"][0];
        assert_eq!(pod["spec"]["restartPolicy"], "Never");
        assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
        assert_eq!(container["args"], json!(["sh", "-c", "echo $$$$ $$(date) $$PORT"]));
        assert_eq!(container["env"], json!([{ "name": "PRICE", "value": "$$5" }]));
        assert_eq!(container["workingDir"], "/work");
        assert_eq!(
            container["ports"],
            json!([{ "containerPort": 8000, "protocol": "TCP" }, { "containerPort": 8001, "protocol": "TCP" }])
        );
        assert_eq!(pod["spec"]["volumes"][0]["hostPath"], json!({ "path": "/src" }));
        let workspace = Volume { source: "/work".to_owned(), target: "/work".to_owned(), read_only: false };
        let in_workspace = sent(&Spec { volumes: vec![workspace], ..spec() }, Expose::Forward);
        assert_eq!(
            in_workspace["spec"]["volumes"][0]["hostPath"],
            json!({ "path": "/work", "type": "Directory" })
        );
        assert_eq!(pod["spec"]["volumes"][1]["persistentVolumeClaim"]["claimName"], "cache");
        assert_eq!(container["volumeMounts"][1]["readOnly"], true);
        // `/` cannot stand in a label.
        assert_eq!(
            pod["metadata"]["labels"],
            json!({ "berthold.broker": "01J", "berthold.ports": "8000-8001" })
        );
        assert_eq!(pod["metadata"]["annotations"]["berthold.publish"], "127.0.0.1:8000,127.0.0.1:8001");
        assert_eq!(pod["metadata"]["annotations"]["berthold.owner"], "agent shop/web of the broker 01J");
    }

    #[test]
    fn only_host_port_asks_for_ports_of_the_node() {
        let ports = |expose| sent(&spec(), expose)["spec"]["containers"][0]["ports"][0].clone();
        assert_eq!(
            ports(Expose::HostPort),
            json!({ "containerPort": 8000, "hostPort": 8000, "hostIP": "127.0.0.1", "protocol": "TCP" })
        );
        assert_eq!(ports(Expose::NodePort), json!({ "containerPort": 8000, "protocol": "TCP" }));
    }

    #[test]
    fn on_the_network_of_its_node_a_pod_says_what_it_binds() {
        let spec = Spec { network: Network::Host, publish: Vec::new(), binds: vec![8000], ..spec() };
        let ports = |expose| sent(&spec, expose)["spec"]["containers"][0]["ports"].clone();
        let bound = json!([{ "containerPort": 8000, "hostPort": 8000, "protocol": "TCP" }]);
        for expose in [Expose::Forward, Expose::HostPort, Expose::NodePort] {
            assert_eq!(ports(expose), bound, "{expose:?}");
            assert_eq!(numbers(&pod(&spec, expose).unwrap()), [8000]);
            assert_eq!(host_ports(&pod(&spec, expose).unwrap()), [], "nothing publishes it");
        }
        assert_eq!(ports(Expose::None), serde_json::Value::Null);
    }

    #[test]
    fn networks() {
        let with = |text: &str| pod(&Spec { network: Network::parse(text), ..spec() }, Expose::Forward);
        assert_eq!(with("host").unwrap().spec.unwrap().host_network, Some(true));
        for refused in ["none", "shop", "container:x"] {
            assert_eq!(with(refused).unwrap_err().kind, ErrorKind::Unsupported);
        }
    }

    #[test]
    fn labels_come_back_also_those_that_are_too_long_for_one() {
        let ports = (8000..8040).map(|port| port.to_string()).collect::<Vec<_>>().join("-");
        let mut spec = spec();
        spec.labels.insert("berthold.ports".to_owned(), ports);
        let pod = pod(&spec, Expose::Forward).unwrap();
        assert!(!pod.metadata.labels.as_ref().unwrap().contains_key("berthold.ports"));
        assert_eq!(observed(&pod, Vec::new()).labels, spec.labels);
        assert_eq!(publish(&pod), spec.publish);
    }

    fn with_status(status: &serde_json::Value) -> Pod {
        let metadata = json!({ "name": "web", "uid": "0a1b" });
        serde_json::from_value(json!({ "metadata": metadata, "status": status })).unwrap()
    }

    fn container(state: &serde_json::Value) -> serde_json::Value {
        json!([{ "name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state }])
    }

    #[test]
    fn states() {
        let state = |status: serde_json::Value| observed(&with_status(&status), Vec::new()).state;
        assert_eq!(state(json!({})), ObservedState::Created);
        assert_eq!(state(json!({ "phase": "Pending" })), ObservedState::Created);
        let running = container(&json!({ "running": { "startedAt": "2026-11-23T09:00:00Z" } }));
        assert_eq!(
            state(json!({ "phase": "Running", "containerStatuses": running })),
            ObservedState::Running { since: "2026-11-23T09:00:00Z".parse().ok() }
        );
        assert_eq!(state(json!({ "phase": "Unknown" })), ObservedState::Running { since: None });
        let ended = container(&json!({ "terminated": {
            "exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-23T09:00:00Z" } }));
        assert_eq!(
            state(json!({ "phase": "Failed", "containerStatuses": ended })),
            ObservedState::Exited {
                code: Some(137),
                at: "2026-11-23T09:00:00Z".parse().ok(),
                detail: Some("OOMKilled".to_owned())
            }
        );
        let mut evicted =
            json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on memory." });
        let detail = Some("Evicted: The node was low on memory.".to_owned());
        assert_eq!(
            state(evicted.clone()),
            ObservedState::Exited { code: None, at: None, detail: detail.clone() }
        );
        // Newer nodes tell with it how its container ended.
        evicted["containerStatuses"] = json!([{ "name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": 137, "reason": "Error" } } }]);
        assert_eq!(state(evicted), ObservedState::Exited { code: Some(137), at: None, detail });
    }

    /// What a cluster puts beside the agent, such as a proxy of its mesh, may stand first.
    #[test]
    fn the_agent_s_container_is_known_by_its_name() {
        let (mut pod, spec) = (pod(&spec(), Expose::Forward).unwrap(), spec());
        let beside = json!({ "name": "a-proxy", "image": "proxy:1", "stdin": true, "tty": true });
        pod.spec.as_mut().unwrap().containers.insert(0, serde_json::from_value(beside).unwrap());
        assert_eq!(observed(&pod, Vec::new()).image, spec.image);
        assert_eq!(console(&pod), Console::default());
        let statuses = json!({ "phase": "Running", "containerStatuses": [
            { "name": "a-proxy", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": { "running": {} } },
            { "name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "terminated": { "exitCode": 3 } } },
        ] });
        pod.status = serde_json::from_value(statuses).unwrap();
        let state = observed(&pod, Vec::new()).state;
        assert!(matches!(state, ObservedState::Exited { code: Some(3), .. }), "{state:?}");
    }

    #[test]
    fn obstacles() {
        let of = |status: serde_json::Value| obstacle(&with_status(&status));
        let waiting = |reason: &str| {
            of(
                json!({ "containerStatuses": container(&json!({ "waiting": { "reason": reason, "message": "m" } })) }),
            )
        };
        assert_eq!(waiting("ContainerCreating"), Obstacle::Waiting("ContainerCreating: m".to_owned()));
        assert_eq!(waiting("ErrImagePull"), Obstacle::Waiting("ErrImagePull: m".to_owned()));
        assert_eq!(
            waiting("ImagePullBackOff"),
            Obstacle::Hopeless(ErrorKind::Image, "ImagePullBackOff: m".to_owned())
        );
        let unschedulable = |message: &str| {
            of(json!({ "conditions": [{ "type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": message }] }))
        };
        assert_eq!(
            unschedulable("0/1 nodes are available"),
            Obstacle::Waiting("no node takes it: 0/1 nodes are available".to_owned())
        );
        let message =
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
        assert_eq!(unschedulable(message), Obstacle::PortsTaken(format!("no node takes it: {message}")));
    }

    #[test]
    fn an_id_tells_pods_of_one_name_apart() {
        let pod = with_status(&json!({}));
        assert_eq!(id(&pod), "web@0a1b");
        assert_eq!(name_and_uid("web@0a1b"), ("web", Some("0a1b")));
        assert_eq!(name_and_uid("web"), ("web", None));
    }
}
