//! Agents as plain processes: everywhere, also where there is no engine.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::json;

use crate::support::*;
use crate::typist::Typist;

#[test]
fn a_process_has_its_ports_and_is_reached_on_them() {
    let host = Host::started(10);
    host.ok(&[&process_agent("dev")[..2], &["--wait"], &process_agent("dev")[2..]].concat());
    let body = fetch(host.port(0)).expect("port A answers");
    assert!(body.contains("dev"), "{body}");
    let agent = host.agent("dev");
    assert_eq!((&agent["published"], &agent["state"]), (&json!("host network"), &json!("running")));
    host.ok(&["stop", "dev"]);
    assert_eq!(fetch(host.port(0)), None);
    assert_eq!(host.leased(), []);
}

/// The broker's own variables do not leak into its agents.
#[test]
fn a_process_gets_only_what_is_meant_for_it() {
    let host = Host::with_pool(10);
    // The broker is started by a command whose environment has a PORT.
    let started = host
        .command()
        .args(["list"])
        .env("PORT", "1")
        .env("SECRET", "x")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(started.status.success(), "{started:?}");
    let arguments =
        ["start", "dev", "--runtime", "process", "-e", "MINE=1", "--", "sh", "-c", "env; sleep 100000"];
    host.ok(&arguments);
    eventually("the variables are written", || host.ok(&["logs", "dev"]).contains("MINE=1"));
    let environment = host.ok(&["logs", "dev"]);
    let names: BTreeSet<&str> =
        environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    assert!(
        !names.contains("PORT") && !names.contains("SECRET") && !names.contains("BERTHOLD_HOME"),
        "{environment}"
    );
    assert!(names.contains("AVAILABLE_LOCALHOST_PORT_A") && names.contains("PATH"), "{environment}");
}

