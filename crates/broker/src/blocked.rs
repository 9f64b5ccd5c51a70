//! The ports of the pool that someone outside the ledger holds: found, named, and taken up again.
//!
//! Two things tell of them: the sockets of this host, and the runtimes, since a port that is published by packet rules alone has
//! no socket. The kernel's tables are read rather than every port probed, for a probe has the port for a moment itself; only what
//! the tables show, and what was blocked before, is probed.
//!
//! A port that an engine refused although nothing here shows why (its view is not ours: a machine of its own, another
//! namespace) is blocked for a while, for a probe would lift that at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures_util::future::join_all;
use pool::{LeaseId, Port};
use runtime::{HeldPort, Runtime};
use settings::RuntimeName;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::core::{Core, State};
use crate::error::chain;
use crate::holder::Sockets;
use crate::probe;
use crate::runtimes::Locality;
use crate::warnings::About;

/// How often, and how far apart, a port that an agent had a moment ago is asked again before it counts as held by someone else:
/// an engine may close its socket a little after it said that the container ended.
const PATIENCE: (u32, Duration) = (10, Duration::from_millis(20));

/// For how long a port stays blocked that an engine refused, where nothing here shows why: a probe finds such a port free.
const REFUSED: Duration = Duration::from_secs(30);

/// How long a runtime takes to fail that hangs, and is not merely away.
const SLOW: Duration = Duration::from_secs(3);
/// For how long such a one is not asked again.
const SILENT: Duration = Duration::from_secs(30);
/// How long a broker waits for an engine to tell for the first time which ports it holds, before it takes it for gone.
const UNTOLD: Duration = Duration::from_secs(600);

/// What a port is blocked by if nothing more is known.
const UNKNOWN: &str = "another process on this host";

/// A look for holders of the pool's ports.
pub(crate) struct Look {
    began: Instant,
    wanted_on: String,
}

impl Core {
    /// Marks those ports as held by someone else that nobody leases. What is known already is not said again.
    pub(crate) fn block_idle(&self, ports: &BTreeMap<Port, String>) {
        let news = {
            let mut state = self.state();
            let idle: BTreeMap<Port, String> = ports
                .iter()
                .filter(|(port, _)| state.pool.is_idle(**port))
                .map(|(port, by)| (*port, by.clone()))
                .collect();
            state.block(&idle)
        };
        self.tell_blocked(&news);
    }

    /// Tells of ports that [`State::block`] has marked.
    pub(crate) fn tell_blocked(&self, news: &[(Port, String)]) {
        for (port, by) in news {
            tracing::warn!(port = port.get(), by, "a port of the pool is held by someone else");
        }
        self.tell_pool(news.iter().map(|(port, _)| *port));
    }

    /// Marks ports that the engine `runtime` has just refused.
    pub(crate) async fn block_refused(&self, ports: &[Port], runtime: &str) {
        let mut held = self.held_unseen(runtime).await;
        held.retain(|port, _| ports.contains(port));
        let is_local = self.runtimes.locality(runtime) == Locality::Local;
        let others = ports.iter().copied().filter(|port| !held.contains_key(port));
        let (busy, unexplained): (Vec<Port>, Vec<Port>) =
            others.partition(|port| is_local && probe::is_busy(*port));
        held.extend(name(busy).await);
        let by = format!(
            "something that only {runtime} sees: it refused the port, which is tried again after {} s",
            REFUSED.as_secs()
        );
        held.extend(unexplained.iter().map(|port| (*port, by.clone())));
        let news = {
            let mut state = self.state();
            state.refused.extend(unexplained.into_iter().map(|port| (port, Instant::now())));
            state.block(&held)
        };
        self.tell_blocked(&news);
    }

