//! Ports that the cluster holds on this host, and that no socket shows: `hostPort`s of pods, and `nodePort`s of Services.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Node, Pod, Service};
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::refusal::unreachable;
use super::{pod, within};
use crate::{ErrorKind, HeldPort, RuntimeError};

/// How long a cluster may take to tell: starts on other runtimes wait for it. The longer one is for a cluster that runs on this
/// host, as far as is known: its ports are this host's, and it is as slow as the host is busy.
const ANSWER: Duration = Duration::from_secs(3);
const ANSWER_OF_OURS: Duration = Duration::from_secs(15);
/// For how long a cluster that did not tell, or of which this host is no node, is not asked on behalf of other runtimes.
const LEFT_IN_PEACE: Duration = Duration::from_secs(30);

/// What was told last. The lock is held while the cluster is asked, so that many who want to know ask once.
#[derive(Default)]
pub(super) struct Held {
    known: Mutex<Known>,
    /// Whether this host is a node, as far as was told.
    is_node: AtomicBool,
}

#[derive(Default)]
struct Known {
    /// When it was asked for all ports, and what it said.
    told: Option<(Instant, Vec<HeldPort>)>,
    /// When it last did not tell.
    failed: Option<Instant>,
    /// When it was asked for its nodes, and whether this host is one.
    nodes: Option<(Instant, Place)>,
    /// The names of those that are.
    names: Vec<String>,
}

/// Where the nodes of a cluster are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Here,
    Elsewhere,
    /// The cluster does not let its nodes be seen: where pods run is seen by the pods.
    Hidden,
}

impl Held {
    /// The ports that anything in the cluster holds, in all namespaces; with `only_here`, those of other hosts may be missing.
    /// `is_near` says that its API server is on this host.
    ///
    /// # Errors
    /// If the cluster does not tell. With `only_here` it is not asked again for a while, unless it is known to be this host's.
    pub(super) async fn ports(
        &self,
        client: &Client,
        only_here: bool,
        is_near: bool,
    ) -> Result<Vec<HeldPort>, RuntimeError> {
        let called = Instant::now();
        let mut known = self.known.lock().await;
        // Asked after this call came, so it is as new as an answer can be.
        if let Some((_, ports)) = known.told.as_ref().filter(|(asked, _)| *asked >= called) {
            return Ok(ports.clone());
        }
        let is_ours = is_near || known.nodes.is_some_and(|(_, place)| place == Place::Here);
        let is_left_in_peace = |since: Instant| only_here && since.elapsed() < LEFT_IN_PEACE;
        if !is_ours && known.failed.is_some_and(is_left_in_peace) {
            return Err(unreachable("tell which ports it holds", "it did not a moment ago"));
        }
        let limit = if is_ours { ANSWER_OF_OURS } else { ANSWER };
        let asked = Instant::now();
        let answer = known.ask(client, only_here, limit).await;
        known.failed = answer.is_err().then_some(asked);
        self.is_node.store(known.nodes.is_some_and(|(_, place)| place == Place::Here), Ordering::Relaxed);
        answer
    }

    /// Whether this host is a node of the cluster, as far as that was told.
    pub(super) fn is_node(&self) -> bool {
        self.is_node.load(Ordering::Relaxed)
    }
}

impl Known {
    async fn ask(
        &mut self,
        client: &Client,
        only_here: bool,
        limit: Duration,
    ) -> Result<Vec<HeldPort>, RuntimeError> {
        let place = match self.nodes {
            Some((asked, place)) if asked.elapsed() < LEFT_IN_PEACE => place,
            _ => {
                let asked = Instant::now();
                let place;
                (place, self.names) = nodes_here(client, limit).await?;
                self.nodes = Some((asked, place));
                place
            }
        };
        if only_here && place == Place::Elsewhere {
            return Ok(Vec::new());
        }
        let asked = Instant::now();
        let ports = ports(client, place, &self.names, limit).await?;
        self.told = Some((asked, ports.clone()));
        Ok(ports)
    }
}

