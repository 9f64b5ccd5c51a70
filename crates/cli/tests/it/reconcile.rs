//! What the broker takes up by itself, and what it leaves alone.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::*;

/// A home without engines and clusters, so that no look waits for one.
fn alone(interval: &str, ports: u16) -> Host {
    let settings = |range: &str| {
        format!(
            "server: {{ broker: {{ listen: none, reconcile_interval: {interval}, port_pool: {{ range: \"{range}\" }} }} }}\n\
             runtimes: {{ docker: {{ host: \"unix:///nowhere\" }}, podman: {{ host: \"unix:///nowhere\" }} }}\n"
        )
    };
    Host::with_settings(settings, ports).with_kubeconfig("/dev/null")
}

fn idle_process(name: &str) -> Vec<&str> {
    vec!["start", name, "--runtime", "process", "--", "sleep", "100000"]
}

/// Has Docker `create` or `run` something under an agent's name with labels as of [`labels`].
fn docker_labelled(host: &Host, how: &[&str], (name, lease, ports): (&str, &str, &str), command: &[&str]) {
    let (labels, container, image) = (labels(host, name, lease, ports), host.container(name), image());
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    docker(&[how, &["--name", &container], &labels[..], &[&image], command].concat());
}

/// Labels with which an agent of this broker would be found.
fn labels(host: &Host, name: &str, lease: &str, ports: &str) -> Vec<String> {
    let id = fs::read_to_string(host.path("broker.id")).unwrap();
    let labels = [
        format!("berthold.broker={}", id.trim()),
        format!("berthold.lease={lease}"),
        format!("berthold.agent={}/{name}", host.project()),
        format!("berthold.project={}", host.project()),
        format!("berthold.name={name}"),
        format!("berthold.ports={ports}"),
    ];
    labels.into_iter().flat_map(|label| ["--label".to_owned(), label]).collect()
}

fn warnings(host: &Host) -> String {
    host.json(&["broker", "status"])["broker"]["warnings"].to_string()
}

/// What the pool says of a port; null if it is free.
fn shown(host: &Host, port: u16) -> Value {
    let pool = host.json(&["ports"])["pool"].clone();
    let ports = pool["ports"].as_array().unwrap().clone();
    ports.into_iter().find(|it| it["port"] == port).unwrap_or_default()
}

/// L15: `docker commit` copies labels into the image. What someone runs from that is nobody's agent: it is neither removed nor adopted,
/// and what it publishes is held by a stranger.
#[test]
fn a_container_of_an_image_that_has_an_agents_labels_is_a_strangers() {
    needs_docker!();
    let (mut host, image) = (Host::looking_every("300ms", 8), image());
    host.serve();
    host.ok(&idle_agent("dev", &image));
    let copy = format!("localhost/{}-copy:1", host.project());
    docker(&["commit", &host.container("dev"), &copy]);
    let named = |what: &str| format!("{}-{what}", host.project());
    let (runs, made, port) = (named("runs"), named("made"), host.port(5));
    let publish = format!("127.0.0.1:{port}:80");
    docker(&["run", "-d", "--name", &runs, "-p", &publish, &copy, "sleep", "100000"]);
    docker(&["create", "--name", &made, &copy, "true"]);
    let there = || -> BTreeSet<String> { host.containers().into_iter().collect() };
    let all = BTreeSet::from([host.container("dev"), runs.clone(), made.clone()]);
    let agrees = |what: &str| {
        for _ in 0..2 {
            assert_eq!(host.json(&["reconcile"])["reconciliation"]["findings"], json!([]), "{what}");
        }
        assert_eq!(warnings(&host), "[]", "{what}");
        assert_eq!(shown(&host, port)["detail"], format!("the docker container {runs}"), "{what}");
    };
    agrees("the agent runs");
    assert_eq!(there(), all);
    host.ok(&["stop", "dev", "-t", "0s"]);
    agrees("the agent has stopped");
    host.ok(&["delete", "dev"]);
    agrees("the agent is forgotten");
    let is_there = there();
    docker(&["rm", "-f", &runs, &made]);
    docker(&["rmi", "-f", &copy]);
    assert_eq!(is_there, BTreeSet::from([runs, made]));
    assert_eq!(host.leased(), []);
}

