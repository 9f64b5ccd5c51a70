//! Who holds which port of the pool, and which one is next.
//!
//! The facts are kept apart (who leases, what is blocked, who remembers, when released); two indexes are derived
//! from them, always by [`PortPool::reindex`] and nowhere else:
//!
//! - `fresh`: the ports that can be handed out and have no history; the lowest is found in constant time.
//! - `used`: the ports that can be handed out but are remembered or cooling, by the time of their release.
//!
//! So a pick costs the same in an empty pool and in a nearly full one. Nothing here is durable: the broker's
//! ledger is, and this is rebuilt from it.

use std::collections::{BTreeMap, BTreeSet};

use crate::bitmap::PortSet;
use crate::{Label, LeaseId, Moment, Owner, Port, PortRange};

/// What a pool is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolSpec {
    /// All ports from which leases are granted …
    pub range: PortRange,
    /// … less these.
    pub exclude: Vec<PortRange>,
    /// For how long, in milliseconds, a released port is handed out only if nothing else is left.
    pub cool_down: i64,
}

/// The ports of a broker: leased, remembered, cooling down, blocked, or free.
#[derive(Clone)]
pub struct PortPool {
    spec: PoolSpec,
    size: usize,
    leases: BTreeMap<LeaseId, Lease>,
    leased: BTreeMap<Port, LeaseId>,
    blocked: BTreeMap<Port, Blocked>,
    former: BTreeMap<Owner, Vec<Port>>,
    remembering: BTreeMap<Port, BTreeSet<Owner>>,
    released: BTreeMap<Port, Moment>,
    cooling: BTreeSet<(Moment, Port)>,
    fresh: PortSet,
    used: BTreeSet<(Moment, Port)>,
    changed: PortSet,
}

#[derive(Clone, Debug)]
struct Lease {
    owner: Owner,
    ports: Vec<Port>,
    since: Moment,
}

#[derive(Clone, Debug)]
struct Blocked {
    by: String,
    since: Moment,
}

/// What a port of the pool is at the moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortState<'a> {
    /// No one holds it and no one remembers it.
    Free,
    /// Held by a lease.
    Leased {
        /// The lease.
        lease: &'a LeaseId,
        /// Who has the lease.
        owner: &'a Owner,
        /// Which port of the lease it is.
        label: Label,
        /// Since when.
        since: Moment,
    },
    /// A stopped agent's former port: handed to others only when no free port is left.
    Remembered {
        /// Whose former port it is.
        owner: &'a Owner,
        /// When it was released.
        since: Moment,
    },
    /// Released a short while ago: handed to others only when no free port is left.
    Cooling {
        /// Whose former port it is, if someone still remembers it.
        owner: Option<&'a Owner>,
        /// When it was released.
        since: Moment,
        /// When it has cooled down.
        until: Moment,
    },
    /// Someone outside the ledger holds it.
    Blocked {
        /// Who, as far as that could be told.
        by: &'a str,
        /// Since when it is known.
        since: Moment,
    },
}

/// How many ports of the pool are in each state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "each field counts the state of its name, see `PortState`")]
pub struct Counts {
    pub free: usize,
    pub leased: usize,
    pub remembered: usize,
    pub cooling: usize,
    pub blocked: usize,
}

/// An owner and the ports of its lease, in label order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Who holds the lease.
    pub owner: Owner,
    /// Its ports in label order.
    pub ports: Vec<Port>,
    /// Since when.
    pub since: Moment,
}

/// There are not as many ports left as were asked for. Nothing was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exhausted {
    /// How many ports were asked for.
    pub requested: usize,
    /// How many could have been handed out.
    pub available: usize,
    /// How many ports the pool has.
    pub size: usize,
    /// The range of the pool.
    pub range: PortRange,
    /// Who holds ports, by owner.
    pub holders: Vec<Holder>,
    /// The blocked ports, and by whom.
    pub blocked: Vec<(Port, String)>,
}

impl std::error::Error for Exhausted {}

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { requested, available, size, range, .. } = self;
        let ports = if *requested == 1 { "port was" } else { "ports were" };
        let left = if *available == 0 { "none".to_owned() } else { format!("only {available}") };
        write!(
            f,
            "{requested} {ports} asked for, but {left} of the {size} in the pool {range} can be handed out"
        )?;
        match self.blocked.len() {
            0 => Ok(()),
            1 => f.write_str(" (1 is held by someone else)"),
            blocked => write!(f, " ({blocked} are held by others)"),
        }
    }
}

