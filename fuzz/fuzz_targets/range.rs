//! A range of ports in the first line, and what is excluded from it in the others.

#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use pool::{AgentKey, LeaseId, Moment, Name, Owner, PoolSpec, Port, PortPool, PortRange};

/// Wider ranges differ from these only in that they take longer.
const WIDEST: usize = 2000;

fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let Some(range) = lines.next().and_then(parsed) else { return };
    let exclude: Vec<PortRange> = lines.filter_map(parsed).collect();
    if range.size() > WIDEST || exclude.iter().any(|excluded| excluded.size() > WIDEST) {
        return;
    }
    let ports: BTreeSet<Port> = range.ports().collect();
    assert_eq!(ports.len(), range.size());
    assert_eq!((ports.first(), ports.last()), (Some(&range.low()), Some(&range.high())));
    let mut left = ports.clone();
    for excluded in &exclude {
        let in_both = excluded.ports().any(|port| ports.contains(&port));
        assert_eq!((range.overlaps(*excluded), excluded.overlaps(range)), (in_both, in_both));
        left.retain(|port| !excluded.contains(*port));
    }
    check_pool(PortPool::new(PoolSpec { range, exclude, cool_down: 0 }), &left);
});

/// What the text means, if it means a range: then that range can be written, and read again.
fn parsed(text: &str) -> Option<PortRange> {
    let range: PortRange = text.parse().ok()?;
    assert!(1 <= range.low().get() && range.low() <= range.high());
    assert_eq!(range.to_string().parse(), Ok(range));
    Some(range)
}

/// A pool hands out exactly what is left of its range, and not one port more.
fn check_pool(mut pool: PortPool, left: &BTreeSet<Port>) {
    assert_eq!(pool.size(), left.len());
    let owner = |name: &str| {
        Owner::Agent(AgentKey::new(Name::default(), Name::new(name).expect("it is a valid name")))
    };
    let all = pool.allocate(LeaseId::new("1"), owner("all"), left.len(), Moment(0));
    let all = all.expect("as many are free as are left");
    assert!(all.iter().eq(left), "{all:?}");
    assert!(pool.allocate(LeaseId::new("2"), owner("one-more"), 1, Moment(0)).is_err());
}
