//! One HTTP/1 connection to the engine for each request.
//!
//! bollard uses it as its transport, and what bollard does not do well goes over it directly. A connection of its own for
//! each request makes connecting lazy, so that an engine may come and go, lets every failure to connect keep its error
//! number, and makes dropping a request close it.

use std::io;
use std::time::Duration;

use bollard::errors::Error;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::{Address, EngineEndpoint};

const CONNECTING: Duration = Duration::from_secs(10);

/// The way to the engine.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    endpoint: EngineEndpoint,
}

/// Both directions of a connection that the engine has stopped to speak HTTP on.
pub(super) type Hijacked = TokioIo<Upgraded>;

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl Wire {
    pub(super) fn new(endpoint: EngineEndpoint) -> Self {
        Self { endpoint }
    }

    /// Asks for `path_and_query` and gives the answer with its body yet to be read.
    pub(super) async fn get(&self, path_and_query: &str) -> Result<Response<Incoming>, Error> {
        let request = Request::get(path_and_query).body(Full::<Bytes>::default())?;
        successful(self.send(request).await?).await
    }

    /// The same with the whole body, which is JSON.
    pub(super) async fn json(&self, path_and_query: &str) -> Result<serde_json::Value, Error> {
        let body = self.get(path_and_query).await?.into_body().collect().await?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    }

    /// Posts `body` to `path` and takes over the connection.
    pub(super) async fn hijack(&self, path: &str, body: Vec<u8>) -> Result<Hijacked, Error> {
        let request = Request::post(path)
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "tcp")
            .body(Full::new(Bytes::from(body)))?;
        let response = successful(self.send(request).await?).await?;
        Ok(TokioIo::new(hyper::upgrade::on(response).await?))
    }

    /// Sends `request`, whatever host it names, and gives the answer with its body yet to be read.
    pub(super) async fn send<B>(&self, mut request: Request<B>) -> Result<Response<Incoming>, Error>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let connection = tokio::time::timeout(CONNECTING, self.connect()).await;
        let connection = connection.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let (mut sender, connection) = http1::handshake(TokioIo::new(connection)).await?;
        // Ends with the answer's body, or with the request if that is dropped before; its failure reaches the reader.
        tokio::spawn(connection.with_upgrades());

        // The engine checks no host name; HTTP/1.1 wants one all the same.
        request.headers_mut().insert(HOST, HeaderValue::from_static("engine"));
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse::<Uri>()?;
        Ok(sender.send_request(request).await?)
    }

    async fn connect(&self) -> io::Result<Box<dyn Connection>> {
        match self.endpoint.address() {
            Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// Turns an answer that reports a failure into the error that bollard makes of it.
async fn successful(response: Response<Incoming>) -> Result<Response<Incoming>, Error> {
    let status = response.status();
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let body = response.into_body().collect().await?.to_bytes();
    let told = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let told = told.as_ref().and_then(|told| told.get("message")?.as_str()).map(str::to_owned);
    let message = told.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
    Err(Error::DockerResponseServerError { status_code: status.as_u16(), message })
}
