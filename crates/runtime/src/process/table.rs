//! The host's process table, and which of its processes belong to an agent.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::Identity;

#[cfg(target_os = "linux")]
#[path = "table/linux.rs"]
mod system;
#[cfg(not(target_os = "linux"))]
#[path = "table/other.rs"]
mod system;

pub(super) use system::{boot_id, process};

/// The variable that every process of an agent inherits; its value is the agent's id.
pub(super) const MARK: &str = "BERTHOLD_PROCESS";

/// One process, as it was when the table was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) session: u32,
    pub(super) start_time: String,
    /// Dead with all its threads, and only waiting to be reaped: it holds neither ports nor files.
    pub(super) dead: bool,
}

/// All processes at about one moment; one that is forked meanwhile may be missing.
struct Table {
    boot_id: String,
    processes: BTreeMap<u32, Process>,
}

/// By what the processes of an agent are told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Traces {
    /// The agent's id.
    pub(super) id: String,
    /// Its shim, if one is known. It does not count as one of the agent's processes.
    pub(super) shim: Option<Identity>,
    /// The command, leader of its session, if that is known.
    pub(super) leader: Option<Identity>,
}

/// The living processes of an agent, without its shim and without the caller.
pub(super) fn members(traces: &Traces) -> io::Result<Vec<Identity>> {
    let mark = format!("{MARK}={}", traces.id);
    let find = || {
        let table = Table::read()?;
        Ok(table.members_by(traces, std::process::id(), |pid| system::has_variable(pid, &mark)))
    };
    // A process that is forked while the table is read can be missed once, hardly twice.
    match find() {
        Ok(members) if members.is_empty() => find(),
        found => found,
    }
}

/// The living processes that a command left or is: the command itself, what was started with the variable `mark` (`NAME=VALUE`), and
/// what descends from these. The caller is none of them, and what it runs neither.
///
/// # Errors
/// If the host does not tell.
pub fn belonging(command: &Identity, mark: &str) -> io::Result<Vec<Identity>> {
    let find = || {
        let table = Table::read()?;
        Ok(table.belonging_by(command, std::process::id(), |pid| system::has_variable(pid, mark)))
    };
    // A process that is forked while the table is read can be missed once, hardly twice.
    match find() {
        Ok(found) if found.is_empty() => find(),
        found => found,
    }
}

impl Table {
    fn read() -> io::Result<Self> {
        let processes = system::processes()?.into_iter().map(|process| (process.pid, process)).collect();
        Ok(Self { boot_id: boot_id()?, processes })
    }

    fn members_by(&self, traces: &Traces, caller: u32, is_marked: impl Fn(u32) -> bool) -> Vec<Identity> {
        let shim = traces.shim.as_ref().filter(|shim| self.has(shim)).map(|shim| shim.pid);
        // A number is not reused while it names a session, and the leader, if only as a zombie, shows that this one is ours.
        // Without the leader, its number may have come to name the session of strangers.
        let session = traces.leader.as_ref().filter(|leader| self.has(leader)).map(|leader| leader.pid);
        let outsider = |pid| pid == caller || Some(pid) == shim;

        let is_first = |process: &Process| {
            (shim.is_some() && Some(process.parent) == shim)
                || (session.is_some() && Some(process.session) == session)
                || (!process.dead && is_marked(process.pid))
        };
        self.with_descendants(is_first, outsider)
    }

    fn belonging_by(
        &self,
        command: &Identity,
        caller: u32,
        is_marked: impl Fn(u32) -> bool,
    ) -> Vec<Identity> {
        let is_there = self.has(command);
        let is_first = |process: &Process| {
            (is_there && process.pid == command.pid) || (!process.dead && is_marked(process.pid))
        };
        self.with_descendants(is_first, |pid| pid == caller)
    }

    /// The living among those processes that are first and all that descends from them, without outsiders and what these run.
    fn with_descendants(
        &self,
        is_first: impl Fn(&Process) -> bool,
        outsider: impl Fn(u32) -> bool,
    ) -> Vec<Identity> {
        let mut members = BTreeSet::new();
        let inside = self.processes.values().filter(|process| !outsider(process.pid));
        let mut fresh: Vec<u32> =
            inside.filter(|process| is_first(process)).map(|process| process.pid).collect();
        while let Some(pid) = fresh.pop() {
            if members.insert(pid) {
                let children = self.processes.values().filter(|process| process.parent == pid);
                fresh.extend(children.map(|process| process.pid).filter(|pid| !outsider(*pid)));
            }
        }
        let members = members.into_iter().filter_map(|pid| self.processes.get(&pid));
        members.filter(|process| !process.dead).map(|process| self.identity(process)).collect()
    }

    fn has(&self, identity: &Identity) -> bool {
        self.processes.get(&identity.pid).is_some_and(|process| self.identity(process) == *identity)
    }

