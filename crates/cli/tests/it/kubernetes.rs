//! Kubernetes, on a real cluster: the four ways to reach ports, and the errors that users meet.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::*;

macro_rules! needs_cluster {
    () => {
        if !cluster_is_here() {
            eprintln!("no cluster is here: not tested");
            return;
        }
    };
}

/// A broker whose agents are exposed in this way, with further settings of the runtime.
fn host(expose: &str, further: &str, ports: u16) -> Host {
    let mut host = Host::with_settings(
        |range| {
            format!(
                "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{range}\" }} }} }}\n\
                 runtimes: {{ kubernetes: {{ expose: {expose}{further} }} }}\n"
            )
        },
        ports,
    );
    host.serve();
    host
}

fn start<'a>(name: &'a str, image: &'a str, script: &'a str) -> Vec<&'a str> {
    vec!["start", name, "--runtime", "kubernetes", "--image", image, "--", "sh", "-c", script]
}

const IDLE: &str = "trap 'exit 0' TERM; sleep 100000 & wait";
const WEB: &str = "echo $BERTHOLD_AGENT > /tmp/index.html
    trap 'exit 0' TERM; httpd -f -p $AVAILABLE_LOCALHOST_PORT_A -h /tmp & wait";
/// A server that sends back what it is sent, for many at once.
const ECHO: &str = "trap 'exit 0' TERM; nc -ll -p $AVAILABLE_LOCALHOST_PORT_A -e cat & wait";

fn web(host: &Host, name: &str) -> Value {
    let image = cluster_image();
    let mut arguments = start(name, &image, WEB);
    arguments.insert(2, "--wait");
    host.json(&arguments)["agent"].clone()
}

/// Sends `data`, then closes this direction, and reads what comes back until the end.
fn echoed(port: u16, data: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // What does not arrive is missing in the answer.
            drop(writer.write_all(data));
            drop(writer.shutdown(Shutdown::Write));
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        back
    })
}

/// What is under way when one direction ends still comes. A node may give the pod no more than a second from there, which a busy
/// machine needs now and then.
#[test]
fn forward_ends_each_direction_by_itself() {
    needs_cluster!();
    let (host, image) = (host("forward", "", 4), cluster_image());
    host.ok(&start("dev", &image, ECHO));
    let data: Vec<u8> = (0..200_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    eventually("all comes back", || echoed(host.port(0), &data) == data);
}

#[test]
fn forward_passes_a_hundred_connections_at_once() {
    needs_cluster!();
    let (host, image) = (host("forward", "", 4), cluster_image());
    let script = "busybox head -c 200000 /dev/urandom > /tmp/data
        trap 'exit 0' TERM; httpd -f -p $AVAILABLE_LOCALHOST_PORT_A -h /tmp & wait";
    host.ok(&start("dev", &image, script));
    let port = host.port(0);
    eventually("it answers", || received(port).is_ok_and(|data| data.len() > 200_000));
    let expected = &body(&received(port).unwrap());
    assert_eq!(expected.len(), 200_000);
    std::thread::scope(|scope| {
        for number in 0..100 {
            scope.spawn(move || {
                let received = received(port).unwrap_or_else(|error| panic!("connection {number}: {error}"));
                assert!(body(&received) == *expected, "connection {number}: {} bytes", received.len());
            });
        }
    });
}

/// The whole answer to a request for `/data`.
fn received(port: u16) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /data HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// What stands behind the head of an answer.
fn body(answer: &[u8]) -> Vec<u8> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    end.map_or_else(Vec::new, |end| answer[end + 4..].to_vec())
}

