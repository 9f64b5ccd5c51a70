//! What is true whatever the broker believes: the containers of the engine, and the ledger's bytes. Every change of either is checked
//! against the promises at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use runtime::{Created, ErrorKind, HeldPort, Observed, ObservedState, Publish, RuntimeError, Spec};
use tokio::sync::{Notify, broadcast};
use tokio::time::{Instant, sleep};

use crate::labels::{AGENT, LEASE};
use crate::ledger::{Contents, Leases};

/// All that is there.
pub(super) struct World {
    facts: Mutex<Facts>,
    /// Told of whenever a container changes.
    changes: Notify,
}

struct Facts {
    dice: fastrand::Rng,
    /// Whether calls fail, and answers are lost.
    has_faults: bool,
    /// What becomes of the next call of a kind, and how long it takes to come about, where that is not left to the dice.
    foreseen: BTreeMap<&'static str, (Fate, Duration)>,
    is_up: bool,
    /// The leases of what is started.
    starts: broadcast::Sender<String>,
    containers: BTreeMap<String, Container>,
    /// Ports that strangers hold.
    foreign: BTreeSet<u16>,
    /// Those of them of which the engine does not tell, and that it refuses all the same.
    unseen: BTreeSet<u16>,
    /// What was asked for and has not come about yet.
    pending: BTreeMap<u64, Effect>,
    next: u64,
    /// The leases on disk.
    disk: Leases,
    /// The leases under which something has run.
    ran: BTreeSet<String>,
    began: Option<Instant>,
    trace: Vec<String>,
    /// The first promise that was broken.
    broken: Option<String>,
    counts: Counts,
}

/// What happened, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) refused: u64,
    pub(super) lost: u64,
    pub(super) started: u64,
    pub(super) commits: u64,
    pub(super) crashes: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.refused += other.refused;
        self.lost += other.lost;
        self.started += other.started;
        self.commits += other.commits;
        self.crashes += other.crashes;
    }
}

#[derive(Clone)]
struct Container {
    observed: Observed,
    publish: Vec<Publish>,
    /// Whether a stranger has started it again, or the ledger was lost: it may run a while before its lease is there again. Once it is
    /// granted anew, that is over.
    is_meddled: bool,
    /// Whether it ever was.
    was_meddled: bool,
}

/// Something that changes what is there.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Create(Box<Spec>),
    Start(String),
    Stop(String),
    Remove(String),
}

impl Effect {
    /// Its kind, in a word.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Start(_) => "start",
            Self::Stop(_) => "stop",
            Self::Remove(_) => "remove",
        }
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Done,
    /// It is not made.
    Refused,
    /// It is made, perhaps much later, and fails all the same.
    Lost,
}

