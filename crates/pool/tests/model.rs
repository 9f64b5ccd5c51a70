//! The pool against a naive model, over random histories.
//!
//! The model keeps one entry a port and finds everything by looking at all of them; it is too slow to use and too
//! simple to be wrong. After every step both must say the same of every port.

use std::collections::{BTreeMap, BTreeSet};

use pool::{AgentKey, Clash, LeaseId, Moment, Name, Owner, PoolSpec, Port, PortPool, PortRange, PortState};
use proptest::prelude::*;

const COOL_DOWN: i64 = 5;

#[derive(Clone, Debug)]
enum Step {
    Allocate { owner: u8, count: usize },
    Exchange { owner: u8, count: usize, undo: bool },
    Release { owner: u8, remember: bool },
    Forget { owner: u8 },
    Block { port: u16 },
    Unblock { port: u16 },
    Reserve { owner: u8, ports: Vec<u16> },
    Pass { time: i64 },
}

#[derive(Default)]
struct Model {
    pool: BTreeSet<Port>,
    leased: BTreeMap<Port, u8>,
    leases: BTreeMap<u8, Vec<Port>>,
    former: BTreeMap<u8, Vec<Port>>,
    blocked: BTreeSet<Port>,
    /// When a port was released, for as long as someone remembers it or it cools.
    released: BTreeMap<Port, i64>,
    cooling: BTreeSet<Port>,
    now: i64,
}

impl Model {
    fn is_remembered(&self, port: Port) -> bool {
        self.former.values().any(|ports| ports.contains(&port))
    }

    fn can_be_leased(&self, port: Port) -> bool {
        self.pool.contains(&port) && !self.leased.contains_key(&port) && !self.blocked.contains(&port)
    }

    /// The selection rule, read aloud: own former ports, then the lowest without a history, then the longest released.
    fn choose(&self, count: usize, former: &[Port], also: &BTreeSet<Port>) -> Option<Vec<Port>> {
        let usable =
            |port: Port| self.can_be_leased(port) || (also.contains(&port) && self.pool.contains(&port));
        let mut chosen: Vec<Option<Port>> =
            (0..count).map(|place| former.get(place).copied().filter(|port| usable(*port))).collect();
        let mut taken: BTreeSet<Port> = chosen.iter().flatten().copied().collect();
        for place in chosen.iter_mut().filter(|place| place.is_none()) {
            let free = || self.pool.iter().copied().filter(|port| usable(*port) && !taken.contains(port));
            let has_history = |port: &Port| {
                let remembered_by_others = self.is_remembered(*port);
                self.cooling.contains(port) || remembered_by_others
            };
            let next = free().find(|port| !has_history(port));
            let next =
                next.or_else(|| free().min_by_key(|port| (self.released.get(port).copied(), *port)))?;
            taken.insert(next);
            *place = Some(next);
        }
        chosen.into_iter().collect()
    }

    fn grant(&mut self, owner: u8, ports: Vec<Port>) {
        self.former.remove(&owner);
        for port in &ports {
            self.leased.insert(*port, owner);
        }
        self.leases.insert(owner, ports);
        self.tidy();
    }

