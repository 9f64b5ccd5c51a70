//! Puts a broker together, runs it, and ends it.
//!
//! At start: the home's lock, the ledger, the sockets, the leases from the ledger, one look at every runtime (which adopts
//! what runs and is not in the ledger), and only then the first request. At the end: no new requests, the operations
//! that are under way are waited for, agents go on running.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::Code;
use futures_util::future::join_all;
use pool::{Moment, Owner, Port, PortRange};
use runtime::process::ShimCommand;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::clock;
use crate::core::{Core, Parts, State};
use crate::home::Home;
use crate::http;
use crate::ledger::{self, Contents, Ledger, OpenError, Question};
use crate::listen::{Address, ListenError, Listener};
use crate::lock::{self, BrokerLock, LockError};
use crate::runtimes::Runtimes;
use crate::tls::{self, TlsError};
use crate::warnings::About;

/// How long, at the start, the ports of agents that run are waited for, where it is the broker that publishes them.
const RESUMING: Duration = Duration::from_secs(10);
/// How long what the broker itself runs for its runtimes has to end.
const CLOSING: Duration = Duration::from_secs(5);
/// How long the operations that are under way have to come to their end, beyond an agent's own time to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// How long a task that has panicked is let be.
const STARTED_AGAIN: Duration = Duration::from_secs(1);

/// What a broker needs.
pub struct ServeOptions {
    /// Where it keeps what it keeps.
    pub home: Home,
    /// Its settings.
    pub settings: settings::Loaded,
    /// How the `process` runtime starts its agents.
    pub shim: ShimCommand,
}

/// Why a broker did not start, or ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ServeError(#[from] Trouble);

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Ledger(#[from] OpenError),
    #[error("no thread could be started for the ledger")]
    Thread(#[source] io::Error),
    #[error("the system has no random numbers to offer: {0}")]
    Random(getrandom::Error),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("`server.broker.tls` cannot be used")]
    Tls(#[from] TlsError),
    #[error("the socket {} cannot be listened on", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("the path of the socket, {}, is longer than the {limit} bytes that a socket's path can have", path.display())]
    LongPath { path: PathBuf, limit: usize },
}

impl ServeError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match &self.0 {
            Trouble::Lock(LockError::Held { .. }) => Code::Conflict,
            Trouble::Listen(error) if error.source.kind() == io::ErrorKind::AddrInUse => Code::Conflict,
            Trouble::Listen(_) | Trouble::Tls(_) | Trouble::LongPath { .. } => Code::InvalidSettings,
            Trouble::Ledger(_) => Code::LedgerFailed,
            _ => Code::Failed,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        let hint = match &self.0 {
            Trouble::Lock(LockError::Held { what: "socket", .. }) => {
                "its home has the same XDG_RUNTIME_DIR and another XDG_STATE_HOME; BERTHOLD_HOME=DIR gives a broker everything of its own"
            }
            Trouble::Lock(LockError::Held { .. }) => {
                "`berthold broker status` shows it and `berthold broker stop` ends it; BERTHOLD_HOME=DIR gives another \
                 broker a home of its own"
            }
            Trouble::Lock(LockError::File { .. }) | Trouble::Socket { .. } => {
                "the home must be a directory that you can write to"
            }
            Trouble::Ledger(OpenError::Newer { .. }) => {
                "use the newer berthold, or another home with BERTHOLD_HOME=DIR"
            }
            Trouble::Ledger(_) => "make the home writable, or use another one with BERTHOLD_HOME=DIR",
            Trouble::Tls(_) => {
                "the certificate, with those that sign it, and its key are files in PEM that the broker can read"
            }
            Trouble::Listen(_) => {
                "choose another address, or leave `server.broker.listen` out of the settings: then a free port is taken"
            }
            Trouble::LongPath { .. } => "choose a shorter BERTHOLD_HOME or XDG_RUNTIME_DIR",
            Trouble::Thread(_) | Trouble::Random(_) => return None,
        };
        Some(hint.to_owned())
    }
}

/// Runs a broker until `shutdown` is done or it is asked to end through its API.
///
/// # Errors
/// [`ServeError`] if it cannot start.
pub async fn serve(
    options: ServeOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    Ok(run(options, shutdown).await?)
}