impl World {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        let facts = Facts {
            dice: fastrand::Rng::with_seed(seed),
            has_faults: true,
            foreseen: BTreeMap::new(),
            is_up: true,
            starts: broadcast::channel(64).0,
            containers: BTreeMap::new(),
            foreign: BTreeSet::new(),
            unseen: BTreeSet::new(),
            pending: BTreeMap::new(),
            next: 0,
            disk: Leases::new(),
            ran: BTreeSet::new(),
            began: None,
            trace: Vec::new(),
            broken: None,
            counts: Counts::default(),
        };
        Arc::new(Self { facts: Mutex::new(facts), changes: Notify::new() })
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap()
    }

    /// A number below `sides`.
    pub(super) fn roll(&self, sides: u64) -> u64 {
        self.facts().dice.u64(..sides)
    }

    /// A time up to `limit`, short ones being likelier.
    pub(super) fn some_time(&self, limit: Duration) -> Duration {
        self.facts().some_time(limit)
    }

    pub(super) fn note(&self, what: &str) {
        self.facts().note(what);
    }

    /// Has the next call of a kind, such as `start`, be lost or refused; it comes about after that time, if at all.
    pub(super) fn foresee(&self, kind: &'static str, fate: Fate, taking: Duration) {
        self.facts().foreseen.insert(kind, (fate, taking));
    }

    /// What becomes of the next call of a kind, and how long it takes: until it arrives, until it has come about, and until that is known.
    pub(super) fn fate(&self, kind: &str) -> (Fate, [Duration; 3]) {
        let mut facts = self.facts();
        facts.counts.calls += 1;
        if let Some((fate, taking)) = facts.foreseen.remove(kind) {
            return (fate, [Duration::ZERO, taking, Duration::ZERO]);
        }
        let fate = match facts.dice.u8(..100) {
            0..3 if facts.has_faults => Fate::Refused,
            3..6 if facts.has_faults => Fate::Lost,
            _ => Fate::Done,
        };
        match fate {
            Fate::Refused => facts.counts.refused += 1,
            Fate::Lost => facts.counts.lost += 1,
            Fate::Done => {}
        }
        // What is asked for comes about within the time for which a lease is kept of which nothing is seen.
        let slow = Duration::from_secs(if facts.has_faults && facts.dice.u8(..10) == 0 { 8 } else { 1 });
        let times = [Duration::from_millis(50), slow, Duration::from_millis(500)];
        (fate, times.map(|limit| facts.some_time(limit)))
    }

    pub(super) fn is_up(&self) -> bool {
        self.facts().is_up
    }

    /// Takes a change in hand; it comes about after that time, when what is returned is polled.
    pub(super) fn begin(
        self: &Arc<Self>,
        effect: Effect,
        taking: Duration,
    ) -> impl Future<Output = Result<Option<Created>, RuntimeError>> + Send + use<> {
        let number = {
            let mut facts = self.facts();
            facts.next += 1;
            let number = facts.next;
            facts.pending.insert(number, effect);
            number
        };
        let world = Arc::clone(self);
        async move {
            sleep(taking).await;
            world.complete(number)
        }
    }

    /// Has a change come about that was taken in hand.
    fn complete(&self, number: u64) -> Result<Option<Created>, RuntimeError> {
        let made = {
            let mut facts = self.facts();
            let Some(effect) = facts.pending.remove(&number) else { return Ok(None) };
            facts.make(effect)
        };
        self.changes.notify_waiters();
        made
    }

    /// What was taken in hand comes about now.
    pub(super) fn hurry(&self) {
        let mut facts = self.facts();
        for (_, effect) in std::mem::take(&mut facts.pending) {
            drop(facts.make(effect));
        }
        drop(facts);
        self.changes.notify_waiters();
    }

    /// The broker has died. Of what was under way some comes about now, some never, and the rest later: its numbers.
    pub(super) fn crash(&self) -> Vec<u64> {
        let mut facts = self.facts();
        facts.began = None;
        facts.counts.crashes += 1;
        facts.note("---- the broker dies");
        let (mut later, numbers) = (Vec::new(), facts.pending.keys().copied().collect::<Vec<_>>());
        for number in numbers {
            match facts.dice.u8(..3) {
                0 => drop(facts.pending.remove(&number)),
                1 => {
                    if let Some(effect) = facts.pending.remove(&number) {
                        drop(facts.make(effect));
                    }
                }
                _ => later.push(number),
            }
        }
        later
    }

    /// Has what an earlier broker asked for come about in the time of this one.
    pub(super) fn carry_over(self: &Arc<Self>, numbers: Vec<u64>) {
        self.facts().began = Some(Instant::now());
        for number in numbers {
            let (world, taking) = (Arc::clone(self), self.some_time(Duration::from_secs(8)));
            tokio::spawn(async move {
                sleep(taking).await;
                drop(world.complete(number));
            });
        }
    }

    /// No more faults from here on, and no strangers.
    pub(super) fn calm_down(&self) {
        let mut facts = self.facts();
        facts.note("---- from here on nothing fails");
        facts.has_faults = false;
        facts.is_up = true;
        facts.foreign.clear();
        facts.unseen.clear();
        drop(facts);
        self.changes.notify_waiters();
    }

    /// A stranger takes this port, and the engine does not tell.
    pub(super) fn hold_unseen(&self, port: u16) {
        let mut facts = self.facts();
        facts.note(&format!("a stranger holds {port}, unseen"));
        facts.foreign.insert(port);
        facts.unseen.insert(port);
    }

    /// What strangers do from time to time.
    pub(super) fn meddle(&self) {
        let mut facts = self.facts();
        if !facts.has_faults {
            return;
        }
        let id = {
            let ids: Vec<String> = facts.containers.keys().cloned().collect();
            facts.dice.choice(ids)
        };
        match (facts.dice.u8(..10), id) {
            (0..3, Some(id)) => facts.end(&id, Some(0), "ends by itself"),
            (3, Some(id)) => {
                facts.note(&format!("{id} is removed by a stranger"));
                facts.containers.remove(&id);
            }
            (4, Some(id)) => facts.start_again(&id),
            (5 | 6, _) => {
                let port = super::LOWEST + facts.dice.u16(..super::SIZE);
                if !facts.foreign.remove(&port) && facts.holder(port).is_none() && facts.foreign.len() < 3 {
                    facts.foreign.insert(port);
                    if facts.dice.u8(..3) == 0 {
                        facts.unseen.insert(port);
                    } else {
                        facts.unseen.remove(&port);
                    }
                }
                let foreign = facts.foreign.clone();
                facts.note(&format!("strangers hold {foreign:?}"));
            }
            (7 | 8, _) => {
                facts.is_up = !facts.is_up;
                let is_up = facts.is_up;
                facts.note(if is_up { "the engine is back" } else { "the engine is away" });
            }
            (9, _) => {
                facts.note("the engine is restarted");
                let ids: Vec<String> = facts.containers.keys().cloned().collect();
                for id in ids {
                    facts.end(&id, Some(137), "ends with it");
                }
            }
            _ => {}
        }
        drop(facts);
        self.changes.notify_waiters();
    }

    /// Resolves with the next change of a container.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + Send + '_ {
        self.changes.notified()
    }

    pub(super) fn started(&self) -> broadcast::Receiver<String> {
        self.facts().starts.subscribe()
    }

    pub(super) fn find(&self, id: &str) -> Option<Observed> {
        let facts = self.facts();
        let found = facts.containers.values().find(|it| it.observed.id == id || it.observed.name == id);
        found.map(|it| it.observed.clone())
    }

    pub(super) fn list(&self) -> Vec<Observed> {
        self.facts().containers.values().map(|it| it.observed.clone()).collect()
    }

    pub(super) fn held(&self) -> Vec<HeldPort> {
        let facts = self.facts();
        let held = |port: u16, by: &str, lease: Option<&String>| HeldPort {
            port,
            by: by.to_owned(),
            is_here: true,
            lease: lease.cloned(),
        };
        let foreign = facts.foreign.difference(&facts.unseen);
        let foreign = foreign.map(|port| held(*port, "a stranger", None));
        let published = facts.containers.values().flat_map(|it| {
            let ports = it.observed.published.iter();
            ports.map(|port| held(port.host, &it.observed.name, it.observed.labels.get(LEASE)))
        });
        foreign.chain(published).collect()
    }

    /// P2: what is asked to be created has its lease on disk.
    pub(super) fn check_asked(&self, spec: &Spec) {
        let mut facts = self.facts();
        let ports: Vec<u16> = spec.publish.iter().map(|it| it.host).collect();
        if let Err(why) = facts.check_lease(&spec.labels, &ports) {
            facts.break_promise(format!("P2: {} is to be created, but {why}", spec.name));
        }
    }

    /// P9: what is said to run has run.
    pub(super) fn check_said(&self, agent: &str, lease: &str) {
        let mut facts = self.facts();
        if !facts.ran.contains(lease) {
            facts.break_promise(format!("P9: {agent} is said to run under {lease}, which it never did"));
        }
    }

    /// Whether the next commit fails.
    pub(super) fn is_disk_full(&self) -> bool {
        let mut facts = self.facts();
        facts.has_faults && facts.dice.u8(..60) == 0
    }

    /// Nobody may have to wait for ever.
    pub(super) fn give_up(&self, what: &str) {
        self.facts().break_promise(what.to_owned());
    }

    /// A commit is made.
    pub(super) fn written(&self, contents: &Contents) {
        let mut facts = self.facts();
        let mut leases = contents.leases();
        std::mem::swap(&mut facts.disk, &mut leases);
        let (disk, before) = (facts.disk.clone(), leases);
        for container in facts.containers.values_mut() {
            let lease = container.observed.labels.get(LEASE);
            if lease.is_some_and(|lease| disk.contains_key(lease) && !before.contains_key(lease)) {
                container.is_meddled = false;
            }
        }
        facts.counts.commits += 1;
        let disk = format!("on disk: {:?}", facts.disk.values().collect::<Vec<_>>());
        facts.note(&disk);
        facts.check();
    }

    /// The ledger is lost: no lease need be there for what runs, until the broker has found it again.
    pub(super) fn lose_ledger(&self) {
        let mut facts = self.facts();
        facts.note("the ledger is lost");
        facts.disk.clear();
        for container in facts.containers.values_mut() {
            (container.is_meddled, container.was_meddled) = (true, true);
        }
    }

    /// The containers that run, with their leases, agents and ports.
    pub(super) fn running(&self) -> BTreeMap<String, (String, (String, Vec<u16>))> {
        let facts = self.facts();
        let running = facts.containers.iter().filter(|(_, it)| it.is_running());
        running
            .map(|(id, it)| {
                let label = |name: &str| it.observed.labels.get(name).cloned().unwrap_or_default();
                (id.clone(), (label(LEASE), (label(AGENT), it.ports())))
            })
            .collect()
    }

    /// What runs because a stranger has started it again.
    pub(super) fn started_again(&self) -> Vec<String> {
        let facts = self.facts();
        let again = facts.containers.iter().filter(|(_, it)| it.is_running() && it.was_meddled);
        again.map(|(id, _)| id.clone()).collect()
    }

    /// A person removes it.
    pub(super) fn end_for_good(&self, id: &str) {
        let mut facts = self.facts();
        facts.note(&format!("{id} is removed by a person"));
        facts.containers.remove(id);
        drop(facts);
        self.changes.notify_waiters();
    }

    /// How many containers were created and never started.
    pub(super) fn never_started(&self) -> usize {
        let is_created = |it: &&Container| it.observed.state == ObservedState::Created;
        self.facts().containers.values().filter(is_created).count()
    }

    pub(super) fn on_disk(&self) -> Leases {
        self.facts().disk.clone()
    }

    pub(super) fn counts(&self) -> Counts {
        self.facts().counts
    }

    /// The first promise that was broken, if any.
    pub(super) fn broken(&self) -> Option<String> {
        self.facts().broken.clone()
    }

    /// The latest of what happened.
    pub(super) fn trace(&self, lines: usize) -> String {
        let facts = self.facts();
        facts.trace[facts.trace.len().saturating_sub(lines)..].join("\n")
    }
}

