//! With `expose: host_port` and `node_port`: each number is claimed in the cluster before a pod or a Service asks for it, or a pod binds it on
//! its node's own network.
//!
//! A node refuses a second pod with a port that it has given, but another node does not, and neither does anyone before the pod has
//! found its node; and an API server gives a Service a number that pods have on their nodes. So a number is claimed by creating an object of its name, which the API server lets only one of many
//! succeed in: a Lease called `berthold-port-8000`.
//!
//! Names are unique within one namespace only. So whoever has made a claim looks for others of its name, and if there is an earlier
//! one, gives the own one back: of two that are made at once each is seen by at least the later of them. Who may not look
//! at all namespaces shares the claims of the own one alone.
//!
//! A claim belongs to its pod, and the cluster removes it with that. One whose pod never came to be counts no more once it is
//! older than any creation takes: whoever wants the number removes it, or passes over that of another namespace.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};

use super::refusal::left_behind;
use super::services::owner_reference;
use super::{ANSWER, LEASE_LABEL, found, pod, within};
use crate::{ErrorKind, RuntimeError, Spec};

/// How old a claim without a pod must be before it counts as left behind, in seconds.
const LEFT_BEHIND: i64 = 300;
/// The annotation that names the pod of a claim, for people.
const POD: &str = "berthold.pod";
const LOOKING: &str = "look at the claim of a port";

fn name(port: u16) -> String {
    format!("berthold-port-{port}")
}

/// Claims all ports of `spec`, or none.
///
/// # Errors
/// [`ErrorKind::PortRefused`] with the first that someone else has claimed.
pub(super) async fn take(client: &Client, namespace: &str, spec: &Spec) -> Result<(), RuntimeError> {
    let claims: Api<Lease> = Api::namespaced(client.clone(), namespace);
    for port in spec.numbers() {
        if let Err(error) = take_one(client, &claims, &claim(spec, port)).await {
            // Then nothing was claimed, and nothing can be given back.
            if error.kind == ErrorKind::Forbidden && Some(port) == spec.numbers().next() {
                return Err(error);
            }
            let lease = spec.labels.get(LEASE_LABEL).map_or("", String::as_str);
            if let Err(second) = give_back(client, namespace, lease).await {
                return Err(left_behind(&error, &second));
            }
            return Err(match error.kind {
                ErrorKind::NameTaken => {
                    let message = format!("port {port} is claimed by another agent in the cluster");
                    RuntimeError::new(ErrorKind::PortRefused { port: Some(port) }, message)
                }
                _ => error,
            });
        }
    }
    Ok(())
}

/// # Errors
/// [`ErrorKind::NameTaken`] if someone else has claimed the number.
async fn take_one(client: &Client, claims: &Api<Lease>, claim: &Lease) -> Result<(), RuntimeError> {
    let mut taken = create(claims, claim).await;
    if let Err(error) = &taken
        && error.kind == ErrorKind::NameTaken
        && clear(client, claims, claim).await?
    {
        taken = create(claims, claim).await;
    }
    let own = taken?;
    match earlier_elsewhere(client, &own).await? {
        Some(namespace) => {
            let message = format!("it is claimed in the namespace {namespace}");
            Err(RuntimeError::new(ErrorKind::NameTaken, message))
        }
        None => Ok(()),
    }
}

async fn create(claims: &Api<Lease>, claim: &Lease) -> Result<Lease, RuntimeError> {
    within(ANSWER, "claim a port", claims.create(&PostParams::default(), claim)).await
}

