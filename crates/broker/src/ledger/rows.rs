//! Between rows and what the broker knows.

use std::collections::BTreeMap;

use pool::{AgentKey, LeaseId, Moment, Name, Owner, Port};
use runtime::HeldPort;
use rusqlite::{Connection, Row, named_params};

use super::{Change, Contents, history};
use crate::model::{AgentRecord, BareLease, Former, Lease, Stage, ToldPorts, join_ports, split_ports};

/// The rows do not say anything that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the {column} of {row} reads `{value}`")]
    Value { row: String, column: &'static str, value: String },
    #[error("the lease {lease} names an agent {owner} that is not there")]
    Ownerless { lease: LeaseId, owner: AgentKey },
}

/// Reads everything.
pub(super) fn load(connection: &Connection) -> Result<Contents, LoadError> {
    let mut contents = Contents::default();
    let mut statement = connection.prepare("SELECT * FROM agents ORDER BY project, name")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        contents.agents.push(agent(row)?);
    }
    let mut statement = connection.prepare("SELECT * FROM leases ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = LeaseId::new(&row.get::<_, String>("id")?);
        let key = key(row)?;
        let ports = ports(connection, &id)?;
        let lease = Lease { id, ports, since: Moment(row.get("granted_at")?) };
        if row.get::<_, String>("kind")? == "bare" {
            let holder: Option<String> = row.get("holder")?;
            let wrong = |text: &str| LoadError::Value {
                row: format!("lease {}", lease.id),
                column: "holder",
                value: text.to_owned(),
            };
            let holder =
                holder.map(|text| serde_json::from_str(&text).map_err(|_| wrong(&text))).transpose()?;
            contents.bare.push(BareLease { key, lease, holder });
            continue;
        }
        match contents.agents.iter_mut().find(|agent| agent.key == key) {
            Some(agent) => agent.lease = Some(lease),
            None => return Err(LoadError::Ownerless { lease: lease.id, owner: key }),
        }
    }
    let mut statement = connection.prepare("SELECT * FROM former ORDER BY project, name")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (key, ports): (_, String) = (key(row)?, row.get("ports")?);
        let wrong =
            || LoadError::Value { row: format!("lease {key}"), column: "ports", value: ports.clone() };
        let former = Former {
            ports: split_ports(&ports).ok_or_else(wrong)?,
            released_at: Moment(row.get("released_at")?),
        };
        contents.former.push((key, former));
    }
    contents.told = told(connection)?;
    Ok(contents)
}

fn told(connection: &Connection) -> Result<BTreeMap<String, ToldPorts>, LoadError> {
    let mut statement = connection.prepare("SELECT * FROM told ORDER BY rowid")?;
    let mut rows = statement.query([])?;
    let mut told: BTreeMap<String, ToldPorts> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (runtime, boot): (String, String) = (row.get("runtime")?, row.get("boot")?);
        let at = Moment(row.get("told_at")?);
        // It is no reason to give up all the rest that one of these does not read.
        let Ok(port) = u16::try_from(row.get::<_, i64>("port")?) else { continue };
        let held = HeldPort { port, by: row.get("holder")?, is_here: true, lease: row.get("lease")? };
        told.entry(runtime).or_insert_with(|| ToldPorts { boot, at, held: Vec::new() }).held.push(held);
    }
    Ok(told)
}

/// Carries out one change inside the transaction that is open.
pub(super) fn apply(connection: &Connection, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Grant { owner, lease } => grant(connection, owner, lease),
        Change::Hold { lease, holder } => connection
            .prepare_cached("UPDATE leases SET holder = ?2 WHERE id = ?1")?
            .execute((lease.as_str(), json(holder)?))
            .map(drop),
        Change::Release { lease, at, reason } => {
            connection.prepare_cached("DELETE FROM leases WHERE id = ?1")?.execute([lease.as_str()])?;
            history::end(connection, lease, *at, reason)
        }
        Change::Agent(agent) => put_agent(connection, agent),
        Change::Forget(key) => connection
            .prepare_cached("DELETE FROM agents WHERE project = ?1 AND name = ?2")?
            .execute([key.project.as_str(), key.name.as_str()])
            .map(drop),
        Change::Former { owner, former: Some(former) } => connection
            .prepare_cached(
                "INSERT OR REPLACE INTO former (project, name, ports, released_at) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute((
                owner.project.as_str(),
                owner.name.as_str(),
                join_ports(&former.ports),
                former.released_at.0,
            ))
            .map(drop),
        Change::Told { runtime, told } => put_told(connection, runtime, told),
        Change::Former { owner, former: None } => connection
            .prepare_cached("DELETE FROM former WHERE project = ?1 AND name = ?2")?
            .execute([owner.project.as_str(), owner.name.as_str()])
            .map(drop),
    }
}

