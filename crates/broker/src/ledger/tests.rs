use std::fs;
use std::path::Path;

use pool::{LeaseId, Moment, Owner, Port};

use super::open::Damage;
use super::*;
use crate::model::{AgentRecord, Lease};

fn lease(id: &str, ports: &[u16]) -> Lease {
    let ports = ports.iter().map(|number| Port::new(*number).unwrap()).collect();
    Lease { id: LeaseId::new(id), ports, since: Moment(1) }
}

fn agent(key: &str) -> AgentRecord {
    AgentRecord::new(key.parse().unwrap(), "process".to_owned())
}

fn granted(record: &AgentRecord, lease: &Lease) -> Vec<Change> {
    let owner = Owner::Agent(record.key.clone());
    vec![Change::Agent(Box::new(record.clone())), Change::Grant { owner, lease: lease.clone() }]
}

fn start(path: &Path) -> (Ledger, Contents, Option<Damage>) {
    let (connection, contents, damage) = open(path).unwrap();
    (Ledger::start(connection).unwrap(), contents, damage)
}

#[tokio::test]
async fn what_was_recorded_is_read_again() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("ledger.db");
    let (ledger, contents, _) = start(&path);
    assert_eq!(contents, Contents::default());
    let mut record = agent("shop/dev");
    record.former = vec![Port::MAX];
    record.warnings = vec!["a \"quoted\" one".to_owned()];
    ledger.record(granted(&record, &lease("l1", &[8001, 8000]))).on_disk().await.unwrap();
    let bare =
        Change::Grant { owner: Owner::Bare("default/db".parse().unwrap()), lease: lease("l2", &[9000]) };
    ledger.record(vec![bare]).on_disk().await.unwrap();

    let (_, contents, damage) = start(&path);
    record.lease = Some(lease("l1", &[8001, 8000]));
    assert_eq!(contents.agents, [record]);
    assert_eq!(contents.bare, [("default/db".parse().unwrap(), lease("l2", &[9000]))]);
    assert_eq!(damage, None);
}

/// P1 and P5 in the database itself: whatever the code above does wrong, these are refused, and refused alone.
#[tokio::test]
async fn the_database_refuses_a_port_twice_and_a_second_lease_of_one_owner() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("ledger.db");
    let (ledger, ..) = start(&path);
    let first = ledger.record(granted(&agent("default/a"), &lease("l1", &[8000, 8001])));
    let same_port = ledger.record(granted(&agent("default/b"), &lease("l2", &[8002, 8001])));
    let second_lease = ledger.record(granted(&agent("default/a"), &lease("l3", &[8003])));
    let good = ledger.record(granted(&agent("default/c"), &lease("l4", &[8002])));
    first.on_disk().await.unwrap();
    assert!(same_port.on_disk().await.unwrap_err().reason.contains("UNIQUE constraint failed: ports.port"));
    assert!(
        second_lease.on_disk().await.unwrap_err().reason.contains("UNIQUE constraint failed: leases.kind")
    );
    good.on_disk().await.unwrap();
    let (_, contents, _) = start(&path);
    let held: Vec<_> =
        contents.agents.iter().map(|agent| (agent.key.to_string(), agent.lease.clone())).collect();
    assert_eq!(
        held,
        [
            ("default/a".to_owned(), Some(lease("l1", &[8000, 8001]))),
            ("default/c".to_owned(), Some(lease("l4", &[8002]))),
        ]
    );
}

#[tokio::test]
async fn one_transaction_exchanges_a_lease_for_its_successor() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("ledger.db");
    let (ledger, ..) = start(&path);
    ledger.record(granted(&agent("default/a"), &lease("l1", &[8000]))).on_disk().await.unwrap();
    let mut exchange = vec![Change::Release { lease: LeaseId::new("l1") }];
    exchange.extend(granted(&agent("default/a"), &lease("l2", &[8000])));
    ledger.record(exchange).on_disk().await.unwrap();
    let (_, contents, _) = start(&path);
    assert_eq!(contents.agents[0].lease, Some(lease("l2", &[8000])));
}

#[tokio::test]
async fn transactions_that_wait_are_flushed_together() {
    let home = tempfile::tempdir().unwrap();
    let (ledger, ..) = start(&home.path().join("ledger.db"));
    let grant = |number: u16| {
        let name = format!("default/a{number}");
        ledger.record(granted(&agent(&name), &lease(&name, &[8000 + number])))
    };
    let all: Vec<_> = (0..300).map(grant).collect();
    for recorded in all {
        recorded.on_disk().await.unwrap();
    }
    let flushes = ledger.flushes();
    assert!(flushes < 100, "{flushes} flushes for 300 transactions that were sent at once");
}

fn check_damaged(damage: impl FnOnce(&Path), expected_reason: &str) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("ledger.db");
    drop(open(&path).unwrap());
    damage(&path);
    let before = fs::read(&path).unwrap();
    let (_, contents, found) = open(&path).unwrap();
    let found = found.expect("the damage is told");
    assert_eq!(found.reason, expected_reason);
    assert!(fs::read(&found.kept).unwrap() == before, "the damaged file is kept as it was");
    assert_eq!(contents, Contents::default());
}

#[test]
fn a_file_that_is_no_database_is_kept_and_replaced() {
    check_damaged(
        |path| fs::write(path, "this is not a database, is it?".repeat(200)).unwrap(),
        "file is not a database",
    );
}

#[test]
fn a_truncated_file_is_kept_and_replaced() {
    let truncate = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    check_damaged(truncate, "database disk image is malformed");
}

#[test]
fn a_row_that_makes_no_sense_is_damage_too() {
    let insert = |path: &Path| {
        let connection = rusqlite::Connection::open(path).unwrap();
        let sql = "INSERT INTO agents (project, name, runtime, state, former, warnings)
                   VALUES ('default', 'dev', 'docker', 'dancing', '', '[]')";
        connection.execute(sql, []).unwrap();
    };
    check_damaged(insert, "the state of agent default/dev reads `dancing`");
}

#[test]
fn a_ledger_of_a_newer_version_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("ledger.db");
    drop(open(&path).unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = fs::read(&path).unwrap();
    let error = open(&path).unwrap_err().to_string();
    assert!(error.ends_with("has schema version 99, but this berthold knows only up to 1"), "{error}");
    assert!(fs::read(&path).unwrap() == before, "the file is as it was");
}