/// A lease cannot be entered as it is because of another one. Nothing was taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Clash {
    /// Another one has one of the ports.
    #[error("port {port} is leased to {holder} already")]
    Port {
        /// The first port in question.
        port: Port,
        /// Who has it.
        holder: Owner,
    },
    /// There is one of that id.
    #[error("the lease {lease} is that of {holder} already")]
    Id {
        /// The id.
        lease: LeaseId,
        /// Whose it is.
        holder: Owner,
    },
}

impl PortPool {
    /// A pool of which no port is held.
    pub fn new(spec: PoolSpec) -> Self {
        let mut pool = Self {
            spec,
            size: 0,
            leases: BTreeMap::new(),
            leased: BTreeMap::new(),
            blocked: BTreeMap::new(),
            former: BTreeMap::new(),
            remembering: BTreeMap::new(),
            released: BTreeMap::new(),
            cooling: BTreeSet::new(),
            fresh: PortSet::new(),
            used: BTreeSet::new(),
            changed: PortSet::new(),
        };
        for port in pool.spec.range.ports() {
            if !pool.spec.exclude.iter().any(|excluded| excluded.contains(port)) {
                pool.fresh.insert(port);
                pool.changed.insert(port);
            }
        }
        pool.size = pool.fresh.len();
        pool
    }

    /// What the pool was made of.
    pub fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    /// What is excluded from the range.
    pub fn excluded(&self) -> impl Iterator<Item = PortRange> {
        self.spec.exclude.iter().copied()
    }

    /// How many ports the pool has: the range less the excluded ones.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether `port` is one of the pool's.
    pub fn contains(&self, port: Port) -> bool {
        self.spec.range.contains(port) && !self.spec.exclude.iter().any(|excluded| excluded.contains(port))
    }

    /// Leases `count` ports to `owner`: all, or none.
    ///
    /// Each label first gets the port that the owner had under that label, if it can be handed out; the rest get
    /// the lowest fresh port, and when there is none, the one released longest ago.
    ///
    /// # Errors
    /// [`Exhausted`] if fewer than `count` ports can be handed out.
    ///
    /// # Panics
    /// If the lease id was used before: ids are unique.
    pub fn allocate(
        &mut self,
        lease: LeaseId,
        owner: Owner,
        count: usize,
        now: Moment,
    ) -> Result<Vec<Port>, Exhausted> {
        assert!(!self.leases.contains_key(&lease), "BUG: lease id {lease} was used before");
        self.cool_off(now);
        if self.available() < count {
            return Err(self.exhausted(count, self.available()));
        }
        let former = self.former.get(&owner).cloned().unwrap_or_default();
        let mut chosen = Vec::with_capacity(count);
        for index in 0..count {
            // Taken one by one: a port that is remembered twice is had once.
            let port = former.get(index).copied().filter(|port| self.can_be_leased(*port));
            if let Some(port) = port {
                self.take(port, &lease);
            }
            chosen.push(port);
        }
        for place in chosen.iter_mut().filter(|place| place.is_none()) {
            let next = self.fresh.lowest().or_else(|| self.used.first().map(|(_, port)| *port));
            let port = next.expect("as many ports as asked for were available, and each is taken once");
            self.take(port, &lease);
            *place = Some(port);
        }
        let ports: Vec<Port> = chosen.into_iter().flatten().collect();
        self.forget(&owner);
        self.leases.insert(lease, Lease { owner, ports: ports.clone(), since: now });
        Ok(ports)
    }