/// Also while no agent is there any more: what a runtime has of this broker is found by the timer.
#[test]
fn a_leftover_on_a_runtime_without_agents_is_removed() {
    needs_docker!();
    let (mut host, image) = (Host::looking_every("300ms", 4), image());
    host.serve();
    host.ok(&idle_agent("dev", &image));
    host.await_listening("docker");
    host.ok(&["delete", "dev", "-t", "0s"]);
    docker_labelled(&host, &["create"], ("half", "01AAAAAAAAAAAAAAAAAAAAAAAA", ""), &["true"]);
    eventually_or("it is removed", || host.containers().is_empty(), || host.broker_log());
}

/// What claims the lease of another agent is reported, and the reconciler goes on.
#[test]
fn a_claim_to_the_lease_of_another_agent_is_reported() {
    needs_docker!();
    let (mut host, image) = (Host::looking_every("300ms", 8), image());
    host.serve();
    host.ok(&idle_agent("dev", &image));
    let lease = host.agent("dev")["lease"].as_str().unwrap().to_owned();
    let other = host.container("other");
    // What is seen between its creation and its start is a leftover.
    host.pause_broker();
    docker_labelled(
        &host,
        &["run", "-d"],
        ("other", &lease, &host.port(4).to_string()),
        &["sleep", "100000"],
    );
    host.wake_broker();
    let text = format!("the lease {lease}, which is that of");
    let is_told = || warnings(&host).contains(&text);
    eventually_or("it is told", is_told, || host.broker_log());
    for _ in 0..3 {
        host.ok(&["reconcile"]);
        assert!(is_told(), "as long as it is so: {}", host.broker_log());
    }
    assert_eq!(host.broker_log().matches(&text).count(), 1, "{}", host.broker_log());
    for name in [&other, &host.container("dev")] {
        assert_eq!(docker(&["inspect", "-f", "{{.State.Running}}", name]).trim(), "true", "both go on");
    }
    docker(&["rm", "-f", &other]);
    eventually_or("that is over", || warnings(&host) == "[]", || host.broker_log());
    assert_eq!(host.leased().len(), 2);
    assert!(!host.broker_log().contains("panicked"), "{}", host.broker_log());
}

/// P4: an agent that is to be forgotten is, also if it could not be removed when it ended.
#[test]
fn what_is_to_be_forgotten_is_removed_later_if_not_at_once() {
    let mut host = Host::looking_every("300ms", 4);
    host.serve_with(&[("BERTHOLD_FAULT", "refuse 1 process remove")]);
    host.ok(&["start", "job", "--rm", "--runtime", "process", "--", "sleep", "1"]);
    let is_gone = || host.run(&["show", "job"]).code == 3;
    eventually_or("it is forgotten", is_gone, || host.broker_log());
    let happened = fs::read_to_string(host.path("faults.log")).unwrap();
    assert!(happened.contains("process remove was refused"), "{happened}");
    assert_eq!(host.json(&["list"])["agents"], json!([]));
}

/// L5: "nothing is there" must be seen twice in a row.
#[test]
fn what_is_seen_again_is_not_missing_any_more() {
    // The watcher looks too, a second after it has found nothing.
    let mut host = alone("1h", 4);
    host.serve();
    host.ok(&idle_process("dev"));
    let (agent, here) = (host.agent("dev"), host.path("processes").join(host.container("dev")));
    let elsewhere = host.path("elsewhere");
    let look = || {
        let found = http_post_unix(&host.path("broker.sock"), "/v1/reconcile")["reconciliation"].clone();
        found["findings"][0]["action"].clone()
    };
    std::thread::sleep(Duration::from_millis(10_500));
    for _ in 0..2 {
        fs::rename(&here, &elsewhere).unwrap();
        assert_eq!(look(), "wait", "{}", host.broker_log());
        fs::rename(&elsewhere, &here).unwrap();
        assert_eq!(look(), Value::Null);
        std::thread::sleep(Duration::from_millis(1_100));
    }
    assert_eq!(host.agent("dev"), agent);
}

