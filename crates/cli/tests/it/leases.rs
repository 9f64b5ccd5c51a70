//! Bare leases: ports for what Berthold does not start itself.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::*;

fn lease(host: &Host, arguments: &[&str]) -> Value {
    host.json(&[&["lease"], arguments].concat())["lease"].clone()
}

#[test]
fn a_lease_is_granted_once_and_given_back() {
    let host = Host::started(6);
    let first = lease(&host, &["db"]);
    assert_eq!(first["ports"], json!({ "A": host.port(0), "B": host.port(1) }));
    assert_eq!(first["environment"]["AVAILABLE_LOCALHOST_PORT_B"], host.port(1).to_string());
    assert_eq!(lease(&host, &["db"]), first, "P5: once more is as it is");
    assert_eq!(lease(&host, &["db", "-n", "2"]), first);
    let error = host.error(7, &["lease", "db", "-n", "3"]);
    assert!(error["hint"].as_str().unwrap().contains("-n 3 --replace"), "{error}");
    assert_eq!(host.json(&["leases"])["leases"], json!([first]));
    let done = host.run(&["leases"]);
    assert!(done.stdout.starts_with("OWNER"), "{done:?}");

    let released = host.json(&["release", "db"]);
    assert_eq!(released["leases"], json!([first]));
    assert_eq!(host.leased(), []);
    let done = host.run(&["release", "db"]);
    assert_eq!((done.code, done.stdout.as_str()), (0, ""), "P5");
    assert!(done.stderr.contains("nothing to release"), "{done:?}");
}

/// What a lease keeps may be in use, so it keeps that without being asked; what it gives up must not be.
#[test]
fn a_lease_grows_and_shrinks_around_what_it_has() {
    let host = Host::started(6);
    let ports = |count: &str| lease(&host, &["db", "-n", count, "--replace"])["ports"].clone();
    let (a, b, c) = (host.port(0), host.port(1), host.port(2));
    assert_eq!(lease(&host, &["db", "-n", "1"])["ports"], json!({ "A": a }));
    let _listener = TcpListener::bind(("127.0.0.1", a)).unwrap();
    assert_eq!(ports("3"), json!({ "A": a, "B": b, "C": c }));
    let listener = TcpListener::bind(("127.0.0.1", c)).unwrap();
    let error = host.error(7, &["lease", "db", "-n", "2", "--replace"]);
    assert!(error["message"].as_str().unwrap().contains(&format!("port {c} is still in use")), "{error}");
    assert_eq!(host.leased().len(), 3);
    drop(listener);
    assert_eq!(ports("2"), json!({ "A": a, "B": b }));
}

/// P6.
#[test]
fn an_owner_that_comes_back_gets_its_former_ports_also_from_the_next_broker() {
    let mut host = Host::started(6);
    host.ok(&["lease", "first"]);
    let second = lease(&host, &["second"]);
    host.ok(&["release", "second"]);
    host.ok(&["release", "first"]);
    host.kill_broker();
    host.serve();
    let remembered = host.json(&["ports"])["pool"]["ports"].clone();
    assert_eq!(remembered.as_array().unwrap().len(), 4, "{remembered}");
    assert_eq!((&remembered[0]["state"], &remembered[0]["bare"]), (&json!("remembered"), &json!(true)));
    assert_eq!(lease(&host, &["second"])["ports"], second["ports"]);
    let third = lease(&host, &["third"]);
    assert_eq!(third["ports"]["A"], host.port(4), "ports without a past come first");
}

/// P2.
#[test]
fn a_lease_outlives_its_broker() {
    let mut host = Host::started(6);
    let before = lease(&host, &["db", "-n", "3"]);
    host.kill_broker();
    host.serve();
    assert_eq!(host.json(&["leases"])["leases"], json!([before]));
    assert_eq!(lease(&host, &["other", "-n", "1"])["ports"]["A"], host.port(3));
}

#[test]
fn agents_and_leases_share_a_pool_and_nothing_else() {
    let host = Host::started(6);
    host.ok(&["start", "dev", "--runtime", "process", "--", "sleep", "100000"]);
    let bare = lease(&host, &["dev"]);
    assert_eq!(bare["ports"], json!({ "A": host.port(2), "B": host.port(3) }));
    assert_eq!(host.json(&["list"])["agents"].as_array().unwrap().len(), 1);
    host.ok(&["stop", "--all", "-t", "0s"]);
    host.ok(&["delete", "--all"]);
    assert_eq!(host.json(&["leases"])["leases"], json!([bare]));
    assert_eq!(host.leased().len(), 2);
    let table = host.ok(&["ports"]);
    assert!(table.contains("bare lease") && table.contains(&format!("{}/dev", host.project())), "{table}");
    host.ok(&["start", "dev", "--runtime", "process", "--", "sleep", "100000"]);
    host.ok(&["release", "dev"]);
    let done = host.run(&["release", "dev"]);
    assert!(done.stderr.contains("is an agent and has no bare lease"), "{done:?}");
}

