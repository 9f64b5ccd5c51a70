//! Where this host reaches an agent's port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use pool::Port;
use tokio::net::TcpStream;

use crate::model::AgentRecord;
use crate::view::HOST_NETWORK;

/// Where a port of an agent is reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Reach {
    address: SocketAddr,
    /// Whether the agent binds its ports on this host itself. A server that listens on `localhost` may then be on `::1` alone (so are
    /// those of Node.js 17 and later where that name means it first), as a browser finds it.
    is_own: bool,
}

impl Reach {
    /// Where that port of the agent is; `is_here` says that its runtime may publish on this host. None if its ports are not published,
    /// or on some address of another host.
    pub(crate) fn of(record: &AgentRecord, port: Port, is_here: bool) -> Option<Self> {
        let published = record.published.as_deref()?;
        let is_own = published == HOST_NETWORK;
        let named = published.parse().ok().filter(|address: &IpAddr| !address.is_unspecified());
        let address = named.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        if !is_here && address.is_loopback() {
            return None;
        }
        Some(Self { address: SocketAddr::new(address, port.get()), is_own })
    }

    pub(crate) fn port(self) -> u16 {
        self.address.port()
    }

    /// Connects to what listens there.
    pub(crate) async fn connect(self) -> io::Result<TcpStream> {
        match TcpStream::connect(self.address).await {
            Err(refused) if self.is_own && refused.kind() == io::ErrorKind::ConnectionRefused => {
                TcpStream::connect((Ipv6Addr::LOCALHOST, self.port())).await.map_err(|_| refused)
            }
            connected => connected,
        }
    }

    /// Where that listens, for tests.
    #[cfg(test)]
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self { address, is_own: false }
    }
}

#[cfg(test)]
mod tests {
    use pool::AgentKey;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn what_another_host_publishes_is_not_on_this_one() {
        let mut record = AgentRecord::new("default/dev".parse::<AgentKey>().unwrap(), "docker".to_owned());
        let port = Port::new(8000).unwrap();
        let mut check = |published: Option<&str>, is_here, expected: Option<&str>| {
            record.published = published.map(str::to_owned);
            let address = Reach::of(&record, port, is_here).map(|reach| reach.address.to_string());
            assert_eq!(address.as_deref(), expected, "{published:?} {is_here}");
        };
        for published in ["127.0.0.1", "0.0.0.0", HOST_NETWORK] {
            check(Some(published), true, Some("127.0.0.1:8000"));
            check(Some(published), false, None);
        }
        check(Some("192.0.2.7"), false, Some("192.0.2.7:8000"));
        check(None, true, None);
    }

    #[tokio::test]
    async fn a_server_of_the_ipv6_loopback_alone_is_reached_where_the_agent_binds_itself() {
        let Ok(server) = TcpListener::bind("[::1]:0").await else { return };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.local_addr().unwrap().port()));
        Reach { address, is_own: true }.connect().await.unwrap();
        Reach { address, is_own: false }.connect().await.unwrap_err();
        drop(server);
        let error = Reach { address, is_own: true }.connect().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
