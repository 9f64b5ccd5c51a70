//! The address on which browsers, and clients with the token, reach the broker: binding it, and taking connections on it, in plain
//! or over TLS.
//!
//! Connections are dealt out in turn to those who serve them, each a thread of its own: left to themselves, the first of them to wake
//! takes all that come at once.
//!
//! A TLS handshake takes as long as its client likes, so each is made beside the others, and what does not come to its end in time is
//! cut. What speaks HTTP/2 says so in the handshake (ALPN, RFC 7301); without TLS it begins with the words for that.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use settings::Listen;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

/// The port of the API where the settings name none and it is free.
const USUAL_PORT: u16 = 9800;
/// How long a client may take for its handshake, and how many of one share may be in the middle of one.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HANDSHAKES: usize = 512;
/// How many connections may wait for the thread that is to serve them.
const WAITING: usize = 64;
/// How long no connections are taken when the system has nothing left to take them with.
const PAUSE: Duration = Duration::from_millis(200);

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
    tcp: TcpListener,
    address: Address,
    tls: Option<TlsAcceptor>,
}

/// A connection that no runtime has to do with yet.
type Taken = (std::net::TcpStream, SocketAddr);

/// A share of the connections, for whoever serves them.
pub(crate) struct Share {
    dealt: Receiver<Taken>,
    address: Address,
    tls: Option<TlsAcceptor>,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
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

    /// As many shares as `count`, and what deals the connections out to them for as long as there are any.
    pub(crate) fn shared(self, count: usize) -> (Vec<Share>, impl Future<Output = ()>) {
        let (senders, shares) = (0..count)
            .map(|_| {
                let (sender, dealt) = channel(WAITING);
                let (address, tls) = (self.address.clone(), self.tls.clone());
                (sender, Share { dealt, address, tls, handshakes: JoinSet::new() })
            })
            .unzip();
        (shares, deal(self.tcp, senders))
    }
}

async fn deal(tcp: TcpListener, mut shares: VecDeque<Sender<Taken>>) {
    loop {
        let taken = match tcp.accept().await {
            // What is small is not to wait for more; that it cannot be had only costs time.
            Ok((stream, peer)) => {
                drop(stream.set_nodelay(true));
                stream.into_std().map(|stream| (stream, peer))
            }
            Err(error) => Err(error),
        };
        let mut taken = match taken {
            Ok(taken) => taken,
            Err(error) => {
                // accept(2): those of one connection pass, the others need time.
                tracing::debug!(%error, "a connection was not taken");
                if error.kind() != io::ErrorKind::ConnectionAborted
                    && error.kind() != io::ErrorKind::ConnectionReset
                {
                    sleep(PAUSE).await;
                }
                continue;
            }
        };
        loop {
            let Some(share) = shares.pop_front() else { return };
            match share.send(taken).await {
                Ok(()) => break shares.push_back(share),
                // Nobody serves this one any more.
                Err(refused) => taken = refused.0,
            }
        }
    }
}

impl axum::serve::Listener for Share {
    type Io = Either<TcpStream, TlsStream<TcpStream>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // Both are safe to be cancelled: a connection that is not taken yet stays queued, a handshake goes on in its task.
            tokio::select! {
                Some(made) = self.handshakes.join_next(), if !self.handshakes.is_empty() => {
                    if let Ok(Some((stream, peer))) = made {
                        return (Either::Right(stream), peer);
                    }
                }
                Some((stream, peer)) = self.dealt.recv(), if self.handshakes.len() < HANDSHAKES => {
                    let stream = match TcpStream::from_std(stream) {
                        Ok(stream) => stream,
                        Err(error) => {
                            tracing::debug!(%error, "a connection was lost");
                            continue;
                        }
                    };
                    let Some(tls) = &self.tls else { return (Either::Left(stream), peer) };
                    let handshake = tls.accept(stream);
                    self.handshakes.spawn(async move {
                        let stream = timeout(HANDSHAKE, handshake).await.ok()?.ok()?;
                        Some((stream, peer))
                    });
                }
                // No more are dealt, and the broker is about to end.
                else => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address.socket)
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