/// P3: no runtime says that the owner has let go of its ports, so the broker looks itself.
#[test]
fn what_listens_on_a_port_keeps_the_lease() {
    let host = Host::started(6);
    host.ok(&["lease", "db"]);
    let port = host.port(1);
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let error = host.error(7, &["release", "db"]);
    let (message, hint) = (error["message"].as_str().unwrap(), error["hint"].as_str().unwrap());
    assert!(message.contains(&format!("port {port} is still in use by")), "{error}");
    assert!(hint.contains("--force"), "{error}");
    assert_eq!(error["details"]["in_use"][0]["port"], port);
    assert_eq!(host.leased().len(), 2);
    host.ok(&["release", "db", "--force"]);
    let pool = host.json(&["ports"])["pool"].clone();
    let blocked: Vec<&Value> =
        pool["ports"].as_array().unwrap().iter().filter(|port| port["state"] == "blocked").collect();
    assert_eq!((blocked.len(), &blocked[0]["port"]), (1, &json!(port)), "{pool}");
    drop(listener);
    eventually("the port is free again", || host.json(&["ports"])["pool"]["counts"]["blocked"] == 0);
}

/// L7 and L15: a late release does not hit a newer lease.
#[test]
fn a_lease_can_be_released_by_its_id_alone() {
    let host = Host::started(6);
    let id = |lease: &Value| lease["id"].as_str().unwrap().to_owned();
    let old = id(&lease(&host, &["db"]));
    host.ok(&["release", "db", "--lease", &old]);
    let new = id(&lease(&host, &["db"]));
    let error = host.error(7, &["release", "db", "--lease", &old]);
    assert!(error["message"].as_str().unwrap().contains(&new), "{error}");
    assert_eq!(host.leased().len(), 2);
    host.ok(&["release", "db", "--lease", &new]);
    assert_eq!(host.leased(), []);
}

/// P7.
#[test]
fn a_port_that_someone_else_has_is_not_leased() {
    let host = Host::started(6);
    let listener = TcpListener::bind(("127.0.0.1", host.port(0))).unwrap();
    assert_eq!(lease(&host, &["db"])["ports"], json!({ "A": host.port(1), "B": host.port(2) }));
    drop(listener);
    host.ok(&["release", "db"]);
    let _listener = TcpListener::bind(("127.0.0.1", host.port(2))).unwrap();
    assert_eq!(lease(&host, &["db"])["ports"]["A"], host.port(1), "a former port");
    assert_ne!(
        lease(&host, &["db"])["ports"]["B"],
        host.port(2),
        "nor is a former port that is taken by now"
    );
}

#[test]
fn an_exhausted_pool_names_whose_lease_could_be_released() {
    let host = Host::started(4);
    host.ok(&["lease", "big", "-n", "3"]);
    let error = host.error(4, &["lease", "db"]);
    assert_eq!(error["code"], "pool_exhausted");
    assert!(
        error["hint"].as_str().unwrap().contains(&format!("berthold release {}/big", host.project())),
        "{error}"
    );
    assert_eq!(host.leased().len(), 3);
    assert_eq!(host.error(4, &["lease", "big", "-n", "5", "--replace"])["code"], "pool_exhausted");
    assert_eq!(host.leased().len(), 3);
}

#[test]
fn wrong_wishes_are_refused_with_what_is_meant() {
    let host = Host::started(4);
    let error = host.error(2, &["lease", "My_Db"]);
    assert!(error["hint"].as_str().unwrap().contains("my-db"), "{error}");
    assert_eq!(host.run(&["lease", "db", "-n", "0"]).code, 2);
    assert_eq!(host.run(&["lease", "db", "--force"]).code, 2);
    host.error(2, &["lease", "db", "--format", "env"]);
    assert_eq!(host.leased(), []);
    let mut host = Host::with_settings(|_| "server: { broker: { listen: none } }\n".to_owned(), 1);
    host.serve();
    let error = host.error(2, &["lease", "db"]);
    assert!(error["message"].as_str().unwrap().contains("no port pool"), "{error}");
}

