//! Tells of the pods that someone starts.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::ready;
use futures_util::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use tokio::time::sleep;

use super::{ANSWER, BROKER_LABEL, LEASE_LABEL, within};
use crate::{ErrorKind, RuntimeError};

/// For how long one watch lasts, in seconds. An API server ends those that are to last longer when it likes.
const LASTS: u32 = 290;

/// The leases of pods that run from now on, each told once; none if this user may not watch pods. It
/// ends with the watch.
pub(super) async fn starts(pods: Api<Pod>) -> Result<Option<BoxStream<'static, String>>, RuntimeError> {
    // For the version from which to watch, not for what is there.
    let now = ListParams::default().labels(BROKER_LABEL).limit(1);
    let version = within(ANSWER, "list the pods", pods.list(&now)).await?.metadata.resource_version;
    let ours = WatchParams::default().labels(BROKER_LABEL).timeout(LASTS);
    let events = match within(ANSWER, "watch the pods", pods.watch(&ours, &version.unwrap_or_default())).await
    {
        Ok(events) => events,
        // The reconciler finds them too, a little later.
        Err(error) if error.kind == ErrorKind::Forbidden => return Ok(None),
        Err(error) => return Err(error),
    };
    let events = events
        .take_while(|event| ready(event.as_ref().is_ok_and(|event| !matches!(event, WatchEvent::Error(_)))));
    let mut told = HashSet::new();
    let mut lease = move |event| match event {
        // Once: a pod changes for many other reasons.
        Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod))
            if is_running(&pod) && told.insert(pod.metadata.uid.clone()) =>
        {
            pod.metadata.labels?.remove(LEASE_LABEL)
        }
        _ => None,
    };
    // The server's end of it may never arrive, as after this host has slept.
    let over = Box::pin(sleep(Duration::from_secs(u64::from(LASTS) + 30)));
    Ok(Some(events.filter_map(move |event| ready(lease(event))).take_until(over).boxed()))
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}
