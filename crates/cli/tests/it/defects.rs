//! The first of the review's defects: no number of starts, in whatever way they end, grows the ledger.

use serde_json::Value;

use crate::support::*;

/// So many that one of them in a hundred that leaves something is found out.
const ROUNDS: usize = 300;

/// What the ledger itself holds, read beside the broker.
fn leases_and_ports(host: &Host) -> (usize, usize) {
    let pool = host.json(&["ports"])["pool"].clone();
    let leased: Vec<&Value> =
        pool["ports"].as_array().unwrap().iter().filter(|port| port["state"] == "leased").collect();
    let owners: std::collections::BTreeSet<&str> =
        leased.iter().map(|port| port["agent"].as_str().unwrap()).collect();
    (owners.len(), leased.len())
}

#[test]
fn hundreds_of_starts_on_docker_leave_the_leases_of_what_runs() {
    needs_docker!();
    let (host, image) = (Host::started(12), image());
    host.ok(&idle_agent("bystander", &image));
    host.ok(&idle_agent("dev", &image));
    let ports = host.agent("dev")["ports"].clone();
    for round in 0..ROUNDS {
        match round % 10 {
            0 => drop(host.ok(&["restart", "dev", "-t", "0s"])),
            1 => {
                // Another specification each time, so that the agent is recreated.
                let value = format!("ROUND={round}");
                host.ok(&[
                    "start",
                    "dev",
                    "--replace",
                    "--image",
                    &image,
                    "--runtime",
                    "docker",
                    "-e",
                    &value,
                    "--",
                    "sh",
                    "-c",
                    IDLE,
                ]);
            }
            2 => {
                host.ok(&["stop", "dev", "-t", "0s"]);
                host.ok(&["start", "dev"]);
            }
            3 => drop(host.error(
                1,
                &["start", "bad", "--image", &image, "--runtime", "docker", "--", "/no/such/command"],
            )),
            _ => {
                // The engine refuses these before anything runs.
                let arguments = [
                    "start",
                    "bad",
                    "--image",
                    &image,
                    "--runtime",
                    "docker",
                    "-v",
                    "/run/no/such/directory:/x",
                    "--",
                    "true",
                ];
                host.error(2, &arguments);
            }
        }
    }
    assert_eq!(leases_and_ports(&host), (2, 4));
    assert_eq!(host.agent("dev")["ports"], ports);
    assert_eq!(host.containers(), [host.container("bystander"), host.container("dev")]);
}

#[test]
fn hundreds_of_failing_starts_of_processes_leave_nothing() {
    let host = Host::started(4);
    host.ok(&["start", "bystander", "--runtime", "process", "--", "sleep", "100000"]);
    for round in 0..ROUNDS {
        let command: &[&str] = if round % 2 == 0 { &["/no/such/command"] } else { &["sh", "-c", "exit 9"] };
        let done = host.run(&[&["--json", "start", "bad", "--runtime", "process", "--"], command].concat());
        if done.code == 0 {
            // On a busy machine the shell may still be starting when the broker looks; then it exits a little later.
            assert_eq!(round % 2, 1, "{done:?}");
            eventually("its end is noticed", || host.agent("bad")["state"] == "exited");
        } else {
            assert_eq!(done.code, 1, "{done:?}");
        }
    }
    host.ok(&["delete", "bad"]);
    assert_eq!(leases_and_ports(&host), (1, 2));
    let entries = std::fs::read_dir(host.path("processes")).unwrap().count();
    assert_eq!(entries, 1, "nothing is kept of processes that failed");
}
