//! Takes connections, no more than there may be, and deals them out in turn to those who serve them, each a thread of its own: left to
//! themselves, the first of them to wake takes all that come at once.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
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
        (shares, deal(self.tcp, senders, limit))
    }
}

async fn deal(tcp: TcpListener, shares: Vec<Sender<Taken>>, limit: usize) {
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
        let (stream, peer) = accepted(&tcp).await;
        // Whoever serves them ends with the broker, and so does this.
        if share.send(Taken { stream, peer, place }).await.is_err() {
            return;
        }
    }
}

async fn accepted(tcp: &TcpListener) -> (std::net::TcpStream, IpAddr) {
    loop {
        let taken = match tcp.accept().await {
            // What is small is not to wait for more; that it cannot be had only costs time.
            Ok((stream, peer)) => {
                drop(stream.set_nodelay(true));
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
