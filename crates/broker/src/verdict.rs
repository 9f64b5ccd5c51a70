//! What follows from what the ledger says and what a runtime shows: plain functions, no I/O.

use std::time::Duration;

use pool::LeaseId;
use runtime::ObservedState;

use crate::model::{AgentRecord, Stage};

/// How old a lease must be before "nothing is there" can end it: an engine may not show at once what it was asked for.
const GRACE: Duration = Duration::from_secs(10);
/// How long after "nothing is there" was first seen it must be seen again.
pub(crate) const SECOND_LOOK: Duration = Duration::from_secs(1);

/// For how long something that only was created may be there in place of an agent that has run: whoever has made it anew may yet
/// start it, and a pod may take its time.
const UNSTARTED: Duration = Duration::from_secs(300);

/// What speaks for it that a lease is over of which nothing is there now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Absence {
    /// For how long the lease is held.
    pub(crate) age: Duration,
    /// For how long nothing has been there, whenever that was looked at; none if this is the first time.
    pub(crate) missing_for: Option<Duration>,
    /// For how long only something that has not started has been there; none if this is the first time.
    pub(crate) unstarted_for: Option<Duration>,
}

/// What speaks for it that whoever made something on a runtime may yet start it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unstarted {
    /// Whether it bears the lease under which its agent last ran: then it was made in place of that.
    pub(crate) has_last_lease: bool,
    /// For how long it has been seen not to have started; none if this is the first time.
    pub(crate) seen_for: Option<Duration>,
}

fn may_yet_start(unstarted_for: Option<Duration>) -> bool {
    unstarted_for.is_none_or(|it| it < UNSTARTED)
}

/// What is to be done with an agent that holds a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// All is as it is known.
    Keep,
    /// It runs: enter that.
    Running,
    /// It has ended and nothing will bring it back: release.
    Ended,
    /// What is there never ran, or belongs to a failed start: remove it, and release.
    Remove,
    /// Nothing is there that has started; it is too early to tell what that means.
    Missing,
    /// Nothing is there, for the second time, and the lease is old enough: release.
    Gone,
}

/// The table of what follows from the ledger's `stage` of an agent with a lease, and what the runtime has under that lease.
pub(crate) fn decide(stage: Stage, seen: Option<&ObservedState>, absence: Absence) -> Verdict {
    match (seen, stage) {
        (Some(_), Stage::Failed) => Verdict::Remove,
        // One that was to stop would be removed by the stop as well.
        (Some(ObservedState::Created), Stage::Running) if may_yet_start(absence.unstarted_for) => {
            Verdict::Missing
        }
        (Some(ObservedState::Created), _) => Verdict::Remove,
        (Some(ObservedState::Running { .. }), Stage::Running) => Verdict::Keep,
        (Some(ObservedState::Running { .. }), _) => Verdict::Running,
        (Some(ObservedState::Exited { .. }), _) => Verdict::Ended,
        (None, _) => {
            let seen_twice = absence.missing_for.is_some_and(|it| it >= SECOND_LOOK);
            if seen_twice && absence.age >= GRACE { Verdict::Gone } else { Verdict::Missing }
        }
    }
}

/// Whether an agent has ended that was to be forgotten with its end, so that only its removal can have failed.
pub(crate) fn is_to_be_forgotten(record: &AgentRecord) -> bool {
    !record.is_live() && record.spec.as_ref().is_some_and(|spec| spec.remove)
}

/// What is to be done with something on a runtime that carries this broker's labels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Meeting {
    /// It is as the ledger has it.
    Leave,
    /// It runs, and the ledger has no lease of its agent: enter the one of its labels.
    Adopt,
    /// It runs under one lease while its agent has another, this one.
    Twice(LeaseId),
    /// It has ended, and the ledger knows nothing of its agent: enter that it was there.
    Remember,
    /// It was created in place of an agent that has run, and may yet be started: leave it for a while.
    Await,
    /// A start that was cut short, or what was left of an agent that has moved on: remove it.
    Remove,
}

/// What is to be done with what has the runtime's `id` and bears `lease`, given what is `known` of the agent that its labels
/// name.
pub(crate) fn meet(
    seen: &ObservedState,
    id: &str,
    lease: &LeaseId,
    known: Option<&AgentRecord>,
    unstarted: Unstarted,
) -> Meeting {
    let held = known.and_then(|record| record.lease.as_ref()).map(|held| &held.id);
    let is_its_past = known.is_some_and(|record| record.container.as_deref() == Some(id));
    match (seen, known) {
        _ if held == Some(lease) => Meeting::Leave,
        (ObservedState::Running { .. }, _) => {
            held.map_or(Meeting::Adopt, |held| Meeting::Twice(held.clone()))
        }
        (ObservedState::Exited { .. }, None) => Meeting::Remember,
        (ObservedState::Exited { .. }, Some(_)) if held.is_none() && is_its_past => Meeting::Leave,
        (ObservedState::Created, Some(record))
            if !record.is_live() && unstarted.has_last_lease && may_yet_start(unstarted.seen_for) =>
        {
            Meeting::Await
        }
        (ObservedState::Created | ObservedState::Exited { .. }, _) => Meeting::Remove,
    }
}

#[cfg(test)]
mod tests {
    use pool::{AgentKey, Moment};

    use super::*;
    use crate::model::Lease;

    const NEVER_ENDED: ObservedState = ObservedState::Running { since: None };
    const EXITED: ObservedState = ObservedState::Exited { code: Some(0), at: None, detail: None };

