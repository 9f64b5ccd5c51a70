//! Kubernetes, on a real cluster: the four ways to reach ports, and the errors that users meet.

mod ends;
mod forward;
mod kubeconfig;
mod nodes;
mod starts;

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use self::nodes::NodePorts;
use crate::support::*;

macro_rules! needs_cluster {
    () => {
        if !cluster_is_here() {
            eprintln!("no cluster is here: not tested");
            return;
        }
    };
}
pub(crate) use needs_cluster;

/// A broker whose agents are exposed in this way, with further settings of the runtime.
fn host(expose: &str, further: &str, ports: u16) -> Host {
    let mut host = unserved(expose, further, ports);
    host.serve();
    host
}

/// The same before its broker runs.
fn unserved(expose: &str, further: &str, ports: u16) -> Host {
    Host::with_settings(
        |range| {
            format!(
                "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{range}\" }} }} }}\n\
                 runtimes: {{ kubernetes: {{ expose: {expose}{further} }} }}\n"
            )
        },
        ports,
    )
}

fn start<'a>(name: &'a str, image: &'a str, script: &'a str) -> Vec<&'a str> {
    vec!["start", name, "--runtime", "kubernetes", "--image", image, "--", "sh", "-c", script]
}

const WEB: &str = "echo $BERTHOLD_AGENT > /tmp/index.html
    trap 'exit 0' TERM; httpd -f -p $AVAILABLE_LOCALHOST_PORT_A -h /tmp & wait";
/// A server that sends back what it is sent, for many at once.
const ECHO: &str = "trap 'exit 0' TERM; nc -ll -p $AVAILABLE_LOCALHOST_PORT_A -e cat & wait";

/// The rights that a broker needs.
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kubernetes/rbac.yaml");

fn web(host: &Host, name: &str) -> Value {
    let image = cluster_image();
    let mut arguments = start(name, &image, WEB);
    arguments.insert(2, "--wait");
    host.json(&arguments)["agent"].clone()
}

#[test]
fn what_cannot_be_scheduled_says_why_and_is_given_up() {
    needs_cluster!();
    let host = host("forward", ", start_timeout: 15s", 4);
    let image = cluster_image();
    let mut unschedulable = start("big", &image, IDLE);
    unschedulable.splice(2..2, ["-v", "no-such-claim:/data"]);
    let error = host.error(6, &unschedulable);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("no-such-claim") && message.contains("does not run after 15 s"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("start_timeout"), "{error}");
    assert_eq!((host.leased(), host.pods()), (vec![], Vec::<String>::new()));
}

/// It would be tried again for as long as a pod may take, and for ever.
#[test]
fn an_image_that_cannot_be_pulled_is_given_up_at_once() {
    needs_cluster!();
    let host = host("forward", ", start_timeout: 1h", 4);
    let error = host.error(6, &start("gone", "localhost/no-such-image:1", IDLE));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("ImagePullBackOff") && message.contains("no-such-image"), "{error}");
    assert_eq!((host.leased(), host.pods()), (vec![], Vec::<String>::new()));
}

/// P7: everyone who needs a port has waited for it, and nothing is known of what it holds: a person is told.
#[test]
fn a_cluster_that_hangs_and_has_never_told_is_warned_of() {
    // It accepts, and says nothing.
    let hangs = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let kubeconfig = json!({ "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{ "name": "it", "cluster": { "server": format!("http://{}", hangs.local_addr().unwrap()) } }],
        "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "me" } }],
        "users": [{ "name": "me", "user": {} }] });
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), kubeconfig.to_string()).unwrap();
    let mut host = Host::with_pool(4).with_kubeconfig(file.path().to_str().unwrap());
    host.serve();
    host.ok(&["start", "dev", "--runtime", "process", "--", "sleep", "100000"]);
    let told = host.json(&["broker", "status"])["broker"]["warnings"].to_string();
    assert!(
        told.contains("kubernetes does not say which ports it holds") && told.contains("none are known"),
        "{told}"
    );
}

