//! Previews: `a.dev.localhost` on the broker's own address leads to port A of the agent `dev`.
//!
//! A request is passed on as it is, streaming both ways, and so is what it becomes by an upgrade (WebSockets). Connections to agents
//! are kept and used again. Previews are origins of their own: neither the API nor the page is under their names, and the page's
//! session is taken out of what is passed on.
//!
//! # Limits
//!
//! Under names below `localhost` only this host is served: who comes from elsewhere would else reach what is published on loopback
//! alone. Names of `preview_url` are for whoever reaches the broker's address.

pub(crate) mod address;
mod answer;
mod bodies;
mod connections;
mod front;
mod headers;
mod join;
mod kept;
mod notice;
mod server;
mod trouble;

pub(crate) use self::front::Front;
pub(crate) use self::headers::{PAGE as PAGE_HEADER, SESSION as SESSION_COOKIE};

use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use axum::http::{HeaderMap, Method, StatusCode, Uri, Version};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::Empty;
use hyper::body::Body as HttpBody;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pool::AgentKey;
use settings::PreviewHost;

use self::address::Address;
use self::connections::Connections;
use self::headers::Site;
use self::notice::{Notice, Reader};
use self::trouble::Trouble;
use crate::core::Core;
use crate::host;
use crate::model::Stage;
use crate::places::Places;
use crate::reach::Reach;

/// How long an agent's server may take to accept a connection.
const CONNECTING: Duration = Duration::from_secs(5);
/// How many headers an answer may have.
const HEADERS: usize = 256;
/// How long a connection to an agent is kept that nobody uses, shorter than servers keep theirs (Node.js: 5 s).
const IDLE: Duration = Duration::from_secs(4);

/// Passes requests on to agents.
pub(crate) struct Previews {
    core: Arc<Core>,
    token: String,
    /// The broker's id, as it stands in requests that have come through it.
    mark: Option<HeaderValue>,
    connections: Arc<Connections>,
}

impl Previews {
    /// Previews with no more connections to agents than there are `places`. The broker's `token` reaches no agent.
    pub(crate) fn new(core: Arc<Core>, places: Places, token: String) -> Self {
        let connections = Arc::new(Connections::new(places));
        let mark = HeaderValue::from_str(&core.id).ok();
        Self { core, token, mark, connections }
    }

    /// What is meant by a host name; none if it is no preview's.
    fn meaning(&self, host: &str) -> Option<Result<Asked, Notice>> {
        let name = host::name(host);
        let pool = self.core.settings.server.broker.port_pool.as_ref();
        if let Some(pattern) = pool.and_then(|pool| pool.preview_url.as_ref()) {
            let is_page = pool
                .and_then(|pool| pool.host_url.as_ref())
                .is_some_and(|url| url.host().eq_ignore_ascii_case(name));
            let meant = pattern.meant_by(name).into_iter().filter(|_| !is_page);
            let mut meant: Vec<Address> =
                meant.map(|(key, label)| Address { key, label: Some(label) }).collect();
            // Where two names are possible, one agent of them can be there at the most. A name of the usual form may fit the pattern too.
            let is_known = |address: &Address| self.core.agent(&address.key).is_some();
            let known = meant.iter().position(is_known);
            let is_usual = || matches!(address::of(host), Some(Ok(usual)) if is_known(&usual));
            if !meant.is_empty() && (known.is_some() || !is_usual()) {
                let address = meant.swap_remove(known.unwrap_or(0));
                // Names below `localhost` are this host's, whatever pattern they are of.
                let is_public = address::of(host).is_none();
                return Some(Ok(Asked { address, proto: Some(pattern.scheme()), is_public }));
            }
        }
        let asked = address::of(host)?.map(|address| Asked { address, proto: None, is_public: false });
        Some(asked.map_err(|said| {
            let hint = "a preview is at LABEL.NAME.localhost or LABEL.NAME.PROJECT.localhost".to_owned();
            no_such(said, hint)
        }))
    }

