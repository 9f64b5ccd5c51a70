//! What the commands print, and with what they end.

use serde_json::json;

use crate::support::*;

#[test]
fn an_empty_list_says_what_to_do_next() {
    let host = Host::started(4);
    let done = host.run(&["list"]);
    assert_eq!((done.code, done.stdout.as_str()), (0, ""));
    assert!(done.stderr.contains("berthold start"), "{}", done.stderr);
    assert_eq!(host.json(&["list"]), json!({ "agents": [] }));
}

#[test]
fn stop_and_delete_of_what_is_not_there_succeed() {
    let host = Host::started(4);
    assert_eq!(host.json(&["stop", "nobody"]), json!({ "agents": [] }));
    assert_eq!(host.json(&["delete", "nobody"]), json!({ "agents": [] }));
    let error = host.error(3, &["restart", "nobody"]);
    assert_eq!(error["code"], "no_such_agent");
}

#[test]
fn wrong_names_and_variables_are_refused_with_a_suggestion() {
    let host = Host::started(4);
    let error = host.error(2, &["start", "My_Agent", "--runtime", "process", "--", "true"]);
    assert!(error["hint"].as_str().unwrap().contains("my-agent"), "{error}");
    let arguments =
        ["start", "dev", "--runtime", "process", "-e", "AVAILABLE_LOCALHOST_PORT_A=1", "--", "true"];
    let error = host.error(2, &arguments);
    assert!(error["message"].as_str().unwrap().contains("AVAILABLE_LOCALHOST_PORT_A"), "{error}");
    let error = host.error(2, &["start", "dev", "--runtime", "process"]);
    assert!(error["message"].as_str().unwrap().contains("no command"), "{error}");
}

#[test]
fn an_agent_that_was_to_be_forgotten_is() {
    let host = Host::started(4);
    host.ok(&["start", "job", "--rm", "--runtime", "process", "--", "sleep", "1"]);
    eventually("it is forgotten", || host.json(&["list"]) == json!({ "agents": [] }));
    assert_eq!(host.leased(), []);
    assert_eq!(host.json(&["ports"])["pool"]["counts"]["remembered"], 0);
}

#[test]
fn an_agent_that_has_done_its_work_already_is_no_failure() {
    let host = Host::started(4);
    host.ok(&["start", "job", "--runtime", "process", "--", "true"]);
    eventually("its end is known", || host.agent("job")["state"] == "exited");
    assert_eq!(host.agent("job")["exit_code"], 0);
    assert_eq!(host.leased(), []);
}

#[test]
fn waiting_for_an_answer_that_does_not_come_is_a_warning() {
    let host = Host::started(4);
    let done = host.run(&["start", "dev", "--wait=300ms", "--runtime", "process", "--", "sleep", "100000"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stderr.contains("nothing answers on port"), "{}", done.stderr);
}

/// What a start leaves open is meant as it was: only what is typed can differ.
#[test]
fn a_start_that_only_says_how_leaves_the_rest_as_it_was() {
    needs_docker!();
    let (host, image) = (Host::started(6), image());
    host.ok(&idle_agent("dev", &image));
    let running = host.agent("dev");
    assert_eq!(host.json(&["start", "dev", "--ports", "2"])["agent"], running);
    let error = host.error(7, &["start", "dev", "-e", "COLOUR=red"]);
    assert!(error["message"].as_str().unwrap().contains("COLOUR"), "{error}");
    assert_eq!(error["details"]["differences"].as_array().unwrap().len(), 1, "{error}");
    let replaced = host.json(&["start", "dev", "-e", "COLOUR=red", "--replace"])["agent"].clone();
    assert_eq!((&replaced["image"], &replaced["ports"]), (&running["image"], &running["ports"]));
    assert_eq!(host.ok(&["exec", "dev", "--", "sh", "-c", "echo $COLOUR"]).trim(), "red");
    assert_eq!(
        host.error(2, &["exec", "dev", "-e", "BERTHOLD_AGENT=x", "--", "env"])["code"],
        "invalid_request"
    );
    assert_eq!(host.run(&["exec", "dev", "--", "no-such-command"]).code, 127);
}

#[test]
fn the_doctor_says_what_is_here_and_what_is_not() {
    let host = Host::with_pool(4);
    let checks = host.json(&["doctor"])["doctor"]["checks"].clone();
    let check = |name: &str| checks.as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone();
    assert_eq!(check("settings")["state"], "ok");
    assert_eq!(check("process")["state"], "ok");
    assert_eq!(
        check("pool")["detail"],
        format!("{}-{}: 4 of 4 ports free, 2 an agent", host.port(0), host.port(3))
    );
    let container = check("container");
    assert_eq!(container["state"], "absent");
    assert!(container["hint"].as_str().unwrap().contains("macOS"), "{container}");
    std::fs::write(host.path("settings.yaml"), "server: { brokr: {} }\n").unwrap();
    host.ok(&["broker", "stop"]);
    let done = host.run(&["--json", "doctor"]);
    let document: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((done.code, &document["doctor"]["healthy"]), (1, &json!(false)));
    assert!(done.stdout.contains("did you mean `broker`?"), "{}", done.stdout);
}
