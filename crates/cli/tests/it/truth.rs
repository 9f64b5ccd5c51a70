//! What the broker knows of ports that it has not handed out: who holds them, told without anyone having to run into them.

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::*;

/// What `ports` shows of a port; null if it is free.
fn shown(host: &Host, port: u16) -> Value {
    let pool = host.json(&["ports"])["pool"].clone();
    let ports = pool["ports"].as_array().unwrap().clone();
    ports.into_iter().find(|it| it["port"] == port).unwrap_or_default()
}

/// P7: by name and pid, for as long as it listens, and not as long as it takes until someone starts an agent.
#[test]
fn a_listener_is_shown_with_its_process() {
    let host = Host::started(10);
    for address in ["127.0.0.1", "0.0.0.0", "[::1]"] {
        let Ok(listener) = TcpListener::bind(format!("{address}:{}", host.port(3))) else { continue };
        let port = shown(&host, host.port(3));
        let detail = port["detail"].as_str().unwrap_or_default();
        assert_eq!(port["state"], "blocked", "{address}: {}", host.broker_log());
        if cfg!(target_os = "linux") {
            assert!(detail.ends_with(&format!("(pid {})", std::process::id())), "{address}: {detail}");
        }
        drop(listener);
        assert_eq!(shown(&host, host.port(3)), Value::Null, "{address}: {}", host.broker_log());
    }
    let told = host.broker_log().matches("a port of the pool is held by someone else").count();
    assert!((2..=3).contains(&told), "each change is logged once: {}", host.broker_log());
}

/// Whoever follows the events sees it as soon as the broker does, and need not ask.
#[test]
fn that_someone_takes_a_port_or_lets_go_of_it_is_an_event() {
    let settings = |range: &str| {
        format!(
            "server: {{ broker: {{ listen: none, reconcile_interval: 200ms, port_pool: {{ range: \"{range}\" }} }} }}\n"
        )
    };
    let mut host = Host::with_settings(settings, 4);
    host.serve();
    let mut events = Events::of(&host);
    let listener = TcpListener::bind(("127.0.0.1", host.port(2))).unwrap();
    let told = json!({ "event": "pool", "lease": null, "ports": [host.port(2)] });
    events.until(|event| *event == told);
    drop(listener);
    events.until(|event| *event == told);
}

/// So it is with an engine, of which the broker hears without a look at it: there is none in an hour here.
#[test]
fn that_an_engine_goes_away_or_comes_back_is_an_event() {
    needs_docker!();
    let (image, (mut host, socket)) = (image(), Host::with_engine("1h", 4));
    let between = Between::open(&socket);
    host.serve();
    host.ok(&idle_agent("dev", &image));
    let is_told =
        || host.json(&["broker", "status"])["broker"]["warnings"].to_string().contains("does not answer");
    let mut events = Events::of(&host);
    drop(between);
    events.until(|event| event["event"] == "broker" && is_told());
    let _between = Between::open(&socket);
    events.until(|event| event["event"] == "broker" && !is_told());
}

/// P7, L9: a connection has the port from which it goes out for itself, and no process listens there.
#[test]
#[cfg(target_os = "linux")]
fn an_outgoing_connection_is_shown_with_its_other_end() {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

    // Before there is a broker: its guards would keep the connection from the pool.
    let mut host = Host::with_pool(10);
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    // The test before may have left connections in the range that wait for their time to pass.
    sockopt::set_socket_reuseaddr(&near, true).unwrap();
    let address = |port: &u16| std::net::SocketAddr::from(([127, 0, 0, 1], *port));
    let port = (0..10).map(|n| host.port(n)).find(|port| bind(&near, &address(port)).is_ok()).unwrap();
    // As the kernel's own choice: a port that was bound for reuse, others can listen on.
    sockopt::set_socket_reuseaddr(&near, false).unwrap();
    connect(&near, &far.local_addr().unwrap()).unwrap();
    let _client = TcpStream::from(near);
    host.serve();
    let detail = shown(&host, port)["detail"].clone();
    let expected = format!("(pid {}) to {}", std::process::id(), far.local_addr().unwrap());
    assert!(detail.as_str().unwrap().ends_with(&expected), "{detail}");
    host.ok(&["start", "dev", "--ports", "9", "--runtime", "process", "--", "sleep", "100000"]);
    let ports = host.agent("dev")["ports"].clone();
    assert!(ports.as_object().unwrap().values().all(|it| *it != port), "{ports}");
}

