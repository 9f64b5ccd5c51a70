//! What a container has written, as `container logs` prints it.
//!
//! With `--follow` the command goes on for ever, though the container has ended. It is ended itself once the end is known and
//! nothing more comes. Its exit code counts only where it ends by itself.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdout};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::command::refused;
use crate::{ErrorKind, LogStream, Output, RuntimeError};

const CHUNK: usize = 16 * 1024;
/// For the command to refuse at once. If it does not, the first line may take as long as it likes.
const REFUSAL: Duration = Duration::from_secs(1);
/// Silence after the container's end that means that nothing more comes.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// How much of what the command says besides is kept.
const COMPLAINT: u64 = 4 * 1024;

/// Is there once the container has ended.
pub(super) type End = BoxFuture<'static, Result<(), RuntimeError>>;

struct Log {
    stdout: ChildStdout,
    complaint: JoinHandle<String>,
    /// None once it has come.
    end: Option<End>,
    /// Is ended with the log.
    command: Child,
}

/// What `command` prints, until it ends or, after `end`, falls silent.
///
/// # Errors
/// What it says if it refuses at once.
pub(super) async fn read(mut command: Child, end: End) -> Result<LogStream, RuntimeError> {
    let piped = || io::Error::other("the command has no output");
    let stdout = command.stdout.take().ok_or_else(|| broken_off(piped()))?;
    let stderr = command.stderr.take().ok_or_else(|| broken_off(piped()))?;
    let log = Log { stdout, complaint: tokio::spawn(complaint(stderr)), end: Some(end), command };
    let mut pieces = Box::pin(stream::try_unfold(log, next).peekable());
    match timeout(REFUSAL, pieces.as_mut().next_if(Result::is_err)).await {
        Ok(Some(Err(error))) => Err(error),
        _ => Ok(pieces),
    }
}

async fn next(mut log: Log) -> Result<Option<(Output, Log)>, RuntimeError> {
    let mut piece = BytesMut::with_capacity(CHUNK);
    // What is there comes first, so that a slow reader gets it all. Both branches are cancel-safe: a read that is given up has taken
    // nothing, and the end is waited for further the next time.
    tokio::select! {
        biased;
        length = log.stdout.read_buf(&mut piece) => match length.map_err(broken_off)? {
            0 => log.outcome().await.map(|()| None),
            _ => Ok(Some((Output::Stdout(piece.freeze()), log))),
        },
        over = silence_after(&mut log.end) => over.map(|()| None),
    }
}

/// A silence begins anew with each piece.
async fn silence_after(end: &mut Option<End>) -> Result<(), RuntimeError> {
    if let Some(awaited) = end {
        awaited.await?;
        *end = None;
    }
    sleep(LAST_WORDS).await;
    Ok(())
}

impl Log {
    /// Whether what the command has printed is all that there is.
    async fn outcome(mut self) -> Result<(), RuntimeError> {
        if self.command.wait().await.map_err(broken_off)?.success() {
            return Ok(());
        }
        Err(refused("read the log", &self.complaint.await.unwrap_or_default()))
    }
}

/// What the command says besides. All of it is read, so that it can go on.
async fn complaint(stderr: impl AsyncRead + Unpin) -> String {
    let mut told = Vec::new();
    let mut beginning = stderr.take(COMPLAINT);
    // What was read before a failure is told.
    let _told_so_far = beginning.read_to_end(&mut told).await;
    let _unread = tokio::io::copy(&mut beginning.into_inner(), &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&told).into_owned()
}

fn broken_off(error: io::Error) -> RuntimeError {
    RuntimeError::new(ErrorKind::Other, "container's log broke off").source(error)
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::super::scripted;
    use super::*;
    use crate::{LogRequest, Runtime};

    fn text(output: Output) -> String {
        let (Output::Stdout(bytes) | Output::Stderr(bytes)) = output;
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    const FOLLOW: LogRequest = LogRequest { tail: None, follow: true };

    #[tokio::test]
    async fn a_slow_reader_gets_all_that_was_written_before_the_end() {
        let here = tempfile::tempdir().unwrap();
        // Less than a pipe holds.
        let container = scripted::container(here.path(), "logs) seq 1 10000; exec sleep 100000 ;;");
        let mut log = container.logs("web", &FOLLOW).await.unwrap();
        scripted::ended(here.path());
        let mut read = String::new();
        while let Some(piece) = log.try_next().await.unwrap() {
            read += &text(piece);
            // Longer than the end takes to be seen, so that most of the log is read after it.
            sleep(Duration::from_secs(1)).await;
        }
        assert!(read.ends_with("\n9999\n10000\n"), "{} bytes", read.len());
    }

    #[tokio::test]
    async fn what_has_ended_is_not_followed() {
        let here = tempfile::tempdir().unwrap();
        let cases = "logs) case $2 in --follow) exec sleep 100000 ;; esac; echo last ;;";
        let container = scripted::container(here.path(), cases);
        scripted::ended(here.path());
        let log = container.logs("web", &FOLLOW).await.unwrap();
        let pieces: Vec<Output> = log.try_collect().await.unwrap();
        assert_eq!(pieces.into_iter().map(text).collect::<String>(), "last\n");
    }

    #[tokio::test]
    async fn a_listing_that_fails_is_not_taken_for_the_end() {
        let here = tempfile::tempdir().unwrap();
        let container = scripted::container(here.path(), "logs) echo first; exec sleep 100000 ;;");
        let mut log = container.logs("web", &FOLLOW).await.unwrap();
        assert_eq!(log.try_next().await.unwrap().map(text).as_deref(), Some("first\n"));
        std::fs::remove_file(here.path().join("listing")).unwrap();
        let error = log.try_next().await.unwrap_err();
        assert!(error.message.starts_with("container cannot list the containers: "), "{error}");
        assert!(log.try_next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_read_is_not_taken_for_a_whole_one() {
        let here = tempfile::tempdir().unwrap();
        let cases = "logs) echo half; echo 'Error: its disk is gone' >&2; exit 1 ;;";
        let container = scripted::container(here.path(), cases);
        let mut log = container.logs("web", &LogRequest::default()).await.unwrap();
        assert_eq!(log.try_next().await.unwrap().map(text).as_deref(), Some("half\n"));
        let error = log.try_next().await.unwrap_err();
        assert_eq!(error.message, "container cannot read the log: its disk is gone");

        // More than a pipe holds: it is not kept from going on.
        let cases = "logs) echo 'Error: no' >&2; seq 1 20000 >&2; exit 1 ;;";
        let container = scripted::container(here.path(), cases);
        let refused = container.logs("web", &FOLLOW).await.map(drop).unwrap_err();
        assert!(refused.message.starts_with("container cannot read the log: no; 1; 2;"), "{refused}");
    }
}
