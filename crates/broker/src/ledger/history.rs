//! Who held which port when.
//!
//! A row a port of a lease, written in the transaction that grants the lease and completed in the one that releases it: the history
//! says what the ledger says, at any moment and after any crash. It is read over a connection of its own, so that a long history holds up
//! no lease.
//!
//! **Limits.** Of what has ended, the newest [`KEPT`] are kept; what is held still is always there. A ledger that was lost or
//! damaged takes its history with it.

use std::path::Path;
use std::time::Duration;

use pool::{AgentKey, LeaseId, Moment, Name, Owner, Port};
use rusqlite::{Connection, OpenFlags, Row, named_params};

use super::rows::kind;
use crate::model::Lease;

/// How much is kept.
pub(super) const KEPT: Limits = Limits { rows: 100_000, age: Duration::from_secs(30 * 24 * 60 * 60) };
/// After how many leases the writer looks whether there is too much.
pub(super) const PRUNED_EVERY: usize = 1_000;

/// How much is kept.
pub(super) struct Limits {
    /// How many rows.
    pub(super) rows: u32,
    /// For how long after the end.
    pub(super) age: Duration,
}

/// A port in the hands of an owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) port: Port,
    pub(crate) owner: Owner,
    pub(crate) lease: LeaseId,
    /// 0 for label A.
    pub(crate) place: usize,
    pub(crate) since: Moment,
    /// None while it is held.
    pub(crate) until: Option<Moment>,
    /// Why it ended.
    pub(crate) reason: Option<String>,
}

/// What is asked of the history.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Only of this port.
    pub(crate) port: Option<Port>,
    /// Only of the agent, and the owner of bare leases, of this name.
    pub(crate) owner: Option<AgentKey>,
    /// Only what was held then, or later.
    pub(crate) since: Option<Moment>,
    /// At most so many.
    pub(crate) limit: u32,
}

/// What the ledger at `path` has of it, the latest first.
///
/// # Errors
/// What SQLite says.
pub(crate) fn read(path: &Path, question: &Question) -> rusqlite::Result<Vec<Held>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let mut statement = connection.prepare(
        "SELECT * FROM history
         WHERE (:port IS NULL OR port = :port)
             AND (:project IS NULL OR (project = :project AND name = :name))
             AND (:since IS NULL OR until IS NULL OR until >= :since)
         ORDER BY id DESC LIMIT :limit",
    )?;
    let owner = question.owner.as_ref();
    let rows = statement.query_map(
        named_params! {
            ":port": question.port.map(Port::get),
            ":project": owner.map(|owner| owner.project.as_str()),
            ":name": owner.map(|owner| owner.name.as_str()),
            ":since": question.since.map(|since| since.0),
            ":limit": question.limit,
        },
        held,
    )?;
    // A row that makes no sense is passed over: the history is for people, and decides of nothing but how long a port cools
    // down.
    rows.filter_map(Result::transpose).collect()
}

fn held(row: &Row<'_>) -> rusqlite::Result<Option<Held>> {
    let text = |column: &str| row.get::<_, String>(column);
    let (project, name) = (Name::new(&text("project")?).ok(), Name::new(&text("name")?).ok());
    let port = Port::new(row.get("port")?);
    let (Some(port), Some(project), Some(name)) = (port, project, name) else { return Ok(None) };
    let key = AgentKey::new(project, name);
    Ok(Some(Held {
        port,
        owner: if text("kind")? == "bare" { Owner::Bare(key) } else { Owner::Agent(key) },
        lease: LeaseId::new(&text("lease")?),
        place: usize::from(row.get::<_, u16>("place")?),
        since: Moment(row.get("since")?),
        until: row.get::<_, Option<i64>>("until")?.map(Moment),
        reason: row.get("reason")?,
    }))
}

/// Enters that `owner` has the ports of `lease` from now on.
pub(super) fn begin(connection: &Connection, owner: &Owner, lease: &Lease) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO history (port, lease, kind, project, name, place, since) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let key = owner.key();
    for (place, port) in (0_u32..).zip(&lease.ports) {
        let (project, name) = (key.project.as_str(), key.name.as_str());
        insert.execute((port.get(), lease.id.as_str(), kind(owner), project, name, place, lease.since.0))?;
    }
    Ok(())
}

