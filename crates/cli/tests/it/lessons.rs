//! What went wrong elsewhere, as far as no other place here is about it; `docs/promises.md` has them all.

use std::net::TcpListener;
use std::process::Stdio;

use serde_json::json;

use crate::support::*;

/// L7, P3: what is said late of a lease that has ended touches nothing of the next one with the same ports.
#[test]
fn a_container_of_the_past_frees_nothing_of_its_successor() {
    needs_docker!();
    let (host, image) = (Host::started(2), image());
    host.ok(&idle_agent("first", &image));
    let before = host.agent("first");
    host.ok(&["stop", "first", "-t", "0s"]);
    host.ok(&idle_agent("second", &image));
    assert_eq!(host.agent("second")["ports"], before["ports"]);
    // The stopped container is all that is left of the first, and it has the same ports in its labels.
    docker(&["rm", "-f", before["id"].as_str().unwrap()]);
    host.ok(&["delete", "first"]);
    assert_eq!(host.leased().len(), 2);
    assert_eq!(host.agent("second")["state"], "running");
}

/// L10, P3: while the old owner takes its time to end, no one gets its ports, though it has closed them already.
#[test]
fn ports_are_not_given_away_while_their_owner_drains() {
    let host = Host::started(2);
    let drained = host.path("drained");
    let script = format!(
        "trap 'until [ -e {} ]; do sleep 0.1; done; exit 0' TERM; sleep 100000 & wait",
        drained.display()
    );
    host.ok(&["start", "old", "--runtime", "process", "--", "sh", "-c", &script]);
    let mut stop = host.command().args(["stop", "old", "-t", "60s"]).stdin(Stdio::null()).spawn().unwrap();
    eventually("it is being stopped", || host.agent("old")["state"] == "stopping");
    assert!(TcpListener::bind(("127.0.0.1", host.port(0))).is_ok(), "no socket has the port");
    let error = host.error(4, &["start", "new", "--runtime", "process", "--", "sleep", "100000"]);
    assert_eq!(error["details"]["available"], 0, "{error}");
    std::fs::write(drained, "").unwrap();
    assert!(stop.wait().unwrap().success());
    host.ok(&["start", "new", "--runtime", "process", "--", "sleep", "100000"]);
}

/// L11: someone restarts the container. It has the same ports afterwards, and the broker knows.
#[test]
fn a_restart_behind_the_brokers_back_keeps_the_ports() {
    needs_docker!();
    let (host, image) = (Host::started(6), image());
    host.ok(&web_agent("dev", &image));
    let before = host.agent("dev");
    docker(&["restart", "-t", "0", &host.container("dev")]);
    eventually("it runs as before", || {
        let now = host.agent("dev");
        now["state"] == "running" && now["ports"] == before["ports"] && host.leased().len() == 2
    });
    eventually("it answers", || fetch(host.port(0)).is_some());
    host.ok(&idle_agent("other", &image));
    assert_eq!(host.agent("other")["ports"], json!({ "A": host.port(2), "B": host.port(3) }));
}

/// L12: agents that have been there and are remembered take nothing away from those that come.
#[test]
fn the_dead_hold_no_ports() {
    let host = Host::started(4);
    for number in 0..12 {
        let name = format!("a{number}");
        host.ok(&["start", &name, "--runtime", "process", "--", "sleep", "100000"]);
        host.ok(&["stop", &name, "-t", "0s"]);
    }
    assert_eq!(host.json(&["ports"])["pool"]["counts"]["leased"], 0);
    host.ok(&["start", "both", "--ports", "4", "--runtime", "process", "--", "sleep", "100000"]);
}

/// L15: what bears another broker's label is not this one's, whatever else its labels claim.
#[test]
fn labels_of_another_broker_free_and_claim_nothing() {
    needs_docker!();
    let (mut host, image) = (Host::started(6), image());
    host.ok(&idle_agent("dev", &image));
    let (lease, leased) = (host.agent("dev")["lease"].as_str().unwrap().to_owned(), host.leased());
    let name = format!("{}-spoof", host.project());
    let labels = [
        "berthold.broker=01AAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        format!("berthold.lease={lease}"),
        format!("berthold.project={}", host.project()),
        "berthold.name=dev".to_owned(),
        format!("berthold.agent={}/dev", host.project()),
        format!("berthold.ports={}", host.port(4)),
    ];
    let labels: Vec<&str> = labels.iter().flat_map(|label| ["--label", label]).collect();
    docker(&[&["run", "-d", "--name", &name], &labels[..], &[&image, "sleep", "100000"]].concat());
    host.stop_broker();
    host.serve();
    docker(&["rm", "-f", &name]);
    // By now the broker has looked at what is there, with the spoof and without it.
    host.stop_broker();
    host.serve();
    assert_eq!((host.leased(), host.agent("dev")["state"].clone()), (leased, json!("running")));
}