/// P7, L2: the engine's word counts for a while where a probe would say otherwise at once.
#[test]
fn a_port_that_only_the_engine_sees_taken_stays_blocked_for_a_while() {
    // The refusal counts for a while only.
    let mut host = alone("300ms", 8);
    let refused = host.port(1);
    host.serve_with(&[("BERTHOLD_FAULT", &format!("occupied {refused}"))]);
    host.ok(&idle_process("dev"));
    assert_eq!(host.agent("dev")["ports"], json!({ "A": host.port(0), "B": host.port(2) }));
    for _ in 0..4 {
        let port = shown(&host, refused);
        let detail = port["detail"].as_str().unwrap_or_default();
        assert_eq!(port["state"], "blocked", "{}", host.broker_log());
        assert!(
            detail.contains("only process sees") && detail.contains("tried again after 30 s"),
            "{detail}"
        );
        std::thread::sleep(Duration::from_millis(400));
    }
    host.ok(&idle_process("other"));
    assert_eq!(host.agent("other")["ports"], json!({ "A": host.port(3), "B": host.port(4) }));
    eventually_or("it is tried again", || shown(&host, refused) == Value::Null, || host.broker_log());
}

/// P6: what a failed start could not clean up at once does not change which ports the agent had before.
#[test]
fn a_start_that_is_cleaned_up_late_leaves_the_former_ports() {
    let mut host = Host::looking_every("300ms", 8);
    host.serve();
    host.ok(&idle_process("dev"));
    host.ok(&["stop", "dev", "-t", "0s"]);
    host.stop_broker();
    let _taken = TcpListener::bind(("127.0.0.1", host.port(0))).unwrap();
    // The first removal is that of what ran before.
    host.serve_with(&[("BERTHOLD_FAULT", "refuse 2 process remove")]);
    host.error(1, &["start", "dev", "--runtime", "process", "--", "/no/such/command"]);
    eventually_or("nothing is leased", || host.leased().is_empty(), || host.broker_log());
    let happened = fs::read_to_string(host.path("faults.log")).unwrap();
    assert!(happened.contains("process remove was refused"), "{happened}");
    assert_eq!(host.agent("dev")["former_ports"], json!([host.port(0), host.port(1)]));
}

/// A failure that can be foreseen leaves the agent as it is: it is not stopped first.
#[test]
fn what_cannot_be_started_anew_goes_on() {
    let mut host = Host::with_pool(4);
    host.serve();
    host.ok(&idle_process("dev"));
    let agent = host.agent("dev");
    let mut more = idle_process("dev");
    more.splice(2..2, ["--replace", "--ports", "20"]);
    assert_eq!(host.error(4, &more)["code"], "pool_exhausted");
    assert_eq!(host.agent("dev"), agent);
    host.stop_broker();
    fs::write(host.path("settings.yaml"), "server: { broker: { listen: none } }\n").unwrap();
    host.serve();
    assert_eq!(host.error(4, &["restart", "dev"])["code"], "pool_exhausted");
    assert_eq!((&host.agent("dev")["id"], &host.agent("dev")["state"]), (&agent["id"], &json!("running")));
}

/// An engine that runs nothing, and is another one than Docker is here, for as long as this is there.
struct EmptyEngine(PathBuf);

