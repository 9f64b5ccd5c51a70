//! What is on `listen`: previews, and under its own names the broker.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tower_service::Service;

use super::Previews;
use crate::host;

/// Makes what answers on each connection.
pub(crate) struct Front(Arc<Behind>);

struct Behind {
    previews: Arc<Previews>,
    broker: Router,
    /// Where what the broker itself is asked for is done: previews do not wait for that.
    runtime: Handle,
}

impl Front {
    /// The broker's part is done on the runtime of whoever calls this.
    pub(crate) fn new(previews: Previews, broker: Router) -> Self {
        Self(Arc::new(Behind { previews: Arc::new(previews), broker, runtime: Handle::current() }))
    }

    /// What answers on a connection of a client at `peer`.
    pub(crate) fn visit(&self, peer: IpAddr) -> Visit {
        Visit { behind: Arc::clone(&self.0), peer }
    }
}

/// What answers on one connection.
pub(crate) struct Visit {
    behind: Arc<Behind>,
    peer: IpAddr,
}

impl hyper::service::Service<hyper::Request<Incoming>> for Visit {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let (behind, request) = (&self.behind, request.map(Body::new));
        match host::named(&request).and_then(|host| behind.previews.meaning(host)) {
            Some(asked) => Answering::Preview(behind.previews.answer(request, asked, self.peer)),
            None => {
                // It ends with the client's wish for it. A router is always ready.
                let answer = behind.runtime.spawn(behind.broker.clone().call(request));
                Answering::Broker(AbortOnDropHandle::new(answer))
            }
        }
    }
}

/// What is on its way to the client.
pub(crate) enum Answering {
    Preview(BoxFuture<'static, Response>),
    Broker(AbortOnDropHandle<Result<Response, Infallible>>),
}

impl Future for Answering {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Preview(answer) => answer.as_mut().poll(context).map(Ok),
            Self::Broker(answer) => Pin::new(answer).poll(context).map(|answer| {
                // Its task has panicked.
                answer.unwrap_or_else(|_| Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response()))
            }),
        }
    }
}
