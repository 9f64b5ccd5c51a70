//! What runtimes tell of ports that are held there and that no socket of this host need show, and what is taken to hold while one does
//! not tell.
//!
//! **Memory.** While a runtime does not tell, what it told last holds. Pods run on without their API server, also when the broker ends and
//! another takes its place; so what a cluster told of this host is in the ledger, too. If it was told in this boot of the host, it holds for a day:
//! a cluster that is gone for good must not keep ports for ever. After a boot nothing of it runs at first, but it comes again with the cluster: it
//! holds for as long as a cluster may take for that ([`UNTOLD`]).
//!
//! **Limits.** Nothing is known of a cluster's pods if it is away and no broker of this home has heard of it, the ledger was lost, or it was heard
//! of longer ago than that. What is known is known by the name of the runtime: of two clusters it is that of the last. Where no kubeconfig is found when
//! the broker starts, no cluster is asked, and what one told does not count. Where the host does not tell its boots apart, what was told
//! before always counts as told in an earlier one.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::future::join_all;
use pool::{LeaseId, Port};
use runtime::process::Identity;
use runtime::{HeldPort, Runtime, RuntimeError};
use settings::RuntimeName;
use tokio::time::Instant;

use crate::clock;
use crate::core::{Core, State};
use crate::error::chain;
use crate::ledger::Change;
use crate::model::ToldPorts;
use crate::runtimes::Locality;
use crate::warnings::About;

/// How long a runtime takes to fail that hangs, and is not merely away.
const SLOW: Duration = Duration::from_secs(3);
/// For how long such a one is not asked again.
const SILENT: Duration = Duration::from_secs(30);
/// For how long what a runtime told another broker in this boot of the host is believed, and how often it is noted that it still tells the same;
/// both in milliseconds.
const BELIEVED: i64 = 24 * 3_600_000;
const NOTED_AGAIN: i64 = 3_600_000;
/// How long a broker waits for an engine to tell for the first time which ports it holds, before it takes it for gone.
const UNTOLD: Duration = Duration::from_secs(600);