impl EmptyEngine {
    fn open(path: &Path) -> Self {
        drop(fs::remove_file(path));
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut lines = BufReader::new(stream.unwrap());
                let mut line = String::new();
                // Who only looks whether someone listens sends nothing.
                drop(lines.read_line(&mut line));
                let path = line.split_whitespace().nth(1).unwrap_or_default();
                let (status, body) = match path {
                    _ if path.ends_with("/info") => ("200 OK", r#"{"ID":"another"}"#),
                    _ if path.ends_with("/version") => ("200 OK", r#"{"Version":"1"}"#),
                    _ if path.contains("/containers/json") => ("200 OK", "[]"),
                    _ => ("404 Not Found", r#"{"message":"No such container: x"}"#),
                };
                let length = body.len();
                let headers = format!(
                    "Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close"
                );
                drop(write!(lines.get_mut(), "HTTP/1.1 {status}\r\n{headers}\r\n\r\n{body}"));
            }
        });
        Self(path.to_owned())
    }
}

impl Drop for EmptyEngine {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

/// P3: another engine behind the same name says truthfully that nothing is there, and still the first one runs its agents.
#[test]
fn another_engine_under_the_same_name_gives_nothing_back() {
    needs_docker!();
    let (image, (mut host, socket)) = (image(), Host::with_engine("500ms", 6));
    let own = Between::open(&socket);
    host.serve();
    host.ok(&idle_agent("dev", &image));
    let (agent, leased) = (host.agent("dev"), host.leased());
    drop(own);
    let another = EmptyEngine::open(&socket);
    let is_told = || warnings(&host).contains("docker is another engine now");
    eventually_or("it is told", is_told, || host.broker_log());
    // Longer than the age that a lease must have before anything can end it, and than two looks take.
    std::thread::sleep(Duration::from_secs(13));
    let mut known = host.agent("dev");
    let doubt = std::mem::take(&mut known["doubt"]);
    assert_eq!(doubt, "docker is another engine now than the one that runs it");
    assert_eq!((&known, host.leased()), (&agent, leased.clone()), "{}", host.broker_log());
    for command in [&["stop", "dev"][..], &["delete", "dev"], &["restart", "dev"]] {
        let error = host.error(6, command);
        assert_eq!(error["code"], "runtime_unreachable", "{error}");
        assert!(error["hint"].as_str().unwrap().contains("DOCKER_HOST"), "{error}");
    }
    // Another broker does not know better.
    host.kill_broker();
    host.serve();
    assert_eq!(host.leased(), leased);
    drop(another);
    let own = Between::open(&socket);
    eventually_or("all is as before", || warnings(&host) == "[]", || host.broker_log());
    assert_eq!((host.agent("dev")["lease"].clone(), host.leased()), (agent["lease"].clone(), leased.clone()));
    drop(own);
    let another = EmptyEngine::open(&socket);
    eventually_or(
        "it is told again",
        || host.run(&["stop", "dev"]).stderr.contains("another engine"),
        || host.broker_log(),
    );
    host.ok(&["delete", "dev", "--force"]);
    assert_eq!(host.leased(), [], "who says so knows that the engine is gone");
    drop(another);
    let _own = Between::open(&socket);
    // It was not gone, and what it runs is found by its labels.
    host.ok(&["reconcile"]);
    eventually_or("it is adopted", || host.leased() == leased, || host.broker_log());
}

/// P1: after its ledger is lost, the ports of what runs are leased again before the first request is answered, whatever else there is
/// to be removed: for a number that nothing but a listing shows to be held, no probe would tell.
#[test]
fn what_runs_is_adopted_before_leftovers_are_removed() {
    needs_docker!();
    let (image, (mut host, socket)) = (image(), Host::with_engine("1s", 6));
    let engine = Between::open(&socket);
    host.serve();
    host.ok(&idle_agent("dev", &image));
    let (leased, broker) = (host.leased(), fs::read_to_string(host.path("broker.id")).unwrap());
    host.kill_broker();
    // What starts leave that are cut short. A listing has the newest first.
    for (name, lease) in [("x", "X"), ("y", "Y"), ("z", "Z")] {
        let container = host.container(name);
        let labels = [
            format!("broker={}", broker.trim()),
            format!("agent={}/{name}", host.project()),
            format!("project={}", host.project()),
            format!("name={name}"),
            format!("lease=01M3CM4DSXWMAKC80YFZRB7X5{lease}"),
            format!("ports={}", host.port(4)),
        ]
        .map(|label| format!("--label=berthold.{label}"));
        let mut create = vec!["create", "--name", &container];
        create.extend(labels.iter().map(String::as_str));
        create.extend([image.as_str(), "true"]);
        docker(&create);
    }
    drop(engine);
    let engine = Between::on(&socket, Way::Unheard("DELETE /"));
    fs::remove_file(host.path("ledger.db")).unwrap();
    host.serve();
    assert_eq!(host.leased(), leased);
    assert_eq!(host.containers().len(), 4, "nothing can be removed yet");
    drop(engine);
    let _engine = Between::open(&socket);
    eventually_or("the leftovers are gone", || host.containers().len() == 1, || host.broker_log());
}

/// Who it is need not be known to run something there.
#[test]
fn an_engine_that_does_not_say_who_it_is_runs_agents() {
    needs_docker!();
    let (image, (mut host, socket)) = (image(), Host::with_engine("1h", 6));
    let engine = Between::on(&socket, Way::Unheard("/info HTTP"));
    host.serve();
    host.ok(&idle_agent("dev", &image));
    assert_eq!(host.agent("dev")["state"], "running");
    drop(engine);
    let leased = host.leased();
    assert_eq!(host.error(6, &idle_agent("other", &image))["code"], "runtime_unreachable");
    assert_eq!(host.leased(), leased);
    let _engine = Between::open(&socket);
    host.ok(&["delete", "dev"]);
}

/// P7: an engine that hangs is waited for once, and not by everyone who needs a port, one after the other.
#[test]
fn an_engine_that_hangs_is_waited_for_once() {
    needs_docker!();
    let (host, socket) = Host::with_engine("1h", 20);
    let mut host = host.with_kubeconfig("/dev/null");
    let engine = Between::open(&socket);
    host.serve();
    drop(engine);
    // It accepts, and says nothing.
    let _hangs = UnixListener::bind(&socket).unwrap();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            scope.spawn(|| host.ok(&idle_process(name)));
        }
    });
    host.ok(&idle_process("e"));
    let took = started.elapsed();
    assert!(took < Duration::from_secs(30), "five starts took {took:?}");
    let told = warnings(&host);
    assert!(told.contains("docker does not say which ports it holds") && told.contains("for 30 s"), "{told}");
}

