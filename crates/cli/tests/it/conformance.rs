//! What every runtime must do alike: one set of cases, run against each runtime that is here, by name. What a runtime cannot
//! do, it refuses with a clear error, and the case asserts the refusal. A case that is about nothing that a runtime has or refuses
//! ends with [`Subject::has_no_such_case`].
//!
//! `.ci/conformance-table` makes a table of it: by what a test says that ends without having tested anything it tells `-` from `ok`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::*;
use crate::typist::Typist;

/// A runtime under test.
struct Subject {
    name: &'static str,
    /// What it is called by those who run it: the name, except where one runtime is here in two ways.
    engine: &'static str,
}

impl Subject {
    const DOCKER: Self = Self::called("docker");
    const PODMAN: Self = Self::called("podman");
    /// Podman as a user who is not root runs it.
    const ROOTLESS: Self = Self { name: "podman", engine: ROOTLESS };
    /// A command that stands in for Apple's, since there is no Mac: it keeps its containers on Docker.
    const CONTAINER: Self = Self::called("container");
    const KUBERNETES: Self = Self::called("kubernetes");
    const PROCESS: Self = Self::called("process");

    const fn called(name: &'static str) -> Self {
        Self { name, engine: name }
    }

    /// Whether it is here; where it is required, it must be.
    fn is_here(&self) -> bool {
        match self.engine {
            "process" => true,
            "container" => engine_is_here("docker"),
            "kubernetes" => cluster_is_here(),
            engine => engine_is_here(engine),
        }
    }

    /// A broker that has it.
    fn host(&self) -> Host {
        let host = match rootless_service().filter(|_| self.engine == ROOTLESS) {
            None => Host::with_pool(10),
            Some(service) => rootless_host(&service, 10),
        };
        let mut host = if self.name == "container" { host.with_fake_container() } else { host };
        host.serve();
        host
    }

    /// Whether it tells with which code something ended.
    fn tells_exit_codes(&self) -> bool {
        self.name != "container"
    }

    /// Whether something can be run without any network.
    fn has_no_network(&self) -> bool {
        !matches!(self.name, "process" | "kubernetes")
    }

    /// Whether something that runs can be attached to.
    fn has_consoles(&self) -> bool {
        !matches!(self.name, "process" | "container")
    }

    fn has_host_network(&self) -> bool {
        self.name != "container"
    }

    fn has_images(&self) -> bool {
        self.name != "process"
    }

    /// Says that the case is not about this runtime, which is neither able to do it nor asked to.
    fn has_no_such_case(&self) {
        drop(writeln!(std::io::stderr(), "{} has no such case: not tested", self.engine));
    }

    /// The arguments that start an agent with `flags` and `command`.
    fn start(&self, name: &str, flags: &[&str], command: &[&str]) -> Vec<String> {
        let mut arguments = vec!["start", name, "--runtime", self.name];
        let image = if self.name == "kubernetes" { cluster_image() } else { image() };
        if self.has_images() {
            arguments.extend(["--image", image.as_str()]);
        }
        arguments.extend(flags);
        arguments.push("--");
        arguments.extend(command);
        arguments.into_iter().map(str::to_owned).collect()
    }

    /// The arguments that start an agent with a web server on all its ports.
    fn web(&self, name: &str, flags: &[&str]) -> Vec<String> {
        let script = "echo $BERTHOLD_AGENT > /tmp/index.html
            httpd -p $AVAILABLE_LOCALHOST_PORT_A -h /tmp
            trap 'exit 0' TERM
            httpd -f -p $AVAILABLE_LOCALHOST_PORT_B -h /tmp & wait";
        let flags = [&["--wait"], flags].concat();
        match self.has_images() {
            true => self.start(name, &flags, &["sh", "-c", script]),
            false => self.start(name, &flags, &[BERTHOLD, "__demo-server"]),
        }
    }

    /// The arguments that start an agent that does nothing, and ends at once when asked to.
    fn idle(&self, name: &str) -> Vec<String> {
        self.start(name, &[], &["sh", "-c", IDLE])
    }

    /// What is there of this broker's agents, as the runtime itself tells it.
    fn leftovers(&self, host: &Host) -> Vec<String> {
        host.leftovers(self.engine)
    }
}

