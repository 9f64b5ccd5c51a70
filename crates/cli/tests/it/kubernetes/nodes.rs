//! Ports of the cluster's nodes: `expose: host_port` and `node_port`, and what others hold of them.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::process::Stdio;

use serde_json::{Value, json};

use super::ends::apply;
use super::forward::Between;
use super::{MANIFEST, WEB, host, kubeconfig_of, needs_cluster, start, unserved, web};
use crate::clock::Clock;
use crate::observer::{self, Seen, claims};
use crate::support::*;

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
    assert_eq!((claims(&none), services(&none)), (0, String::new()));
    let owner = kubectl(&[
        "get",
        "pod",
        &none.container("dev"),
        "-o",
        "jsonpath={.metadata.annotations.berthold\\.owner}",
    ]);
    assert!(owner.contains(&format!("agent {}/dev of the broker ", none.project())), "{owner}");
}

#[test]
fn node_port_uses_exactly_the_leased_numbers_and_passes_over_those_of_others() {
    needs_cluster!();
    let range = NodePorts::take();
    let mut host = Host::with_settings(|_| of_nodes(&range, 6, "node_port"), 4);
    let foreign = foreign_service(range.first);
    host.serve();
    let agent = web(&host, "dev");
    let pool = host.json(&["ports"])["pool"].clone();
    kubectl(&["delete", "service", &foreign]);
    assert_eq!(agent["ports"], json!({ "A": range.first + 1, "B": range.first + 2 }));
    let blocked = pool["ports"].as_array().unwrap().iter().find(|port| port["state"] == "blocked").unwrap();
    assert_eq!(blocked["port"], range.first);
    assert!(blocked["detail"].as_str().unwrap().contains(&foreign), "{blocked}");
    eventually("the node's port answers", || fetch(range.first + 1).is_some_and(|text| text.contains("dev")));
    host.ok(&["stop", "dev", "-t", "1s"]);
    assert_eq!(services(&host), "");
}

/// P7: what the broker could not see when it looked, or what was not there yet, the API server tells it.
#[test]
fn a_node_port_that_the_api_server_refuses_is_blocked_and_another_is_tried() {
    needs_cluster!();
    kubectl(&["apply", "-f", MANIFEST]);
    let range = NodePorts::take();
    // Who may not look beyond the own namespace does not see the service of another, nor does a socket show it: this one is no
    // business of the node's proxy.
    let narrow = format!("narrow-{}", range.first);
    let file = narrow_account(&narrow);
    let mut host = Host::with_settings(|_| of_nodes(&range, 6, "node_port"), 4)
        .with_kubeconfig(file.path().to_str().unwrap());
    let foreign = format!("foreign-{}", range.first);
    apply(&json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": foreign, "namespace": "kube-public",
            "labels": { "service.kubernetes.io/service-proxy-name": "none" } },
        "spec": { "type": "NodePort", "ports": [{ "port": 80, "nodePort": range.first }] } }));
    host.serve();
    let image = cluster_image();
    let mut arguments = start("dev", &image, WEB);
    arguments.insert(2, "--wait");
    let done = host.run(&[&["--json"], &arguments[..]].concat());
    let pool = host.json(&["ports"])["pool"].clone();
    kubectl(&["delete", "service", &foreign, "-n", "kube-public"]);
    assert_eq!(done.code, 0, "{done:#?}\n{}", host.broker_log());
    let agent = serde_json::from_str::<Value>(&done.stdout).unwrap()["agent"].clone();
    assert_eq!(agent["ports"], json!({ "A": range.first + 2, "B": range.first + 1 }), "B keeps its port");
    let blocked: Vec<_> =
        pool["ports"].as_array().unwrap().iter().filter(|it| it["state"] == "blocked").collect();
    assert_eq!((blocked.len(), &blocked[0]["port"]), (1, &json!(range.first)), "{pool}");
    let detail = blocked[0]["detail"].as_str().unwrap();
    assert!(detail.contains("only kubernetes sees: it refused the port"), "{detail}");
    eventually("the node's port answers", || fetch(range.first + 2).is_some_and(|text| text.contains("dev")));
    host.ok(&["delete", "dev", "-t", "1s"]);
    assert_eq!(services(&host), "");
    kubectl(&["delete", "rolebinding,serviceaccount", &narrow]);
}

