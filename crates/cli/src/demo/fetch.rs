//! Fetches a page of an agent from this host, as a browser would.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);
/// A page of more bytes is none of the demo's.
const LONGEST_PAGE: usize = 1 << 20;

/// What came for a URL.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) status: StatusCode,
    pub(super) title: Option<String>,
    pub(super) bytes: usize,
}

/// Why there was no page.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// It could not be reached, or broke off.
    #[error("{0}")]
    Failed(Box<dyn Error + Send + Sync>),
    /// Nothing came.
    #[error("no answer within {} s", ATTEMPT.as_secs())]
    TimedOut,
}

/// What comes for `url`. Until `patience` is over it is tried again: a port may be published a moment before its server
/// listens behind it.
pub(super) async fn fetch(url: &str, patience: Duration) -> Result<Fetched, FetchError> {
    let deadline = Instant::now() + patience;
    loop {
        let attempt = timeout(ATTEMPT, once(url)).await;
        match attempt.unwrap_or(Err(FetchError::TimedOut)) {
            Err(_) if Instant::now() < deadline => sleep(PAUSE).await,
            result => return result,
        }
    }
}

async fn once(url: &str) -> Result<Fetched, FetchError> {
    attempt(url).await.map_err(FetchError::Failed)
}

async fn attempt(url: &str) -> Result<Fetched, Box<dyn Error + Send + Sync>> {
    let url: Uri = url.parse()?;
    let host = url.host().ok_or("the URL has no host")?.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, url.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    let request = Request::get(url.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, url.authority().map_or("", |authority| authority.as_str()))
        .body(Empty::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let page = Limited::new(response.into_body(), LONGEST_PAGE).collect().await?.to_bytes();
        Ok(Fetched { status, title: title(&String::from_utf8_lossy(&page)), bytes: page.len() })
    };
    let mut exchange = std::pin::pin!(exchange);
    // The exchange is pinned outside. If the connection ends first, it learns of that and ends too, but not of the reason.
    tokio::select! {
        result = &mut exchange => result,
        ended = connection => match (exchange.await, ended) {
            (Err(_), Err(reason)) => Err(reason.into()),
            (result, _) => result,
        },
    }
}

/// The title of a page, as it is written there.
fn title(page: &str) -> Option<String> {
    let (_, after) = page.split_once("<title>")?;
    let (title, _) = after.split_once("</title>")?;
    Some(title.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// The URL of a server that gives these answers, one a connection.
    fn served(answers: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                if !answer.is_empty() {
                    let read = stream.read(&mut [0; 1024]).unwrap();
                    assert!(read > 0);
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        url
    }

    #[tokio::test]
    async fn status_title_and_size() {
        let url = served(&["HTTP/1.1 200 OK\r\ncontent-length: 25\r\n\r\n<title> ada · A </title>"]);
        let fetched = fetch(&url, Duration::ZERO).await.unwrap();
        assert_eq!((fetched.status.as_u16(), fetched.title.as_deref()), (200, Some("ada · A")));
        assert_eq!(fetched.bytes, 25);
        let url = served(&["HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"]);
        let fetched = fetch(&url, Duration::ZERO).await.unwrap();
        assert_eq!((fetched.status.as_u16(), fetched.title), (404, None));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_yet_is_asked_again() {
        let url = served(&["", "", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]);
        let fetched = fetch(&url, Duration::from_secs(10)).await.unwrap();
        assert_eq!(fetched.status, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_page_without_end_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            while stream.write_all(&[b'x'; 65536]).is_ok() {}
        });
        let error = fetch(&url, Duration::ZERO).await.unwrap_err();
        assert_eq!(error.to_string(), "length limit exceeded");
    }

    #[tokio::test]
    async fn nobody_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        drop(listener);
        let error = fetch(&url, Duration::ZERO).await.unwrap_err();
        assert!(error.to_string().to_lowercase().contains("connection refused"), "{error}");
    }
}