/// A home whose Podman is that of another user.
fn rootless_host(service: &str, ports: u16) -> Host {
    Host::with_settings(
        |range| {
            format!(
                "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{range}\" }} }} }}\n\
                 runtimes: {{ podman: {{ host: \"{service}\" }} }}\n"
            )
        },
        ports,
    )
}

fn strs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn started(host: &Host, arguments: &[String]) -> Value {
    host.json(&strs(arguments))["agent"].clone()
}

fn a_start_gives_ports_that_are_reached(subject: &Subject, host: &mut Host) {
    let agent = started(host, &subject.web("dev", &[]));
    assert_eq!((&agent["runtime"], &agent["state"]), (&json!(subject.name), &json!("running")));
    assert_eq!(agent["ports"], json!({ "A": host.port(0), "B": host.port(1) }));
    for port in [host.port(0), host.port(1)] {
        eventually("both ports answer", || fetch(port).is_some());
        assert!(fetch(port).unwrap().contains("dev"));
    }
}

fn the_variables_are_there_inside(subject: &Subject, host: &mut Host) {
    let script = format!("env; {IDLE}");
    let agent = started(host, &subject.start("dev", &["-e", "MINE=a value"], &["sh", "-c", &script]));
    assert_eq!(agent["urls"]["A"], format!("http://localhost:{}", host.port(0)));
    let expected = [
        format!("AVAILABLE_LOCALHOST_PORT_A={}", host.port(0)),
        format!("AVAILABLE_LOCALHOST_PORT_B={}", host.port(1)),
        format!("BERTHOLD_AGENT={}/dev", host.project()),
        "MINE=a value".to_owned(),
    ];
    let has_all = |text: &str| expected.iter().all(|line| text.lines().any(|it| it == line));
    eventually("all variables are in the log", || has_all(&host.ok(&["logs", "dev"])));
    assert!(has_all(&host.ok(&["exec", "dev", "--", "env"])), "and for what runs beside it");
}

/// `-w`: the directory is there inside, under its own name, whatever is written in it is on the host, and the command starts in it.
fn a_workspace_is_where_the_command_starts(subject: &Subject, host: &mut Host) {
    // Not below the home, which is for its owner alone: an engine may run as another user.
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::write(directory.path().join("note"), "from the host\n").unwrap();
    let path = directory.path().to_str().unwrap();
    let script = format!("pwd; cat note; echo from the agent > answer; {IDLE}");
    started(host, &subject.start("dev", &["-w", path], &["sh", "-c", &script]));
    let expected = format!("{path}\nfrom the host\n");
    eventually("it has read what is there", || host.ok(&["logs", "dev"]) == expected);
    let answer = || std::fs::read_to_string(directory.path().join("answer")).unwrap_or_default();
    eventually("what it wrote is there", || answer() == "from the agent\n");
    assert_eq!(
        host.ok(&["exec", "dev", "--", "sh", "-c", "pwd"]).trim(),
        path,
        "and what runs beside it starts there"
    );
}

fn starting_what_runs_returns_it(subject: &Subject, host: &mut Host) {
    let first = started(host, &subject.idle("dev"));
    assert_eq!(started(host, &subject.idle("dev")), first);
    host.error(7, &strs(&subject.start("dev", &[], &["sleep", "1"])));
    assert_eq!(subject.leftovers(host).len(), 1);
}

fn stop_and_delete_may_be_repeated_and_leave_nothing(subject: &Subject, host: &mut Host) {
    started(host, &subject.web("dev", &[]));
    for _ in 0..2 {
        host.ok(&["stop", "dev"]);
        assert_eq!(fetch(host.port(0)), None);
        assert_eq!(host.leased(), []);
        assert_eq!(host.agent("dev")["state"], "stopped");
    }
    for _ in 0..2 {
        host.ok(&["delete", "dev"]);
        assert_eq!(subject.leftovers(host), Vec::<String>::new());
    }
}

