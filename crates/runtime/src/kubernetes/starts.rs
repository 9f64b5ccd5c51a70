//! Tells of the pods that someone starts.

use futures_util::StreamExt;
use futures_util::future::ready;
use futures_util::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};

use super::{ANSWER, BROKER_LABEL, LEASE_LABEL, within};
use crate::{ErrorKind, RuntimeError};

/// For how long one watch lasts, in seconds. An API server ends those that are to last longer when it likes.
const LASTS: u32 = 290;

/// The leases of pods that run from now on, whenever one comes to do so or changes while it does; none if this user may not watch pods. It
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
    let lease = |event| match event {
        Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) if is_running(&pod) => {
            pod.metadata.labels?.remove(LEASE_LABEL)
        }
        _ => None,
    };
    Ok(Some(events.filter_map(move |event| ready(lease(event))).boxed()))
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}
