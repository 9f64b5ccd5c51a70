//! The body of an answer, with the connection over which it comes until it has been read.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::http::Response;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::connections::Connections;
use crate::reach::Reach;

/// A connection to a server.
pub(super) trait Link: Unpin + Send + Sized + 'static {
    /// Reads and writes what can be, where whoever reads an answer has to.
    fn drive(&mut self, context: &mut Context<'_>);

    /// Has `home` keep it for the next request to the same server: an answer has been read to its end.
    fn bring_back(self, home: &Arc<Connections>, to: Reach, context: &mut Context<'_>);
}

/// The body of an answer. Whoever reads it drives the connection.
pub(super) struct Answer<L> {
    body: Incoming,
    link: Option<L>,
    home: Arc<Connections>,
    to: Reach,
}

/// The answer that came over `link`, which is kept at once if that is all.
pub(super) async fn over<L: Link>(
    link: L,
    response: Response<Incoming>,
    home: Arc<Connections>,
    to: Reach,
) -> Response<Answer<L>> {
    let mut response = response.map(|body| Answer { body, link: Some(link), home, to });
    if response.body().is_end_stream() {
        poll_fn(|context| {
            response.body_mut().bring_back(context);
            Poll::Ready(())
        })
        .await;
    }
    response
}

impl<L: Link> Answer<L> {
    fn bring_back(&mut self, context: &mut Context<'_>) {
        if let Some(link) = self.link.take() {
            link.bring_back(&self.home, self.to, context);
        }
    }
}

impl<L: Link> Body for Answer<L> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let mut polled = Pin::new(&mut this.body).poll_frame(context);
        if polled.is_pending()
            && let Some(link) = &mut this.link
        {
            // Nothing is read before someone asks for it, which has just been done.
            link.drive(context);
            polled = Pin::new(&mut this.body).poll_frame(context);
        }
        let frame = ready!(polled);
        if frame.is_none() || this.body.is_end_stream() {
            this.bring_back(context);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