    /// Looks for holders of every port of the pool that is not leased: blocks what is held, unblocks what no longer is. Those that
    /// matter are this host's, and all of those of the runtime `wanted_on`.
    pub(crate) async fn review_blocked(&self, wanted_on: &str) {
        let called = Instant::now();
        let mut last = self.reviewing.lock().await;
        // Begun after this call came, so it is as new as a look can be.
        if last.as_ref().is_some_and(|last| last.began > called && last.wanted_on == wanted_on) {
            return;
        }
        let look = Look { began: Instant::now(), wanted_on: wanted_on.to_owned() };
        let before: BTreeSet<Port> = self.state().pool.blocked().map(|(port, _)| port).collect();
        let mut held = self.held_unseen(wanted_on).await;
        let sockets = if self.runtimes.publish_here() { socket_ports().await } else { BTreeSet::new() };
        let candidates: Vec<Port> = {
            let state = self.state();
            let found: BTreeSet<Port> = before.iter().chain(held.keys()).chain(&sockets).copied().collect();
            found.into_iter().filter(|port| state.pool.is_idle(*port)).collect()
        };
        // What is news is looked at more than once: it may be an engine's that is about to close it. All at a time, since a wide pool may
        // meet hundreds of listeners.
        let looks = candidates
            .iter()
            .filter(|port| !held.contains_key(port))
            .map(|port| async { is_held(*port, !before.contains(port)).await.then_some(*port) });
        let busy = join_all(looks).await.into_iter().flatten().collect();
        held.extend(name(busy).await);
        self.block_idle(&held);
        let free: Vec<Port> = {
            let mut state = self.state();
            // What was refused for a reason that is seen by now is free as soon as that is not seen any more.
            state.refused.retain(|port, at| at.elapsed() < REFUSED && !held.contains_key(port));
            state.retry_guards();
            // Whose socket it is that a leased port has was not looked at.
            let is_unknown = |port: &Port| !state.pool.is_idle(*port) && sockets.contains(port);
            let is_over = |port: &Port| {
                !held.contains_key(port) && !state.refused.contains_key(port) && !is_unknown(port)
            };
            before.into_iter().filter(is_over).collect()
        };
        self.unblock(&free);
        *last = Some(look);
    }

    fn unblock(&self, ports: &[Port]) {
        let mut state = self.state();
        let freed: Vec<Port> = ports.iter().copied().filter(|port| state.pool.unblock(*port)).collect();
        drop(state);
        if !freed.is_empty() {
            let numbers: Vec<u16> = freed.iter().map(|port| port.get()).collect();
            tracing::info!(ports = ?numbers, "blocked ports are free again");
            self.tell_pool(freed);
        }
    }

    /// The ports that others hold on some runtime though no socket need show it, and who they are. Those that matter are this
    /// host's, and all of those of the runtime `wanted_on`. Of a runtime that cannot be asked, it is what it told last.
    pub(crate) async fn held_unseen(&self, wanted_on: &str) -> BTreeMap<Port, String> {
        // Asked for before the runtimes are: what ends in between is not taken for someone else's.
        let own: HashMap<LeaseId, Vec<Port>> = {
            let state = self.state();
            let ports = |id: &LeaseId| state.pool.ports_of(id).unwrap_or_default().to_vec();
            state.pool.leases().map(|id| (id.clone(), ports(id))).collect()
        };
        // The label alone says little: what someone runs from an image of an agent's container has it as well.
        let is_own = |held: &HeldPort| {
            let ports = held.lease.as_deref().and_then(|id| own.get(&LeaseId::new(id)));
            ports.is_some_and(|ports| ports.iter().any(|port| port.get() == held.port))
        };
        let is_own = &is_own;
        let asked = self.runtimes.usable().map(|runtime| async move {
            let only_here = runtime.name() != wanted_on;
            let held = match self.told_ports(runtime.as_ref(), only_here).await {
                Some(mut held) => {
                    held.retain(|held| !is_own(held));
                    self.state().told_held.insert(runtime.name(), held.clone());
                    held
                }
                None => self.state().told_held.get(runtime.name()).cloned().unwrap_or_default(),
            };
            held.into_iter().filter(move |held| held.is_here || !only_here)
        });
        let held = join_all(asked).await.into_iter().flatten();
        held.filter_map(|held| Some((Port::new(held.port)?, held.by))).collect()
    }

