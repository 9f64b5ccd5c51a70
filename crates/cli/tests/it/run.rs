//! Commands in the foreground with ports of their own, and what becomes of the ports whoever is killed.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::*;

/// A `berthold run` under way whose command has said its pid.
struct Running {
    run: Child,
    command: Pid,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    /// Runs `script`, which says `$$` first, in a shell.
    fn start(host: &Host, arguments: &[&str], script: &str) -> Self {
        let mut command = host.command();
        command.arg("run").args(arguments).args(["--", "sh", "-c", &format!("echo $$; {script}")]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::create(host.path("run.err")).unwrap());
        let mut run = command.spawn().unwrap();
        let mut stdout = BufReader::new(run.stdout.take().unwrap());
        let command = pid(&line(&mut stdout));
        Self { run, command, stdout }
    }

    fn kill_run(&mut self) {
        self.run.kill().unwrap();
        self.run.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What has ended already is as it should be.
        kill_process(self.command, Signal::KILL).unwrap_or_default();
        drop(self.run.kill());
        drop(self.run.wait());
    }
}

fn line(stdout: &mut impl BufRead) -> String {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

fn pid(text: &str) -> Pid {
    Pid::from_raw(text.parse().unwrap_or_else(|_| panic!("`{text}` is no pid"))).unwrap()
}

fn holder(host: &Host) -> Value {
    host.json(&["leases"])["leases"][0]["holder"]["pid"].clone()
}

#[test]
fn a_command_has_ports_while_it_runs_and_its_exit_code_is_passed_on() {
    let host = Host::started(6);
    let script = "echo $AVAILABLE_LOCALHOST_PORT_A $AVAILABLE_LOCALHOST_PORT_B $AVAILABLE_LOCALHOST_PORT_C $BERTHOLD_AGENT \
        $MINE $OWN; pwd; cat; exit 7";
    let mut run = host
        .command()
        .args(["run", "dev", "-e", "MINE=1", "--", "sh", "-c", script])
        .env("AVAILABLE_LOCALHOST_PORT_C", "9")
        .env("OWN", "2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    run.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let (a, b, home) = (host.port(0), host.port(1), host.path("").canonicalize().unwrap());
    let expected = format!("{a} {b} {}/dev 1 2\n{}\ntyped\n", host.project(), home.display());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("http://localhost:{a}")), "{output:?}");
    assert_eq!(host.leased(), [], "they are given back before the command returns");
    assert_eq!(host.json(&["leases"]), json!({ "leases": [] }));
    assert_eq!(host.run(&["run", "--", "sh", "-c", "kill -KILL $$"]).code, 137);
    let done = host.run(&["run", "--", "no-such-command"]);
    assert_eq!(done.code, 127, "{done:?}");
    assert!(done.stderr.contains("no-such-command cannot be run"), "{done:?}");
    assert_eq!(host.leased(), []);
}

/// The command may be over before its lease could be handed over to it.
#[test]
fn commands_that_are_over_at_once_leave_nothing() {
    let host = Host::started(4);
    for _ in 0..20 {
        let done = host.run(&["run", "-q", "--", "true"]);
        assert_eq!((done.code, done.stderr.as_str()), (0, ""));
        assert_eq!(host.leased(), []);
    }
    assert_eq!(
        host.json(&["ports"])["pool"]["counts"]["remembered"],
        0,
        "names of its own are not remembered"
    );
}

#[test]
fn signals_are_passed_on() {
    let host = Host::started(6);
    for (signal, name) in
        [(Signal::INT, "INT"), (Signal::TERM, "TERM"), (Signal::HUP, "HUP"), (Signal::USR1, "USR1")]
    {
        let script =
            format!("trap 'echo got {name}; exit 5' {name}; echo ready; while :; do sleep 0.05; done");
        let mut running = Running::start(&host, &["dev"], &script);
        assert_eq!(line(&mut running.stdout), "ready");
        kill_process(pid(&running.run.id().to_string()), signal).unwrap();
        assert_eq!(line(&mut running.stdout), format!("got {name}"));
        assert_eq!(running.run.wait().unwrap().code(), Some(5), "{name}");
        assert_eq!(host.leased(), []);
    }
    let mut running = Running::start(&host, &["dev"], "exec sleep 100000");
    kill_process(pid(&running.run.id().to_string()), Signal::TERM).unwrap();
    assert_eq!(running.run.wait().unwrap().code(), Some(143));
}