impl Core {
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
                    self.keep_in_mind(runtime.as_ref(), &held).await;
                    held
                }
                None => {
                    let mut held = {
                        let state = self.state();
                        let told = state.told_held.get(runtime.name()).cloned();
                        told.unwrap_or_else(|| state.believed(runtime.name()))
                    };
                    // What an agent got just then was not known to be its own.
                    held.retain(|held| !is_own(held));
                    held
                }
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
                let has_told = self.state().told_held.contains_key(name);
                let is_slow = asked.elapsed() >= SLOW;
                if is_slow {
                    self.state().silent.insert(name, Instant::now());
                    self.silence.notify_waiters();
                }
                if runtime.runs_on_unheard() && !has_told {
                    self.warn_untold(name, &error, is_slow);
                } else if is_slow {
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

    /// Tells what is taken to hold while nothing is known of this runtime but what it told another broker, if it did.
    fn warn_untold(&self, runtime: &'static str, error: &RuntimeError, is_slow: bool) {
        let (mut ports, is_starting) = {
            let state = self.state();
            let held = state.believed(runtime).into_iter().filter_map(|held| Port::new(held.port));
            let ports: Vec<Port> = held.filter(|port| state.pool.contains(*port)).collect();
            (ports, state.taken_up.is_none())
        };
        ports.dedup();
        let about = About::Silent(runtime.to_owned());
        if !ports.is_empty() {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            let text = format!(
                "{runtime} does not say which ports it holds on this host ({}): those of the pool that it told of before this broker started \
                 are taken to be held still, for a day at the most: {}",
                chain(error),
                ports.join(", ")
            );
            self.warn(about, &text);
        } else if is_slow {
            let text = format!(
                "{runtime} does not say which ports it holds ({}): none are known, and it is asked again after {} s",
                chain(error),
                SILENT.as_secs()
            );
            self.warn(about, &text);
        } else if !self.take_back(|it| *it == about) && is_starting {
            tracing::info!(
                runtime,
                error = %chain(error),
                "it does not say which ports it holds: if this host is one of its nodes, a port of a pod may be handed out until it does"
            );
        }
    }

    /// Has the next broker know what others hold on this host, where that goes on while nothing tells of it.
    async fn keep_in_mind(&self, runtime: &dyn Runtime, held: &[HeldPort]) {
        if !runtime.runs_on_unheard() {
            return;
        }
        let mut here: Vec<HeldPort> = held.iter().filter(|held| held.is_here).cloned().collect();
        here.sort();
        here.dedup();
        let (name, boot, at) = (runtime.name(), this_boot().to_owned(), clock::now());
        let told = ToldPorts { boot, at, held: here };
        let recorded = {
            let mut state = self.state();
            let is_known = match state.told_before.get(name) {
                Some(known) => {
                    let is_fresh = (0..NOTED_AGAIN).contains(&told.at.0.saturating_sub(known.at.0));
                    (&known.boot, &known.held) == (&told.boot, &told.held)
                        && (is_fresh || told.held.is_empty())
                }
                None => told.held.is_empty(),
            };
            if is_known {
                return;
            }
            state.told_before.insert(name.to_owned(), told.clone());
            // In the order in which it is remembered here.
            self.ledger.record(vec![Change::Told { runtime: name, told }])
        };
        if let Err(error) = recorded.on_disk().await {
            tracing::debug!(runtime = name, %error, "the next broker would not know which ports it told of last");
            // So that it is written with the next answer.
            if let Some(told) = self.state().told_before.get_mut(name) {
                told.boot.clear();
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
        let is_new = self.state().is_new();
        let engines = [RuntimeName::Docker, RuntimeName::Podman].map(RuntimeName::as_str).into_iter();
        let has_told = |name: &str| self.state().told_held.contains_key(name);
        engines.filter(move |name| is_new && self.runtimes.may_publish(name) && !has_told(name))
    }
}

impl State {
    /// The ports of this host that others held on that runtime when it last told a broker, if they may hold them still.
    fn believed(&self, runtime: &str) -> Vec<HeldPort> {
        let runs_on = |told: &ToldPorts| {
            let age = clock::now().0.saturating_sub(told.at.0);
            !told.boot.is_empty() && told.boot == this_boot() && age < BELIEVED
        };
        let may_hold = |told: &&ToldPorts| runs_on(told) || self.is_new();
        self.told_before.get(runtime).filter(may_hold).map(|told| told.held.clone()).unwrap_or_default()
    }

    /// Whether this broker started so short a time ago that what is silent may only not be there yet.
    fn is_new(&self) -> bool {
        self.taken_up.is_none_or(|at| at.elapsed() < UNTOLD)
    }
}

/// What tells this boot of the host from others; empty where the host does not tell.
fn this_boot() -> &'static str {
    static BOOT: LazyLock<String> = LazyLock::new(|| {
        Identity::current().map_or_else(|_| String::new(), |this| this.boot_id().to_owned())
    });
    &BOOT
}

#[cfg(test)]
mod tests {
    use pool::Moment;
    use settings::Settings;

    use super::*;

    /// A cluster that is gone for good keeps no ports for ever; pods that run on do for as long as they may.
    #[tokio::test(start_paused = true)]
    async fn what_was_told_before_is_believed_for_a_while() {
        let mut state = State::new(&Settings::default(), None);
        let held = |port| HeldPort { port, by: "the pod shop/web".to_owned(), is_here: true, lease: None };
        let told = |boot: &str, age: i64, port| ToldPorts {
            boot: boot.to_owned(),
            at: Moment(clock::now().0 - age),
            held: vec![held(port)],
        };
        let minute = 60_000;
        let before = [
            ("now", told(this_boot(), 0, 8000)),
            ("long ago", told(this_boot(), BELIEVED - minute, 8001)),
            ("too long ago", told(this_boot(), BELIEVED, 8002)),
            ("before the boot", told("another", 0, 8003)),
            ("no boot", told("", 0, 8004)),
        ];
        state.told_before = before.map(|(runtime, told)| (runtime.to_owned(), told)).into();
        let believed = |state: &State| -> Vec<u16> {
            let runtimes = ["now", "long ago", "too long ago", "before the boot", "no boot", "unheard of"];
            runtimes.iter().flat_map(|runtime| state.believed(runtime)).map(|held| held.port).collect()
        };
        assert_eq!(believed(&state), [8000, 8001, 8002, 8003, 8004], "while the broker starts");
        state.taken_up = Some(Instant::now());
        tokio::time::advance(UNTOLD - Duration::from_secs(1)).await;
        assert_eq!(believed(&state), [8000, 8001, 8002, 8003, 8004]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(believed(&state), [8000, 8001]);
    }
}