impl Container {
    fn is_running(&self) -> bool {
        matches!(self.observed.state, ObservedState::Running { .. })
    }

    fn ports(&self) -> Vec<u16> {
        self.publish.iter().map(|it| it.host).collect()
    }
}

impl Facts {
    fn some_time(&mut self, limit: Duration) -> Duration {
        let part = self.dice.f64();
        limit.mul_f64(part * part * part)
    }

    fn note(&mut self, what: &str) {
        let at = self.began.map(|began| began.elapsed().as_millis()).unwrap_or_default();
        self.trace.push(format!("{at:8} ms  {what}"));
    }

    fn break_promise(&mut self, what: String) {
        self.note(&format!("BROKEN: {what}"));
        self.broken.get_or_insert(what);
    }

    /// Who runs with `port`.
    fn holder(&self, port: u16) -> Option<&str> {
        let holder = self.containers.values().find(|it| it.is_running() && it.ports().contains(&port));
        holder.map(|it| it.observed.id.as_str())
    }

    fn make(&mut self, effect: Effect) -> Result<Option<Created>, RuntimeError> {
        let error = |kind, what: &str| Err(RuntimeError::new(kind, what));
        match effect {
            Effect::Create(spec) => {
                if self.containers.values().any(|it| it.observed.name == spec.name) {
                    return error(ErrorKind::NameTaken, "that name is taken");
                }
                self.next += 1;
                let id = format!("c{}", self.next);
                self.note(&format!("{id} is created: {} {:?}", spec.name, spec.labels.get(LEASE)));
                let observed = Observed {
                    id: id.clone(),
                    name: spec.name,
                    labels: spec.labels,
                    state: ObservedState::Created,
                    image: spec.image,
                    published: Vec::new(),
                };
                let container =
                    Container { observed, publish: spec.publish, is_meddled: false, was_meddled: false };
                self.containers.insert(id.clone(), container);
                Ok(Some(Created { id, warnings: Vec::new() }))
            }
            Effect::Start(id) => {
                let Some(container) = self.containers.get(&id) else {
                    return error(ErrorKind::NotFound, "it is not there");
                };
                if container.is_running() {
                    return Ok(None);
                }
                let ports = container.ports();
                let is_taken = |port: &&u16| self.foreign.contains(port) || self.holder(**port).is_some();
                if let Some(port) = ports.iter().find(is_taken).copied() {
                    self.note(&format!("{id} is refused port {port}"));
                    let port = self.dice.bool().then_some(port);
                    return error(ErrorKind::PortRefused { port }, "port is already allocated");
                }
                self.run(&id);
                if self.has_faults && self.dice.u8(..20) == 0 {
                    self.end(&id, Some(3), "fails at once");
                }
                Ok(None)
            }
            Effect::Stop(id) => {
                self.end(&id, Some(143), "is stopped");
                Ok(None)
            }
            Effect::Remove(id) => {
                if self.containers.remove(&id).is_some() {
                    self.note(&format!("{id} is removed"));
                }
                Ok(None)
            }
        }
    }

