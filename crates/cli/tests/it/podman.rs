//! What is particular to Podman: its service, which the broker runs itself where none listens.

use std::fs;
use std::time::Duration;

use crate::support::*;

/// The pids of the services on the socket in the broker's home.
fn services(host: &Host) -> Vec<i32> {
    let socket = format!("unix://{}", host.path("podman.sock").display());
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one = |pid: &i32| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.contains("system\0service") && command.contains(&socket)
    };
    pids.filter(is_one).collect()
}

#[test]
fn the_broker_s_own_service_is_started_again_and_ends_with_it() {
    if !engine_is_here("podman") {
        eprintln!("Podman is not here: not tested");
        return;
    }
    let mut host = Host::with_pool(4);
    host.serve();
    let image = image();
    let mut arguments = idle_agent("dev", &image);
    arguments[3] = "podman";
    host.ok(&arguments);
    let [service] = services(&host)[..] else {
        eprintln!("a service of Podman listens already, so the broker has none of its own: not tested");
        return;
    };
    let pid = rustix::process::Pid::from_raw(service).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    eventually("the service is gone", || !services(&host).contains(&service));
    host.ok(&["exec", "dev", "--", "true"]);
    let [another] = services(&host)[..] else {
        panic!("no service was started again: {:?}", services(&host))
    };
    assert_ne!(another, service);
    host.stop_broker();
    // It has been waited for.
    assert_eq!(services(&host), Vec::<i32>::new());
    assert!(!host.path("podman.sock").exists());
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(services(&host), Vec::<i32>::new(), "nothing starts one while the broker ends");
    host.serve();
    assert_eq!(host.agent("dev")["state"], "running", "agents do not depend on it");
}
