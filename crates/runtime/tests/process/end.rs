//! Stopping and removing.

use std::io::Write;
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::Duration;

use runtime::Runtime;
use rustix::process::Signal;

use crate::host::{ENOUGH, Host, SERVER, exited, process_called, spec, until};

/// A program that listens on a port, with a child that holds the same socket. The stubborn one has to be killed.
pub(crate) fn server(stubborn: bool) -> ExitCode {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let trap = if stubborn { "trap '' TERM" } else { ":" };
    let script = format!("{trap}; echo {port} ready; while :; do sleep 0.01; done");
    let held = std::os::fd::OwnedFd::from(listener.try_clone().unwrap());
    let mut child =
        std::process::Command::new("setsid").args(["sh", "-c", &script]).stdin(held).spawn().unwrap();
    let status = child.wait().unwrap();
    let _nowhere_to_tell = writeln!(std::io::stderr(), "{status}");
    drop(listener);
    ExitCode::FAILURE
}

pub(crate) async fn an_agent_may_end_by_itself_in_its_grace_time(host: &Host) {
    let id = host.start_ready("dev", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done").await;
    assert!(host.is_running(&id).await);
    host.processes.stop(&id, ENOUGH).await.unwrap();
    assert_eq!(exited(host.processes.inspect(&id).await.unwrap()), (Some(5), None));
}

pub(crate) async fn an_agent_that_will_not_end_is_ended_by_force(host: &Host) {
    let id =
        host.start_ready("dev", "trap 'echo asked' TERM; echo ready; while :; do sleep 0.01; done").await;
    let leader = host.recorded("dev", "started.json");
    host.processes.stop(&id, Duration::from_millis(300)).await.unwrap();
    assert!(!leader.is_alive().unwrap());
    assert_eq!(exited(host.processes.inspect(&id).await.unwrap()).0, Some(137));
    assert!(host.log(&id, None).await.contains("asked"), "it was not asked first");
}

pub(crate) async fn an_agent_that_is_suspended_is_stopped(host: &Host) {
    let id = host.start_ready("dev", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done").await;
    assert!(host.recorded("dev", "started.json").signal(Signal::STOP).unwrap());
    host.processes.stop(&id, ENOUGH).await.unwrap();
    assert_eq!(exited(host.processes.inspect(&id).await.unwrap()).0, Some(5));
}

pub(crate) async fn what_an_agent_daemonised_is_ended_with_it(host: &Host) {
    // Two steps away from the command, in a session of its own, without the agent's mark; the command itself ends.
    let daemon = "setsid env -i sh -c \"echo \\$\\$ daemon; exec sleep 1000\"";
    let id = host.start_ready("dev", &format!("({daemon} &); sleep 0.01; echo ready; exit 3")).await;
    let daemon = process_called("daemon", &host.output_with(&id, "daemon").await);
    until("the command has ended", || host.file("dev", "exited.json").exists()).await;
    assert!(host.is_running(&id).await, "something of it lives");

    host.processes.stop(&id, ENOUGH).await.unwrap();
    assert!(!daemon.is_alive().unwrap());
    assert_eq!(exited(host.processes.inspect(&id).await.unwrap()), (Some(3), None));
}

pub(crate) async fn ports_are_free_once_it_is_stopped(host: &Host) {
    let program = std::env::current_exe().unwrap();
    for (manner, grace) in
        [("polite", ENOUGH), ("stubborn", Duration::from_millis(100)), ("polite", Duration::ZERO)]
    {
        let id = host.start(&spec("dev", &[program.to_str().unwrap(), SERVER, manner])).await;
        let log = host.output_with(&id, " ready").await;
        let port: u16 = log.trim().strip_suffix(" ready").unwrap().parse().unwrap();
        TcpListener::bind(("127.0.0.1", port)).unwrap_err();
        host.processes.stop(&id, grace).await.unwrap();
        TcpListener::bind(("127.0.0.1", port)).unwrap();
        host.processes.remove(&id).await.unwrap();
    }
}

pub(crate) async fn stopping_and_removing_what_is_gone_succeeds(host: &Host) {
    let id = host.start_ready("dev", "echo ready; exec sleep 1000").await;
    for _ in 0..2 {
        host.processes.stop(&id, ENOUGH).await.unwrap();
        host.processes.stop("other", ENOUGH).await.unwrap();
    }
    let code = exited(host.processes.inspect(&id).await.unwrap()).0;
    assert_eq!(code, Some(143));
    for _ in 0..2 {
        host.processes.remove(&id).await.unwrap();
        assert_eq!(host.processes.inspect(&id).await.unwrap(), None);
        assert_eq!(host.processes.wait_for_end(&id, ENOUGH).await.unwrap(), None);
    }

    let id = host.start_ready("dev", "echo ready; exec sleep 1000").await;
    let leader = host.recorded("dev", "started.json");
    host.processes.remove(&id).await.unwrap();
    assert!(!leader.is_alive().unwrap());
    assert_eq!(std::fs::read_dir(host.directory()).unwrap().count(), 0, "something was left behind");
}

pub(crate) async fn a_former_id_does_not_mean_the_new_agent(host: &Host) {
    let former = host.start(&spec("dev", &["true"])).await;
    host.processes.remove(&former).await.unwrap();
    let id = host.start_ready("dev", "echo ready; exec sleep 1000").await;
    assert_ne!(id, former);
    assert_eq!(host.processes.inspect(&former).await.unwrap(), None);
    host.processes.stop(&former, Duration::ZERO).await.unwrap();
    host.processes.remove(&former).await.unwrap();
    assert!(host.is_running(&id).await);
    assert!(host.is_running("dev").await);
}