/// L9: the kernel takes ports of such a range for outgoing connections, so the broker says it when it starts.
#[test]
#[cfg(target_os = "linux")]
fn a_pool_inside_the_kernels_range_is_warned_of() {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u16 = text.split_whitespace().next().unwrap().parse().unwrap();
    let settings = |_: &str| {
        format!(
            "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{first}-{}\" }} }} }}\n",
            first + 3
        )
    };
    let mut host = Host::with_settings(settings, 1);
    host.serve();
    let warnings = host.json(&["broker", "status"])["broker"]["warnings"].to_string();
    assert!(warnings.contains("ip_local_reserved_ports"), "{warnings}");
}

/// A dry run tells what it would do, and does nothing.
#[test]
fn a_dry_run_shows_what_a_real_one_does() {
    needs_docker!();
    let mut host = Host::looking_every("1h", 6);
    host.serve();
    let image = image();
    host.ok(&idle_agent("kept", &image));
    host.await_listening("docker");
    assert_eq!(host.json(&["reconcile", "-n"])["reconciliation"]["findings"], json!([]));
    // A container that was created for a start that never came to its end.
    let id = std::fs::read_to_string(host.path("broker.id")).unwrap();
    let labels = [
        format!("berthold.broker={}", id.trim()),
        "berthold.lease=01AAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        format!("berthold.agent={}/half", host.project()),
        format!("berthold.project={}", host.project()),
        "berthold.name=half".to_owned(),
        "berthold.ports=".to_owned(),
    ];
    let labels: Vec<&str> = labels.iter().flat_map(|label| ["--label", label]).collect();
    docker(&[&["create", "--name", &host.container("half")], &labels[..], &[&image, "true"]].concat());
    let found = host.json(&["reconcile", "--dry-run"])["reconciliation"].clone();
    assert_eq!(
        (&found["dry_run"], &found["findings"][0]["action"]),
        (&json!(true), &json!("remove")),
        "{found}"
    );
    assert_eq!(host.containers().len(), 2, "nothing was done");
    let done = host.json(&["reconcile"])["reconciliation"].clone();
    assert_eq!((&done["dry_run"], &done["findings"]), (&json!(false), &found["findings"]));
    assert_eq!(host.containers().len(), 1);
    let text = host.run(&["reconcile"]);
    assert!(text.stderr.contains("the ledger and the runtimes agree"), "{text:?}");
}

/// P4: an end is heard of, and not only seen when the broker looks at everything, which it does only once an hour here.
#[test]
fn what_ends_by_itself_is_heard_of() {
    let mut host = Host::looking_every("1h", 8);
    host.serve();
    let image = image();
    let engines = ["docker", "podman"].into_iter().filter(|engine| engine_is_here(engine));
    for runtime in ["process"].into_iter().chain(engines) {
        let mut arguments = vec!["start", runtime, "--runtime", runtime];
        if runtime != "process" {
            arguments.extend(["--image", &image]);
        }
        arguments.extend(["--", "sh", "-c", "sleep 12; exit 4"]);
        host.ok(&arguments);
        eventually_or("its end is known", || host.agent(runtime)["state"] == "exited", || host.broker_log());
        assert_eq!((&host.agent(runtime)["exit_code"], host.leased()), (&json!(4), vec![]));
    }
}

/// P4, L11: what someone else starts again has its lease again at once, and not only when the broker looks at everything, which it does
/// only once an hour here; also if that happened while the engine could not be heard.
#[test]
fn what_others_start_again_is_heard_of() {
    for engine in ["docker", "podman"].into_iter().filter(|engine| engine_is_here(engine)) {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let socket = directory.path().join("engine.sock");
        // Docker is reached through a socket that can be away for a while; Podman's service is the broker's own.
        let elsewhere =
            if engine == "docker" { format!("host: \"unix://{}\"", socket.display()) } else { String::new() };
        let settings = |range: &str| {
            format!(
                "server: {{ broker: {{ listen: none, reconcile_interval: 1h, port_pool: {{ range: \"{range}\" }} }} }}\n\
                 runtimes: {{ {engine}: {{ {elsewhere} }} }}\n"
            )
        };
        let mut host = Host::with_settings(settings, 6);
        let between = Between::open(&socket);
        host.serve();
        let (image, name) = (image(), host.container("dev"));
        let mut arguments = idle_agent("dev", &image);
        arguments[3] = engine;
        host.ok(&arguments);
        let before = host.agent("dev");
        let runs = || {
            let agent = host.agent("dev");
            agent["state"] == "running"
                && (&agent["lease"], &agent["ports"]) == (&before["lease"], &before["ports"])
        };
        // Twice, because the first time may be before the broker has begun to listen.
        for _ in 0..2 {
            host.ok(&["stop", "dev", "-t", "0s"]);
            assert_eq!(host.leased(), []);
            engine_command(engine, &["start", &name]);
            eventually_or("it is known to run", runs, || host.broker_log());
        }
        host.ok(&["stop", "dev", "-t", "0s"]);
        drop(between);
        engine_command(engine, &["start", &name]);
        let _between = Between::open(&socket);
        eventually_or("it is known to run again", runs, || host.broker_log());
    }
}
