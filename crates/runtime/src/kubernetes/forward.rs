//! Publishes the ports of pods on this host: the broker listens, and passes each connection on through the API server.
//!
//! Every connection has a way of its own into the pod, as a connection of this kind has no flow control between its streams: a
//! slow reader would hold up all others.
//!
//! Nodes do not pass the end of one direction on. containerd tells the pod nothing, and ends the other direction a second later
//! (<https://github.com/containerd/containerd/blob/main/internal/cri/server/sandbox_portforward_linux.go>); socat, which others use, does tell the pod,
//! and ends the other direction after half a second (<https://linux.die.net/man/1/socat>, `-t`). An answer that takes longer would be cut off. So the end
//! of what a client sends is kept back until nothing has come from the pod for a while ([`QUIET`]).
//!
//! **Limits.** A server that answers only once it has read to the end gets no end where the node is containerd's. An answer of which nothing comes for
//! as long as that is cut off all the same, for a client that has ended its direction. A client that is gone looks like one that waits: its way
//! into the pod, two descriptors and a connection to the API server, stays for as long, too.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::connection::Connections;
use super::session::{self, Io};
use super::spdy::{Connection, Outgoing, Reading};
use crate::{ErrorKind, Publish, RuntimeError};

/// The protocol of the streams.
const PROTOCOL: &str = "portforward.k8s.io";
/// What is read from a connection at once.
const CHUNK: usize = 64 * 1024;
/// How long a pod has to refuse a connection, before it counts as accepted.
const REFUSAL: Duration = Duration::from_secs(3);
/// How long the rest of an answer may take after the node has complained of the connection.
const REST: Duration = Duration::from_secs(2);
/// How long the end of a connection on which nothing came waits for a complaint.
const HEARING: Duration = Duration::from_millis(20);
/// How long nothing must have come from the pod before the end of what a client sends is passed on. Who sends to the end and hears nothing, and who has
/// gone, cannot be told from who waits for an answer: for them it is so much later.
const QUIET: Duration = Duration::from_secs(5);
/// How long accepting pauses when the process has no more files to open.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// The pods whose ports are published here, by the pods' ids.
#[derive(Default)]
pub(super) struct Forwards(Mutex<HashMap<String, Forward>>);

struct Forward {
    ports: Vec<Publish>,
    ending: CancellationToken,
    listening: Vec<AbortOnDropHandle<()>>,
}

impl Forward {
    /// Ends listening and the connections. Returns once all is closed, so that someone else can have the ports.
    async fn end(self) {
        self.ending.cancel();
        for listening in self.listening {
            // It can only fail by a panic, which is told elsewhere.
            drop(listening.await);
        }
    }
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
        let mut listeners = Vec::new();
        for port in ports {
            let address = SocketAddr::new(port.address, port.host);
            listeners.push(TcpListener::bind(address).await.map_err(|error| refused(address, &error))?);
        }
        let (way, ending) = (Arc::new(way), CancellationToken::new());
        let listening = listeners.into_iter().zip(ports).map(|(listener, port)| {
            let passing = accept(listener, Arc::clone(&way), port.container, ending.clone());
            AbortOnDropHandle::new(tokio::spawn(passing))
        });
        let forward = Forward { ports: ports.to_vec(), listening: listening.collect(), ending };
        let before = self.all().insert(id.to_owned(), forward);
        if let Some(before) = before {
            before.end().await;
        }
        Ok(())
    }

    /// Ends listening for the pod, and the connections to it. Returns once its ports are free.
    pub(super) async fn withdraw(&self, id: &str) {
        let forward = self.all().remove(id);
        if let Some(forward) = forward {
            forward.end().await;
        }
    }

    /// The ports of the pod that are published now.
    pub(super) fn of(&self, id: &str) -> Vec<Publish> {
        self.all().get(id).map(|forward| forward.ports.clone()).unwrap_or_default()
    }

    /// The ids of the pods whose ports are published now.
    pub(super) fn ids(&self) -> Vec<String> {
        self.all().keys().cloned().collect()
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
    pub(super) connections: Arc<Connections>,
    /// The path of the pod's port-forward.
    pub(super) path: String,
}

/// Passes on what connects, until that is to end.
async fn accept(listener: TcpListener, way: Arc<Way>, port: u16, ending: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((connection, _)) => {
                    let way = Arc::clone(&way);
                    // Whatever cuts it off, be it the end of this process, resets it: no one must take what came for all.
                    if let Err(error) = set_socket_linger(&connection, Some(Duration::ZERO)) {
                        tracing::debug!(port, %error, "a connection that is cut off will not be told from one that ended");
                    }
                    connections.spawn(async move {
                        if let Err(error) = pass(connection, &way, port).await {
                            tracing::debug!(port, %error, "a forwarded connection broke off");
                        }
                    });
                }
                // One that is gone already, or no file is left for it: the next may do better.
                Err(_) => sleep(EXHAUSTED).await,
            },
            Some(_) = connections.join_next() => {}
            () = ending.cancelled() => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Passes one connection on, each direction until it ends.