/// P7: what an engine publishes by packet rules alone has no socket, so the engine is asked.
#[test]
#[cfg(target_os = "linux")]
fn a_foreign_container_is_shown_by_name_also_without_a_socket() {
    needs_docker!();
    let (host, image) = (Host::started(10), image());
    let (foreign, port) = (format!("{}-foreign", host.project()), host.port(2));
    let publish = format!("127.0.0.1:{port}:80");
    docker(&["run", "-d", "--rm", "--name", &foreign, "-p", &publish, &image, "sleep", "100000"]);
    let expected = format!("the docker container {foreign}");
    assert_eq!(shown(&host, port)["detail"], expected);
    // The engine's proxy is what has the socket; the rules stay without it.
    for pid in proxies(port) {
        assert!(Command::new("kill").arg(pid.to_string()).status().unwrap().success());
    }
    eventually("the socket is gone", || TcpListener::bind(("127.0.0.1", port)).is_ok());
    assert_eq!(shown(&host, port)["detail"], expected, "{}", host.broker_log());
    docker(&["rm", "-f", &foreign]);
    assert_eq!(shown(&host, port), Value::Null);
}

/// P7: the same of Podman, while its service runs.
#[test]
fn a_foreign_podman_container_is_shown_by_name() {
    needs_podman!();
    let (host, image) = (Host::started(10), image());
    let (foreign, port) = (format!("{}-foreign", host.project()), host.port(2));
    let publish = format!("127.0.0.1:{port}:80");
    engine_command("podman", &["run", "-d", "--name", &foreign, "-p", &publish, &image, "sleep", "100000"]);
    let detail = shown(&host, port)["detail"].clone();
    engine_command("podman", &["rm", "-f", "-t", "0", &foreign]);
    assert_eq!(detail, format!("the podman container {foreign}"), "{}", host.broker_log());
}

/// The processes with which Docker holds a published port.
#[cfg(target_os = "linux")]
fn proxies(port: u16) -> Vec<u32> {
    let is_it = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let port = port.to_string();
        arguments[0].ends_with(b"docker-proxy")
            && arguments.windows(2).any(|it| it[0] == b"-host-port" && it[1] == port.as_bytes())
    };
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(is_it).collect()
}

/// L9: the pool lies wholly inside the kernel's ephemeral range, and still no outgoing connection and no server that asks for any
/// port takes one of it while it is idle. In a network of its own, where that range is small.
#[test]
#[cfg(target_os = "linux")]
fn idle_ports_do_not_vanish_under_outgoing_connections() {
    const INSIDE: &str = "BERTHOLD_TEST_IN_A_NETWORK_OF_ITS_OWN";
    if std::env::var_os(INSIDE).is_none() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root, so there can be no network of its own: not tested");
            return;
        }
        let myself = std::env::current_exe().unwrap();
        let name = "truth::idle_ports_do_not_vanish_under_outgoing_connections";
        let output = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" --exact \"$1\" --nocapture"])
            .args([myself.as_os_str(), name.as_ref()])
            .env(INSIDE, "1")
            .env_remove("BERTHOLD_KUBECONFIG")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    for (guards, is_taken) in [(true, false), (false, true)] {
        let settings = |range: &str| {
            format!(
                "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{range}\", guards: {guards} }} }} }}"
            )
        };
        let mut host = Host::with_settings(settings, 40);
        let ephemeral = format!("{} {}", host.port(0), host.port(49));
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", ephemeral).unwrap();
        host.serve();
        let server = TcpListener::bind(("127.0.0.1", 1)).unwrap();
        // The ten ports of the range that the pool does not have.
        let connections: Vec<TcpStream> =
            (0..12).map_while(|_| TcpStream::connect(server.local_addr().unwrap()).ok()).collect();
        let any: Vec<TcpListener> = (0..12).map_while(|_| TcpListener::bind("0.0.0.0:0").ok()).collect();
        let sources =
            connections.iter().map(|it| it.local_addr()).chain(any.iter().map(TcpListener::local_addr));
        let pool = host.port(0)..host.port(40);
        let taken: Vec<u16> =
            sources.map(|it| it.unwrap().port()).filter(|port| pool.contains(port)).collect();
        assert_eq!(
            !taken.is_empty(),
            is_taken,
            "guards: {guards}, ports of the pool that were taken: {taken:?}"
        );
        assert!(!connections.is_empty());
    }
}