fn a_restart_keeps_the_ports(subject: &Subject, host: &mut Host) {
    started(host, &subject.idle("other"));
    let before = started(host, &subject.web("dev", &[]));
    host.ok(&["restart", "dev", "--wait"]);
    let after = host.agent("dev");
    assert_eq!(after["ports"], before["ports"]);
    assert_ne!(after["lease"], before["lease"]);
    assert!(fetch(host.port(2)).is_some());
    assert_eq!(subject.leftovers(host).len(), 2);
}

fn one_that_ends_by_itself_gives_its_ports_back(subject: &Subject, host: &mut Host) {
    started(host, &subject.start("job", &[], &["sh", "-c", "echo begun; sleep 3; echo done; exit 5"]));
    assert_eq!(host.ok(&["logs", "-f", "job"]), "begun\ndone\n", "a log is followed until the end");
    eventually("its end is noticed", || host.agent("job")["state"] == "exited");
    let code = if subject.tells_exit_codes() { json!(5) } else { Value::Null };
    assert_eq!(host.agent("job")["exit_code"], code);
    assert_eq!(host.leased(), []);
    assert_eq!(host.ok(&["logs", "-n", "1", "job"]), "done\n");
}

fn a_start_that_fails_leaves_nothing(subject: &Subject, host: &mut Host) {
    let error = host.error(1, &strs(&subject.start("bad", &[], &["/no/such/command"])));
    assert_eq!(error["code"], "start_failed", "{error}");
    assert!(error["message"].as_str().unwrap().contains("/no/such/command"), "{error}");
    assert_eq!((host.leased(), subject.leftovers(host)), (vec![], vec![]));
}

/// What was written to either stream, from the beginning or the end, and what is written later.
fn logs_have_all_that_was_written(subject: &Subject, host: &mut Host) {
    let script = "echo one; echo two >&2; sleep 1; echo three; sleep 2; echo four";
    started(host, &subject.start("dev", &[], &["sh", "-c", script]));
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        // Of two streams the order is not known.
        lines.sort();
        lines
    };
    let followed = host.run(&["logs", "-f", "dev"]);
    assert_eq!(lines(&(followed.stdout + &followed.stderr)), ["four", "one", "three", "two"]);
    let last = host.run(&["logs", "-n", "1", "dev"]);
    assert_eq!(lines(&(last.stdout + &last.stderr)), ["four"]);
    assert_eq!(host.error(3, &["logs", "nobody"])["code"], "no_such_agent");
}

fn a_later_broker_finds_them_again(subject: &Subject, host: &mut Host) {
    let running = started(host, &subject.web("dev", &[]));
    let had = started(host, &subject.idle("gone"))["ports"].clone();
    host.ok(&["stop", "gone"]);
    let leased = host.leased();
    started(host, &subject.start("short", &[], &["sh", "-c", "sleep 3"]));
    host.kill_broker();
    host.serve();
    let listed = || -> Vec<(String, String)> {
        let agents = host.json(&["list"])["agents"].as_array().unwrap().clone();
        let text = |agent: &Value, field: &str| agent[field].as_str().unwrap().to_owned();
        agents.iter().map(|agent| (text(agent, "name"), text(agent, "state"))).collect()
    };
    let expected = [("dev", "running"), ("gone", "stopped"), ("short", "exited")];
    let expected = expected.map(|(name, state)| (name.to_owned(), state.to_owned()));
    eventually_or("all are listed as they are", || listed() == expected, || format!("{:?}", listed()));
    let ports: Vec<Value> = had.as_object().unwrap().values().cloned().collect();
    assert_eq!(host.agent("gone")["former_ports"], json!(ports));
    for field in ["id", "lease", "ports", "state", "started_at"] {
        assert_eq!(host.agent("dev")[field], running[field], "{field}");
    }
    assert_eq!(host.leased(), leased);
    assert!(fetch(host.port(0)).is_some(), "it was not touched");
}

