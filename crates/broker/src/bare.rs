//! Bare leases: ports for what the broker does not start itself.
//!
//! The owner of a bare lease is a name, `project/name`, and nothing that runs: an agent of the same name is another owner. The
//! lease is granted like an agent's (chosen from the same pool, probed, on disk before it is told), and lives until its owner
//! releases it. It is released by its owner's name, with the lease's id if that matters, and never by a port.
//!
//! **With a process.** A lease can be bound to a process, with which it ends: see `holding`.
//!
//! **The end.** No runtime can confirm that the owner has let go of its ports, so the broker looks itself: while anything of this
//! host has one of them, or a runtime says that it publishes one, a release is refused. By force it is not, and whoever has the port
//! then is found by the next look for blocked ports.
//!
//! **Former ports.** What an owner had is remembered in the ledger, as an agent's former ports are. But an agent is forgotten when
//! someone deletes it, while of owners nobody says that they will not come back: so only the latest [`REMEMBERED`] are kept.
//!
//! **A lost ledger** takes bare leases with it: nothing else tells of them. What listens on their ports is found as blocked.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::LeaseRequest;
use pool::{AgentKey, Owner, Port};
use runtime::process::Identity;
use serde_json::{Map, Value, json};
use settings::RuntimeName;

use crate::blocked::{self, is_held};
use crate::clock;
use crate::core::Core;
use crate::error::{OperationError, shown};
use crate::holding;
use crate::leases::Undo;
use crate::ledger::Change;
use crate::model::{BareLease, Former, Lease};
use crate::reason;
use crate::spec;

/// Of how many owners the former ports are remembered.
const REMEMBERED: usize = 100;

/// What came of the wish for a lease.
pub(crate) struct Granted {
    pub(crate) bare: BareLease,
    /// False if the owner had it already.
    pub(crate) created: bool,
}

/// What is to be released.
#[derive(Default)]
pub(crate) struct Release {
    /// Only the lease of this id.
    pub(crate) lease: Option<String>,
    /// Also while its ports are in use.
    pub(crate) force: bool,
}

impl Core {
    /// The lease of this owner, if it has one.
    pub(crate) fn bare(&self, owner: &AgentKey) -> Option<BareLease> {
        self.state().bare.get(owner).cloned()
    }

