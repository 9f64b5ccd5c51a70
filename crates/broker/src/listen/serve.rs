//! Serves the connections of a share.
//!
//! A TLS handshake takes as long as its client likes, so each is made beside the others, and what does not come to its end in time is
//! cut. What speaks HTTP/2 says so in the handshake (ALPN, RFC 7301); without TLS it begins with the words for that.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::time::{Instant, interval_at, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Share;
use super::deal::Taken;
use super::ticks::{TICK, Ticks};
use crate::places::{Placed, Stream};

/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection is kept on which nothing is asked: before the first request, and in HTTP/1.1 between two.
const SILENCE: Duration = Duration::from_secs(60);
/// How many requests a connection of HTTP/2 may have at once, and how much of a body may wait for whoever reads it. What waits for one
/// that reads nothing keeps no other: there is room for all of them on the connection.
const STREAMS: u32 = 200;
const WINDOW: u32 = 256 << 10;
/// How often a client of HTTP/2 is asked whether it is still there, and how long it may take to say so.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// Answers on the connections of the share until `ended`; then what has been asked for is answered to its end, and nothing more. Each
/// connection has a service of its own, made for the address of its client.
pub(crate) async fn serve<S>(mut share: Share, service: impl Fn(IpAddr) -> S, ended: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(Ticks).header_read_timeout(SILENCE);
    let mut http2 = builder.http2();
    http2.timer(Ticks).keep_alive_interval(PING.0).keep_alive_timeout(PING.1);
    http2.max_concurrent_streams(STREAMS);
    http2.initial_stream_window_size(WINDOW).initial_connection_window_size(STREAMS * WINDOW);
    // WebSockets over HTTP/2 (RFC 8441).
    http2.enable_connect_protocol();
    let builder = Arc::new(builder);
    let connections = TaskTracker::new();
    while let Some(Some(taken)) = ended.run_until_cancelled(share.dealt.recv()).await {
        let service = service(taken.peer);
        connections.spawn(connection(taken, share.tls.clone(), Arc::clone(&builder), service, ended.clone()));
    }
    drop(share);
    connections.close();
    connections.wait().await;
}

async fn connection<S>(
    taken: Taken,
    tls: Option<TlsAcceptor>,
    builder: Arc<Builder<TokioExecutor>>,
    service: S,
    ended: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let Taken { stream, place, .. } = taken;
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "a connection was lost"),
    };
    let Some(tls) = tls else {
        return converse(Placed::lingering(stream, place), &builder, service, ended).await;
    };
    match timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => converse(Placed::lingering(stream, place), &builder, service, ended).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake came to nothing"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// Answers what is asked on one connection.
async fn converse<S>(
    stream: Placed<impl Stream>,
    builder: &Builder<TokioExecutor>,
    service: S,
    ended: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let has_asked = AtomicBool::new(false);
    let answered = service_fn(|request| {
        has_asked.store(true, Ordering::Relaxed);
        service.call(request)
    });
    let mut conversation = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), answered));
    let begun = Instant::now();
    let mut ticks = interval_at(begun + TICK, TICK);
    let mut is_ending = false;
    loop {
        // All of them are only looked at, and go on in the next round.
        tokio::select! {
            biased;
            served = conversation.as_mut() => {
                if let Err(error) = served {
                    tracing::debug!(error, "a connection broke off");
                }
                return;
            }
            () = ended.cancelled(), if !is_ending => {
                is_ending = true;
                conversation.as_mut().graceful_shutdown();
            }
            // Whether it is HTTP/1.1 or HTTP/2 is told by the first bytes, for which hyper-util waits without a limit.
            _ = ticks.tick() => if begun.elapsed() >= SILENCE && !has_asked.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use settings::Listen;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::listen::Listener;

    /// The address of a server of one share that takes `limit` connections.
    async fn served(limit: usize) -> std::net::SocketAddr {
        served_with(limit, |_| async { Response::new(axum::body::Body::from("hello")) }).await
    }

    /// The same with these answers.
    async fn served_with<A>(
        limit: usize,
        answer: impl Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    ) -> std::net::SocketAddr
    where
        A: Future<Output = Response> + Send + 'static,
    {
        let listener =
            Listener::bind(Listen::Address("127.0.0.1:0".parse().unwrap()), None).await.unwrap().unwrap();
        let address = listener.address().socket;
        let (mut shares, dealing) = listener.shared(1, limit);
        tokio::spawn(dealing);
        let service = move |_| {
            let answer = answer.clone();
            service_fn(move |request| answer(request).map(Ok))
        };
        tokio::spawn(serve(shares.remove(0), service, CancellationToken::new()));
        address
    }

    async fn ask(stream: &mut TcpStream) -> bool {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = [0; 1024];
        let read = stream.read(&mut answer).await.unwrap_or(0);
        String::from_utf8_lossy(&answer[..read]).ends_with("hello")
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_is_asked_is_ended() {
        let address = served(8).await;
        for said in ["", "P", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nHost: local"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            timeout(3 * SILENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut stream).await);
        assert!(ask(&mut stream).await, "it is kept for the next request");
        let mut rest = Vec::new();
        timeout(3 * SILENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_gone_is_noticed_though_nothing_of_it_is_read() {
        let over = CancellationToken::new();
        let held = over.clone();
        let address = served_with(8, move |request| {
            let held = held.clone().drop_guard();
            async move {
                let _held = (request, held);
                std::future::pending().await
            }
        })
        .await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
            .await
            .unwrap();
        client.write_all(&[0; 500_000]).await.unwrap();
        assert!(timeout(3 * SILENCE, over.cancelled()).await.is_err(), "it may wait for as long as it likes");
        client.set_zero_linger().unwrap();
        drop(client);
        timeout(3 * TICK, over.cancelled()).await.expect("what was done for it has ended");
    }

    #[tokio::test]
    async fn there_are_no_more_connections_than_there_may_be() {
        let address = served(2).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut first).await && ask(&mut second).await);
        let mut third = TcpStream::connect(address).await.unwrap();
        let asked = timeout(Duration::from_millis(200), ask(&mut third)).await;
        assert!(asked.is_err(), "the third waits");
        drop(first);
        let mut answer = [0; 1024];
        assert!(third.read(&mut answer).await.unwrap() > 0, "and has the place of the first");
    }
}
