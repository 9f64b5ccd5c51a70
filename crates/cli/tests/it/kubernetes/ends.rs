//! How pods end, and that nothing of them stays behind.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use serde_json::{Value, json};

use super::nodes::NodePorts;
use super::{host, needs_cluster, start};
use crate::observer::claims;
use crate::support::*;

/// P3: without any time to end, the API server would forget a pod that still runs on its node.
#[test]
fn what_is_deleted_at_once_has_ended_on_its_node() {
    needs_cluster!();
    let (host, image) = (host("forward", "", 4), cluster_image());
    let mut arguments = start("dev", &image, "trap '' TERM; httpd -f -p $AVAILABLE_LOCALHOST_PORT_A -h /tmp");
    arguments.splice(2..2, ["--network", "host", "--wait"]);
    host.ok(&arguments);
    assert!(TcpListener::bind(("0.0.0.0", host.port(0))).is_err(), "it has the node's own network");
    host.ok(&["delete", "dev", "-t", "0s"]);
    assert!(TcpListener::bind(("0.0.0.0", host.port(0))).is_ok(), "it still listens");
}

/// P4: killed once the lease is on disk, a broker may have reserved its ports in the cluster and not yet created the pod.
#[test]
fn what_a_crash_left_in_the_cluster_goes_with_its_lease() {
    needs_cluster!();
    let (image, ports) = (cluster_image(), NodePorts::take());
    for expose in ["node_port", "host_port"] {
        let mut host = Host::with_settings(
            |_| {
                format!(
                    "server: {{ broker: {{ listen: none, auto_start: false, reconcile_interval: 1s, \
                     port_pool: {{ range: \"{}-{}\" }} }} }}\n\
                     runtimes: {{ kubernetes: {{ expose: {expose} }} }}\n",
                    ports.first,
                    ports.first + 3
                )
            },
            4,
        );
        host.serve_with(&[("BERTHOLD_FAULT", "kill 1")]);
        host.run(&start("dev", &image, IDLE));
        assert!(host.broker_was_killed(), "{}", fs::read_to_string(host.path("faults.log")).unwrap());
        host.serve();
        let agent = host.agent("dev");
        let (lease, port) = (agent["lease"].as_str().unwrap(), agent["ports"]["A"].as_u64().unwrap());
        let broker = fs::read_to_string(host.path("broker.id")).unwrap();
        let labels = json!({ "berthold.broker": broker.trim(), "berthold.lease": lease });
        let service = |name: &str, node_port: Option<u64>| {
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "labels": labels },
                "spec": { "type": "NodePort", "ports": [{ "port": 80, "nodePort": node_port }] } })
        };
        let left = match expose {
            "node_port" => service(&format!("berthold-{}", lease.to_ascii_lowercase()), Some(port)),
            _ => json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": { "name": format!("berthold-port-{port}"), "labels": labels } }),
        };
        // As `kubectl expose` makes it: with all labels of the agent.
        let persons = format!("by-hand-{}-{}", expose.replace('_', "-"), ports.first);
        apply(&service(&persons, None));
        apply(&left);
        eventually("the lease ends", || host.leased().is_empty());
        let services = kubectl(&["get", "services", "-l", &format!("berthold.lease={lease}"), "-o", "name"]);
        kubectl(&["delete", "service", &persons]);
        assert_eq!(
            services.trim(),
            format!("service/{persons}"),
            "the agent's is gone, and a person's stays"
        );
        assert_eq!(claims(&host), 0);
        assert_eq!(host.agent("dev")["state"], "failed");
    }
}

