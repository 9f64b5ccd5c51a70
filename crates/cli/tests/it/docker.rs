//! Agents on real Docker.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::*;

#[test]
fn two_agents_are_reached_on_their_own_ports() {
    needs_docker!();
    let (host, image) = (Host::started(10), image());
    for name in ["ada", "bert"] {
        host.ok(&web_agent(name, &image));
    }
    assert_eq!(
        host.leased(),
        [
            ("ada A".to_owned(), host.port(0)),
            ("ada B".to_owned(), host.port(1)),
            ("bert A".to_owned(), host.port(2)),
            ("bert B".to_owned(), host.port(3)),
        ]
    );
    for (port, name) in [(0, "ada"), (1, "ada"), (2, "bert"), (3, "bert")] {
        let expected = format!("{}/{name}", host.project());
        eventually("both ports of both agents answer", || fetch(host.port(port)).is_some());
        assert_eq!(fetch(host.port(port)).unwrap().trim(), expected);
    }
    let environment = docker(&["exec", &host.container("bert"), "env"]);
    for variable in [
        format!("AVAILABLE_LOCALHOST_PORT_A={}", host.port(2)),
        format!("AVAILABLE_LOCALHOST_PORT_B={}", host.port(3)),
        format!("BERTHOLD_AGENT={}/bert", host.project()),
    ] {
        assert!(environment.lines().any(|line| line == variable), "{variable} in {environment}");
    }
    assert!(!environment.contains("AVAILABLE_LOCALHOST_URL"), "no host_url is configured: {environment}");

    let inspected =
        docker(&["inspect", "--format", "{{json .HostConfig.PortBindings}}", &host.container("ada")]);
    let binding = |port: u16| json!([{ "HostIp": "127.0.0.1", "HostPort": port.to_string() }]);
    let (a, b) = (host.port(0), host.port(1));
    assert_eq!(
        serde_json::from_str::<Value>(&inspected).unwrap(),
        json!({ format!("{a}/tcp"): binding(a), format!("{b}/tcp"): binding(b) })
    );

    let agent = host.agent("ada");
    let labels = docker(&["inspect", "--format", "{{json .Config.Labels}}", &host.container("ada")]);
    let labels: Value = serde_json::from_str(&labels).unwrap();
    assert_eq!(labels["berthold.agent"], format!("{}/ada", host.project()));
    assert_eq!(labels["berthold.project"], host.project());
    assert_eq!(labels["berthold.name"], "ada");
    assert_eq!(labels["berthold.lease"], agent["lease"]);
    assert_eq!(labels["berthold.ports"], format!("{a}-{b}"));
    assert_eq!(agent["published"], "127.0.0.1");
    assert_eq!(agent["urls"]["A"], format!("http://localhost:{a}"));
}

/// The second of the review's defects: a trailing slash of `host_url` does not get into the URLs.
#[test]
fn a_host_url_with_slashes_gives_urls_without_them() {
    needs_docker!();
    let settings = |range: &str| {
        format!(
            "server:\n  broker:\n    listen: none\n    port_pool:\n      range: \"{range}\"\n      host_url: \"http://203.0.113.7//\"\n      env_aliases: {{ PORT: A }}\n"
        )
    };
    let mut host = Host::with_settings(settings, 4);
    host.serve();
    let image = image();
    host.ok(&web_agent("dev", &image));
    let (a, b) = (host.port(0), host.port(1));
    let environment = docker(&["exec", &host.container("dev"), "env"]);
    let mut ours: Vec<&str> = environment
        .lines()
        .filter(|line| line.starts_with("AVAILABLE_") || line.starts_with("PORT="))
        .collect();
    ours.sort_unstable();
    assert_eq!(
        ours,
        [
            format!("AVAILABLE_LOCALHOST_PORT_A={a}"),
            format!("AVAILABLE_LOCALHOST_PORT_B={b}"),
            format!("AVAILABLE_LOCALHOST_URL_A=http://203.0.113.7:{a}"),
            format!("AVAILABLE_LOCALHOST_URL_B=http://203.0.113.7:{b}"),
            format!("PORT={a}"),
        ]
    );
    // The host of the URL is another one, so the ports are published on every address.
    let agent = host.agent("dev");
    assert_eq!(agent["published"], "0.0.0.0");
    assert_eq!(agent["urls"]["B"], format!("http://203.0.113.7:{b}"));
}

