//! A kubeconfig that changes while the broker runs.

use std::fs;

use super::forward::Between;
use super::{needs_cluster, server_of, web};
use crate::support::*;

/// P9: as after a certificate was renewed, or a local cluster was created anew. Whoever turns `kubectl` to another cluster does not turn the
/// broker, whose agents run where they run.
#[test]
fn a_kubeconfig_that_changes_is_read_again_and_its_context_stays() {
    needs_cluster!();
    let admin = fs::read_to_string(std::env::var("BERTHOLD_KUBECONFIG").unwrap()).unwrap();
    let server = server_of(&admin);
    let between = Between::open(server.trim_start_matches("https://").trim_end_matches('/'));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), admin.replace(&server, &format!("https://127.0.0.1:{}", between.port))).unwrap();
    let mut host = Host::with_pool(4).with_kubeconfig(file.path().to_str().unwrap());
    host.serve();
    web(&host, "dev");
    between.cut(true);
    fs::write(file.path(), &admin).unwrap();
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
