//! Ports that the cluster holds on this host, and that no socket shows: `hostPort`s of pods, and `nodePort`s of Services.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{pod, within};
use crate::{HeldPort, RuntimeError};

/// How long a cluster may take to tell: starts on other runtimes wait for it. The longer one is for the cluster of which this host was
/// a node when it told last: its ports are this host's.
const ANSWER: Duration = Duration::from_secs(3);
const ANSWER_OF_OURS: Duration = Duration::from_secs(15);
/// For how long a cluster that did not tell, or of which this host is no node, is not asked on behalf of other runtimes.
const LEFT_IN_PEACE: Duration = Duration::from_secs(30);

/// What was told last. The lock is held while the cluster is asked, so that many who want to know ask once.
#[derive(Default)]
pub(super) struct Held(Mutex<Option<Told>>);

struct Told {
    asked: Instant,
    /// None if the cluster did not tell.
    ports: Option<Vec<HeldPort>>,
    is_node: bool,
}

impl Held {
    /// The ports that anything in the cluster holds, in all namespaces.
    pub(super) async fn ports(
        &self,
        client: &Client,
        only_here: bool,
    ) -> Result<Vec<HeldPort>, RuntimeError> {
        let called = Instant::now();
        let mut last = self.0.lock().await;
        if let Some(told) = &*last {
            // Asked after this call came, so it is as new as an answer can be.
            if let Some(ports) = told.ports.as_ref().filter(|_| told.asked >= called) {
                return Ok(ports.clone());
            }
            if only_here && !told.is_node && told.asked.elapsed() < LEFT_IN_PEACE {
                return Ok(Vec::new());
            }
        }
        let was_node = last.as_ref().is_some_and(|told| told.is_node);
        let asked = Instant::now();
        let answer = ask(client, if was_node { ANSWER_OF_OURS } else { ANSWER }).await;
        let (ports, is_node) = match &answer {
            Ok((ports, is_node)) => (Some(ports.clone()), *is_node),
            Err(_) => (None, was_node),
        };
        *last = Some(Told { asked, ports, is_node });
        answer.map(|(ports, _)| ports)
    }
}

/// The ports, and whether this host is a node on which pods run.
async fn ask(client: &Client, limit: Duration) -> Result<(Vec<HeldPort>, bool), RuntimeError> {
    let (pods, services): (Api<Pod>, Api<Service>) = (Api::all(client.clone()), Api::all(client.clone()));
    let all = ListParams::default();
    let (pods, services) = tokio::try_join!(
        within(limit, "list the pods of all namespaces", pods.list(&all)),
        within(limit, "list the services of all namespaces", services.list(&all)),
    )?;
    let mut held = Vec::new();
    let mut is_node = false;
    for pod in &pods.items {
        let is_here = pod::node_address(pod).is_some_and(is_of_this_host);
        is_node |= is_here;
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            continue;
        }
        let by =
            format!("the pod {}", full_name(pod.metadata.namespace.as_ref(), pod.metadata.name.as_ref()));
        let lease = pod.metadata.labels.as_ref().and_then(|labels| labels.get(super::LEASE_LABEL)).cloned();
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let ports = containers.flat_map(|container| container.ports.iter().flatten());
        let ports = ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
        held.extend(ports.filter_map(|port| u16::try_from(port.host_port?).ok()).map(|port| HeldPort {
            port,
            by: by.clone(),
            is_here,
            lease: lease.clone(),
        }));
    }
    for service in &services.items {
        let metadata = &service.metadata;
        let by = format!("the service {}", full_name(metadata.namespace.as_ref(), metadata.name.as_ref()));
        let lease = metadata.labels.as_ref().and_then(|labels| labels.get(super::LEASE_LABEL)).cloned();
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        held.extend(ports.filter_map(|port| u16::try_from(port.node_port?).ok()).map(|port| HeldPort {
            port,
            by: by.clone(),
            is_here: is_node,
            lease: lease.clone(),
        }));
    }
    Ok((held, is_node))
}

fn full_name(namespace: Option<&String>, name: Option<&String>) -> String {
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    format!("{}/{}", text(namespace), text(name))
}

/// Whether the address is one of this host's: only then can something be bound to it.
fn is_of_this_host(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}