/// Each port has a name that leads to it from the broker's own address, wherever the agent runs.
fn its_previews_lead_to_it(subject: &Subject, host: &mut Host) {
    host.stop_broker();
    let (path, listen) = (host.path("settings.yaml"), host.port(RANGE_SIZE - 1));
    let settings = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, settings.replace("listen: none", &format!("listen: \"127.0.0.1:{listen}\"")))
        .unwrap();
    host.serve();
    started(host, &subject.web("dev", &[]));
    for label in ["a", "b"] {
        let name = format!("{label}.dev.{}.localhost:{listen}", host.project());
        let ask = || {
            let mut stream = TcpStream::connect(("127.0.0.1", listen)).unwrap();
            write!(stream, "GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        let is_its = |answer: &str| answer.starts_with("HTTP/1.1 200") && answer.contains("/dev");
        eventually_or("it leads to the agent", || is_its(&ask()), || format!("{name}: {}", ask()));
    }
}

/// P8: without the ledger it is known by its labels alone, which are as they were written.
fn its_labels_alone_bring_an_agent_back(subject: &Subject, host: &mut Host) {
    let running = started(host, &subject.web("dev", &[]));
    let leased = host.leased();
    host.stop_broker();
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        drop(std::fs::remove_file(host.path(name)));
    }
    host.serve();
    for field in ["id", "lease", "ports", "state"] {
        assert_eq!(host.agent("dev")[field], running[field], "{field}");
    }
    assert_eq!(host.leased(), leased);
    assert!(fetch(host.port(0)).is_some(), "it was not touched");
    // P5: it runs, so its start succeeds, though what it runs is not known any more.
    assert_eq!(started(host, &["start".to_owned(), "dev".to_owned()])["lease"], running["lease"]);
    host.ok(&["delete", "dev"]);
    assert_eq!(host.leased(), []);
}