    fn release(&mut self, owner: u8, remember: bool) {
        let Some(ports) = self.leases.remove(&owner) else { return };
        for port in &ports {
            self.leased.remove(port);
            self.released.insert(*port, self.now);
            self.cooling.insert(*port);
        }
        if remember {
            self.former.remove(&owner);
            if !ports.is_empty() {
                self.former.insert(owner, ports);
            }
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        let keep: BTreeSet<Port> = self
            .released
            .keys()
            .copied()
            .filter(|port| self.cooling.contains(port) || self.is_remembered(*port))
            .collect();
        self.released.retain(|port, _| keep.contains(port));
    }

    fn cool_off(&mut self) {
        let (now, released) = (self.now, &self.released);
        self.cooling.retain(|port| released.get(port).is_some_and(|at| at + COOL_DOWN > now));
        self.tidy();
    }
}

fn owner(number: u8) -> Owner {
    Owner::Agent(AgentKey::new(
        Name::default(),
        Name::new(&format!("a{number}")).expect("it is a valid name"),
    ))
}

fn port(number: u16) -> Port {
    Port::new(number).expect("the tests use no port 0")
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let owner = || 0u8..6;
    let number = || 8000u16..8014;
    let step = prop_oneof![
        5 => (owner(), 0usize..5).prop_map(|(owner, count)| Step::Allocate { owner, count }),
        2 => (owner(), 0usize..5, any::<bool>()).prop_map(|(owner, count, undo)| Step::Exchange { owner, count, undo }),
        4 => (owner(), any::<bool>()).prop_map(|(owner, remember)| Step::Release { owner, remember }),
        1 => owner().prop_map(|owner| Step::Forget { owner }),
        1 => number().prop_map(|port| Step::Block { port }),
        1 => number().prop_map(|port| Step::Unblock { port }),
        1 => (owner(), prop::collection::vec(number(), 0..4)).prop_map(|(owner, ports)| Step::Reserve { owner, ports }),
        2 => (0i64..4).prop_map(|time| Step::Pass { time }),
    ];
    prop::collection::vec(step, 0..80)
}

/// What both sides say of a port, in one form.
fn told(state: Option<&PortState<'_>>) -> String {
    match state {
        None => "not in the pool".to_owned(),
        Some(PortState::Free) => "free".to_owned(),
        Some(PortState::Leased { owner, label, .. }) => format!("leased to {owner} as {label}"),
        Some(PortState::Remembered { .. }) => "remembered".to_owned(),
        Some(PortState::Cooling { .. }) => "cooling".to_owned(),
        Some(PortState::Blocked { .. }) => "blocked".to_owned(),
    }
}

fn expected(model: &Model, port: Port) -> String {
    if let Some(holder) = model.leased.get(&port) {
        let place = model.leases[holder]
            .iter()
            .position(|held| *held == port)
            .expect("a leased port is in its lease");
        return format!(
            "leased to {} as {}",
            owner(*holder),
            pool::Label::from_index(place).expect("there are few")
        );
    }
    let text = if !model.pool.contains(&port) {
        "not in the pool"
    } else if model.blocked.contains(&port) {
        "blocked"
    } else if model.cooling.contains(&port) {
        "cooling"
    } else if model.is_remembered(port) {
        "remembered"
    } else {
        "free"
    };
    text.to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_the_naive_model(steps in steps()) {
        let range: PortRange = "8001-8012".parse().expect("it is a range");
        let excluded: PortRange = "8005".parse().expect("it is a range");
        let spec = PoolSpec { range, exclude: vec![excluded], cool_down: COOL_DOWN };
        let mut pool = PortPool::new(spec);
        let mut model = Model { pool: range.ports().filter(|port| !excluded.contains(*port)).collect(), ..Model::default() };
        let mut ids: BTreeMap<u8, LeaseId> = BTreeMap::new();
        let mut next_id = 0;
        let mut fresh = || { next_id += 1; LeaseId::new(&format!("l{next_id}")) };
        for step in steps {
            let now = Moment(model.now);
            model.cool_off();
            match step {
                Step::Allocate { owner: who, count } if !ids.contains_key(&who) => {
                    let former = model.former.get(&who).cloned().unwrap_or_default();
                    let wanted = model.choose(count, &former, &BTreeSet::new());
                    let id = fresh();
                    match (pool.allocate(id.clone(), owner(who), count, now), wanted) {
                        (Ok(ports), Some(wanted)) => {
                            prop_assert_eq!(&ports, &wanted);
                            ids.insert(who, id);
                            model.grant(who, ports);
                        }
                        (Err(exhausted), None) => {
                            prop_assert!(exhausted.available < count);
                            prop_assert_eq!(exhausted.size, model.pool.len());
                            let held: usize = exhausted.holders.iter().map(|holder| holder.ports.len()).sum();
                            prop_assert_eq!(held, model.leased.len());
                        }
                        (got, wanted) => prop_assert!(false, "pool: {:?}, model: {:?}", got, wanted),
                    }
                }
                Step::Exchange { owner: who, count, undo } => {
                    let Some(old) = ids.get(&who).cloned() else { continue };
                    let former = model.leases[&who].clone();
                    let kept: BTreeSet<Port> = former.iter().take(count).copied()
                        .filter(|port| model.pool.contains(port) && !model.blocked.contains(port)).collect();
                    let wanted = model.choose(count, &former[..former.len().min(count)], &kept);
                    let id = fresh();
                    match (pool.exchange(&old, id.clone(), count, owner(who), now), wanted) {
                        (Ok(ports), Some(wanted)) => {
                            prop_assert_eq!(&ports, &wanted);
                            if undo {
                                pool.undo_exchange(&old, &former, &id);
                            } else {
                                pool.complete_exchange(&old, now);
                                for port in former.iter().filter(|port| !ports.contains(port)) {
                                    model.leased.remove(port);
                                    model.released.insert(*port, model.now);
                                    model.cooling.insert(*port);
                                }
                                model.grant(who, ports);
                                ids.insert(who, id);
                            }
                        }
                        (Err(_), None) => prop_assert_eq!(pool.ports_of(&old), Some(former.as_slice())),
                        (got, wanted) => prop_assert!(false, "pool: {:?}, model: {:?}", got, wanted),
                    }
                }
                Step::Release { owner: who, remember } => {
                    if let Some(id) = ids.remove(&who) {
                        let released = pool.release(&id, now, remember).expect("it is held");
                        prop_assert_eq!(&released.ports, &model.leases[&who]);
                        model.release(who, remember);
                        prop_assert_eq!(pool.release(&id, now, remember), None, "a lease ends once");
                    }
                }
                Step::Forget { owner: who } if !ids.contains_key(&who) => {
                    pool.forget(&owner(who));
                    model.former.remove(&who);
                    model.tidy();
                }
                Step::Block { port: number } => {
                    pool.block(port(number), "someone", now);
                    model.blocked.insert(port(number));
                }
                Step::Unblock { port: number } => {
                    prop_assert_eq!(pool.unblock(port(number)), model.blocked.remove(&port(number)));
                }
                Step::Reserve { owner: who, ports } if !ids.contains_key(&who) => {
                    let ports: Vec<Port> = ports.into_iter().map(port).collect();
                    let distinct: BTreeSet<Port> = ports.iter().copied().collect();
                    let is_clash = distinct.len() < ports.len() || ports.iter().any(|port| model.leased.contains_key(port));
                    let id = fresh();
                    let reserved = pool.reserve(id.clone(), owner(who), &ports, now);
                    prop_assert_eq!(reserved.is_err(), is_clash);
                    if !is_clash {
                        ids.insert(who, id);
                        model.grant(who, ports);
                    }
                }
                Step::Pass { time } => model.now += time,
                Step::Allocate { .. } | Step::Forget { .. } | Step::Reserve { .. } => {}
            }
            let now = Moment(model.now);
            // The model learns that time has passed when it is asked; the pool when it is told.
            let cooled: BTreeSet<Port> = model.cooling.iter().copied()
                .filter(|port| model.released.get(port).is_some_and(|at| at + COOL_DOWN > model.now)).collect();
            let seen = Model { pool: model.pool.clone(), leased: model.leased.clone(), leases: model.leases.clone(),
                former: model.former.clone(), blocked: model.blocked.clone(), released: model.released.clone(),
                cooling: cooled, now: model.now };
            for number in 8000..8014 {
                prop_assert_eq!(told(pool.state(port(number), now).as_ref()), expected(&seen, port(number)), "port {}", number);
            }
        }
    }

    /// L8: in a pool that is nearly full, a set is whole and distinct, or it is not granted at all.
    #[test]
    fn near_exhaustion_a_set_is_whole_or_refused(counts in prop::collection::vec(1usize..6, 1..40)) {
        let spec = PoolSpec { range: "8000-8019".parse().expect("it is a range"), exclude: Vec::new(), cool_down: 0 };
        let mut pool = PortPool::new(spec);
        let mut held = BTreeSet::new();
        for (number, count) in (0u8..).zip(counts) {
            let before = held.len();
            match pool.allocate(LeaseId::new(&number.to_string()), owner(number), count, Moment(0)) {
                Ok(ports) => {
                    prop_assert_eq!(ports.len(), count);
                    held.extend(ports);
                    prop_assert_eq!(held.len(), before + count, "no port was given twice");
                }
                Err(exhausted) => {
                    prop_assert_eq!(exhausted.available, 20 - before);
                    prop_assert_eq!(pool.counts(Moment(0)).leased, before, "nothing was taken");
                }
            }
        }
    }
}

/// L12: former ports are a preference, not a claim, and they are handed out longest-released first.
#[test]
fn remembered_ports_are_given_last_and_the_longest_released_first() {
    let spec = PoolSpec { range: "8000-8002".parse().unwrap(), exclude: Vec::new(), cool_down: 0 };
    let mut pool = PortPool::new(spec);
    for (number, at) in [(0u8, 30), (1, 10), (2, 20)] {
        let id = LeaseId::new(&number.to_string());
        pool.reserve(id.clone(), owner(number), &[port(8000 + u16::from(number))], Moment(0)).unwrap();
        pool.release(&id, Moment(at), true);
    }
    let mut next =
        |who: u8| pool.allocate(LeaseId::new(&format!("n{who}")), owner(who), 1, Moment(40)).unwrap();
    assert_eq!(next(9), [port(8001)]);
    assert_eq!(next(0), [port(8000)], "its own former port comes first");
    assert_eq!(next(1), [port(8002)], "its own former port is gone, so it gets what is left");
}

/// A clock that is set back cannot keep a port cooling for longer than the cool-down.
#[test]
fn cooling_survives_a_clock_that_is_set_back() {
    let spec = PoolSpec { range: "8000-8001".parse().unwrap(), exclude: Vec::new(), cool_down: 100 };
    let mut pool = PortPool::new(spec);
    pool.allocate(LeaseId::new("1"), owner(1), 1, Moment(1_000_000)).unwrap();
    pool.release(&LeaseId::new("1"), Moment(1_000_000), false);
    let mut take = |id: &str, at| pool.allocate(LeaseId::new(id), owner(2), 1, Moment(at)).unwrap();
    assert_eq!(take("2", 10), [port(8001)], "8000 cools");
    pool.release(&LeaseId::new("2"), Moment(20), false);
    assert_eq!(
        pool.allocate(LeaseId::new("3"), owner(3), 1, Moment(110)).unwrap(),
        [port(8000)],
        "and has cooled"
    );
}

/// L8's other half: "never used" is not "released at time 0".
#[test]
fn a_fresh_pool_does_not_cool() {
    let spec = PoolSpec { range: "8000".parse().unwrap(), exclude: Vec::new(), cool_down: 60_000 };
    let pool = PortPool::new(spec);
    assert_eq!(pool.state(port(8000), Moment(1)), Some(PortState::Free));
}

fn small_pool() -> PortPool {
    let range = PortRange::new(port(8000), port(8009)).expect("8000 is less than 8009");
    PortPool::new(PoolSpec { range, exclude: Vec::new(), cool_down: COOL_DOWN })
}

#[test]
fn what_was_never_used_does_not_cool_down() {
    let mut pool = small_pool();
    let ports = pool.allocate(LeaseId::new("one"), owner(1), 2, Moment(0)).unwrap();
    pool.cancel(&LeaseId::new("one"));
    assert!(ports.iter().all(|port| pool.state(*port, Moment(0)) == Some(PortState::Free)));
    pool.allocate(LeaseId::new("two"), owner(2), 1, Moment(0)).unwrap();
    let used = pool.release(&LeaseId::new("two"), Moment(1), false).unwrap().ports[0];
    pool.allocate(LeaseId::new("three"), owner(3), 10, Moment(2)).unwrap();
    pool.cancel(&LeaseId::new("three"));
    let still = PortState::Cooling { owner: None, since: Moment(1), until: Moment(1 + COOL_DOWN) };
    assert_eq!(pool.state(used, Moment(2)), Some(still), "what cooled down goes on with that");
}

#[test]
fn a_lease_that_has_ended_does_not_come_back_with_an_exchange() {
    let mut pool = small_pool();
    let (old, new) = (LeaseId::new("old"), LeaseId::new("new"));
    let ports = pool.allocate(old.clone(), owner(1), 2, Moment(0)).unwrap();
    pool.release(&old, Moment(1), true);
    pool.exchange(&old, new.clone(), 2, owner(1), Moment(2)).unwrap();
    pool.undo_exchange(&old, &ports, &new);
    assert_eq!((pool.leases().count(), pool.ports_of(&old)), (0, None));
}

#[test]
fn a_lease_id_is_entered_once() {
    let mut pool = small_pool();
    let id = LeaseId::new("one");
    pool.reserve(id.clone(), owner(1), &[port(8000)], Moment(0)).unwrap();
    let clash = pool.reserve(id.clone(), owner(2), &[port(8001)], Moment(0)).unwrap_err();
    assert_eq!(clash, Clash::Id { lease: id, holder: owner(1) });
}

#[test]
fn a_port_that_is_remembered_twice_is_given_once() {
    let mut pool = small_pool();
    pool.remember(owner(1), &[port(8001), port(8001)], Moment(0));
    let ports = pool.allocate(LeaseId::new("one"), owner(1), 2, Moment(1)).unwrap();
    assert_eq!(ports, [port(8001), port(8000)]);
}
