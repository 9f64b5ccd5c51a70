//! How a person's browser comes to be let in: `berthold open` asks for a ticket, over the socket or with the token; the page that it
//! opens hands the ticket in, once, and gets a session as a cookie.
//!
//! A ticket lives in memory and for a minute. A session is kept nowhere: its cookie says until when it holds and is signed with
//! the broker's token, so it outlives the broker, and a new token ends all of them.
//!
//! Browsers send a host's cookies to all its ports (RFC 6265, section 8.5), so to every agent's server at `localhost:PORT` too. Hence a
//! cookie alone lets no one in: the page sends a second half along, which it keeps in the storage of its own origin, and which
//! cannot be made from the first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::{Code, Problem, Session, SessionDocument, SignIn, SignedIn};
use axum::Json;
use axum::extract::{Extension, FromRequest, Request, State};
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::time::timeout;

use super::problem::Refusal;
use crate::clock;
use crate::core::Core;
use crate::error::OperationError;
use crate::lock::random_token;
use crate::preview::{PAGE_HEADER, SESSION_COOKIE};

/// How long a ticket can be handed in.
const TICKET: Duration = Duration::from_secs(60);
/// How long the request that hands it in may take, and how long it may be, in bytes.
const HANDED_IN: Duration = Duration::from_secs(10);
pub(super) const LONGEST_TICKET: usize = 1024;
/// How many tickets there can be at a time; the oldest makes way.
const TICKETS: usize = 64;
/// How long a session holds.
const SESSION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Who was let in, and who may be.
pub(super) struct Sessions {
    key: String,
    /// A browser has one jar for all ports of a host, so brokers need names of their own.
    cookie: String,
    tickets: Mutex<HashMap<String, Instant>>,
}

impl Sessions {
    /// The sessions of the broker with this id, signed with this token.
    pub(super) fn new(id: &str, token: &str) -> Self {
        let cookie = format!("{SESSION_COOKIE}{}", id.to_lowercase());
        Self { key: token.to_owned(), cookie, tickets: Mutex::default() }
    }

    /// Whether the request brings both halves of a session that holds.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let now = clock::now().0;
        let page = headers.get(PAGE_HEADER).and_then(|value| bytes(value.to_str().ok()?));
        let Some(page) = page else { return false };
        // In one header with it may be what any server of the host has set, in whatever encoding.
        let pairs =
            headers.get_all(COOKIE).into_iter().flat_map(|value| value.as_bytes().split(|it| *it == b';'));
        let mut pairs = pairs.filter_map(|pair| std::str::from_utf8(pair.trim_ascii()).ok()?.split_once('='));
        pairs.any(|(name, value)| {
            let is_its = || self.signing(value, Half::Page).verify_slice(&page).is_ok();
            name == self.cookie && self.holds(value, now) && is_its()
        })
    }

    fn holds(&self, session: &str, now: i64) -> bool {
        let Some((until, signature)) = session.split_once('.') else { return false };
        let Some(signature) = bytes(signature) else { return false };
        let is_signed = self.signing(until, Half::Cookie).verify_slice(&signature).is_ok();
        is_signed && until.parse::<i64>().is_ok_and(|until| now < until)
    }

    /// What proves `text` to be a half of a session of this broker: the time of a cookie, or the cookie of a page.
    fn signing(&self, text: &str, half: Half) -> Hmac<Sha256> {
        let mut signing = Hmac::<Sha256>::new_from_slice(self.key.as_bytes())
            .expect("HMAC takes a key of any length (RFC 2104, section 2)");
        let word = match half {
            Half::Cookie => "until",
            Half::Page => "page of",
        };
        signing.update(format!("{} {word} {text}", self.cookie).as_bytes());
        signing
    }

    fn signature(&self, text: &str, half: Half) -> String {
        let signature = self.signing(text, half).finalize().into_bytes();
        signature.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn session(&self, now: i64) -> String {
        let until = now.saturating_add(i64::try_from(SESSION.as_millis()).unwrap_or(i64::MAX)).to_string();
        let signature = self.signature(&until, Half::Cookie);
        format!("{until}.{signature}")
    }

    fn ticket(&self, ticket: String, now: Instant) {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.retain(|_, issued| now.duration_since(*issued) < TICKET);
        if tickets.len() >= TICKETS
            && let Some(oldest) = tickets.iter().min_by_key(|(_, issued)| **issued).map(|(it, _)| it.clone())
        {
            tickets.remove(&oldest);
        }
        tickets.insert(ticket, now);
    }

    /// Takes a ticket in; whether it was one.
    fn redeem(&self, ticket: &str, now: Instant) -> bool {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.remove(ticket).is_some_and(|issued| now.duration_since(issued) < TICKET)
    }

    fn set_cookie(&self, value: &str, age: u64, is_tls: bool) -> String {
        let secure = if is_tls { "; Secure" } else { "" };
        format!("{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}", self.cookie)
    }
}

/// The two parts of a session.
#[derive(Clone, Copy)]
enum Half {
    /// What the browser keeps.
    Cookie,
    /// What the page keeps.
    Page,
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}

