//! The one writer of the ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{Change, LedgerError, history, rows};
use crate::clock;

/// The most transactions that are committed together. More wait for the next round.
const MAX_BATCH: usize = 512;

/// Hands transactions to the writer thread. Clones send to the same thread, which ends when the last is dropped.
#[derive(Clone)]
pub(crate) struct Ledger {
    /// The broker's tasks send, the writer thread receives until all senders are gone. Not bounded: a sender waits for
    /// its own answer before it sends again, so no more can wait than there are tasks.
    jobs: mpsc::UnboundedSender<Job>,
    flushes: Arc<AtomicU64>,
}

/// Why nothing was recorded, if SQLite does not say more.
const ROLLED_BACK: &str = "the transaction was rolled back";

struct Job {
    changes: Vec<Change>,
    /// Whether it is the last: the file is closed then.
    closes: bool,
    /// The thread answers once, unless the caller has gone.
    done: oneshot::Sender<Result<(), LedgerError>>,
}

impl Job {
    /// Whether it is a step of something that a test may break off. What others hold changes at any time.
    fn is_step(&self) -> bool {
        !self.changes.iter().all(|change| matches!(change, Change::Told { .. }))
    }
}

/// What a caller waits for.
pub(crate) struct Recorded(oneshot::Receiver<Result<(), LedgerError>>);

impl Ledger {
    /// Starts the writer thread on an open database.
    pub(crate) fn start(connection: Connection) -> std::io::Result<Self> {
        let (jobs, receiver) = mpsc::unbounded_channel();
        let flushes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&flushes);
        thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || write(connection, receiver, &counted))?;
        Ok(Self { jobs, flushes })
    }

    /// How often the disk was flushed so far: fewer times than there were transactions, if some waited.
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Enqueues `changes` as one transaction; transactions are committed in the order of these calls.
    pub(crate) fn record(&self, changes: Vec<Change>) -> Recorded {
        self.enqueue(changes, false)
    }

    /// Waits until all that was enqueued is on disk and the file is closed; what comes after that is refused.
    pub(crate) async fn close(&self) {
        // That the thread has ended already is as good.
        drop(self.enqueue(Vec::new(), true).on_disk().await);
    }

    fn enqueue(&self, changes: Vec<Change>, closes: bool) -> Recorded {
        let (done, receiver) = oneshot::channel();
        // If the thread has ended, `done` is dropped with the job and the receiver says so.
        drop(self.jobs.send(Job { changes, closes, done }));
        Recorded(receiver)
    }
}

impl Recorded {
    /// Waits until the transaction is on disk.
    ///
    /// # Errors
    /// [`LedgerError`] if it is not, and will not be.
    pub(crate) async fn on_disk(self) -> Result<(), LedgerError> {
        self.0.await.unwrap_or_else(|_| {
            Err(LedgerError { reason: "the ledger's writer has ended".to_owned(), disk_full: false })
        })
    }
}

fn write(connection: Connection, mut jobs: mpsc::UnboundedReceiver<Job>, flushes: &AtomicU64) {
    prune(&connection);
    let (mut granted, mut last) = (0, None);
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = batch_of(first, &mut jobs);
        last = batch.pop_if(|job| job.closes);
        if batch.is_empty() {
            break;
        }
        let is_step = batch.iter().any(Job::is_step);
        let results = match if is_step { before_commit() } else { Ok(()) } {
            Ok(()) => commit(&connection, &batch),
            Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
        };
        if is_step {
            after_commit();
        }
        flushes.fetch_add(1, Ordering::Relaxed);
        let is_grant = |change: &&Change| matches!(change, Change::Grant { .. });
        granted += batch.iter().flat_map(|job| &job.changes).filter(is_grant).count();
        answer(batch, results);
        if granted >= history::PRUNED_EVERY {
            prune(&connection);
            granted = 0;
        }
        if last.is_some() {
            break;
        }
    }
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "the ledger was not closed cleanly");
    }
    drop(jobs);
    if let Some(last) = last {
        answer(vec![last], vec![Ok(())]);
    }
}

/// The first that waits, and with it what else waits by now, up to what closes the file.
fn batch_of(first: Job, jobs: &mut mpsc::UnboundedReceiver<Job>) -> Vec<Job> {
    let mut is_last = first.closes;
    let mut batch = vec![first];
    while batch.len() < MAX_BATCH
        && !is_last
        && let Ok(job) = jobs.try_recv()
    {
        is_last = job.closes;
        batch.push(job);
    }
    batch
}