#[test]
fn forward_passes_a_gibibyte_byte_for_byte() {
    needs_cluster!();
    let (host, image) = (host("forward", "", 4), cluster_image());
    // One random block, 1024 times over, and the checksum by the pod itself.
    let script = "busybox head -c 1048576 /dev/urandom > /tmp/block
        i=0; while [ $i -lt 1024 ]; do cat /tmp/block; i=$((i + 1)); done > /tmp/big
        busybox md5sum < /tmp/big > /tmp/sum.new; busybox mv /tmp/sum.new /tmp/sum
        trap 'exit 0' TERM; httpd -f -p $AVAILABLE_LOCALHOST_PORT_A -h /tmp & wait";
    host.ok(&start("dev", &image, script));
    eventually("the file is there", || fetch_path(host.port(0), "/sum").is_some_and(|sum| sum.len() > 1));
    let mut stream = TcpStream::connect(("127.0.0.1", host.port(0))).unwrap();
    write!(stream, "GET /big HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = BufReader::new(stream);
    let mut line = String::from("head");
    while !line.trim().is_empty() {
        line.clear();
        answer.read_line(&mut line).unwrap();
    }
    let mut sum = Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let length = std::io::copy(&mut answer, &mut sum.stdin.take().unwrap()).unwrap();
    let told = String::from_utf8(sum.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(length, 1 << 30);
    assert_eq!(told.trim(), fetch_path(host.port(0), "/sum").unwrap().trim());
}

/// P9: after a restart of the broker its listeners are back; of a port that someone has taken meanwhile it says so.
#[test]
fn forward_is_taken_up_again_by_the_next_broker() {
    needs_cluster!();
    let mut host = host("forward", "", 4);
    web(&host, "dev");
    host.kill_broker();
    let thief = TcpListener::bind(("127.0.0.1", host.port(0))).unwrap();
    host.serve();
    assert_eq!(host.agent("dev")["published"], Value::Null, "it is not reached, so nothing is claimed");
    let warnings = host.json(&["broker", "status"])["broker"]["warnings"].to_string();
    assert!(warnings.contains(&host.port(0).to_string()), "{warnings}");
    drop(thief);
    eventually("it is published again", || host.agent("dev")["published"] == "127.0.0.1");
    assert!(fetch(host.port(0)).unwrap().contains("dev"));
    assert_eq!(host.json(&["broker", "status"])["broker"]["warnings"], json!([]));
}

#[test]
fn host_port_and_none() {
    needs_cluster!();
    let host_port = host("host_port", "", 4);
    let agent = web(&host_port, "dev");
    assert_eq!(agent["published"], "127.0.0.1");
    eventually("the node's port answers", || {
        fetch(host_port.port(0)).is_some_and(|text| text.contains("dev"))
    });
    host_port.ok(&["delete", "dev", "-t", "1s"]);
    assert_eq!(claims(&host_port), 0);

    let none = host("none", "", 4);
    let image = cluster_image();
    let agent = none.json(&start("dev", &image, IDLE))["agent"].clone();
    assert_eq!((&agent["published"], &agent["urls"]), (&Value::Null, &json!({})));
    assert_eq!(agent["ports"]["A"], none.port(0));
}

/// How many numbers the agents of this host have claimed in the cluster.
fn claims(host: &Host) -> usize {
    let id = fs::read_to_string(host.path("broker.id")).unwrap();
    kubectl(&["get", "leases", "-l", &format!("berthold.broker={}", id.trim()), "-o", "name"]).lines().count()
}

#[test]
fn node_port_uses_exactly_the_leased_numbers_and_passes_over_those_of_others() {
    needs_cluster!();
    let range = NodePorts::take();
    let mut host = Host::with_settings(
        |_| {
            format!(
                "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{}-{}\" }} }} }}\n\
                 runtimes: {{ kubernetes: {{ expose: node_port }} }}\n",
                range.0,
                range.0 + 5
            )
        },
        4,
    );
    let foreign = format!("foreign-{}", range.0);
    kubectl(&["create", "service", "nodeport", &foreign, "--tcp=80:80", &format!("--node-port={}", range.0)]);
    host.serve();
    let agent = web(&host, "dev");
    let pool = host.json(&["ports"])["pool"].clone();
    kubectl(&["delete", "service", &foreign]);
    assert_eq!(agent["ports"], json!({ "A": range.0 + 1, "B": range.0 + 2 }));
    let blocked = pool["ports"].as_array().unwrap().iter().find(|port| port["state"] == "blocked").unwrap();
    assert_eq!(blocked["port"], range.0);
    assert!(blocked["detail"].as_str().unwrap().contains(&foreign), "{blocked}");
    eventually("the node's port answers", || fetch(range.0 + 1).is_some_and(|text| text.contains("dev")));
    host.ok(&["stop", "dev", "-t", "1s"]);
    assert_eq!(kubectl(&["get", "services", "-l", "berthold.name=dev", "-o", "name"]).trim(), "");
}

#[test]
fn a_range_beyond_the_cluster_s_own_is_told_as_such() {
    needs_cluster!();
    let (host, image) = (host("node_port", "", 4), cluster_image());
    let error = host.error(2, &start("dev", &image, IDLE));
    assert!(error["message"].as_str().unwrap().contains("30000-32767"), "{error}");
    assert_eq!((host.leased(), host.pods()), (vec![], Vec::<String>::new()));
}

/// Ports of the cluster's own range that no other test here uses.
struct NodePorts(u16);

impl NodePorts {
    fn take() -> Self {
        // Tests are processes of their own; within one minute pids do not repeat.
        Self(30_000 + u16::try_from(std::process::id() % 400).unwrap() * 6)
    }
}

/// L14: two brokers, one cluster, one range: no number twice.
#[test]
fn brokers_that_share_a_cluster_share_no_host_port() {
    needs_cluster!();
    let first = host("host_port", "", 40);
    let range = format!("{}-{}", first.port(0), first.port(39));
    let mut second = Host::with_settings(
        |_| {
            format!(
                "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{range}\", ports_per_agent: 1 }} }} }}\n\
                 runtimes: {{ kubernetes: {{ expose: host_port }} }}\n"
            )
        },
        40,
    );
    second.serve();
    let image = cluster_image();
    let names: Vec<String> = (0..20).map(|number| format!("a{number}")).collect();
    let children: Vec<_> = names
        .iter()
        .flat_map(|name| [(&first, name), (&second, name)])
        .map(|(host, name)| {
            let mut arguments = start(name, &image, IDLE);
            arguments.splice(2..2, ["--ports", "1"]);
            host.command().args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut ports: Vec<u16> =
        [&first, &second].iter().flat_map(|host| host.leased()).map(|(_, port)| port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 40, "{ports:?}");
    for host in [&first, &second] {
        host.ok(&["delete", "--all", "-t", "0s"]);
        assert_eq!(claims(host), 0);
    }
}

/// P7, L14: a pod's `hostPort` is a packet rule that no probe sees.
#[test]
fn a_host_port_of_a_pod_is_never_given_to_a_docker_agent() {
    needs_cluster!();
    needs_docker!();
    let host = host("forward", "", 6);
    let pod = format!("foreign-{}", host.port(0));
    let overrides = json!({ "spec": { "containers": [{ "name": pod, "image": cluster_image(),
        "imagePullPolicy": "IfNotPresent", "command": ["sleep", "100000"],
        "ports": [{ "containerPort": 80, "hostPort": host.port(0) }] }] } });
    kubectl(&[
        "run",
        &pod,
        "--image",
        &cluster_image(),
        "--restart=Never",
        "--overrides",
        &overrides.to_string(),
    ]);
    kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"]);
    assert!(TcpListener::bind(("0.0.0.0", host.port(0))).is_ok(), "no socket shows it");
    let agent = host.json(&idle_agent("dev", &image()))["agent"].clone();
    let blocked = host.json(&["ports"])["pool"]["ports"][0].clone();
    kubectl(&["delete", "pod", &pod, "--grace-period=1"]);
    assert_eq!(agent["ports"], json!({ "A": host.port(1), "B": host.port(2) }));
    assert_eq!((&blocked["port"], &blocked["state"]), (&json!(host.port(0)), &json!("blocked")));
    assert!(blocked["detail"].as_str().unwrap().contains(&pod), "{blocked}");
}

#[test]
fn what_cannot_be_scheduled_or_pulled_says_why_and_is_given_up() {
    needs_cluster!();
    let host = host("forward", ", start_timeout: 3s", 4);
    let image = cluster_image();
    let mut unschedulable = start("big", &image, IDLE);
    unschedulable.splice(2..2, ["-v", "no-such-claim:/data"]);
    let error = host.error(6, &unschedulable);
    assert!(error["message"].as_str().unwrap().contains("no-such-claim"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("start_timeout"), "{error}");
    let error = host.error(6, &start("gone", "localhost/no-such-image:1", IDLE));
    assert!(error["message"].as_str().unwrap().contains("no-such-image"), "{error}");
    assert_eq!((host.leased(), host.pods()), (vec![], Vec::<String>::new()));
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
    assert_eq!(host.leased(), []);
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

#[test]
fn without_rights_the_error_names_the_verb_and_the_resource() {
    needs_cluster!();
    let admin = std::env::var("BERTHOLD_KUBECONFIG").unwrap();
    let nobody = admin.replace("admin.kubeconfig", "nobody.kubeconfig");
    if !std::path::Path::new(&nobody).is_file() || nobody == admin {
        eprintln!("there is no nobody.kubeconfig beside {admin}: not tested");
        return;
    }
    let mut host = Host::with_pool(4).with_kubeconfig(&nobody);
    host.serve();
    let error = host.error(8, &start("dev", &cluster_image(), IDLE));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("cannot create resource \"pods\""), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("rbac.yaml"), "{error}");
    assert_eq!(host.leased(), []);
}

#[test]
fn the_manifest_s_rights_suffice_for_all_of_it() {
    needs_cluster!();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kubernetes/rbac.yaml");
    kubectl(&["apply", "-f", manifest]);
    let config = kubectl(&["config", "view", "--raw", "-o", "json"]);
    let mut config: Value = serde_json::from_str(&config).unwrap();
    let secret = kubectl(&["get", "serviceaccount", "berthold", "-o", "jsonpath={.secrets[0].name}"]);
    let token = if secret.trim().is_empty() {
        kubectl(&["create", "token", "berthold"])
    } else {
        kubectl(&["get", "secret", secret.trim(), "-o", "go-template={{.data.token | base64decode}}"])
    };
    for user in config["users"].as_array_mut().unwrap() {
        user["user"] = json!({ "token": token.trim() });
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), config.to_string()).unwrap();
    for expose in ["forward", "host_port"] {
        let mut host = Host::with_settings(
            |range| {
                format!(
                    "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{range}\" }} }} }}\n\
                     runtimes: {{ kubernetes: {{ expose: {expose} }} }}\n"
                )
            },
            4,
        )
        .with_kubeconfig(file.path().to_str().unwrap());
        host.serve();
        web(&host, "dev");
        assert_eq!(host.ok(&["exec", "dev", "--", "echo", "hi"]), "hi\n");
        host.ok(&["logs", "dev"]);
        let image = cluster_image();
        let mut job = start("job", &image, "read code; exit $code");
        job.insert(2, "-i");
        host.ok(&job);
        let mut attached = host.command().args(["attach", "job"]).stdin(Stdio::piped()).spawn().unwrap();
        attached.stdin.take().unwrap().write_all(b"3\n").unwrap();
        assert_eq!(attached.wait().unwrap().code(), Some(3));
        eventually("it is reached", || fetch(host.port(0)).is_some());
        host.ok(&["delete", "--all", "-t", "0s"]);
        assert_eq!(host.leased(), [], "{expose}");
        assert!(!host.broker_log().contains("forbidden"), "{}", host.broker_log());
    }
}

#[test]
fn a_cluster_that_does_not_answer_is_unreachable_and_nothing_is_given_back() {
    needs_cluster!();
    let admin = fs::read_to_string(std::env::var("BERTHOLD_KUBECONFIG").unwrap()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &admin).unwrap();
    let mut host = Host::with_pool(4).with_kubeconfig(file.path().to_str().unwrap());
    host.serve();
    host.ok(&start("dev", &cluster_image(), IDLE));
    let leased = host.leased();
    host.kill_broker();
    let server = server_of(&admin);
    fs::write(file.path(), admin.replace(&server, "https://127.0.0.1:9")).unwrap();
    host.serve();
    assert_eq!(host.leased(), leased);
    assert_eq!(host.error(6, &["stop", "dev"])["code"], "runtime_unreachable");
    assert_eq!(host.leased(), leased);
    host.kill_broker();
    fs::write(file.path(), &admin).unwrap();
    host.serve();
    host.ok(&["stop", "dev", "-t", "0s"]);
    assert_eq!(host.leased(), []);
}

/// The address of the API server in a kubeconfig.
fn server_of(kubeconfig: &str) -> String {
    let line = kubeconfig.lines().find_map(|line| line.split_once("server:")).unwrap().1;
    line.trim().trim_end_matches([',', '}']).trim().trim_matches('"').to_owned()
}
