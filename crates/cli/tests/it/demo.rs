//! `berthold demo`, which leaves nothing behind however it ends.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::*;

/// A directory for the scratch homes of a test's demos, so that what they leave behind is seen.
struct Stage {
    directory: TempDir,
}

impl Stage {
    fn new() -> Self {
        Self { directory: tempfile::Builder::new().prefix("bt").tempdir_in("/tmp").unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BERTHOLD);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BERTHOLD_") {
                command.env_remove(name);
            }
        }
        // A home of the test's own keeps out whatever broker the person has who runs it.
        command.env("BERTHOLD_HOME", self.directory.path().join("home"));
        command.env("TMPDIR", self.directory.path()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a demo to its end, which must be a good one; its document.
    fn demo(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[&["demo", "--json"], arguments].concat()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["demo"].clone()
    }

    /// Starts a demo of processes and waits until `agent` runs; its messages from then on, its home, and a port.
    fn running(&self, agent: &str) -> (Child, BufReader<ChildStderr>, PathBuf, u16) {
        let mut demo = self.command(&["demo", "--runtime", "process"]);
        let mut demo = demo.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut messages = BufReader::new(demo.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with(&format!("· {agent} runs")) {
            line.clear();
            assert!(messages.read_line(&mut line).unwrap() > 0, "the demo ended early");
        }
        let mut homes = fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let home = homes.find(|path| path.join("broker.lock").exists()).expect("the broker has a home");
        let port = line.split_whitespace().last().unwrap().parse().unwrap();
        (demo, messages, home, port)
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(self.directory.path()).unwrap().next().is_none()
    }
}

fn ports(demo: &Value) -> Vec<u16> {
    let answers = demo["answers"].as_array().unwrap();
    answers.iter().map(|answer| u16::try_from(answer["port"].as_u64().unwrap()).unwrap()).collect()
}

fn check_complete(demo: &Value, runtime: &str) {
    assert_eq!(demo["runtime"], runtime, "{demo:#}");
    let ports = ports(demo);
    let first = ports[0];
    assert_eq!(ports, [first, first + 1, first + 2, first + 3]);
    for (answer, name) in demo["answers"].as_array().unwrap().iter().zip(["ada", "ada", "bert", "bert"]) {
        assert_eq!(answer["agent"], name);
        assert_eq!(answer["status"], 200);
        assert_eq!(answer["title"], format!("{name} · port {}", answer["port"]));
    }
    assert_eq!(demo["pool"]["counts"]["leased"], 4);
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("0.0.0.0", port)).is_ok()
}

fn signal(process: &str, name: &str) {
    assert!(Command::new("kill").args([name, process]).status().unwrap().success());
}

fn broker_of(home: &Path) -> String {
    fs::read_to_string(home.join("broker.lock")).unwrap().trim().to_owned()
}

#[test]
fn processes_where_no_engine_answers() {
    let stage = Stage::new();
    let mut command = stage.command(&["demo", "--json"]);
    let output = command.env("DOCKER_HOST", "unix:///nowhere/docker.sock").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let demo = &document["demo"];
    check_complete(demo, "process");
    assert_eq!(demo["reason"], "docker cannot be reached: there is no unix:///nowhere/docker.sock");
    assert!(String::from_utf8_lossy(&output.stderr).contains("so the agents run as plain processes"));
    assert!(ports(demo).into_iter().all(is_free));
    assert!(stage.is_empty());
}

#[test]
fn containers_of_an_image_that_is_made_on_the_spot_and_goes_again() {
    needs_docker!();
    let stage = Stage::new();
    let demo = stage.demo(&["--runtime", "docker"]);
    check_complete(&demo, "docker");
    assert!(stage.is_empty());
    let project = demo["agents"][0]["project"].as_str().unwrap();
    let left = docker(&["ps", "-aq", "--filter", &format!("label=berthold.project={project}")]);
    assert_eq!(left.trim(), "");
    let image = demo["agents"][0]["image"].as_str().unwrap();
    assert!(image.starts_with("localhost/berthold-demo:"), "{image}");
    let images = docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(!images.lines().any(|line| line == image), "{images}");
}

#[test]
fn a_demo_that_is_kept_goes_on_until_its_own_instructions_end_it() {
    let stage = Stage::new();
    let mut command = stage.command(&["demo", "--keep", "--json", "--runtime", "process"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ports = ports(&document["demo"]);
    assert!(ports.iter().all(|port| fetch(*port).is_some_and(|page| page.contains("You are here"))));
    let messages = String::from_utf8_lossy(&output.stderr);
    let line = |part: &str| messages.lines().find(|line| line.contains(part)).unwrap().trim().to_owned();
    let script = format!("{} && {}", line("export BERTHOLD_HOME="), line("delete --all"));
    let ended = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(ended.status.success(), "{script}: {ended:?}");
    assert!(ports.into_iter().all(is_free));
    assert!(stage.is_empty());
}

#[test]
fn a_signal_ends_everything_in_order() {
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let stage = Stage::new();
        let (mut demo, mut messages, _, port) = stage.running("bert");
        signal(&demo.id().to_string(), name);
        let mut rest = String::new();
        messages.read_to_string(&mut rest).unwrap();
        let status = demo.wait().unwrap();
        // It may have been quicker than the signal, and is then as good.
        assert!([Some(code), Some(0)].contains(&status.code()), "{status}: {rest}");
        assert!(stage.is_empty() && is_free(port), "{rest}");
    }
}

#[test]
fn agents_are_ended_though_their_broker_has_died() {
    let stage = Stage::new();
    let (mut demo, mut messages, home, port) = stage.running("ada");
    // Held back while bert is being started, so that the broker dies in the middle of that.
    signal(&demo.id().to_string(), "-STOP");
    let broker = broker_of(&home);
    signal(&broker, "-KILL");
    signal(&demo.id().to_string(), "-CONT");
    let mut rest = String::new();
    messages.read_to_string(&mut rest).unwrap();
    let status = demo.wait().unwrap();
    assert_eq!(status.code(), Some(5), "{rest}");
    assert!(stage.is_empty() && is_free(port), "{rest}");
}
