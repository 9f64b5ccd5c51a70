//! The web server of the demo's agents: `berthold __demo-server [ADDRESS]`, hidden, in an agent's container or process.
//!
//! It listens on every port that the agent was given and answers each with a page that says whose it is. Clients may be
//! slow, broken or many: a request has a size and a time, and only so many are answered at once; further ones wait in the
//! kernel's queue. A connection serves one request, so that none is held open by a client that has gone away.

use std::convert::Infallible;
use std::env;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pool::environment::PORT_PREFIX;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::page::Facts;

/// The first argument that makes this program the demo's web server.
pub(crate) const ROLE: &str = "__demo-server";

/// How long a connection lasts at the most.
const TIME: Duration = Duration::from_secs(10);
/// How long the head of a request may be. It is the least that hyper takes.
const LONGEST_HEAD: usize = 8 << 10;
/// How many connections there are at once.
const AT_ONCE: usize = 64;
/// How long to wait when the system has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until it is asked to end.
pub(crate) fn run() -> ExitCode {
    match serve(env::args().nth(2).as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody reads it, the exit code is left.
            writeln!(io::stderr(), "error: {error}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

/// Serves on `address`; on all of them if none is given, as a server in a container has to.
fn serve(address: Option<&str>) -> io::Result<()> {
    let address: IpAddr = match address {
        Some(text) => text.parse().map_err(io::Error::other)?,
        None => Ipv4Addr::UNSPECIFIED.into(),
    };
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let variables = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
    let facts = Arc::new(Facts::new(variables, host, std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // The first process of a container is not ended by a signal that it does not handle (pid_namespaces(7)).
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        start(&facts, address).await?;
        // Both are cancel-safe, and whichever comes is the end.
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}

/// Listens on all ports of the agent before it answers on any.
async fn start(facts: &Arc<Facts>, address: IpAddr) -> io::Result<()> {
    if facts.ports().is_empty() {
        let text = format!("{PORT_PREFIX}A is not set: this is to be run as an agent of Berthold");
        return Err(io::Error::other(text));
    }
    let mut listeners = Vec::new();
    for port in facts.ports() {
        let listener = TcpListener::bind((address, port.number)).await;
        let failed =
            |error: io::Error| io::Error::new(error.kind(), format!("port {}: {error}", port.number));
        listeners.push(listener.map_err(failed)?);
        tell(&format!("{} listens on {address}:{}", facts.name(), port.number));
    }
    let places = Arc::new(Semaphore::new(AT_ONCE));
    for listener in listeners {
        tokio::spawn(accept(listener, Arc::clone(facts), Arc::clone(&places), TIME));
    }
    Ok(())
}

async fn accept(listener: TcpListener, facts: Arc<Facts>, places: Arc<Semaphore>, time: Duration) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        let facts = Arc::clone(&facts);
        tokio::spawn(async move {
            // A client that is too slow, or breaks off, is its own loss.
            timeout(time, converse(stream, port, &facts)).await.unwrap_or_default();
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, port: u16, facts: &Facts) {
    let service = service_fn(async |request: Request<Incoming>| {
        let response = answer(&request, port, facts);
        tell(&format!("{port} {} {} {}", request.method(), request.uri().path(), response.status().as_u16()));
        Ok::<_, Infallible>(response)
    });
    let mut server = http1::Builder::new();
    let connection = server.keep_alive(false).max_buf_size(LONGEST_HEAD);
    connection.serve_connection(TokioIo::new(stream), service).await.unwrap_or_default();
}

fn answer(request: &Request<Incoming>, port: u16, facts: &Facts) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/" => page(port, facts),
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/api" => response(StatusCode::OK, "application/json", "default-src 'none'", facts.json(port)),
        _ => plain(StatusCode::NOT_FOUND, "there is nothing here; try /\n"),
    }
}

fn page(port: u16, facts: &Facts) -> Response<Full<Bytes>> {
    // Without randomness there is no style that could be told from a stranger's, and none is allowed.
    let nonce = getrandom::u64().map_or_else(|_| String::new(), |number| format!("{number:016x}"));
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    response(StatusCode::OK, "text/html; charset=utf-8", &policy, facts.page(port, &nonce))
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", "default-src 'none'", text.to_owned())
}

fn response(status: StatusCode, kind: &str, policy: &str, body: String) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind)
        .header(header::CONTENT_SECURITY_POLICY, policy)
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::REFERRER_POLICY, "no-referrer")
        .header(header::CACHE_CONTROL, "no-store")
        .body(Full::from(body))
        .expect("all headers are of plain letters")
}

/// Writes a line for the agent's log, where a person sees the server at work.
fn tell(line: &str) {
    // It serves on where nobody reads the log.
    writeln!(io::stdout(), "{line}").unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::SocketAddr;
    use std::thread;
    use std::time::Instant;

    use super::super::page::tests::facts;
    use super::*;

    /// How long a connection to the server of a test lasts.
    const SHORT: Duration = Duration::from_secs(1);

    /// The address of a server, which goes on until the tests end.
    fn served() -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                accept(listener, Arc::new(facts()), Arc::new(Semaphore::new(2)), SHORT).await;
            });
        });
        address
    }

    /// What a client gets for what it sends.
    fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SHORT * 10)).unwrap();
        // The server may hang up before it has read all.
        stream.write_all(request).unwrap_or_default();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap_or_default();
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn status(request: &[u8]) -> String {
        ask(served(), request).lines().next().unwrap_or("no answer").to_owned()
    }

    #[test]
    fn the_page_comes_with_a_policy_that_allows_its_own_style_alone() {
        let answer = ask(served(), b"GET /?x=y HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let nonce = head.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
        assert_eq!(nonce.len(), 16);
        assert!(body.contains(&format!("<style nonce=\"{nonce}\">")), "{body}");
        assert!(body.trim_end().ends_with("</html>"), "it is whole");
    }

    #[test]
    fn other_paths_and_methods() {
        assert!(ask(served(), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").ends_with("\r\n\r\nok\n"));
        let address = served();
        let from = format!("\"served_from\":{}", address.port());
        assert!(ask(address, b"GET /api HTTP/1.1\r\nHost: x\r\n\r\n").contains(&from));
        assert_eq!(status(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 404 Not Found");
        assert_eq!(
            status(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"),
            "HTTP/1.1 405 Method Not Allowed"
        );
    }

    #[test]
    fn a_head_has_the_headers_of_the_page_and_no_body() {
        let answer = ask(served(), b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
        let length = answer.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        assert!(length.parse::<usize>().unwrap() > 1000);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert_eq!(status(b"nonsense\r\n\r\n"), "HTTP/1.1 400 Bad Request");
        assert_eq!(status(b"\xff\xfe\r\n\r\n"), "HTTP/1.1 400 Bad Request");
        let long = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; 2 * LONGEST_HEAD], b"\r\n\r\n"].concat();
        assert_eq!(status(&long), "HTTP/1.1 431 Request Header Fields Too Large");
    }

    #[test]
    fn clients_that_say_nothing_are_hung_up_on_and_keep_no_one_out_for_long() {
        let address = served();
        let silent: Vec<_> = (0..2).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let before = Instant::now();
        let answer = ask(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.ends_with("ok\n"), "{answer}");
        assert!(before.elapsed() >= SHORT / 2, "there were no more places");
        for mut stream in silent {
            assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0, "it was hung up on");
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let variables = [(format!("{PORT_PREFIX}A"), port.to_string())];
        let facts = Arc::new(Facts::new(variables.into_iter(), String::new(), 1));
        let error = start(&facts, Ipv4Addr::LOCALHOST.into()).await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("port {port}: ")), "{error}");
    }

    #[tokio::test]
    async fn without_ports_it_says_what_it_is_for() {
        let facts = Arc::new(Facts::new(std::iter::empty(), String::new(), 1));
        let error = start(&facts, Ipv4Addr::LOCALHOST.into()).await.unwrap_err();
        insta::assert_snapshot!(error, @"AVAILABLE_LOCALHOST_PORT_A is not set: this is to be run as an agent of Berthold");
    }
}
