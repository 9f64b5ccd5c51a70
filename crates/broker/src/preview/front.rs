//! What is on `listen`: previews, and under its own names the broker.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tower_service::Service;

use super::Previews;
use crate::host;
use crate::listen::Share;

/// Makes what answers on each connection.
#[derive(Clone)]
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
}

impl Service<IncomingStream<'_, Share>> for Front {
    type Response = Visit;
    type Error = Infallible;
    type Future = Ready<Result<Visit, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, stream: IncomingStream<'_, Share>) -> Self::Future {
        ready(Ok(Visit { behind: Arc::clone(&self.0), peer: stream.remote_addr().ip().to_canonical() }))
    }
}

/// What answers on one connection.
#[derive(Clone)]
pub(crate) struct Visit {
    behind: Arc<Behind>,
    peer: IpAddr,
}

impl Service<Request> for Visit {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // So is a router always.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let behind = &self.behind;
        match host::named(&request).and_then(|host| behind.previews.meaning(host)) {
            Some(asked) => Answering::Preview(behind.previews.answer(request, asked, self.peer)),
            None => {
                // It ends with the client's wish for it.
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
