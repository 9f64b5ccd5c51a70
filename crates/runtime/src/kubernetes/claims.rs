//! With `expose: host_port`: each number is claimed in the cluster before a pod asks for it.
//!
//! A node refuses a second pod with a port that it has given, but another node does not, and neither does anyone before the pod has
//! found its node. So a number is claimed by creating an object of its name, which the API server lets only one of many
//! succeed in: a Lease called `berthold-port-8000`. Brokers that share a cluster share the claims if they share the namespace.
//!
//! A claim belongs to its pod, and the cluster removes it with that. One whose pod never came to be is removed by whoever wants
//! the number once the claim is older than any creation takes.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};

use super::services::owner_reference;
use super::{ANSWER, LEASE_LABEL, pod, within};
use crate::{ErrorKind, Publish, RuntimeError, Spec};

/// How old a claim without a pod must be before it counts as left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(300);
/// The annotation that names the pod of a claim.
const POD: &str = "berthold.pod";

fn name(port: Publish) -> String {
    format!("berthold-port-{}", port.host)
}

/// Claims all ports of `spec`, or none.
///
/// # Errors
/// [`ErrorKind::PortRefused`] with the first that someone else has claimed.
pub(super) async fn take(client: &Client, namespace: &str, spec: &Spec) -> Result<(), RuntimeError> {
    let claims: Api<Lease> = Api::namespaced(client.clone(), namespace);
    for port in &spec.publish {
        let claim = claim(spec, *port);
        let mut taken = create(&claims, &claim).await;
        if taken.as_ref().is_err_and(|error| error.kind == ErrorKind::NameTaken)
            && clear(client, namespace, &claims, *port).await?
        {
            taken = create(&claims, &claim).await;
        }
        if let Err(error) = taken {
            give_back(client, namespace, spec.labels.get(LEASE_LABEL).map_or("", String::as_str)).await?;
            return Err(match error.kind {
                ErrorKind::NameTaken => {
                    let message = format!("port {} is claimed by another agent in the cluster", port.host);
                    RuntimeError::new(ErrorKind::PortRefused { port: Some(port.host) }, message)
                }
                _ => error,
            });
        }
    }
    Ok(())
}

async fn create(claims: &Api<Lease>, claim: &Lease) -> Result<(), RuntimeError> {
    within(ANSWER, "claim a port", claims.create(&PostParams::default(), claim)).await.map(drop)
}

fn claim(spec: &Spec, port: Publish) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(name(port)),
            labels: Some(pod::labels(&spec.labels)),
            annotations: Some([(POD.to_owned(), spec.name.clone())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: spec.labels.get(LEASE_LABEL).cloned(),
            ..LeaseSpec::default()
        }),
    }
}

/// Removes the claim on `port` if it was left behind. Whether the number can be claimed again.
async fn clear(
    client: &Client,
    namespace: &str,
    claims: &Api<Lease>,
    port: Publish,
) -> Result<bool, RuntimeError> {
    let doing = "look at the claim of a port";
    let Some(found) = within(ANSWER, doing, claims.get_opt(&name(port))).await? else { return Ok(true) };
    let created = found.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
    let age = created.map_or(0, |created| Timestamp::now().as_second() - created);
    if age < i64::try_from(LEFT_BEHIND.as_secs()).unwrap_or(i64::MAX) {
        return Ok(false);
    }
    let pod_name = found.metadata.annotations.as_ref().and_then(|it| it.get(POD));
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    if let Some(pod_name) = pod_name
        && let Some(pod) = within(ANSWER, doing, pods.get_opt(pod_name)).await?
        && lease_of(pod.metadata.labels.as_ref()) == lease_of(found.metadata.labels.as_ref())
    {
        return Ok(false);
    }
    delete(claims, &found).await?;
    Ok(true)
}

fn lease_of(labels: Option<&std::collections::BTreeMap<String, String>>) -> Option<&String> {
    labels?.get(LEASE_LABEL)
}

async fn delete(claims: &Api<Lease>, claim: &Lease) -> Result<(), RuntimeError> {
    // Only this one: another may have taken its place.
    let uid = Preconditions { uid: claim.metadata.uid.clone(), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(uid), ..DeleteParams::default() };
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    match within(ANSWER, "give a port's claim back", claims.delete(name, &parameters)).await {
        Err(error) if error.kind != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Gives back what was claimed for the lease.
pub(super) async fn give_back(client: &Client, namespace: &str, lease: &str) -> Result<(), RuntimeError> {
    let claims: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let of_lease = ListParams::default().labels(&format!("{LEASE_LABEL}={lease}"));
    for claim in within(ANSWER, "list the claims", claims.list(&of_lease)).await?.items {
        delete(&claims, &claim).await?;
    }
    Ok(())
}

/// Has the claims go with their pod, also if someone else deletes that.
pub(super) async fn own(client: &Client, namespace: &str, owner: &Pod) {
    let claims: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let patch =
        Patch::Merge(serde_json::json!({ "metadata": { "ownerReferences": [owner_reference(owner)] } }));
    let parameters = PatchParams::default();
    for port in pod::publish(owner) {
        let name = name(port);
        let patched = claims.patch(&name, &parameters, &patch);
        if let Err(error) = within(ANSWER, "tie a port's claim to its pod", patched).await {
            // Then it counts as left behind once the pod is gone, which takes a little longer.
            tracing::warn!(%error, "a port's claim stays for a while if someone else deletes the pod");
        }
    }
}
