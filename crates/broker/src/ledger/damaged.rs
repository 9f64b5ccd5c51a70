//! What a disk, a copy or a person may do to the file: no lease is lost or becomes another without a word.

use std::fs;
use std::path::{Path, PathBuf};

use pool::{LeaseId, Moment, Owner, Port};
use rusqlite::Connection;

use super::open::Opened;
use super::{ByHand, Change, Leases, open};
use crate::model::{AgentRecord, Lease};

/// How many agents the ledger has.
const AGENTS: u16 = 40;

/// A ledger with agents, some of which have had other ports before, and an owner that is none. With every commit, what is
/// leased then.
async fn written(connection: Connection) -> Vec<Leases> {
    let (ledger, mut writer) = ByHand::ledger(connection);
    let mut states = vec![Leases::new()];
    for number in 0..AGENTS {
        let key = format!("shop/agent-{number}").parse().unwrap();
        let record = AgentRecord::new(key, "docker".to_owned());
        let owner = match number {
            0 => Owner::Bare(record.key.clone()),
            _ => Owner::Agent(record.key.clone()),
        };
        let lease = |round: u16| {
            let port = |place: u16| Port::new(8000 + 200 * round + 2 * number + place).unwrap();
            let id = LeaseId::new(&format!("01M8D5X5S6PZXE38VWPPBT{round}{number:03}"));
            Lease { id, ports: vec![port(1), port(0)], since: Moment(1) }
        };
        let grant = |round| Change::Grant { owner: owner.clone(), lease: lease(round) };
        let (at, reason) = (Moment(2), "started anew".to_owned());
        let release = Change::Release { lease: lease(0).id, at, reason };
        let transactions = [
            vec![Change::Agent(Box::new(record.clone())), grant(0)],
            if number % 3 == 1 { vec![release, grant(1)] } else { Vec::new() },
        ];
        for changes in transactions {
            let recorded = ledger.record(changes);
            let waiting = writer.next().await.unwrap();
            writer.commit(waiting, false).tell();
            recorded.on_disk().await.unwrap();
            states.push(writer.contents().leases());
        }
    }
    // The connection ends as it does when a broker is killed: without having brought what it wrote into the one file.
    std::mem::forget(writer);
    states
}