    /// Gives `owner` a lease, or returns the one that it has.
    pub(crate) async fn lease_bare(
        self: &Arc<Self>,
        owner: AgentKey,
        request: LeaseRequest,
    ) -> Result<Granted, OperationError> {
        let _lock = self.lock_bare(&owner).await;
        let mut has = self.bare(&owner);
        if let Some(bare) = has.as_ref().filter(|bare| bare.holder.is_some() && request.lease.is_none())
            && self.end_if_unused(bare).await
        {
            has = None;
        }
        let old = match has {
            Some(bare) if bare.holder.is_some() || request.holder.is_some() => {
                let bare = self.lease_held(bare, &request).await?;
                return Ok(Granted { bare, created: false });
            }
            Some(bare) if request.ports.is_none_or(|count| usize::from(count) == bare.lease.ports.len()) => {
                return Ok(Granted { bare, created: false });
            }
            Some(bare) if !request.replace => return Err(differs(&bare, request.ports.unwrap_or_default())),
            other => other.map(|bare| bare.lease),
        };
        if let Some(lease) = request.lease {
            return Err(another_lease(&owner, None, &lease));
        }
        let count = self.count(&owner, request.ports)?;
        let holder = request.holder.as_ref().map(|named| holding::holder(&owner, named, request.forget));
        let holder = holder.transpose()?;
        let former = self.state().former.get(&owner).cloned();
        let undo = Undo {
            owner: Owner::Bare(owner.clone()),
            in_use: old.is_some(),
            old,
            released_at: former.as_ref().map(|former| former.released_at),
            former: former.map(|former| former.ports).unwrap_or_default(),
        };
        let id = Self::new_lease_id();
        let chosen = self.choose(&id, usize::from(count), &undo, RuntimeName::Process.as_str()).await;
        let ports = chosen.map_err(|source| OperationError::Exhausted {
            owner: undo.owner.to_string(),
            source: Box::new(source),
        })?;
        let given_up: Vec<Port> = undo.old.iter().flat_map(|old| &old.ports).copied().collect();
        let given_up: Vec<Port> = given_up.into_iter().filter(|port| !ports.contains(port)).collect();
        if !request.force {
            let held = self.in_use(&given_up).await;
            if !held.is_empty() {
                self.undo(&undo, &id);
                return Err(still_in_use(&owner, &held, &format!("lease {} --replace", shown(&owner))));
            }
        }
        let bare = BareLease {
            key: owner.clone(),
            lease: Lease { id: id.clone(), ports: ports.clone(), since: clock::now() },
            holder,
        };
        let mut changes = Vec::with_capacity(4);
        if let Some(old) = &undo.old {
            let (at, reason) = (bare.lease.since, reason::REPLACED.to_owned());
            changes.push(Change::Release { lease: old.id.clone(), at, reason });
        }
        changes.push(Change::Former { owner: owner.clone(), former: None });
        changes.push(Change::Grant { owner: undo.owner.clone(), lease: bare.lease.clone() });
        changes.extend(bare.holder.clone().map(|holder| Change::Hold { lease: id.clone(), holder }));
        if let Err(source) = self.ledger.record(changes).on_disk().await {
            self.undo(&undo, &id);
            return Err(OperationError::Ledger { key: owner, source });
        }
        let mut state = self.state();
        if let Some(old) = &undo.old {
            state.pool.complete_exchange(&old.id, clock::now());
        }
        state.former.remove(&owner);
        state.bare.insert(owner, bare.clone());
        drop(state);
        self.tell_ports(&id, &ports);
        self.tell_ports(&id, &given_up);
        self.watch_held(&bare);
        Ok(Granted { bare, created: true })
    }

    /// What a wish means for an owner that has a lease, where either of them is bound to a process.
    async fn lease_held(&self, bare: BareLease, request: &LeaseRequest) -> Result<BareLease, OperationError> {
        let Some(named) = &request.holder else { return Err(ends_with_another(&bare)) };
        if let Some(id) = request.lease.as_deref().filter(|id| *id != bare.lease.id.as_str()) {
            return Err(another_lease(&bare.key, Some(&bare), id));
        }
        let Some(holder) = &bare.holder else { return Err(ends_with_none(&bare)) };
        let to = holding::named_holder(named, holder.forget);
        match to.process == holder.process {
            true => Ok(bare),
            false if request.lease.is_some() => self.hand_over(bare, to).await,
            false => Err(ends_with_another(&bare)),
        }
    }

    /// Takes the lease of `owner` back, and gives it as it was; none if it has none.
    pub(crate) async fn release_bare(
        &self,
        owner: AgentKey,
        release: Release,
    ) -> Result<Option<BareLease>, OperationError> {
        let _lock = self.lock_bare(&owner).await;
        let Some(bare) = self.bare(&owner) else { return Ok(None) };
        if let Some(id) = release.lease.filter(|id| *id != *bare.lease.id.as_str()) {
            return Err(another_lease(&owner, Some(&bare), &id));
        }
        if !release.force {
            match self.left_of(&bare).await.as_deref() {
                Ok([]) => {}
                Ok([process, ..]) => return Err(still_runs(&owner, process)),
                Err(error) => return Err(not_told(&owner, error)),
            }
        }
        let held = self.in_use(&bare.lease.ports).await;
        if !held.is_empty() && !release.force {
            return Err(still_in_use(&owner, &held, &format!("release {}", shown(&owner))));
        }
        let reason = match &bare.holder {
            _ if release.force => reason::RELEASED_BY_FORCE,
            Some(_) => reason::PROCESS_ENDED,
            None => reason::RELEASED,
        };
        self.end_bare(&bare, reason).await?;
        // Nobody has to run into what is known already.
        self.block_idle(&held);
        Ok(Some(bare))
    }

