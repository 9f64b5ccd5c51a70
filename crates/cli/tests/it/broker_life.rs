//! The broker goes and comes back; the agents do not notice.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::*;

/// What must be the same before and after.
fn snapshot(host: &Host, names: &[&str]) -> Vec<Value> {
    let fields = ["id", "lease", "ports", "state", "started_at", "published"];
    names
        .iter()
        .map(|name| {
            let agent = host.agent(name);
            fields
                .iter()
                .map(|field| (field.to_string(), agent[*field].clone()))
                .collect::<serde_json::Map<_, _>>()
                .into()
        })
        .collect()
}

fn two_agents(host: &Host) {
    let image = image();
    host.ok(&web_agent("ada", &image));
    host.ok(&process_agent("bert"));
    host.ok(&idle_agent("gone", &image));
    host.ok(&["stop", "gone"]);
}

#[test]
fn after_an_orderly_restart_all_is_as_before() {
    needs_docker!();
    let mut host = Host::started(10);
    two_agents(&host);
    let before = (snapshot(&host, &["ada", "bert", "gone"]), host.leased());
    host.stop_broker();
    assert!(!host.path("broker.sock").exists());
    assert!(fetch(host.port(0)).is_some(), "the agent goes on");
    host.serve();
    assert_eq!((snapshot(&host, &["ada", "bert", "gone"]), host.leased()), before);
    host.ok(&["start", "gone"]);
    assert_eq!(
        host.agent("gone")["ports"],
        json!({ "A": host.port(4), "B": host.port(5) }),
        "it has its former ports"
    );
}

#[test]
fn after_a_crash_all_is_as_before() {
    needs_docker!();
    let mut host = Host::started(10);
    two_agents(&host);
    let before = (snapshot(&host, &["ada", "bert", "gone"]), host.leased());
    host.kill_broker();
    host.serve();
    assert_eq!((snapshot(&host, &["ada", "bert", "gone"]), host.leased()), before);
    // The end of what an earlier broker started is noticed too.
    docker(&["kill", &host.container("ada")]);
    eventually("the kill is noticed", || host.agent("ada")["state"] == "exited");
}

#[test]
fn what_ended_while_no_broker_was_there_is_found_out() {
    needs_docker!();
    let mut host = Host::started(10);
    two_agents(&host);
    host.kill_broker();
    docker(&["rm", "-f", &host.container("ada")]);
    host.serve();
    eventually("the removal is found out", || host.agent("ada")["state"] == "exited");
    assert_eq!(host.leased(), [("bert A".to_owned(), host.port(2)), ("bert B".to_owned(), host.port(3))]);
}

/// P8: the next broker has another range. What runs stays where it is until it is started again.
#[test]
fn a_range_that_moves_leaves_agents_where_they_are() {
    needs_docker!();
    let (mut host, image) = (Host::started(4), image());
    host.ok(&idle_agent("boxed", &image));
    host.ok(&["start", "plain", "--runtime", "process", "--", "sleep", "100000"]);
    let before = (snapshot(&host, &["boxed", "plain"]), host.leased());
    host.stop_broker();
    let path = host.path("settings.yaml");
    let range = |first: u16| format!("{}-{}", host.port(first), host.port(first + 3));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(&range(0), &range(10))).unwrap();
    host.serve();
    assert_eq!((snapshot(&host, &["boxed", "plain"]), host.leased()), before);
    host.ok(&["start", "new", "--runtime", "process", "--", "sleep", "100000"]);
    assert_eq!(host.agent("new")["ports"], serde_json::json!({ "A": host.port(10), "B": host.port(11) }));
    host.ok(&["restart", "boxed", "-t", "0s"]);
    assert_eq!(host.agent("boxed")["ports"], serde_json::json!({ "A": host.port(12), "B": host.port(13) }));
}

/// P8.
#[test]
fn a_lost_ledger_is_rebuilt_from_the_labels_of_what_runs() {
    needs_docker!();
    let mut host = Host::started(10);
    two_agents(&host);
    let before = (snapshot(&host, &["ada", "bert"]), host.leased());
    host.stop_broker();
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        drop(fs::remove_file(host.path(name)));
    }
    host.serve();
    assert_eq!((snapshot(&host, &["ada", "bert"]), host.leased()), before);
    let warnings = host.json(&["broker", "status"])["broker"]["warnings"].to_string();
    assert!(warnings.contains("ledger.db is gone"), "{warnings}");
    let image = image();
    host.ok(&idle_agent("new", &image));
    let new = host.agent("new")["ports"]["A"].as_u64().unwrap();
    assert!(new >= u64::from(host.port(4)), "no port of an adopted agent is given out: {new}");
}