    fn run(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.observed.state = ObservedState::Running { since: Timestamp::from_second(1).ok() };
        container.observed.published.clone_from(&container.publish);
        let lease = container.observed.labels.get(LEASE).cloned().unwrap_or_default();
        let ports = container.ports();
        self.note(&format!("{id} runs with {ports:?}"));
        self.counts.started += 1;
        self.ran.insert(lease.clone());
        // That nobody listens is fine.
        drop(self.starts.send(lease));
        self.check();
    }

    fn end(&mut self, id: &str, code: Option<i64>, how: &str) {
        let Some(container) = self.containers.get_mut(id).filter(|it| it.is_running()) else { return };
        container.observed.state = ObservedState::Exited { code, at: None, detail: None };
        container.observed.published.clear();
        self.note(&format!("{id} {how}"));
    }

    /// A stranger restarts what runs, or starts what has ended, if nobody has its ports.
    fn start_again(&mut self, id: &str) {
        self.end(id, Some(143), "is restarted by a stranger");
        let Some(container) = self.containers.get(id) else { return };
        let has_ended = matches!(container.observed.state, ObservedState::Exited { .. });
        let is_taken = |port: &u16| self.foreign.contains(port) || self.holder(*port).is_some();
        if !has_ended || container.ports().iter().any(is_taken) {
            return;
        }
        if let Some(container) = self.containers.get_mut(id) {
            (container.is_meddled, container.was_meddled) = (true, true);
        }
        self.run(id);
    }

