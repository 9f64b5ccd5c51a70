//! Where the broker listens, and binding it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use settings::Listen;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

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

    /// The URL of the page, under the name that the host has for people if there is one.
    pub(crate) fn page_url(&self, host: Option<&pool::HostUrl>) -> String {
        let (ip, port) = (self.socket.ip(), self.socket.port());
        let host = match host {
            // The certificate is one for this name.
            Some(host) if self.is_tls => {
                host.to_string().split_once("://").map_or_else(String::new, |(_, host)| host.to_owned())
            }
            // `localhost` and not the address: cookies and previews are then of one family of names.
            _ if ip.is_loopback() || ip.is_unspecified() => "localhost".to_owned(),
            _ if ip.is_ipv6() => format!("[{ip}]"),
            _ => ip.to_string(),
        };
        format!("{}://{host}:{port}", self.scheme())
    }
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("the address {address} of `server.broker.listen` cannot be listened on")]
pub(crate) struct ListenError {
    address: SocketAddr,
    pub(crate) source: io::Error,
}

/// Takes connections.
pub(crate) struct Listener {
    pub(super) tcp: TcpListener,
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
        let bind = |address: SocketAddr| async move {
            let failed = |source| ListenError { address, source };
            let tcp = TcpListener::bind(address).await.map_err(failed)?;
            let socket = tcp.local_addr().map_err(failed)?;
            Ok((tcp, socket))
        };
        let (tcp, socket) = match wanted {
            Listen::None => return Ok(None),
            Listen::Address(address) => bind(address).await?,
            Listen::Default => match bind(at(USUAL_PORT)).await {
                Ok(bound) => bound,
                Err(_) => {
                    let (tcp, socket) = bind(at(0)).await?;
                    let port = socket.port();
                    tracing::info!(port, "port {USUAL_PORT} is taken, so the API listens on another one");
                    (tcp, socket)
                }
            },
        };
        let address = Address { socket, is_tls: tls.is_some() };
        Ok(Some(Self { tcp, address, tls }))
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_under_a_name() {
        let check = |socket: &str, is_tls, host: Option<&str>| {
            let host = host.map(|host| host.parse().unwrap());
            Address { socket: socket.parse().unwrap(), is_tls }.page_url(host.as_ref())
        };
        assert_eq!(check("127.0.0.1:9800", false, None), "http://localhost:9800");
        assert_eq!(check("[::1]:9800", false, Some("http://box.example")), "http://localhost:9800");
        assert_eq!(check("0.0.0.0:9800", false, None), "http://localhost:9800");
        assert_eq!(check("192.0.2.7:9800", false, None), "http://192.0.2.7:9800");
        assert_eq!(check("0.0.0.0:443", true, Some("https://box.example")), "https://box.example:443");
        assert_eq!(check("[2001:db8::1]:443", true, None), "https://[2001:db8::1]:443");
    }
}