/// P8.
#[test]
fn a_corrupt_ledger_is_kept_and_rebuilt() {
    needs_docker!();
    let mut host = Host::started(10);
    two_agents(&host);
    let before = host.leased();
    host.kill_broker();
    drop(fs::remove_file(host.path("ledger.db-wal")));
    fs::write(host.path("ledger.db"), "no longer a database ".repeat(1000)).unwrap();
    host.serve();
    assert_eq!(host.leased(), before);
    let status = host.json(&["broker", "status"]);
    let warnings = status["broker"]["warnings"].to_string();
    assert!(warnings.contains("the ledger was damaged"), "{warnings}");
    let kept = fs::read_dir(host.path("")).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name().to_string_lossy().into_owned();
        name.starts_with("ledger.db.damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")
    });
    assert_eq!(kept.count(), 1);
}

/// Two homes may have their sockets in one directory, and then one socket: the second must not take it from the first.
#[test]
fn a_second_broker_for_one_socket_says_which_process_has_it() {
    let host = Host::with_pool(4);
    let state = |name: &str| host.path(name).display().to_string();
    let command = |name: &str| {
        let mut command = host.command();
        command.env_remove("BERTHOLD_HOME").env("BERTHOLD_SETTINGS", host.path("settings.yaml"));
        command.env("XDG_RUNTIME_DIR", host.path("run")).env("XDG_STATE_HOME", state(name));
        command
    };
    let mut first = command("one").arg("serve").stderr(Stdio::null()).spawn().unwrap();
    let pid = |name: &str| {
        let output = command(name).args(["broker", "status", "--json"]).output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["broker"]["pid"].as_u64()
    };
    eventually("the first broker answers", || pid("one") == Some(u64::from(first.id())));
    let second = command("two").arg("serve").output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    let still = pid("one");
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(second.status.code(), Some(7), "{said}");
    assert!(said.contains("has this socket already") && said.contains("XDG_RUNTIME_DIR"), "{said}");
    assert_eq!(still, Some(u64::from(first.id())));
}

#[test]
fn a_second_broker_for_one_home_says_which_process_has_it() {
    let host = Host::started(4);
    let done = host.run(&["serve"]);
    assert_eq!(done.code, 7, "{done:?}");
    let pid = host.json(&["broker", "status"])["broker"]["pid"].clone();
    assert!(done.stderr.contains(&format!("process {pid}")), "{}", done.stderr);
}