    /// Lets the lease `new` take the place of `old`, whose owner comes back with `count` ports: each label keeps its
    /// port where the pool still has it, and further ones are chosen as in [`PortPool::allocate`]. What the owner
    /// gives up stays with `old` until [`PortPool::complete_exchange`], so that no one else can have it before the
    /// exchange is on disk; [`PortPool::undo_exchange`] takes it back. If `old` is no lease, this is `allocate`.
    ///
    /// # Errors
    /// [`Exhausted`] if that is not possible; then `old` is held as before.
    ///
    /// # Panics
    /// If the new lease id was used before.
    pub fn exchange(
        &mut self,
        old: &LeaseId,
        new: LeaseId,
        count: usize,
        owner: Owner,
        now: Moment,
    ) -> Result<Vec<Port>, Exhausted> {
        let Some(former) = self.leases.get(old).map(|lease| lease.ports.clone()) else {
            return self.allocate(new, owner, count, now);
        };
        self.cool_off(now);
        let keeps = |port: &Port| self.contains(*port) && !self.blocked.contains_key(port);
        let kept: Vec<Port> = former.iter().take(count).copied().filter(keeps).collect();
        let available = self.available() + kept.len();
        if available < count {
            return Err(self.exhausted(count, available));
        }
        for port in &kept {
            self.leased.remove(port);
            self.reindex(*port);
        }
        if let Some(lease) = self.leases.get_mut(old) {
            lease.ports.retain(|port| !kept.contains(port));
        }
        self.former.insert(owner.clone(), former);
        self.allocate(new, owner, count, now)
    }

    /// Ends an exchange: what its owner gave up is released.
    pub fn complete_exchange(&mut self, old: &LeaseId, now: Moment) {
        self.release(old, now, false);
    }

    /// Takes an exchange back: `old` has its `former` ports again, and what `new` had beyond them is let go. If `old` is no
    /// lease (any more), it does not become one: others may have its ports.
    pub fn undo_exchange(&mut self, old: &LeaseId, former: &[Port], new: &LeaseId) {
        let Some(Lease { since, .. }) = self.leases.get(old) else { return self.cancel(new) };
        let since = *since;
        let Some(Lease { owner, ports, .. }) = self.leases.remove(new) else { return };
        for port in ports {
            self.leased.remove(&port);
            self.reindex(port);
        }
        for port in former {
            self.leased.insert(*port, old.clone());
            self.reindex(*port);
        }
        self.leases.insert(old.clone(), Lease { owner, ports: former.to_vec(), since });
    }

    /// Enters a lease with exactly these ports, which may lie outside the pool: one that the ledger or a label tells of.
    ///
    /// # Errors
    /// [`Clash`] if one of the ports is leased already, or stands in `ports` twice; or if there is a lease of that id.
    pub fn reserve(
        &mut self,
        lease: LeaseId,
        owner: Owner,
        ports: &[Port],
        since: Moment,
    ) -> Result<(), Clash> {
        self.can_reserve(&lease, &owner, ports)?;
        for port in ports {
            self.take(*port, &lease);
        }
        self.forget(&owner);
        self.leases.insert(lease, Lease { owner, ports: ports.to_vec(), since });
        Ok(())
    }

    /// Whether [`PortPool::reserve`] would enter that lease.
    ///
    /// # Errors
    /// The [`Clash`] that it would meet.
    pub fn can_reserve(&self, lease: &LeaseId, owner: &Owner, ports: &[Port]) -> Result<(), Clash> {
        if let Some(Lease { owner, .. }) = self.leases.get(lease) {
            return Err(Clash::Id { holder: owner.clone(), lease: lease.clone() });
        }
        let mut seen = BTreeSet::new();
        for port in ports {
            if let Some(holder) = self.leased.get(port) {
                let holding = self.leases.get(holder).expect("every leased port names a lease that exists");
                return Err(Clash::Port { port: *port, holder: holding.owner.clone() });
            }
            if !seen.insert(*port) {
                return Err(Clash::Port { port: *port, holder: owner.clone() });
            }
        }
        Ok(())
    }

    /// Ends the lease of that id and says who had which ports; none if there is no such lease (any more). With
    /// `remember` the owner can have them again, see [`PortPool::remember`].
    pub fn release(&mut self, lease: &LeaseId, now: Moment, remember: bool) -> Option<Holder> {
        let Lease { owner, ports, since } = self.leases.remove(lease)?;
        for port in &ports {
            self.leased.remove(port);
            self.note_release(*port, now);
        }
        if remember {
            self.remember(owner.clone(), &ports, now);
        } else {
            ports.iter().for_each(|port| self.reindex(*port));
        }
        Some(Holder { owner, ports, since })
    }

    /// Takes back a lease that nobody was told of: its ports were not used, so none of them has to cool down.
    pub fn cancel(&mut self, lease: &LeaseId) {
        let Some(Lease { ports, .. }) = self.leases.remove(lease) else { return };
        for port in ports {
            self.leased.remove(&port);
            self.reindex(port);
        }
    }

