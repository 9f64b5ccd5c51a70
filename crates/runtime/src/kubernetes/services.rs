//! With `expose: node_port`: a Service for each agent, with exactly its ports.
//!
//! That no two Services have a number is the API server's doing; that no pod has it on its node, that of claims (`claims.rs`). It is called after the lease: so whoever ends a lease knows the
//! one that may go, and never meets another's, be it another broker's or a person's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource};
use tokio::time::{Instant, sleep};

use super::{ANSWER, BROKER_LABEL, LEASE_LABEL, PACE, WORK, found, pod, within};
use crate::{ErrorKind, Publish, RuntimeError};

/// Creates the Service for the ports of the agent with these labels.
///
/// # Errors
/// [`ErrorKind::PortRefused`] if a Service has one of the ports; [`ErrorKind::Invalid`] for ports beyond the cluster's range.
pub(super) async fn create(
    client: &Client,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    ports: &[Publish],
) -> Result<(), RuntimeError> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let doing =
        format!("create the service of `{}`", labels.get("berthold.agent").map_or("", String::as_str));
    let service = service(labels, ports);
    let created = within(ANSWER, &doing, services.create(&PostParams::default(), &service)).await;
    match created {
        Err(error) if error.kind == ErrorKind::NameTaken => {
            // An earlier try of this very start may have made it.
            let found = found(within(ANSWER, &doing, services.get(&name(lease_of(labels)))).await)?;
            let is_ours = found.is_some_and(|found| is_of(&found, lease_of(labels)));
            if is_ours { Ok(()) } else { Err(error) }
        }
        created => created.map(drop),
    }
}

/// Whether the Service of the lease is there.
pub(super) async fn is_there(client: &Client, namespace: &str, lease: &str) -> Result<bool, RuntimeError> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let service = found(within(ANSWER, "look at the service", services.get(&name(lease))).await)?;
    Ok(service.is_some_and(|service| is_of(&service, lease)))
}

/// The name of the Service of a lease: as such a name must, it begins with a letter.
fn name(lease: &str) -> String {
    format!("berthold-{}", lease.to_ascii_lowercase())
}

fn lease_of(labels: &BTreeMap<String, String>) -> &str {
    labels.get(LEASE_LABEL).map_or("", String::as_str)
}

/// Whether it is the one that a broker made for the lease.
fn is_of(service: &Service, lease: &str) -> bool {
    let labels = service.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(BROKER_LABEL) && lease_of(labels) == lease)
}

fn service(labels: &BTreeMap<String, String>, ports: &[Publish]) -> Service {
    let port = |port: &Publish| ServicePort {
        name: Some(format!("p{}", port.host)),
        port: port.container.into(),
        target_port: Some(IntOrString::Int(port.container.into())),
        node_port: Some(port.host.into()),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    };
    let lease = lease_of(labels);
    Service {
        metadata: ObjectMeta {
            name: Some(name(lease)),
            labels: Some(pod::labels(labels)),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some("NodePort".to_owned()),
            selector: Some([(LEASE_LABEL.to_owned(), lease.to_owned())].into()),
            ports: Some(ports.iter().map(port).collect()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Has the Service go with its pod, also if someone else deletes that.
pub(super) async fn own(client: &Client, namespace: &str, owner: &Pod) {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let name = name(pod::lease(&owner.metadata).map_or("", String::as_str));
    let patch =
        Patch::Merge(serde_json::json!({ "metadata": { "ownerReferences": [owner_reference(owner)] } }));
    let parameters = PatchParams::default();
    let patched = services.patch(&name, &parameters, &patch);
    if let Err(error) = within(ANSWER, "tie the service to its pod", patched).await {
        // Only a comfort: whoever deletes the pod by hand has to delete the service too.
        tracing::warn!(%error, "the service stays if someone else deletes the pod");
    }
}

/// The reference by which what belongs to a pod goes with it.
pub(super) fn owner_reference(pod: &Pod) -> OwnerReference {
    OwnerReference {
        api_version: Pod::api_version(&()).into_owned(),
        kind: Pod::kind(&()).into_owned(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }
}

/// Deletes the Service of the lease, if it is there, and waits until its ports are free.
pub(super) async fn delete(client: &Client, namespace: &str, lease: &str) -> Result<(), RuntimeError> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let name = name(lease);
    let doing = "delete the service";
    let deadline = Instant::now() + WORK;
    let mut asked = false;
    loop {
        let Some(service) = found(within(ANSWER, doing, services.get(&name)).await)? else { return Ok(()) };
        if !is_of(&service, lease) {
            return Ok(());
        }
        if !std::mem::replace(&mut asked, true) {
            let uid = Preconditions { uid: service.metadata.uid.clone(), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(uid), ..DeleteParams::default() };
            match within(ANSWER, doing, services.delete(&name, &parameters)).await {
                Err(error) if error.kind != ErrorKind::NotFound => return Err(error),
                _ => continue,
            }
        }
        if Instant::now() >= deadline {
            let message = format!("the service {name} was deleted, but it is still there");
            return Err(RuntimeError::new(ErrorKind::Other, message));
        }
        sleep(PACE.0).await;
    }
}

/// The ports as nodes have them: on all of their addresses.
pub(super) fn published(ports: &[Publish]) -> Vec<Publish> {
    ports.iter().map(|port| Publish { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), ..*port }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[(&str, &str)]) -> Service {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Service {
            metadata: ObjectMeta { labels: Some(labels), ..ObjectMeta::default() },
            ..Service::default()
        }
    }

    #[test]
    fn the_name_is_one_that_a_service_may_have() {
        let name = name("01KB2V5Q1D5M3T9Z8X7W6V5U4T");
        assert!(name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= 63);
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
    }

    #[test]
    fn only_a_broker_s_of_that_very_lease_is_taken_for_it() {
        assert!(is_of(&of(&[("berthold.broker", "b"), ("berthold.lease", "l")]), "l"));
        assert!(!is_of(&of(&[("berthold.broker", "b"), ("berthold.lease", "other")]), "l"));
        assert!(!is_of(&of(&[("berthold.lease", "l")]), "l"));
        assert!(!is_of(&of(&[]), ""));
    }
}