fn exec_passes_input_output_and_exit_code_on(subject: &Subject, host: &mut Host) {
    started(host, &subject.idle("dev"));
    let done = host.run(&["exec", "dev", "--", "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (42, "out\n", "err\n"));
    let mut child = host
        .command()
        .args(["exec", "-i", "dev", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"to and fro").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"to and fro".as_slice()));
    host.ok(&["stop", "dev"]);
    assert_eq!(host.error(1, &["exec", "dev", "--", "true"])["code"], "not_running");
}

fn an_attached_terminal_resizes_and_can_be_left(subject: &Subject, host: &mut Host) {
    let arguments = subject.start("dev", &["-it"], &["sh"]);
    if !subject.has_consoles() {
        assert_eq!(host.error(2, &strs(&arguments))["code"], "unsupported");
        assert_eq!((host.leased(), subject.leftovers(host)), (vec![], vec![]));
        started(host, &subject.idle("dev"));
        let refused = host.run(&["attach", "dev"]);
        assert_eq!(refused.code, 2, "{refused:?}");
        return;
    }
    started(host, &arguments);
    let mut typist = Typist::start(host, &["attach", "dev"], (100, 30));
    typist.sees("leave with ctrl-p ctrl-q");
    typist.types("WORD=kept\n");
    let mut asked = 0;
    for (size, shown) in [((100, 30), "30 100"), ((90, 20), "20 90")] {
        typist.resize(size);
        eventually(&format!("the size {shown} is known inside"), || {
            asked += 1;
            // What is typed faster than the shell reads it fills the terminal, and then conmon neither writes nor reads: so every
            // command is waited for, by what it says that was not typed.
            typist.types(&format!("stty size; echo answer $((0 + {asked})).\n"));
            typist.sees(&format!("answer {asked}."));
            typist.shown().contains(shown)
        });
    }
    typist.types("\x10\x11");
    typist.sees("which goes on");
    assert_eq!(typist.code(), 0);
    // Where its output goes elsewhere, keys are keys all the same.
    let piped = host.command_of("sh");
    let mut typist = Typist::start_program(&piped, &["-c", "\"$0\" attach dev | cat", BERTHOLD], (100, 30));
    typist.sees("leave with ctrl-p ctrl-q");
    eventually("the terminal is taken", || typist.is_raw());
    typist.types("\x10\x11");
    typist.sees("which goes on");
    assert_eq!(typist.code(), 0);
    assert_eq!(host.agent("dev")["state"], "running");
    let mut typist = Typist::start(host, &["attach", "dev"], (100, 30));
    typist.types("echo $WORD-$WORD; exit 7\n");
    typist.sees("kept-kept");
    assert_eq!(typist.code(), 7);
    eventually("its end is noticed", || host.agent("dev")["state"] == "exited");
    assert_eq!(host.run(&["attach", "dev"]).code, 1, "there is nothing to attach to any more");
}

fn what_is_attached_without_a_terminal_is_piped(subject: &Subject, host: &mut Host) {
    let script = "while read word; do echo got $word; echo heard $word >&2; done; echo over; sleep 100000";
    let arguments = subject.start("dev", &["-i"], &["sh", "-c", script]);
    if !subject.has_consoles() {
        assert_eq!(host.error(2, &strs(&arguments))["code"], "unsupported");
        assert_eq!((host.leased(), subject.leftovers(host)), (vec![], vec![]));
        return;
    }
    started(host, &arguments);
    let attached = |word: &str| {
        let pipe = Stdio::piped;
        let mut child = host.command();
        let mut child =
            child.args(["attach", "dev"]).stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{word}").unwrap();
        let line = |of: &mut dyn std::io::Read| {
            let mut line = String::new();
            BufReader::new(of).read_line(&mut line).unwrap();
            line
        };
        assert_eq!(line(child.stdout.as_mut().unwrap()), format!("got {word}\n"));
        assert_eq!(line(child.stderr.as_mut().unwrap()), format!("heard {word}\n"));
        // The end of its input is not that of the agent's.
        drop(child.stdin.take());
        child
    };
    for word in ["first", "second"] {
        let mut child = attached(word);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(!host.ok(&["logs", "dev"]).contains("over"));
    let mut child = attached("third");
    host.ok(&["stop", "dev", "-t", "0s"]);
    assert_ne!(child.wait().unwrap().code(), Some(0), "the agent's end is that of the attachment");
}

fn two_starts_at_once_are_one(subject: &Subject, host: &mut Host) {
    let arguments = subject.idle("dev");
    let spawn = || {
        let mut command = host.command();
        command.arg("--json").args(&arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let children = [spawn(), spawn(), spawn()];
    let leases: std::collections::BTreeSet<String> = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
            serde_json::from_slice::<Value>(&output.stdout).unwrap()["agent"]["lease"].to_string()
        })
        .collect();
    assert_eq!(leases.len(), 1);
    assert_eq!((host.leased().len(), subject.leftovers(host).len()), (2, 1));
}

fn on_the_host_network_nothing_is_claimed_to_be_published(subject: &Subject, host: &mut Host) {
    let web = subject.web("dev", &["--network", "host"]);
    if subject.has_host_network() {
        assert_eq!(started(host, &web)["published"], "host network");
        assert!(fetch(host.port(0)).is_some(), "it binds its port itself");
        host.ok(&["delete", "dev"]);
    } else {
        assert_eq!(host.error(2, &strs(&web))["code"], "unsupported");
        assert_eq!((host.leased(), subject.leftovers(host)), (vec![], vec![]));
    }
    let arguments = subject.start("closed", &["--network", "none"], &["sh", "-c", "sleep 100000"]);
    if subject.has_no_network() {
        let agent = started(host, &arguments);
        assert_eq!((&agent["published"], &agent["urls"]), (&Value::Null, &json!({})));
        host.ok(&["delete", "closed", "-t", "0s"]);
    } else {
        assert_eq!(host.error(2, &strs(&arguments))["code"], "unsupported");
        assert_eq!(host.leased(), []);
    }
}

/// P7, L2: someone takes a port after it was probed and leased, and before the engine binds it.
fn a_port_that_the_engine_refuses_is_blocked_and_another_is_tried(subject: &Subject, host: &mut Host) {
    if !subject.has_images() {
        // Nothing binds a port for a process, so nothing can refuse one.
        return subject.has_no_such_case();
    }
    let mut events = Events::of(host);
    let first = host.port(0);
    let thief = std::thread::spawn(move || {
        let _lease = events.until(|event| event["event"] == "pool");
        TcpListener::bind(("127.0.0.1", first))
    });
    let agent = started(host, &subject.idle("dev"));
    let _thief = thief.join().unwrap().unwrap();
    assert_eq!(agent["ports"], json!({ "A": host.port(2), "B": host.port(1) }), "B keeps its port");
    let pool = host.json(&["ports"])["pool"].clone();
    assert_eq!((&pool["counts"]["blocked"], &pool["counts"]["leased"]), (&json!(1), &json!(2)));
    assert_eq!(subject.leftovers(host).len(), 1, "what was refused is removed");
}

macro_rules! conformance {
    ($($runtime:ident = $subject:expr => [$($case:ident),* $(,)?];)*) => {
        $(mod $runtime {
            $(#[test]
            fn $case() {
                let subject = $subject;
                if !subject.is_here() {
                    eprintln!("{} is not here: not tested", subject.engine);
                    return;
                }
                let mut host = subject.host();
                super::$case(&subject, &mut host);
            })*
        })*
    };
}

macro_rules! for_every_runtime {
    ($($case:ident),* $(,)?) => {
        conformance! {
            docker = super::Subject::DOCKER => [$($case),*];
            podman = super::Subject::PODMAN => [$($case),*];
            rootless = super::Subject::ROOTLESS => [$($case),*];
            container = super::Subject::CONTAINER => [$($case),*];
            kubernetes = super::Subject::KUBERNETES => [$($case),*];
            process = super::Subject::PROCESS => [$($case),*];
        }
    };
}

for_every_runtime! {
    a_start_gives_ports_that_are_reached,
    the_variables_are_there_inside,
    a_workspace_is_where_the_command_starts,
    starting_what_runs_returns_it,
    stop_and_delete_may_be_repeated_and_leave_nothing,
    a_restart_keeps_the_ports,
    one_that_ends_by_itself_gives_its_ports_back,
    a_start_that_fails_leaves_nothing,
    a_later_broker_finds_them_again,
    its_labels_alone_bring_an_agent_back,
    its_previews_lead_to_it,
    logs_have_all_that_was_written,
    exec_passes_input_output_and_exit_code_on,
    an_attached_terminal_resizes_and_can_be_left,
    what_is_attached_without_a_terminal_is_piped,
    two_starts_at_once_are_one,
    on_the_host_network_nothing_is_claimed_to_be_published,
    a_port_that_the_engine_refuses_is_blocked_and_another_is_tried,
}

/// A port that the engine may not have, whoever holds it, is not one that someone else has.
#[test]
fn a_rootless_engine_has_no_privileged_ports_and_says_so() {
    if !Subject::ROOTLESS.is_here() {
        eprintln!("{ROOTLESS} is not here: not tested");
        return;
    }
    let service = rootless_service().unwrap();
    let mut host = Host::with_settings(
        |_| {
            format!(
                "server: {{ broker: {{ listen: none, port_pool: {{ range: \"1000-1009\" }} }} }}\n\
                 runtimes: {{ podman: {{ host: \"{service}\" }} }}\n"
            )
        },
        1,
    );
    host.serve();
    let error = host.error(8, &strs(&Subject::ROOTLESS.idle("dev")));
    assert!(error["message"].as_str().unwrap().contains("privileged port 1000"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("ip_unprivileged_port_start"), "{error}");
    assert_eq!(Subject::ROOTLESS.leftovers(&host), Vec::<String>::new());
    let pool = host.json(&["ports"])["pool"].clone();
    assert_eq!((&pool["counts"]["blocked"], &pool["counts"]["free"]), (&json!(0), &json!(10)));
}

/// One pool for all runtimes: agents that start on Docker, on Podman and as processes at once share no number.
#[test]
fn docker_and_podman_share_a_pool_and_no_port() {
    if !Subject::DOCKER.is_here() || !Subject::PODMAN.is_here() {
        eprintln!("Docker and Podman are not both here: not tested");
        return;
    }
    let host = Host::started(20);
    let subjects = [Subject::DOCKER, Subject::PODMAN, Subject::PROCESS];
    std::thread::scope(|scope| {
        for (number, subject) in subjects.iter().cycle().take(6).enumerate() {
            let host = &host;
            scope.spawn(move || started(host, &subject.web(&format!("a{number}"), &[])));
        }
    });
    let ports: std::collections::BTreeSet<u16> = host.leased().into_iter().map(|(_, port)| port).collect();
    assert_eq!(ports.len(), 12);
    for name in (0..6).map(|number| format!("a{number}")) {
        let port = host.agent(&name)["ports"]["A"].as_u64().unwrap();
        assert!(fetch(u16::try_from(port).unwrap()).unwrap().contains(&name));
    }
}