    /// Remembers that `owner`, which holds no lease, had these ports until `released`: others get them last.
    pub fn remember(&mut self, owner: Owner, ports: &[Port], released: Moment) {
        self.forget(&owner);
        for port in ports {
            self.remembering.entry(*port).or_default().insert(owner.clone());
            self.released.entry(*port).or_insert(released);
            self.reindex(*port);
        }
        if !ports.is_empty() {
            self.former.insert(owner, ports.to_vec());
        }
    }

    /// Notes that `port`, which nobody leases, was released then: it cools down from there. For a pool that takes the place of another.
    pub fn recall(&mut self, port: Port, released: Moment) {
        let is_earlier = self.released.get(&port).is_some_and(|known| *known > released);
        if self.contains(port) && !self.leased.contains_key(&port) && !is_earlier {
            self.note_release(port, released);
            self.reindex(port);
        }
    }

    /// Forgets the former ports of `owner`.
    pub fn forget(&mut self, owner: &Owner) {
        for port in self.former.remove(owner).unwrap_or_default() {
            if let Some(owners) = self.remembering.get_mut(&port) {
                owners.remove(owner);
                if owners.is_empty() {
                    self.remembering.remove(&port);
                }
            }
            self.reindex(port);
        }
    }

    /// The former ports of `owner`, in label order.
    pub fn former(&self, owner: &Owner) -> &[Port] {
        self.former.get(owner).map_or(&[], Vec::as_slice)
    }

    /// Marks `port` as held by someone outside the ledger, told by `by`. It is not handed out until unblocked.
    pub fn block(&mut self, port: Port, by: &str, now: Moment) {
        let since = self.blocked.get(&port).map_or(now, |blocked| blocked.since);
        self.blocked.insert(port, Blocked { by: by.to_owned(), since });
        self.reindex(port);
    }

    /// Takes the mark of [`PortPool::block`] away; false if there was none.
    pub fn unblock(&mut self, port: Port) -> bool {
        let was_blocked = self.blocked.remove(&port).is_some();
        self.reindex(port);
        was_blocked
    }

    /// The blocked ports, lowest first, and who holds them.
    pub fn blocked(&self) -> impl Iterator<Item = (Port, &str)> {
        self.blocked.iter().map(|(port, blocked)| (*port, blocked.by.as_str()))
    }

    /// Whether `port` is one of the pool's and not leased.
    pub fn is_idle(&self, port: Port) -> bool {
        self.contains(port) && !self.leased.contains_key(&port)
    }

    /// Whether `port` is one of the pool's that is neither leased nor blocked.
    pub fn can_be_leased(&self, port: Port) -> bool {
        self.contains(port) && !self.leased.contains_key(&port) && !self.blocked.contains_key(&port)
    }

    /// The leases that are held.
    pub fn leases(&self) -> impl Iterator<Item = &LeaseId> {
        self.leases.keys()
    }

    /// The lowest port that may have changed its state since it was returned by this; none once all were. A new pool
    /// starts with all its ports.
    pub fn next_changed(&mut self) -> Option<Port> {
        let port = self.changed.lowest()?;
        self.changed.remove(port);
        Some(port)
    }

    /// The ports of the lease, in label order.
    pub fn ports_of(&self, lease: &LeaseId) -> Option<&[Port]> {
        self.leases.get(lease).map(|lease| lease.ports.as_slice())
    }

    /// Who holds ports, one entry a lease, by owner.
    pub fn holders(&self) -> Vec<Holder> {
        let holder = |lease: &Lease| Holder {
            owner: lease.owner.clone(),
            ports: lease.ports.clone(),
            since: lease.since,
        };
        let mut holders: Vec<Holder> =
            self.leases.values().filter(|lease| !lease.ports.is_empty()).map(holder).collect();
        holders.sort_by(|a, b| a.owner.cmp(&b.owner));
        holders
    }

