//! Exactly one broker for a home, and the files that give it its identity.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::home;

/// The lock of a home, or of a socket; whoever has it is its broker. It ends with the process, however that ends.
#[derive(Debug)]
pub(crate) struct BrokerLock {
    _file: File,
}

/// The home cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("another broker has this {what} already: {holder} ({})", path.display())]
    Held { what: &'static str, path: PathBuf, holder: String },
    #[error("{what} {} cannot be used", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
}

impl BrokerLock {
    /// Takes the lock of `what`, or says which process has it.
    pub(crate) fn take(path: &Path, what: &'static str) -> Result<Self, LockError> {
        let failed = |source| LockError::File { what: "the lock", path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        // The file is never deleted: a lock on a deleted file would keep no one out.
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let told = file.read_to_string(&mut text).is_ok() && !text.trim().is_empty();
                let holder = if told { format!("process {}", text.trim()) } else { "a process".to_owned() };
                return Err(LockError::Held { what, path: path.to_owned(), holder });
            }
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Makes a directory that only its owner can enter, as [`home::private_directory`] does.
pub(crate) fn private_directory(path: &Path) -> Result<(), LockError> {
    let failed = |source| LockError::File { what: "the directory", path: path.to_owned(), source };
    home::private_directory(path).map_err(failed)
}

/// The text of a file that is made, with `fresh`, where there is none. Only its owner can read it, also if a copy of the home has left it
/// to others.
pub(crate) fn kept_text(
    path: &Path,
    what: &'static str,
    fresh: impl FnOnce() -> String,
) -> Result<String, LockError> {
    let failed = |source| LockError::File { what, path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => {
            let is_others = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o077 != 0;
            // It may be someone else's on purpose, such as a secret that the system hands out.
            if is_others && let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(0o600)) {
                tracing::warn!(path = %path.display(), %error, "others may read {what}");
            }
            return Ok(text.trim().to_owned());
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let text = fresh();
    // Written beside and renamed, so that a crash leaves the whole text or none.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)?;
    Ok(text)
}

/// 32 random bytes in hexadecimal.
pub(crate) fn random_token() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_broker_is_told_which_process_has_the_home() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("broker.lock");
        let first = BrokerLock::take(&path, "home").unwrap();
        let error = BrokerLock::take(&path, "home").unwrap_err().to_string();
        let pid = std::process::id();
        assert!(
            error.starts_with(&format!("another broker has this home already: process {pid} (")),
            "{error}"
        );
        drop(first);
        BrokerLock::take(&path, "home").unwrap();
    }

    #[test]
    fn a_token_is_made_once_and_is_for_its_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("token");
        let first = kept_text(&path, "the token", || random_token().unwrap()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let again = kept_text(&path, "the token", || unreachable!("there is one")).unwrap();
        assert_eq!(first, again);
        assert_eq!(first.len(), 64);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