async fn pass(mut connection: TcpStream, way: &Way, port: u16) -> io::Result<()> {
    // Whoever talks in small pieces waits for answers to them.
    connection.set_nodelay(true)?;
    relay(&mut connection, way, port).await
}

/// Whether something in the pod accepts a connection to `port`. The other side says nothing of a connection that it could make;
/// but it is ended at once, and at its end there is a complaint or none.
pub(super) async fn accepts(way: &Way, port: u16) -> io::Result<bool> {
    let Passage { mut complaint, outgoing, mut incoming, _session } = Passage::open(way, port).await?;
    outgoing.finish().await?;
    let without_complaint = async {
        match complaint.recv().await {
            Some(Ok(_)) => Ok(false),
            // Some nodes cut the stream off at its end.
            Some(Err(error)) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            Some(Err(_)) | None => Ok(true),
        }
    };
    let told = timeout(REFUSAL, async {
        tokio::select! {
            biased;
            told = without_complaint => told,
            Some(Ok(_)) = incoming.recv() => Ok(true),
        }
    });
    told.await.unwrap_or(Ok(true))
}

/// A connection into a pod.
struct Passage {
    complaint: Reading,
    outgoing: Outgoing<Io>,
    incoming: Reading,
    _session: Connection<Io>,
}

impl Passage {
    async fn open(way: &Way, port: u16) -> io::Result<Self> {
        let client = way.connections.get().await.map_err(io::Error::other)?.client.clone();
        let opened = session::open(&client, "reach the pod", &way.path, &[PROTOCOL]).await;
        let mut session = opened.map_err(io::Error::other)?;
        let port = port.to_string();
        let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", "0")];
        let (complaints, complaint) = session.open(&headers("error")).await?;
        complaints.finish().await?;
        let (outgoing, incoming) = session.open(&headers("data")).await?;
        Ok(Self { complaint, outgoing, incoming, _session: session })
    }
}

async fn relay(connection: &mut TcpStream, way: &Way, port: u16) -> io::Result<()> {
    let Passage { complaint, outgoing, incoming, _session } = Passage::open(way, port).await?;
    carry(connection, outgoing, incoming, complaint).await
}

/// Passes on what comes from the client as `outgoing`, and what is `incoming` to it.
async fn carry(
    connection: &mut TcpStream,
    outgoing: Outgoing<impl AsyncRead + AsyncWrite>,
    mut incoming: Reading,
    mut complaint: Reading,
) -> io::Result<()> {
    let (mut from, mut to) = connection.split();
    let (came, is_whole) = (AtomicBool::new(false), AtomicBool::new(false));
    let answers = Answers::default();
    let up = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            match from.read(&mut buffer).await? {
                0 => break,
                length => outgoing.write(&buffer[..length]).await?,
            }
        }
        answers.end().await;
        outgoing.finish().await
    };
    let down = async {
        while let Some(piece) = incoming.recv().await {
            came.store(true, Ordering::Relaxed);
            // Who reads slowly is still being answered.
            answers.are_under_way.store(true, Ordering::Relaxed);
            to.write_all(&piece?).await?;
            answers.are_under_way.store(false, Ordering::Relaxed);
            answers.came.notify_one();
        }
        answers.are_over.store(true, Ordering::Relaxed);
        answers.came.notify_one();
        if !came.load(Ordering::Relaxed) {
            // The end of what was cut off comes together with a complaint, which then is to be heard first.
            sleep(HEARING).await;
        }
        to.shutdown().await?;
        // That was all, however the other direction ends.
        set_socket_linger(to.as_ref(), None)?;
        is_whole.store(true, Ordering::Relaxed);
        Ok(())
    };
    let mut down = pin!(down);
    let complained = tokio::select! {
        // What came before a complaint is taken before it.
        biased;
        ended = async { tokio::try_join!(up, down.as_mut()) } => return ended.map(drop),
        // Such as that nothing listens in the pod.
        Some(reason) = told(&mut complaint) => Err(io::Error::other(reason)),
    };
    if !came.load(Ordering::Relaxed) {
        return complained;
    }
    // A server may answer before it has read all, and close: the node complains of that, and the answer is whole all the same.
    let rest = async { if is_whole.load(Ordering::Relaxed) { Ok(()) } else { down.await } };
    match timeout(REST, rest).await {
        Ok(Ok(())) => {
            // What is not read would reset the connection, and take the answer with it.
            let mut rest = vec![0; CHUNK];
            let read = async { while matches!(from.read(&mut rest).await, Ok(1..)) {} };
            let _in_time = timeout(REST, read).await;
            Ok(())
        }
        _ => complained,
    }
}

/// What comes from a pod.
#[derive(Default)]
struct Answers {
    /// That something came and was passed on, or that it was the end.
    came: Notify,
    /// Whether something has come that is not passed on yet.
    are_under_way: AtomicBool,
    are_over: AtomicBool,
}

