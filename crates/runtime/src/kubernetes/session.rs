//! A connection into a pod, upgraded from a request to the API server.

use std::time::Duration;

use hyper::header::{CONNECTION, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use kube::core::Status;

use super::refusal::{broken_off, by_status, refused, unreachable};
use super::spdy::Connection;
use crate::RuntimeError;

/// What an upgraded connection is.
pub(super) type Io = TokioIo<Upgraded>;

/// How long the API server and the node may take to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// The most of a refusal that is read.
const LONGEST_REFUSAL: usize = 64 * 1024;

/// Opens a connection at `path`, with its query, speaking one of these versions of the protocol.
pub(super) async fn open(
    client: &Client,
    doing: &str,
    path: &str,
    versions: &[&str],
) -> Result<Connection<Io>, RuntimeError> {
    let opening = async {
        let mut request = Request::post(path).header(CONNECTION, "Upgrade").header(UPGRADE, "SPDY/3.1");
        for version in versions {
            request = request.header("X-Stream-Protocol-Version", *version);
        }
        let request = request
            .body(Body::empty())
            .map_err(|error| unreachable(doing, &format!("the request makes no sense: {error}")))?;
        let response = client.send(request).await.map_err(|error| refused(doing, error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let code = response.status().as_u16();
            let limited = http_body_util::Limited::new(response.into_body(), LONGEST_REFUSAL);
            let body = http_body_util::BodyExt::collect(limited).await;
            let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let status = serde_json::from_slice(&body).unwrap_or_else(|_| {
                Status::failure(String::from_utf8_lossy(&body).trim(), "").with_code(code)
            });
            return Err(by_status(doing, &status));
        }
        let upgraded = hyper::upgrade::on(response).await;
        let upgraded = upgraded.map_err(|error| broken_off(doing, &std::io::Error::other(error)))?;
        Ok(Connection::new(TokioIo::new(upgraded)))
    };
    match tokio::time::timeout(ANSWER, opening).await {
        Ok(opened) => opened,
        Err(_elapsed) => Err(unreachable(doing, &format!("no answer after {} s", ANSWER.as_secs()))),
    }
}