/// The names of the services of a broker's agents.
fn services(host: &Host) -> String {
    let of_project = format!("berthold.project={}", host.project());
    kubectl(&["get", "services", "-l", &of_project, "-o", "name"]).trim().to_owned()
}

/// The kubeconfig of a new service account with the rights in the own namespace alone.
fn narrow_account(name: &str) -> tempfile::NamedTempFile {
    kubectl(&["create", "serviceaccount", name]);
    let account = format!("--serviceaccount=default:{name}");
    kubectl(&["create", "rolebinding", name, "--role=berthold", &account]);
    kubeconfig_of(name)
}

/// P9: what someone deletes comes back, and until then nothing is said to be published.
#[test]
fn a_service_that_someone_deletes_is_there_again_with_the_leased_numbers() {
    needs_cluster!();
    let range = NodePorts::take();
    let settings = |expose: &str| of_nodes(&range, 2, expose);
    let mut host = Host::with_settings(|_| settings("node_port"), 2);
    host.serve();
    let ports = web(&host, "served")["ports"].clone();
    let service =
        format!("berthold-{}", host.agent("served")["lease"].as_str().unwrap().to_ascii_lowercase());
    let of_it = ["get", "services", "-l", "berthold.name=served", "-o", "name"];
    kubectl(&["delete", "service", &service]);
    eventually("it is there again", || kubectl(&of_it).trim() == format!("service/{service}"));
    eventually("the node's port answers", || fetch(range.first).is_some_and(|text| text.contains("served")));
    eventually("it is said to be published", || host.agent("served")["published"] == "0.0.0.0");

    // Meanwhile another may have got one of its numbers.
    host.kill_broker();
    kubectl(&["delete", "service", &service]);
    let foreign = foreign_service(range.first);
    host.serve();
    eventually("it is said not to be published", || host.agent("served")["published"] == Value::Null);
    let told = || host.json(&["broker", "status"])["broker"]["warnings"].to_string();
    eventually_or("it is told", || told().contains("cannot be reached"), told);
    kubectl(&["delete", "service", &foreign]);
    eventually("it is published again", || host.agent("served")["published"] == "0.0.0.0");
    assert_eq!(host.agent("served")["ports"], ports);

    // What ran before the setting was another one has a service as well, as its listing says.
    host.ok(&["delete", "served", "-t", "1s"]);
    fs::write(host.path("settings.yaml"), settings("forward")).unwrap();
    host.stop_broker();
    host.serve();
    web(&host, "served");
    fs::write(host.path("settings.yaml"), settings("node_port")).unwrap();
    host.stop_broker();
    host.serve();
    eventually("it is published by its nodes", || host.agent("served")["published"] == "0.0.0.0");
    assert_ne!(kubectl(&of_it).trim(), "");
    host.ok(&["delete", "served", "-t", "1s"]);
    assert_eq!(kubectl(&of_it).trim(), "");
}

#[test]
fn a_range_beyond_the_cluster_s_own_is_told_as_such() {
    needs_cluster!();
    let (host, image) = (host("node_port", "", 4), cluster_image());
    let error = host.error(2, &start("dev", &image, IDLE));
    assert!(error["message"].as_str().unwrap().contains("30000-32767"), "{error}");
    assert_eq!((host.leased(), host.pods()), (vec![], Vec::<String>::new()));
}

/// Settings of a pool of `size` ports of the cluster's own range.
fn of_nodes(range: &NodePorts, size: u16, expose: &str) -> String {
    let last = range.first + size - 1;
    format!(
        "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{}-{last}\" }} }} }}\n\
         runtimes: {{ kubernetes: {{ expose: {expose} }} }}\n",
        range.first
    )
}

/// Ports of the cluster's own range that no other test here uses: the first of six.
pub(super) struct NodePorts {
    pub(super) first: u16,
    _lock: fs::File,
}

impl NodePorts {
    pub(super) fn take() -> Self {
        // What another test has had a moment ago may not be gone yet.
        let begin = u16::try_from(std::process::id() % 400).unwrap();
        let mut ranges = (0..400).map(|step| 30_000 + (begin + step) % 400 * 6);
        let taken = ranges.find_map(|first| Some(Self { first, _lock: lock_of_range(first)? }));
        taken.expect("a range is left")
    }
}