/// P9: whoever makes an agent anew by hand under its labels may publish less than all of its ports, and other labels than its own.
#[test]
fn what_is_made_anew_by_hand_is_shown_as_it_is() {
    needs_docker!();
    let (mut host, image) = (Host::looking_every("300ms", 8), image());
    host.serve();
    host.ok(&idle_agent("dev", &image));
    let (agent, name) = (host.agent("dev"), host.container("dev"));
    let lease = agent["lease"].as_str().unwrap();
    let ports = format!("{}-{}", host.port(0), host.port(1));
    let anew = |host: &Host, ports: &str, published: &[u16]| {
        let labels = labels(host, "dev", lease, ports);
        let publish = published.iter().map(|port| format!("--publish=127.0.0.1:{port}:{port}"));
        let publish: Vec<String> = publish.collect();
        let further = labels.iter().chain(&publish).map(String::as_str);
        let mut command = vec!["run", "-d", "--name", &name];
        command.extend(further);
        command.extend([&image, "sleep", "100000"]);
        docker(&["rm", "-f", &name]);
        docker(&command);
    };
    anew(&host, &ports, &[host.port(1)]);
    let is_told = || warnings(&host).contains(&format!("without its ports {} published", host.port(0)));
    eventually_or("it is told", is_told, || host.broker_log());
    let now = host.agent("dev");
    assert_eq!(
        (&now["lease"], &now["state"], &now["published"]),
        (&agent["lease"], &json!("running"), &Value::Null)
    );
    anew(&host, &ports, &[host.port(0), host.port(1)]);
    eventually_or("all is well", || warnings(&host) == "[]", || host.broker_log());
    assert_eq!(host.agent("dev")["published"], "127.0.0.1");
    host.kill_broker();
    anew(&host, &host.port(4).to_string(), &[host.port(0), host.port(1)]);
    host.serve();
    let is_told = || warnings(&host).contains(&format!("labels that name the ports {}", host.port(4)));
    eventually_or("it is told", is_told, || host.broker_log());
    host.ok(&["delete", "dev", "-t", "0s"]);
    assert_eq!((host.containers(), host.leased()), (vec![], vec![]));
}

