//! What the broker is made of, and what every part of it shares.
//!
//! All that the broker knows is in one [`State`] behind one lock, which is only ever held for a moment and never across an
//! `.await`. An operation on an agent holds that agent's own lock from end to end, so that two on one agent come one after the
//! other, and those on different agents run side by side.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use pool::{AgentKey, LeaseId, Moment, PoolSpec, Port, PortPool, PortRange};
use runtime::{HeldPort, Observed};
use settings::Settings;
use tokio::sync::{OwnedMutexGuard, broadcast};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blocked::Look;
use crate::clock;
use crate::descriptors::Descriptors;
use crate::guards::Guards;
use crate::home::Home;
use crate::labels::Tag;
use crate::ledger::Ledger;
use crate::listen::Address;
use crate::model::{AgentRecord, BareLease, Former, Lease, ToldPorts};
use crate::outcome::Before;
use crate::runtimes::Runtimes;
use crate::verdict::{Absence, Unstarted};
use crate::view;
use crate::warnings::About;

/// How many events a slow listener may be behind before it misses some.
const EVENT_BACKLOG: usize = 1024;

/// One broker.
pub(crate) struct Core {
    /// The stable id, the value of the label `berthold.broker`.
    pub(crate) id: String,
    pub(crate) home: Home,
    pub(crate) settings: Settings,
    pub(crate) settings_files: Vec<String>,
    pub(crate) started_at: Moment,
    /// Where the API is besides the socket.
    pub(crate) listen: Option<Address>,
    pub(crate) runtimes: Runtimes,
    pub(crate) ledger: Ledger,
    /// The broker's tasks send, listeners of the events receive; one that is too slow misses some and is told so.
    pub(crate) events: broadcast::Sender<api::Event>,
    /// Everything that runs on behalf of an agent; shutdown waits for it.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the broker is to end.
    pub(crate) shutdown: CancellationToken,
    /// Tells those who wait for a runtime's answer that it has left another one waiting.
    pub(crate) silence: tokio::sync::Notify,
    /// Held by the one that looks for holders of the pool's ports; the last look.
    pub(crate) reviewing: tokio::sync::Mutex<Option<Look>>,
    state: Mutex<State>,
    locks: Locks,
    bare_locks: Locks,
}

/// All that the broker knows.
pub(crate) struct State {
    pub(crate) pool: PortPool,
    pub(crate) guards: Guards,
    pub(crate) agents: BTreeMap<AgentKey, AgentRecord>,
    /// The leases of what the broker does not start itself, by their owners.
    pub(crate) bare: BTreeMap<AgentKey, BareLease>,
    /// What owners of such leases had that have none now.
    pub(crate) former: BTreeMap<AgentKey, Former>,
    /// When a lease was granted, if that was by this process. Not by the wall clock, which may be set.
    pub(crate) granted: HashMap<LeaseId, Instant>,
    /// Until when something of a lease may still come to be whose creation was not answered.
    pub(crate) late: HashMap<LeaseId, Instant>,
    /// Since when the runtime has had nothing of a lease, whenever it was asked.
    pub(crate) missing: HashMap<LeaseId, Instant>,
    /// Since when something on a runtime has been seen not to have started, by the runtime's name and the id there.
    pub(crate) unstarted: HashMap<String, HashMap<String, Instant>>,
    /// The lease under which an agent last ran that has none now, if it ended while this broker ran.
    pub(crate) last_leases: HashMap<AgentKey, LeaseId>,
    /// The ports that an engine refused though nothing here shows why, and when.
    pub(crate) refused: BTreeMap<Port, Instant>,
    /// Since when what an earlier broker left is taken up, so that whatever runs is watched.
    pub(crate) taken_up: Option<Instant>,
    /// The runtimes that have had an agent since this broker started.
    pub(crate) used: BTreeSet<String>,
    /// What owners have again of former ports if their start comes to nothing.
    pub(crate) before: HashMap<LeaseId, Before>,
    /// The leases whose end is being waited for.
    pub(crate) watched: HashSet<LeaseId>,
    /// Which engine answered last under the name of each runtime, if it told.
    pub(crate) engines: BTreeMap<&'static str, Option<String>>,
    /// When a runtime was last asked which ports it holds and let that question wait until nobody would any more.
    pub(crate) silent: BTreeMap<&'static str, Instant>,
    /// The ports of others of which each runtime told last, for when it does not tell.
    pub(crate) told_held: BTreeMap<&'static str, Vec<HeldPort>>,
    /// What the ledger has of what runtimes told, by their names.
    pub(crate) told_before: BTreeMap<String, ToldPorts>,
    /// What a person should know of, by what it is about.
    pub(crate) warnings: BTreeMap<About, String>,
}

