//! The client of a cluster, and when another one takes its place.
//!
//! A kubeconfig changes while a broker runs: credentials are renewed, a local cluster is created anew on another port. So it is read again
//! when its files have changed. The context stays the one that was current at first: whoever turns `kubectl` to another cluster does not
//! mean the agents that run. Nor does who writes a first kubeconfig where the broker runs in a cluster.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use super::held;
use super::refusal::{refused, unreachable};
use crate::RuntimeError;

/// How long a changed kubeconfig that could not be used is not tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// A client, and what it speaks to.
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) endpoint: String,
    /// Whether the API server is on this host.
    pub(super) is_near: bool,
    source: Source,
}

/// Where a client's configuration comes from. Another one would be another cluster.
#[derive(Clone)]
enum Source {
    /// This context of the kubeconfig.
    File(Option<String>),
    /// The cluster in which this process runs.
    Inside,
}

/// The files of the kubeconfig with their lengths and when they were changed.
type Stamp = Vec<(PathBuf, Option<(SystemTime, u64)>)>;

/// The client in use.
pub(super) struct Connections {
    /// The context that the settings name.
    context: Option<String>,
    known: Mutex<Option<Known>>,
    /// Held by the one that makes a client: it may have to run a command that signs in.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Known {
    stamp: Stamp,
    connected: Arc<Connected>,
    /// When another stamp was last tried in vain, and which.
    failed: Option<(Instant, Stamp)>,
}

impl Known {
    /// Whether nothing is to be read anew for now.
    fn holds(&self, stamp: &Stamp) -> bool {
        self.stamp == *stamp || self.failed.as_ref().is_some_and(|(at, _)| at.elapsed() < AGAIN)
    }
}

impl Connections {
    /// For that context, or for the one that is current when it is first asked for a client.
    pub(super) fn new(context: Option<String>) -> Self {
        Self { context, known: Mutex::default(), connecting: tokio::sync::Mutex::default() }
    }

    /// The client.
    ///
    /// # Errors
    /// If there is no usable kubeconfig, nor was one at first, and this process is not in a cluster either.
    pub(super) async fn get(&self) -> Result<Arc<Connected>, RuntimeError> {
        let is_held = |known: &&Known| known.holds(&stamp());
        if let Some(known) = self.known().as_ref().filter(is_held) {
            return Ok(Arc::clone(&known.connected));
        }
        let _one_at_a_time = self.connecting.lock().await;
        let (stamp, known) = (stamp(), self.known().clone());
        let Some(mut known) = known else {
            let connected = Arc::new(connect(first_source(self.context.clone(), Kubeconfig::read())).await?);
            *self.known() = Some(Known { stamp, connected: Arc::clone(&connected), failed: None });
            return Ok(connected);
        };
        if !known.holds(&stamp) {
            match connect(known.connected.source.clone()).await {
                Ok(connected) => known = Known { stamp, connected: Arc::new(connected), failed: None },
                // Perhaps it is being written, or who signs in is out of reach.
                Err(error) => {
                    if known.failed.as_ref().is_none_or(|(_, failed)| *failed != stamp) {
                        tracing::warn!(%error, "the kubeconfig has changed and cannot be used: what it said before holds");
                    }
                    known.failed = Some((Instant::now(), stamp));
                }
            }
            *self.known() = Some(known.clone());
        }
        Ok(known.connected)
    }

    /// Whether the API server that was spoken to is on this host.
    pub(super) fn is_near(&self) -> bool {
        self.known().as_ref().is_some_and(|known| known.connected.is_near)
    }

    /// One that always has this client.
    #[cfg(test)]
    pub(super) fn of(client: Client) -> Self {
        let connected = Connected { client, endpoint: String::new(), is_near: false, source: Source::Inside };
        let known = Known { stamp: stamp(), connected: Arc::new(connected), failed: None };
        Self { known: Mutex::new(Some(known)), ..Self::new(None) }
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the first client comes from.
fn first_source(context: Option<String>, kubeconfig: Result<Kubeconfig, KubeconfigError>) -> Source {
    match kubeconfig {
        Err(_) if Config::incluster().is_ok() => Source::Inside,
        Err(_) => Source::File(context),
        Ok(kubeconfig) => Source::File(context.or(kubeconfig.current_context)),
    }
}

/// How the cluster of a context is reached.
async fn configured(kubeconfig: Kubeconfig, context: Option<String>) -> Result<Config, KubeconfigError> {
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options).await
}

async fn connect(source: Source) -> Result<Connected, RuntimeError> {
    let doing = "be found";
    let config = match &source {
        Source::File(context) => {
            let kubeconfig = Kubeconfig::read().map_err(|error| refused(doing, error.into()))?;
            let config = configured(kubeconfig, context.clone()).await;
            config.map_err(|error| refused(doing, error.into()))?
        }
        Source::Inside => Config::incluster().map_err(|error| unreachable(doing, &error.to_string()))?,
    };
    let endpoint = config.cluster_url.to_string();
    let is_near = config.cluster_url.host().is_some_and(held::is_name_of_this_host);
    let client = Client::try_from(config).map_err(|error| refused(doing, error))?;
    Ok(Connected { client, endpoint, is_near, source })
}

/// The files that [`Kubeconfig::read`] reads, as they are now.
fn stamp() -> Stamp {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let files: Vec<PathBuf> = match set("KUBECONFIG") {
        Some(files) => std::env::split_paths(&files).filter(|path| !path.as_os_str().is_empty()).collect(),
        None => set("HOME").map(|home| PathBuf::from(home).join(".kube/config")).into_iter().collect(),
    };
    let seen = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).ok();
        let seen = metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
        (path, seen)
    };
    files.into_iter().map(seen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"{ "current-context": "near",
        "clusters": [{ "name": "n", "cluster": { "server": "https://127.0.0.1:1" } },
                     { "name": "f", "cluster": { "server": "https://192.0.2.7:2" } }],
        "contexts": [{ "name": "near", "context": { "cluster": "n", "user": "me" } },
                     { "name": "far", "context": { "cluster": "f", "user": "me" } }],
        "users": [{ "name": "me", "user": {} }] }"#;

    #[tokio::test]
    async fn the_context_of_the_settings_is_used_else_the_one_that_is_current_at_first() {
        let check = async |wanted: Option<&str>| {
            let kubeconfig = || Kubeconfig::from_yaml(TWO);
            let Source::File(context) = first_source(wanted.map(str::to_owned), kubeconfig()) else {
                panic!("there is a kubeconfig")
            };
            let context = context.expect("one is chosen, so that it stays");
            let config =
                configured(kubeconfig().unwrap(), Some(context)).await.map_err(|it| it.to_string())?;
            Ok::<_, String>(config.cluster_url.to_string())
        };
        assert_eq!(check(None).await.unwrap(), "https://127.0.0.1:1/");
        assert_eq!(check(Some("far")).await.unwrap(), "https://192.0.2.7:2/");
        let error = check(Some("gone")).await.unwrap_err();
        assert!(error.contains("gone"), "{error}");
    }
}
