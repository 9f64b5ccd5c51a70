//! Waiting for an agent to end, and ending it.

use std::io;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::Identity;
use super::folder::{Folder, Life};
use super::record::file_error;
use crate::{ErrorKind, RuntimeError};

/// Between two looks, at first and at most.
const POLL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// A process that is not gone so long after `SIGKILL` hangs in the kernel.
const FORCE_LIMIT: Duration = Duration::from_secs(20);
/// A shim notes the end of its agent at once; one that does not is stuck, and is ended itself.
const SHIM_LIMIT: Duration = Duration::from_secs(5);

/// What the agent is doing once it no longer runs, or at the deadline; none if it was removed.
pub(super) async fn wait(folder: &Folder, deadline: Instant) -> Result<Option<Life>, RuntimeError> {
    let mut pause = POLL.0;
    let mut has_ended = false;
    loop {
        let life = look(folder).await?;
        let Some(Life::Running { watched, .. }) = &life else { return Ok(life) };
        if Instant::now() >= deadline {
            return Ok(life);
        }
        // Its end is the moment to look again, but not the only one: the shim may be killed, and others may live on.
        let next = deadline.min(Instant::now() + pause);
        match watched {
            Some(watched) if !has_ended => {
                has_ended = tokio::time::timeout_at(next, end_of(watched)).await.is_ok();
            }
            _ => tokio::time::sleep_until(next).await,
        }
        pause = (pause * 2).min(POLL.1);
    }
}

/// Asks all processes of the agent to end, as systemd does with a service, and ends by force what is left after `grace`;
/// at once without. Returns when nothing is left.
pub(super) async fn end(folder: &Folder, grace: Option<Duration>) -> Result<(), RuntimeError> {
    if let Some(grace) = grace {
        if !is_running(look(folder).await?.as_ref()) {
            return Ok(());
        }
        // What is stopped would not see the first signal before it is continued. Whom the signals do not reach, force
        // does not reach either, and says so.
        drop(signal(folder, &[Signal::TERM, Signal::CONT]).await?);
        if !is_running(wait(folder, deadline(grace)).await?.as_ref()) {
            return Ok(());
        }
    }
    force(folder).await
}

/// Removes the agent with all that it left, ending it by force.
pub(super) async fn remove(folder: &Folder) -> Result<(), RuntimeError> {
    let begun = Instant::now();
    loop {
        force(folder).await?;
        let ended = folder.clone();
        let is_gone = blocking(move || {
            let path = ended.file("lock");
            match ended.try_lock().map_err(|error| file_error("cannot lock", &path, error))? {
                // Someone may have started it in the meantime.
                Some(lock) if !is_running(ended.life_locked()?.as_ref()) => {
                    ended.remove(&lock).map(|()| true)
                }
                Some(_) => Ok(false),
                None => Ok(!ended.is_there()?),
            }
        });
        if is_gone.await? {
            return Ok(());
        }
        if begun.elapsed() > FORCE_LIMIT {
            let message = format!("{} cannot be removed: its folder stays locked", folder.agent.name);
            return Err(RuntimeError::new(ErrorKind::Other, message));
        }
        tokio::time::sleep(POLL.0).await;
    }
}

/// Repeats `SIGKILL` until nothing is left, for what is being ended may fork.
async fn force(folder: &Folder) -> Result<(), RuntimeError> {
    let begun = Instant::now();
    let mut pause = POLL.0;
    while is_running(look(folder).await?.as_ref()) {
        let mut signalled = signal(folder, &[Signal::KILL]).await?;
        let refused = signalled.refused.pop();
        if let Some((process, error)) = refused.filter(|_| signalled.reached.is_empty()) {
            let message = format!("process {} of {} cannot be signalled", process.pid(), folder.agent.name);
            let hint = "it may belong to another user: end it as that user";
            return Err(RuntimeError::new(ErrorKind::Other, message).hint(hint).source(error));
        }
        if signalled.reached.is_empty() && begun.elapsed() > SHIM_LIMIT {
            end_shim(folder).await?;
        }
        if begun.elapsed() > FORCE_LIMIT {
            let pids: Vec<_> = signalled.reached.iter().map(|process| process.pid().to_string()).collect();
            let message = format!(
                "{} does not end, not even by force (processes: {})",
                folder.agent.name,
                pids.join(", ")
            );
            let hint = "such a process usually waits for a disk or a network file system";
            return Err(RuntimeError::new(ErrorKind::Other, message).hint(hint));
        }
        wait(folder, Instant::now() + pause).await?;
        pause = (pause * 2).min(POLL.1);
    }
    Ok(())
}

/// The processes of an agent that got a signal, and those that may not be signalled.
#[derive(Default)]
struct Signalled {
    reached: Vec<Identity>,
    refused: Vec<(Identity, io::Error)>,
}

/// Signals all processes of the agent.
async fn signal(folder: &Folder, signals: &'static [Signal]) -> Result<Signalled, RuntimeError> {
    let folder = folder.clone();
    blocking(move || {
        let mut signalled = Signalled::default();
        for member in folder.members()? {
            match signals.iter().try_for_each(|signal| member.signal(*signal).map(drop)) {
                Ok(()) => signalled.reached.push(member),
                Err(error) => signalled.refused.push((member, error)),
            }
        }
        Ok(signalled)
    })
    .await
}

async fn end_shim(folder: &Folder) -> Result<(), RuntimeError> {
    let folder = folder.clone();
    blocking(move || {
        if let Some(shim) = folder.shim()? {
            tracing::warn!(agent = folder.agent.name, pid = shim.pid(), "ending a shim that hangs");
            shim.signal(Signal::KILL).map_err(|error| {
                let message = format!("the shim of {} cannot be signalled", folder.agent.name);
                RuntimeError::new(ErrorKind::Other, message).source(error)
            })?;
        }
        Ok(())
    })
    .await
}

/// What the agent is doing; none if it was removed.
pub(super) async fn look(folder: &Folder) -> Result<Option<Life>, RuntimeError> {
    let folder = folder.clone();
    blocking(move || folder.life()).await
}

/// Whether something of the agent lives.
pub(super) fn is_running(life: Option<&Life>) -> bool {
    matches!(life, Some(Life::Running { .. }))
}

/// That long from now.
pub(super) fn deadline(limit: Duration) -> Instant {
    // Whoever waits for ever is content with a century.
    let century = || Instant::now() + Duration::from_secs(100 * 365 * 24 * 60 * 60);
    Instant::now().checked_add(limit).unwrap_or_else(century)
}

/// Runs what reads files and process tables where it does not hold others up.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(RuntimeError::new(ErrorKind::Other, "the work on a process agent was broken off").source(error))
    })
}

/// Returns when the process has ended, which may go unnoticed: to be used with a limit.
#[cfg(target_os = "linux")]
pub async fn end_of(identity: &Identity) {
    use rustix::process::{PidfdFlags, pidfd_open};
    use tokio::net::unix::pipe;

    let Some(pid) = identity.raw_pid() else { return };
    let Ok(pinned) = pidfd_open(pid, PidfdFlags::NONBLOCK) else { return std::future::pending().await };
    if !identity.is_alive().unwrap_or(true) {
        return;
    }
    // To tokio's reactor it is like a pipe: readable in the end.
    match pipe::Receiver::from_owned_fd_unchecked(pinned) {
        Ok(pinned) => drop(pinned.readable().await),
        Err(_) => std::future::pending().await,
    }
}

/// Returns when the process has ended, which goes unnoticed here: to be used with a limit.
#[cfg(not(target_os = "linux"))]
pub async fn end_of(_identity: &Identity) {
    std::future::pending().await
}
