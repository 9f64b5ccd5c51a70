//! Which context of a kubeconfig is used, and a kubeconfig that changes while the broker runs.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::forward::Between;
use super::{checked, needs_cluster, unserved, web};
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

/// A listener that answers whoever calls with `401`, as a cluster does that does not know them; how often it was called.
fn unwelcoming() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (server, called) =
        (format!("http://{}", listener.local_addr().unwrap()), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&called);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            drop(stream.read(&mut [0; 4096]));
            let answer = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    (server, called)
}

#[test]
fn the_context_of_the_settings_is_the_one_that_is_called() {
    let ((near, near_called), (far, far_called)) = (unwelcoming(), unwelcoming());
    let kubeconfig = json!({
        "current-context": "near",
        "clusters": [{ "name": "n", "cluster": { "server": near } }, { "name": "f", "cluster": { "server": far } }],
        "contexts": [{ "name": "near", "context": { "cluster": "n", "user": "me" } },
                     { "name": "far", "context": { "cluster": "f", "user": "me" } }],
        "users": [{ "name": "me", "user": {} }],
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), kubeconfig.to_string()).unwrap();
    let mut host = unserved("none", ", context: far", 4).with_kubeconfig(file.path().to_str().unwrap());
    host.serve();
    let told = checked(&host);
    assert_eq!(told["state"], "absent", "{told}");
    let called = [&near_called, &far_called].map(|called| called.load(Ordering::Relaxed) > 0);
    assert_eq!(called, [false, true], "{}", host.broker_log());
}