fn grant(connection: &Connection, owner: &Owner, lease: &Lease) -> rusqlite::Result<()> {
    let (key, kind) = (owner.key(), kind(owner));
    connection
        .prepare_cached(
            "INSERT INTO leases (id, kind, project, name, granted_at) VALUES (:id, :kind, :project, :name, :at)",
        )?
        .execute(named_params! {
            ":id": lease.id.as_str(), ":kind": kind, ":project": key.project.as_str(),
            ":name": key.name.as_str(), ":at": lease.since.0,
        })?;
    let mut insert =
        connection.prepare_cached("INSERT INTO ports (port, lease, place) VALUES (?1, ?2, ?3)")?;
    for (place, port) in (0_u32..).zip(&lease.ports) {
        insert.execute((port.get(), lease.id.as_str(), place))?;
    }
    history::begin(connection, owner, lease)
}

fn put_told(connection: &Connection, runtime: &str, told: &ToldPorts) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM told WHERE runtime = ?1")?.execute([runtime])?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO told (runtime, boot, told_at, port, holder, lease) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for held in &told.held {
        insert.execute((runtime, &told.boot, told.at.0, held.port, &held.by, &held.lease))?;
    }
    Ok(())
}

/// The kind of an owner, as rows have it.
pub(super) fn kind(owner: &Owner) -> &'static str {
    match owner {
        Owner::Agent(_) => "agent",
        Owner::Bare(_) => "bare",
    }
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn put_agent(connection: &Connection, agent: &AgentRecord) -> rusqlite::Result<()> {
    let spec = agent.spec.as_ref().map(json).transpose()?;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO agents (project, name, runtime, state, spec, container, published, former,
                 released_at, started_at, ended_at, exit_code, reason, warnings, engine)
             VALUES (:project, :name, :runtime, :state, :spec, :container, :published, :former,
                 :released_at, :started_at, :ended_at, :exit_code, :reason, :warnings, :engine)",
        )?
        .execute(named_params! {
            ":project": agent.key.project.as_str(),
            ":name": agent.key.name.as_str(),
            ":runtime": agent.runtime,
            ":state": agent.stage.as_str(),
            ":spec": spec,
            ":container": agent.container,
            ":published": agent.published,
            ":former": join_ports(&agent.former),
            ":released_at": agent.released_at.map(|at| at.0),
            ":started_at": agent.started_at.map(|at| at.0),
            ":ended_at": agent.ended_at.map(|at| at.0),
            ":exit_code": agent.exit_code,
            ":reason": agent.reason,
            ":warnings": json(&agent.warnings)?,
            ":engine": agent.engine,
        })
        .map(drop)
}

fn agent(row: &Row<'_>) -> Result<AgentRecord, LoadError> {
    let key = key(row)?;
    let wrong = |column, value: &str| LoadError::Value {
        row: format!("agent {key}"),
        column,
        value: value.to_owned(),
    };
    let state: String = row.get("state")?;
    let stage =
        Stage::ALL.into_iter().find(|stage| stage.as_str() == state).ok_or_else(|| wrong("state", &state))?;
    let spec: Option<String> = row.get("spec")?;
    let spec = spec.map(|text| serde_json::from_str(&text).map_err(|_| wrong("spec", &text))).transpose()?;
    let former: String = row.get("former")?;
    let warnings: String = row.get("warnings")?;
    Ok(AgentRecord {
        runtime: row.get("runtime")?,
        stage,
        spec,
        container: row.get("container")?,
        engine: row.get("engine")?,
        lease: None,
        published: row.get("published")?,
        former: split_ports(&former).ok_or_else(|| wrong("former", &former))?,
        released_at: row.get::<_, Option<i64>>("released_at")?.map(Moment),
        started_at: row.get::<_, Option<i64>>("started_at")?.map(Moment),
        ended_at: row.get::<_, Option<i64>>("ended_at")?.map(Moment),
        exit_code: row.get("exit_code")?,
        reason: row.get("reason")?,
        warnings: serde_json::from_str(&warnings).map_err(|_| wrong("warnings", &warnings))?,
        key,
    })
}

fn key(row: &Row<'_>) -> Result<AgentKey, LoadError> {
    let name = |column: &'static str| -> Result<Name, LoadError> {
        let text: String = row.get(column)?;
        Name::new(&text).map_err(|_| LoadError::Value { row: "a row".to_owned(), column, value: text })
    };
    Ok(AgentKey::new(name("project")?, name("name")?))
}

fn ports(connection: &Connection, lease: &LeaseId) -> Result<Vec<Port>, LoadError> {
    let mut statement =
        connection.prepare_cached("SELECT port FROM ports WHERE lease = ?1 ORDER BY place")?;
    let numbers = statement.query_map([lease.as_str()], |row| row.get::<_, u16>(0))?;
    let port = |number: u16| {
        let wrong =
            || LoadError::Value { row: format!("lease {lease}"), column: "port", value: number.to_string() };
        Port::new(number).ok_or_else(wrong)
    };
    numbers.map(|number| port(number?)).collect()
}