    fn identity(&self, process: &Process) -> Identity {
        Identity { pid: process.pid, start_time: process.start_time.clone(), boot_id: self.boot_id.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKER: u32 = 10;
    const SHIM: u32 = 20;
    const LEADER: u32 = 30;

    /// `(pid, parent, session)` each, started at time = pid. A dead one has a negative session.
    fn table(processes: &[(u32, u32, i32)]) -> Table {
        let process = |&(pid, parent, session): &(u32, u32, i32)| Process {
            pid,
            parent,
            session: session.unsigned_abs(),
            start_time: pid.to_string(),
            dead: session < 0,
        };
        let processes = processes.iter().map(process).map(|process| (process.pid, process)).collect();
        Table { boot_id: "boot".into(), processes }
    }

    fn identity(pid: u32) -> Identity {
        Identity { pid, start_time: pid.to_string(), boot_id: "boot".into() }
    }

    fn check(processes: &[(u32, u32, i32)], traces: &Traces, marked: &[u32], expected: &[u32]) {
        let members = table(processes).members_by(traces, BROKER, |pid| marked.contains(&pid));
        assert_eq!(
            members.iter().map(Identity::pid).collect::<Vec<_>>(),
            expected,
            "{processes:?} {traces:?}"
        );
    }

    fn traces() -> Traces {
        Traces { id: "a.1".into(), shim: Some(identity(SHIM)), leader: Some(identity(LEADER)) }
    }

    #[test]
    fn with_a_shim_its_descendants_belong_to_the_agent() {
        let processes =
            [(1, 0, 1), (10, 1, 10), (20, 10, 20), (30, 20, 30), (31, 30, 30), (40, 20, 40), (41, 40, 41)];
        check(&processes, &traces(), &[], &[30, 31, 40, 41]);
    }

    #[test]
    fn without_a_shim_session_mark_and_descent_tell() {
        let processes = [(1, 0, 1), (30, 1, 30), (31, 1, 30), (40, 1, 40), (41, 40, 41), (50, 1, 50)];
        check(&processes, &traces(), &[40], &[30, 31, 40, 41]);
    }

    #[test]
    fn a_leader_that_is_not_reaped_still_names_its_session() {
        check(&[(1, 0, 1), (30, 1, -30), (31, 1, 30)], &traces(), &[], &[31]);
    }

    #[test]
    fn processes_with_reused_numbers_are_strangers() {
        let reused = Identity { start_time: "7".into(), ..identity(LEADER) };
        let gone = Traces {
            shim: Some(Identity { start_time: "7".into(), ..identity(SHIM) }),
            leader: Some(reused),
            ..traces()
        };
        check(&[(1, 0, 1), (20, 1, 20), (30, 20, 30), (31, 30, 30)], &gone, &[], &[]);
        // The stranger with the leader's number has died as well, and its session lives on.
        check(&[(1, 0, 1), (31, 1, 30)], &traces(), &[], &[]);
        let rebooted =
            Traces { leader: Some(Identity { boot_id: "before".into(), ..identity(LEADER) }), ..traces() };
        check(&[(1, 0, 1), (30, 1, 30)], &rebooted, &[], &[]);
    }

    #[test]
    fn what_belongs_to_a_command_is_known_by_descent_or_mark_and_never_by_a_reused_number() {
        let check = |processes: &[(u32, u32, i32)], command: &Identity, marked: &[u32], expected: &[u32]| {
            let found = table(processes).belonging_by(command, BROKER, |pid| marked.contains(&pid));
            assert_eq!(found.iter().map(|it| it.pid).collect::<Vec<_>>(), expected);
        };
        let (command, session) = (identity(30), 5);
        check(&[(1, 0, 1), (20, 1, session), (30, 20, session), (31, 30, session)], &command, &[], &[30, 31]);
        check(&[(1, 0, 1), (30, 1, -session), (31, 30, session)], &command, &[], &[31]);
        check(&[(1, 0, 1), (40, 1, 40), (41, 40, 40)], &command, &[40], &[40, 41]);
        check(&[(1, 0, 1), (40, 1, -40)], &command, &[40], &[]);
        let gone = Identity { start_time: "7".into(), ..identity(30) };
        check(&[(1, 0, 1), (30, 1, 30), (31, 30, 30)], &gone, &[], &[]);
        // A broker in it is spared with what it runs.
        check(&[(1, 0, 1), (30, 1, 5), (BROKER, 30, 5), (60, BROKER, 60)], &command, &[BROKER], &[30]);
    }

    #[test]
    fn a_broker_that_an_agent_started_is_spared_with_what_it_runs() {
        check(&[(1, 0, 1), (20, 1, 20), (30, 20, 30), (10, 30, 30), (60, 10, 60)], &traces(), &[10], &[30]);
    }
}
