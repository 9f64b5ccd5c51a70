//! A connection to a server that is sent a body.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::places::Placed;

/// A connection to a server. One that takes no more of a request may have answered it already: what is written then is lost, and what
/// there is to read tells what became of it.
pub(super) struct Server(pub(super) TokioIo<Placed<TcpStream>>);

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
