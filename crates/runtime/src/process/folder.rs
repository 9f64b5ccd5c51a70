//! The folder of one agent: made whole, found by id or name, locked, looked at, removed.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::Identity;
use super::record::{self, AgentRecord, ExitRecord, Left, StartRecord, file_error};
use super::table::{self, Traces};
use crate::{ErrorKind, RuntimeError};

const MAKING: &str = ".new-";
const REMOVING: &str = ".gone-";
/// No one needs longer to make or remove a folder, unless killed over it.
const LEFT_OVER_AFTER: Duration = Duration::from_secs(60);

/// The folder of one agent, and what the agent is.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) agent: AgentRecord,
}

/// What an agent is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Life {
    /// Never started.
    Created,
    /// Something of it lives, or it is just being started.
    Running {
        since: Option<Timestamp>,
        /// When this process ends, it is time to look again.
        watched: Option<Identity>,
    },
    /// Nothing of it is left.
    Ended(ExitRecord),
}

impl Folder {
    /// Makes the folder of a new agent.
    pub(super) fn make(directory: &Path, agent: AgentRecord) -> Result<Self, RuntimeError> {
        private_directory(directory)?;
        let suffix = agent.id.rsplit('.').next().unwrap_or_default();
        let unfinished = directory.join(format!("{MAKING}{suffix}"));
        let path = directory.join(&agent.name);
        let made = fill(&unfinished, &agent).and_then(|()| std::fs::rename(&unfinished, &path));
        match made.and_then(|()| record::sync_directory(directory)) {
            Ok(()) => Ok(Self { path, agent }),
            Err(error) => {
                // It stays for the sweep if this fails too; the first error is the one to tell.
                let _left_over = std::fs::remove_dir_all(&unfinished);
                // A folder in use is never empty, so a rename onto it does not succeed.
                if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) {
                    let message = format!("there is a process agent called {} already", agent.name);
                    return Err(RuntimeError::new(ErrorKind::NameTaken, message));
                }
                Err(file_error("cannot make", &path, error))
            }
        }
    }

    /// The folder of the agent of this name or id; none if there is none.
    pub(super) fn find(directory: &Path, id: &str) -> Result<Option<Self>, RuntimeError> {
        let name = id.split_once('.').map_or(id, |(name, _)| name);
        if !is_name(name) {
            return Ok(None);
        }
        let found = Self::open(&directory.join(name))?;
        Ok(found.filter(|folder| id == name || folder.agent.id == id))
    }

    /// All folders.
    pub(super) fn all(directory: &Path) -> Result<Vec<Self>, RuntimeError> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(file_error("cannot list", directory, error)),
        };
        let mut folders = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| file_error("cannot list", directory, error))?;
            // What has no name of an agent is no agent: a folder in the making, or something that a person put there.
            if !entry.file_name().to_str().is_some_and(is_name) || entry.path().is_file() {
                continue;
            }
            match Self::open(&entry.path())? {
                Some(folder) => folders.push(folder),
                None if !entry.path().exists() => {}
                None => {
                    let message = format!("{} has no spec.json", entry.path().display());
                    let hint = "end what belongs to it and remove that folder";
                    return Err(RuntimeError::new(ErrorKind::Other, message).hint(hint));
                }
            }
        }
        Ok(folders)
    }

    /// The folder at this path; none if there is none.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, RuntimeError> {
        let agent = record::read(&path.join("spec.json"))?;
        Ok(agent.map(|agent| Self { path: path.to_owned(), agent }))
    }

    /// What the agent is doing; none if it was removed meanwhile.
    pub(super) fn life(&self) -> Result<Option<Life>, RuntimeError> {
        let lock = match File::open(self.file("lock")) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file_error("cannot open", &self.file("lock"), error)),
        };
        // Shared, so that those who look do not get into each other's way.
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let since = self.started()?.map(|started| started.at);
                let life = Life::Running { since, watched: self.shim()? };
                // Asked last: what was read before is then this agent's, and not that of a new one of the same name.
                return Ok(self.is_there()?.then_some(life));
            }
            Err(TryLockError::Error(error)) => {
                return Err(file_error("cannot lock", &self.file("lock"), error));
            }
        }
        self.life_locked()
    }

    /// What the agent is doing, where the caller holds the lock, so that no shim does.
    pub(super) fn life_locked(&self) -> Result<Option<Life>, RuntimeError> {
        if !self.is_there()? {
            return Ok(None);
        }
        let Some(started) = self.started()? else { return Ok(Some(Life::Created)) };
        let exited = self.exited()?;
        if let Some(exited) = exited.clone().filter(|exited| exited.left == Left::Nothing) {
            return Ok(Some(Life::Ended(exited)));
        }
        self.life_without_shim(started, exited).map(Some)
    }

    /// The shim was killed, so that only the host's process table can tell.
    fn life_without_shim(
        &self,
        started: StartRecord,
        exited: Option<ExitRecord>,
    ) -> Result<Life, RuntimeError> {
        let leader_lives = started.leader.is_alive().map_err(|error| table_error(&self.agent.name, error))?;
        if leader_lives || !self.members()?.is_empty() {
            let watched = leader_lives.then_some(started.leader);
            return Ok(Life::Running { since: Some(started.at), watched });
        }
        let unseen = || ExitRecord {
            code: None,
            at: None,
            detail: Some("its shim was killed, or the host restarted, so the exit code is not known".into()),
            left: Left::Nothing,
        };
        let exited = exited.map_or_else(unseen, |exited| ExitRecord { left: Left::Nothing, ..exited });
        // Only so that the table need not be read again next time.
        if let Err(error) = record::write(&self.file("exited.json"), &exited) {
            tracing::debug!(agent = self.agent.name, %error, "cannot note that a process agent is gone");
        }
        Ok(Life::Ended(exited))
    }

    /// The agent's living processes, without the shim.
    pub(super) fn members(&self) -> Result<Vec<Identity>, RuntimeError> {
        let leader = self.started()?.map(|started| started.leader);
        let traces = Traces { id: self.agent.id.clone(), shim: self.shim()?, leader };
        // Asked last: what was read before is then this agent's, and not that of a new one of the same name.
        if !self.is_there()? {
            return Ok(Vec::new());
        }
        table::members(&traces).map_err(|error| table_error(&self.agent.name, error))
    }

    /// Which process the shim is, or was.
    pub(super) fn shim(&self) -> Result<Option<Identity>, RuntimeError> {
        record::read(&self.file("shim.json"))
    }

    /// Which process the command is, or was; none if it was never started.
    pub(super) fn started(&self) -> Result<Option<StartRecord>, RuntimeError> {
        record::read(&self.file("started.json"))
    }

    /// How the command ended, as far as that is known; none while it runs.
    pub(super) fn exited(&self) -> Result<Option<ExitRecord>, RuntimeError> {
        record::read(&self.file("exited.json"))
    }

    /// The lock, held; none while someone else holds it, or if this agent's folder is gone.
    pub(super) fn try_lock(&self) -> io::Result<Option<File>> {
        let path = self.file("lock");
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Between opening and locking, the folder may have been removed and one of the same name made.
        let (held, named) = (lock.metadata()?, std::fs::metadata(&path));
        let same = named.is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino()));
        Ok(same.then_some(lock))
    }

    /// Removes the folder, of which nothing runs any more. The caller holds the lock, which shows it.
    pub(super) fn remove(&self, _lock: &File) -> Result<(), RuntimeError> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let aside = directory.join(format!("{REMOVING}{}", self.agent.id));
        let renamed = std::fs::rename(&self.path, &aside).and_then(|()| record::sync_directory(directory));
        renamed.map_err(|error| file_error("cannot remove", &self.path, error))?;
        // The agent is gone with the renaming; the sweep takes what is left if this fails.
        if let Err(error) = std::fs::remove_dir_all(&aside) {
            tracing::warn!(folder = %aside.display(), %error, "cannot remove what a process agent left");
        }
        Ok(())
    }

    /// Whether this agent still has its folder: not if it was removed, even if there is a new one of the same name.
    pub(super) fn is_there(&self) -> Result<bool, RuntimeError> {
        Ok(Self::open(&self.path)?.is_some_and(|folder| folder.agent.id == self.agent.id))
    }

    /// A file of the folder.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Removes what was left by those who were killed while they made or removed a folder.
pub(super) fn sweep(directory: &Path) {
    let is_left_over = |entry: &std::fs::DirEntry| {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(MAKING) || name.starts_with(REMOVING));
        let changed = entry.metadata().and_then(|data| data.modified());
        ours && changed
            .is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > LEFT_OVER_AFTER))
    };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten().filter(is_left_over) {
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::debug!(folder = %entry.path().display(), %error, "cannot remove a left-over folder");
        }
    }
}

/// Whether an agent may be called so. No dot, which begins the random part of an id and hidden folders.
pub(super) fn is_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (1..=200).contains(&name.len()) && name.chars().all(is_allowed)
}

/// Makes a directory with those above it, unless it is there.
pub(super) fn private_directory(path: &Path) -> Result<(), RuntimeError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| file_error("cannot make the directory", path, error))
}

fn fill(path: &Path, agent: &AgentRecord) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    for name in ["lock", "log"] {
        record::private().write(true).create_new(true).open(path.join(name))?;
    }
    record::write(&path.join("spec.json"), agent)
}

fn table_error(name: &str, error: io::Error) -> RuntimeError {
    RuntimeError::new(ErrorKind::Unreachable, format!("cannot see which processes belong to {name}"))
        .source(error)
}