fn named(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Opens what is there. If it is found damaged, it is kept as it was.
fn opened(path: &Path, what: &str) -> Option<Opened> {
    let before = fs::read(path).unwrap();
    let opened = open(path);
    match &opened {
        Ok((_, contents, Some(damage))) => {
            assert_eq!(contents.leases(), Leases::new(), "{what}");
            assert!(fs::read(&damage.kept).unwrap() == before, "{what}: what is kept is something else");
            fs::remove_file(&damage.kept).unwrap();
        }
        Ok((_, _, None)) => {}
        // As when it seems to be a newer version's: nothing is touched.
        Err(_) => assert!(fs::read(path).unwrap() == before, "{what}: it was refused, and is another now"),
    }
    opened.ok()
}

/// Where there is nothing else, what is there is there.
fn place(path: &Path, file: &[u8], wal: Option<&[u8]>, shm: Option<&[u8]>) {
    for (suffix, bytes) in [("", Some(file)), ("-wal", wal), ("-shm", shm)] {
        let path = named(path, suffix);
        match bytes {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => drop(fs::remove_file(path)),
        }
    }
}

/// The bytes of one file that has everything.
async fn one_file(directory: &Path) -> (Vec<u8>, Leases) {
    let path = directory.join("whole.db");
    let states = written(open(&path).unwrap().0).await;
    let connection = Connection::open(&path).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    (fs::read(&path).unwrap(), states.last().unwrap().clone())
}

#[tokio::test]
async fn a_bit_that_has_become_another_changes_no_lease() {
    let home = tempfile::tempdir().unwrap();
    let (file, expected) = one_file(home.path()).await;
    let path = home.path().join("ledger.db");
    let (mut dice, mut found) = (fastrand::Rng::with_seed(1), 0);
    for _ in 0..1500 {
        let (byte, bit) = (dice.usize(..file.len()), dice.u8(..8));
        let mut bytes = file.clone();
        bytes[byte] ^= 1 << bit;
        place(&path, &bytes, None, None);
        let what = format!("bit {bit} of byte {byte}");
        match opened(&path, &what) {
            Some((_, contents, None)) => assert_eq!(contents.leases(), expected, "{what}"),
            _ => found += 1,
        }
    }
    assert!(found > 50, "only {found} of 1500 were found: most of the file says nothing");
}

/// Of the header each bit: whatever it says then, the ledger can be used, or is replaced by one that can.
#[tokio::test]
async fn no_bit_of_the_header_keeps_the_broker_from_starting() {
    let home = tempfile::tempdir().unwrap();
    let (file, expected) = one_file(home.path()).await;
    let path = home.path().join("ledger.db");
    // <https://www.sqlite.org/fileformat2.html>: the version of the schema is the application's own, here this broker's.
    let version = 60..64;
    for (byte, bit) in (0..100).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
        let mut bytes = file.clone();
        bytes[byte] ^= 1 << bit;
        place(&path, &bytes, None, None);
        let what = format!("bit {bit} of byte {byte}");
        match opened(&path, &what) {
            Some((connection, contents, damage)) => {
                if damage.is_none() {
                    assert_eq!(contents.leases(), expected, "{what}");
                }
                connection
                    .execute("INSERT INTO leases (id, kind, project, name, granted_at) VALUES ('x', 'bare', 'p', 'n', 1)", [])
                    .unwrap_or_else(|error| panic!("{what}: {error}, {damage:?}"));
            }
            None => assert!(version.contains(&byte), "{what}: it is refused"),
        }
    }
}

#[tokio::test]
async fn whatever_is_cut_off_is_missed() {
    let home = tempfile::tempdir().unwrap();
    let (file, _) = one_file(home.path()).await;
    let path = home.path().join("ledger.db");
    for length in (1..file.len()).step_by(509) {
        place(&path, &file[..length], None, None);
        let what = format!("{length} of {} bytes", file.len());
        let (_, _, damage) = opened(&path, &what).unwrap_or_else(|| panic!("{what}: it is replaced"));
        assert!(damage.is_some(), "{what}");
    }
}

/// The latest of what was written is in a file of its own until it is brought into the ledger's.
#[tokio::test]
async fn what_is_lost_of_the_latest_commits_is_lost_from_the_end() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("whole.db");
    let states = written(open(&path).unwrap().0).await;
    let [file, wal, shm] = ["", "-wal", "-shm"].map(|suffix| fs::read(named(&path, suffix)).unwrap());
    let path = home.path().join("ledger.db");
    place(&path, &file, Some(&wal), Some(&shm));
    assert_eq!(open(&path).unwrap().1.leases(), *states.last().unwrap());
    let mut dice = fastrand::Rng::with_seed(1);
    for round in 0..300 {
        let (mut wal, mut shm) = (wal.clone(), shm.clone());
        let at = dice.usize(..wal.len());
        let what = match round % 3 {
            0 => {
                wal.truncate(at);
                format!("{at} bytes are left")
            }
            1 => {
                wal[at] ^= 1 << dice.u8(..8);
                format!("byte {at} is another")
            }
            _ => {
                shm.fill_with(|| dice.u8(..));
                "the index is nonsense".to_owned()
            }
        };
        place(&path, &file, Some(&wal), Some(&shm));
        match opened(&path, &what) {
            Some((_, contents, None)) => {
                let leases = contents.leases();
                let is_allowed =
                    if round % 3 == 2 { states.last() == Some(&leases) } else { states.contains(&leases) };
                assert!(is_allowed, "{what}: {leases:?}");
            }
            Some((_, _, Some(damage))) => assert_ne!(round % 3, 2, "{what}: {damage:?}"),
            None => panic!("{what}: it is not refused"),
        }
    }
}