fn answer(batch: Vec<Job>, results: Vec<Result<(), LedgerError>>) {
    for (job, result) in batch.into_iter().zip(results) {
        // A caller that has gone no longer wants to know.
        drop(job.done.send(result));
    }
}

/// The writer without its thread: what it does is done when a test has it so.
#[cfg(test)]
pub(crate) struct ByHand {
    connection: Connection,
    jobs: mpsc::UnboundedReceiver<Job>,
}

#[cfg(test)]
impl ByHand {
    /// A ledger, and its writer.
    pub(crate) fn ledger(connection: Connection) -> (Ledger, Self) {
        let (jobs, receiver) = mpsc::unbounded_channel();
        (Ledger { jobs, flushes: Arc::default() }, Self { connection, jobs: receiver })
    }

    /// Waits for something to commit; none once nobody is left who could send it.
    pub(crate) async fn next(&mut self) -> Option<Waiting> {
        let first = self.jobs.recv().await?;
        Some(Waiting(batch_of(first, &mut self.jobs)))
    }

    /// Commits it, which may fail, and has the answers ready.
    pub(crate) fn commit(&self, waiting: Waiting, fails: bool) -> Committed {
        let refused = || LedgerError { reason: "a test has it so".to_owned(), disk_full: true };
        let results = if fails {
            waiting.0.iter().map(|_| Err(refused())).collect()
        } else {
            commit(&self.connection, &waiting.0)
        };
        Committed(waiting.0, results)
    }

    /// What is on disk.
    pub(crate) fn contents(&self) -> super::Contents {
        rows::load(&self.connection).expect("what was just written reads")
    }
}

/// What waits to be committed.
#[cfg(test)]
pub(crate) struct Waiting(Vec<Job>);

/// What was committed, or was not, before anyone has been told.
#[cfg(test)]
pub(crate) struct Committed(Vec<Job>, Vec<Result<(), LedgerError>>);

#[cfg(test)]
impl Committed {
    /// Tells those who wait.
    pub(crate) fn tell(self) {
        answer(self.0, self.1);
    }
}

#[cfg(feature = "faults")]
use crate::faults::{after_commit, before_commit};

#[cfg(not(feature = "faults"))]
const fn before_commit() -> Result<(), LedgerError> {
    Ok(())
}

#[cfg(not(feature = "faults"))]
const fn after_commit() {}

/// Keeps the history within its bounds.
fn prune(connection: &Connection) {
    match history::prune(connection, &history::KEPT, clock::now()) {
        Ok(0) => {}
        Ok(rows) => tracing::debug!(rows, "the oldest of the history was removed"),
        Err(error) => tracing::warn!(%error, "the oldest of the history could not be removed"),
    }
}

/// Commits the batch as one, each job in a savepoint of its own, and says of each whether it is on disk.
fn commit(connection: &Connection, batch: &[Job]) -> Vec<Result<(), LedgerError>> {
    let mut results = Vec::with_capacity(batch.len());
    let committed = (|| {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for job in batch {
            let applied = apply(connection, &job.changes);
            // SQLite may end the whole transaction by itself, as when the disk is full. Nothing of the batch is recorded then, and what
            // was applied from here on would be recorded alone.
            if connection.is_autocommit() {
                let lost = || LedgerError { reason: ROLLED_BACK.to_owned(), disk_full: false };
                return Err(applied.err().unwrap_or_else(lost));
            }
            results.push(applied);
        }
        Ok(connection.execute_batch("COMMIT")?)
    })();
    let Err(error) = committed else { return results };
    // A failed commit may or may not have ended the transaction; after this it has, with nothing recorded.
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "a transaction of the ledger could not be rolled back");
    }
    batch.iter().map(|_| Err(error.clone())).collect()
}

fn apply(connection: &Connection, changes: &[Change]) -> Result<(), LedgerError> {
    connection.execute_batch("SAVEPOINT job")?;
    let applied = changes.iter().try_for_each(|change| rows::apply(connection, change));
    if applied.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK TO job")?;
    }
    if !connection.is_autocommit() {
        connection.execute_batch("RELEASE job")?;
    }
    Ok(applied?)
}
