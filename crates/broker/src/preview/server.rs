//! Connects the client for requests with a body to agents' servers.

use std::io;
use std::task::{Context, Poll};

use axum::http::Uri;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::CONNECTING;
use crate::reach::Reach;

/// Connects to what a URI has as its authority, which is that of a [`Reach`].
#[derive(Clone)]
pub(super) struct Server;

impl Service<Uri> for Server {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        async move {
            let named = uri.authority().and_then(|authority| Reach::from_authority(authority.as_str()));
            let reach = named.ok_or(io::ErrorKind::InvalidInput)?;
            let stream = timeout(CONNECTING, reach.connect()).await??;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        }
        .boxed()
    }
}