async fn run(options: ServeOptions, shutdown: impl Future<Output = ()> + Send) -> Result<(), Trouble> {
    let ServeOptions { home, settings, shim } = options;
    lock::private_directory(home.state())?;
    if let Some(directory) = home.socket().parent() {
        lock::private_directory(directory)?;
    }
    #[cfg(feature = "faults")]
    crate::faults::arm(home.state());
    let lock = BrokerLock::take(&home.lock(), "home")?;
    let socket_lock = home.socket_lock().map(|path| BrokerLock::take(&path, "socket")).transpose()?;
    let fresh = lock::random_token().map_err(Trouble::Random)?;
    let token = lock::kept_text(&home.token(), "the token", || fresh)?;
    // A broker that has an id has had a ledger.
    let is_lost = home.id().exists() && ledger::is_missing(&home.ledger());
    let id = lock::kept_text(&home.id(), "the broker's id", || ulid::Ulid::generate().to_string())?;
    let (connection, contents, damage) = ledger::open(&home.ledger())?;
    let ledger = Ledger::start(connection).map_err(Trouble::Thread)?;

    let wanted = &settings.settings.server.broker;
    let tls = wanted.tls.as_ref().map(tls::acceptor).transpose()?;
    let listener = Listener::bind(wanted.listen, tls).await?;
    let address = listener.as_ref().map(Listener::address).cloned();
    let own_port = address.as_ref().and_then(|address| Port::new(address.socket.port()));
    let mut state = State::new(&settings.settings, own_port.map(PortRange::single));
    if let Some(damage) = damage {
        let kept = damage.kept.display();
        let text = format!(
            "the ledger was damaged ({}); it is kept as {kept}, and the leases are rebuilt from what runs",
            damage.reason
        );
        tracing::error!("{text}");
        state.warnings.insert(About::Ledger, text);
    }
    if is_lost {
        let path = home.ledger();
        let text = format!(
            "the ledger {} is gone; the leases are rebuilt from what runs, and those of `berthold lease` are lost",
            path.display()
        );
        tracing::error!("{text}");
        state.warnings.insert(About::Ledger, text);
    }
    enter(&mut state, contents);
    let pool = settings.settings.server.broker.port_pool.as_ref();
    if let Some(cool_down) = pool.map(|pool| pool.cool_down).filter(|it| !it.is_zero()) {
        recall(&mut state, &home.ledger(), cool_down);
    }
    let runtimes = Runtimes::new(&settings.settings, &home, shim);
    let shutdown_token = CancellationToken::new();
    let core = Arc::new(Core::new(Parts {
        id,
        home,
        settings,
        listen: address,
        runtimes,
        ledger,
        state,
        shutdown: shutdown_token.clone(),
    }));
    announce(&core, own_port);
    let running = take_up(&core).await;

    let socket = bind_socket(core.home.socket())?;
    let reconciler = keep_up(&core);
    let servers = tokio::spawn(http::serve(Arc::clone(&core), socket, listener, token));
    tracing::info!(
        socket = %core.home.socket().display(),
        listen = core.listen.as_ref().map_or_else(|| "none".to_owned(), Address::url),
        agents = running,
        "ready"
    );
    tokio::select! {
        () = shutdown => {}
        () = shutdown_token.cancelled() => {}
    }
    shutdown_token.cancel();
    tracing::info!("ending; agents go on running");
    core.tasks.close();
    let limit = core.settings.server.broker.stop_timeout + DRAIN;
    if timeout(limit, core.tasks.wait()).await.is_err() {
        tracing::warn!("some operations did not come to an end; the next broker takes them up");
    }
    // The servers have been told to end; what still streams is cut.
    if timeout(Duration::from_secs(1), servers).await.is_err() {
        tracing::debug!("connections were cut");
    }
    reconciler.abort();
    let closed = join_all(core.runtimes.usable().map(|runtime| async move { runtime.close().await }));
    if timeout(CLOSING, closed).await.is_err() {
        tracing::warn!("what the broker started for its runtimes has not ended in time");
    }
    // A socket that nobody listens on would only puzzle; that it is gone already is fine.
    drop(std::fs::remove_file(core.home.socket()));
    // What has not come to its end could else write to it beside the next broker.
    if timeout(CLOSING, core.ledger.close()).await.is_err() {
        tracing::warn!("the ledger could not be closed in time");
        // The end of this process is that of its locks.
        std::mem::forget((lock, socket_lock));
    }
    Ok(())
}

