//! What is kept of an agent on disk, and how it is written.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Identity;
use crate::{ErrorKind, RuntimeError};

/// `spec.json`: the agent, as it was created.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct AgentRecord {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) command: Vec<String>,
    /// All variables that the command gets, and no others.
    pub(super) env: Vec<(String, String)>,
    pub(super) workdir: PathBuf,
    pub(super) publish: Vec<PublishRecord>,
}

/// A port that the agent is to bind itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct PublishRecord {
    pub(super) address: IpAddr,
    pub(super) host: u16,
    pub(super) container: u16,
}

/// `started.json`, written by the process that is about to become the command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct StartRecord {
    #[serde(flatten)]
    pub(super) leader: Identity,
    pub(super) at: Timestamp,
}

/// `exited.json`, written by the shim, or by who finds that shim and agent are gone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct ExitRecord {
    pub(super) code: Option<i64>,
    pub(super) at: Option<Timestamp>,
    pub(super) detail: Option<String>,
    pub(super) left: Left,
}

/// What is left of an agent whose command has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Left {
    /// What the command started.
    Descendants,
    /// At most commands that were run beside it. They are being ended, and no others may come.
    CommandsBeside,
    /// Nothing.
    Nothing,
}

/// Reads a record; none if there is no such file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RuntimeError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file_error("cannot read", path, error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        RuntimeError::new(ErrorKind::Other, format!("{} is damaged", path.display()))
            .hint("see what it should say, or end what belongs to it and remove its folder")
            .source(error)
    })
}

/// Writes a record so that it is there whole or not at all, and still there after a power failure.
pub(super) fn write<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let text = serde_json::to_vec(record)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = parent.join(unfinished_name(&name));
    let mut file = private().write(true).create(true).truncate(true).open(&unfinished)?;
    let written = file.write_all(&text).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| std::fs::rename(&unfinished, path)) {
        // The first error is the one to tell; what is left over goes with the folder.
        let _left_over = std::fs::remove_file(&unfinished);
        return Err(error);
    }
    sync_directory(parent)
}

/// Two threads or processes may write the same record at once.
fn unfinished_name(name: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!(".{name}.{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Sees to it that what was renamed in `directory` stays renamed.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Opens files that are no one else's business.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// An error with a file or folder, `doing` being such as `cannot read`.
pub(super) fn file_error(doing: &str, path: &Path, error: io::Error) -> RuntimeError {
    RuntimeError::new(ErrorKind::Other, format!("{doing} {}", path.display())).source(error)
}
