use std::fs;
use std::path::Path;

use pool::{LeaseId, Moment, Owner, Port};
use runtime::HeldPort;

use super::open::Damage;
use super::*;
use crate::model::{AgentRecord, BareLease, Former, Holder, Lease, ToldPorts};

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

fn release(id: &str) -> Change {
    Change::Release { lease: LeaseId::new(id), at: Moment(9), reason: "done".to_owned() }
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
    record.engine = Some("one of two".to_owned());
    record.warnings = vec!["a \"quoted\" one".to_owned()];
    ledger.record(granted(&record, &lease("l1", &[8001, 8000]))).on_disk().await.unwrap();
    let bare = |name: &str| name.parse::<AgentKey>().unwrap();
    let grant = Change::Grant { owner: Owner::Bare(bare("default/db")), lease: lease("l2", &[9000]) };
    let had = Former { ports: vec![Port::MAX, Port::MIN], released_at: Moment(7) };
    let former =
        |name: &str, former: Option<&Former>| Change::Former { owner: bare(name), former: former.cloned() };
    let held = Holder {
        process: runtime::process::Identity::current().unwrap(),
        command: "make test".to_owned(),
        forget: true,
    };
    let hold = Change::Hold { lease: LeaseId::new("l2"), holder: held.clone() };
    let remember = vec![grant, hold, former("default/old", Some(&had)), former("default/older", Some(&had))];
    ledger.record(remember).on_disk().await.unwrap();
    ledger.record(vec![former("default/older", None)]).on_disk().await.unwrap();
    let told = |runtime, boot: &str, ports: &[u16]| {
        let held = |port: &u16| HeldPort {
            port: *port,
            by: "the pod shop/web".to_owned(),
            is_here: true,
            lease: (*port == 8007).then(|| "another's".to_owned()),
        };
        (runtime, ToldPorts { boot: boot.to_owned(), at: Moment(7), held: ports.iter().map(held).collect() })
    };
    let kept = told("kubernetes", "this boot", &[8004, 8007]);
    let earlier = [told("kubernetes", "an earlier one", &[8003]), told("docker", "this boot", &[8005])];
    for (runtime, told) in earlier.into_iter().chain([kept.clone(), told("docker", "this boot", &[])]) {
        ledger.record(vec![Change::Told { runtime, told }]).on_disk().await.unwrap();
    }

    let (_, contents, damage) = start(&path);
    record.lease = Some(lease("l1", &[8001, 8000]));
    assert_eq!(contents.agents, [record]);
    assert_eq!(
        contents.bare,
        [BareLease { key: bare("default/db"), lease: lease("l2", &[9000]), holder: Some(held) }]
    );
    assert_eq!(contents.former, [(bare("default/old"), had)]);
    assert_eq!(contents.told.into_iter().collect::<Vec<_>>(), [(kept.0.to_owned(), kept.1)]);
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

/// SQLite ends the whole transaction by itself when, say, the disk is full: then nothing of the batch is on disk, and nobody may be
/// told otherwise, neither of what came before nor of what comes after.
#[tokio::test]
async fn what_is_rolled_back_behind_the_writers_back_is_told_as_not_recorded() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("ledger.db");
    let (connection, ..) = open(&path).unwrap();
    let trigger = "CREATE TEMP TRIGGER full BEFORE INSERT ON agents WHEN NEW.name = 'full'
                   BEGIN SELECT RAISE(ROLLBACK, 'as if the disk were full'); END";
    connection.execute_batch(trigger).unwrap();
    // Held until all are sent, so that they are one batch.
    let blocker = rusqlite::Connection::open(&path).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ledger = Ledger::start(connection).unwrap();
    let send = |name: &str, port: u16| {
        let key = format!("default/{name}");
        ledger.record(granted(&agent(&key), &lease(name, &[port])))
    };
    let first = send("first", 7999);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let sent = [send("before", 8000), send("full", 8001), send("after", 8002)];
    blocker.execute_batch("COMMIT").unwrap();
    // Alone or not, depending on how fast the writer was.
    let _of_no_concern = first.on_disk().await;
    for recorded in sent {
        let error = recorded.on_disk().await.unwrap_err();
        assert_eq!(error.reason, "as if the disk were full");
    }
    send("later", 8000).on_disk().await.unwrap();
    drop(ledger);
    let (_, contents, _) = start(&path);
    let names: Vec<_> = contents.agents.iter().map(|agent| agent.key.name.to_string()).collect();
    assert!(names.iter().all(|name| name == "first" || name == "later"), "{names:?}");
    assert!(names.contains(&"later".to_owned()));
}

#[tokio::test]
async fn one_transaction_exchanges_a_lease_for_its_successor() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("ledger.db");
    let (ledger, ..) = start(&path);
    ledger.record(granted(&agent("default/a"), &lease("l1", &[8000]))).on_disk().await.unwrap();
    let mut exchange = vec![release("l1")];
    exchange.extend(granted(&agent("default/a"), &lease("l2", &[8000])));
    ledger.record(exchange).on_disk().await.unwrap();
    // Before another writer starts, to whom the end would be decades ago.
    let question = Question { port: Port::new(8000), owner: None, since: None, limit: 10 };
    let history = read_history(&path, &question).unwrap();
    let ends: Vec<_> = history.iter().map(|it| (it.lease.as_str(), it.until, it.reason.as_deref())).collect();
    assert_eq!(ends, [("l2", None, None), ("l1", Some(Moment(9)), Some("done"))]);
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

