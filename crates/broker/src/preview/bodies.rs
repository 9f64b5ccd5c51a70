//! Asks agents' servers with a body, or for what becomes something else than HTTP: the two directions of such a connection go on
//! independently of each other, so a task of its own drives it.
//!
//! The task ends with whoever waits for the answer or reads it: a server that takes no more of a body would else keep the connection
//! after its client is gone.

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::HEADERS;
use super::answer::{self, Answer};
use super::connections::{Connections, connect};
use super::server::Server;
use super::trouble::Trouble;
use crate::places::Place;
use crate::reach::Reach;

/// How long a server may take the rest of a body once all of its answer has been read.
const REST: Duration = Duration::from_secs(60);

/// A connection: one end to send requests, and the task that reads and writes, which ends with this.
pub(super) struct Driven {
    sender: SendRequest<Body>,
    /// Whether it was made for what becomes something else, and is of no use for bodies.
    becomes_other: bool,
    _task: AbortOnDropHandle<()>,
}

impl Driven {
    async fn connect(to: Reach, place: Place, becomes_other: bool) -> Result<Self, Trouble> {
        let stream = TokioIo::new(connect(to, place).await?);
        let mut builder = Builder::new();
        builder.max_headers(HEADERS);
        if becomes_other {
            // What is written to it then, and lost, is to be known.
            let (sender, connection) = builder.handshake(stream).await?;
            let task = tokio::spawn(async { drop(connection.with_upgrades().await) });
            return Ok(Self { sender, becomes_other, _task: AbortOnDropHandle::new(task) });
        }
        let (sender, connection) = builder.handshake(Server(stream)).await?;
        let task = tokio::spawn(async { drop(connection.await) });
        Ok(Self { sender, becomes_other, _task: AbortOnDropHandle::new(task) })
    }
}

impl Connections {
    /// Asks the server at `to`, over a connection that is there or a new one.
    pub(super) async fn ask_with_body(
        self: &Arc<Self>,
        to: Reach,
        mut request: Request<Body>,
        becomes_other: bool,
    ) -> Result<Response<Answer<Driven>>, Trouble> {
        loop {
            let kept = if becomes_other { None } else { self.take_driven(to) };
            let is_kept = kept.is_some();
            let mut link = match kept {
                Some(link) => link,
                None => Driven::connect(to, self.place().await?, becomes_other).await?,
            };
            match link.sender.try_send_request(request).await {
                Ok(response) => return Ok(answer::over(link, response, Arc::clone(self), to).await),
                // The server may close a connection that nobody uses.
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) if is_kept => request = unsent,
                    _ => return Err(refused.into_error().into()),
                },
            }
        }
    }

    /// One that is open, as far as is known.
    fn take_driven(&self, to: Reach) -> Option<Driven> {
        std::iter::from_fn(|| self.idle().driven.take(to)).find(|link| link.sender.is_ready())
    }
}

impl answer::Link for Driven {
    /// Its task does.
    fn drive(&mut self, _context: &mut Context<'_>) {}

    /// Once all has been sent too.
    fn bring_back(mut self, home: &Arc<Connections>, to: Reach, _context: &mut Context<'_>) {
        let home = Arc::clone(home);
        tokio::spawn(async move {
            if let Ok(Ok(())) = timeout(REST, self.sender.ready()).await
                && !self.becomes_other
            {
                home.keep(|idle| idle.driven.keep(to, self));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::sleep;

    use super::*;
    use crate::places::Places;

    /// More than the buffers of two systems take.
    const LARGE: usize = 64 << 20;

    /// Uploads to a server that has answered so and reads nothing; what comes of it, the server, and the only place that there is.
    async fn upload(
        answered: &str,
    ) -> (impl Future<Output = Result<Response<Answer<Driven>>, Trouble>>, TcpStream, Places) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = Reach::at(listener.local_addr().unwrap());
        let places = Places::new(1);
        let connections = Arc::new(Connections::new(places.clone()));
        let request = Request::put("/").body(Body::from(vec![0; LARGE])).unwrap();
        let mut asked = Box::pin(async move { connections.ask_with_body(to, request, false).await });
        let (mut server, _) = tokio::select! {
            accepted = listener.accept() => accepted.unwrap(),
            _ = &mut asked => panic!("there is no answer before there is a server"),
        };
        server.write_all(answered.as_bytes()).await.unwrap();
        (asked, server, places)
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_nobody_waits_for_any_more_leaves_its_place() {
        let (asked, _server, places) = upload("").await;
        let asked = timeout(10 * REST, asked).await;
        assert!(asked.is_err() && places.take().is_none(), "a server may take as long as it likes");
        drop(asked);
        timeout(REST, places.wait()).await.expect("its place is free");
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_whose_answer_nobody_reads_any_more_leaves_its_place() {
        let (asked, _server, places) = upload("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
        let answer = asked.await.unwrap();
        sleep(10 * REST).await;
        assert!(places.take().is_none(), "its answer goes on");
        drop(answer);
        timeout(REST, places.wait()).await.expect("its place is free");
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_has_been_answered_leaves_its_place_in_the_end() {
        let (asked, _server, places) = upload("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        drop(asked.await.unwrap());
        sleep(REST / 2).await;
        assert!(places.take().is_none(), "the server may take the rest");
        timeout(REST, places.wait()).await.expect("its place is free");
    }
}
