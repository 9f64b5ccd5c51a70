//! Connections of which there are no more than there may be: each has a place among them for as long as it is open, whatever it becomes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

/// For how long, and how much, is read from a client that still sends when the connection to it ends.
const LINGERS: (Duration, u64) = (Duration::from_secs(2), 64 << 20);

/// How many connections there may be.
#[derive(Clone)]
pub(crate) struct Places(Arc<Semaphore>);

/// One of them.
pub(crate) type Place = OwnedSemaphorePermit;

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Semaphore::new(limit)))
    }

    /// A place, if there is one.
    pub(crate) fn take(&self) -> Option<Place> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }

    /// A place, as soon as there is one; none if there will be none any more.
    pub(crate) async fn wait(&self) -> Option<Place> {
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

/// A connection in its place.
pub(crate) struct Placed<T: Stream> {
    /// There until it is dropped.
    stream: Option<T>,
    place: Option<Place>,
    lingers: bool,
}

/// What is read from and written to.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The connection that it all goes over.
    fn tcp(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Stream for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

impl<T: Stream> Placed<T> {
    pub(crate) fn new(stream: T, place: Place) -> Self {
        Self { stream: Some(stream), place: Some(place), lingers: false }
    }

    /// A connection to a client. If that still sends when the connection ends, it is listened to for a moment: a system answers what
    /// arrives for a closed connection with a reset, and the client would lose the answer that it has not read yet (RFC 9112, section
    /// 9.6).
    ///
    /// Of a client nothing may be read for long, while an agent takes nothing of what it sends. That its connection is broken is told
    /// when it is flushed, which those do who look after it.
    pub(crate) fn lingering(stream: T, place: Place) -> Self {
        Self { stream: Some(stream), place: Some(place), lingers: true }
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut T> {
        Pin::new(
            self.get_mut().stream.as_mut().expect("the stream is taken when this is dropped, not before"),
        )
    }
}

impl<T: Stream> Drop for Placed<T> {
    fn drop(&mut self) {
        let (Some(mut stream), place) = (self.stream.take(), self.place.take()) else { return };
        if let (true, Ok(runtime)) = (self.lingers, Handle::try_current()) {
            runtime.spawn(async move {
                let _place = place;
                let listened = async {
                    stream.shutdown().await?;
                    tokio::io::copy(&mut stream.take(LINGERS.1), &mut tokio::io::sink()).await
                };
                // What comes is of no interest, nor is why it ends.
                drop(timeout(LINGERS.0, listened).await);
            });
        }
    }
}

impl<T: Stream> AsyncRead for Placed<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, buffer)
    }
}

impl<T: Stream> AsyncWrite for Placed<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(T::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What an agent has said before its connection broke is still to be read.
        let (is_client, stream) = (self.lingers, self.stream());
        if is_client && is_broken(stream.tcp()) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        stream.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}

/// Whether it was reset, or its other end is no longer there. Only what is known is asked for, which costs next to nothing.
fn is_broken(tcp: &TcpStream) -> bool {
    tcp.try_io(Interest::ERROR, || Ok(())).is_ok()
}
