//! The client of a cluster, and when another one takes its place.
//!
//! A kubeconfig changes while a broker runs: credentials are renewed, a local cluster is created anew on another port. So it is read again
//! when its files have changed. The context stays the one that was current at first: whoever turns `kubectl` to another cluster does not
//! mean the agents that run.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::held;
use super::refusal::refused;
use crate::RuntimeError;

/// A client, and what it speaks to.
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) endpoint: String,
    /// Whether the API server is on this host.
    pub(super) is_near: bool,
    /// The context of the kubeconfig, if one was read.
    context: Option<String>,
}

/// The files of the kubeconfig with their lengths and when they were changed.
type Stamp = Vec<(PathBuf, Option<(SystemTime, u64)>)>;

/// The client in use.
pub(super) struct Connections {
    /// The context that the settings name.
    context: Option<String>,
    known: Mutex<Option<(Stamp, Arc<Connected>)>>,
}

impl Connections {
    /// For that context, or for the one that is current when it is first asked for a client.
    pub(super) fn new(context: Option<String>) -> Self {
        Self { context, known: Mutex::default() }
    }

    /// The client.
    ///
    /// # Errors
    /// If there is no usable kubeconfig, nor was one at first, and this process is not in a cluster either.
    pub(super) async fn get(&self) -> Result<Arc<Connected>, RuntimeError> {
        let stamp = stamp();
        let known = self.known().clone();
        if let Some((_, connected)) = known.as_ref().filter(|(read, _)| *read == stamp) {
            return Ok(Arc::clone(connected));
        }
        let before = known.map(|(_, connected)| connected);
        let context = self.context.as_deref().or_else(|| before.as_ref()?.context.as_deref());
        let connected = match (connect(context).await, before) {
            (Ok(connected), _) => Arc::new(connected),
            // Perhaps it is being written.
            (Err(error), Some(before)) => {
                tracing::warn!(%error, "the kubeconfig has changed and cannot be used: what it said before holds");
                before
            }
            (Err(error), None) => return Err(error),
        };
        *self.known() = Some((stamp, Arc::clone(&connected)));
        Ok(connected)
    }

    /// Whether the API server that was spoken to is on this host.
    pub(super) fn is_near(&self) -> bool {
        self.known().as_ref().is_some_and(|(_, connected)| connected.is_near)
    }

    /// One that always has this client.
    #[cfg(test)]
    pub(super) fn of(client: Client) -> Self {
        let connected = Connected { client, endpoint: String::new(), is_near: false, context: None };
        Self { context: None, known: Mutex::new(Some((stamp(), Arc::new(connected)))) }
    }

    fn known(&self) -> MutexGuard<'_, Option<(Stamp, Arc<Connected>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(context: Option<&str>) -> Result<Connected, RuntimeError> {
    let doing = "be found";
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let mut current = None;
    let config = match Kubeconfig::read() {
        Ok(kubeconfig) => {
            current = options.context.clone().or_else(|| kubeconfig.current_context.clone());
            Config::from_custom_kubeconfig(kubeconfig, &options).await
        }
        Err(error) => match Config::incluster() {
            Ok(config) => Ok(config),
            Err(_) => Err(error),
        },
    };
    let config = config.map_err(|error| refused(doing, error.into()))?;
    let endpoint = config.cluster_url.to_string();
    let is_near = config.cluster_url.host().is_some_and(held::is_name_of_this_host);
    let client = Client::try_from(config).map_err(|error| refused(doing, error))?;
    Ok(Connected { client, endpoint, is_near, context: current })
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