/// Enters that nobody has the ports of `lease` any more.
pub(super) fn end(
    connection: &Connection,
    lease: &LeaseId,
    at: Moment,
    reason: &str,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE history SET until = ?2, reason = ?3 WHERE lease = ?1 AND until IS NULL")?
        .execute((lease.as_str(), at.0, reason))
        .map(drop)
}

/// Removes what is beyond the limits; how many rows that was.
pub(super) fn prune(connection: &Connection, limits: &Limits, now: Moment) -> rusqlite::Result<usize> {
    let oldest = now.0.saturating_sub(i64::try_from(limits.age.as_millis()).unwrap_or(i64::MAX));
    connection.execute(
        "DELETE FROM history
         WHERE until < ?1
             OR (until IS NOT NULL AND id <= (SELECT id FROM history ORDER BY id DESC LIMIT 1 OFFSET ?2))",
        (oldest, limits.rows),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::open;

    fn all() -> Question {
        Question { port: None, owner: None, since: None, limit: 100 }
    }

    /// `port owner since-until reason` of each row, from a ledger in which two owners had ports 8000 and 8001 one after the other.
    fn check(change: impl FnOnce(&Connection), question: &Question, expected: &[&str]) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ledger.db");
        let (connection, ..) = open(&path).unwrap();
        let lease = |id: &str, ports: &[u16], since| Lease {
            id: LeaseId::new(id),
            ports: ports.iter().filter_map(|port| Port::new(*port)).collect(),
            since: Moment(since),
        };
        let key = |name: &str| name.parse::<AgentKey>().unwrap();
        begin(&connection, &Owner::Agent(key("shop/dev")), &lease("l1", &[8001, 8000], 10)).unwrap();
        end(&connection, &LeaseId::new("l1"), Moment(20), "stopped").unwrap();
        begin(&connection, &Owner::Bare(key("shop/db")), &lease("l2", &[8000], 30)).unwrap();
        // What has ended does so once.
        end(&connection, &LeaseId::new("l1"), Moment(99), "again").unwrap();
        change(&connection);
        let shown = |held: &Held| {
            let until = held.until.map_or_else(|| "now".to_owned(), |until| until.0.to_string());
            let (Held { port, owner, place, since, .. }, reason) = (held, held.reason.as_deref());
            format!("{port} {owner} {place} {}-{until} {}", since.0, reason.unwrap_or("-"))
        };
        let found: Vec<String> = read(&path, question).unwrap().iter().map(shown).collect();
        assert_eq!(found, expected);
    }

    const DB: &str = "8000 lease shop/db 0 30-now -";
    const DEV: [&str; 2] = ["8000 shop/dev 1 10-20 stopped", "8001 shop/dev 0 10-20 stopped"];

    #[test]
    fn who_had_which_port_the_latest_first() {
        check(|_| {}, &all(), &[DB, DEV[0], DEV[1]]);
        check(|_| {}, &Question { port: Port::new(8000), ..all() }, &[DB, DEV[0]]);
        check(|_| {}, &Question { owner: Some("shop/dev".parse().unwrap()), ..all() }, &DEV);
        check(|_| {}, &Question { since: Some(Moment(21)), ..all() }, &[DB]);
        check(|_| {}, &Question { since: Some(Moment(20)), limit: 2, ..all() }, &[DB, DEV[0]]);
    }

    #[test]
    fn what_is_too_old_or_too_much_goes_and_what_is_held_stays() {
        let prune = |rows: u32, age: u64, now: i64| {
            move |connection: &Connection| {
                prune(connection, &Limits { rows, age: Duration::from_millis(age) }, Moment(now))
                    .map(drop)
                    .unwrap();
            }
        };
        check(prune(100, 50, 70), &all(), &[DB, DEV[0], DEV[1]]);
        check(prune(100, 50, 71), &all(), &[DB]);
        check(prune(2, 50, 70), &all(), &[DB, DEV[0]]);
        check(prune(0, 0, 1_000_000), &all(), &[DB]);
    }
}