impl Answers {
    /// Waits until they are over, or nothing has come for a while.
    async fn end(&self) {
        while !self.are_over.load(Ordering::Relaxed) {
            let is_quiet = timeout(QUIET, self.came.notified()).await.is_err();
            if is_quiet && !self.are_under_way.load(Ordering::Relaxed) {
                return;
            }
        }
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use kube::{Client, Config};
    use tokio::time::Instant;

    use super::*;

    /// A way that leads nowhere.
    fn nowhere() -> Way {
        let config = Config::new("http://127.0.0.1:9".parse().unwrap());
        let connections = Arc::new(Connections::of(Client::try_from(config).unwrap()));
        Way { connections, path: "/".to_owned() }
    }

    /// A connection that a client has made, and the client.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (connection, _) = listener.accept().await.unwrap();
        set_socket_linger(&connection, Some(Duration::ZERO)).unwrap();
        (connection, client)
    }

    /// What came from a stream that has ended.
    fn came(piece: &'static str) -> Reading {
        let (sender, reading) = tokio::sync::mpsc::channel(1);
        sender.try_send(Ok(piece.into())).unwrap();
        reading
    }

    /// As of a server that answers an upload before it has read it, and closes.
    #[tokio::test]
    async fn an_answer_arrives_whole_though_the_node_complains() {
        let (mut connection, mut client) = connected().await;
        client.write_all(b"the beginning of much").await.unwrap();
        let carried = tokio::spawn(async move {
            carry(&mut connection, Outgoing::into_nothing(), came("no"), came("broken pipe")).await
        });
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "no");
        drop(client);
        carried.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_nobody_listens_to_in_the_pod_is_reset() {
        let (mut connection, mut client) = connected().await;
        let (_open, incoming) = tokio::sync::mpsc::channel(1);
        let refused = carry(&mut connection, Outgoing::into_nothing(), incoming, came("connection refused"));
        assert_eq!(refused.await.unwrap_err().to_string(), "connection refused");
        drop(connection);
        assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    /// Its end comes with the complaint.
    #[tokio::test]
    async fn what_the_pod_cuts_off_before_anything_came_is_reset() {
        let (mut connection, mut client) = connected().await;
        let (ended, incoming) = tokio::sync::mpsc::channel(1);
        drop(ended);
        let cut_off = carry(&mut connection, Outgoing::into_nothing(), incoming, came("reset by peer"));
        assert_eq!(cut_off.await.unwrap_err().to_string(), "reset by peer");
        drop(connection);
        assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_direction_waits_for_answers() {
        let answers = Arc::new(Answers::default());
        let waiting = || {
            let (answers, begin) = (Arc::clone(&answers), Instant::now());
            tokio::spawn(async move {
                answers.end().await;
                begin.elapsed()
            })
        };
        assert_eq!(waiting().await.unwrap(), QUIET, "none came");
        let slow = waiting();
        for _ in 0..3 {
            sleep(QUIET * 3 / 5).await;
            answers.came.notify_one();
        }
        assert_eq!(slow.await.unwrap(), QUIET * 3 / 5 * 3 + QUIET, "from the last piece on");
        let unread = waiting();
        answers.are_under_way.store(true, Ordering::Relaxed);
        sleep(QUIET * 7 / 2).await;
        answers.are_under_way.store(false, Ordering::Relaxed);
        answers.came.notify_one();
        assert_eq!(unread.await.unwrap(), QUIET * 9 / 2, "from when it was passed on");
        let over = waiting();
        sleep(QUIET / 5).await;
        answers.are_over.store(true, Ordering::Relaxed);
        answers.came.notify_one();
        assert_eq!(over.await.unwrap(), QUIET / 5);
    }

    async fn free_port() -> Publish {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Publish { address: Ipv4Addr::LOCALHOST.into(), host: port, container: port }
    }

    #[tokio::test]
    async fn what_is_withdrawn_is_free_at_once_and_its_connections_are_reset() {
        let (forwards, port) = (Forwards::default(), free_port().await);
        for _ in 0..20 {
            forwards.publish("web@1", &[port], nowhere()).await.unwrap();
            let mut client = TcpStream::connect((port.address, port.host)).await.unwrap();
            forwards.withdraw("web@1").await;
            let listener = std::net::TcpListener::bind((port.address, port.host));
            assert!(listener.is_ok(), "{listener:?}");
            assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn all_ports_are_published_or_none() {
        let (forwards, first, second) = (Forwards::default(), free_port().await, free_port().await);
        let _held = TcpListener::bind((second.address, second.host)).await.unwrap();
        let refused = forwards.publish("web@1", &[first, second], nowhere()).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::PortRefused { port: Some(second.host) });
        assert!(std::net::TcpListener::bind((first.address, first.host)).is_ok());
        assert_eq!((forwards.of("web@1"), forwards.ids()), (vec![], Vec::<String>::new()));
    }
}
