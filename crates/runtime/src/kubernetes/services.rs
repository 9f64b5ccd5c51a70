//! With `expose: node_port`: a Service for each agent, with exactly its ports.
//!
//! That a number is unique in the cluster is the API server's doing.

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource};
use std::net::{IpAddr, Ipv4Addr};
use tokio::time::{Instant, sleep};

use super::{ANSWER, LEASE_LABEL, PACE, WORK, pod, within};
use crate::{ErrorKind, Publish, RuntimeError, Spec};

/// Creates the Service for the agent of `spec`.
///
/// # Errors
/// [`ErrorKind::PortRefused`] if a Service has one of the ports; [`ErrorKind::Invalid`] for ports beyond the cluster's range.
pub(super) async fn create(client: &Client, namespace: &str, spec: &Spec) -> Result<(), RuntimeError> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let doing = format!("create the service `{}`", spec.name);
    let service = service(spec);
    let created = within(ANSWER, &doing, services.create(&PostParams::default(), &service)).await;
    match created {
        Err(error) if error.kind == ErrorKind::NameTaken => {
            // What an earlier start of this agent left makes way; anything else keeps its place.
            let found = within(ANSWER, &doing, services.get_opt(&spec.name)).await?;
            let is_ours = |it: &Service| {
                let labels = it.metadata.labels.as_ref();
                ["berthold.broker", "berthold.project", "berthold.name"].iter().all(|name| {
                    labels.is_some_and(|labels| {
                        labels.get(*name).is_some_and(|it| spec.labels.get(*name) == Some(it))
                    })
                })
            };
            if found.as_ref().is_some_and(|found| !is_ours(found)) {
                return Err(error);
            }
            delete(client, namespace, &spec.name, None).await?;
            within(ANSWER, &doing, services.create(&PostParams::default(), &service)).await.map(drop)
        }
        created => created.map(drop),
    }
}

fn service(spec: &Spec) -> Service {
    let port = |port: &Publish| ServicePort {
        name: Some(format!("p{}", port.host)),
        port: port.container.into(),
        target_port: Some(IntOrString::Int(port.container.into())),
        node_port: Some(port.host.into()),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    };
    let lease = spec.labels.get(LEASE_LABEL).cloned().unwrap_or_default();
    Service {
        metadata: ObjectMeta {
            name: Some(spec.name.clone()),
            labels: Some(pod::labels(&spec.labels)),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some("NodePort".to_owned()),
            selector: Some([(LEASE_LABEL.to_owned(), lease)].into()),
            ports: Some(spec.publish.iter().map(port).collect()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Has the Service go with its pod, also if someone else deletes that.
pub(super) async fn own(client: &Client, namespace: &str, owner: &Pod) {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let name = owner.metadata.name.as_deref().unwrap_or_default();
    let patch =
        Patch::Merge(serde_json::json!({ "metadata": { "ownerReferences": [owner_reference(owner)] } }));
    let parameters = PatchParams::default();
    let patched = services.patch(name, &parameters, &patch);
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

/// Deletes the Service of that name, if it is of that lease, and waits until its ports are free.
pub(super) async fn delete(
    client: &Client,
    namespace: &str,
    name: &str,
    lease: Option<&str>,
) -> Result<(), RuntimeError> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let doing = "delete the service";
    let deadline = Instant::now() + WORK;
    let mut asked = false;
    loop {
        let Some(found) = within(ANSWER, doing, services.get_opt(name)).await? else { return Ok(()) };
        let of =
            found.metadata.labels.as_ref().and_then(|labels| labels.get(LEASE_LABEL)).map(String::as_str);
        if of.is_none() || lease.is_some_and(|lease| of != Some(lease)) {
            return Ok(());
        }
        if !std::mem::replace(&mut asked, true) {
            let uid = Preconditions { uid: found.metadata.uid.clone(), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(uid), ..DeleteParams::default() };
            match within(ANSWER, doing, services.delete(name, &parameters)).await {
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
