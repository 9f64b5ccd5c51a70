//! Keeps idle ports of the pool from being taken by accident.
//!
//! A *guard* is a TCP socket that is bound to a port and does not listen. While it is there, the kernel passes the port over when it
//! chooses the source of an outgoing connection, and for a bind to port 0. With `SO_REUSEADDR` on both sides it does not
//! stand in the way of a server that wants just this port: Docker and Podman publish guarded ports, and every probe sees through
//! it. Only a server without that option is refused. (Linux 5 and 6; the kernel's `inet_csk_get_port` and
//! `__inet_hash_connect` are where it is decided. Elsewhere this was not tried, so the settings have it off there.)
//!
//! One socket of the IPv6 wildcard that takes IPv4 too guards a port for both. The guards follow the pool: whatever lets go of the
//! state's lock brings them up to date (see `Core::state`), so a port loses its guard before anyone is told that it is leased, and
//! gets it back with the end of the lease.
//!
//! **Limits.** A guard does not keep a server away that asks for the port by number and has `SO_REUSEADDR`, and nothing sees UDP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use pool::{Port, PortPool};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

/// The guards of a pool.
#[derive(Default)]
pub(crate) struct Guards {
    sockets: BTreeMap<Port, OwnedFd>,
    /// The idle ports that could not be guarded, because someone had them at that moment or there were as many guards as there may be.
    unguarded: BTreeSet<Port>,
    /// How many there may be at the most.
    limit: usize,
}

impl Guards {
    /// Guards for as many ports as `limit`. None is guarded yet.
    pub(crate) fn up_to(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// How many ports can be guarded.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Guards what has become idle in the pool since this was called last, and lets go of what has not stayed so.
    pub(crate) fn follow(&mut self, pool: &mut PortPool) {
        while let Some(port) = pool.next_changed() {
            self.unguarded.remove(&port);
            if !pool.can_be_leased(port) {
                self.sockets.remove(&port);
            } else if !self.sockets.contains_key(&port) {
                self.guard(port);
            }
        }
    }

    /// Tries again what could not be guarded. Who had the port may have let go of it without the pool having changed.
    pub(crate) fn retry(&mut self, pool: &PortPool) {
        let mut waiting = std::mem::take(&mut self.unguarded);
        while self.sockets.len() < self.limit
            && let Some(port) = waiting.pop_first()
        {
            if pool.can_be_leased(port) {
                self.guard(port);
            }
        }
        self.unguarded.append(&mut waiting);
    }

    fn guard(&mut self, port: Port) {
        if self.sockets.len() >= self.limit {
            self.unguarded.insert(port);
            return;
        }
        match guard(port.get()) {
            Ok(socket) => drop(self.sockets.insert(port, socket)),
            // What someone has already needs no guard, and cannot have one.
            Err(_) => drop(self.unguarded.insert(port)),
        }
    }
}

fn guard(port: u16) -> Result<OwnedFd, Errno> {
    let of = |family| socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (socket, address) = match of(AddressFamily::INET6) {
        Ok(socket) => {
            sockopt::set_ipv6_v6only(&socket, false)?;
            (socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        }
        Err(_) => (of(AddressFamily::INET)?, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
    };
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    Ok(socket)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use pool::{AgentKey, LeaseId, Moment, Owner, PoolSpec, PortRange};

    use super::*;
    use crate::probe;

    /// A pool of one port that is free.
    fn pool() -> (PortPool, Port) {
        let port = TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
        let port = Port::new(port).unwrap();
        (PortPool::new(PoolSpec { range: PortRange::single(port), exclude: Vec::new(), cool_down: 0 }), port)
    }

    /// Whether a socket that is bound like that, without `SO_REUSEADDR`, finds the port taken: then something is bound to it.
    fn is_guarded(port: Port) -> bool {
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port.get()))) == Err(Errno::ADDRINUSE)
    }

    #[test]
    fn a_port_is_guarded_while_it_is_idle() {
        let (mut pool, port) = pool();
        let mut guards = Guards::up_to(1);
        guards.follow(&mut pool);
        assert!(is_guarded(port), "a fresh port");
        let owner = Owner::Agent("default/dev".parse::<AgentKey>().unwrap());
        pool.allocate(LeaseId::new("one"), owner, 1, Moment(0)).unwrap();
        guards.follow(&mut pool);
        assert!(!is_guarded(port), "leased");
        pool.release(&LeaseId::new("one"), Moment(1), true);
        guards.follow(&mut pool);
        assert!(is_guarded(port), "remembered");
        pool.block(port, "someone", Moment(2));
        guards.follow(&mut pool);
        assert!(!is_guarded(port), "blocked");
    }

    #[test]
    fn a_guard_is_in_nobodys_way_who_asks_for_the_port() {
        let (mut pool, port) = pool();
        let mut guards = Guards::up_to(1);
        guards.follow(&mut pool);
        assert!(!probe::is_busy(port), "a probe sees through it");
        for address in ["127.0.0.1", "0.0.0.0", "[::1]", "[::]"] {
            // The standard library sets SO_REUSEADDR, as the engines do.
            TcpListener::bind(format!("{address}:{port}")).unwrap();
            UdpSocket::bind(format!("{address}:{port}")).unwrap();
        }
    }

    #[test]
    fn what_could_not_be_guarded_is_tried_again() {
        let (mut pool, port) = pool();
        let mut guards = Guards::up_to(1);
        let family = AddressFamily::INET;
        let holder = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        bind(&holder, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.get()))).unwrap();
        guards.follow(&mut pool);
        drop(holder);
        guards.follow(&mut pool);
        assert!(!is_guarded(port), "the pool has not changed");
        guards.retry(&pool);
        assert!(is_guarded(port));
    }

    #[test]
    fn a_port_has_the_guard_that_another_needs_no_more() {
        let (mut pool, port) = pool();
        let mut guards = Guards::up_to(1);
        let far = Port::new(1).unwrap();
        guards.sockets.insert(
            far,
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap(),
        );
        guards.follow(&mut pool);
        assert!(!is_guarded(port), "there is one already");
        guards.sockets.remove(&far);
        guards.retry(&pool);
        assert!(is_guarded(port));
    }

    #[test]
    fn there_are_no_more_guards_than_there_may_be() {
        let (mut pool, port) = pool();
        let mut guards = Guards::up_to(0);
        guards.follow(&mut pool);
        assert!(!is_guarded(port));
    }
}
