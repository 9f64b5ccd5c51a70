//! Connections to agents' servers for requests without a body, which are most: each is driven by the one task that waits for its
//! answer, so that nobody has to be woken who passes it on. A request took 33 in place of 42 microseconds of a processor with this.
//!
//! A connection is kept for the next request once its answer has been read to the end. Requests with a body, and those that become
//! something else, are not for these: see [`super::bodies`].

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{Request, Response};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::answer::{self, Answer};
use super::bodies::Driven;
use super::kept::Kept;
use super::trouble::Trouble;
use super::{CONNECTING, HEADERS, IDLE};
use crate::places::{Place, Placed, Places};
use crate::reach::Reach;

/// How often those that nobody has used for long are looked for.
const SWEPT: Duration = Duration::from_secs(1);

type Asked = Request<Empty<Bytes>>;
type Conversation = Connection<TokioIo<Placed<TcpStream>>, Empty<Bytes>>;

/// The connections that nobody uses, and how many more there may be.
pub(super) struct Connections {
    idle: Mutex<Idle>,
    places: Places,
}

#[derive(Default)]
pub(super) struct Idle {
    links: Kept<Link>,
    /// Those for requests with a body.
    pub(super) driven: Kept<Driven>,
    /// Whether a task ends those that nobody has used for long.
    is_swept: bool,
}

/// A connection: one end to send requests, and what reads and writes.
pub(super) struct Link {
    sender: SendRequest<Empty<Bytes>>,
    driver: Driver,
}

/// What reads and writes on a connection, as far as it is asked to.
struct Driver {
    /// Gone once it is over. What waited for it is told so by its end alone: a request that was not sent any more comes back.
    connection: Option<Pin<Box<Conversation>>>,
}

impl Driver {
    /// Reads and writes what can be.
    fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && connection.as_mut().poll(context).is_ready()
        {
            self.connection = None;
        }
    }
}

impl Link {
    /// A new one. Answers with more headers than hyper has room for on the stack (100) are rare, and asked for once more.
    async fn connect(to: Reach, place: Place, has_many_headers: bool) -> Result<Self, Trouble> {
        let stream = TokioIo::new(connect(to, place).await?);
        // Requests here are a head alone, for which one buffer is enough.
        let mut builder = http1::Builder::new();
        builder.writev(false);
        if has_many_headers {
            builder.max_headers(HEADERS);
        }
        let (sender, connection) = builder.handshake(stream).await?;
        Ok(Self { sender, driver: Driver { connection: Some(Box::pin(connection)) } })
    }
}

impl answer::Link for Link {
    fn drive(&mut self, context: &mut Context<'_>) {
        self.driver.drive(context);
    }

    fn bring_back(mut self, home: &Arc<Connections>, to: Reach, context: &mut Context<'_>) {
        self.driver.drive(context);
        if self.driver.connection.is_some() {
            home.keep(|idle| idle.links.keep(to, self));
        }
    }
}

/// A new connection to a server.
pub(super) async fn connect(to: Reach, place: Place) -> Result<Placed<TcpStream>, Trouble> {
    let stream = timeout(CONNECTING, to.connect()).await.map_err(|_| Trouble::Silent)??;
    stream.set_nodelay(true)?;
    Ok(Placed::new(stream, place))
}

impl Connections {
    pub(super) fn new(places: Places) -> Self {
        Self { idle: Mutex::default(), places }
    }

    /// A place for one more. Those that nobody uses make room: its own at once, those of other threads when they have not been used
    /// for long.
    pub(super) async fn place(&self) -> Result<Place, Trouble> {
        if let Some(place) = self.places.take() {
            return Ok(place);
        }
        self.idle().clear();
        timeout(IDLE + 2 * SWEPT, self.places.wait()).await.ok().flatten().ok_or(Trouble::TooMany)
    }