/// The namespace of a claim on the same number that counts more than `own`, which was just made.
async fn earlier_elsewhere(client: &Client, own: &Lease) -> Result<Option<String>, RuntimeError> {
    let everywhere: Api<Lease> = Api::all(client.clone());
    let of_its_name = ListParams::default()
        .fields(&format!("metadata.name={}", own.metadata.name.as_deref().unwrap_or_default()));
    let doing = "list the claims of all namespaces";
    let found = match within(ANSWER, doing, everywhere.list(&of_its_name)).await {
        Ok(found) => found.items,
        Err(error) if error.kind == ErrorKind::Forbidden => {
            tracing::warn!(%error, "brokers with another namespace may have claimed the same port");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let now = created(own);
    for claim in found {
        let is_other = claim.metadata.namespace != own.metadata.namespace;
        if is_other && is_earlier(&claim, own) && !is_left_behind(client, &claim, now).await? {
            return Ok(Some(claim.metadata.namespace.unwrap_or_default()));
        }
    }
    Ok(None)
}

/// Whether `claim` was made before `own`, which nothing has changed yet. Later versions of objects of one kind have greater
/// numbers (Kubernetes API concepts, "Resource versions"); but a claim that has got its pod has changed since it was made.
fn is_earlier(claim: &Lease, own: &Lease) -> bool {
    let version = |lease: &Lease| lease.metadata.resource_version.as_ref()?.parse::<u64>().ok();
    // Where they cannot be compared, nobody gets the number twice.
    has_pod(claim) || version(claim).zip(version(own)).is_none_or(|(claim, own)| claim < own)
}

fn has_pod(claim: &Lease) -> bool {
    claim.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty())
}

fn claim(spec: &Spec, port: u16) -> Lease {
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

/// Removes the claim of the same name as `wanted` if it was left behind. Whether the number can be claimed again.
async fn clear(client: &Client, claims: &Api<Lease>, wanted: &Lease) -> Result<bool, RuntimeError> {
    let name = wanted.metadata.name.as_deref().unwrap_or_default();
    let Some(found) = found(within(ANSWER, LOOKING, claims.get(name)).await)? else { return Ok(true) };
    // The cluster removes it with its pod.
    if has_pod(&found) {
        return Ok(false);
    }
    // The clock of this host may be another: what would be created tells the cluster's.
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let named = ObjectMeta { generate_name: Some("berthold-port-".to_owned()), ..ObjectMeta::default() };
    let probe = Lease { metadata: named, spec: None };
    let now = created(&within(ANSWER, LOOKING, claims.create(&dry_run, &probe)).await?);
    if !is_left_behind(client, &found, now).await? {
        return Ok(false);
    }
    delete(claims, &found).await?;
    Ok(true)
}

/// When the claim was created, by the clock of the cluster, in seconds since 1970.
fn created(claim: &Lease) -> Option<i64> {
    claim.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second())
}

/// Whether `claim` is, at `now`, older than any creation takes. Of what is not known nothing is old.
fn is_old(claim: Option<i64>, now: Option<i64>) -> bool {
    claim.zip(now).is_some_and(|(claim, now)| now.saturating_sub(claim) >= LEFT_BEHIND)
}

/// Whether the claim is older than any creation takes, and no pod has come of it.
async fn is_left_behind(client: &Client, claim: &Lease, now: Option<i64>) -> Result<bool, RuntimeError> {
    if !is_old(created(claim), now) {
        return Ok(false);
    }
    let Some(lease) = pod::lease(&claim.metadata) else {
        // It is none that a broker has made.
        return Ok(false);
    };
    let pods: Api<Pod> =
        Api::namespaced(client.clone(), claim.metadata.namespace.as_deref().unwrap_or_default());
    let of_lease = ListParams::default().labels(&format!("{LEASE_LABEL}={lease}"));
    match within(ANSWER, LOOKING, pods.list(&of_lease)).await {
        Ok(pods) => Ok(pods.items.is_empty()),
        // Who may look at the claims of another namespace may not look at its pods for that.
        Err(error) if error.kind == ErrorKind::Forbidden => Ok(false),
        Err(error) => Err(error),
    }
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

/// Has the claims for `spec` go with its pod, also if someone else deletes that.
pub(super) async fn own(client: &Client, namespace: &str, spec: &Spec, owner: &Pod) {
    let claims: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let patch =
        Patch::Merge(serde_json::json!({ "metadata": { "ownerReferences": [owner_reference(owner)] } }));
    let parameters = PatchParams::default();
    for port in spec.numbers() {
        let name = name(port);
        let patched = claims.patch(&name, &parameters, &patch);
        if let Err(error) = within(ANSWER, "tie a port's claim to its pod", patched).await {
            // Then it counts as left behind once the pod is gone, which takes a little longer.
            tracing::warn!(%error, "a port's claim stays for a while if someone else deletes the pod");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_old_after_five_minutes() {
        assert!(is_old(Some(1000), Some(1300)));
        for (claim, now) in
            [(Some(1000), Some(1299)), (Some(1000), Some(0)), (None, Some(9999)), (Some(0), None)]
        {
            assert!(!is_old(claim, now), "{claim:?} {now:?}");
        }
    }
}