    /// The state of a port at `now`; none if it is neither in the pool nor leased.
    pub fn state(&self, port: Port, now: Moment) -> Option<PortState<'_>> {
        if let Some(id) = self.leased.get(&port) {
            let lease = self.leases.get(id).expect("every leased port names a lease that exists");
            let index = lease.ports.iter().position(|held| *held == port);
            let label = index
                .and_then(Label::from_index)
                .expect("a lease has at most as many ports as there are labels");
            return Some(PortState::Leased { lease: id, owner: &lease.owner, label, since: lease.since });
        }
        if !self.contains(port) {
            return None;
        }
        if let Some(blocked) = self.blocked.get(&port) {
            return Some(PortState::Blocked { by: &blocked.by, since: blocked.since });
        }
        let owner = self.remembering.get(&port).and_then(BTreeSet::first);
        let since = self.released.get(&port).copied().unwrap_or_default();
        let until = self.cool_at(since);
        if self.cooling.contains(&(since, port)) && now < until {
            return Some(PortState::Cooling { owner, since, until });
        }
        Some(owner.map_or(PortState::Free, |owner| PortState::Remembered { owner, since }))
    }

    /// Every port of the pool, and every leased one outside it, lowest first, with its state at `now`.
    pub fn ports(&self, now: Moment) -> impl Iterator<Item = (Port, PortState<'_>)> {
        let outside = self.leased.keys().copied().filter(|port| !self.contains(*port));
        let mut ports: Vec<Port> =
            self.spec.range.ports().filter(|port| self.contains(*port)).chain(outside).collect();
        ports.sort_unstable();
        ports.into_iter().filter_map(move |port| Some((port, self.state(port, now)?)))
    }

    /// How many ports of the pool are in each state at `now`. Leased ports outside the pool are counted as leased.
    pub fn counts(&self, now: Moment) -> Counts {
        let mut counts = Counts::default();
        for (_, state) in self.ports(now) {
            let count = match state {
                PortState::Free => &mut counts.free,
                PortState::Leased { .. } => &mut counts.leased,
                PortState::Remembered { .. } => &mut counts.remembered,
                PortState::Cooling { .. } => &mut counts.cooling,
                PortState::Blocked { .. } => &mut counts.blocked,
            };
            *count += 1;
        }
        counts
    }

    /// How many ports can be handed out.
    fn available(&self) -> usize {
        self.fresh.len() + self.used.len()
    }

    fn take(&mut self, port: Port, lease: &LeaseId) {
        let before = self.leased.insert(port, lease.clone());
        assert!(before.is_none(), "BUG: port {port} was given to {lease} while {before:?} had it");
        self.reindex(port);
    }

    fn note_release(&mut self, port: Port, now: Moment) {
        if let Some(before) = self.released.insert(port, now) {
            self.cooling.remove(&(before, port));
            self.used.remove(&(before, port));
        }
        if self.spec.cool_down > 0 {
            self.cooling.insert((now, port));
        }
    }

    fn cool_at(&self, released: Moment) -> Moment {
        Moment(released.0.saturating_add(self.spec.cool_down))
    }

    /// Ends the cooling of the ports whose time is over. Where the clock was set back behind a release, that port
    /// cools from now on, so that a wrong clock cannot hold it for longer than the cool-down.
    fn cool_off(&mut self, now: Moment) {
        while let Some((released, port)) =
            self.cooling.last().copied().filter(|(released, _)| *released > now)
        {
            self.cooling.remove(&(released, port));
            self.used.remove(&(released, port));
            self.released.insert(port, now);
            self.cooling.insert((now, port));
            self.reindex(port);
        }
        while let Some((released, port)) = self.cooling.first().copied() {
            if self.cool_at(released) > now {
                break;
            }
            self.cooling.remove(&(released, port));
            self.reindex(port);
        }
    }

    /// Puts `port` into the index where the facts say that it belongs, and drops facts that no one needs any more.
    fn reindex(&mut self, port: Port) {
        self.changed.insert(port);
        let released = self.released.get(&port).copied();
        self.fresh.remove(port);
        if let Some(released) = released {
            self.used.remove(&(released, port));
        }
        let cooling = released.is_some_and(|released| self.cooling.contains(&(released, port)));
        let has_history = cooling || self.remembering.contains_key(&port);
        if !has_history {
            self.released.remove(&port);
        }
        if !self.can_be_leased(port) {
            return;
        }
        match released {
            Some(released) if has_history => {
                self.used.insert((released, port));
            }
            _ => {
                self.fresh.insert(port);
            }
        }
    }

    fn exhausted(&self, requested: usize, available: usize) -> Exhausted {
        let in_pool = |(port, by): (Port, &str)| self.contains(port).then(|| (port, by.to_owned()));
        Exhausted {
            requested,
            available,
            size: self.size,
            range: self.spec.range,
            holders: self.holders(),
            blocked: self.blocked().filter_map(in_pool).collect(),
        }
    }
}