/// A pod of a person's that has the name of an agent is theirs, also if it looks like an agent's that has ended.
#[test]
fn another_s_pod_is_left_alone() {
    needs_cluster!();
    let (host, image) = (host("host_port", "", 4), cluster_image());
    let name = host.container("dev");
    let container =
        |name: &str, command: &[&str]| json!({ "name": name, "image": image, "command": command });
    apply(
        &json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": { "restartPolicy": "Never",
        "containers": [container("agent", &["sh", "-c", "exit 0"]), container("beside", &["sleep", "100000"])] } }),
    );
    let ended = "jsonpath={.status.containerStatuses[?(@.name=='agent')].state.terminated.reason}";
    eventually("its container has ended", || kubectl(&["get", "pod", &name, "-o", ended]) == "Completed");
    let error = host.error(7, &start("dev", &image, IDLE));
    assert!(error["message"].as_str().unwrap().contains("something that Berthold did not start"), "{error}");
    let phase =
        kubectl(&["get", "pod", &name, "-o", "jsonpath={.status.phase}{.metadata.deletionTimestamp}"]);
    kubectl(&["delete", "pod", &name, "--force", "--grace-period=0"]);
    assert_eq!((phase.as_str(), host.leased()), ("Running", vec![]));
}

pub(super) fn apply(object: &Value) {
    let mut child = kubectl_command().args(["apply", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// One that was evicted has ended, with the cluster's reason.
#[test]
fn an_evicted_pod_gives_its_ports_back() {
    needs_cluster!();
    let (host, image) = (host("forward", "", 4), cluster_image());
    host.ok(&start("dev", &image, IDLE));
    let pod = host.container("dev");
    let status = json!({ "status": { "phase": "Failed", "reason": "Evicted",
        "message": "The node was low on resource: memory.", "containerStatuses": null } });
    // The node, which knows nothing of it, may write that the pod runs before anyone has seen this.
    eventually("it has ended", || {
        patch_status(&pod, &status);
        host.agent("dev")["state"] == "exited"
    });
    assert_eq!(host.agent("dev")["reason"], "Evicted: The node was low on resource: memory.");
    assert_eq!(host.leased(), []);
}

/// P3: a pod holds its `hostPort`s for as long as anything runs in it, and clusters put containers beside the agent's.
#[test]
fn host_ports_are_not_given_back_while_something_beside_the_agent_holds_them() {
    needs_cluster!();
    let (mut host, image) = (host("host_port", "", 4), cluster_image());
    host.ok(&start("dev", &image, "until [ -e /tmp/end ]; do sleep 0.2; done; exit 3"));
    let name = host.container("dev");
    let pod = kubectl(&["get", "pod", &name, "-o", "json"]);
    let mut pod: Value = serde_json::from_str(&pod).unwrap();
    host.kill_broker();
    kubectl(&["delete", "pod", &name, "--grace-period=1"]);
    let beside = json!({ "name": "beside", "image": image, "command": ["sleep", "100000"] });
    pod["spec"]["containers"].as_array_mut().unwrap().push(beside);
    pod["status"] = Value::Null;
    for made in ["uid", "resourceVersion", "managedFields", "creationTimestamp"] {
        pod["metadata"][made] = Value::Null;
    }
    apply(&pod);
    kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=300s"]);
    host.serve();
    assert_eq!(host.agent("dev")["state"], "running");
    assert_eq!(host.leased().len(), 2);
    kubectl(&["exec", &name, "-c", "agent", "--", "sh", "-c", "> /tmp/end"]);
    eventually("its lease ends", || host.leased().is_empty());
    assert_eq!(host.pods(), Vec::<String>::new(), "it holds the ports");
    let agent = host.agent("dev");
    assert_eq!((&agent["state"], &agent["exit_code"]), (&json!("exited"), &json!(3)), "{agent}");
    assert!(agent["reason"].as_str().unwrap().contains("its pod was deleted"), "{agent}");
}

/// As a node does that evicts: through the API, since `kubectl` of that age cannot patch a status.
fn patch_status(pod: &str, status: &Value) {
    let raw = format!("/api/v1/namespaces/default/pods/{pod}/status");
    let mut proxy = kubectl_command().args(["proxy", "--port=0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut reader = BufReader::new(proxy.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    let address = line.trim().rsplit(' ').next().unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    let body = status.to_string();
    write!(
        stream,
        "PATCH {raw} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/merge-patch+json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    proxy.kill().unwrap();
    proxy.wait().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