/// Takes up what an earlier broker left: looks at every runtime, and watches what holds a lease. How many agents do.
pub(crate) async fn take_up(core: &Arc<Core>) -> usize {
    core.reconcile_all().await;
    let running: Vec<_> =
        core.state().agents.values().filter(|agent| agent.lease.is_some()).cloned().collect();
    let resumed = running.iter().filter_map(|record| {
        let (runtime, id) = (core.runtimes.get(&record.runtime).ok()?, record.container.as_deref()?);
        let lease = &record.lease.as_ref()?.id;
        Some(async move { core.resume(&record.key, lease, runtime.as_ref(), id).await })
    });
    // What does not come to its end here, the watchers go on with.
    drop(timeout(RESUMING, join_all(resumed)).await);
    for record in &running {
        core.watch(record);
    }
    core.state().taken_up = Some(Instant::now());
    let held: Vec<_> = core.state().bare.values().cloned().collect();
    for bare in &held {
        core.watch_held(bare);
    }
    running.len()
}

/// Starts what keeps ledger and runtimes in agreement for as long as the broker runs: the timer, which is returned, and what listens
/// to each runtime.
pub(crate) fn keep_up(core: &Arc<Core>) -> JoinHandle<()> {
    for runtime in core.runtimes.names() {
        let (name, core) = (format!("the listener to {runtime}"), Arc::clone(core));
        let listen = move || Arc::clone(&core).keep_listening(runtime);
        tokio::spawn(supervised(name, listen));
    }
    let core = Arc::clone(core);
    tokio::spawn(supervised("the reconciler".to_owned(), move || Arc::clone(&core).keep_reconciling()))
}

/// Runs a task that must go on for as long as the broker runs. A panic in it is a bug, which is told, and must not be the end of
/// what agents rely on.
async fn supervised<T: Future<Output = ()> + Send + 'static>(name: String, task: impl Fn() -> T) {
    // Whoever ends this ends the task with it.
    while let Err(error) = AbortOnDropHandle::new(tokio::spawn(task())).await {
        if !error.is_panic() {
            return;
        }
        tracing::error!(%error, "BUG: {name} has panicked; it is started again");
        tokio::time::sleep(STARTED_AGAIN).await;
    }
}

/// Enters into the pool what the ledger holds.
pub(crate) fn enter(state: &mut State, contents: Contents) {
    for agent in contents.agents {
        let owner = Owner::Agent(agent.key.clone());
        match &agent.lease {
            Some(lease) => {
                if let Err(clash) = state.pool.reserve(lease.id.clone(), owner, &lease.ports, lease.since) {
                    tracing::error!(agent = %agent.key, %clash, "BUG: the ledger has a port in two leases");
                    continue;
                }
            }
            None => state.pool.remember(owner, &agent.former, agent.released_at.unwrap_or_default()),
        }
        state.agents.insert(agent.key.clone(), agent);
    }
    for bare in contents.bare {
        let (owner, lease) = (Owner::Bare(bare.key.clone()), &bare.lease);
        if let Err(clash) = state.pool.reserve(lease.id.clone(), owner, &lease.ports, lease.since) {
            tracing::error!(owner = %bare.key, %clash, "BUG: the ledger has a port in two leases");
            continue;
        }
        state.bare.insert(bare.key.clone(), bare);
    }
    for (key, former) in contents.former {
        state.pool.remember(Owner::Bare(key.clone()), &former.ports, former.released_at);
        state.former.insert(key, former);
    }
    state.told_before = contents.told;
}

/// Has the ports cool down that were released a moment ago, by whichever broker.
fn recall(state: &mut State, path: &Path, cool_down: Duration) {
    let since =
        Moment(clock::now().0.saturating_sub(i64::try_from(cool_down.as_millis()).unwrap_or(i64::MAX)));
    let question = Question { port: None, owner: None, since: Some(since), limit: u32::MAX };
    match ledger::read_history(path, &question) {
        Ok(rows) => {
            for (port, until) in rows.iter().filter_map(|row| Some((row.port, row.until?))) {
                state.pool.recall(port, until);
            }
        }
        // They are handed out a little early.
        Err(error) => tracing::warn!(%error, "which ports were released last is not known"),
    }
}

