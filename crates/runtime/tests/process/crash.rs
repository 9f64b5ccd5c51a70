//! What is killed, and what a later broker then finds.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use runtime::process::Identity;
use runtime::{ObservedState, Runtime};
use rustix::process::Signal;

use crate::host::{BROKER, ENOUGH, Host, SHIM, exited, process_called, processes, shell, spec, until};

/// A broker that creates and starts an agent, says so, and goes on until it is killed.
pub(crate) fn broker(directory: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let processes = processes(directory);
        let script = "echo ready; trap 'exit 4' TERM; while :; do sleep 0.01; done";
        let created = processes.create(&shell("dev", script)).await.unwrap();
        println!("created");
        processes.start(&created.id).await.unwrap();
        println!("started");
        std::future::pending().await
    })
}

fn start_broker(host: &Host) -> Child {
    let mut broker = Command::new(std::env::current_exe().unwrap());
    broker.arg(BROKER).arg(host.directory()).stdin(Stdio::null()).stdout(Stdio::piped());
    broker.spawn().unwrap()
}

pub(crate) async fn an_agent_outlives_its_broker(host: &Host) {
    let mut broker = start_broker(host);
    let lines = BufReader::new(broker.stdout.take().unwrap()).lines();
    assert_eq!(lines.take(2).collect::<Result<Vec<_>, _>>().unwrap(), ["created", "started"]);
    broker.kill().unwrap();
    broker.wait().unwrap();

    let listed = host.processes.list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(matches!(listed[0].state, ObservedState::Running { since: Some(_) }), "{listed:?}");
    host.output_with("dev", "ready").await;
    assert!(host.recorded("dev", "shim.json").is_alive().unwrap());
    host.recorded("dev", "started.json").signal(Signal::TERM).unwrap();
    assert_eq!(host.ended("dev").await, (Some(4), None));
    // And yet another broker sees the same.
    let later = processes(&host.directory());
    assert_eq!(exited(later.inspect("dev").await.unwrap()), (Some(4), None));
}

pub(crate) async fn an_agent_whose_shim_was_killed_is_known_and_stopped(host: &Host) {
    let daemon = "setsid sh -c \"echo \\$\\$ daemon; exec sleep 1000\"";
    let id = host.start_ready("dev", &format!("{daemon} & sleep 1000 & echo ready; wait")).await;
    let daemon = process_called("daemon", &host.output_with(&id, "daemon").await);
    kill(&host.recorded("dev", "shim.json")).await;
    assert!(host.is_running(&id).await);
    host.processes.start(&id).await.unwrap();

    let later = processes(&host.directory());
    later.stop("dev", ENOUGH).await.unwrap();
    assert!(!daemon.is_alive().unwrap());
    assert!(!host.recorded("dev", "started.json").is_alive().unwrap());
    for _ in 0..2 {
        let (code, detail) = exited(later.inspect("dev").await.unwrap());
        assert_eq!(code, None);
        assert!(detail.unwrap().contains("shim"));
    }
}

pub(crate) async fn what_outlived_shim_and_command_is_known_and_stopped(host: &Host) {
    let daemon = "setsid sh -c \"echo \\$\\$ daemon; exec sleep 1000\"";
    let id = host.start_ready("dev", &format!("{daemon} & echo ready; exec sleep 1000")).await;
    let daemon = process_called("daemon", &host.output_with(&id, "daemon").await);
    kill(&host.recorded("dev", "shim.json")).await;
    kill(&host.recorded("dev", "started.json")).await;
    assert!(host.is_running(&id).await, "the daemon lives");
    assert!(matches!(
        host.processes.wait_for_end(&id, Duration::from_millis(100)).await.unwrap().unwrap().state,
        ObservedState::Running { .. }
    ));
    host.processes.remove(&id).await.unwrap();
    assert!(!daemon.is_alive().unwrap());
}

