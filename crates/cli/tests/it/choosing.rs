//! Which runtime an agent gets that names none, and what `doctor` says of each.

use serde_json::{Value, json};

use crate::support::*;

/// Settings in which some engines are out of reach, with what else is in them; they take a range.
fn settings(broker: &str, out_of_reach: &[&str]) -> impl FnOnce(&str) -> String {
    let runtimes: Vec<String> = out_of_reach
        .iter()
        .map(|name| format!("{name}: {{ host: \"unix:///nowhere/{name}.sock\" }}"))
        .collect();
    let runtimes = format!("runtimes: {{ {} }}\n", runtimes.join(", "));
    let broker = broker.to_owned();
    move |range| {
        format!(
            "server: {{ broker: {{ listen: none, {broker} port_pool: {{ range: \"{range}\" }} }} }}\n{runtimes}"
        )
    }
}

/// The runtime that an agent gets which names none; `doctor` and `broker status` say the same beforehand.
fn chosen(host: &Host) -> Value {
    let by_default = host.json(&["broker", "status"])["broker"]["default_runtime"].clone();
    let image = image();
    let started = host.json(&["start", "dev", "--image", &image, "--", "sh", "-c", IDLE])["agent"].clone();
    assert_eq!(started["runtime"], by_default);
    assert_eq!(started["state"], "running");
    by_default
}

#[test]
fn the_first_engine_that_answers_is_chosen_in_the_order_docker_podman_container() {
    needs_docker!();
    needs_podman!();
    for (out_of_reach, expected) in
        [(&[][..], "docker"), (&["docker"], "podman"), (&["docker", "podman"], "container")]
    {
        let mut host = Host::with_settings(settings("", out_of_reach), 4).with_fake_container();
        host.serve();
        assert_eq!(chosen(&host), expected, "{out_of_reach:?} do not answer");
    }
}

#[test]
fn the_runtime_of_the_settings_is_chosen_whatever_answers() {
    needs_docker!();
    needs_podman!();
    let mut host = Host::with_settings(settings("default_runtime: podman,", &[]), 4);
    host.serve();
    assert_eq!(chosen(&host), "podman");
    // It is what is wanted: another engine is not used in its place.
    let mut host = Host::with_settings(settings("default_runtime: podman,", &["podman"]), 4);
    host.serve();
    let image = image();
    let error = host.error(6, &["start", "dev", "--image", &image, "--", "sh", "-c", IDLE]);
    assert_eq!(error["code"], "runtime_unreachable");
    assert!(error["message"].as_str().unwrap().contains("/nowhere/podman.sock"), "{error}");
    assert_eq!(host.engine_containers("docker"), Vec::<String>::new());
    // It was not even asked for anything, so nothing can be left of it.
    assert_eq!((host.leased(), host.json(&["list"])["agents"].clone()), (vec![], json!([])));
}

/// An agent is not ended for one that cannot be started in its place.
#[test]
fn a_runtime_that_is_out_of_reach_takes_over_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("config");
    let text = "clusters: [{ name: a, cluster: { server: 'http://127.0.0.1:1' } }]\n\
        contexts: [{ name: a, context: { cluster: a, user: a } }]\n\
        users: [{ name: a, user: {} }]\n\
        current-context: a\n";
    std::fs::write(&kubeconfig, text).unwrap();
    let mut host = Host::with_pool(4).with_kubeconfig(kubeconfig.to_str().unwrap());
    host.serve();
    host.ok(&["start", "dev", "--runtime", "process", "--", "sleep", "100000"]);
    let agent = host.agent("dev");
    let error = host.error(6, &["start", "dev", "--replace", "--runtime", "kubernetes", "--image", "any"]);
    assert_eq!(error["code"], "runtime_unreachable", "{error}");
    assert_eq!(host.agent("dev"), agent);
}

#[test]
fn where_no_engine_answers_each_is_told_of_and_what_could_be_done() {
    let mut host = Host::with_settings(settings("", &["docker", "podman"]), 4);
    host.serve();
    assert_eq!(host.json(&["broker", "status"])["broker"]["default_runtime"], Value::Null);
    let error = host.error(6, &["start", "dev", "--image", "any", "--", "true"]);
    let message = error["message"].as_str().unwrap();
    for told in ["docker: ", "/nowhere/docker.sock", "podman: ", "/nowhere/podman.sock", "container: "] {
        assert!(message.contains(told), "{error}");
    }
    assert!(error["hint"].as_str().unwrap().contains("--runtime process"), "{error}");
    assert_eq!(host.leased(), []);
}