/// The state while its lock is held. When it is let go of, the guards have followed the pool.
pub(crate) struct StateGuard<'a>(MutexGuard<'a, State>);

impl Deref for StateGuard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl DerefMut for StateGuard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0
    }
}

impl Drop for StateGuard<'_> {
    fn drop(&mut self) {
        let State { guards, pool, .. } = &mut *self.0;
        guards.follow(pool);
    }
}

/// The parts from which a [`Core`] is put together.
pub(crate) struct Parts {
    pub(crate) id: String,
    pub(crate) home: Home,
    pub(crate) settings: settings::Loaded,
    pub(crate) listen: Option<Address>,
    pub(crate) runtimes: Runtimes,
    pub(crate) ledger: Ledger,
    pub(crate) state: State,
    pub(crate) shutdown: CancellationToken,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Self {
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        Self {
            id: parts.id,
            home: parts.home,
            settings: parts.settings.settings,
            settings_files: parts.settings.files.iter().map(|file| file.display().to_string()).collect(),
            started_at: clock::now(),
            listen: parts.listen,
            runtimes: parts.runtimes,
            ledger: parts.ledger,
            events,
            tasks: TaskTracker::new(),
            shutdown: parts.shutdown,
            silence: tokio::sync::Notify::new(),
            reviewing: tokio::sync::Mutex::default(),
            state: Mutex::new(parts.state),
            locks: Locks::default(),
            bare_locks: Locks::default(),
        }
    }

    /// The state. Hold it for a moment only.
    pub(crate) fn state(&self) -> StateGuard<'_> {
        // A panic while it was held is a bug that was reported then; the maps are still sound, and refusing to go on would
        // leave agents without a broker.
        StateGuard(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is known of the agent.
    pub(crate) fn agent(&self, key: &AgentKey) -> Option<AgentRecord> {
        self.state().agents.get(key).cloned()
    }

    /// What is known of an agent, as the wire has it.
    pub(crate) fn shown(&self, record: &AgentRecord) -> api::Agent {
        let locality = self.runtimes.locality(&record.runtime);
        let reach = |port| self.reach(record, port);
        view::agent(record, &self.settings, self.listen.as_ref(), locality, reach, self.doubt(record))
    }

    /// Puts what is known of an agent into the state, and tells the listeners.
    pub(crate) fn publish(&self, record: AgentRecord) {
        let agent = self.shown(&record);
        self.state().agents.insert(record.key.clone(), record);
        self.tell(api::Event::Agent { agent: Box::new(agent) });
    }

    /// Tells the listeners. That there is none is fine.
    pub(crate) fn tell(&self, event: api::Event) {
        drop(self.events.send(event));
    }

    /// Waits until no other operation on this agent is under way, and keeps others out.
    pub(crate) async fn lock(&self, key: &AgentKey) -> OwnedMutexGuard<()> {
        self.locks.of(key).lock_owned().await
    }

    /// The same without waiting; none if an operation is under way.
    pub(crate) fn try_lock(&self, key: &AgentKey) -> Option<OwnedMutexGuard<()>> {
        self.locks.of(key).try_lock_owned().ok()
    }

    /// Waits until no other operation on the bare lease of this owner is under way, and keeps others out.
    pub(crate) async fn lock_bare(&self, owner: &AgentKey) -> OwnedMutexGuard<()> {
        self.bare_locks.of(owner).lock_owned().await
    }

    /// A new lease id: unique, and sorted by the time of its making.
    pub(crate) fn new_lease_id() -> LeaseId {
        LeaseId::new(&ulid::Ulid::generate().to_string())
    }
}

impl State {
    /// An empty state with the pool of these settings; without one, a pool of no ports.
    pub(crate) fn new(settings: &Settings, also_excluded: Option<PortRange>) -> Self {
        let spec = match &settings.server.broker.port_pool {
            Some(pool) => PoolSpec {
                range: pool.range,
                exclude: pool.exclude.iter().copied().chain(also_excluded).collect(),
                cool_down: i64::try_from(pool.cool_down.as_millis()).unwrap_or(i64::MAX),
            },
            None => {
                let nothing = PortRange::single(pool::Port::MIN);
                PoolSpec { range: nothing, exclude: vec![nothing], cool_down: 0 }
            }
        };
        let pool = PortPool::new(spec);
        let guards = match &settings.server.broker.port_pool {
            Some(settings::PortPool { guards: true, .. }) => {
                Guards::up_to(Descriptors::shared_out(pool.size()).guards)
            }
            _ => Guards::default(),
        };
        Self {
            pool,
            guards,
            agents: BTreeMap::new(),
            bare: BTreeMap::new(),
            former: BTreeMap::new(),
            granted: HashMap::new(),
            late: HashMap::new(),
            missing: HashMap::new(),
            unstarted: HashMap::new(),
            last_leases: HashMap::new(),
            refused: BTreeMap::new(),
            taken_up: None,
            used: BTreeSet::new(),
            before: HashMap::new(),
            watched: HashSet::new(),
            engines: BTreeMap::new(),
            silent: BTreeMap::new(),
            told_held: BTreeMap::new(),
            told_before: BTreeMap::new(),
            warnings: BTreeMap::new(),
        }
    }
}

impl State {
    /// What speaks for it that a lease is over of which only `seen` is there now, on `runtime`.
    pub(crate) fn absence(&self, lease: &Lease, runtime: &str, seen: Option<&Observed>) -> Absence {
        let age = self.granted.get(&lease.id).map(Instant::elapsed);
        // What may yet come to be is as young as can be.
        let age = if self.may_come_late(&lease.id) { Some(Duration::ZERO) } else { age };
        Absence {
            age: age.unwrap_or_else(|| clock::age(lease.since)),
            missing_for: self.missing.get(&lease.id).map(Instant::elapsed),
            unstarted_for: seen.and_then(|seen| self.unstarted_for(runtime, &seen.id)),
        }
    }