pub(crate) async fn a_reused_pid_is_never_signalled(host: &Host) {
    let mut stranger = Command::new("setsid").args(["sleep", "1000"]).spawn().unwrap();
    let stranger_identity = Identity::of(stranger.id()).unwrap().unwrap();
    let truth = serde_json::to_value(&stranger_identity).unwrap();
    let forge = |field: &str| {
        let mut forged = truth.clone();
        forged[field] = "1".into();
        forged["at"] = "2026-11-23T09:00:00Z".into();
        forged.to_string()
    };
    for field in ["start_time", "boot_id"] {
        let id = host.processes.create(&spec("dev", &["true"])).await.unwrap().id;
        std::fs::write(host.file("dev", "started.json"), forge(field)).unwrap();
        std::fs::write(host.file("dev", "shim.json"), forge(field)).unwrap();
        host.processes.stop(&id, Duration::ZERO).await.unwrap();
        assert_eq!(exited(host.processes.inspect(&id).await.unwrap()).0, None);
        host.processes.remove(&id).await.unwrap();
        assert!(
            stranger_identity.is_alive().unwrap(),
            "a stranger was ended for its pid, despite another {field}"
        );
    }
    assert_eq!(stranger.try_wait().unwrap(), None);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

pub(crate) async fn a_command_about_to_start_is_known_though_its_shim_was_killed(host: &Host) {
    for goes_on in [false, true] {
        let id = host.processes.create(&spec("dev", &["sleep", "1000"])).await.unwrap().id;
        // Opening a pipe as its log takes the command's process until someone reads: it is held up just before its start.
        let log = host.file("dev", "log");
        std::fs::remove_file(&log).unwrap();
        assert!(Command::new("mkfifo").arg(&log).status().unwrap().success());
        let starting = tokio::spawn({
            let (processes, id) = (host.processes.clone(), id.clone());
            async move { processes.start(&id).await }
        });
        until("the command's process is there", || !marked(&id).is_empty()).await;
        assert!(!host.file("dev", "started.json").exists());
        kill(&host.recorded("dev", "shim.json")).await;
        let error = starting.await.unwrap().unwrap_err();
        assert!(error.message.contains("without a word"), "{error}");
        assert!(host.is_running(&id).await, "it is about to start");

        if goes_on {
            let _reader = std::fs::File::open(&log).unwrap();
            until("it has started", || host.file("dev", "started.json").exists()).await;
            assert!(host.is_running(&id).await);
        }
        host.processes.remove(&id).await.unwrap();
        assert!(marked(&id).is_empty(), "goes on: {goes_on}");
    }
}

pub(crate) async fn a_late_shim_starts_nothing_else(host: &Host) {
    let id = host.processes.create(&spec("dev", &["sleep", "1000"])).await.unwrap().id;
    for (told, report) in [("", "\"Gone\""), ("dev.0123456789abcdef", "\"Gone\""), (&*id, "\"Started\"")] {
        let mut shim = Command::new(std::env::current_exe().unwrap());
        shim.arg(SHIM).arg(host.directory().join("dev")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shim = shim.env_clear().spawn().unwrap();
        shim.stdin.take().unwrap().write_all(told.as_bytes()).unwrap();
        let mut told_back = String::new();
        shim.stdout.take().unwrap().read_to_string(&mut told_back).unwrap();
        assert_eq!(told_back, report, "the shim was told {told:?}");
        assert_eq!(host.is_running(&id).await, told == id);
        if told == id {
            host.processes.stop(&id, ENOUGH).await.unwrap();
        }
        shim.wait().unwrap();
    }
}

/// What is killed while an agent is being started.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Victims {
    Broker,
    Shim,
    Both,
}

pub(crate) async fn nothing_is_lost_whenever_broker_and_shim_are_killed(host: &Host) {
    for step in 0..30 {
        for victims in [Victims::Broker, Victims::Shim, Victims::Both] {
            let mut broker = start_broker(host);
            let mut lines = BufReader::new(broker.stdout.take().unwrap()).lines();
            assert_eq!(lines.next().unwrap().unwrap(), "created");
            // From before the shim is there until after the command has started.
            std::thread::sleep(Duration::from_micros(500 * step));
            if victims != Victims::Shim {
                broker.kill().unwrap();
            }
            if victims != Victims::Broker {
                for shim in processes_of(&host.directory()) {
                    shim.signal(Signal::KILL).unwrap();
                }
            }
            check_removal(host, &format!("{victims:?} killed at step {step}")).await;
            broker.kill().unwrap();
            broker.wait().unwrap();
        }
    }
}

async fn check_removal(host: &Host, case: &str) {
    let agent = host.processes.inspect("dev").await.unwrap().unwrap();
    let started = std::fs::read(host.file("dev", "started.json")).ok();
    host.processes.remove(&agent.id).await.unwrap();
    assert!(!host.directory().join("dev").exists(), "{case}");
    until("no shim is left", || processes_of(&host.directory()).is_empty()).await;
    let left = marked(&agent.id);
    assert!(left.is_empty(), "{left:?} outlived the agent, {case}, which was {agent:?}");
    if let Some(started) = started {
        let leader: Identity = serde_json::from_slice(&started).unwrap();
        assert!(!leader.is_alive().unwrap(), "{case}");
    }
}

pub(crate) async fn folders_that_were_not_finished_are_passed_over(host: &Host) {
    host.processes.create(&spec("dev", &["true"])).await.unwrap();
    for name in [".new-1", ".gone-dev.1"] {
        let left = host.directory().join(name);
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("spec.json"), "{").unwrap();
        assert_eq!(host.processes.list().await.unwrap().len(), 1);
        assert!(left.exists(), "someone may still be at it");
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        std::fs::File::open(&left).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(host.processes.list().await.unwrap().len(), 1);
        assert!(!left.exists());
    }
}

async fn kill(process: &Identity) {
    assert!(process.signal(Signal::KILL).unwrap());
    until("a killed process is gone", || !process.is_alive().unwrap()).await;
}

/// The processes with a path below `directory` on their command line: its shims.
fn processes_of(directory: &Path) -> Vec<Identity> {
    let begin = format!("{}/", directory.display()).into_bytes();
    living(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument.starts_with(&begin))
    })
}

/// The processes that carry the mark of an agent.
fn marked(id: &str) -> Vec<Identity> {
    let mark = format!("BERTHOLD_PROCESS={id}").into_bytes();
    living(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark)
    })
}

fn living(is_wanted: impl Fn(u32) -> bool) -> Vec<Identity> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_wanted(*pid)).filter_map(|pid| Identity::of(pid).unwrap()).collect()
}