/// Where more files may not be opened, what can be guarded is, and the rest is said.
#[test]
fn where_not_all_ports_can_be_guarded_it_is_said() {
    for (hard, is_told) in [("4096", false), ("1040", true)] {
        let mut host = Host::with_pool(40);
        let limited = format!("ulimit -Sn 1030 && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
        let mut command = host.command_of("sh");
        command.args(["-c", &limited, BERTHOLD]);
        host.serve_by(command);
        let warnings = host.json(&["broker", "status"])["broker"]["warnings"].to_string();
        assert_eq!(warnings.contains("of the 40 ports in the pool"), is_told, "{hard}: {warnings}");
        host.ok(&["start", "dev", "--runtime", "process", "--", "sleep", "100000"]);
    }
}

/// The broker raises its own limit of open files to guard ports, and its agents do not inherit that.
#[test]
fn an_agent_has_the_limits_with_which_the_broker_was_started() {
    let host = Host::with_pool(40);
    let limited = "ulimit -Sn 1030; exec \"$0\" list";
    let mut command = Command::new("sh");
    for (name, value) in host.command().get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    assert!(command.args(["-c", limited, BERTHOLD]).status().unwrap().success());
    host.ok(&["start", "dev", "--runtime", "process", "--", "sh", "-c", "ulimit -Sn; sleep 100000"]);
    eventually("it has said its limit", || host.ok(&["logs", "dev"]) == "1030\n");
}

/// P3, L6: an engine that is out of reach for longer than any grace time frees nothing, and the broker says so. When it is back, all
/// is as it was.
#[test]
fn while_the_engine_is_out_of_reach_nothing_is_given_back() {
    needs_docker!();
    let image = image();
    let (mut host, socket) = Host::with_engine("500ms", 6);
    let between = Between::open(&socket);
    host.serve();
    host.ok(&idle_agent("dev", &image));
    let (agent, leased) = (host.agent("dev"), host.leased());
    drop(between);
    let warned =
        || host.json(&["broker", "status"])["broker"]["warnings"].to_string().contains("does not answer");
    eventually("the broker says so", warned);
    let listed = host.run(&["list"]);
    assert!(listed.stdout.contains("running?"), "{listed:?}");
    assert!(listed.stderr.contains("docker does not answer"), "{listed:?}");
    let doubt = host.agent("dev")["doubt"].clone();
    assert!(doubt.as_str().unwrap().contains("does not answer"), "{doubt}");
    // Longer than the age that a lease must have before anything can end it, and than two looks take.
    std::thread::sleep(std::time::Duration::from_secs(14));
    let mut known = host.agent("dev");
    // How it does not answer may be told otherwise by now.
    let doubt = std::mem::take(&mut known["doubt"]);
    assert!(doubt.as_str().unwrap().contains("does not answer"), "{doubt}");
    assert_eq!((&known, host.leased()), (&agent, leased.clone()), "{}", host.broker_log());
    let error = host.error(6, &["stop", "dev"]);
    assert_eq!(error["code"], "runtime_unreachable", "{error}");
    for arguments in [["delete", "dev"], ["delete", "--all"]] {
        let error = host.error(6, &arguments);
        assert!(error["hint"].as_str().unwrap().contains("`berthold delete "), "{error}");
        assert!(error["hint"].as_str().unwrap().contains("--force"), "{error}");
    }
    assert_eq!(host.leased(), leased);
    host.ok(&["start", "other", "--runtime", "process", "--", "sleep", "100000"]);
    assert_eq!(host.agent("other")["ports"]["A"], host.port(2), "not one of those of dev");
    let _between = Between::open(&socket);
    eventually("it runs as before", || host.agent("dev")["state"] == "running" && !warned());
    assert_eq!(host.agent("dev")["lease"], agent["lease"]);
    host.ok(&["stop", "dev", "-t", "0s"]);
    assert_eq!(host.leased().len(), 2);
}

/// P3, L6: what breaks off in its midst is no listing, and one agent that is not in it is not gone.
#[test]
fn an_answer_that_breaks_off_changes_nothing() {
    needs_docker!();
    let (image, (mut host, socket)) = (image(), Host::with_engine("500ms", 6));
    let between = Between::open(&socket);
    host.serve();
    host.ok(&idle_agent("dev", &image));
    host.ok(&idle_agent("gone", &image));
    let states =
        || ["dev", "gone"].map(|name| (host.agent(name)["state"].clone(), host.agent(name)["lease"].clone()));
    let (before, leased) = (states(), host.leased());
    drop(between);
    let between = Between::on(&socket, Way::CutOff("/containers/"));
    // It is said of the listing, and there are no others to be had.
    docker(&["rm", "-f", &host.container("gone")]);
    let warned =
        || host.json(&["broker", "status"])["broker"]["warnings"].to_string().contains("does not answer");
    eventually("the broker says so", warned);
    std::thread::sleep(std::time::Duration::from_secs(14));
    assert_eq!((states(), host.leased()), (before, leased), "{}", host.broker_log());
    drop(between);
    let _between = Between::open(&socket);
    eventually("what is gone is known as gone", || host.agent("gone")["state"] == "exited" && !warned());
    assert_eq!(host.agent("dev")["state"], "running");
    assert_eq!(host.leased().len(), 2);
}

/// P2: what cannot be written down is not done, and said; the broker lives, though its log is on that disk too.
#[test]
fn a_full_disk_is_told_as_such() {
    let mut host = Host::with_pool(6);
    host.use_small_disk();
    if !host.has_small_disk() {
        assert!(!is_required("disk"), "no disk could be made");
        eprintln!("no disk can be made that can be filled: not tested");
        return;
    }
    host.serve();
    host.ok(&process_agent("dev"));
    let leased = host.leased();
    let filler = host.path("filler");
    drop(std::fs::write(&filler, vec![0_u8; SMALL_DISK]));
    // A page that has room left may take the first.
    let refused = (0..50).find_map(|_| {
        let done = host.run(&["--json", "lease", "other", "-n", "1"]);
        host.run(&["release", "other"]);
        (done.code != 0).then_some(done)
    });
    let told: Value = serde_json::from_str(&refused.expect("the ledger has no room").stdout).unwrap();
    assert!(told["error"]["hint"].as_str().unwrap().contains("the disk is full"), "{told}");
    assert_eq!(host.leased(), leased, "{}", host.broker_log());
    assert_eq!(host.agent("dev")["state"], "running");
    std::fs::remove_file(&filler).unwrap();
    host.ok(&process_agent("other"));
    assert_eq!(host.leased().len(), 4);
}

/// P9, L13: an engine may say that it runs although nothing was published. That is a failed start, of which nothing is left.
#[test]
fn what_runs_without_its_ports_has_not_started() {
    needs_docker!();
    let image = image();
    let mut host = Host::with_pool(6);
    host.serve_with(&[("BERTHOLD_FAULT", "unpublish")]);
    let error = host.error(1, &idle_agent("dev", &image));
    let expected = format!("has not published port {}", host.port(0));
    assert!(error["message"].as_str().unwrap().contains(&expected), "{error}");
    assert_eq!((host.leased(), host.containers()), (vec![], Vec::<String>::new()));
}

/// P7: before ports are said to be too few, those that others held are looked at anew, however long the reconciler takes.
#[test]
fn what_others_have_let_go_of_is_given_out() {
    let mut host = Host::looking_every("1h", 3);
    host.serve();
    host.ok(&["start", "dev", "--ports", "1", "--runtime", "process", "--", "sleep", "100000"]);
    let refused_while_held = |arguments: &[&str]| {
        let _held = [1, 2].map(|n| TcpListener::bind(("127.0.0.1", host.port(n))).unwrap());
        let error = host.error(4, arguments);
        assert!(error["message"].as_str().unwrap().contains("2 are held by others"), "{error}");
    };
    let lease = ["lease", "db", "-n", "2"];
    refused_while_held(&lease);
    host.ok(&lease);
    host.ok(&["release", "db"]);
    refused_while_held(&lease);
    host.ok(&["start", "dev", "--ports", "2", "--replace"]);
    assert_eq!(host.leased().len(), 2);
}

/// A port cools down for its time, whichever broker lives meanwhile and though its agent is forgotten.
#[test]
fn a_port_cools_down_over_a_restart_of_the_broker() {
    let mut host = Host::with_settings(
        |range| {
            format!(
                "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{range}\", cool_down: 1h }} }} }}\n"
            )
        },
        3,
    );
    host.serve();
    let start = |host: &Host, name: &str| {
        host.ok(&["start", name, "--ports", "1", "--runtime", "process", "--", "sleep", "100000"]);
        host.agent(name)["ports"]["A"].clone()
    };
    let released = start(&host, "dev");
    host.ok(&["delete", "dev", "-t", "0s"]);
    host.stop_broker();
    host.serve();
    let cooling = host.json(&["ports"])["pool"]["ports"][0].clone();
    assert_eq!((&cooling["port"], &cooling["state"]), (&released, &json!("cooling")), "{cooling}");
    assert_ne!(start(&host, "next"), released);
    assert_ne!(start(&host, "last"), released);
    assert_eq!(start(&host, "other"), released, "nothing else is left");
}