    /// Where the port is, or why it leads nowhere.
    fn find(&self, address: &Address) -> Result<Reach, Notice> {
        let key = &address.key;
        let state = self.core.state();
        let Some(record) = state.agents.get(key) else {
            return Err(no_such(
                format!("there is no agent {}", shown(key)),
                "`berthold list` shows those that there are".to_owned(),
            ));
        };
        let waits = |passes| Notice {
            status: StatusCode::SERVICE_UNAVAILABLE,
            said: format!("{} is {}", shown(key), record.stage.as_str()),
            hint: format!("`berthold start {}` starts it", shown(key)),
            passes,
        };
        match record.stage {
            Stage::Running => {}
            stage => return Err(waits(stage == Stage::Starting)),
        }
        let index = address.label.map_or(0, pool::Label::index);
        let Some(port) = record.ports().get(index).copied() else {
            let label = address.label.map_or_else(|| "port".to_owned(), |label| format!("port {label}"));
            return Err(no_such(
                format!("{} has no {label}", shown(key)),
                format!("it has {} of them", record.ports().len()),
            ));
        };
        self.core.reach(record, port).ok_or_else(|| {
            if record.published.is_some() {
                let said =
                    format!("the ports of {} are on another host, and are not reached from here", shown(key));
                return no_such(said, "`berthold show` says where they are published".to_owned());
            }
            no_such(
                format!("the ports of {} are not published", shown(key)),
                "its network publishes none".to_owned(),
            )
        })
    }

    /// Answers what is meant for an agent.
    fn answer(
        self: &Arc<Self>,
        mut request: Request,
        asked: Result<Asked, Notice>,
        peer: IpAddr,
    ) -> BoxFuture<'static, Response> {
        let passage = match self.prepare(&mut request, asked, peer) {
            Ok(passage) => passage,
            Err(response) => return ready(*response).boxed(),
        };
        if passage.upgrade.is_none() && request.body().is_end_stream() {
            let (parts, _) = request.into_parts();
            let asking = self.connections.ask(passage.to, Request::from_parts(parts, Empty::new()));
            return asking.map(move |answered| passage.end(answered)).boxed();
        }
        let previews = Arc::clone(self);
        async move { previews.ask_with_body(passage, request).await }.boxed()
    }

    /// Makes the request what the agent's server is to get, or an answer if it is to get none.
    fn prepare(
        &self,
        request: &mut Request,
        asked: Result<Asked, Notice>,
        peer: IpAddr,
    ) -> Result<Box<Passage>, Box<Response>> {
        if !(peer.is_loopback() || asked.as_ref().is_ok_and(|asked| asked.is_public)) {
            let said = "previews under localhost are for the broker's own host\n";
            return Err(Box::new((StatusCode::FORBIDDEN, said).into_response()));
        }
        let reader = Reader::of(request);
        let instead = |notice: Notice| Box::new(notice.answer(reader));
        if self.mark.as_ref().is_some_and(|mark| headers::goes_round(request.headers(), mark)) {
            let hint = "an agent's server passes it on to a preview that leads back to it".to_owned();
            let said = "this request goes round in circles".to_owned();
            return Err(instead(Notice { status: StatusCode::LOOP_DETECTED, said, hint, passes: false }));
        }
        let Asked { address, proto, is_public: _ } = asked.map_err(instead)?;
        let to = self.find(&address).map_err(instead)?;
        let host = headers::host(request);
        let own_scheme = || self.core.listen.as_ref().map_or("http", crate::listen::Address::scheme);
        let proto = proto.unwrap_or_else(own_scheme);
        let upgrade = Upgrade::wanted(request);
        if request.method() == Method::CONNECT {
            let said = "CONNECT leads nowhere from a preview".to_owned();
            let hint = "use an HTTP request, or a WebSocket".to_owned();
            return Err(instead(Notice { status: StatusCode::NOT_IMPLEMENTED, said, hint, passes: false }));
        }
        // To a server itself goes the path alone (RFC 9112, section 3.2.1).
        *request.uri_mut() = request.uri().path_and_query().cloned().map_or_else(Uri::default, Uri::from);
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        headers::strip_hop_by_hop(headers, matches!(upgrade, Some(Upgrade { of_stream: false, .. })));
        headers::strip_session(headers, &self.token);
        headers::add_forwarded(headers, peer, &host, proto);
        if let Some(mark) = &self.mark {
            headers::mark_passage(headers, mark.clone());
        }
        let (sent_host, site) = match self.core.settings.server.broker.preview_host {
            PreviewHost::Keep => (host.clone(), Site { proto: proto.into(), host }),
            PreviewHost::Localhost => {
                let localhost = headers::localhost(to.port());
                let site = headers::ask_as_localhost(headers, &localhost, &host);
                (localhost, site)
            }
        };
        headers.insert(HOST, sent_host.clone());
        if upgrade.as_ref().is_some_and(|upgrade| upgrade.of_stream) {
            headers::ask_for_websocket(headers);
        }
        // In a box, as what is made for each request is to be small.
        Ok(Box::new(Passage { agent: address.key, to, site, sent_host, reader, upgrade }))
    }

    /// Asks with a body, or for what becomes something else.
    async fn ask_with_body(&self, passage: Box<Passage>, mut request: Request) -> Response {
        // Without a length it goes in chunks; a `GET` would else go without its body.
        if !request.body().is_end_stream() && !request.headers().contains_key(CONTENT_LENGTH) {
            request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let becomes_other = passage.upgrade.is_some();
        let answered = self.connections.ask_with_body(passage.to, request, becomes_other).await;
        let mut response = passage.end(answered);
        if let Some(upgrade) = passage.upgrade
            && response.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            if upgrade.of_stream {
                // To HTTP/2 the stream is what was asked for (RFC 8441, section 5).
                *response.status_mut() = StatusCode::OK;
                headers::strip_hop_by_hop(response.headers_mut(), false);
                headers::strip_websocket_key(response.headers_mut());
            }
            self.join(upgrade.client, hyper::upgrade::on(&mut response));
        }
        response
    }

    /// Passes bytes both ways until one side goes away, of which the other is told by the end of its connection.
    fn join(&self, client: OnUpgrade, agent: OnUpgrade) {
        let ended = self.core.shutdown.clone();
        tokio::spawn(async move {
            let (Ok(client), Ok(agent)) = tokio::join!(client, agent) else { return };
            ended.run_until_cancelled(join::join(TokioIo::new(client), TokioIo::new(agent))).await;
        });
    }
}