    /// P1 and P3: every port is in one lease, and what runs has a lease with its ports.
    fn check(&mut self) {
        let mut owners = BTreeMap::new();
        let leased =
            self.disk.values().flat_map(|(owner, ports)| ports.iter().map(move |port| (*port, owner)));
        let twice =
            leased.filter_map(|(port, owner)| Some((port, owner, owners.insert(port, owner)?))).next();
        if let Some((port, one, other)) = twice {
            let what = format!("P1: port {port} is leased to {one} and to {other}");
            return self.break_promise(what);
        }
        let due = self.containers.iter().filter(|(_, it)| it.is_running() && !it.is_meddled);
        let missing: Vec<String> = due
            .filter_map(|(id, it)| {
                let why = self.check_lease(&it.observed.labels, &it.ports()).err()?;
                Some(format!("P3: {id} runs, but {why}"))
            })
            .collect();
        for what in missing {
            self.break_promise(what);
        }
    }

    /// Whether the lease of these labels is on disk with just these ports.
    fn check_lease(&self, labels: &BTreeMap<String, String>, ports: &[u16]) -> Result<(), String> {
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        match self.disk.get(&label(LEASE)) {
            None => Err(format!("its lease {} is not on disk", label(LEASE))),
            Some((owner, _)) if *owner != label(AGENT) => Err(format!("its lease is that of {owner}")),
            Some((_, leased)) if leased != ports => {
                Err(format!("its lease has {leased:?}, and not {ports:?}"))
            }
            Some(_) => Ok(()),
        }
    }
}
