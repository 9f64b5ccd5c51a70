//! Asks the kernel whether a port is free on this host.
//!
//! A probe sees only what holds a socket. It binds with `SO_REUSEADDR` *and listens*, as the engines do: a bind alone
//! succeeds beside another socket that is bound but does not listen, and without the option a closed server's
//! `TIME_WAIT` looks busy. Both families are tried on their wildcard address, which on Linux clashes with a listener on any address
//! of the host. What is published by packet rules alone is not seen; the engine has the last word.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use pool::Port;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

/// Where it is tried. On systems that come from BSD a listener on one address leaves the wildcard to others that ask for it with
/// `SO_REUSEADDR` (setsockopt(2) of macOS), so there the addresses on which dev servers listen are tried too.
const ADDRESSES: &[IpAddr] = if cfg!(target_os = "linux") {
    &[IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
} else {
    &[
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ]
};

/// Whether some socket of this host has `port`. What cannot be told (no right to bind it, no such family) counts as free; but not if
/// that is for want of descriptors or memory, for then nothing would be seen of any port.
pub(crate) fn is_busy(port: Port) -> bool {
    let is_it = |error: Errno| {
        [Errno::ADDRINUSE, Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].contains(&error)
    };
    ADDRESSES.iter().any(|address| listen_once(SocketAddr::new(*address, port.get())).is_err_and(is_it))
}

fn listen_once(address: SocketAddr) -> Result<(), Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, 1)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn check(listener: &TcpListener) {
        let port = Port::new(listener.local_addr().unwrap().port()).unwrap();
        assert!(is_busy(port), "{port} is held");
    }

    #[test]
    fn listeners_are_seen_on_every_address_and_family() {
        check(&TcpListener::bind("127.0.0.1:0").unwrap());
        check(&TcpListener::bind("0.0.0.0:0").unwrap());
        check(&TcpListener::bind("127.0.0.9:0").unwrap());
        if let Ok(listener) = TcpListener::bind("[::1]:0") {
            check(&listener);
        }
    }

    #[test]
    fn a_closed_port_is_free_again_also_with_a_connection_in_time_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        // The server closes first, so its side is the one that waits.
        drop((server, listener));
        drop(client);
        assert!(!is_busy(Port::new(address.port()).unwrap()));
    }
}
