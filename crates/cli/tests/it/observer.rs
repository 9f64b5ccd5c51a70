//! What there is, seen without the broker: by the processes of this host, by the engine, and by the bytes of the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::support::*;

/// Agents by name, and the ports that each was given, in label order.
pub(crate) type Seen = BTreeMap<String, Vec<u16>>;

/// The agents of `host` that run as plain processes. Each is found by its variables, which its descendants share.
pub(crate) fn processes(host: &Host) -> Seen {
    let mut seen = Seen::new();
    for (_, name, ports) in of_agents(host) {
        let before = seen.insert(name.clone(), ports.clone());
        assert!(before.is_none_or(|before| before == ports), "{name} runs twice, with different ports");
    }
    seen
}

/// Agents with their ports, of which one may be there more than once.
pub(crate) type Holders = Vec<(String, Vec<u16>)>;

/// The agents that run, each with its ports; one may be there twice, and what ends and what begins while this is found out may both be.
pub(crate) fn holders_by_processes(host: &Host) -> Holders {
    of_agents(host).into_iter().map(|(_, name, ports)| (name, ports)).collect()
}

/// The agents of `host` of which some process runs this program.
pub(crate) fn running(host: &Host, program: &str) -> BTreeSet<String> {
    let runs = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).split('\0').any(|word| word == program)
    };
    of_agents(host).into_iter().filter(|(pid, ..)| runs(*pid)).map(|(_, name, _)| name).collect()
}

/// The processes of an agent.
fn pids(host: &Host, name: &str) -> Vec<u32> {
    of_agents(host).into_iter().filter(|(_, agent, _)| agent == name).map(|(pid, ..)| pid).collect()
}

/// Ends an agent that is a plain process, as someone else would.
pub(crate) fn kill_processes(host: &Host, name: &str) {
    for pid in pids(host, name) {
        drop(Command::new("kill").args(["-9", &pid.to_string()]).output());
    }
}

/// Every process of an agent of `host`: its number, the agent's name and ports.
fn of_agents(host: &Host) -> Vec<(u32, String, Vec<u16>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        // It may have ended meanwhile, and one that is not reaped yet has no variables.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        let environment = String::from_utf8_lossy(&environment);
        let variable =
            |name: &str| environment.split('\0').find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        let Some((project, name)) = variable("BERTHOLD_AGENT").and_then(|agent| agent.split_once('/')) else {
            continue;
        };
        if project == host.project() {
            let port = |label: char| variable(&format!("AVAILABLE_LOCALHOST_PORT_{label}"))?.parse().ok();
            let ports: Vec<u16> = ('A'..='Z').map_while(port).collect();
            let pid = entry.file_name().to_string_lossy().parse().unwrap();
            found.push((pid, name.to_owned(), ports));
        }
    }
    found
}

/// The agents of `host` that Docker runs, with the ports that it publishes.
pub(crate) fn containers(host: &Host) -> Seen {
    let filter = format!("label=berthold.project={}", host.project());
    let ids = docker(&["ps", "-q", "--no-trunc", "--filter", &filter]);
    let ids: Vec<&str> = ids.lines().collect();
    if ids.is_empty() {
        return Seen::new();
    }
    // One that ended since the listing is not there any more.
    let output = Command::new("docker").arg("inspect").args(&ids).output().unwrap();
    let inspected: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut seen = Seen::new();
    for container in inspected.as_array().unwrap().iter().filter(|it| it["State"]["Running"] == true) {
        let name = container["Config"]["Labels"]["berthold.name"].as_str().unwrap().to_owned();
        let bindings = container["HostConfig"]["PortBindings"].as_object().unwrap();
        let ports: BTreeSet<u16> =
            bindings.values().map(|it| it[0]["HostPort"].as_str().unwrap().parse().unwrap()).collect();
        let labelled = container["Config"]["Labels"]["berthold.ports"].as_str().unwrap_or_default();
        let labelled: Vec<u16> = labelled.split('-').filter_map(|port| port.parse().ok()).collect();
        assert_eq!(labelled.iter().copied().collect::<BTreeSet<u16>>(), ports, "{name}: labels and bindings");
        assert!(seen.insert(name.clone(), labelled).is_none(), "{name} runs twice");
    }
    seen
}

