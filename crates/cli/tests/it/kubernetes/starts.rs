//! Pods that others start.

use std::fs;

use super::{needs_cluster, web};
use crate::support::*;

/// P4, L11: it has its lease again at once, and not only when the broker looks at everything, which it does only once an hour here.
#[test]
fn a_pod_that_others_create_again_is_heard_of() {
    needs_cluster!();
    let mut host = Host::looking_every("1h", 4);
    host.serve();
    let before = web(&host, "dev");
    host.await_listening("kubernetes");
    let name = host.container("dev");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), kubectl(&["get", "pod", &name, "-o", "json"])).unwrap();
    kubectl(&["delete", "pod", &name, "--grace-period=1"]);
    eventually("its end is known", || host.leased().is_empty());
    kubectl(&["create", "-f", file.path().to_str().unwrap()]);
    eventually_or("it is adopted", || host.agent("dev")["state"] == "running", || host.broker_log());
    let now = host.agent("dev");
    assert_eq!((&now["lease"], &now["ports"]), (&before["lease"], &before["ports"]));
    eventually("it is reached", || fetch(host.port(0)).is_some_and(|text| text.contains("dev")));
    host.ok(&["delete", "dev", "-t", "1s"]);
}