/// P1, L1, under load: many starts at once through one broker; no port is given twice, and one agent is started once.
#[test]
fn sixty_starts_at_once_share_no_port() {
    let settings = |range: &str| {
        format!(
            "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{range}\", ports_per_agent: 1 }} }} }}\n"
        )
    };
    let mut host = Host::with_settings(settings, RANGE_SIZE);
    host.serve();
    let start = |name: &str| {
        host.command()
            .args(["--json", "start", name, "--runtime", "process", "--", "sleep", "100000"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let others: Vec<_> = (0..30).map(|number| start(&format!("a{number}"))).collect();
    let same: Vec<_> = (0..30).map(|_| start("same")).collect();
    let agent = |child: std::process::Child| -> serde_json::Value {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["agent"].clone()
    };
    let mut ports = BTreeSet::new();
    for child in others {
        let port = agent(child)["ports"]["A"].as_u64().unwrap();
        assert!(ports.insert(port), "port {port} was given twice");
    }
    let same: BTreeSet<String> = same.into_iter().map(|child| agent(child)["lease"].to_string()).collect();
    assert_eq!(same.len(), 1, "thirty starts of one agent are one start: {same:?}");
    assert_eq!(host.leased().len(), 31);
    host.ok(&["delete", "--all", "-t", "0s"]);
    assert_eq!(host.leased(), []);
}

/// A start whose client goes away in the middle of it comes to its end, one way or the other.
#[test]
fn a_client_that_goes_away_leaves_no_half_started_agent() {
    let host = Host::started(10);
    for number in 0..20 {
        let name = format!("a{number}");
        let mut child = host
            .command()
            .args(process_agent(&name))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(number * 2));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // A request may still be on its way when its client is gone, so what there is may change for a moment.
    let last = RefCell::new(String::new());
    eventually_or(
        "no agent stays in the middle of its start, and only what runs has ports",
        || {
            let agents = host.json(&["list"])["agents"].as_array().unwrap().clone();
            let leased = host.leased();
            let of = |state: &str| -> Vec<&str> {
                let agents = agents.iter().filter(|agent| agent["state"] == state);
                agents.map(|agent| agent["name"].as_str().unwrap()).collect()
            };
            let (running, failed) = (of("running"), of("failed"));
            *last.borrow_mut() = format!("agents {agents:#?}\nleased {leased:?}");
            let has_ports = |name: &&str| {
                leased.iter().filter(|(port, _)| port.split(' ').next() == Some(*name)).count() == 2
            };
            running.len() + failed.len() == agents.len()
                && running.iter().all(has_ports)
                && leased.len() == 2 * running.len()
        },
        || last.borrow().clone(),
    );
}

/// A process starts where its command was typed, or in its workspace.
#[test]
fn a_process_starts_in_the_directory_of_the_caller() {
    let host = Host::started(10);
    let work = host.path("work");
    std::fs::create_dir(&work).unwrap();
    let started = |name: &str, more: &[&str]| {
        let arguments =
            [&["start", name, "--runtime", "process"], more, &["--", "sh", "-c", "pwd; sleep 100000"]]
                .concat();
        let output =
            host.command().args(&arguments).current_dir(&work).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        eventually("it has said where it is", || host.ok(&["logs", name]).ends_with('\n'));
        host.ok(&["logs", name]).trim().to_owned()
    };
    let real = std::fs::canonicalize(&work).unwrap().display().to_string();
    assert_eq!(started("here", &[]), real);
    assert_eq!(started("there", &["-w", "/"]), "/");
}

/// What a process cannot be is refused before it takes the place of what the agent was.
#[test]
fn what_no_process_can_be_leaves_the_agent_as_it_was() {
    let host = Host::started(6);
    host.ok(&process_agent("dev"));
    host.ok(&["stop", "dev"]);
    let stopped = host.agent("dev");
    for (asked, names, hint) in [
        (["--image", "busybox"], "images", "--image"),
        (["-v", "/tmp:/x"], "volumes", "files where they are"),
        (["--network", "none"], "networks of its own (`none`)", "--network"),
        (["--network", "mine"], "networks of its own (`mine`)", "--network"),
        (["-i", "-t"], "terminal or input", "berthold run"),
    ] {
        for name in ["dev", "fresh"] {
            let arguments =
                [&["start", name, "--runtime", "process"], &asked[..], &["--", "sleep", "1"]].concat();
            let error = host.error(2, &arguments);
            assert_eq!(error["code"], "unsupported", "{error}");
            assert!(error["message"].as_str().unwrap().contains(names), "{error}");
            assert!(error["hint"].as_str().unwrap().contains(hint), "{error}");
        }
    }
    assert_eq!(host.agent("dev"), stopped);
    assert_eq!(host.error(3, &["show", "fresh"])["code"], "no_such_agent");
    assert_eq!(host.json(&["start", "dev"])["agent"]["state"], "running");
    assert_eq!(host.json(&["restart", "dev"])["agent"]["command"], stopped["command"]);
    host.ok(&process_agent("fresh"));
}

/// Whoever ends it, the person has the terminal back as it was.
#[test]
fn a_signal_gives_the_terminal_back() {
    let host = Host::started(4);
    host.ok(&process_agent("dev"));
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut typist = Typist::start(
            &host,
            &["exec", "-it", "dev", "--", "sh", "-c", "echo here; sleep 100000"],
            (80, 24),
        );
        typist.sees("here");
        eventually("the terminal is taken", || typist.is_raw());
        typist.signal(signal);
        let ended = typist.ends();
        assert!(!typist.is_raw(), "after {signal:?}");
        assert_eq!(ended, code);
    }
}

/// As with `start` and `run`, and with Docker.
#[test]
fn a_variable_without_a_value_has_that_of_ones_own() {
    let host = Host::started(4);
    host.ok(&process_agent("dev"));
    let exec = |more: &[&str]| {
        let arguments = [&["exec", "dev"], more, &["--", "sh", "-c", "echo $COLOUR"]].concat();
        host.command().args(arguments).env("COLOUR", "red").stdin(Stdio::null()).output().unwrap()
    };
    assert_eq!(exec(&["-e", "COLOUR"]).stdout, b"red\n");
    assert_eq!(exec(&["-e", "COLOUR=blue"]).stdout, b"blue\n");
    let unset = exec(&["-e", "NO_SUCH_VARIABLE"]);
    let said = String::from_utf8_lossy(&unset.stderr);
    assert!(unset.status.code() == Some(2) && said.contains("is not set"), "{said}");
}

/// What keeps a command from running is told apart from how a command ends.
#[test]
fn a_command_that_has_nowhere_to_run_is_one_that_cannot_be_run() {
    let host = Host::started(4);
    host.ok(&process_agent("dev"));
    let error = host.error(126, &["exec", "-w", "/no/such/directory", "dev", "--", "pwd"]);
    assert_eq!(error["code"], "start_failed", "{error}");
    assert!(error["message"].as_str().unwrap().contains("/no/such/directory"), "{error}");
}