/// Lets one browser in: the answer's URL opens the page there, once, within a minute.
#[utoipa::path(post, path = "/v1/sessions", tag = "broker",
    responses((status = 201, body = SessionDocument), (status = 409, body = Problem)))]
pub(super) async fn create(
    State(core): State<Arc<Core>>,
    Extension(sessions): Extension<Arc<Sessions>>,
) -> Result<(StatusCode, Json<SessionDocument>), Refusal> {
    let Some(listen) = &core.listen else {
        return Err(Refusal::new(
            Code::Conflict,
            "this broker has no address for a browser: it listens on its socket alone",
        )
        .hint("set `server.broker.listen` in the settings, and restart the broker"));
    };
    let ticket = random_token().map_err(|error| OperationError::Lost(error.to_string()))?;
    sessions.ticket(ticket.clone(), Instant::now());
    let pool = core.settings.server.broker.port_pool.as_ref();
    let url = listen.page_url(pool.and_then(|pool| pool.host_url.as_ref()));
    // Behind the `#`, so that it is in no log and no `Referer`.
    let session = Session { url: format!("{url}/#ticket={ticket}"), valid_s: TICKET.as_secs() };
    Ok((StatusCode::CREATED, Json(SessionDocument { session })))
}

/// Hands a ticket in, for a session in a cookie and in the page. Anyone may ask, so a request is short and soon there.
pub(super) async fn sign_in(
    State(core): State<Arc<Core>>,
    Extension(sessions): Extension<Arc<Sessions>>,
    request: Request,
) -> Result<Response, Refusal> {
    let slow = |_elapsed| Refusal::new(Code::InvalidRequest, "the ticket has not come in time");
    let body = timeout(HANDED_IN, Json::<SignIn>::from_request(request, &())).await.map_err(slow)?;
    let Json(SignIn { ticket }) = body?;
    if !sessions.redeem(&ticket, Instant::now()) {
        return Err(Refusal::new(Code::Unauthorized, "this link has been used, or is older than a minute")
            .hint("`berthold open` makes a new one"));
    }
    let session = sessions.session(clock::now().0);
    let page = sessions.signature(&session, Half::Page);
    let cookie = sessions.set_cookie(&session, SESSION.as_secs(), is_tls(&core));
    Ok(([(SET_COOKIE, cookie)], Json(SignedIn { page })).into_response())
}

/// Takes the browser's cookie away.
pub(super) async fn sign_out(
    State(core): State<Arc<Core>>,
    Extension(sessions): Extension<Arc<Sessions>>,
) -> Response {
    (StatusCode::NO_CONTENT, [(SET_COOKIE, sessions.set_cookie("", 0, is_tls(&core)))]).into_response()
}

fn is_tls(core: &Core) -> bool {
    core.listen.as_ref().is_some_and(|listen| listen.is_tls)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(cookie: &str, page: &str) -> HeaderMap {
        let page = (PAGE_HEADER, page.parse().unwrap());
        HeaderMap::from_iter([(COOKIE, HeaderValue::from_bytes(cookie.as_bytes()).unwrap()), page])
    }

    #[test]
    fn a_session_holds_for_its_broker_and_its_time() {
        let sessions = Sessions::new("01AB", "token");
        let session = sessions.session(1_000);
        assert!(sessions.holds(&session, 1_000));
        let end = 1_000 + i64::try_from(SESSION.as_millis()).unwrap();
        assert!(sessions.holds(&session, end - 1) && !sessions.holds(&session, end));
        assert!(!Sessions::new("01AB", "another token").holds(&session, 1_000));
        assert!(!Sessions::new("01CD", "token").holds(&session, 1_000));
        let (until, signature) = session.split_once('.').unwrap();
        for forged in
            [format!("9{until}.{signature}"), format!("{until}."), "x".into(), format!("{until}.zz")]
        {
            assert!(!sessions.holds(&forged, 1_000), "{forged}");
        }
        let session = sessions.session(clock::now().0);
        let page = sessions.signature(&session, Half::Page);
        let cookie = format!("a=b; berthold-session-01ab={session}; c");
        assert!(sessions.admits(&headers(&cookie, &page)));
        assert!(sessions.admits(&headers(&format!("name=Jørgen; {cookie}"), &page)));
        assert!(!sessions.admits(&headers(&format!("berthold-session={session}"), &page)));
        // The cookie, which every server on the host sees, is not enough; nor is another session's page.
        let other = sessions.signature(&sessions.session(1), Half::Page);
        let signature = session.split_once('.').unwrap().1;
        for page in ["", "zz", &other, signature] {
            assert!(!sessions.admits(&headers(&cookie, page)), "{page}");
        }
    }

    #[test]
    fn a_ticket_is_taken_once_and_within_its_time() {
        let (sessions, now) = (Sessions::new("01AB", "token"), Instant::now());
        sessions.ticket("one".into(), now);
        sessions.ticket("late".into(), now);
        assert!(sessions.redeem("one", now) && !sessions.redeem("one", now) && !sessions.redeem("", now));
        assert!(!sessions.redeem("late", now + TICKET));
        for number in 0..1_000 {
            sessions.ticket(number.to_string(), now);
        }
        assert_eq!(sessions.tickets.lock().unwrap().len(), TICKETS);
    }
}
