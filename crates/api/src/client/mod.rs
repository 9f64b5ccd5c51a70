//! The client that speaks to a broker, on its Unix socket or over TCP.
//!
//! A connection is made for each request, so that a broker which was restarted in between is no special case. Making it is
//! bounded, and so are calls behind which there is nothing long; a start may pull an image and takes as long as it takes.
//! Nothing is repeated: whether a request may be sent twice is the caller's to know (those of agents may).

mod call;
mod connection;
mod endpoint;
mod error;
mod leases;
mod sse;

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use hyper::header::{CONNECTION, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{HeaderMap, Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_util::codec::Framed;

use crate::exec::{FrameCodec, PROTOCOL, STREAMS};
use crate::{
    Agent, AgentDocument, AgentsDocument, AttachRequest, Broker, BrokerDocument, Event, Events, ExecRequest,
    HistoryDocument, HistoryQuery, Pool, PoolDocument, Reconciliation, ReconciliationDocument,
    RestartRequest, Session, SessionDocument, StartRequest, StopRequest,
};
use call::Call;
pub use endpoint::{Endpoint, EndpointError};
pub use error::ClientError;

/// Speaks to one broker.
#[derive(Clone)]
pub struct Client {
    endpoint: Endpoint,
    token: Option<String>,
}

/// Frames to and from a command that runs beside an agent.
pub type ExecConnection = Framed<TokioIo<Upgraded>, FrameCodec>;

/// A connection to an agent's own standard streams.
pub struct Attachment {
    /// Their frames.
    pub connection: ExecConnection,
    /// Whether what is sent reaches the agent: it was asked for, and its standard input is open.
    pub stdin: bool,
    /// Whether the streams are a terminal.
    pub terminal: bool,
}

impl Client {
    /// A client of the broker at `endpoint`. A Unix socket needs no token.
    pub fn new(endpoint: Endpoint, token: Option<String>) -> Self {
        Self { endpoint, token }
    }

    /// Where the broker is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether the broker takes requests.
    ///
    /// # Errors
    /// [`ClientError`] if it does not answer, or is being shut down.
    pub async fn ready(&self) -> Result<(), ClientError> {
        let call = Call::new(Method::GET, &["readyz"]).accept("text/plain").within(Duration::from_secs(2));
        let response = self.send(&call).await?;
        match response.status() {
            StatusCode::OK => Ok(()),
            status => Err(self.protocol(&call, format!("{status}"))),
        }
    }

    /// What the broker says of itself.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn broker(&self) -> Result<Broker, ClientError> {
        let call = Call::new(Method::GET, &["v1", "broker"]);
        Ok(self.document::<BrokerDocument>(&call).await?.broker)
    }

    /// How the broker itself is. No runtime is asked for that, and none is in the answer.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn broker_alone(&self) -> Result<Broker, ClientError> {
        let call = Call::new(Method::GET, &["v1", "broker"]).query("runtimes", "false");
        Ok(self.document::<BrokerDocument>(&call).await?.broker)
    }

    /// Asks the broker to end. It answers before it has ended.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn shutdown(&self) -> Result<(), ClientError> {
        self.succeed(&Call::new(Method::POST, &["v1", "shutdown"])).await.map(drop)
    }

    /// The pool, with the ports that are not free, or with `all` of them.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn pool(&self, all: bool) -> Result<Pool, ClientError> {
        let call = Call::new(Method::GET, &["v1", "pool"]);
        let call = if all { call.query("all", "true") } else { call };
        Ok(self.document::<PoolDocument>(&call).await?.pool)
    }

    /// Has the broker look at every runtime now, and says where it did not agree with the ledger; with `dry_run` nothing is done
    /// about that.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn reconcile(&self, dry_run: bool) -> Result<Reconciliation, ClientError> {
        let call = Call::new(Method::POST, &["v1", "reconcile"]).unlimited();
        let call = if dry_run { call.query("dry_run", "true") } else { call };
        Ok(self.document::<ReconciliationDocument>(&call).await?.reconciliation)
    }

    /// Who held which port when.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn history(&self, query: &HistoryQuery) -> Result<HistoryDocument, ClientError> {
        let mut call = Call::new(Method::GET, &["v1", "history"]);
        let (port, limit) = (query.port.map(|it| it.to_string()), query.limit.map(|it| it.to_string()));
        let pairs = [("port", &port), ("agent", &query.agent), ("since", &query.since), ("limit", &limit)];
        for (name, value) in pairs {
            if let Some(value) = value {
                call = call.query(name, value);
            }
        }
        self.document(&call).await
    }

    /// The agents of a project, or all, by project and name.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn agents(&self, project: Option<&str>) -> Result<Vec<Agent>, ClientError> {
        let call = Call::new(Method::GET, &["v1", "agents"]);
        let call = match project {
            Some(project) => call.query("project", project),
            None => call,
        };
        Ok(self.document::<AgentsDocument>(&call).await?.agents)
    }

    /// One agent.
    ///
    /// # Errors
    /// [`ClientError`]; a problem `no_such_agent` if there is none of that name.
    pub async fn agent(&self, project: &str, name: &str) -> Result<Agent, ClientError> {
        let call = Call::agent(Method::GET, project, name, &[]);
        Ok(self.document::<AgentDocument>(&call).await?.agent)
    }

    /// Starts an agent, or gives the one that runs; tells whether it was started.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn start(
        &self,
        project: &str,
        name: &str,
        request: &StartRequest,
    ) -> Result<(Agent, bool), ClientError> {
        let call = Call::agent(Method::PUT, project, name, &[]).body(request).unlimited();
        let response = self.succeed(&call).await?;
        let created = response.status() == StatusCode::CREATED;
        let document: AgentDocument = self.read(&call, response).await?;
        Ok((document.agent, created))
    }

    /// Stops an agent; none if the broker knows none of that name.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn stop(
        &self,
        project: &str,
        name: &str,
        request: &StopRequest,
    ) -> Result<Option<Agent>, ClientError> {
        self.agent_if_any(&Call::agent(Method::POST, project, name, &["stop"]).body(request).unlimited())
            .await
    }

    /// Stops an agent if it runs, and starts it again.
    ///
    /// # Errors
    /// [`ClientError`]; a problem `no_such_agent` if there is none of that name.
    pub async fn restart(
        &self,
        project: &str,
        name: &str,
        request: &RestartRequest,
    ) -> Result<Agent, ClientError> {
        let call = Call::agent(Method::POST, project, name, &["restart"]).body(request).unlimited();
        Ok(self.document::<AgentDocument>(&call).await?.agent)
    }

    /// Stops an agent if it runs, and forgets it; with `force` also if its runtime cannot be asked. Gives it as it was; none if
    /// the broker knows none of that name.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn delete(
        &self,
        project: &str,
        name: &str,
        request: &StopRequest,
        force: bool,
    ) -> Result<Option<Agent>, ClientError> {
        let call = Call::agent(Method::DELETE, project, name, &[]).unlimited();
        let call = match request.timeout_ms {
            Some(timeout) => call.query("timeout_ms", &timeout.to_string()),
            None => call,
        };
        let call = if force { call.query("force", "true") } else { call };
        self.agent_if_any(&call).await
    }

    async fn agent_if_any(&self, call: &Call) -> Result<Option<Agent>, ClientError> {
        let response = self.succeed(call).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let document: AgentDocument = self.read(call, response).await?;
        Ok(Some(document.agent))
    }

    /// What an agent wrote: only the last `tail` lines if given, and with `follow` also what it writes from now on.
    ///
    /// # Errors
    /// [`ClientError`], also in the middle of the stream.
    pub async fn logs(
        &self,
        project: &str,
        name: &str,
        follow: bool,
        tail: Option<usize>,
    ) -> Result<BoxStream<'static, Result<Bytes, ClientError>>, ClientError> {
        let mut call = Call::agent(Method::GET, project, name, &["logs"]).accept("text/plain").unlimited();
        if follow {
            call = call.query("follow", "true");
        }
        if let Some(tail) = tail {
            call = call.query("tail", &tail.to_string());
        }
        self.stream(call).await
    }

    /// The changes that the broker tells of from now on. Kinds of events that this client does not know are passed over.
    ///
    /// # Errors
    /// [`ClientError`], also in the middle of the stream.
    pub async fn events(
        &self,
        events: &Events,
    ) -> Result<BoxStream<'static, Result<Event, ClientError>>, ClientError> {
        let mut call = Call::new(Method::GET, &["v1", "events"]).accept("text/event-stream");
        if let Some(agent) = &events.agent {
            call = call.query("agent", agent);
        }
        let shown = call.to_string();
        let bytes = self.stream(call).await?;
        let endpoint = self.endpoint.clone();
        let mut parser = sse::Parser::default();
        let events = bytes.map(move |bytes| {
            let wrong = |reason: String| ClientError::Protocol {
                endpoint: endpoint.clone(),
                call: shown.clone(),
                reason,
            };
            let messages = parser.push(&bytes?).map_err(|error| wrong(error.to_string()))?;
            let events = messages.into_iter().filter_map(|message| event(&message).transpose());
            let events: Vec<_> =
                events.map(|event| event.map_err(|error| wrong(error.to_string()))).collect();
            Ok(stream::iter(events))
        });
        Ok(events.try_flatten().boxed())
    }

    /// Asks for a URL that lets one browser in.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn session(&self) -> Result<Session, ClientError> {
        Ok(self.document::<SessionDocument>(&Call::new(Method::POST, &["v1", "sessions"])).await?.session)
    }

    /// Runs a command beside an agent.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn exec(
        &self,
        project: &str,
        name: &str,
        request: &ExecRequest,
    ) -> Result<ExecConnection, ClientError> {
        let call = Call::agent(Method::POST, project, name, &["exec"]).body(request).unlimited();
        Ok(self.upgraded(call).await?.0)
    }

    /// Attaches to an agent's own standard streams.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn attach(
        &self,
        project: &str,
        name: &str,
        request: &AttachRequest,
    ) -> Result<Attachment, ClientError> {
        let call = Call::agent(Method::POST, project, name, &["attach"]).body(request).unlimited();
        let (connection, headers) = self.upgraded(call).await?;
        let streams = headers.get(STREAMS).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let has = |name| streams.split(',').any(|stream| stream.trim() == name);
        Ok(Attachment { connection, stdin: has("stdin"), terminal: has("terminal") })
    }

    async fn upgraded(&self, mut call: Call) -> Result<(ExecConnection, HeaderMap), ClientError> {
        call.headers = vec![(CONNECTION.as_str(), "upgrade"), (UPGRADE.as_str(), PROTOCOL)];
        let response = self.succeed(&call).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.protocol(&call, format!("{} in place of 101", response.status())));
        }
        let headers = response.headers().clone();
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| self.broken_off(&call, error))?;
        Ok((Framed::new(TokioIo::new(upgraded), FrameCodec), headers))
    }

    async fn stream(
        &self,
        call: Call,
    ) -> Result<BoxStream<'static, Result<Bytes, ClientError>>, ClientError> {
        let response = self.succeed(&call).await?;
        let client = self.clone();
        let bytes = response.into_body().into_data_stream();
        Ok(bytes.map_err(move |error| client.broken_off(&call, error)).boxed())
    }
}

/// The event in a message; none if it is of a kind that is not known here.
fn event(message: &sse::Message) -> Result<Option<Event>, serde_json::Error> {
    match &*message.event {
        "agent" | "agent_deleted" | "progress" | "pool" | "broker" | "missed" => {
            serde_json::from_str(&message.data).map(Some)
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;