#[test]
fn a_command_starts_the_broker_where_none_answers() {
    let host = Host::with_pool(4);
    let done = host.run(&["list"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stderr.contains("started a broker in the background"), "{}", done.stderr);
    let pid = host.json(&["broker", "status"])["broker"]["pid"].clone();
    assert!(done.stderr.contains(&pid.to_string()), "{}", done.stderr);
    host.ok(&["broker", "stop"]);
    let done = host.run(&["broker", "status"]);
    assert_eq!(done.code, 5, "{done:?}");
    host.ok(&["broker", "stop"]);
}

/// Settings that are typed are those of the broker that a command starts; later commands are told only where they mean others.
#[test]
fn only_other_settings_than_the_brokers_own_are_warned_of() {
    let host = Host::with_pool(4);
    let pool = format!("{}-{}", host.port(0), host.port(3));
    for name in ["alt.yaml", "other.yaml"] {
        let text = format!("server: {{ broker: {{ listen: none, port_pool: {{ range: \"{pool}\" }} }} }}\n");
        fs::write(host.path(name), text).unwrap();
    }
    let below = host.path("below");
    fs::create_dir(&below).unwrap();
    let list = |settings: &str, directory: &Path| {
        let mut command = host.command();
        command.args(["list"]).env("BERTHOLD_SETTINGS", settings).current_dir(directory);
        String::from_utf8(command.stdin(Stdio::null()).output().unwrap().stderr).unwrap()
    };
    let started = list("../alt.yaml", &below);
    assert!(started.contains("started a broker"), "{started}");
    for (settings, directory) in [("../alt.yaml", &below), ("alt.yaml", &host.path("."))] {
        let said = list(settings, directory);
        assert!(!said.contains("not looked at"), "{said}");
    }
    let said = list("other.yaml", &host.path("."));
    assert!(said.contains("other.yaml is not looked at"), "{said}");
    let checks = host.json(&["doctor"])["doctor"]["checks"].clone();
    let other =
        checks.as_array().unwrap().iter().find(|it| it["name"] == "settings" && it["state"] == "warning");
    assert!(other.unwrap()["detail"].as_str().unwrap().contains("alt.yaml"), "{checks}");
    host.ok(&["broker", "stop"]);
    host.ok(&["list"]);
    let checks = host.json(&["doctor"])["doctor"]["checks"].to_string();
    assert!(!checks.contains("has read others"), "{checks}");
}

/// Who follows a log is told that it was not the agent that ended.
#[test]
fn a_log_that_is_followed_breaks_off_with_the_broker() {
    let mut host = Host::started(4);
    host.ok(&["start", "dev", "--runtime", "process", "--", "sh", "-c", "echo here; sleep 100000"]);
    let pipe = Stdio::piped;
    let mut command = host.command();
    let mut child = command.args(["logs", "-f", "dev"]).stdout(pipe()).stderr(pipe()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "here");
    host.stop_broker();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("error: "), "{said}");
    host.serve();
    // Its own end is one.
    let child = host.command().args(["logs", "-f", "dev"]).stdout(pipe()).spawn().unwrap();
    host.ok(&["stop", "dev", "-t", "0s"]);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn wrong_settings_keep_the_broker_from_starting() {
    let host =
        Host::with_settings(|_| "server: { broker: { port_pool: { rnge: 8000-9000 } } }\n".to_owned(), 1);
    let done = host.run(&["list"]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.stderr.contains("settings.yaml:1:") && done.stderr.contains("range"), "{}", done.stderr);
    let done = host.run(&["serve"]);
    assert_eq!(done.code, 2, "{done:?}");
}

#[test]
fn without_a_pool_agents_start_without_ports_and_variables() {
    let mut host = Host::with_settings(|_| "server: { broker: { listen: none } }\n".to_owned(), 1);
    host.serve();
    let script = "env | grep -c AVAILABLE_LOCALHOST; sleep 100000";
    host.ok(&["start", "dev", "--runtime", "process", "--", "sh", "-c", script]);
    let agent = host.agent("dev");
    assert_eq!((&agent["ports"], &agent["urls"]), (&json!({}), &json!({})));
    eventually("the count is written", || host.ok(&["logs", "dev"]) == "0\n");
    assert_eq!(host.json(&["ports"])["pool"]["enabled"], false);
    let error = host.error(2, &["start", "more", "--ports", "2", "--runtime", "process", "--", "true"]);
    assert!(error["message"].as_str().unwrap().contains("no port pool"), "{error}");
}

/// P3, P4 and P6: the broker is killed in the middle of a restart, at each step that the engine tells of. The next one knows
/// what is there, and the agent comes back at once, with its ports.
#[test]
fn crashes_in_the_middle_of_a_restart_lose_nothing() {
    needs_docker!();
    let (mut host, image) = (Host::started(6), image());
    host.ok(&idle_agent("dev", &image));
    let (ports, name) = (host.agent("dev")["ports"].clone(), host.container("dev"));
    for step in ["kill", "die", "destroy", "create", "start"] {
        let (container, event) = (format!("container={name}"), format!("event={step}"));
        // From now on, though the command subscribes a little later.
        let now = jiff::Timestamp::now().to_string();
        let mut events = Command::new("docker")
            .args(["events", "--since", &now, "--filter", &container, "--filter", &event])
            .args(["--format", "{{.Action}}"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut restart = host.command().args(["restart", "dev", "-t", "0s"]).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(events.stdout.take().unwrap()).read_line(&mut line).unwrap();
        host.kill_broker();
        events.kill().unwrap();
        events.wait().unwrap();
        restart.wait().unwrap();
        assert_eq!(line.trim(), step);
        host.serve();
        host.ok(&["start", "dev"]);
        assert_eq!(host.agent("dev")["ports"], ports, "{step}: {}", host.broker_log());
        assert_eq!((host.leased().len(), host.containers().len()), (2, 1), "{step}");
    }
}