#[test]
fn what_is_ignored_stays_so() {
    let host = Host::started(6);
    let script =
        "trap '' HUP; exec $BERTHOLD run -q dev -- sh -c 'kill -HUP $PPID; kill -HUP $$; echo survived'";
    let output = host.command_of("sh").args(["-c", script]).env("BERTHOLD", BERTHOLD).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "survived\n", "{output:?}");
    assert_eq!(output.status.code(), Some(0));
}

/// P3 and P4.
#[test]
fn a_killed_run_leaves_the_ports_to_its_command_and_nothing_after_that() {
    let host = Host::started(6);
    let mut running = Running::start(&host, &["dev"], "exec sleep 100000");
    let command = running.command.as_raw_nonzero().get();
    eventually("the lease is the command's", || holder(&host) == command);
    running.kill_run();
    let error = host.error(7, &["release", "dev"]);
    assert!(error["message"].as_str().unwrap().contains(&format!("process {command} still runs")), "{error}");
    assert_eq!(host.leased().len(), 2, "the command lives");
    kill_process(running.command, Signal::KILL).unwrap();
    eventually("the lease has ended", || host.leased().is_empty());
    let lease = host.json(&["lease", "dev"])["lease"].clone();
    assert_eq!(lease["ports"]["A"], host.port(0), "P6");
}

#[test]
fn a_run_and_its_command_killed_together_leave_nothing() {
    let host = Host::started(6);
    let mut running = Running::start(&host, &["dev"], "exec sleep 100000");
    kill_process(running.command, Signal::STOP).unwrap();
    kill_process(pid(&running.run.id().to_string()), Signal::STOP).unwrap();
    kill_process(running.command, Signal::KILL).unwrap();
    running.kill_run();
    eventually("the lease has ended", || host.leased().is_empty());
}

/// P4: the next broker knows from the ledger whom to look for.
#[test]
fn leases_of_commands_outlive_the_broker_as_far_as_the_commands_do() {
    let mut host = Host::started(6);
    let mut alive = Running::start(&host, &["alive"], "exec sleep 100000");
    let mut dead = Running::start(&host, &["dead"], "exec sleep 100000");
    let mut orderly = Running::start(&host, &["orderly"], "exec sleep 100000");
    assert_eq!(host.leased().len(), 6);
    host.kill_broker();
    alive.kill_run();
    dead.kill_run();
    kill_process(dead.command, Signal::KILL).unwrap();
    host.serve();
    eventually("what is dead is known to be", || host.leased().len() == 4);
    kill_process(alive.command, Signal::KILL).unwrap();
    eventually("the end of the command is known", || host.leased().len() == 2);
    // The command whose `run` still waits gives its ports back to a broker that is not the one they came from.
    kill_process(orderly.command, Signal::TERM).unwrap();
    assert_eq!(orderly.run.wait().unwrap().code(), Some(143));
    assert_eq!(host.leased(), []);
}

/// The end of the command while no broker is there.
#[test]
fn a_command_that_ends_without_a_broker_is_found_out_by_the_next() {
    let mut host = Host::started(6);
    let mut running = Running::start(&host, &["dev"], "exec sleep 100000");
    host.kill_broker();
    kill_process(running.command, Signal::TERM).unwrap();
    assert_eq!(running.run.wait().unwrap().code(), Some(143), "the exit code is passed on all the same");
    let said = std::fs::read_to_string(host.path("run.err")).unwrap();
    assert!(said.contains("the broker takes the ports back once nobody has them"), "{said}");
    host.serve();
    // An engine may not have told yet what it publishes.
    eventually_or("its lease has ended", || host.leased().is_empty(), || host.broker_log());
}

/// P3: what the command leaves running may use the ports.
#[test]
fn what_a_command_leaves_behind_keeps_its_ports() {
    let host = Host::started(6);
    let script = "setsid sleep 100000 >/dev/null 2>&1 & echo $!";
    let mut running = Running::start(&host, &["dev"], script);
    let left = pid(&line(&mut running.stdout));
    assert_eq!(running.run.wait().unwrap().code(), Some(0));
    let said = std::fs::read_to_string(host.path("run.err")).unwrap();
    assert!(said.contains("still runs"), "{said}");
    assert_eq!(host.leased().len(), 2);
    kill_process(left, Signal::KILL).unwrap();
    eventually("the lease has ended", || host.leased().is_empty());
}