/// P1 under load.
#[test]
fn forty_leases_at_once_share_no_port() {
    let host = Host::started(RANGE_SIZE);
    let take = |name: &str| {
        host.command()
            .args(["--json", "lease", name, "-n", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let others: Vec<_> = (0..39).map(|number| take(&format!("l{number}"))).collect();
    let same: Vec<_> = (0..10).map(|_| take("same")).collect();
    let port = |child: std::process::Child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["lease"]["ports"]["A"].as_u64().unwrap()
    };
    let mut ports: BTreeSet<u64> = others.into_iter().map(port).collect();
    let same: BTreeSet<u64> = same.into_iter().map(port).collect();
    assert_eq!(same.len(), 1, "ten leases of one owner are one lease");
    ports.extend(same);
    assert_eq!(ports.len(), 40, "no port was given twice");
    assert_eq!(host.leased().len(), 40);
}

/// With a host URL and an alias, as agents would get them.
fn with_host_url() -> Host {
    let settings = |range: &str| {
        format!(
            "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{range}\", host_url: \"http://[::1]/\", \
             bind_address: 127.0.0.1, env_aliases: {{ PORT: A }} }} }} }}\n"
        )
    };
    let mut host = Host::with_settings(settings, 6);
    host.serve();
    host
}

#[test]
fn a_shell_evaluates_what_is_printed_for_it() {
    let host = with_host_url();
    let script = "eval \"$($BERTHOLD lease db --format env)\"
        echo \"$AVAILABLE_LOCALHOST_PORT_A $AVAILABLE_LOCALHOST_URL_B $PORT $BERTHOLD_AGENT\"
        sh -c 'echo $AVAILABLE_LOCALHOST_PORT_B'
        $BERTHOLD lease db --format dotenv > vars; unset PORT; . ./vars; echo $PORT";
    let output = host.command_of("sh").args(["-ec", script]).env("BERTHOLD", BERTHOLD).output().unwrap();
    let (a, b) = (host.port(0), host.port(1));
    let expected = format!("{a} http://[::1]:{b} {a} {}/db\n{b}\n{a}\n", host.project());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
}

#[test]
fn docker_runs_what_is_printed_for_it() {
    needs_docker!();
    let (host, name) = (with_host_url(), format!("bare-{}", std::process::id()));
    let script = "docker run -d --rm --name $NAME $($BERTHOLD lease db --format docker) $IMAGE \
        sh -c 'echo $AVAILABLE_LOCALHOST_URL_B $PORT > /tmp/index.html; httpd -f -p $PORT -h /tmp'";
    let mut shell = host.command_of("sh");
    shell.args(["-ec", script]).env("BERTHOLD", BERTHOLD).env("NAME", &name).env("IMAGE", image());
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let (a, b) = (host.port(0), host.port(1));
    eventually("the server answers", || fetch(a).is_some());
    assert_eq!(fetch(a).unwrap(), format!("http://[::1]:{b} {a}\n"));
    let error = host.error(7, &["release", "db"]);
    docker(&["rm", "-f", &name]);
    assert!(error["message"].as_str().unwrap().contains(&format!("port {a}")), "{error}");
    host.ok(&["release", "db"]);
}

#[test]
fn the_api_names_an_owner_in_two_segments_or_in_one() {
    let host = Host::started(6);
    host.ok(&["lease", "db"]);
    host.ok(&["--project", "default", "lease", "cache"]);
    let get = |path: &str| http_get_unix(&host.path("broker.sock"), path).unwrap();
    let project = host.project();
    for path in
        [format!("/v1/leases/{project}/db"), format!("/v1/leases/{project}%2Fdb"), "/v1/leases/cache".into()]
    {
        let answer = get(&path);
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let answer = get("/v1/leases/nobody");
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("no_such_lease"), "{answer}");
    let answer = get("/v1/leases/a%2Fb%2Fc");
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("b-c"), "{answer}");
    assert!(get(&format!("/v1/leases?project={project}")).contains("\"db\""));
    assert!(!get("/v1/leases?project=default").contains("\"db\""));
}

/// The words that complete `berthold release`.
#[test]
fn owners_are_completed() {
    let host = Host::started(6);
    host.ok(&["lease", "database"]);
    let output = host
        .command()
        .args(["--", "berthold", "release", "da"])
        .env("BERTHOLD_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "2")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "database", "{output:?}");
}