#[test]
fn an_exhausted_pool_names_its_holders_and_leaves_nothing_behind() {
    needs_docker!();
    let (host, image) = (Host::started(4), image());
    for name in ["ada", "bert"] {
        host.ok(&idle_agent(name, &image));
    }
    let error = host.error(4, &idle_agent("carl", &image));
    assert_eq!(error["code"], "pool_exhausted");
    let holders: BTreeSet<&str> = error["details"]["holders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["owner"].as_str().unwrap())
        .collect();
    let (ada, bert) = (format!("{}/ada", host.project()), format!("{}/bert", host.project()));
    assert_eq!(holders, BTreeSet::from([ada.as_str(), bert.as_str()]));
    assert!(error["hint"].as_str().unwrap().contains("berthold stop"), "{error}");
    assert_eq!(host.containers(), [host.container("ada"), host.container("bert")]);

    host.ok(&["stop", "ada"]);
    host.ok(&idle_agent("carl", &image));
    // Nothing else was left, so the longest released (and remembered) ports were handed out.
    assert_eq!(host.agent("carl")["ports"], json!({ "A": host.port(0), "B": host.port(1) }));
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    needs_docker!();
    let (host, image) = (Host::started(4), image());
    let start = |name, image, command: &[&str]| {
        [&["start", name, "--runtime", "docker", "--image", image, "--"], command]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let check = |code: i32, arguments: &[String], expected: &[&str]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // On a busy machine a command that ends at once may still be starting when the broker looks.
        let refused = |_| {
            let done = host.run(&[&["--json"], &arguments[..]].concat());
            if done.code == 0 {
                host.ok(&["delete", arguments[1]]);
            }
            (done.code != 0).then_some(done)
        };
        let done = (0..10).find_map(refused).expect("it is not taken for running every time");
        let text = host.error_of(code, &arguments, &done).to_string();
        for part in expected {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert_eq!(host.leased(), [], "the ports are given back");
        assert_eq!(host.containers(), Vec::<String>::new(), "the container is removed");
    };
    check(
        6,
        &start("a", "localhost/no-such-image:1", &["true"]),
        &["runtime_failed", "localhost/no-such-image:1"],
    );
    check(1, &start("b", &image, &["/no/such/command"]), &["start_failed", "/no/such/command"]);
    check(
        1,
        &start("c", &image, &["sh", "-c", "echo first words; echo last words >&2; exit 3"]),
        &["start_failed", "code 3", "first words", "last words"],
    );
    // They are known as failed, with the reason, and without ports.
    let agent = host.agent("c");
    assert_eq!(
        (&agent["state"], &agent["ports"], &agent["id"]),
        (&json!("failed"), &json!({}), &Value::Null)
    );
    assert!(agent["reason"].as_str().unwrap().contains("code 3"), "{agent}");
    // And the name is free for a start that works.
    host.ok(&idle_agent("c", &image));
    assert_eq!(host.agent("c")["ports"], json!({ "A": host.port(0), "B": host.port(1) }));
}

/// What was refused whole has never been the agent: a start that only names it still means what it meant.
#[test]
fn a_start_that_is_refused_leaves_what_the_agent_is() {
    needs_docker!();
    let (host, image) = (Host::started(4), image());
    host.ok(&idle_agent("dev", &image));
    let before = host.agent("dev");
    host.ok(&["stop", "dev"]);
    let arguments = ["start", "dev", "--rm", "--runtime", "docker", "--image", "localhost/no-such-image:1"];
    assert_eq!(host.error(6, &arguments)["code"], "runtime_failed");
    let refused = host.agent("dev");
    assert_eq!((&refused["state"], &refused["image"]), (&json!("failed"), &json!(image)));
    let started = host.json(&["start", "dev"])["agent"].clone();
    assert_eq!((&started["image"], &started["ports"]), (&json!(image), &before["ports"]));
}

/// What is not there to be mounted is told before anything is stopped for it.
#[test]
fn a_missing_source_of_a_mount_stops_nothing() {
    needs_docker!();
    let (host, image) = (Host::started(4), image());
    let source = host.path("source");
    let volume = format!("{}:/x", source.display());
    let refused = |arguments: &[&str]| {
        let error = host.error(2, arguments);
        assert!(error["message"].as_str().unwrap().contains("source is to be mounted"), "{error}");
        assert!(error["hint"].as_str().unwrap().contains("mkdir -p"), "{error}");
    };
    host.ok(&idle_agent("dev", &image));
    let running = host.agent("dev");
    refused(&["start", "dev", "--replace", "-v", &volume]);
    assert_eq!(host.agent("dev"), running);
    // Nothing is stopped for a new one, and its engine knows best what it sees.
    let error = host.error(2, &["start", "new", "--runtime", "docker", "--image", &image, "-v", &volume]);
    assert!(error["hint"].as_str().unwrap().contains("mkdir -p"), "{error}");
    std::fs::create_dir(&source).unwrap();
    host.ok(&["start", "dev", "--replace", "-v", &volume]);
    host.ok(&["start", "dev"]);
}

#[test]
fn an_agent_that_was_removed_behind_the_brokers_back_comes_back_with_its_ports() {
    needs_docker!();
    let (host, image) = (Host::started(10), image());
    host.ok(&idle_agent("first", &image));
    host.ok(&idle_agent("dev", &image));
    let before = host.agent("dev");
    docker(&["rm", "-f", &host.container("dev")]);
    host.ok(&idle_agent("dev", &image));
    let after = host.agent("dev");
    assert_eq!(after["ports"], before["ports"]);
    assert_ne!(after["id"], before["id"]);
    assert_ne!(after["lease"], before["lease"], "a lease is never used again");
    assert_eq!(host.leased().len(), 4);
}

#[test]
fn an_agent_that_ends_by_itself_gives_its_ports_back() {
    needs_docker!();
    let (host, image) = (Host::started(10), image());
    let command = [
        "start",
        "job",
        "--image",
        &image,
        "--runtime",
        "docker",
        "--",
        "sh",
        "-c",
        "sleep 1; echo done; exit 5",
    ];
    host.ok(&command);
    eventually("its end is noticed", || host.agent("job")["state"] == "exited");
    let agent = host.agent("job");
    assert_eq!(agent["exit_code"], 5);
    assert_eq!(agent["former_ports"], json!([host.port(0), host.port(1)]));
    assert_eq!(host.leased(), []);
    assert_eq!(host.ok(&["logs", "job"]).trim(), "done", "its log stays");
}

#[test]
fn a_killed_or_removed_container_is_noticed_without_a_command() {
    needs_docker!();
    let (host, image) = (Host::started(10), image());
    host.ok(&idle_agent("killed", &image));
    host.ok(&idle_agent("removed", &image));
    docker(&["kill", &host.container("killed")]);
    eventually("the kill is noticed", || host.agent("killed")["state"] == "exited");
    docker(&["rm", "-f", &host.container("removed")]);
    eventually("the removal is noticed", || host.agent("removed")["state"] == "exited");
    assert_eq!(host.leased(), []);
}

#[test]
fn stop_start_restart_and_delete_keep_to_the_same_ports() {
    needs_docker!();
    let (host, image) = (Host::started(10), image());
    host.ok(&idle_agent("other", &image));
    host.ok(&idle_agent("dev", &image));
    let ports = host.agent("dev")["ports"].clone();
    host.ok(&["stop", "dev"]);
    host.ok(&["stop", "dev"]);
    let stopped = host.agent("dev");
    assert_eq!((&stopped["state"], &stopped["ports"]), (&json!("stopped"), &json!({})));
    // What was remembered is not given to another one while there is something else.
    host.ok(&idle_agent("third", &image));
    assert_eq!(host.agent("third")["ports"]["A"], host.port(4));
    host.ok(&["start", "dev"]);
    assert_eq!(host.agent("dev")["ports"], ports);
    host.ok(&["restart", "dev"]);
    assert_eq!(host.agent("dev")["ports"], ports);
    assert_eq!(host.agent("dev")["state"], "running");

    host.ok(&["delete", "dev"]);
    host.ok(&["delete", "dev"]);
    assert_eq!(host.error(3, &["show", "dev"])["code"], "no_such_agent");
    assert_eq!(host.containers(), [host.container("other"), host.container("third")]);
    assert_eq!(host.leased().len(), 4);
}

#[test]
fn starting_what_runs_returns_it_or_names_what_differs() {
    needs_docker!();
    let (host, image) = (Host::started(10), image());
    host.ok(&idle_agent("dev", &image));
    let before = host.agent("dev");
    host.ok(&idle_agent("dev", &image));
    host.ok(&["start", "dev"]);
    assert_eq!(host.agent("dev"), before, "nothing has changed");

    let other = [
        "start",
        "dev",
        "--image",
        &image,
        "--runtime",
        "docker",
        "-e",
        "COLOUR=red",
        "--",
        "sleep",
        "100000",
    ];
    let error = host.error(7, &other);
    assert_eq!(error["code"], "conflict");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("command: it runs with") && message.contains("variable COLOUR: it runs without it"),
        "{message}"
    );
    assert!(!message.contains("red"), "values may be secret: {message}");
    assert_eq!(host.agent("dev"), before);

    host.ok(&[&other[..2], &["--replace"], &other[2..]].concat());
    let after = host.agent("dev");
    assert_eq!(after["ports"], before["ports"]);
    assert_ne!(after["id"], before["id"]);
    assert_eq!(host.containers().len(), 1);
}

#[test]
fn on_the_host_network_nothing_is_published_and_nothing_is_claimed_to_be() {
    needs_docker!();
    let (host, image) = (Host::started(10), image());
    let script = "echo here > /tmp/index.html; exec httpd -f -p $AVAILABLE_LOCALHOST_PORT_A -h /tmp";
    host.ok(&[
        "start",
        "dev",
        "--runtime",
        "docker",
        "--image",
        &image,
        "--network",
        "host",
        "--wait",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let agent = host.agent("dev");
    assert_eq!(agent["published"], "host network");
    assert_eq!(docker(&["port", &host.container("dev")]), "");
    assert_eq!(fetch(host.port(0)).unwrap().trim(), "here", "the agent binds its port itself");
    host.ok(&[
        "start",
        "closed",
        "--runtime",
        "docker",
        "--image",
        &image,
        "--network",
        "none",
        "--",
        "sleep",
        "100000",
    ]);
    let closed = host.agent("closed");
    assert_eq!((&closed["published"], &closed["urls"]), (&Value::Null, &json!({})));
}

#[test]
fn a_name_that_something_else_has_is_a_conflict_and_nothing_is_touched() {
    needs_docker!();
    let (host, image) = (Host::started(10), image());
    let name = host.container("dev");
    docker(&["create", "--name", &name, &image, "true"]);
    let error = host.error(7, &idle_agent("dev", &image));
    assert_eq!(error["code"], "conflict");
    assert!(error["message"].as_str().unwrap().contains("did not start"), "{error}");
    assert_eq!(host.leased(), []);
    docker(&["rm", &name]);
    host.ok(&idle_agent("dev", &image));
}

/// P7: a port that a process or a foreign container holds is not handed out.
#[test]
fn ports_that_others_hold_are_passed_over() {
    needs_docker!();
    let (host, image) = (Host::started(10), image());
    let _listener = std::net::TcpListener::bind(("127.0.0.1", host.port(0))).unwrap();
    let foreign = format!("{}-foreign", host.project());
    let publish = format!("127.0.0.1:{}:80", host.port(2));
    docker(&["run", "-d", "--name", &foreign, "-p", &publish, &image, "sleep", "100000"]);
    host.ok(&idle_agent("dev", &image));
    assert_eq!(host.agent("dev")["ports"], json!({ "A": host.port(1), "B": host.port(3) }));
    let blocked = host.json(&["ports"])["pool"]["counts"]["blocked"].clone();
    docker(&["rm", "-f", &foreign]);
    assert_eq!(blocked, 2);
}

#[test]
fn exec_and_logs_are_those_of_the_agent() {
    needs_docker!();
    let (host, image) = (Host::started(10), image());
    host.ok(&[
        "start",
        "dev",
        "--runtime",
        "docker",
        "--image",
        &image,
        "--",
        "sh",
        "-c",
        "echo one; echo two; sleep 100000",
    ]);
    eventually("both lines are in the log", || host.ok(&["logs", "dev"]) == "one\ntwo\n");
    assert_eq!(host.ok(&["logs", "-n", "1", "dev"]), "two\n");
    assert_eq!(host.ok(&["logs", "-n", "all", "dev"]), "one\ntwo\n");
    let error = host.error(126, &["exec", "-w", "/no/such/directory", "dev", "--", "pwd"]);
    assert_eq!(error["code"], "start_failed", "{error}");
    let done = host.run(&[
        "exec",
        "dev",
        "--",
        "sh",
        "-c",
        "echo $AVAILABLE_LOCALHOST_PORT_A; echo oops >&2; exit 42",
    ]);
    assert_eq!(
        (done.code, done.stdout.trim(), done.stderr.trim()),
        (42, host.port(0).to_string().as_str(), "oops")
    );
    host.ok(&["stop", "-t", "0s", "dev"]);
    let error = host.error(1, &["exec", "dev", "--", "true"]);
    assert_eq!(error["code"], "not_running");
}

#[test]
fn a_template_fills_in_and_what_is_typed_comes_on_top() {
    needs_docker!();
    let (image, theirs, mine) = (image(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(theirs.path().join("whose"), "the template's").unwrap();
    std::fs::write(mine.path().join("whose"), "mine").unwrap();
    let source = theirs.path().display();
    let mut host = Host::with_settings(
        |range| {
            format!(
                "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{range}\" }} }} }}
templates:
  web:
    image: \"{image}\"
    runtime: docker
    command: [sh, -c, \"trap 'exit 0' TERM; sleep 100000 & wait\"]
    env: {{ COLOUR: red, SIZE: small }}
    volumes: [\"{source}:/data:ro\", \"{source}:/more\"]
    ports: 3
"
            )
        },
        8,
    );
    host.serve();
    let volume = format!("{}:/data/", mine.path().display());
    let file = mine.path().join("variables");
    std::fs::write(&file, "# of the file\nSHAPE=round\nSIZE=large\n").unwrap();
    let typed = ["-e", "COLOUR=blue", "-e", "OWN", "--env-file", file.to_str().unwrap(), "-v", &volume];
    let mut start = host.command();
    start.args(["--json", "start", "dev", "--template", "web"]).args(typed).env("OWN", "the caller's");
    let started = start.output().unwrap();
    assert!(started.status.success(), "{started:?}");
    let agent = serde_json::from_slice::<Value>(&started.stdout).unwrap()["agent"].clone();
    assert_eq!((&agent["runtime"], &agent["image"]), (&json!("docker"), &json!(image)));
    assert_eq!(host.leased().len(), 3);
    let inside = |command: &str| host.ok(&["exec", "dev", "--", "sh", "-c", command]);
    assert_eq!(inside("cat /data/whose"), "mine");
    assert_eq!(inside("cat /more/whose"), "the template's");
    assert_eq!(inside("echo $COLOUR $SIZE $SHAPE $OWN"), "blue large round the caller's\n");
}
