//! Who has a port of this host, as far as the kernel tells.
//!
//! Reading the kernel's tables binds nothing, so it can be done for every port again and again. The tables show listeners and
//! connections, also those that are closing and have no process any more, in this network namespace; not sockets that are only
//! bound, and not what is published by packet rules. Of other users' processes only the user can be told, unless the broker
//! runs as root. Systems other than Linux tell nothing.

use std::collections::{BTreeMap, BTreeSet};

use pool::Port;

/// The sockets of this host by their local port.
pub(crate) struct Sockets(imp::Sockets);

impl Sockets {
    /// All that there are now. Blocks: call it where that is allowed.
    pub(crate) fn read() -> Self {
        Self(imp::Sockets::read())
    }

    /// The ports that something has.
    pub(crate) fn ports(&self) -> BTreeSet<Port> {
        self.0.ports()
    }

    /// Who has each of `ports`, for a person; those of which nothing can be told are left out. Blocks: it may have to look at
    /// every process.
    pub(crate) fn holders(&self, ports: &[Port]) -> BTreeMap<Port, String> {
        self.0.holders(ports)
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::collections::{BTreeMap, BTreeSet, HashMap};

    use pool::Port;
    use procfs::net::{TcpNetEntry, TcpState, tcp, tcp6};
    use procfs::process::{FDTarget, all_processes};

    /// The entries of `/proc/net/tcp` and `/proc/net/tcp6`, see proc_pid_net(5).
    pub(super) struct Sockets(Vec<TcpNetEntry>);

    impl Sockets {
        pub(super) fn read() -> Self {
            let mut entries = Vec::new();
            for table in [tcp(), tcp6()] {
                match table {
                    Ok(table) => entries.extend(table),
                    // Without IPv6 there is no second table.
                    Err(error) => tracing::trace!(%error, "a table of sockets cannot be read"),
                }
            }
            Self(entries)
        }

        pub(super) fn ports(&self) -> BTreeSet<Port> {
            self.0.iter().filter_map(|entry| Port::new(entry.local_address.port())).collect()
        }

        pub(super) fn holders(&self, ports: &[Port]) -> BTreeMap<Port, String> {
            let of_port = |port: &Port| {
                let entries = || self.0.iter().filter(|entry| entry.local_address.port() == port.get());
                let listener = entries().find(|entry| entry.state == TcpState::Listen);
                Some((*port, listener.or_else(|| entries().next())?))
            };
            let found: Vec<(Port, &TcpNetEntry)> = ports.iter().filter_map(of_port).collect();
            if found.is_empty() {
                return BTreeMap::new();
            }
            let inodes = found.iter().map(|(_, entry)| entry.inode).filter(|inode| *inode != 0).collect();
            let processes = processes_of(&inodes);
            found
                .into_iter()
                .map(|(port, entry)| (port, describe(entry, processes.get(&entry.inode))))
                .collect()
        }
    }

    /// The processes that have the sockets of these inodes open; of several, the one that was there first by its number.
    fn processes_of(inodes: &BTreeSet<u64>) -> HashMap<u64, String> {
        let mut found: HashMap<u64, (i32, String)> = HashMap::new();
        // A process may end while it is looked at, and those of others may not be looked at.
        for process in all_processes().into_iter().flatten().flatten() {
            let Ok(descriptors) = process.fd() else { continue };
            for descriptor in descriptors.flatten() {
                let FDTarget::Socket(inode) = descriptor.target else { continue };
                let is_first = found.get(&inode).is_none_or(|(pid, _)| process.pid < *pid);
                if inodes.contains(&inode)
                    && is_first
                    && let Ok(stat) = process.stat()
                {
                    found.insert(inode, (process.pid, stat.comm));
                }
            }
        }
        found.into_iter().map(|(inode, (pid, name))| (inode, format!("{name} (pid {pid})"))).collect()
    }

    fn describe(entry: &TcpNetEntry, process: Option<&String>) -> String {
        let remote = entry.remote_address;
        match (&entry.state, process) {
            (TcpState::Listen, Some(process)) => process.clone(),
            (TcpState::Listen, None) => format!("a process of user {}", entry.uid),
            (TcpState::TimeWait, _) => {
                format!("a connection to {remote} that has ended a moment ago (TIME_WAIT)")
            }
            (_, Some(process)) => format!("a connection of {process} to {remote}"),
            (_, None) => format!("a connection to {remote}"),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::collections::{BTreeMap, BTreeSet};

    use pool::Port;

    pub(super) struct Sockets;

    impl Sockets {
        pub(super) fn read() -> Self {
            Self
        }

        #[expect(clippy::unused_self, reason = "the shape is that of Linux")]
        pub(super) fn ports(&self) -> BTreeSet<Port> {
            BTreeSet::new()
        }

        #[expect(clippy::unused_self, reason = "the shape is that of Linux")]
        pub(super) fn holders(&self, _ports: &[Port]) -> BTreeMap<Port, String> {
            BTreeMap::new()
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn port_of(address: std::net::SocketAddr) -> Port {
        Port::new(address.port()).unwrap()
    }

    fn holder(port: Port) -> String {
        let sockets = Sockets::read();
        assert!(sockets.ports().contains(&port), "{port} is in the tables");
        sockets.holders(&[port]).remove(&port).unwrap()
    }

    #[test]
    fn a_listener_is_told_by_its_process() {
        let pid = std::process::id();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let told = holder(port_of(listener.local_addr().unwrap()));
            assert!(told.ends_with(&format!("(pid {pid})")), "{told}");
        }
    }

    /// L9: an outgoing connection has its source port for itself, and nothing listens there.
    #[test]
    fn a_connection_is_told_with_its_other_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = listener.local_addr().unwrap();
        let client = TcpStream::connect(far).unwrap();
        let near = port_of(client.local_addr().unwrap());
        let told = holder(near);
        assert!(told.starts_with("a connection of ") && told.ends_with(&format!("to {far}")), "{told}");
        // Whoever closes first keeps the port for a while, without a process; the last packets may take a moment.
        client.shutdown(std::net::Shutdown::Both).unwrap();
        drop((client, listener.accept().unwrap()));
        let ended = || Some(holder(near)).filter(|told| told.contains("TIME_WAIT"));
        let told = std::iter::repeat_with(ended).take(10_000).flatten().next().unwrap_or_default();
        assert_eq!(told, format!("a connection to {far} that has ended a moment ago (TIME_WAIT)"));
    }
}