/// L14: two brokers, one cluster, one range: no number twice.
#[test]
fn brokers_that_share_a_cluster_share_no_host_port() {
    needs_cluster!();
    end_all(&share_no_host_port(20, "default"));
}

/// Ends all agents of brokers with one range, which is another test's as soon as the first of them is dropped.
fn end_all(hosts: &[Host; 2]) {
    for host in hosts {
        host.ok(&["delete", "--all", "-t", "0s"]);
        assert_eq!(claims(host), 0);
    }
}

/// L14: names, and so claims, are unique within a namespace only.
#[test]
fn brokers_with_two_namespaces_share_no_host_port() {
    needs_cluster!();
    let namespace = format!("berthold-{}", std::process::id());
    kubectl(&["create", "namespace", &namespace]);
    eventually("pods can be created in it", || {
        let account = ["get", "serviceaccount", "default", "-n", &namespace];
        kubectl_command().args(account).output().is_ok_and(|output| output.status.success())
    });
    let hosts = share_no_host_port(8, &namespace);
    // A node takes its time, for which nobody has to wait here.
    for host in &hosts {
        let id = fs::read_to_string(host.path("broker.id")).unwrap();
        let of_broker = format!("berthold.broker={}", id.trim());
        kubectl(&["delete", "pods", "-A", "-l", &of_broker, "--force", "--grace-period=0"]);
    }
    end_all(&hosts);
    kubectl(&["delete", "namespace", &namespace, "--wait=false"]);
}

/// L14: nor do brokers whose numbers are the nodes' in other ways.
#[test]
fn brokers_that_expose_otherwise_share_no_number() {
    needs_cluster!();
    let (range, image) = (NodePorts::take(), cluster_image());
    let mut hosts = ["host_port", "node_port"].map(|expose| {
        let expose = format!("{expose}, start_timeout: 600s");
        Host::with_settings(|_| of_nodes(&range, 6, &expose), 4)
    });
    hosts.iter_mut().for_each(Host::serve);
    let children: Vec<_> = ["a", "b", "bound"]
        .iter()
        .flat_map(|name| hosts.iter().map(move |host| (host, *name)))
        .map(|(host, name)| {
            let mut arguments = start(name, &image, IDLE);
            let network = if name == "bound" { "host" } else { "default" };
            arguments.splice(2..2, ["--ports", "1", "--network", network]);
            host.command().args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}\n{}\n{}", hosts[0].broker_log(), hosts[1].broker_log());
    }
    let [of_pods, of_services] = hosts.each_ref().map(observer::ledger);
    assert_eq!(observer::pods(&hosts[0]), of_pods);
    let of_project = format!("berthold.project={}", hosts[1].project());
    let numbers = "jsonpath={.items[*].spec.ports[*].nodePort}";
    let published = kubectl(&["get", "services", "-l", &of_project, "-o", numbers]);
    let published: BTreeSet<u16> = published.split_whitespace().map(|it| it.parse().unwrap()).collect();
    let services = ["a", "b"].map(|name| of_services[name][0]);
    assert_eq!(published, BTreeSet::from(services));
    let all: BTreeSet<u16> = of_pods.into_values().chain(of_services.into_values()).flatten().collect();
    assert_eq!(all, (range.first..range.first + 6).collect(), "each of the six has one");
    end_all(&hosts);
}