/// What a request is about.
struct Asked {
    address: Address,
    /// The scheme that people use, if it came under a name of the settings.
    proto: Option<&'static str>,
    /// Whether that name may lead here from anywhere.
    is_public: bool,
}

/// A request on its way to an agent's server.
struct Passage {
    agent: AgentKey,
    to: Reach,
    /// Where people find it, and the host that the server is told.
    site: Site,
    sent_host: HeaderValue,
    reader: Reader,
    upgrade: Option<Upgrade>,
}

impl Passage {
    /// The answer as the client is to get it. What failed is for the log.
    fn end<B>(&self, answered: Result<hyper::Response<B>, Trouble>) -> Response
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let is_upgrade =
            answered.as_ref().is_ok_and(|response| response.status() == StatusCode::SWITCHING_PROTOCOLS);
        let answered = match (answered, &self.upgrade) {
            (Ok(_), None) if is_upgrade => Err(Trouble::Unasked),
            // To HTTP/2 any success would be the WebSocket.
            (Ok(response), Some(Upgrade { of_stream: true, .. })) if response.status().is_success() => {
                Err(Trouble::NoWebSocket(response.status()))
            }
            (answered, _) => answered,
        };
        let mut response = match answered {
            Ok(response) => response.map(Body::new),
            Err(error) => {
                tracing::debug!(agent = %self.agent, %error, "a preview has no answer");
                let notice = error.notice(&shown(&self.agent), self.to.port());
                return notice.answer(self.reader);
            }
        };
        // It is of one connection, as what concerns it is.
        *response.version_mut() = Version::HTTP_11;
        let headers = response.headers_mut();
        headers::strip_hop_by_hop(headers, is_upgrade);
        headers::confine_cookies(headers);
        headers::lead_back(headers, &self.sent_host, &self.site);
        response
    }
}

/// A request that is to become something else than HTTP.
struct Upgrade {
    client: OnUpgrade,
    /// Whether it is a stream of an HTTP/2 connection, and not the whole connection.
    of_stream: bool,
}

impl Upgrade {
    /// Takes the upgrade out of a request, if it wants one: as HTTP/1.1 has it, or a WebSocket as HTTP/2 has it (RFC 8441), which
    /// becomes a request of the first form.
    fn wanted(request: &mut Request) -> Option<Self> {
        let is_websocket =
            request.extensions_mut().remove::<Protocol>().is_some_and(|it| it.as_str() == "websocket");
        let of_stream = request.method() == Method::CONNECT && is_websocket;
        let of_connection = request.version() == Version::HTTP_11 && asks_for_upgrade(request.headers());
        if !(of_stream || of_connection) {
            return None;
        }
        let client = hyper::upgrade::on(&mut *request);
        if of_stream {
            *request.method_mut() = Method::GET;
            *request.body_mut() = Body::empty();
        }
        Some(Self { client, of_stream })
    }
}

/// Whether a request is for another protocol (RFC 9110, section 7.8), other than HTTP/2, which is spoken here without being asked for.
fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let has = |name, wanted: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value: &HeaderValue| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(wanted))
    };
    headers.contains_key(UPGRADE) && has(CONNECTION, "upgrade") && !has(UPGRADE, "h2c")
}

fn no_such(said: String, hint: String) -> Notice {
    Notice { status: StatusCode::NOT_FOUND, said, hint, passes: false }
}

fn shown(key: &AgentKey) -> String {
    if key.project.as_str() == pool::DEFAULT_PROJECT { key.name.to_string() } else { key.to_string() }
}
