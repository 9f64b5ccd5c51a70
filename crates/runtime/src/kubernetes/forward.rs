//! Publishes the ports of pods on this host: the broker listens, and passes each connection on through the API server.
//!
//! Every connection has a way of its own into the pod, as a connection of this kind has no flow control between its streams: a
//! slow reader would hold up all others.
//!
//! The end of one direction is passed on as such. What a node makes of it is its own: containerd does not tell the pod, and ends
//! the other direction a second later
//! (<https://github.com/containerd/containerd/blob/main/pkg/cri/server/sandbox_portforward_linux.go>).

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::session;
use super::spdy::Reading;
use crate::{ErrorKind, Publish, RuntimeError};

/// The protocol of the streams.
const PROTOCOL: &str = "portforward.k8s.io";
/// What is read from a connection at once.
const CHUNK: usize = 64 * 1024;
/// How long accepting pauses when the process has no more files to open.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// The pods whose ports are published here, by the pods' ids.
#[derive(Default)]
pub(super) struct Forwards(Mutex<HashMap<String, Forward>>);

struct Forward {
    ports: Vec<Publish>,
    _listening: Vec<AbortOnDropHandle<()>>,
}

impl Forwards {
    /// Publishes the ports of the pod of this id, if they are not yet. All of them or none.
    ///
    /// # Errors
    /// [`ErrorKind::PortRefused`] if someone else has one of them.
    pub(super) async fn publish(&self, id: &str, ports: &[Publish], way: Way) -> Result<(), RuntimeError> {
        if self.of(id) == ports {
            return Ok(());
        }
        let way = Arc::new(way);
        let mut listening = Vec::new();
        for port in ports {
            let address = SocketAddr::new(port.address, port.host);
            let listener = TcpListener::bind(address).await.map_err(|error| refused(address, &error))?;
            let passing = accept(listener, Arc::clone(&way), port.container);
            listening.push(AbortOnDropHandle::new(tokio::spawn(passing)));
        }
        self.all().insert(id.to_owned(), Forward { ports: ports.to_vec(), _listening: listening });
        Ok(())
    }

    /// Ends listening for the pod, and the connections to it.
    pub(super) fn withdraw(&self, id: &str) {
        // Dropped after the lock.
        let _forward = self.all().remove(id);
    }

    /// The ports of the pod that are published now.
    pub(super) fn of(&self, id: &str) -> Vec<Publish> {
        self.all().get(id).map(|forward| forward.ports.clone()).unwrap_or_default()
    }

    /// Withdraws the pods whose ids are not among these.
    pub(super) fn keep(&self, is_there: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.all().keys().filter(|id| !is_there(id)).cloned().collect();
        gone.iter().for_each(|id| self.withdraw(id));
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<String, Forward>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(address: SocketAddr, error: &io::Error) -> RuntimeError {
    let kind = match error.kind() {
        io::ErrorKind::AddrInUse => ErrorKind::PortRefused { port: Some(address.port()) },
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::PermissionDenied => ErrorKind::Invalid,
        _ => ErrorKind::Other,
    };
    let error = RuntimeError::new(kind.clone(), format!("the broker cannot listen on {address}: {error}"));
    if kind == ErrorKind::Invalid {
        error.hint("see bind_address and the range of the port pool")
    } else {
        error
    }
}

/// The way into a pod.
pub(super) struct Way {
    pub(super) client: Client,
    /// The path of the pod's port-forward.
    pub(super) path: String,
}

/// Passes on what connects, until it is dropped.
async fn accept(listener: TcpListener, way: Arc<Way>, port: u16) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((connection, _)) => {
                    let way = Arc::clone(&way);
                    connections.spawn(async move {
                        if let Err(error) = pass(connection, &way, port).await {
                            tracing::debug!(port, %error, "a forwarded connection broke off");
                        }
                    });
                }
                // One that is gone already, or no file is left for it: the next may do better.
                Err(_) => tokio::time::sleep(EXHAUSTED).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Passes one connection on, each direction until it ends.
async fn pass(connection: TcpStream, way: &Way, port: u16) -> io::Result<()> {
    // Whoever talks in small pieces waits for answers to them.
    connection.set_nodelay(true)?;
    let opened = session::open(&way.client, "reach the pod", &way.path, &[PROTOCOL]).await;
    let mut session = opened.map_err(io::Error::other)?;
    let port = port.to_string();
    let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", "0")];
    let (complaints, mut complaint) = session.open(&headers("error")).await?;
    complaints.finish().await?;
    let (outgoing, mut incoming) = session.open(&headers("data")).await?;
    let (mut from, mut to) = connection.into_split();
    let up = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            match from.read(&mut buffer).await? {
                0 => return outgoing.finish().await,
                length => outgoing.write(&buffer[..length]).await?,
            }
        }
    };
    let down = async {
        while let Some(piece) = incoming.recv().await {
            to.write_all(&piece?).await?;
        }
        to.shutdown().await
    };
    tokio::select! {
        ended = async { tokio::try_join!(up, down) } => ended.map(drop),
        // Such as that nothing listens in the pod.
        Some(reason) = told(&mut complaint) => Err(io::Error::other(reason)),
    }
}

/// What the other side has to complain of; none if it ends without a word.
async fn told(complaint: &mut Reading) -> Option<String> {
    let mut told = Vec::new();
    while let Some(Ok(piece)) = complaint.recv().await {
        told.extend_from_slice(&piece);
    }
    Some(String::from_utf8_lossy(&told).trim().to_owned()).filter(|text| !text.is_empty())
}
