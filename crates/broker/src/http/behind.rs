//! What is behind an agent's ports, as a browser would find it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{Behind, BehindDocument, Problem};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use futures_util::future::join_all;
use pool::{LeaseId, Port, environment};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::agents::key;
use super::problem::Refusal;
use crate::core::Core;
use crate::reach::Reach;

/// How long a server may take for the beginning of its page, and how much of that is looked at.
const PATIENCE: Duration = Duration::from_secs(2);
const BEGINNING: u64 = 64 * 1024;
/// How long it is taken for known what a page is that is as it should be, and any other: someone is at work on that.
const LASTS: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(5));
/// The longest title that is told, in characters.
const TITLE: usize = 120;

/// What the pages behind ports were when they were asked for last. Each look is a line in the log of the agent's server, so what is
/// known is not asked for anew each time that someone wants to know it.
#[derive(Default)]
pub(super) struct Looks {
    pages: Mutex<HashMap<(LeaseId, Port), (Page, Instant)>>,
}

/// The status and the title of a page, as far as it has them.
type Page = (Option<u16>, Option<String>);

impl Looks {
    fn known(&self, at: &(LeaseId, Port)) -> Option<Page> {
        let pages = self.pages();
        let (page, asked) = pages.get(at)?;
        (asked.elapsed() < lasts(page)).then(|| page.clone())
    }

    fn keep(&self, at: (LeaseId, Port), page: Page) {
        let mut pages = self.pages();
        pages.retain(|_, (_, asked)| asked.elapsed() < LASTS.0);
        pages.insert(at, (page, Instant::now()));
    }

    fn forget(&self, at: &(LeaseId, Port)) {
        self.pages().remove(at);
    }

    fn pages(&self) -> MutexGuard<'_, HashMap<(LeaseId, Port), (Page, Instant)>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lasts((status, _): &Page) -> Duration {
    if status.is_some_and(|status| status < 500) { LASTS.0 } else { LASTS.1 }
}

/// What is behind the agent's ports: whether something listens, and with what it answers if it speaks HTTP. (The answer to a `GET /`
/// may be 15 s old, and 5 s if it was an error of the server.)
#[utoipa::path(get, path = "/v1/agents/{project}/{name}/behind", tag = "agents",
    params(("project" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = BehindDocument), (status = 404, body = Problem)))]
pub(super) async fn behind(
    State(core): State<Arc<Core>>,
    Extension(looks): Extension<Arc<Looks>>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<BehindDocument>, Refusal> {
    let key = key(path)?;
    let record = core.agent(&key).ok_or_else(|| core.unknown(&key))?;
    let (looks, core, record) = (&looks, &core, &record);
    let looked = environment::labelled(record.ports()).map(|(label, port)| async move {
        let nothing = Behind { label: label.to_string(), port: port.get(), ..Behind::default() };
        let Some((reach, lease)) = core.reach(record, port).zip(record.lease.as_ref()) else {
            return nothing;
        };
        let at = (lease.id.clone(), port);
        if !timeout(PATIENCE, core.answers(record, port)).await.unwrap_or(false) {
            looks.forget(&at);
            return nothing;
        }
        let (status, title) = match looks.known(&at) {
            Some(page) => page,
            None => {
                let page = page(reach).await;
                looks.keep(at, page.clone());
                page
            }
        };
        Behind { listens: true, status, title, ..nothing }
    });
    Ok(Json(BehindDocument { behind: join_all(looked).await }))
}

/// What is answered to a `GET /`, as far as it comes in time: a page may never end.
async fn page(reach: Reach) -> Page {
    let mut page = Vec::new();
    // Without all of it, there is what has come.
    drop(timeout(PATIENCE, read_page(reach, &mut page)).await);
    read(&page)
}

async fn read_page(reach: Reach, page: &mut Vec<u8>) -> io::Result<()> {
    let mut stream = reach.connect().await?;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: localhost:{}\r\nAccept: text/html\r\nConnection: close\r\n\r\n",
        reach.port()
    );
    stream.write_all(request.as_bytes()).await?;
    let (mut left, mut buffer) = (stream.take(BEGINNING), [0; 4096]);
    loop {
        let read = left.read(&mut buffer).await?;
        page.extend_from_slice(&buffer[..read]);
        // A server that does not close has said enough once there is a title.
        if read == 0 || self::read(page).1.is_some() {
            return Ok(());
        }
    }
}

/// The status and the title of an answer, as far as it has come.
fn read(page: &[u8]) -> Page {
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
        let text = html_escape::decode_html_entities(&text[start..end]);
        let words: Vec<&str> = text.split_whitespace().collect();
        Some(words.join(" ").chars().take(TITLE).collect::<String>())
    });
    (status, title.filter(|title| !title.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the page shows of an error is gone soon after that is mended. (That there is nothing at `/` is as it should be for an API.)
    #[test]
    fn errors_are_looked_at_again_sooner() {
        let told = |status: Option<u16>| lasts(&(status, None)).as_secs();
        assert_eq!([Some(200), Some(307), Some(404), Some(500), None].map(told), [15, 15, 15, 5, 5]);
    }

    #[test]
    fn the_status_and_the_title() {
        let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html><head><TITLE lang=en>\n My  App </title>";
        assert_eq!(read(page.as_bytes()), (Some(200), Some("My App".to_owned())));
        let page = b"HTTP/1.1 200 OK\r\n\r\n<title>Caf&eacute; &amp; Bar&#8212;&#x27;s &lt;b&gt;</title>";
        assert_eq!(read(page).1.as_deref(), Some("Caf\u{e9} & Bar\u{2014}'s <b>"));
        assert_eq!(read(b"HTTP/1.0 404 Not Found\r\n\r\n<title>unfinished"), (Some(404), None));
        assert_eq!(read(b"SSH-2.0-OpenSSH_9.2"), (None, None));
        assert_eq!(read(b""), (None, None));
        assert_eq!(
            read("HTTP/1.1 200\r\n\r\n<title>\u{130}\u{130}</title>".as_bytes()).1.as_deref(),
            Some("\u{130}\u{130}")
        );
    }
}
