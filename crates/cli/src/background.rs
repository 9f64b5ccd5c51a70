//! Starts a broker in the background.
//!
//! Commands that find none at the same time start one between them: whoever gets the start lock looks again, and starts one only
//! if there still is none. The lock is a file lock, which ends with its process, so a command that was killed keeps no one out.
//! The broker is in a session of its own and goes on when the terminal is closed. Its log is appended to; one that has
//! grown beyond a limit is kept once more as `broker.log.1`.

use std::env;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api::{Client, Code};
use tokio::time::sleep;

use crate::context::Context;
use crate::error::CliError;

/// A log of that many bytes is put aside before a broker starts.
const LONGEST_LOG: u64 = 10 << 20;
/// How long a broker may take until it answers. It looks at every runtime before it does.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
/// How much of the log is shown if the broker does not start.
const SHOWN_LINES: usize = 10;
const SHOWN_BYTES: u64 = 64 << 10;

/// A broker that was started.
pub(crate) struct Started {
    pub(crate) pid: u32,
    pub(crate) log: PathBuf,
}

/// Why no broker runs in the background.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackgroundError {
    /// A file of the home.
    #[error("no broker can be started in the background, because {} cannot be used", path.display())]
    File { path: PathBuf, source: io::Error },
    /// This very program.
    #[error("no broker can be started in the background")]
    Spawn { source: io::Error },
    /// Another command is at it for too long.
    #[error("another command has been starting a broker for {} s", PATIENCE.as_secs())]
    Waiting,
    /// It ended at once.
    #[error("the broker that was started in the background has ended: {reason}")]
    Ended { reason: String, hint: Option<String>, wrong_settings: bool, tail: Vec<String>, log: PathBuf },
    /// It runs and says nothing.
    #[error("the broker that was started in the background (pid {pid}) does not answer after {} s", PATIENCE.as_secs())]
    Silent { pid: u32, log: PathBuf },
}

impl BackgroundError {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Ended { wrong_settings: true, .. } => Code::InvalidSettings,
            _ => Code::BrokerUnreachable,
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::File { .. } => Some(
                "the home must be a directory that you can write to; BERTHOLD_HOME=DIR names another"
                    .to_owned(),
            ),
            Self::Ended { hint: Some(hint), .. } => Some(hint.clone()),
            Self::Ended { log, .. } | Self::Silent { log, .. } => {
                Some(format!("its log says more: {}", log.display()))
            }
            Self::Spawn { .. } | Self::Waiting => {
                Some("`berthold serve` runs one in the foreground".to_owned())
            }
        }
    }

    /// The last lines of the broker's log.
    pub(crate) fn log(&self) -> &[String] {
        match self {
            Self::Ended { tail, .. } => tail,
            _ => &[],
        }
    }
}

/// Starts a broker for the home and waits until it answers; none if another command was quicker.
pub(crate) async fn start(context: &Context, client: &Client) -> Result<Option<Started>, CliError> {
    let home = context.home()?;
    let failed = |path: &Path, source| BackgroundError::File { path: path.to_owned(), source };
    home.make().map_err(|error| failed(home.state(), error))?;
    // Held until the broker answers.
    let _lock = take(&home.start_lock()).await?;
    if client.ready().await.is_ok() {
        return Ok(None);
    }
    let path = home.log();
    let log = open_log(&path).map_err(|error| failed(&path, error))?;
    let before = log.metadata().map_or(0, |metadata| metadata.len());
    let child = spawn(context, log).map_err(|source| BackgroundError::Spawn { source })?;
    let pid = child.id();
    let answers = await_answer(client, child, &home.lock(), &path, before).await?;
    Ok(answers.then_some(Started { pid, log: path }))
}

async fn take(path: &Path) -> Result<File, BackgroundError> {
    let failed = |source| BackgroundError::File { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    // Never deleted: a lock on a deleted file would keep no one out.
    let file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(BackgroundError::Waiting);
            }
            Err(TryLockError::WouldBlock) => sleep(PAUSE).await,
        }
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() > LONGEST_LOG) {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".1");
        fs::rename(path, aside)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn spawn(context: &Context, log: File) -> io::Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["serve", "--background"]);
    // Where this is called by what `berthold run` started: the broker is no part of that.
    command.env_remove(pool::environment::LEASE_VARIABLE);
    if let Some(settings) = context.settings_file() {
        command.arg("--settings").arg(settings);
    }
    command.stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log);
    command.spawn()
}