/// P2: whoever comes next finds all of it, and nothing is written beside them.
#[tokio::test]
async fn what_is_closed_is_whole_and_takes_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let (ledger, _, _) = start(&path);
    let record = agent("default/a");
    let before = ledger.record(granted(&record, &lease("1", &[8000])));
    let closed = ledger.close();
    let (recorded, ()) = tokio::join!(before.on_disk(), closed);
    recorded.unwrap();
    let files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(files, ["ledger.db"]);
    let after = ledger.record(granted(&agent("default/b"), &lease("2", &[8001])));
    assert!(after.on_disk().await.unwrap_err().reason.contains("has ended"));
    ledger.close().await;
    assert_eq!(start(&path).1.agents.len(), 1);
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
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    connection.pragma_update(None, "application_id", 0x4248_0000 + 99).unwrap();
    drop(connection);
    let before = fs::read(&path).unwrap();
    let error = open(&path).unwrap_err().to_string();
    assert!(error.ends_with("has schema version 99, but this berthold knows only up to 4"), "{error}");
    assert!(fs::read(&path).unwrap() == before, "the file is as it was");
}

/// Every bit of the two numbers (<https://www.sqlite.org/fileformat2.html>: at 60 and 68), the first of which SQLite believes as it is.
#[test]
fn a_version_of_which_one_bit_has_changed_is_damage() {
    for bit in (60 * 8..64 * 8).chain(68 * 8..72 * 8) {
        let flip = |path: &Path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(path, bytes).unwrap();
        };
        check_damaged(flip, "its version is another in one place than in the other");
    }
}

/// A ledger as version 1 wrote it, with an agent that runs, one that is stopped, and a bare lease.
fn version_1(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch(include_str!("schema/1.sql")).unwrap();
    let rows = "INSERT INTO agents (project, name, runtime, state, former, warnings)
             VALUES ('default', 'dev', 'process', 'running', '', '[]'),
                    ('shop', 'web', 'process', 'stopped', '8004-8003', '[]');
         INSERT INTO leases (id, kind, project, name, granted_at)
             VALUES ('l1', 'agent', 'default', 'dev', 1), ('l2', 'bare', 'default', 'db', 1);
         INSERT INTO ports (port, lease, place) VALUES (8001, 'l1', 0), (8000, 'l1', 1), (8002, 'l2', 0);";
    connection.execute_batch(rows).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
}

#[tokio::test]
async fn a_ledger_of_version_1_is_brought_up_to_date_without_loss() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("ledger.db");
    version_1(&path);
    for _ in 0..2 {
        let (ledger, contents, damage) = start(&path);
        assert_eq!(damage, None);
        let agents: Vec<_> =
            contents.agents.iter().map(|agent| (agent.key.to_string(), agent.lease.clone())).collect();
        let dev = Some(lease("l1", &[8001, 8000]));
        assert_eq!(agents, [("default/dev".to_owned(), dev), ("shop/web".to_owned(), None)]);
        assert_eq!(contents.agents[1].former, lease("", &[8004, 8003]).ports);
        assert_eq!(contents.bare[0].lease, lease("l2", &[8002]));
        ledger.record(vec![release("none")]).on_disk().await.unwrap();
        let question = Question { port: None, owner: None, since: None, limit: 10 };
        let history = read_history(&path, &question).unwrap();
        let held: Vec<_> = history.iter().map(|it| (it.port.get(), it.owner.to_string(), it.place)).collect();
        let owned = |port, owner: &str, place| (port, owner.to_owned(), place);
        let expected = [
            owned(8002, "lease default/db", 0),
            owned(8000, "default/dev", 1),
            owned(8001, "default/dev", 0),
        ];
        assert_eq!(held, expected, "what is held already is in the history");
        assert!(history.iter().all(|it| it.since == Moment(1) && it.until.is_none()));
    }
    let version: i64 = rusqlite::Connection::open(&path)
        .unwrap()
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(version, 4);
}

#[tokio::test]
async fn of_the_agents_in_a_ledger_of_version_2_the_engine_is_not_known() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("ledger.db");
    version_1(&path);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch(include_str!("schema/2.sql")).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    drop(connection);
    let (ledger, contents, damage) = start(&path);
    assert_eq!(damage, None);
    let mut dev = contents.agents[0].clone();
    assert_eq!((dev.lease.clone(), dev.engine.clone()), (Some(lease("l1", &[8001, 8000])), None));
    dev.engine = Some("this one".to_owned());
    ledger.record(vec![Change::Agent(Box::new(dev.clone()))]).on_disk().await.unwrap();
    drop(ledger);
    assert_eq!(start(&path).1.agents[0], dev);
}
