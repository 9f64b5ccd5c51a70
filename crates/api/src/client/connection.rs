//! One connection for each request, on whichever kind of socket.

use std::error::Error;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::call::Call;
use super::{Client, ClientError};
use crate::{Endpoint, Problem};

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest document that a broker would send.
const LONGEST_DOCUMENT: usize = 64 << 20;

impl Client {
    /// Sends `call` and gives the answer once its headers are there, whatever its status.
    pub(super) async fn send(&self, call: &Call) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(&call.target)
            .header(HOST, self.endpoint.authority())
            .header(ACCEPT, call.accept);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if call.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for &(name, value) in &call.headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(call.body.clone().unwrap_or_default()))
            .map_err(|error| self.protocol(call, format!("the request cannot be written: {error}")))?;
        let mut sender = self.connect().await?;
        let answer = self.in_time(call, sender.send_request(request)).await?;
        answer.map_err(|error| self.broken_off(call, error))
    }

    /// Like [`Self::send`], and takes an answer that is an error for one.
    pub(super) async fn succeed(&self, call: &Call) -> Result<Response<Incoming>, ClientError> {
        let response = self.send(call).await?;
        let status = response.status();
        if status.is_success() || status.is_informational() {
            return Ok(response);
        }
        let body = self.body(call, response).await?;
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(ClientError::Problem(Box::new(problem))),
            Err(_) => Err(self.protocol(call, format!("{status} without a problem document"))),
        }
    }

    /// Sends `call` and reads the document that answers it.
    pub(super) async fn document<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ClientError> {
        let response = self.succeed(call).await?;
        self.read(call, response).await
    }

    /// Reads the document in `response`.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        call: &Call,
        response: Response<Incoming>,
    ) -> Result<T, ClientError> {
        let body = self.body(call, response).await?;
        serde_json::from_slice(&body).map_err(|error| self.protocol(call, error.to_string()))
    }

    async fn body(&self, call: &Call, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = Limited::new(response.into_body(), LONGEST_DOCUMENT).collect();
        let collected = self.in_time(call, body).await?;
        collected.map(|body| body.to_bytes()).map_err(|error| self.broken_off(call, error))
    }

    async fn in_time<T>(&self, call: &Call, work: impl Future<Output = T>) -> Result<T, ClientError> {
        let Some(limit) = call.limit else { return Ok(work.await) };
        timeout(limit, work).await.map_err(|_| {
            let reason = format!("no answer within {} s", limit.as_secs());
            self.broken_off(call, io::Error::new(io::ErrorKind::TimedOut, reason))
        })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let connected = timeout(CONNECT, async {
            match &self.endpoint {
                Endpoint::Unix(path) => handshake(UnixStream::connect(path).await?).await,
                Endpoint::Tcp { host, port } => {
                    // The resolver wants an IPv6 address without its brackets.
                    let host = host.trim_start_matches('[').trim_end_matches(']');
                    handshake(TcpStream::connect((host, *port)).await?).await
                }
            }
        });
        let slow = || {
            io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {} s", CONNECT.as_secs()))
        };
        let connected = connected.await.unwrap_or_else(|_| Err(slow()));
        connected.map_err(|source| ClientError::Unreachable { endpoint: self.endpoint.clone(), source })
    }

    pub(super) fn broken_off(
        &self,
        call: &Call,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> ClientError {
        ClientError::BrokenOff {
            endpoint: self.endpoint.clone(),
            call: call.to_string(),
            source: source.into(),
        }
    }

    pub(super) fn protocol(&self, call: &Call, reason: String) -> ClientError {
        ClientError::Protocol { endpoint: self.endpoint.clone(), call: call.to_string(), reason }
    }
}

async fn handshake<S>(stream: S) -> io::Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // The task ends with the connection, and that with the last of the sender and the answer's body. What goes wrong is
    // told to these two.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    Ok(sender)
}
