//! A kubeconfig that changes while the broker runs.

use std::fs;

use super::forward::Between;
use super::{needs_cluster, web};
use crate::support::*;

/// P9: as after a certificate was renewed, or a local cluster was created anew. Whoever turns `kubectl` to another cluster does not turn the
/// broker, whose agents run where they run.
#[test]
fn a_kubeconfig_that_changes_is_read_again_and_its_context_stays() {
    needs_cluster!();
    let (between, host, file) = Between::host();
    web(&host, "dev");
    between.cut(true);
    fs::copy(std::env::var("BERTHOLD_KUBECONFIG").unwrap(), file.path()).unwrap();
    eventually_or(
        "it is reached another way",
        || fetch(host.port(0)).is_some_and(|text| text.contains("dev")),
        || host.broker_log(),
    );
    for change in [
        &["set-cluster", "other", "--server=https://127.0.0.1:1"][..],
        &["set-context", "other", "--cluster=other"],
        &["use-context", "other"],
    ] {
        let changed = kubectl_command().arg("config").args(change).env("KUBECONFIG", file.path()).output();
        assert!(changed.unwrap().status.success(), "{change:?}");
    }
    web(&host, "next");
    // Half a file is none.
    fs::write(file.path(), "clusters: [").unwrap();
    host.ok(&["delete", "dev", "next", "-t", "1s"]);
    assert_eq!((host.leased(), host.pods()), (vec![], Vec::<String>::new()));
}
