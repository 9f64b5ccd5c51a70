//! Apple's `container`, by a command that stands in for it: what it is called with, and what becomes of its refusals.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::support::*;

fn host() -> Host {
    let mut host = Host::with_pool(4).with_fake_container();
    host.serve();
    host
}

fn idle<'a>(name: &'a str, image: &'a str) -> Vec<&'a str> {
    vec!["start", name, "--runtime", "container", "--image", image, "--", "sh", "-c", IDLE]
}

#[test]
fn the_command_lines_byte_for_byte() {
    needs_docker!();
    let (host, image) = (host(), image());
    let mut start = idle("dev", &image);
    start.splice(2..2, ["-e", "GREETING=good day", "-v", "/tmp:/work/tmp:ro"]);
    host.ok(&start);
    let agent = host.agent("dev");
    host.ok(&["stop", "dev", "-t", "3s"]);
    host.ok(&["delete", "dev"]);
    let (name, a, b) = (host.container("dev"), host.port(0), host.port(1));
    let (project, lease) = (host.project(), agent["lease"].as_str().unwrap());
    let broker = fs::read_to_string(host.path("broker.id")).unwrap();
    let expected = [
        format!(
            "[create][--name][{name}][--env][AVAILABLE_LOCALHOST_PORT_A={a}][--env][AVAILABLE_LOCALHOST_PORT_B={b}]\
             [--env][BERTHOLD_AGENT={project}/dev][--env][GREETING=good day]\
             [--label][berthold.agent={project}/dev][--label][berthold.broker={}][--label][berthold.lease={lease}]\
             [--label][berthold.name=dev][--label][berthold.ports={a}-{b}][--label][berthold.project={project}]\
             [--volume][/tmp:/work/tmp:ro][--publish][127.0.0.1:{a}:{a}/tcp][--publish][127.0.0.1:{b}:{b}/tcp]\
             [{image}][sh][-c][{IDLE}]",
            broker.trim()
        ),
        format!("[start][{name}]"),
        format!("[stop][--time][3][{name}]"),
        format!("[delete][--force][{name}]"),
    ];
    let calls = fs::read_to_string(host.path("container.calls")).unwrap();
    let questions = [
        "[--version]".to_owned(),
        "[system][status]".to_owned(),
        format!("[image][inspect][{image}]"),
        "[list][--all][--format][json]".to_owned(),
    ];
    let (asked, done): (Vec<&str>, Vec<&str>) =
        calls.lines().partition(|line| questions.iter().any(|question| question == line));
    assert_eq!(done, expected);
    let asked: BTreeSet<&str> = asked.into_iter().collect();
    assert_eq!(asked, questions.iter().map(String::as_str).collect(), "each is asked some time");
}

/// P3: while its service does not run, nothing is known and nothing given back.
#[test]
fn a_service_that_does_not_run_changes_nothing() {
    needs_docker!();
    let (mut host, image) = (host(), image());
    fs::write(host.path("container.is-down"), "").unwrap();
    assert_eq!(host.error(6, &idle("dev", &image))["code"], "runtime_unreachable");
    assert_eq!(host.leased(), [], "nothing was asked to be run");
    fs::remove_file(host.path("container.is-down")).unwrap();
    host.ok(&idle("dev", &image));
    fs::write(host.path("container.is-down"), "").unwrap();
    let error = host.error(6, &idle("other", &image));
    assert_eq!(error["code"], "runtime_unreachable");
    assert!(error["hint"].as_str().unwrap().contains("container system start"), "{error}");
    host.error(6, &["stop", "dev"]);
    // What the failed start took stays leased too: no one can tell whether it left something.
    let dev = [("dev A".to_owned(), host.port(0)), ("dev B".to_owned(), host.port(1))];
    let leased = host.leased();
    assert_eq!((&leased[..2], leased.len()), (&dev[..], 4));
    host.kill_broker();
    host.serve();
    assert_eq!(host.leased(), leased);
    fs::remove_file(host.path("container.is-down")).unwrap();
    eventually("it is stopped once the service is back", || host.run(&["stop", "dev"]).code == 0);
    eventually("nothing is held any more", || host.leased().is_empty());
}

/// P3: a stop that takes its time is waited for, and so are the ports.
#[test]
fn a_slow_stop_keeps_the_ports_until_it_is_done() {
    needs_docker!();
    let (host, image) = (host(), image());
    host.ok(&idle("dev", &image));
    let leased = host.leased();
    fs::write(host.path("container.is-slow"), "").unwrap();
    let mut stop = host.command().args(["stop", "dev", "-t", "1s"]).spawn().unwrap();
    eventually("it is being stopped", || host.agent("dev")["state"] == "stopping");
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(stop.try_wait().unwrap().is_none(), "the command waits for the end");
    assert_eq!(host.leased(), leased);
    fs::remove_file(host.path("container.is-slow")).unwrap();
    assert!(stop.wait().unwrap().success());
    assert_eq!((host.agent("dev")["state"].as_str(), host.leased()), (Some("stopped"), vec![]));
}