/// Whoever names an endpoint means that engine: another one is where nobody looks for the agent.
#[test]
fn no_engine_takes_the_place_of_one_that_is_named_and_cannot_be_used() {
    needs_podman!();
    let mut host = Host::with_pool(4);
    host.serve_with(&[("DOCKER_HOST", "ssh://me@build.example")]);
    assert_eq!(host.json(&["broker", "status"])["broker"]["default_runtime"], Value::Null);
    let image = image();
    let error = host.error(6, &["start", "dev", "--image", &image, "--", "sh", "-c", IDLE]);
    assert_eq!(error["code"], "runtime_unreachable");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("DOCKER_HOST: engines behind ssh cannot be used"), "{error}");
    let hint = error["hint"].as_str().unwrap();
    assert!(hint.contains("ssh -nNT -L") && hint.contains("`--runtime`"), "{error}");
    let told = host.run(&["--json", "doctor"]);
    assert_eq!(told.code, 1, "{told:#?}");
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    let checks = told["doctor"]["checks"].as_array().unwrap();
    let check = |name: &str| checks.iter().find(|it| it["name"] == name).unwrap();
    assert_eq!(
        (&check("docker")["state"], &check("default")["state"]),
        (&"warning".into(), &"failed".into())
    );
    let detail = check("default")["detail"].as_str().unwrap();
    assert!(detail.contains("docker is named and cannot be used"), "{told}");
    host.ok(&["start", "dev", "--runtime", "podman", "--image", &image, "--", "sh", "-c", IDLE]);
}

/// What was found, where, and in which version, as the engines' own commands tell it.
#[test]
fn the_doctor_tells_where_each_engine_is_and_its_version() {
    needs_docker!();
    needs_podman!();
    let mut host = Host::with_pool(4).with_fake_container();
    host.serve();
    let found = host.json(&["doctor"])["doctor"]["checks"].clone();
    let detail = |name: &str| {
        let check = found.as_array().unwrap().iter().find(|it| it["name"] == name).unwrap();
        assert_eq!(check["state"], "ok", "{check}");
        check["detail"].as_str().unwrap().to_owned()
    };
    let version = |engine: &str, field: &str| engine_command(engine, &["version", "--format", field]);
    let docker = detail("docker");
    let told = version("docker", "{{.Server.Version}}");
    assert!(docker.contains(told.trim()) && docker.contains("docker.sock"), "{docker}");
    let podman = detail("podman");
    let told = version("podman", "{{.Client.Version}}");
    assert!(podman.contains(told.trim()) && podman.contains("podman.sock"), "{podman}");
    let container = detail("container");
    assert!(container.contains("1.2.0") && container.contains("fakes/container"), "{container}");
}

/// What was looked for and is not here, and what would have to be done for each.
#[test]
fn the_doctor_tells_what_would_have_to_be_done_for_what_is_not_here() {
    let mut host = Host::with_pool(4).with_kubeconfig("");
    let (home, dead) = (host.path("nothing"), host.path("dead.sock"));
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let (home, dead) = (home.to_str().unwrap(), format!("unix://{}", dead.display()));
    // Neither commands nor sockets are found, but Docker's, where none listens any more.
    host.serve_with(&[
        ("PATH", "/nowhere"),
        ("HOME", home),
        ("XDG_RUNTIME_DIR", home),
        ("DOCKER_HOST", &dead),
    ]);
    let told = host.json(&["doctor"])["doctor"].clone();
    assert_eq!(told["healthy"], true, "what is not here is not wrong: {told}");
    let check = |name: &str| {
        let check = told["checks"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap();
        (check["state"].as_str().unwrap(), check["detail"].as_str().unwrap(), check["hint"].as_str().unwrap())
    };
    for (name, expected, to_do) in [
        ("docker", "nothing listens at", "start it (`sudo systemctl start docker`, or Docker Desktop)"),
        ("podman", "there is no `podman` command", "install Podman"),
        ("container", "there is no `container` command", "macOS 26"),
        ("kubernetes", "there is no kubeconfig", "set KUBECONFIG, or make ~/.kube/config"),
    ] {
        let (state, detail, hint) = check(name);
        assert_eq!(state, "absent", "{told}");
        assert!(detail.contains(expected) && hint.contains(to_do), "{name}: {detail}; {hint}");
    }
    let (state, detail, hint) = check("default");
    assert_eq!((state, detail), ("warning", "no container engine answers"));
    assert!(hint.contains("`--runtime process`"), "{hint}");
    // A person reads the same.
    let shown = host.ok(&["doctor"]);
    assert!(shown.contains("→ install Podman") && shown.contains("→ set KUBECONFIG"), "{shown}");
}
