//! What an engine may report of a container: its name in the first line, a label in each of the others, as `NAME=VALUE`.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use broker::fuzzing::{read_labels, write_labels};
use libfuzzer_sys::fuzz_target;
use pool::{AgentKey, LeaseId, Moment, Name, Owner, PoolSpec, Port, PortPool, PortRange, label};
use runtime::{Observed, ObservedState};

const BROKER: &str = "b";

fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let name = lines.next().unwrap_or_default();
    let labels: BTreeMap<&str, &str> = lines.filter_map(|line| line.split_once('=')).collect();
    for value in labels.values() {
        check_name(value);
    }
    let observed =
        observed(name, labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect());
    let Some((key, lease, ports)) = read_labels(BROKER, &observed) else { return };
    assert_eq!(name, key.runtime_name());
    assert!(ports.len() <= usize::from(label::LABEL_COUNT), "{} ports", ports.len());
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len(), "{ports:?}");
    let written = observed_again(&key, &lease, &ports);
    assert_eq!(read_labels(BROKER, &written), Some((key.clone(), lease.clone(), ports.clone())));
    check_pool(key, lease, &ports);
});

fn observed(name: &str, labels: BTreeMap<String, String>) -> Observed {
    Observed {
        id: "1".into(),
        name: name.into(),
        labels,
        state: ObservedState::Created,
        image: None,
        published: Vec::new(),
    }
}

fn observed_again(key: &AgentKey, lease: &LeaseId, ports: &[Port]) -> Observed {
    observed(&key.runtime_name(), write_labels(BROKER, key, lease, ports))
}

/// Only what is written like a name is one, and what is suggested instead is one as well.
fn check_name(text: &str) {
    match Name::new(text) {
        Ok(name) => assert_eq!(name.as_str(), text),
        Err(error) => {
            let suggestion = error.suggestion.map(|name| name.to_string());
            assert!(suggestion.is_none_or(|text| Name::new(&text).is_ok()), "{text}");
        }
    }
    if let Ok(key) = text.parse::<AgentKey>() {
        assert_eq!(key.to_string(), text);
    }
}

/// The pool takes the ports for a lease that it did not grant, and gives them back to the same agent.
fn check_pool(key: AgentKey, lease: LeaseId, ports: &[Port]) {
    let range = PortRange::new(Port::MIN, Port::MAX).expect("these are in order");
    let mut pool = PortPool::new(PoolSpec { range, exclude: Vec::new(), cool_down: 0 });
    let owner = Owner::Agent(key);
    pool.reserve(lease.clone(), owner.clone(), ports, Moment(0)).expect("nothing else is leased");
    pool.release(&lease, Moment(1), true);
    let again = pool.allocate(lease, owner, ports.len(), Moment(2));
    assert_eq!(again.expect("all are free"), ports);
}