/// Says in the log, and in the status, what a person should know of these settings.
fn announce(core: &Core, own_port: Option<Port>) {
    let Some(pool) = &core.settings.server.broker.port_pool else {
        tracing::info!("no port pool is configured: agents get no ports");
        return;
    };
    let free = core.state().pool.counts(clock::now()).free;
    tracing::info!(
        range = %pool.range,
        ports_per_agent = pool.ports_per_agent,
        free,
        host_url = pool.host_url.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string),
        bind_address = %pool.bind_address,
        "port pool"
    );
    let (size, guarded) = {
        let state = core.state();
        (state.pool.size(), state.guards.limit())
    };
    if pool.guards && guarded < size {
        let text = format!(
            "only {guarded} of the {size} ports in the pool {} can be guarded while they are idle: the limit of open files is too \
             low for more (`ulimit -n`, LimitNOFILE); `server.broker.port_pool.guards: false` does without",
            pool.range
        );
        tracing::warn!("{text}");
        core.state().warnings.insert(About::Guards, text);
    }
    if let Some(port) = own_port.filter(|port| pool.range.contains(*port)) {
        let text =
            format!("the pool {} covers the broker's own port {port}, which is left out of it", pool.range);
        tracing::warn!("{text}");
        core.state().warnings.insert(About::OwnPort, text);
    }
    if let Some(ephemeral) = unreserved_ephemeral_overlap(pool.range) {
        let text = format!(
            "the pool {} meets the kernel's ephemeral range {ephemeral}, from which outgoing connections take their ports; \
             reserve it with `sysctl net.ipv4.ip_local_reserved_ports={}`, or choose another range",
            pool.range, pool.range
        );
        tracing::warn!("{text}");
        core.state().warnings.insert(About::EphemeralRange, text);
    }
}

/// The kernel's ephemeral range (ip(7), `ip_local_port_range`), if `range` meets it and is not wholly reserved
/// (`ip_local_reserved_ports`).
fn unreserved_ephemeral_overlap(range: PortRange) -> Option<PortRange> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    let text = read("ip_local_port_range")?;
    let ephemeral: PortRange = text.split_whitespace().collect::<Vec<_>>().join("-").parse().ok()?;
    let reserved: Vec<PortRange> = read("ip_local_reserved_ports")
        .unwrap_or_default()
        .trim()
        .split(',')
        .filter_map(|part| part.parse().ok())
        .collect();
    let is_exposed =
        |port: Port| ephemeral.contains(port) && !reserved.iter().any(|range| range.contains(port));
    range.ports().any(is_exposed).then_some(ephemeral)
}

/// Listens on the Unix socket, which only its owner can open. A socket file that is there is a dead broker's: the locks say
/// that there is no other one.
fn bind_socket(path: &std::path::Path) -> Result<UnixListener, Trouble> {
    use std::os::unix::fs::PermissionsExt;

    // sockaddr_un(7): 108 bytes with the terminating NUL on Linux, 104 elsewhere.
    let limit = if cfg!(target_os = "linux") { 107 } else { 103 };
    if path.as_os_str().len() > limit {
        return Err(Trouble::LongPath { path: path.to_owned(), limit });
    }
    let failed = |source| Trouble::Socket { path: path.to_owned(), source };
    // Bound under another name first, so that the socket is never there with other rights than its own.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = if beside.len() > limit { path.as_os_str().to_owned() } else { beside };
    for stale in [path.as_os_str(), &beside] {
        match std::fs::remove_file(stale) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    let listener = UnixListener::bind(&beside).map_err(failed)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    if *beside != *path.as_os_str() {
        std::fs::rename(&beside, path).map_err(failed)?;
    }
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_started_again() {
        let starts = Arc::new(AtomicU32::new(0));
        let task = {
            let starts = Arc::clone(&starts);
            move || {
                let start = starts.fetch_add(1, Ordering::Relaxed);
                async move { assert!(start >= 2, "a bug") }
            }
        };
        supervised("a task".to_owned(), task).await;
        assert_eq!(starts.load(Ordering::Relaxed), 3);
    }
}