    /// The ports that a runtime says are held on it; none if it does not say so now. One that lets the question wait until nobody would
    /// any more is not asked again for a while: everyone who needs a port would have to wait for it, one after the other.
    async fn told_ports(&self, runtime: &dyn Runtime, only_here: bool) -> Option<Vec<HeldPort>> {
        let name = runtime.name();
        let silenced = async {
            loop {
                let silence = self.silence.notified();
                if self.is_silent(name) {
                    return;
                }
                silence.await;
            }
        };
        let asked = Instant::now();
        let answer = tokio::select! {
            biased;
            () = silenced => return None,
            answer = runtime.held_ports(only_here) => answer,
        };
        let about = About::Silent(name.to_owned());
        match answer {
            Ok(held) => {
                self.take_back(|it| *it == about);
                Some(held)
            }
            Err(error) => {
                tracing::debug!(runtime = name, %error, "it does not tell which ports it holds");
                if asked.elapsed() >= SLOW {
                    self.state().silent.insert(name, Instant::now());
                    self.silence.notify_waiters();
                    let text = format!(
                        "{name} does not say which ports it holds ({}): for {} s at a time they are taken to be those that it told of \
                         last{}",
                        chain(&error),
                        SILENT.as_secs(),
                        error.hint.map_or_else(String::new, |hint| format!("; {hint}"))
                    );
                    self.warn(about, &text);
                }
                None
            }
        }
    }

    fn is_silent(&self, runtime: &str) -> bool {
        self.state().silent.get(runtime).is_some_and(|at| at.elapsed() < SILENT)
    }

    /// A runtime of this host that is there and does not say which ports it holds.
    pub(crate) fn silent_here(&self) -> Option<&'static str> {
        let silent: Vec<&'static str> = self.state().silent.keys().copied().collect();
        let is_here = |name: &str| self.runtimes.locality(name) == Locality::Local;
        let silent = silent.into_iter().find(|it| self.is_silent(it) && is_here(it));
        silent.or_else(|| self.untold().find(|it| is_here(it)))
    }

    /// The engines that have told nothing since this broker started, which was not long ago: of what they publish nothing is known yet.
    fn untold(&self) -> impl Iterator<Item = &'static str> {
        let is_new = self.state().taken_up.is_none_or(|at| at.elapsed() < UNTOLD);
        let engines = [RuntimeName::Docker, RuntimeName::Podman].map(RuntimeName::as_str).into_iter();
        let has_told = |name: &str| self.state().told_held.contains_key(name);
        engines.filter(move |name| is_new && self.runtimes.may_publish(name) && !has_told(name))
    }

    fn tell_pool(&self, ports: impl IntoIterator<Item = Port>) {
        let ports: Vec<u16> = ports.into_iter().map(Port::get).collect();
        if !ports.is_empty() {
            self.tell(api::Event::Pool { lease: None, ports });
        }
    }
}

impl State {
    /// Marks ports as held by someone else, leased or not, and says which of them are news.
    pub(crate) fn block(&mut self, ports: &BTreeMap<Port, String>) -> Vec<(Port, String)> {
        let known: BTreeMap<Port, String> =
            self.pool.blocked().map(|(port, by)| (port, by.to_owned())).collect();
        let is_news = |(port, by): &(&Port, &String)| known.get(port) != Some(by);
        let news: Vec<(Port, String)> =
            ports.iter().filter(is_news).map(|(port, by)| (*port, by.clone())).collect();
        for (port, by) in &news {
            self.pool.block(*port, by, clock::now());
        }
        news
    }
}

/// Whether some socket of this host has `port`. One that may be about to be closed is given the time for that.
pub(crate) async fn is_held(port: Port, patiently: bool) -> bool {
    let (tries, pause) = if patiently { PATIENCE } else { (1, Duration::ZERO) };
    for attempt in 0..tries {
        if attempt > 0 {
            sleep(pause).await;
        }
        if !probe::is_busy(port) {
            return false;
        }
    }
    true
}

/// Who holds each of these ports of this host.
pub(crate) async fn name(ports: Vec<Port>) -> BTreeMap<Port, String> {
    if ports.is_empty() {
        return BTreeMap::new();
    }
    let asked = ports.clone();
    let mut named = spawn_blocking(move || Sockets::read().holders(&asked)).await.unwrap_or_default();
    let by = |port: Port| (port, named.remove(&port).unwrap_or_else(|| UNKNOWN.to_owned()));
    ports.into_iter().map(by).collect()
}

async fn socket_ports() -> BTreeSet<Port> {
    spawn_blocking(|| Sockets::read().ports()).await.unwrap_or_default()
}