/// P5: it may run without a lease, since its ports have become another's; whoever stops it means it all the same.
#[test]
fn a_stop_stops_also_what_someone_started_again_and_has_no_lease() {
    needs_docker!();
    let (mut host, image) = (Host::looking_every("300ms", 2), image());
    host.serve();
    host.ok(&idle_agent("dev", &image));
    host.ok(&["stop", "dev", "-t", "0s"]);
    host.ok(&["lease", "other", "-n", "2"]);
    docker(&["start", &host.container("dev")]);
    let is_told = || warnings(&host).contains("it goes on, but has no lease");
    eventually_or("it is told", is_told, || host.broker_log());
    host.ok(&["stop", "dev", "-t", "0s"]);
    let running = docker(&["ps", "-q", "--filter", &format!("name=^{}$", host.container("dev"))]);
    assert_eq!(running.trim(), "");
    eventually_or("nothing is told", || warnings(&host) == "[]", || host.broker_log());
    host.ok(&["delete", "dev"]);
    host.ok(&["release", "other"]);
}

/// P4: what is adopted runs, whatever became of the start before it. A crash right after its lease is on disk changes nothing of that.
#[test]
fn what_is_adopted_after_a_failed_start_survives_a_crash() {
    needs_docker!();
    let (mut host, image) = (Host::looking_every("300ms", 8), image());
    host.serve();
    let ready = tempfile::tempdir().unwrap();
    let volume = format!("{}:/ready", ready.path().display());
    let script = "test -e /ready/now && exec sleep 100000; exit 3";
    host.error(
        1,
        &["start", "dev", "--ports", "1", "--image", &image, "-v", &volume, "--", "sh", "-c", script],
    );
    assert_eq!(host.agent("dev")["state"], "failed");
    host.kill_broker();
    host.serve_with(&[("BERTHOLD_FAULT", "kill 1")]);
    let ports = format!("{}-{}", host.port(2), host.port(3));
    let name = host.container("dev");
    host.pause_broker();
    docker_labelled(
        &host,
        &["run", "-d"],
        ("dev", "01AAAAAAAAAAAAAAAAAAAAAAAA", &ports),
        &["sleep", "100000"],
    );
    host.wake_broker();
    let id = docker(&["inspect", "-f", "{{.Id}}", &name]);
    eventually("the broker was killed", || host.broker_was_killed());
    host.serve();
    eventually_or("it is adopted", || host.agent("dev")["state"] == "running", || host.broker_log());
    assert_eq!(docker(&["inspect", "-f", "{{.Id}}", &name]), id);
    let leased = host.leased();
    assert_eq!(leased.len(), 2);
    fs::write(ready.path().join("now"), "").unwrap();
    host.ok(&["restart", "dev", "-t", "0s"]);
    assert_eq!(host.leased(), leased, "it keeps what it has, though the failed start asked for less");
    host.ok(&["delete", "dev", "-t", "0s"]);
}

