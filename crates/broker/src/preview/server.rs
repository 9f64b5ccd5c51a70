//! Connects the client for requests with a body to agents' servers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::Uri;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::CONNECTING;
use super::connections::Connections;
use super::trouble::Trouble;
use crate::places::Placed;
use crate::reach::Reach;

/// Connects to what a URI has as its authority, which is that of a [`Reach`].
#[derive(Clone)]
pub(super) struct Servers(pub(super) Arc<Connections>);

impl Service<Uri> for Servers {
    type Response = Server;
    type Error = Trouble;
    type Future = BoxFuture<'static, Result<Server, Trouble>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connections = Arc::clone(&self.0);
        async move {
            let named = uri.authority().and_then(|authority| Reach::from_authority(authority.as_str()));
            let reach = named.ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
            let place = connections.place()?;
            let stream = timeout(CONNECTING, reach.connect()).await.map_err(|_| Trouble::Silent)??;
            stream.set_nodelay(true)?;
            Ok(Server(TokioIo::new(Placed::new(stream, place))))
        }
        .boxed()
    }
}

/// A connection to a server. One that takes no more of a request may have answered it already: what is written then is lost, and what
/// there is to read tells what became of it.
pub(super) struct Server(TokioIo<Placed<TcpStream>>);

impl Server {
    fn io(self: Pin<&mut Self>) -> Pin<&mut TokioIo<Placed<TcpStream>>> {
        Pin::new(&mut self.get_mut().0)
    }
}

/// What is written to a connection that its other end has closed is taken as written.
fn even_if_closed(written: Poll<io::Result<usize>>, all: usize) -> Poll<io::Result<usize>> {
    written.map(|written| match written {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Ok(all)
        }
        written => written,
    })
}

impl Read for Server {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.io().poll_read(context, buffer)
    }
}

impl Write for Server {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        even_if_closed(self.io().poll_write(context, bytes), bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = slices.iter().map(|slice| slice.len()).sum();
        even_if_closed(self.io().poll_write_vectored(context, slices), all)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(context)
    }
}

impl Connection for Server {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
