//! The shim: starts an agent's command, outlives the broker, waits, and writes down how the command ended.
//!
//! It runs as a process of its own, without threads and without async. The module `process` says in which order it
//! works and what happens when it is killed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use serde::{Deserialize, Serialize};

use super::Identity;
use super::becoming;
use super::folder::Folder;
use super::record::{self, ExitRecord, Left};
use super::table::{self, MARK, Traces};
use crate::ErrorKind;

/// Says what a process that is called as a shim is to be; unset for the shim itself, whose environment is empty.
pub(super) const STEP: &str = "BERTHOLD_SHIM_STEP";
/// Who merely looks holds the lock for a moment only.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);

/// What the shim tells who started it, as one line of JSON on its standard output.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The command runs, or has run already.
    Started,
    /// The agent was started before, or is being started by another shim.
    Before,
    /// It was removed meanwhile.
    Gone,
    /// The command could not be started, and nothing runs.
    Failed(Failure),
}

/// Why a command could not be started.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    pub(super) message: String,
}

/// The kinds of [`Failure`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Reason {
    /// There is no such program.
    NotFound,
    /// The program cannot be executed.
    NotExecutable,
    /// The directory in which it should start is not there.
    Workdir,
    /// Anything else.
    Other,
}

impl Reason {
    /// The exit code by which shells tell it.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::NotFound => 127,
            Self::NotExecutable | Self::Workdir | Self::Other => 126,
        }
    }

    /// The kind of the runtime's error.
    pub(super) fn kind(self) -> ErrorKind {
        match self {
            Self::NotFound | Self::NotExecutable => ErrorKind::Command,
            Self::Workdir => ErrorKind::Invalid,
            Self::Other => ErrorKind::Other,
        }
    }
}

impl Failure {
    /// A failure of anything but the command, while `doing`.
    pub(super) fn other(doing: &str, error: impl std::fmt::Display) -> Self {
        Self { reason: Reason::Other, message: format!("{doing}: {error}") }
    }
}

/// Is the shim of the agent whose folder is `directory`, until the agent has ended.
///
/// To be called first thing by the program that [`super::ShimCommand`] names, before it starts a thread or looks at its
/// environment. Blocks; what it returns is the exit code of the process.
pub fn run_shim(directory: &Path) -> ExitCode {
    match std::env::var_os(STEP) {
        None => watch(directory),
        Some(step) if step == becoming::COMMAND => becoming::command(directory),
        Some(file) => becoming::terminal(&directory.join(file)),
    }
}

/// How a shim, or a step of it, is called once more: the same program with the same arguments.
fn this_program() -> io::Result<Command> {
    // Linux resolves this in the child, to the very file that runs here, even if an upgrade has replaced it.
    let program =
        if cfg!(target_os = "linux") { PathBuf::from("/proc/self/exe") } else { std::env::current_exe()? };
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).env_clear();
    Ok(command)
}

fn watch(directory: &Path) -> ExitCode {
    match start(directory) {
        Ok((folder, child, lock)) => {
            report(&Report::Started);
            let code = wait(&folder, &child);
            drop(lock);
            code
        }
        Err(outcome) => {
            let failed = matches!(outcome, Report::Failed(_));
            report(&outcome);
            if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}

/// Starts the command. The lock is to be held for as long as anything of it lives.
fn start(directory: &Path) -> Result<(Folder, Child, File), Report> {
    let failed = |doing: &str| {
        let doing = doing.to_owned();
        move |error: io::Error| Report::Failed(Failure::other(&doing, error))
    };
    leave_the_broker().map_err(failed("leaving the broker's session"))?;
    let mut expected = String::new();
    io::stdin().read_to_string(&mut expected).map_err(failed("reading the agent's id"))?;

    let folder = Folder::open(directory)
        .map_err(|error| Report::Failed(Failure::other("reading the agent", error)))?;
    let folder = folder.filter(|folder| folder.agent.id == expected.trim()).ok_or(Report::Gone)?;
    let lock = lock(&folder).map_err(failed("locking the agent's folder"))?.ok_or(Report::Before)?;
    if folder.file("started.json").exists() {
        return Err(Report::Before);
    }

    let shim = Identity::current().map_err(failed("finding out which process this is"))?;
    record::write(&folder.file("shim.json"), &shim).map_err(failed("writing shim.json"))?;
    let mut command = this_program().map_err(failed("finding this program"))?;
    command.env(STEP, becoming::COMMAND).env(MARK, &folder.agent.id);
    command.stdin(lock.try_clone().map_err(failed("handing the lock on"))?).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed("starting this program once more"))?;

    // Ends when the command has replaced the child, or when the child has ended.
    let mut answer = Vec::new();
    let mut pipe = child.stdout.take().expect("the pipe was asked for");
    pipe.read_to_end(&mut answer).map_err(failed("waiting for the command to start"))?;
    if answer.is_empty() {
        return Ok((folder, child, lock));
    }
    let failure: Failure =
        serde_json::from_slice(&answer).unwrap_or_else(|error| Failure::other("starting the command", error));
    child.wait().map_err(failed("waiting for the command to end"))?;
    let exited = ExitRecord {
        code: Some(failure.reason.code().into()),
        at: Some(Timestamp::now()),
        detail: Some(failure.message.clone()),
        left: Left::Nothing,
    };
    if folder.file("started.json").exists() {
        record::write(&folder.file("exited.json"), &exited).map_err(failed("writing exited.json"))?;
    }
    Err(Report::Failed(failure))
}

/// Becomes independent of whoever started it, and the parent of all orphans to come.
fn leave_the_broker() -> io::Result<()> {
    // Fails only for who leads a process group already, and then there is no terminal to leave.
    let _already_leads = rustix::process::setsid();
    std::env::set_current_dir("/")?;
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

fn lock(folder: &Folder) -> io::Result<Option<File>> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let held = folder.try_lock()?;
        let is_in_vain = || folder.file("started.json").exists() || Instant::now() >= deadline;
        if held.is_some() || is_in_vain() {
            return Ok(held);
        }
        std::thread::sleep(POLL);
    }
}