    fn check(
        stage: Stage,
        seen: Option<&ObservedState>,
        missing_for: Option<u64>,
        age: u64,
        expected: Verdict,
    ) {
        let age = Duration::from_millis(age);
        let missing_for = missing_for.map(Duration::from_millis);
        // What is there has not started for as long as nothing else has been there.
        let (missing_for, unstarted_for) = match seen {
            None => (missing_for, None),
            Some(_) => (None, missing_for),
        };
        let absence = Absence { age, missing_for, unstarted_for };
        let verdict = decide(stage, seen, absence);
        assert_eq!(verdict, expected, "{stage:?}, seen {seen:?}, {absence:?}");
    }

    #[test]
    fn the_table_of_the_reconciler() {
        check(Stage::Running, Some(&NEVER_ENDED), None, 1, Verdict::Keep);
        check(Stage::Starting, Some(&NEVER_ENDED), None, 1, Verdict::Running);
        check(Stage::Stopping, Some(&NEVER_ENDED), None, 1, Verdict::Running);
        check(Stage::Failed, Some(&NEVER_ENDED), None, 1, Verdict::Remove);
        check(Stage::Starting, Some(&ObservedState::Created), None, 1, Verdict::Remove);
        for stage in [Stage::Starting, Stage::Running, Stage::Stopping] {
            check(stage, Some(&EXITED), None, 1, Verdict::Ended);
        }
    }

    /// Whoever made it anew by hand may yet start it.
    #[test]
    fn what_takes_the_place_of_an_agent_that_ran_may_take_its_time_to_start() {
        let created = Some(&ObservedState::Created);
        check(Stage::Running, created, None, 1_000_000, Verdict::Missing);
        check(Stage::Running, created, Some(299_999), 1_000_000, Verdict::Missing);
        check(Stage::Running, created, Some(300_000), 1_000_000, Verdict::Remove);
        check(Stage::Stopping, created, None, 1_000_000, Verdict::Remove);
    }

    /// L5: that something had not started is not that nothing was there.
    #[test]
    fn what_had_not_started_and_is_gone_must_be_seen_to_be_missing_twice() {
        let hour = Duration::from_secs(3600);
        let absence = Absence { age: hour, missing_for: None, unstarted_for: Some(hour) };
        assert_eq!(decide(Stage::Running, None, absence), Verdict::Missing);
    }

    /// L5: what was just granted is not freed because it cannot be seen yet.
    #[test]
    fn nothing_there_must_be_seen_twice_and_the_lease_be_old_enough() {
        check(Stage::Running, None, None, 100_000, Verdict::Missing);
        check(Stage::Running, None, Some(500), 100_000, Verdict::Missing);
        check(Stage::Running, None, Some(1_000), 100_000, Verdict::Gone);
        check(Stage::Starting, None, Some(9_000), 9_999, Verdict::Missing);
        check(Stage::Starting, None, Some(9_000), 10_000, Verdict::Gone);
    }

    #[test]
    fn what_bears_the_labels_is_kept_adopted_or_removed() {
        let mut record = AgentRecord::new("default/dev".parse::<AgentKey>().unwrap(), "docker".to_owned());
        record.container = Some("here".to_owned());
        let unleased = record.clone();
        record.lease = Some(Lease { id: LeaseId::new("now"), ports: Vec::new(), since: Moment(0) });
        let check = |seen: &ObservedState, id: &str, lease: &str, known: Option<&AgentRecord>, expected| {
            assert_eq!(
                meet(
                    seen,
                    id,
                    &LeaseId::new(lease),
                    known,
                    Unstarted { has_last_lease: false, seen_for: None }
                ),
                expected,
                "{seen:?} {id} {lease} {known:?}"
            );
        };
        let (running, created) = (&NEVER_ENDED, &ObservedState::Created);
        for seen in [running, &EXITED, created] {
            check(seen, "here", "now", Some(&record), Meeting::Leave);
        }
        check(running, "here", "past", Some(&record), Meeting::Twice(LeaseId::new("now")));
        check(running, "here", "past", Some(&unleased), Meeting::Adopt);
        check(running, "here", "past", None, Meeting::Adopt);
        check(&EXITED, "here", "past", None, Meeting::Remember);
        check(&EXITED, "here", "past", Some(&unleased), Meeting::Leave);
        check(&EXITED, "there", "past", Some(&unleased), Meeting::Remove);
        check(&EXITED, "there", "past", Some(&record), Meeting::Remove);
        check(created, "there", "past", None, Meeting::Remove);
        check(created, "there", "past", Some(&record), Meeting::Remove);
    }

    /// Its end may be known before what takes its place has started, as of a pod that is made anew.
    #[test]
    fn what_takes_the_place_of_an_agent_that_has_ended_may_take_its_time_to_start() {
        let mut record = AgentRecord::new("default/dev".parse::<AgentKey>().unwrap(), "docker".to_owned());
        record.stage = Stage::Exited;
        let after = |has_last_lease, seen_for: Option<u64>| {
            let unstarted = Unstarted { has_last_lease, seen_for: seen_for.map(Duration::from_secs) };
            meet(&ObservedState::Created, "there", &LeaseId::new("past"), Some(&record), unstarted)
        };
        assert_eq!(after(true, None), Meeting::Await);
        assert_eq!(after(true, Some(299)), Meeting::Await);
        assert_eq!(after(true, Some(300)), Meeting::Remove);
        assert_eq!(
            after(false, None),
            Meeting::Remove,
            "such as what an engine creates late for a start that failed"
        );
    }
}
