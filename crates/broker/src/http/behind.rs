//! What is behind an agent's ports, as a browser would find it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{Behind, BehindDocument, Problem};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use futures_util::future::join_all;
use pool::environment;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::agents::key;
use super::problem::Refusal;
use crate::answer::reached_at;
use crate::core::Core;

/// How long a server may take for the beginning of its page, and how much of that is looked at.
const PATIENCE: Duration = Duration::from_secs(2);
const BEGINNING: u64 = 64 * 1024;
/// The longest title that is told, in characters.
const TITLE: usize = 120;

/// What is behind the agent's ports: whether something listens, and with what it answers if it speaks HTTP.
#[utoipa::path(get, path = "/v1/agents/{project}/{name}/behind", tag = "agents",
    params(("project" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = BehindDocument), (status = 404, body = Problem)))]
pub(super) async fn behind(
    State(core): State<Arc<Core>>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<BehindDocument>, Refusal> {
    let key = key(path)?;
    let record = core.agent(&key).ok_or_else(|| core.unknown(&key))?;
    let (address, core, record) = (reached_at(&record), &core, &record);
    let looked = environment::labelled(record.ports()).map(|(label, port)| async move {
        let nothing = Behind { label: label.to_string(), port: port.get(), ..Behind::default() };
        let Some(address) = address.map(|address| SocketAddr::new(address, port.get())) else {
            return nothing;
        };
        if !timeout(PATIENCE, core.answers(record, port)).await.unwrap_or(false) {
            return nothing;
        }
        let page = timeout(PATIENCE, page(address)).await.ok().flatten().unwrap_or_default();
        let (status, title) = read(&page);
        Behind { listens: true, status, title, ..nothing }
    });
    Ok(Json(BehindDocument { behind: join_all(looked).await }))
}

/// The beginning of what is answered to a `GET /`.
async fn page(address: SocketAddr) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: localhost:{}\r\nAccept: text/html\r\nConnection: close\r\n\r\n",
        address.port()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let (mut page, mut left) = (Vec::new(), stream.take(BEGINNING));
    let mut buffer = [0; 4096];
    // A server that does not close, or breaks off, has said enough once there is a title.
    while let Ok(Ok(read @ 1..)) = timeout(PATIENCE / 2, left.read(&mut buffer)).await {
        page.extend_from_slice(&buffer[..read]);
        if self::read(&page).1.is_some() {
            break;
        }
    }
    Some(page)
}

/// The status and the title of an answer, as far as it has come.
fn read(page: &[u8]) -> (Option<u16>, Option<String>) {
    let text = String::from_utf8_lossy(page);
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
    if status.is_none() {
        return (None, None);
    }
    // Letters keep their places in ASCII lower case.
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|at| {
        let start = at + lower[at..].find('>')? + 1;
        let end = start + lower[start..].find("</title")?;
        let words: Vec<&str> = text[start..end].split_whitespace().collect();
        Some(words.join(" ").chars().take(TITLE).collect::<String>())
    });
    (status, title.filter(|title| !title.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_and_the_title() {
        let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html><head><TITLE lang=en>\n My  App </title>";
        assert_eq!(read(page.as_bytes()), (Some(200), Some("My App".to_owned())));
        assert_eq!(read(b"HTTP/1.0 404 Not Found\r\n\r\n<title>unfinished"), (Some(404), None));
        assert_eq!(read(b"SSH-2.0-OpenSSH_9.2"), (None, None));
        assert_eq!(read(b""), (None, None));
        assert_eq!(
            read("HTTP/1.1 200\r\n\r\n<title>\u{130}\u{130}</title>".as_bytes()).1.as_deref(),
            Some("\u{130}\u{130}")
        );
    }
}