/// A broker that has come anew, and finds `dev`, which was to be forgotten with its end, ended and slow to go.
fn with_a_slow_leftover() -> Host {
    let (mut host, image) = (host(), image());
    let mut start = idle("dev", &image);
    start.insert(2, "--rm");
    host.ok(&start);
    host.kill_broker();
    docker(&["kill", &format!("apple-{}", host.container("dev"))]);
    fs::write(host.path("container.is-slow"), "").unwrap();
    host.serve();
    host
}

/// P4: what is left of an agent that has ended is removed, and whoever asks for something meanwhile is not kept waiting for that.
#[test]
fn a_leftover_that_is_slow_to_go_does_not_keep_the_broker_from_answering() {
    needs_docker!();
    let host = with_a_slow_leftover();
    host.ok(&["start", "other", "--runtime", "process", "--", "sleep", "100000"]);
    assert_eq!(host.fake_containers().len(), 1);
    fs::remove_file(host.path("container.is-slow")).unwrap();
    eventually("it is gone", || host.fake_containers().is_empty());
    eventually("it is forgotten", || host.json(&["list"])["agents"].as_array().unwrap().len() == 1);
}

/// A broker that ends does not wait for the removal of leftovers: the next one takes them up.
#[test]
fn a_broker_ends_while_a_leftover_is_slow_to_go() {
    needs_docker!();
    let mut host = with_a_slow_leftover();
    host.stop_broker();
    assert!(!host.broker_log().contains("some operations did not come to an end"), "{}", host.broker_log());
    assert_eq!(host.fake_containers().len(), 1);
    fs::remove_file(host.path("container.is-slow")).unwrap();
    host.serve();
    eventually("it is gone", || host.fake_containers().is_empty());
}

#[test]
fn a_name_that_something_else_has_is_a_conflict() {
    needs_docker!();
    let (host, image) = (host(), image());
    let foreign = format!("apple-{}", host.container("dev"));
    docker(&[
        "run",
        "-d",
        "--name",
        &foreign,
        "--label",
        "apple.berthold.broker=another",
        &image,
        "sleep",
        "100000",
    ]);
    let error = host.error(7, &idle("dev", &image));
    docker(&["rm", "-f", &foreign]);
    assert_eq!(error["code"], "conflict", "{error}");
    assert_eq!(host.leased(), []);
}

/// Its ids are names: what has the name of an agent that is gone may be someone else's by now.
#[test]
fn what_has_the_name_of_an_agent_that_is_gone_is_left_alone() {
    needs_docker!();
    let (host, image) = (host(), image());
    host.ok(&idle("dev", &image));
    host.ok(&["stop", "dev", "-t", "0s"]);
    let name = format!("apple-{}", host.container("dev"));
    docker(&["rm", "-f", &name]);
    let label = "apple.berthold.broker=another";
    docker(&["run", "-d", "--name", &name, "--label", label, &image, "sleep", "100000"]);
    let error = host.error(7, &idle("dev", &image));
    let deleted = host.run(&["delete", "dev"]);
    let is_there = docker(&["ps", "--filter", &format!("name={name}"), "--format", "{{.Names}}"]);
    docker(&["rm", "-f", &name]);
    assert_eq!((error["code"].as_str(), deleted.code), (Some("conflict"), 0), "{error} {deleted:?}");
    assert_eq!(is_there.trim(), name);
}

/// The real one follows for ever; Berthold ends it with the agent.
#[test]
fn a_log_that_is_followed_ends_with_the_agent() {
    needs_docker!();
    let (host, image) = (host(), image());
    let script = "echo first; sleep 2; echo last";
    host.ok(&["start", "job", "--runtime", "container", "--image", &image, "--", "sh", "-c", script]);
    assert_eq!(host.ok(&["logs", "-f", "job"]), "first\nlast\n");
    eventually("its end is noticed", || host.agent("job")["state"] == "exited");
    assert_eq!((&host.agent("job")["exit_code"], host.leased()), (&Value::Null, vec![]));
}

/// It is not told how it ended, so it is none of those that ended badly; who asked for it is told that.
#[test]
fn one_that_has_ended_at_once_was_started() {
    needs_docker!();
    let (host, image) = (host(), image());
    let agent = host.json(&["start", "job", "--runtime", "container", "--image", &image, "--", "true"]);
    let agent = &agent["agent"];
    eventually("its end is noticed", || host.agent("job")["state"] == "exited");
    assert_eq!((&host.agent("job")["exit_code"], host.leased()), (&Value::Null, vec![]));
    if agent["state"] == "exited" {
        assert!(agent["warnings"].to_string().contains("does not tell with which code"), "{agent}");
    }
}

#[test]
fn an_image_that_is_nowhere_is_told_as_such() {
    needs_docker!();
    let host = host();
    let error = host.error(6, &idle("dev", "localhost/no-such-image:1"));
    assert!(error["message"].as_str().unwrap().contains("localhost/no-such-image:1"), "{error}");
    assert_eq!((host.leased(), host.fake_containers()), (vec![], Vec::<String>::new()));
    assert_eq!(host.json(&["broker", "status"])["broker"]["warnings"], json!([]));
}