    /// Enters the end of a lease that nobody uses any more. Its ports are its owner's former ports from now on, unless the owner will
    /// not come back.
    pub(crate) async fn end_bare(&self, bare: &BareLease, reason: &str) -> Result<(), OperationError> {
        let (owner, lease, now) = (&bare.key, &bare.lease, clock::now());
        let is_remembered = !bare.holder.as_ref().is_some_and(|holder| holder.forget);
        let had = is_remembered.then(|| Former { ports: lease.ports.clone(), released_at: now });
        let mut former = self.state().former.clone();
        former.extend(had.clone().map(|had| (owner.clone(), had)));
        let too_many = oldest_beyond(&former, REMEMBERED);
        let forget = |owner: &AgentKey| Change::Former { owner: owner.clone(), former: None };
        let mut changes = vec![
            Change::Release { lease: lease.id.clone(), at: now, reason: reason.to_owned() },
            Change::Former { owner: owner.clone(), former: had.clone() },
        ];
        changes.extend(too_many.iter().map(forget));
        let ledger = |source| OperationError::Ledger { key: owner.clone(), source };
        self.ledger.record(changes).on_disk().await.map_err(ledger)?;
        let mut state = self.state();
        state.pool.release(&lease.id, now, is_remembered);
        state.bare.remove(owner);
        state.former.extend(had.map(|had| (owner.clone(), had)));
        for owner in too_many {
            state.former.remove(&owner);
            state.pool.forget(&Owner::Bare(owner));
        }
        drop(state);
        self.tell_ports(&lease.id, &lease.ports);
        Ok(())
    }

    /// Those of `ports` that something of this host has, and what that is. Who may be about to let go is given the time for that.
    pub(crate) async fn in_use(&self, ports: &[Port]) -> BTreeMap<Port, String> {
        if ports.is_empty() {
            return BTreeMap::new();
        }
        let mut held = self.held_unseen(RuntimeName::Process.as_str()).await;
        held.retain(|port, _| ports.contains(port));
        let mut busy = Vec::new();
        for port in ports.iter().filter(|port| !held.contains_key(port)) {
            if is_held(*port, true).await {
                busy.push(*port);
            }
        }
        held.extend(blocked::name(busy).await);
        held
    }

    /// How many ports are meant.
    fn count(&self, owner: &AgentKey, asked: Option<u16>) -> Result<u16, OperationError> {
        let Some(pool) = &self.settings.server.broker.port_pool else {
            let hint = "add `server: { broker: { port_pool: { range: 8000-9000 } } }` to the settings and start the broker anew";
            let message = format!("no ports for {owner}: this broker has no port pool");
            return Err(spec::invalid(message, Some(hint.to_owned())));
        };
        match asked.unwrap_or(pool.ports_per_agent) {
            0 => {
                let message = format!("a lease of no ports is none, and that is what was asked for {owner}");
                Err(spec::invalid(message, Some("ask for a number of ports with `-n N`".to_owned())))
            }
            count if count > pool::label::LABEL_COUNT => {
                let most = pool::label::LABEL_COUNT;
                Err(spec::invalid(
                    format!("a lease has at most {most} ports, and {count} were asked for"),
                    None,
                ))
            }
            count => Ok(count),
        }
    }
}

/// The owners whose former ports were released longest ago, so many that `limit` are left.
fn oldest_beyond(former: &BTreeMap<AgentKey, Former>, limit: usize) -> Vec<AgentKey> {
    let mut owners: Vec<_> = former.iter().map(|(owner, former)| (former.released_at, owner)).collect();
    owners.sort_unstable();
    let excess = owners.len().saturating_sub(limit);
    owners.into_iter().take(excess).map(|(_, owner)| owner.clone()).collect()
}

fn differs(bare: &BareLease, asked: u16) -> OperationError {
    let (owner, has) = (&bare.key, bare.lease.ports.len());
    let ports = |count: usize| if count == 1 { "1 port".to_owned() } else { format!("{count} ports") };
    conflict(
        format!("{owner} has a lease of {} already, and {} were asked for", ports(has), ports(asked.into())),
        format!(
            "leave out -n to have it as it is, or change it with `berthold lease {} -n {asked} --replace`",
            shown(owner)
        ),
        json!({ "owner": owner.to_string(), "lease": bare.lease.id.as_str(), "has": has, "asked": asked }),
    )
}