/// P4: what is made anew may be seen before it is started, once the end of what was there is known: it is somebody's, and is left to them.
#[test]
fn what_is_made_anew_after_its_end_may_be_started_later() {
    needs_docker!();
    let (mut host, image) = (Host::looking_every("300ms", 8), image());
    host.serve();
    host.ok(&idle_agent("dev", &image));
    let (agent, name) = (host.agent("dev"), host.container("dev"));
    docker(&["rm", "-f", &name]);
    eventually("its end is known", || host.agent("dev")["state"] == "exited");
    let ports = format!("{}-{}", host.port(0), host.port(1));
    docker_labelled(
        &host,
        &["create"],
        ("dev", agent["lease"].as_str().unwrap(), &ports),
        &["sleep", "100000"],
    );
    for _ in 0..2 {
        // Nothing is found of what the broker is just looking at by itself.
        let is_left = || {
            let found = host.json(&["reconcile"])["reconciliation"]["findings"].clone();
            assert_ne!(found[0]["action"], "remove", "{found}");
            found[0]["action"] == "wait"
        };
        eventually_or("it is left to them", is_left, || host.broker_log());
    }
    docker(&["start", &name]);
    eventually_or("it is adopted", || host.agent("dev")["state"] == "running", || host.broker_log());
    assert_eq!(host.agent("dev")["lease"], agent["lease"]);
    host.ok(&["delete", "dev", "-t", "0s"]);
    assert_eq!((host.containers(), host.leased()), (vec![], vec![]));
}

/// P9: what was to be done and could not be is said, and not that it was done.
#[test]
fn what_could_not_be_done_is_told() {
    needs_docker!();
    let (mut host, image) = (Host::looking_every("1h", 4), image());
    host.serve_with(&[("BERTHOLD_FAULT", "refuse 1 docker remove")]);
    host.ok(&idle_agent("dev", &image));
    host.await_listening("docker");
    docker_labelled(&host, &["create"], ("half", "01AAAAAAAAAAAAAAAAAAAAAAAA", ""), &["true"]);
    let refused = host.run(&["reconcile"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stdout.contains("not done: it is a leftover"), "{refused:?}");
    assert_eq!(host.containers().len(), 2);
    assert_eq!(host.run(&["reconcile"]).code, 0);
    assert_eq!(host.containers(), [host.container("dev")]);
}

/// P7: a handful of sets is tried, and what was tried is told.
#[test]
fn a_start_whose_ports_are_all_refused_gives_up_and_says_which_they_were() {
    let mut host = Host::with_pool(20);
    host.serve_with(&[("BERTHOLD_FAULT", &format!("occupied {} {}", host.port(0), host.port(19)))]);
    let error = host.error(7, &idle_process("dev"));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("8 sets of ports were tried"), "{error}");
    let refused = message.rsplit(": ").next().unwrap();
    let refused: BTreeSet<u16> = refused.split(", ").map(|port| port.parse().unwrap()).collect();
    assert_eq!(refused.len(), 8, "{error}");
    assert!(refused.iter().all(|port| (host.port(0)..=host.port(19)).contains(port)), "{error}");
    assert_eq!(host.leased(), []);
}

/// P6: what someone starts again may be seen before it is known whose it is; it keeps its ports all the same.
#[test]
fn an_agent_that_was_taken_for_a_stranger_keeps_its_ports() {
    needs_docker!();
    // Nothing but Docker is asked, which the second must suffice for.
    let settings = |range: &str| {
        format!(
            "server: {{ broker: {{ listen: none, reconcile_interval: 1h, port_pool: {{ range: \"{range}\" }} }} }}\n\
             runtimes: {{ podman: {{ host: \"unix:///nowhere\" }} }}\n"
        )
    };
    let (mut host, image) = (Host::with_settings(settings, 8).with_kubeconfig("/dev/null"), image());
    host.serve();
    host.ok(&idle_agent("dev", &image));
    host.await_listening("docker");
    let ports = host.agent("dev")["ports"].clone();
    // The broker takes up what was started a second after it has heard of it.
    let is_seen_before = |_| {
        host.ok(&["stop", "dev", "-t", "0s"]);
        docker(&["start", &host.container("dev")]);
        let state = shown(&host, host.port(0))["state"].clone();
        eventually_or("it is adopted", || host.agent("dev")["state"] == "running", || host.broker_log());
        state == "blocked"
    };
    assert!((0..10).any(is_seen_before));
    host.ok(&["restart", "dev", "-t", "0s"]);
    assert_eq!(host.agent("dev")["ports"], ports);
    host.ok(&["delete", "dev", "-t", "0s"]);
}
