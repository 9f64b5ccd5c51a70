//! Takes connections, no more than there may be, and deals them out in turn to those who serve them, each a thread of its own: left to
//! themselves, the first of them to wake takes all that come at once.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::Listener;

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
    pub(super) place: OwnedSemaphorePermit,
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
    let places = Arc::new(Semaphore::new(limit));
    let mut told: Option<Instant> = None;
    for share in shares.iter().cycle() {
        if places.available_permits() == 0 && told.is_none_or(|told| told.elapsed() >= TOLD) {
            told = Some(Instant::now());
            tracing::warn!(
                limit,
                "there are as many connections to `listen` as the limit of open files allows (`ulimit -n`, LimitNOFILE); others wait"
            );
        }
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
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

/// A connection with its place among those that there may be, also where it has become something else than HTTP.
pub(super) struct Placed<T> {
    pub(super) stream: T,
    pub(super) _place: OwnedSemaphorePermit,
}

impl<T: AsyncRead + Unpin> AsyncRead for Placed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Placed<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