#[test]
fn a_listener_on_a_port_of_a_command_keeps_it_whoever_that_is() {
    let host = Host::started(6);
    let mut running = Running::start(&host, &["dev"], "exec sleep 100000");
    let listener = TcpListener::bind(("127.0.0.1", host.port(1))).unwrap();
    kill_process(running.command, Signal::TERM).unwrap();
    assert_eq!(running.run.wait().unwrap().code(), Some(143));
    let said = std::fs::read_to_string(host.path("run.err")).unwrap();
    assert!(said.contains(&format!("port {} is still in use", host.port(1))), "{said}");
    assert_eq!(host.leased().len(), 2);
    drop(listener);
    eventually("the lease has ended", || host.leased().is_empty());
}

#[test]
fn under_one_name_there_is_one_command_at_a_time() {
    let host = Host::started(8);
    let running = Running::start(&host, &["dev"], "exec sleep 100000");
    let command = running.command.as_raw_nonzero().get();
    eventually("the lease is the command's", || holder(&host) == command);
    for arguments in
        [&["run", "dev", "--", "true"][..], &["lease", "dev"], &["lease", "dev", "-n", "3", "--replace"]]
    {
        let done = host.run(arguments);
        assert_eq!(done.code, 7, "{done:?}");
        assert!(done.stderr.contains(&format!("ends with process {command} (`sh -c ")), "{done:?}");
    }
    let table = host.ok(&["leases"]);
    assert!(table.contains(&format!("process {command} ends")), "{table}");
    let table = host.ok(&["ports"]);
    assert!(table.contains(&format!("bare lease, until process {command} ends")), "{table}");
    host.ok(&["release", "dev", "--force"]);
    assert_eq!(host.leased(), []);
    host.ok(&["lease", "db"]);
    let done = host.run(&["run", "db", "--", "true"]);
    assert_eq!(done.code, 7, "{done:?}");
    assert!(done.stderr.contains("lives until it is released"), "{done:?}");
}

#[test]
fn commands_without_a_name_run_side_by_side() {
    let host = Host::started(6);
    let running: Vec<Running> = (0..3).map(|_| Running::start(&host, &[], "exec sleep 100000")).collect();
    assert_eq!(host.leased().len(), 6);
    let done = host.run(&["run", "--", "true"]);
    assert_eq!(done.code, 4, "{done:?}");
    drop(running);
    eventually("the leases have ended", || host.leased().is_empty());
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let host = Host::started(4);
    let error = host.error(2, &["run", "--", "true"]);
    assert!(error["message"].as_str().unwrap().contains("not one JSON document"), "{error}");
    assert_eq!(host.run(&["run", "-e", "BERTHOLD_LEASE=x", "--", "true"]).code, 2);
    assert_eq!(host.run(&["run", "dev", "true"]).code, 2);
    let mut host = Host::with_settings(|_| "server: { broker: { listen: none } }\n".to_owned(), 1);
    host.serve();
    let done = host.run(&["run", "--", "true"]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.stderr.contains("no port pool") && done.stderr.contains("hint:"), "{done:?}");
}

/// A broker that a command within started is no part of it: the lease ends though the broker goes on.
#[test]
fn a_broker_that_was_started_within_does_not_keep_the_lease() {
    let host = Host::with_pool(6);
    let inner = host.path("inner");
    std::fs::create_dir(&inner).unwrap();
    let script = "BERTHOLD_HOME=$INNER $BERTHOLD list";
    let mut command = host.command();
    command.args(["run", "dev", "--", "sh", "-c", script]).env("INNER", &inner).env("BERTHOLD", BERTHOLD);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let stopped = host.command().args(["broker", "stop"]).env("BERTHOLD_HOME", &inner).output().unwrap();
    assert!(output.status.success() && stopped.status.success(), "{output:?} {stopped:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("still runs"), "{output:?}");
    assert_eq!(host.leased(), []);
}

/// L6: an engine may publish a port without a socket of the host. A broker that has just started knows of none as long as that does not tell.
#[test]
fn a_lease_stays_while_an_engine_has_yet_to_say_what_it_publishes() {
    needs_docker!();
    let (mut host, socket) = Host::with_engine("300ms", 4);
    let engine = Between::open(&socket);
    host.serve();
    let mut running = Running::start(&host, &["dev"], "exec sleep 100000");
    host.kill_broker();
    drop(engine);
    running.kill_run();
    drop(running);
    host.serve();
    let is_told =
        || host.broker_log().contains("it is not known whether a port of a lease is published there");
    eventually_or("it is told", is_told, || host.broker_log());
    assert_eq!(host.leased().len(), 2);
    let _engine = Between::open(&socket);
    eventually_or("it ends", || host.leased().is_empty(), || host.broker_log());
}