/// Waits for an answer; whether it is that of `child`, and not of a broker that someone else started meanwhile.
async fn await_answer(
    client: &Client,
    mut child: Child,
    lock: &Path,
    log: &Path,
    before: u64,
) -> Result<bool, BackgroundError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Looked at first: if it had ended by then, the answer after it is not its own.
        let ended = child.try_wait().map_err(|source| BackgroundError::Spawn { source })?;
        if client.ready().await.is_ok() {
            return Ok(ended.is_none());
        }
        // Another broker that has the home already, and does not answer yet, is as good.
        if let Some(status) = ended.filter(|_| !is_held(lock)) {
            let written = written_since(log, before);
            return Err(ended_because(&written, status, log));
        }
        if Instant::now() >= deadline {
            return Err(BackgroundError::Silent { pid: child.id(), log: log.to_owned() });
        }
        sleep(PAUSE).await;
    }
}

/// Whether a broker, answering or not, has the lock of its home.
pub(crate) fn is_held(lock: &Path) -> bool {
    // Shared, so that two who look do not take each other for the broker.
    File::open(lock).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn ended_because(written: &str, status: std::process::ExitStatus, log: &Path) -> BackgroundError {
    let lines: Vec<&str> = written.lines().collect();
    let last = lines.iter().rposition(|line| line.starts_with("error: "));
    // What the broker itself gives as the reason may be of several lines.
    let (reason, hint) = match last {
        Some(last) => {
            let is_hint = |line: &&str| line.starts_with("hint: ");
            let reason: Vec<&str> = lines[last..].iter().copied().take_while(|line| !is_hint(line)).collect();
            let hint =
                lines[last..].iter().find(|line| is_hint(line)).map(|line| line["hint: ".len()..].to_owned());
            (reason.join("\n")["error: ".len()..].to_owned(), hint)
        }
        None => (status.to_string(), None),
    };
    let tail = match last {
        Some(_) => Vec::new(),
        None => {
            lines[lines.len().saturating_sub(SHOWN_LINES)..].iter().map(|line| (*line).to_owned()).collect()
        }
    };
    BackgroundError::Ended {
        reason,
        hint,
        wrong_settings: status.code() == Some(2),
        tail,
        log: log.to_owned(),
    }
}

fn written_since(log: &Path, before: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(before.max(end.saturating_sub(SHOWN_BYTES))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn check(written: &str, code: i32) -> String {
        let error = ended_because(written, ExitStatus::from_raw(code << 8), Path::new("/h/broker.log"));
        let hint = error.hint().unwrap_or_default();
        format!("{} [{}] ({hint}) {:?}", error, error.code().as_str(), error.log())
    }

    #[test]
    fn the_broker_s_own_reason_is_given_and_else_the_end_of_its_log() {
        insta::assert_snapshot!(check("INFO x\nerror: the ledger is newer\nhint: use the newer berthold\n", 1), @"the broker that was started in the background has ended: the ledger is newer [broker_unreachable] (use the newer berthold) []");
        insta::assert_snapshot!(check("error: a.yaml:1:2\n  unknown key\n", 2), @"
        the broker that was started in the background has ended: a.yaml:1:2
          unknown key [invalid_settings] (its log says more: /h/broker.log) []
        ");
        insta::assert_snapshot!(check("INFO one\nthread main panicked\n", 101), @r#"the broker that was started in the background has ended: exit status: 101 [broker_unreachable] (its log says more: /h/broker.log) ["INFO one", "thread main panicked"]"#);
    }

    #[test]
    fn a_long_log_is_put_aside_once() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("broker.log");
        open_log(&path).unwrap().set_len(LONGEST_LOG + 1).unwrap();
        let fresh = open_log(&path).unwrap().metadata().unwrap();
        assert_eq!(fresh.len(), 0);
        assert_eq!(fresh.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(home.path().join("broker.log.1")).unwrap().len(), LONGEST_LOG + 1);
    }

    #[tokio::test]
    async fn a_second_starter_waits_for_the_first() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("broker.start.lock");
        let first = take(&path).await.unwrap();
        let second = tokio::spawn({
            let path = path.clone();
            async move { take(&path).await.is_ok() }
        });
        sleep(PAUSE * 3).await;
        assert!(!second.is_finished());
        drop(first);
        assert!(second.await.unwrap());
    }

    #[test]
    fn a_lock_is_held_only_while_its_holder_lives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("broker.lock");
        assert!(!is_held(&path), "there is none");
        let file = File::create(&path).unwrap();
        assert!(!is_held(&path));
        file.lock().unwrap();
        assert!(is_held(&path));
        drop(file);
        assert!(!is_held(&path));
    }
}
