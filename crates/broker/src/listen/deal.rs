//! Takes connections, no more than there may be, and deals them out in turn to those who serve them, each a thread of its own: left to
//! themselves, the first of them to wake takes all that come at once.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::Listener;
use crate::places::{Place, Places};

/// How many connections may wait for the thread that is to serve them.
const WAITING: usize = 64;
/// How long no connections are taken when the system has nothing left to take them with.
const PAUSE: Duration = Duration::from_millis(200);
/// How often it is said at the most that there are as many connections as there may be.
const TOLD: Duration = Duration::from_secs(60);

/// When a client's system is asked whether it still has the connection: after this time without a word, then this often, and this many
/// times in vain.
const ASKED: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);
/// A connection that no runtime has to do with yet.
pub(super) struct Taken {
    pub(super) stream: std::net::TcpStream,
    pub(super) peer: IpAddr,
    pub(super) place: Place,
}

/// A share of the connections, for whoever serves them.
pub(crate) struct Share {
    /// Sent by [`deal`], which ends with the broker; the bound is short, as what waits here could wait in the kernel.
    pub(super) dealt: Receiver<Taken>,
    pub(super) tls: Option<TlsAcceptor>,
}

impl Listener {
    /// As many shares as `count`, and what deals the connections out to them, `limit` at a time, for as long as there are any.
    pub(crate) fn shared(self, count: usize, limit: usize) -> (Vec<Share>, impl Future<Output = ()>) {
        let (senders, shares) = (0..count)
            .map(|_| {
                let (sender, dealt) = channel(WAITING);
                (sender, Share { dealt, tls: self.tls.clone() })
            })
            .unzip();
        (shares, deal(self.tcp, self.twin, senders, limit))
    }
}

async fn deal(tcp: TcpListener, twin: Option<TcpListener>, shares: Vec<Sender<Taken>>, limit: usize) {
    let places = Places::new(limit);
    let mut told: Option<Instant> = None;
    for share in shares.iter().cycle() {
        let place = match places.take() {
            Some(place) => place,
            None => {
                if told.is_none_or(|told| told.elapsed() >= TOLD) {
                    told = Some(Instant::now());
                    tracing::warn!(
                        limit,
                        "there are as many connections to `listen` as the limit of open files allows (`ulimit -n`, LimitNOFILE); others wait"
                    );
                }
                let Some(place) = places.wait().await else { return };
                place
            }
        };
        let (stream, peer) = accepted(&tcp, twin.as_ref()).await;
        // Whoever serves them ends with the broker, and so does this.
        if share.send(Taken { stream, peer, place }).await.is_err() {
            return;
        }
    }
}

async fn accepted(tcp: &TcpListener, twin: Option<&TcpListener>) -> (std::net::TcpStream, IpAddr) {
    let next = || async {
        let Some(twin) = twin else { return tcp.accept().await };
        // Taking one is cancel-safe.
        tokio::select! {
            taken = tcp.accept() => taken,
            taken = twin.accept() => taken,
        }
    };
    loop {
        let taken = match next().await {
            Ok((stream, peer)) => {
                // What cannot be had only costs time.
                if let Err(error) = set_options(&stream) {
                    tracing::debug!(%error, "a connection is as the system has it");
                }
                stream.into_std().map(|stream| (stream, peer))
            }
            Err(error) => Err(error),
        };
        match taken {
            Ok((stream, peer)) => return (stream, SocketAddr::ip(&peer).to_canonical()),
            Err(error) => {
                // accept(2): those of one connection pass, the others need time.
                tracing::debug!(%error, "a connection was not taken");
                if error.kind() != io::ErrorKind::ConnectionAborted
                    && error.kind() != io::ErrorKind::ConnectionReset
                {
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    // What is small is not to wait for more.
    stream.set_nodelay(true)?;
    sockopt::set_tcp_keepidle(stream, ASKED.0)?;
    sockopt::set_tcp_keepintvl(stream, ASKED.1)?;
    sockopt::set_tcp_keepcnt(stream, ASKED.2)?;
    sockopt::set_socket_keepalive(stream, true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use settings::Listen;

    use super::*;

    #[tokio::test]
    async fn clients_that_vanish_are_noticed() {
        let listen = Listen::Address("127.0.0.1:0".parse().unwrap());
        let listener = Listener::bind(listen, None).await.unwrap().unwrap();
        let address = listener.address().socket;
        let (mut shares, dealing) = listener.shared(1, 1);
        tokio::spawn(dealing);
        let _client = TcpStream::connect(address).await.unwrap();
        let taken = shares[0].dealt.recv().await.unwrap();
        assert!(taken.stream.nodelay().unwrap() && sockopt::socket_keepalive(&taken.stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&taken.stream).unwrap(), ASKED.0);
    }
}