/// Where the nodes are, and which of them are this host.
async fn nodes_here(client: &Client, limit: Duration) -> Result<(Place, Vec<String>), RuntimeError> {
    let nodes: Api<Node> = Api::all(client.clone());
    match within(limit, "list the nodes", nodes.list(&ListParams::default())).await {
        Ok(nodes) => {
            let here = nodes.items.iter().filter(|node| is_this_host(node));
            let names: Vec<String> = here.filter_map(|node| node.metadata.name.clone()).collect();
            Ok((if names.is_empty() { Place::Elsewhere } else { Place::Here }, names))
        }
        Err(error) if error.kind == ErrorKind::Forbidden => Ok((Place::Hidden, Vec::new())),
        Err(error) => Err(error),
    }
}

fn is_this_host(node: &Node) -> bool {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses.filter_map(|address| address.address.parse().ok()).any(is_of_this_host)
}

/// All ports that the cluster whose nodes are at `place` holds; those called `names` are this host.
async fn ports(
    client: &Client,
    place: Place,
    names: &[String],
    limit: Duration,
) -> Result<Vec<HeldPort>, RuntimeError> {
    let (pods, services): (Api<Pod>, Api<Service>) = (Api::all(client.clone()), Api::all(client.clone()));
    let all = ListParams::default();
    let (pods, services) = tokio::try_join!(
        within(limit, "list the pods of all namespaces", pods.list(&all)),
        within(limit, "list the services of all namespaces", services.list(&all)),
    )?;
    Ok(of_all(&pods.items, &services.items, place, names))
}