/// The agents of `host` that are pods which have not ended, with the ports of their labels. One that is being deleted has its ports
/// still.
pub(crate) fn pods(host: &Host) -> Seen {
    let label = format!("berthold.project={}", host.project());
    let listed = kubectl(&["get", "pods", "--all-namespaces", "-l", &label, "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let mut seen = Seen::new();
    for pod in listed["items"].as_array().unwrap() {
        if pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed" {
            continue;
        }
        let label = |name: &str| pod["metadata"]["labels"][name].as_str().unwrap_or_default();
        let ports: Vec<u16> =
            label("berthold.ports").split('-').filter_map(|port| port.parse().ok()).collect();
        let held = pod["spec"]["containers"][0]["ports"].as_array().cloned().unwrap_or_default();
        let held: BTreeSet<u64> = held.iter().filter_map(|port| port["hostPort"].as_u64()).collect();
        assert_eq!(ports.iter().copied().map(u64::from).collect::<BTreeSet<_>>(), held, "labels and ports");
        assert!(seen.insert(label("berthold.name").to_owned(), ports).is_none(), "a pod is there twice");
    }
    seen
}

/// How many numbers the agents of this host have claimed in the cluster.
pub(crate) fn claims(host: &Host) -> usize {
    let id = fs::read_to_string(host.path("broker.id")).unwrap();
    let of_broker = format!("berthold.broker={}", id.trim());
    kubectl(&["get", "leases", "--all-namespaces", "-l", &of_broker, "-o", "name"]).lines().count()
}

/// The ports of `host`'s block on which something listens for TCP, whoever it is (`proc_pid_net(5)`: state 0A). A port that is only bound, as by
/// a guard, is none of them.
pub(crate) fn listening(host: &Host) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let mut fields = line.split_whitespace().skip(1);
            let (local, state) = (fields.next().unwrap(), fields.nth(1).unwrap());
            let port = u16::from_str_radix(local.rsplit_once(':').unwrap().1, 16).unwrap();
            if state == "0A" && (host.port(0)..host.port(RANGE_SIZE)).contains(&port) {
                ports.insert(port);
            }
        }
    }
    ports
}

/// The ports that more than one of these has, with their owners.
pub(crate) fn doubles(holders: &[(String, Vec<u16>)]) -> BTreeMap<u16, BTreeSet<String>> {
    let mut owners = BTreeMap::<u16, BTreeSet<String>>::new();
    for (name, ports) in holders {
        for port in ports {
            owners.entry(*port).or_default().insert(name.clone());
        }
    }
    owners.retain(|_, owners| owners.len() > 1);
    owners
}

/// P1: no two have the same port.
pub(crate) fn check_unique(seen: &Seen) {
    let mut owners = BTreeMap::new();
    for (name, ports) in seen {
        for port in ports {
            let other = owners.insert(port, name);
            assert!(other.is_none(), "port {port} has two owners: {name} and {other:?}");
        }
    }
}

/// The leases that are on disk, whatever the broker that wrote them thinks.
pub(crate) fn ledger(host: &Host) -> Seen {
    let (_copy, connection) = copied_ledger(host);
    let mut statement = connection
        .prepare("SELECT name, port FROM leases LEFT JOIN ports ON lease = id ORDER BY name, place")
        .unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut seen = Seen::new();
    while let Some(row) = rows.next().unwrap() {
        let ports = seen.entry(row.get(0).unwrap()).or_default();
        ports.extend(row.get::<_, Option<u16>>(1).unwrap());
    }
    seen
}

/// The ports of each agent that is on disk: those that it has, or else those that it had and that nobody has now. Those that are
/// forgotten with their end are left out, and so are those of which a start was under way: it may have been the first.
pub(crate) fn ports_had(host: &Host) -> Seen {
    let leased = ledger(host);
    let (_copy, connection) = copied_ledger(host);
    let mut statement = connection
        .prepare(
            "SELECT name, former FROM agents WHERE coalesce(spec ->> '$.remove', 0) = 0
             AND (state NOT IN ('starting', 'failed') OR former != '' OR started_at IS NOT NULL)",
        )
        .unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut had = Seen::new();
    while let Some(row) = rows.next().unwrap() {
        let (name, former): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
        let former: Vec<u16> = former.split('-').filter_map(|port| port.parse().ok()).collect();
        let are_taken = leased.values().flatten().any(|port| former.contains(port));
        match leased.get(&name) {
            Some(_) if !former.is_empty() => {}
            Some(ports) => drop(had.insert(name, ports.clone())),
            None if are_taken => {}
            None => drop(had.insert(name, former)),
        }
    }
    had
}

/// The ledger as the file has it, and where the copy is that is read.
fn copied_ledger(host: &Host) -> (tempfile::TempDir, Connection) {
    // A copy, because a reader of the file itself would leave traces beside it.
    let copy = tempfile::tempdir().unwrap();
    for name in ["ledger.db", "ledger.db-wal"] {
        if let Err(error) = fs::copy(host.path(name), copy.path().join(name)) {
            assert!(name != "ledger.db", "{error}");
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let connection = Connection::open_with_flags(copy.path().join("ledger.db"), flags).unwrap();
    (copy, connection)
}

/// Takes the ledger away, while no broker is there.
pub(crate) fn lose_ledger(host: &Host) {
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        drop(fs::remove_file(host.path(name)));
    }
}
