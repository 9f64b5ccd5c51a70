//! Opens the ledger: creates, checks, migrates, or sets a damaged file aside.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Contents, rows};

/// The steps from an empty file to the present schema: the first makes version 1 of it, each further one the next version.
const STEPS: [&str; 4] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
];
/// The schema version that this broker writes.
const VERSION: i64 = STEPS.len() as i64;

/// What is written as the file's application id, plus the schema version (<https://www.sqlite.org/pragma.html#pragma_application_id>). SQLite
/// checks neither of them, so the version is there twice: one bit of a disk must not turn a ledger into one of a newer Berthold, or an older.
const MARK: i64 = 0x4248_0000;
/// The last version that was written without this.
const UNMARKED: i64 = 3;

/// How long a database is at the least: one page of 512 bytes (<https://www.sqlite.org/fileformat2.html>).
const SMALLEST: u64 = 512;

/// A damaged ledger that was set aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Damage {
    /// Where the damaged file is now.
    pub(crate) kept: PathBuf,
    /// What is wrong with it.
    pub(crate) reason: String,
}

/// The ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// A later Berthold has written it.
    #[error("the ledger {path} has schema version {found}, but this berthold knows only up to {VERSION}")]
    Newer { path: PathBuf, found: i64 },
    /// It could not be opened or written.
    #[error("the ledger {path} cannot be opened")]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    /// A damaged file could not be set aside.
    #[error("the damaged ledger {path} cannot be set aside")]
    SetAside { path: PathBuf, source: io::Error },
}

/// A ledger that can be written, what it holds, and what was wrong with the one that was there before.
pub(super) type Opened = (Connection, Contents, Option<Damage>);

/// Opens the ledger at `path`, creating it if there is none. A damaged file is set aside and told of.
pub(crate) fn open(path: &Path) -> Result<Opened, OpenError> {
    match try_open(path) {
        Ok((connection, contents)) => Ok((connection, contents, None)),
        Err(Trouble::Refused(error)) => Err(error),
        Err(Trouble::Damaged(reason)) => {
            let kept =
                set_aside(path).map_err(|source| OpenError::SetAside { path: path.to_owned(), source })?;
            match try_open(path) {
                Ok((connection, contents)) => Ok((connection, contents, Some(Damage { kept, reason }))),
                Err(Trouble::Refused(error)) => Err(error),
                Err(Trouble::Damaged(_)) => {
                    Err(OpenError::Sqlite { path: path.to_owned(), source: rusqlite::Error::InvalidQuery })
                }
            }
        }
    }
}

/// Whether there is nothing at `path`: neither a ledger nor what was written last.
pub(crate) fn is_missing(path: &Path) -> bool {
    let is_empty = |path: &Path| fs::metadata(path).map_or(true, |file| file.len() == 0);
    is_empty(path) && is_empty(&beside(path, "-wal"))
}

/// A file that is named like `path` and goes on with `suffix`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

enum Trouble {
    Damaged(String),
    Refused(OpenError),
}

fn try_open(path: &Path) -> Result<(Connection, Contents), Trouble> {
    let trouble = |source: rusqlite::Error| {
        if is_damage(&source) {
            Trouble::Damaged(source.to_string())
        } else {
            Trouble::Refused(OpenError::Sqlite { path: path.to_owned(), source })
        }
    };
    // SQLite takes a file that is shorter than its smallest page for one that is empty.
    if fs::metadata(path).is_ok_and(|file| (1..SMALLEST).contains(&file.len())) {
        return Err(Trouble::Damaged("the file is cut off".to_owned()));
    }
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    private(path).map_err(|error| {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        let source = rusqlite::Error::SqliteFailure(code, Some(error.to_string()));
        Trouble::Refused(OpenError::Sqlite { path: path.to_owned(), source })
    })?;
    let mut connection = Connection::open_with_flags(path, flags).map_err(trouble)?;
    configure(&connection).map_err(trouble)?;
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0)).map_err(trouble);
    let (version, mark) = (number("PRAGMA user_version")?, number("PRAGMA application_id")?);
    let is_unmarked = mark == 0 && version <= UNMARKED;
    if mark != MARK + version && !is_unmarked {
        return Err(Trouble::Damaged("its version is another in one place than in the other".to_owned()));
    }
    if version > VERSION {
        return Err(Trouble::Refused(OpenError::Newer { path: path.to_owned(), found: version }));
    }
    // Not `quick_check`, which does not compare tables with their indexes: by these alone it is seen that a bit of a number has changed.
    let verdict: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(trouble)?;
    if verdict != "ok" {
        return Err(Trouble::Damaged(verdict));
    }
    // The file could be opened for writing, but SQLite only reads one whose header says that another SQLite must write it.
    if connection.is_readonly("main").map_err(trouble)? {
        return Err(Trouble::Damaged("it has a format for writing that does not exist".to_owned()));
    }
    if version < VERSION || is_unmarked {
        migrate(&mut connection, version).map_err(trouble)?;
    }
    // A row that does not read is damage too: the pages are sound, but what they say is not.
    let contents = rows::load(&connection).map_err(|error| match error {
        rows::LoadError::Sqlite(source) if source.sqlite_error_code().is_some() => trouble(source),
        other => Trouble::Damaged(other.to_string()),
    })?;
    Ok((connection, contents))
}

/// Whether the file is to blame for an error, and not the disk, its rights or someone who has it open.
fn is_damage(error: &rusqlite::Error) -> bool {
    // SQLITE_ERROR, which has no name of its own here, is what a format of the schema gives that does not exist
    // (<https://www.sqlite.org/rescode.html>).
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::NotADatabase
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::TypeMismatch
                | ErrorCode::Unknown
        )
    )
}

/// Takes the schema from `version` to the present one, wholly or not at all.
fn migrate(connection: &mut Connection, version: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for step in STEPS.into_iter().skip(usize::try_from(version).unwrap_or_default()) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.pragma_update(None, "application_id", MARK + VERSION)?;
    transaction.commit()
}

/// Makes the file, for its owner alone, before SQLite would make it for all: it holds the variables of agents. SQLite gives its
/// companions the same rights.
fn private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(())
}

/// Moves the file and its companions out of the way; the damaged file is never deleted.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let named = |number: u32| beside(path, &format!(".damaged-{stamp}-{number}"));
    let free = (1..=u32::MAX).map(named).find(|path| !path.exists());
    let kept = free.ok_or_else(|| io::Error::other("no free name is left"))?;
    for companion in ["-wal", "-shm"] {
        match fs::rename(beside(path, companion), beside(&kept, companion)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, &kept)?;
    Ok(kept)
}