/// L14: what has the network of its node binds its numbers there, though nothing publishes them.
#[test]
fn numbers_on_the_network_of_a_node_are_claimed_too() {
    needs_cluster!();
    let on_node = |host: &Host| {
        let image = cluster_image();
        let mut arguments = start("dev", &image, IDLE);
        arguments.splice(2..2, ["--network", "host"]);
        host.json(&arguments)["agent"]["ports"].clone()
    };
    for expose in ["host_port", "node_port"] {
        let host = host(expose, "", 4);
        let claim = format!("berthold-port-{}", host.port(0));
        apply(&json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": claim, "namespace": "kube-public", "labels": { "berthold.lease": "another" } } }));
        let ports = on_node(&host);
        kubectl(&["delete", "lease", &claim, "-n", "kube-public"]);
        assert_eq!(ports, json!({ "A": host.port(2), "B": host.port(1) }), "{expose}");
        assert_eq!((claims(&host), services(&host)), (2, String::new()), "{expose}");
        let claim = format!("berthold-port-{}", host.port(2));
        let owner = "jsonpath={.metadata.ownerReferences[*].name}";
        assert_eq!(
            kubectl(&["get", "lease", &claim, "-o", owner]),
            host.container("dev"),
            "it goes with the pod"
        );
        host.ok(&["delete", "dev", "-t", "0s"]);
        assert_eq!(claims(&host), 0, "{expose}");
    }
    let none = host("none", "", 4);
    on_node(&none);
    assert_eq!(claims(&none), 0);
    // Forwarded ports are those of the brokers' hosts; these are of a node, whosever they are.
    let first = host("forward", "", 4);
    let range = format!("{}-{}", first.port(0), first.port(3));
    let settings =
        |_: &str| format!("server: {{ broker: {{ listen: none, port_pool: {{ range: \"{range}\" }} }} }}\n");
    let mut second = Host::with_settings(settings, 4);
    second.serve();
    assert_eq!(on_node(&first), json!({ "A": first.port(0), "B": first.port(1) }));
    assert_eq!(on_node(&second), json!({ "A": first.port(2), "B": first.port(3) }));
}

/// L14: a claim counts in all namespaces, before there is a pod of which a scheduler would know.
#[test]
fn a_number_that_is_claimed_in_another_namespace_is_passed_over() {
    needs_cluster!();
    let host = host("host_port", "", 4);
    let claim = format!("berthold-port-{}", host.port(0));
    apply(&json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": claim, "namespace": "kube-public", "labels": { "berthold.lease": "another" } } }));
    let agent = host.json(&start("dev", &cluster_image(), IDLE))["agent"].clone();
    kubectl(&["delete", "lease", &claim, "-n", "kube-public"]);
    assert_eq!(agent["ports"], json!({ "A": host.port(2), "B": host.port(1) }));
    assert_eq!(claims(&host), 2, "the own one was given back");
}

/// L14: nor does a Service get it, though the API server would give it one.
#[test]
fn a_number_that_a_pod_has_claimed_is_none_for_a_service() {
    needs_cluster!();
    let range = NodePorts::take();
    let mut host = Host::with_settings(|_| of_nodes(&range, 6, "node_port"), 4);
    host.serve();
    let claim = format!("berthold-port-{}", range.first);
    apply(&json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": claim, "namespace": "kube-public", "labels": { "berthold.lease": "another" } } }));
    let done = host.run(&[&["--json"], &start("dev", &cluster_image(), IDLE)[..]].concat());
    kubectl(&["delete", "lease", &claim, "-n", "kube-public"]);
    assert_eq!(done.code, 0, "{done:#?}\n{}", host.broker_log());
    assert_eq!(host.agent("dev")["ports"], json!({ "A": range.first + 2, "B": range.first + 1 }));
    assert_eq!(claims(&host), 2);
    host.ok(&["delete", "dev", "-t", "0s"]);
    assert_eq!((claims(&host), services(&host)), (0, String::new()));
}

/// P3: an API server that did not answer may create the pod all the same, which runs by itself then. Until it can no more, its ports are
/// nobody's, whatever a person asks for; except who says that nothing will come.
#[test]
fn ports_of_a_pod_that_may_yet_come_are_not_given_back() {
    needs_cluster!();
    let mut host = unserved("host_port", "", 4);
    host.serve_with(&[("BERTHOLD_FAULT", "refuse 1 kubernetes create")]);
    let image = cluster_image();
    assert_eq!(host.error(6, &start("dev", &image, IDLE))["code"], "runtime_unreachable");
    let leased = host.leased();
    assert_eq!(leased.len(), 2);
    for command in
        [&["stop", "dev"][..], &["restart", "dev"], &["delete", "dev"], &start("dev", &image, IDLE)]
    {
        let error = host.error(6, command);
        assert!(
            error["message"].as_str().unwrap().contains("has not said whether it comes to be"),
            "{error}"
        );
    }
    // Longer than the age that any other lease must have of which nothing is there.
    std::thread::sleep(std::time::Duration::from_secs(14));
    assert_eq!(host.leased(), leased, "{}", host.broker_log());
    host.ok(&["delete", "dev", "--force"]);
    assert_eq!((host.leased(), claims(&host)), (vec![], 0));
}

/// How old a claim is, the cluster's clock tells: a broker whose own is an hour ahead takes no one's number.
#[test]
fn a_fresh_claim_is_none_that_was_left_behind_whatever_the_clock_says() {
    needs_cluster!();
    let Some(clock) = Clock::find() else { return };
    clock.set(3600);
    let mut host = unserved("host_port", "", 4);
    host.serve_with(&clock.variables());
    // In its own namespace, where it would be removed, and in another.
    for (port, namespace) in [(0, "default"), (1, "kube-public")] {
        let claim = format!("berthold-port-{}", host.port(port));
        apply(&json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": claim, "namespace": namespace, "labels": { "berthold.lease": "another" } } }));
    }
    let agent = host.json(&start("dev", &cluster_image(), IDLE))["agent"].clone();
    for (port, namespace) in [(0, "default"), (1, "kube-public")] {
        kubectl(&["delete", "lease", &format!("berthold-port-{}", host.port(port)), "-n", namespace]);
    }
    let mut ports: Vec<_> = ["A", "B"].map(|label| agent["ports"][label].as_u64().unwrap()).into();
    ports.sort_unstable();
    assert_eq!(ports, [host.port(2), host.port(3)].map(u64::from));
}

/// Two brokers with one range, the second with pods in `namespace`, start `each` agents all at once.
fn share_no_host_port(each: u16, namespace: &str) -> [Host; 2] {
    let first = host("host_port", ", start_timeout: 600s", each * 2);
    let range = format!("{}-{}", first.port(0), first.port(each * 2 - 1));
    let mut second = Host::with_settings(
        |_| {
            format!(
                "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{range}\", ports_per_agent: 1 }} }} }}\n\
                 runtimes: {{ kubernetes: {{ expose: host_port, namespace: {namespace}, start_timeout: 600s }} }}\n"
            )
        },
        each * 2,
    );
    second.serve();
    let image = cluster_image();
    let names: Vec<String> = (0..each).map(|number| format!("a{number}")).collect();
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
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}\n{}\n{}", first.broker_log(), second.broker_log());
    }
    // The pods' own, as the cluster has them, and those of the ledgers.
    let seen = [&first, &second].map(observer::pods);
    assert_eq!(seen, [&first, &second].map(observer::ledger));
    let mut ports: Vec<u16> = seen.into_iter().flat_map(Seen::into_values).flatten().collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), usize::from(each) * 2, "{ports:?}");
    [first, second]
}

