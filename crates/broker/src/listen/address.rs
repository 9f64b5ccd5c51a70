//! Where the broker listens, and binding it.
//!
//! Browsers look for `localhost` at `::1` first. Whoever listens there, on the port of a broker that does not, is the origin of its page and
//! is handed the links that sign in. So a broker of the IPv4 loopback has that address too, where the host has it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use settings::Listen;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// How often another port is tried that is free on both loopback addresses.
const TRIES: usize = 16;
/// The port of the API where the settings name none and it is free.
const USUAL_PORT: u16 = 9800;

/// Where the broker listens, as others write it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Address {
    pub(crate) socket: SocketAddr,
    pub(crate) is_tls: bool,
}

impl Address {
    /// The URL of the API.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme(), self.socket)
    }

    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// Whether browsers of this host reach it as `localhost`.
    pub(crate) fn is_on_localhost(&self) -> bool {
        is_localhost(self.socket.ip()) || self.socket.ip().is_unspecified()
    }

    /// The URL of the page, under the name that the host has for people if there is one.
    pub(crate) fn page_url(&self, host: Option<&pool::HostUrl>) -> String {
        let (ip, port) = (self.socket.ip(), self.socket.port());
        let host = match host {
            // The certificate is one for this name.
            Some(host) if self.is_tls => {
                host.to_string().split_once("://").map_or_else(String::new, |(_, host)| host.to_owned())
            }
            // `localhost` and not the address: cookies and previews are then of one family of names.
            _ if self.is_on_localhost() => "localhost".to_owned(),
            _ if ip.is_ipv6() => format!("[{ip}]"),
            _ => ip.to_string(),
        };
        format!("{}://{host}:{port}", self.scheme())
    }
}

/// Whether browsers mean this address by `localhost`.
fn is_localhost(ip: IpAddr) -> bool {
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].contains(&ip)
}

/// The address, or the one that goes with it, cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("the address {address} of `server.broker.listen` cannot be listened on{}", with(*twin))]
pub(crate) struct ListenError {
    address: SocketAddr,
    twin: Option<SocketAddr>,
    pub(crate) source: io::Error,
}

fn with(twin: Option<SocketAddr>) -> String {
    twin.map_or_else(String::new, |twin| {
        format!(" without {twin}, where browsers look for `localhost` first")
    })
}

/// Takes connections.
pub(crate) struct Listener {
    pub(super) tcp: TcpListener,
    /// The same port of the IPv6 loopback, if people are led there by `localhost` and the first does not have it.
    pub(super) twin: Option<TcpListener>,
    address: Address,
    pub(super) tls: Option<TlsAcceptor>,
}

impl Listener {
    /// Binds what the settings want; none if that is nothing.
    ///
    /// # Errors
    /// [`ListenError`] if a fixed address is taken, or nothing at all can be bound.
    pub(crate) async fn bind(wanted: Listen, tls: Option<TlsAcceptor>) -> Result<Option<Self>, ListenError> {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (tcp, twin, socket) = match wanted {
            Listen::None => return Ok(None),
            Listen::Address(address) => both(address).await?,
            Listen::Default => match both(at(USUAL_PORT)).await {
                Ok(bound) => bound,
                Err(_) => {
                    let bound = both(at(0)).await?;
                    let port = bound.2.port();
                    tracing::info!(port, "port {USUAL_PORT} is taken, so the API listens on another one");
                    bound
                }
            },
        };
        let address = Address { socket, is_tls: tls.is_some() };
        Ok(Some(Self { tcp, twin, address, tls }))
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }
}

/// Binds the address, and its twin if it has one. With any port, one that both have free.
async fn both(address: SocketAddr) -> Result<(TcpListener, Option<TcpListener>, SocketAddr), ListenError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let failed = |twin| move |source| ListenError { address, twin, source };
        let tcp = TcpListener::bind(address).await.map_err(failed(None))?;
        let socket = tcp.local_addr().map_err(failed(None))?;
        let has_twin = socket.is_ipv4() && (is_localhost(socket.ip()) || socket.ip().is_unspecified());
        if !has_twin {
            return Ok((tcp, None, socket));
        }
        let twin = SocketAddr::from((Ipv6Addr::LOCALHOST, socket.port()));
        match TcpListener::bind(twin).await {
            Ok(listener) => return Ok((tcp, Some(listener), socket)),
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && (address.port() != 0 || tries == TRIES) =>
            {
                return Err(failed(Some(twin))(error));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            // The host has no IPv6, or no such address of it, so nobody else has that either.
            Err(error) => {
                tracing::debug!(%error, "nothing listens at {twin}");
                return Ok((tcp, None, socket));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Browsers go to `::1` first when they are led to `localhost`: nobody else may be met there.
    #[tokio::test]
    async fn the_name_leads_to_the_broker_on_both_loopback_addresses() {
        let any = Listen::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let listener = Listener::bind(any, None).await.unwrap().unwrap();
        let port = listener.address().socket.port();
        if listener.twin.is_none() {
            assert!(
                std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err(),
                "there is an IPv6 loopback"
            );
            return;
        }
        assert!(std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_err(), "another can have it");
        drop(listener);
        let _squatter = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, port)).unwrap();
        let fixed = Listen::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let Err(refused) = Listener::bind(fixed, None).await else { panic!("it is bound") };
        assert_eq!(refused.twin, Some(SocketAddr::from((Ipv6Addr::LOCALHOST, port))));
        let told = format!(
            "the address 127.0.0.1:{port} of `server.broker.listen` cannot be listened on without [::1]:{port}, where browsers look for \
             `localhost` first"
        );
        assert_eq!(refused.to_string(), told);
    }

    #[test]
    fn the_page_is_under_a_name() {
        let check = |socket: &str, is_tls, host: Option<&str>| {
            let host = host.map(|host| host.parse().unwrap());
            Address { socket: socket.parse().unwrap(), is_tls }.page_url(host.as_ref())
        };
        assert_eq!(check("127.0.0.1:9800", false, None), "http://localhost:9800");
        assert_eq!(check("[::1]:9800", false, Some("http://box.example")), "http://localhost:9800");
        assert_eq!(check("0.0.0.0:9800", false, None), "http://localhost:9800");
        assert_eq!(check("127.0.0.2:9800", false, None), "http://127.0.0.2:9800");
        assert_eq!(check("192.0.2.7:9800", false, None), "http://192.0.2.7:9800");
        assert_eq!(check("0.0.0.0:443", true, Some("https://box.example")), "https://box.example:443");
        assert_eq!(check("[2001:db8::1]:443", true, None), "https://[2001:db8::1]:443");
    }
}