/// Tells the outcome, and lets go of the broker's pipes. A broker that is gone reads the folder later.
fn report(outcome: &Report) {
    if let Ok(line) = serde_json::to_vec(outcome) {
        let mut stdout = io::stdout();
        let _broker_is_gone = stdout.write_all(&line).and_then(|()| stdout.flush());
    }
    let null = File::options().read(true).write(true).open("/dev/null");
    let detached = null.and_then(|null| {
        rustix::stdio::dup2_stdin(&null)?;
        Ok(rustix::stdio::dup2_stdout(&null)?)
    });
    if let Err(error) = detached {
        complain("letting go of the broker", &error);
    }
}

/// Waits until nothing of the agent is left, and writes down how the command ended.
fn wait(folder: &Folder, child: &Child) -> ExitCode {
    let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let mut exited = ExitRecord { code: None, at: None, detail: None, left: Left::Descendants };
    let mut options = WaitOptions::empty();
    loop {
        match rustix::process::wait(options) {
            Ok(Some((pid, status))) if Some(pid) == leader => {
                exited = ExitRecord { at: Some(Timestamp::now()), ..ended(status) };
                // Only if something else is left need it be noted now.
                options = WaitOptions::NOHANG;
            }
            Ok(None) => {
                note(folder, &exited);
                options = WaitOptions::empty();
            }
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => break,
            Err(error) => {
                complain("waiting for the agent", &error.into());
                return ExitCode::FAILURE;
            }
        }
    }
    // Noted before the search: who starts a command beside the agent looks for this note afterwards, so that the command
    // is either found by the search or ended by who started it.
    exited.left = Left::CommandsBeside;
    note(folder, &exited);
    end_commands_beside(&folder.agent.id);
    note(folder, &ExitRecord { at: Some(Timestamp::now()), left: Left::Nothing, ..exited });
    ExitCode::SUCCESS
}

fn ended(status: WaitStatus) -> ExitRecord {
    let signal = status.terminating_signal();
    ExitRecord {
        code: signal.map(|signal| 128 + i64::from(signal)).or(status.exit_status().map(i64::from)),
        at: None,
        detail: signal.map(|signal| format!("ended by signal {signal}")),
        left: Left::Descendants,
    }
}

/// As in a container, what was run beside the agent ends with it.
fn end_commands_beside(id: &str) {
    let traces = Traces { id: id.to_owned(), shim: None, leader: None };
    let deadline = Instant::now() + LOCK_PATIENCE;
    while Instant::now() < deadline {
        match table::members(&traces) {
            Ok(members) if members.is_empty() => return,
            Ok(members) => {
                for member in members {
                    if let Err(error) = member.signal(Signal::KILL) {
                        complain("ending a command beside the agent", &error);
                    }
                }
            }
            Err(error) => return complain("looking for commands beside the agent", &error),
        }
        std::thread::sleep(POLL);
    }
}

fn note(folder: &Folder, exited: &ExitRecord) {
    if let Err(error) = record::write(&folder.file("exited.json"), exited) {
        complain("writing exited.json", &error);
    }
}

/// Leaves a line in `shim.log`.
fn complain(doing: &str, error: &io::Error) {
    let _nowhere_to_tell = writeln!(io::stderr(), "{doing}: {error}");
}