fn another_lease(owner: &AgentKey, has: Option<&BareLease>, asked: &str) -> OperationError {
    let now = has.map(|bare| bare.lease.id.to_string());
    let besides = match &now {
        Some(now) => format!("it has another one now, {now}, and that was left as it is"),
        None => "it has none now".to_owned(),
    };
    conflict(
        format!("the lease {asked} of {owner} has ended; {besides}"),
        format!(
            "`berthold leases` shows the leases that there are; without --lease, `berthold release {}` ends whichever it has",
            shown(owner)
        ),
        json!({ "owner": owner.to_string(), "lease": now, "asked": asked }),
    )
}

fn ends_with_another(bare: &BareLease) -> OperationError {
    let (owner, holder) = (&bare.key, bare.holder.as_ref());
    let (pid, command) = holder.map(|holder| (holder.process.pid(), holder.command.as_str())).unzip();
    let what =
        command.filter(|command| !command.is_empty()).map_or_else(String::new, |it| format!(" (`{it}`)"));
    conflict(
        format!(
            "the lease of {owner} ends with process {}{what}, or with what that left",
            pid.unwrap_or_default()
        ),
        "choose another name, or wait until that has ended".to_owned(),
        json!({ "owner": owner.to_string(), "lease": bare.lease.id.as_str(), "pid": pid }),
    )
}

fn ends_with_none(bare: &BareLease) -> OperationError {
    let owner = &bare.key;
    conflict(
        format!("{owner} has a lease already, which lives until it is released"),
        format!("choose another name, or end that lease with `berthold release {}`", shown(owner)),
        json!({ "owner": owner.to_string(), "lease": bare.lease.id.as_str() }),
    )
}

fn still_runs(owner: &AgentKey, process: &Identity) -> OperationError {
    conflict(
        format!(
            "nothing of {owner} was released, because process {} still runs, for which it was leased",
            process.pid()
        ),
        format!("end it, or release it all the same with `berthold release {} --force`", shown(owner)),
        json!({ "owner": owner.to_string(), "pid": process.pid() }),
    )
}

fn not_told(owner: &AgentKey, error: &std::io::Error) -> OperationError {
    conflict(
        format!(
            "nothing of {owner} was released, because it cannot be told whether its process still runs: {error}"
        ),
        format!("release it all the same with `berthold release {} --force`", shown(owner)),
        json!({ "owner": owner.to_string() }),
    )
}

fn still_in_use(owner: &AgentKey, held: &BTreeMap<Port, String>, command: &str) -> OperationError {
    let told: Vec<String> =
        held.iter().map(|(port, by)| format!("port {port} is still in use by {by}")).collect();
    let ports: Vec<Value> = held.iter().map(|(port, by)| json!({ "port": port.get(), "by": by })).collect();
    conflict(
        format!("nothing of {owner} was released, because {}", told.join(", and ")),
        format!("end what uses it, or release it all the same with `berthold {command} --force`"),
        json!({ "owner": owner.to_string(), "in_use": ports }),
    )
}

fn conflict(message: String, hint: String, details: Value) -> OperationError {
    let details = match details {
        Value::Object(details) => details,
        _ => Map::new(),
    };
    OperationError::Conflict { message, hint, details }
}

#[cfg(test)]
mod tests {
    use pool::Moment;

    use super::*;

    /// L12.
    #[test]
    fn only_the_latest_owners_are_remembered() {
        let former = |released_at: i64| Former { ports: Vec::new(), released_at: Moment(released_at) };
        let key = |name: &str| name.parse::<AgentKey>().unwrap();
        let owners = [("a/a", 3), ("a/b", 1), ("a/c", 2), ("b/a", 4)];
        let owners = owners.into_iter().map(|(name, at)| (key(name), former(at))).collect();
        assert_eq!(oldest_beyond(&owners, 4), []);
        assert_eq!(oldest_beyond(&owners, 2), [key("a/b"), key("a/c")]);
    }
}