/// P7, L14: a pod's `hostPort` is a packet rule that no probe sees.
#[test]
fn a_host_port_of_a_pod_is_never_given_to_a_docker_agent() {
    needs_cluster!();
    needs_docker!();
    let host = host("forward", "", 6);
    let pod = foreign_pod(host.port(0));
    assert!(TcpListener::bind(("0.0.0.0", host.port(0))).is_ok(), "no socket shows it");
    // A cluster that takes too long to tell is taken to be as it was.
    let told = || host.json(&["ports"])["pool"]["ports"][0]["state"] == "blocked";
    eventually_or("the cluster tells of it", told, || host.broker_log());
    let agent = host.json(&idle_agent("dev", &image()))["agent"].clone();
    let blocked = host.json(&["ports"])["pool"]["ports"][0].clone();
    kubectl(&["delete", "pod", &pod, "--grace-period=1"]);
    assert_eq!(agent["ports"], json!({ "A": host.port(1), "B": host.port(2) }));
    assert_eq!((&blocked["port"], &blocked["state"]), (&json!(host.port(0)), &json!("blocked")));
    assert!(blocked["detail"].as_str().unwrap().contains(&pod), "{blocked}");
}

/// P7: pods go on without their API server, and no socket shows what they have. So it is known also to a broker that starts meanwhile.
#[test]
fn a_host_port_of_a_pod_is_remembered_while_its_cluster_is_away() {
    needs_cluster!();
    needs_docker!();
    let (between, mut host, _kubeconfig) = Between::unserved();
    let pod = foreign_pod(host.port(0));
    host.serve();
    let others = json!({ "A": host.port(1), "B": host.port(2) });
    let told = || host.json(&["ports"])["pool"]["ports"][0]["state"] == "blocked";
    eventually_or("the cluster tells of it", told, || host.broker_log());
    assert_eq!(ports_of_next(&host, "first"), others);
    host.kill_broker();
    between.cut(true);
    host.serve();
    assert_eq!(ports_of_next(&host, "second"), others);
    let blocked = host.json(&["ports"])["pool"]["ports"][0].clone();
    assert!(blocked["detail"].as_str().unwrap().contains(&pod), "{blocked}");
    let warnings = || host.json(&["broker", "status"])["broker"]["warnings"].clone();
    let told = warnings().to_string();
    assert!(
        told.contains("before this broker started") && told.contains(&host.port(0).to_string()),
        "{told}"
    );
    let free = json!({ "A": host.port(0), "B": host.port(1) });
    // Once the cluster tells again, that counts.
    kubectl(&["delete", "pod", &pod, "--grace-period=1"]);
    assert_eq!(ports_of_next(&host, "third"), others);
    between.cut(false);
    eventually("it has told", || {
        let next = ports_of_next(&host, "fourth");
        warnings() == json!([]) && next == free
    });
    host.kill_broker();
    between.cut(true);
    host.serve();
    assert_eq!(ports_of_next(&host, "fifth"), free, "that nothing is held any more is known, too");
    let none = host.json(&["broker", "status"])["broker"]["warnings"].clone();
    assert_eq!(none, json!([]));
}