/// The ports that these hold.
fn of_all(pods: &[Pod], services: &[Service], place: Place, names: &[String]) -> Vec<HeldPort> {
    let mut held = Vec::new();
    let mut is_node = place == Place::Here;
    for pod in pods {
        let address = pod::node_address(pod);
        let is_seen_here = address.is_some_and(is_of_this_host);
        is_node |= is_seen_here;
        // One that no node has acknowledged yet may be this one's in the next moment.
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        let may_come_here = place == Place::Here && node.is_none_or(|node| names.contains(node));
        let is_here = is_seen_here || (address.is_none() && is_coming(pod) && may_come_here);
        let by =
            format!("the pod {}", full_name(pod.metadata.namespace.as_ref(), pod.metadata.name.as_ref()));
        let lease = pod::lease(&pod.metadata);
        held.extend(host_ports(pod).map(|port| HeldPort {
            port,
            by: by.clone(),
            is_here,
            lease: lease.cloned(),
        }));
    }
    for service in services {
        let metadata = &service.metadata;
        let by = format!("the service {}", full_name(metadata.namespace.as_ref(), metadata.name.as_ref()));
        let lease = pod::lease(metadata);
        held.extend(node_ports(service).map(|port| HeldPort {
            port,
            by: by.clone(),
            is_here: is_node,
            lease: lease.cloned(),
        }));
    }
    held
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// Whether nothing of the pod runs yet, as far as is told.
fn is_coming(pod: &Pod) -> bool {
    matches!(phase(pod), None | Some("Pending"))
}

/// The TCP ports of its node that a pod has.
fn host_ports(pod: &Pod) -> impl Iterator<Item = u16> {
    let has_ended = matches!(phase(pod), Some("Succeeded" | "Failed"));
    let is_coming = is_coming(pod);
    let spec = pod.spec.iter().filter(move |_| !has_ended);
    let containers = spec.flat_map(move |spec| {
        // What prepares a pod has ended once that runs, except for a sidecar, which goes on for as long as the pod does.
        let is_sidecar = |container: &Container| container.restart_policy.as_deref() == Some("Always");
        let first = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(first.filter(move |container| is_coming || is_sidecar(container)))
    });
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let ports = ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    ports.filter_map(|port| u16::try_from(port.host_port?).ok())
}

/// The ports of every node that a Service has, with that by which load balancers ask whether it is well.
fn node_ports(service: &Service) -> impl Iterator<Item = u16> {
    let ports = service.spec.iter().flat_map(|spec| {
        let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port);
        ports.chain(spec.health_check_node_port)
    });
    // One that is not set may be told as 0.
    ports.filter_map(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
}

fn full_name(namespace: Option<&String>, name: Option<&String>) -> String {
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    format!("{}/{}", text(namespace), text(name))
}

/// Whether the address is one of this host's: only then can something be bound to it.
fn is_of_this_host(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// The same of a host as it stands in an address of the network; a name other than `localhost` is not looked up.
pub(super) fn is_name_of_this_host(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host == "localhost" || address.is_ok_and(is_of_this_host)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(phase: &str) -> Pod {
        let port = |port: u16| json!({ "containerPort": 80, "hostPort": port });
        let container = |name: &str, ports: &[Value], restart: Value| json!({ "name": name, "ports": ports, "restartPolicy": restart });
        let udp = json!({ "containerPort": 53, "hostPort": 8002, "protocol": "UDP" });
        let tcp = json!({ "containerPort": 80, "hostPort": 8001, "protocol": "TCP" });
        let spec = json!({
            "containers": [
                container("agent", &[port(8000)], Value::Null),
                container("beside", &[tcp, udp, json!({ "containerPort": 80 })], Value::Null),
            ],
            "initContainers": [
                container("prepares", &[port(8003)], Value::Null),
                container("sidecar", &[port(8004)], json!("Always")),
            ],
        });
        let metadata = json!({ "namespace": "shop", "name": "web", "labels": { "berthold.lease": "l" } });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": { "phase": phase } }))
            .unwrap()
    }

    fn service(spec: &Value) -> Service {
        serde_json::from_value(json!({ "metadata": { "namespace": "shop", "name": "door" }, "spec": spec }))
            .unwrap()
    }

    fn held(pod: &Pod) -> Vec<u16> {
        host_ports(pod).collect()
    }

    #[test]
    fn a_pod_has_the_ports_of_all_that_runs_in_it() {
        assert_eq!(held(&pod("Running")), [8000, 8001, 8004]);
        assert_eq!(held(&pod("Unknown")), [8000, 8001, 8004]);
        assert_eq!(held(&pod("Pending")), [8000, 8001, 8003, 8004]);
        assert_eq!(held(&Pod { status: None, ..pod("") }), [8000, 8001, 8003, 8004]);
        for ended in ["Succeeded", "Failed"] {
            assert_eq!(held(&pod(ended)), Vec::<u16>::new());
        }
    }

    #[test]
    fn a_service_has_its_node_ports_and_that_of_its_health() {
        let ports = |spec: &Value| node_ports(&service(spec)).collect::<Vec<_>>();
        let none = Vec::<u16>::new();
        let of_node = json!([{ "port": 80, "nodePort": 30080 }, { "port": 443 }]);
        assert_eq!(ports(&json!({ "ports": of_node })), [30080]);
        assert_eq!(ports(&json!({ "ports": of_node, "healthCheckNodePort": 30090 })), [30080, 30090]);
        assert_eq!(
            ports(&json!({ "ports": [{ "port": 80, "nodePort": 0 }], "healthCheckNodePort": 0 })),
            none
        );
        assert_eq!(ports(&Value::Null), none);
    }

    #[test]
    fn who_holds_a_port_is_told() {
        let service = service(&json!({ "ports": [{ "port": 80, "nodePort": 30080 }] }));
        let told = |by: &str, port: u16, is_here: bool, lease: Option<&str>| HeldPort {
            port,
            by: by.to_owned(),
            is_here,
            lease: lease.map(str::to_owned),
        };
        let mut expected =
            [8000, 8001, 8004].map(|port| told("the pod shop/web", port, false, Some("l"))).to_vec();
        expected.push(told("the service shop/door", 30080, true, None));
        assert_eq!(of_all(&[pod("Running")], &[service], Place::Here, &[]), expected);
    }

    /// L14: between the scheduler's word and the node's a pod has its ports already.
    #[test]
    fn a_pod_that_is_about_to_come_may_come_here() {
        let names = ["here".to_owned()];
        let is_here = |pod: &Pod, place| of_all(std::slice::from_ref(pod), &[], place, &names)[0].is_here;
        let just_made = Pod { status: None, ..pod("") };
        for coming in [pod("Pending"), just_made] {
            assert!(is_here(&coming, Place::Here));
            assert!(!is_here(&coming, Place::Elsewhere) && !is_here(&coming, Place::Hidden));
        }
        for (node, expected) in [("here", true), ("another", false)] {
            let mut bound = pod("Pending");
            bound.spec.as_mut().unwrap().node_name = Some(node.to_owned());
            assert_eq!(is_here(&bound, Place::Here), expected, "{node}");
        }
        let mut elsewhere = pod("Pending");
        elsewhere.status.as_mut().unwrap().host_ip = Some("192.0.2.1".to_owned());
        assert!(!is_here(&elsewhere, Place::Here));
    }
}
