//! Where a broker keeps what it keeps: its home.
//!
//! `BERTHOLD_HOME=DIR` puts everything under `DIR`, so that several brokers can live on one machine. Otherwise the
//! XDG directories are used: state in `$XDG_STATE_HOME/berthold`, the socket in `$XDG_RUNTIME_DIR/berthold` (where
//! there is no runtime directory, beside the state), settings in `$XDG_CONFIG_HOME/berthold`.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The paths of one broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Home {
    state: PathBuf,
    socket: PathBuf,
    settings: PathBuf,
    project: Option<PathBuf>,
}

/// There is nowhere to keep anything.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "neither BERTHOLD_HOME nor HOME is set to an absolute path, so there is no place for the broker's state"
)]
pub struct NoHome;

impl Home {
    /// The home that the environment names, for a command started in `working_directory`.
    ///
    /// # Errors
    /// [`NoHome`] if the environment names none.
    pub fn find(
        environment: impl Fn(&str) -> Option<OsString>,
        working_directory: &Path,
    ) -> Result<Self, NoHome> {
        if let Some(directory) = environment("BERTHOLD_HOME").filter(|value| !value.is_empty()) {
            return Ok(Self::at(&working_directory.join(directory)));
        }
        // The XDG specification has relative paths ignored.
        let absolute =
            |variable: &str| environment(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        let below_home = |rest: &str| absolute("HOME").map(|home| home.join(rest));
        let state =
            absolute("XDG_STATE_HOME").or_else(|| below_home(".local/state")).ok_or(NoHome)?.join("berthold");
        let config =
            absolute("XDG_CONFIG_HOME").or_else(|| below_home(".config")).ok_or(NoHome)?.join("berthold");
        let sockets = absolute("XDG_RUNTIME_DIR").map_or_else(|| state.clone(), |path| path.join("berthold"));
        Ok(Self {
            socket: sockets.join("broker.sock"),
            settings: config.join("settings.yaml"),
            project: Some(working_directory.join(".berthold/settings.yaml")),
            state,
        })
    }

    /// The home that is `directory` alone.
    pub fn at(directory: &Path) -> Self {
        Self {
            state: directory.to_owned(),
            socket: directory.join("broker.sock"),
            settings: directory.join("settings.yaml"),
            project: None,
        }
    }

    /// The directory of the state.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Makes the directory of the state, if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn make(&self) -> io::Result<()> {
        private_directory(&self.state)
    }

    /// The Unix socket on which the broker answers.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The user's settings file, which is read if it is there.
    pub fn settings(&self) -> &Path {
        &self.settings
    }

    /// The settings file of the project in whose directory the command was started, which goes before the user's if it is there.
    pub fn project_settings(&self) -> Option<&Path> {
        self.project.as_deref()
    }

    /// The ledger.
    pub fn ledger(&self) -> PathBuf {
        self.state.join("ledger.db")
    }

    /// Where a broker that was started in the background writes its log.
    pub fn log(&self) -> PathBuf {
        self.state.join("broker.log")
    }

    /// The stable id of the broker.
    pub fn id(&self) -> PathBuf {
        self.state.join("broker.id")
    }

    /// The token for the API on `listen`.
    pub fn token(&self) -> PathBuf {
        self.state.join("token")
    }

    /// Held, as a file lock, by the one broker of this home; its content names the process.
    pub fn lock(&self) -> PathBuf {
        self.state.join("broker.lock")
    }

    /// Held likewise by the one broker of the socket, where that is not among the state: homes with another state may share it.
    pub fn socket_lock(&self) -> Option<PathBuf> {
        let is_apart = self.socket.parent() != Some(self.state.as_path());
        is_apart.then(|| self.socket.with_extension("sock.lock"))
    }

    /// Held, as a file lock, by a command that is starting a broker in the background.
    pub fn start_lock(&self) -> PathBuf {
        self.state.join("broker.start.lock")
    }

    /// Where a Podman service that the broker started itself listens.
    pub fn podman_socket(&self) -> PathBuf {
        self.state.join("podman.sock")
    }

    /// Where the `process` runtime keeps its agents' records and logs.
    pub fn processes(&self) -> PathBuf {
        self.state.join("processes")
    }
}

/// Makes a directory, with those above it, that only its owner can enter; one that is there stays as it is.
pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