/// The ports that an agent on Docker gets which is started and deleted at once.
fn ports_of_next(host: &Host, name: &str) -> Value {
    let agent = host.json(&idle_agent(name, &image()))["agent"].clone();
    host.ok(&["delete", name, "-t", "0s"]);
    agent["ports"].clone()
}

/// P7: a broker that may not look beyond its namespace hears of a pod's `hostPort` from the scheduler alone.
#[test]
fn a_host_port_that_no_node_has_left_is_blocked_and_others_are_tried() {
    needs_cluster!();
    kubectl(&["apply", "-f", MANIFEST]);
    let mut host = Host::with_settings(
        |range| {
            format!(
                "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{range}\" }} }} }}\n\
                 runtimes: {{ kubernetes: {{ expose: host_port }} }}\n"
            )
        },
        6,
    );
    let narrow = format!("narrow-{}", host.port(0));
    let file = narrow_account(&narrow);
    host = host.with_kubeconfig(file.path().to_str().unwrap());
    let pod = foreign_pod(host.port(0));
    host.serve();
    let agent = host.json(&start("dev", &cluster_image(), IDLE))["agent"].clone();
    kubectl(&["delete", "pod", &pod, "--grace-period=1", "--wait=false"]);
    assert_eq!(agent["ports"], json!({ "A": host.port(2), "B": host.port(3) }));
    assert_eq!(claims(&host), 2);
    host.ok(&["delete", "dev", "-t", "0s"]);
    assert_eq!(claims(&host), 0);
    kubectl(&["delete", "rolebinding,serviceaccount", &narrow]);
    // Until it is gone it has a port of a range that is another test's from here on.
    kubectl(&["delete", "pod", &pod, "--ignore-not-found"]);
}

/// A Service that is none of a broker's, with this port of the nodes; its name.
fn foreign_service(port: u16) -> String {
    let (service, port) = (format!("foreign-{port}"), format!("--node-port={port}"));
    kubectl(&["create", "service", "nodeport", &service, "--tcp=80:80", &port]);
    service
}

/// A pod that is none of a broker's, with a `hostPort`; its name, once it runs.
fn foreign_pod(port: u16) -> String {
    let (pod, image) = (format!("foreign-{port}"), cluster_image());
    let overrides = json!({ "spec": { "containers": [{ "name": pod, "image": image,
        "imagePullPolicy": "IfNotPresent", "command": ["sleep", "100000"],
        "ports": [{ "containerPort": 80, "hostPort": port }] }] } });
    let overrides = overrides.to_string();
    kubectl(&["run", &pod, "--image", &image, "--restart=Never", "--overrides", &overrides]);
    kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=300s"]);
    pod
}