    /// Asks the server at `to`, over a connection that is there or a new one. (As a function that makes the future, and with what is
    /// rare in a box: an `async fn` keeps its arguments twice, and what is made for each request is to be small.)
    pub(super) fn ask(
        self: &Arc<Self>,
        to: Reach,
        mut request: Asked,
    ) -> impl Future<Output = Result<Response<Answer<Link>>, Trouble>> + use<> {
        let home = Arc::clone(self);
        async move {
            let (mut may_be_kept, mut has_many_headers) = (true, false);
            loop {
                let kept = if may_be_kept { home.take(to).await } else { None };
                let is_kept = kept.is_some();
                let mut link = match kept {
                    Some(link) => link,
                    None => {
                        let connected =
                            async { Link::connect(to, home.place().await?, has_many_headers).await };
                        Box::pin(connected).await?
                    }
                };
                let again = repeated(&request);
                let answered = {
                    let mut answer = pin!(link.sender.try_send_request(request));
                    poll_fn(|context| {
                        link.driver.drive(context);
                        answer.as_mut().poll(context)
                    })
                    .await
                };
                match answered {
                    Ok(response) => return Ok(answer::over(link, response, home, to).await),
                    // The server may close a connection that nobody uses, also while a request is on its way to it.
                    Err(mut refused) => match (refused.take_message(), again) {
                        (Some(unsent), _) if is_kept => request = unsent,
                        (None, Some(again)) if is_kept && !refused.error().is_parse() => {
                            may_be_kept = false;
                            request = again;
                        }
                        (None, Some(again)) if refused.error().is_parse_too_large() && !has_many_headers => {
                            (may_be_kept, has_many_headers) = (false, true);
                            request = again;
                        }
                        _ => return Err(refused.into_error().into()),
                    },
                }
            }
        }
    }

    /// One that is open, as far as can be known.
    async fn take(&self, to: Reach) -> Option<Link> {
        loop {
            let mut link = self.idle().links.take(to)?;
            poll_fn(|context| {
                link.driver.drive(context);
                Poll::Ready(())
            })
            .await;
            if link.driver.connection.is_some() && link.sender.is_ready() {
                return Some(link);
            }
        }
    }

    /// Keeps one, as `kept` does, for as long as servers let it.
    pub(super) fn keep(self: &Arc<Self>, kept: impl FnOnce(&mut Idle)) {
        let mut idle = self.idle();
        kept(&mut idle);
        if !std::mem::replace(&mut idle.is_swept, true) {
            tokio::spawn(Arc::clone(self).sweep());
        }
    }

    /// Ends those that nobody has used for long, until there are none.
    async fn sweep(self: Arc<Self>) {
        loop {
            sleep(SWEPT).await;
            let mut idle = self.idle();
            idle.links.sweep();
            idle.driven.sweep();
            if idle.links.is_empty() && idle.driven.is_empty() {
                idle.is_swept = false;
                return;
            }
        }
    }

    pub(super) fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn clear(&mut self) {
        self.links.clear();
        self.driven.clear();
    }
}

/// The same request once more, if it may be sent twice: it asks for nothing to be changed (RFC 9110, section 9.2.2).
fn repeated(request: &Asked) -> Option<Asked> {
    if !request.method().is_safe() {
        return None;
    }
    let mut again = Request::new(Empty::new());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_that_nobody_uses_make_room() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = Reach::at(server.local_addr().unwrap());
        let places = Places::new(2);
        let [connections, of_another_thread] = [(); 2].map(|()| Arc::new(Connections::new(places.clone())));
        for home in [&connections, &of_another_thread] {
            let link = Link::connect(to, home.place().await.unwrap(), false).await.unwrap();
            home.keep(|idle| idle.links.keep(to, link));
        }
        let [_first, second] = [connections.place().await.unwrap(), connections.place().await.unwrap()];
        assert!(matches!(connections.place().await, Err(Trouble::TooMany)));
        drop(second);
        assert!(connections.place().await.is_ok());
    }
}