#[test]
fn without_a_kubeconfig_there_is_no_cluster() {
    let mut host = Host::with_pool(4);
    host.serve_with(&[("KUBECONFIG", ""), ("HOME", "/nowhere")]);
    let error = host.error(6, &start("dev", "any", IDLE));
    assert!(error["message"].as_str().unwrap().contains("there is no kubeconfig"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("KUBECONFIG"), "{error}");
    assert_eq!(host.leased(), []);
}

#[test]
fn a_workspace_that_is_not_on_the_node_is_told_as_such() {
    needs_cluster!();
    let mut host = Host::with_settings(
        |range| {
            format!(
                "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{range}\" }} }} }}\n\
                 templates: {{ web: {{ workspace: /no/such/directory }} }}\n"
            )
        },
        4,
    );
    host.serve();
    let image = cluster_image();
    let mut arguments = start("dev", &image, IDLE);
    arguments.splice(2..2, ["--template", "web"]);
    let error = host.error(2, &arguments);
    assert!(error["message"].as_str().unwrap().contains("/no/such/directory"), "{error}");
    assert_eq!((host.leased(), host.pods()), (vec![], Vec::<String>::new()));
}

#[test]
fn without_rights_the_error_names_the_verb_and_the_resource() {
    needs_cluster!();
    let admin = std::env::var("BERTHOLD_KUBECONFIG").unwrap();
    let nobody = admin.replace("admin.kubeconfig", "nobody.kubeconfig");
    if !std::path::Path::new(&nobody).is_file() || nobody == admin {
        assert!(!is_required("kubernetes"), "kubernetes is required: no nobody.kubeconfig is beside {admin}");
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
    let lacks = checked(&host);
    assert_eq!(lacks["state"], "warning", "{lacks}");
    for right in [
        "get, list, watch, create, delete pods in its namespace",
        "create pods/portforward",
        "list nodes in all",
        "get the namespace kube-system",
    ] {
        assert!(lacks["detail"].as_str().unwrap().contains(right), "{lacks}");
    }
    assert!(lacks["hint"].as_str().unwrap().contains("rbac.yaml"), "{lacks}");
}

/// What `doctor` says of the cluster.
fn checked(host: &Host) -> Value {
    let told: Value = serde_json::from_str(&host.run(&["--json", "doctor"]).stdout).unwrap();
    let checks = told["doctor"]["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == "kubernetes").unwrap().clone()
}

#[test]
fn the_manifest_s_rights_suffice_for_all_of_it() {
    needs_cluster!();
    kubectl(&["apply", "-f", MANIFEST]);
    let (file, node_ports) = (kubeconfig_of("berthold"), NodePorts::take());
    let server = server_of(&fs::read_to_string(std::env::var("BERTHOLD_KUBECONFIG").unwrap()).unwrap());
    let version: Value = serde_json::from_str(&kubectl(&["version", "-o", "json"])).unwrap();
    let version = version["serverVersion"]["gitVersion"].as_str().unwrap().trim_start_matches('v').to_owned();
    for expose in ["forward", "host_port", "node_port"] {
        let mut host = Host::with_settings(
            |range| {
                let range = match expose {
                    "node_port" => format!("{}-{}", node_ports.first, node_ports.first + 3),
                    _ => range.to_owned(),
                };
                format!(
                    "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{range}\" }} }} }}\n\
                     runtimes: {{ kubernetes: {{ expose: {expose} }} }}\n"
                )
            },
            4,
        )
        .with_kubeconfig(file.path().to_str().unwrap());
        host.serve();
        let told = checked(&host);
        assert_eq!(told["state"], "ok", "{told}");
        for part in [server.trim_end_matches('/'), &version, "namespace default"] {
            assert!(told["detail"].as_str().unwrap().contains(part), "{part} in {told}");
        }
        let agent = web(&host, "dev");
        assert_eq!(host.ok(&["exec", "dev", "--", "echo", "hi"]), "hi\n");
        host.ok(&["logs", "dev"]);
        let image = cluster_image();
        let mut job = start("job", &image, "read code; exit $code");
        job.insert(2, "-i");
        host.ok(&job);
        let mut attached = host.command().args(["attach", "job"]).stdin(Stdio::piped()).spawn().unwrap();
        attached.stdin.take().unwrap().write_all(b"3\n").unwrap();
        assert_eq!(attached.wait().unwrap().code(), Some(3));
        let port = u16::try_from(agent["ports"]["A"].as_u64().unwrap()).unwrap();
        eventually("it is reached", || fetch(port).is_some_and(|text| text.contains("dev")));
        if expose == "node_port" {
            let service = format!("berthold-{}", agent["lease"].as_str().unwrap().to_ascii_lowercase());
            let owner = [
                "get",
                "service",
                &service,
                "--ignore-not-found",
                "-o",
                "jsonpath={.metadata.ownerReferences[0].name}",
            ];
            assert_eq!(kubectl(&owner), host.container("dev"));
            kubectl(&["delete", "service", &service]);
            eventually_or(
                "its service is there again, and its pod's",
                || kubectl(&owner) == host.container("dev"),
                || host.broker_log(),
            );
            eventually("it is reached again", || fetch(port).is_some_and(|text| text.contains("dev")));
        }
        host.ok(&["delete", "--all", "-t", "0s"]);
        assert_eq!(host.leased(), [], "{expose}");
        assert!(!host.broker_log().contains("forbidden"), "{}", host.broker_log());
    }
}

/// Which cluster it is, most who may use one namespace may not know; all but one thing works for them.
#[test]
fn doctor_names_the_right_to_tell_one_cluster_from_another() {
    needs_cluster!();
    kubectl(&["apply", "-f", MANIFEST]);
    let mut host = Host::with_pool(4);
    let name = format!("unknowing-{}", host.port(0));
    let account = format!("--serviceaccount=default:{name}");
    let role = format!("--clusterrole={name}");
    kubectl(&["create", "serviceaccount", &name]);
    kubectl(&["create", "rolebinding", &name, "--role=berthold", &account]);
    kubectl(&["create", "clusterrole", &name, "--verb=list", "--resource=pods,services,nodes"]);
    kubectl(&["create", "clusterrolebinding", &name, &role, &account]);
    let file = kubeconfig_of(&name);
    host = host.with_kubeconfig(file.path().to_str().unwrap());
    host.serve();
    let told = checked(&host);
    host.ok(&start("dev", &cluster_image(), IDLE));
    host.ok(&["delete", "dev", "-t", "0s"]);
    kubectl(&["delete", "clusterrolebinding,clusterrole", &name]);
    kubectl(&["delete", "rolebinding,serviceaccount", &name]);
    assert_eq!(
        told["detail"].as_str().unwrap().split_once("may not ").unwrap().1,
        "get the namespace kube-system (without it the cluster works, and is not told from another one in its place)",
        "{told}"
    );
    assert!(told["hint"].as_str().unwrap().contains("rbac.yaml"), "{told}");
}

/// The kubeconfig of a service account.
fn kubeconfig_of(account: &str) -> tempfile::NamedTempFile {
    let config = kubectl(&["config", "view", "--raw", "-o", "json"]);
    let mut config: Value = serde_json::from_str(&config).unwrap();
    // A cluster of old makes the secret a little later than the account, a new one makes none.
    let secret = || kubectl(&["get", "serviceaccount", account, "-o", "jsonpath={.secrets[0].name}"]);
    let mut token = String::new();
    eventually("the account has a token", || {
        token = match secret().trim() {
            "" => {
                let asked = kubectl_command().args(["create", "token", account]).output().unwrap();
                String::from_utf8_lossy(&asked.stdout).into_owned()
            }
            name => kubectl(&["get", "secret", name, "-o", "go-template={{.data.token | base64decode}}"]),
        };
        !token.trim().is_empty()
    });
    for user in config["users"].as_array_mut().unwrap() {
        user["user"] = json!({ "token": token.trim() });
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), config.to_string()).unwrap();
    file
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
    // Longer than the age that a lease must have before anything can end it.
    std::thread::sleep(std::time::Duration::from_secs(14));
    host.run(&["reconcile"]);
    assert_eq!((host.leased(), &host.agent("dev")["state"]), (leased.clone(), &json!("running")));
    host.kill_broker();
    fs::write(file.path(), &admin).unwrap();
    host.serve();
    host.ok(&["stop", "dev", "-t", "0s"]);
    assert_eq!(host.leased(), []);
}

/// The address of the API server in a kubeconfig.
fn server_of(kubeconfig: &str) -> String {
    let rest = kubeconfig.split_once("server:").unwrap().1.trim_start().trim_start_matches(['"', '\'']);
    rest.split(|c: char| c.is_whitespace() || "\"',}".contains(c)).next().unwrap().to_owned()
}