    /// Whether something of the lease may still come to be, and run, though nothing of it is there.
    pub(crate) fn may_come_late(&self, lease: &LeaseId) -> bool {
        self.late.get(lease).is_some_and(|until| Instant::now() < *until)
    }

    /// What speaks for it that `seen` may yet be started, which bears the lease and the agent's name of `tag`.
    pub(crate) fn unstarted(&self, runtime: &str, seen: &Observed, tag: &Tag) -> Unstarted {
        Unstarted {
            has_last_lease: self.last_leases.get(&tag.key) == Some(&tag.lease),
            seen_for: self.unstarted_for(runtime, &seen.id),
        }
    }

    fn unstarted_for(&self, runtime: &str, id: &str) -> Option<Duration> {
        self.unstarted.get(runtime)?.get(id).map(Instant::elapsed)
    }

    /// Notes that something on a runtime has been seen not to have started.
    pub(crate) fn note_unstarted(&mut self, runtime: &str, id: &str) {
        let of_runtime = self.unstarted.entry(runtime.to_owned()).or_default();
        of_runtime.entry(id.to_owned()).or_insert_with(Instant::now);
    }

    /// Forgets what was kept of a lease that has ended.
    pub(crate) fn drop_traces(&mut self, lease: &LeaseId) {
        self.granted.remove(lease);
        self.late.remove(lease);
        self.missing.remove(lease);
        self.before.remove(lease);
    }

    /// Guards idle ports that could not be guarded when they became idle.
    pub(crate) fn retry_guards(&mut self) {
        let Self { guards, pool, .. } = self;
        guards.retry(pool);
    }
}

/// A lock for each agent, or owner of a bare lease, on which an operation is under way or waits.
#[derive(Default)]
struct Locks {
    locks: Mutex<HashMap<AgentKey, Weak<tokio::sync::Mutex<()>>>>,
}

impl Locks {
    fn of(&self, key: &AgentKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        // The map holds no lock alive, so what nobody uses can go whenever it grows.
        if locks.len() >= 64 && locks.len().is_power_of_two() {
            locks.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(key.clone(), Arc::downgrade(&lock));
        lock
    }
}
