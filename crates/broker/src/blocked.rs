//! The ports of the pool that someone outside the ledger holds: found, named, and taken up again.
//!
//! Two things tell of them: the sockets of this host, and the runtimes, since a port that is published by packet rules alone has
//! no socket. The kernel's tables are read rather than every port probed, for a probe has the port for a moment itself; only what
//! the tables show, and what was blocked before, is probed.
//!
//! A port that an engine refused although nothing here shows why (its view is not ours: a machine of its own, another
//! namespace) is blocked for a while, for a probe would lift that at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use pool::Port;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::core::{Core, State};
use crate::holder::Sockets;
use crate::probe;
use crate::runtimes::Locality;

/// How often, and how far apart, a port that an agent had a moment ago is asked again before it counts as held by someone else:
/// an engine may close its socket a little after it said that the container ended.
const PATIENCE: (u32, Duration) = (10, Duration::from_millis(20));

/// For how long a port stays blocked that an engine refused, where nothing here shows why: a probe finds such a port free.
const REFUSED: Duration = Duration::from_secs(30);

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
