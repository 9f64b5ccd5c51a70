//! How a process becomes the command: it prepares itself and then calls `exec`.
//!
//! Rust can start a command in a session of its own only with `unsafe` code that runs between `fork` and `exec`. Here
//! the program starts itself instead, does in peace what is to be done, and replaces itself.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Identity;
use super::folder::Folder;
use super::record::{self, StartRecord};
use super::shim::{Failure, Reason};
use super::table::MARK;

/// The step of the shim in which it becomes the agent's command.
pub(super) const COMMAND: &str = "command";

/// A command that runs beside an agent on a terminal: the file that [`terminal`] is given, and removes.
#[derive(Serialize, Deserialize)]
pub(super) struct TerminalRecord {
    pub(super) command: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) workdir: PathBuf,
}

/// Becomes the command of the agent whose folder is `directory`. Standard input holds the folder's lock; a failure is told
/// on standard output, which is closed by success.
pub(super) fn command(directory: &Path) -> ExitCode {
    let mut answer = match io::stdout().as_fd().try_clone_to_owned() {
        // Both copies are closed by `exec`; the lock is let go of by then, since standard input is replaced.
        Ok(answer) => File::from(answer),
        Err(_) => return ExitCode::FAILURE,
    };
    let failure = match prepare(directory) {
        Ok((mut command, program)) => cannot_execute(&program, &command.exec()),
        Err(failure) => failure,
    };
    let told = serde_json::to_vec(&failure).map_err(io::Error::from).and_then(|text| answer.write_all(&text));
    match told {
        Ok(()) => ExitCode::from(failure.reason.code()),
        Err(_) => ExitCode::FAILURE,
    }
}

fn prepare(directory: &Path) -> Result<(Command, String), Failure> {
    rustix::process::setsid().map_err(|error| Failure::other("making a session", error))?;
    let folder = Folder::open(directory).map_err(|error| Failure::other("reading the agent", error))?;
    let folder = folder.ok_or_else(|| Failure::other("reading the agent", "it is gone"))?;
    let log = File::options().append(true).open(folder.file("log"));
    let log = log.and_then(|log| Ok((log.try_clone()?, log)));
    let (output, errors) = log.map_err(|error| Failure::other("opening the log", error))?;
    let leader =
        Identity::current().map_err(|error| Failure::other("finding out which process this is", error))?;

    let agent = folder.agent;
    let mut command = to_execute(&agent.command, &agent.env, &agent.workdir)?;
    command.env(MARK, &agent.id).stdin(std::process::Stdio::null()).stdout(output).stderr(errors);
    // The last step before the command: from here on every broker finds this process.
    let started = StartRecord { leader, at: Timestamp::now() };
    record::write(&directory.join("started.json"), &started)
        .map_err(|error| Failure::other("writing started.json", error))?;
    Ok((command, agent.command.first().cloned().unwrap_or_default()))
}

/// Becomes the command that `file` describes, with standard input as its controlling terminal.
pub(super) fn terminal(file: &Path) -> ExitCode {
    let failure = match prepare_terminal(file) {
        Ok((mut command, program)) => cannot_execute(&program, &command.exec()),
        Err(failure) => failure,
    };
    let _terminal_is_gone = writeln!(io::stderr(), "{}", failure.message);
    ExitCode::from(failure.reason.code())
}

fn prepare_terminal(file: &Path) -> Result<(Command, String), Failure> {
    let record: Option<TerminalRecord> =
        record::read(file).map_err(|error| Failure::other("reading what to run", error))?;
    let record = record.ok_or_else(|| Failure::other("reading what to run", "it is gone"))?;
    std::fs::remove_file(file).map_err(|error| Failure::other("removing what was read", error))?;
    rustix::process::setsid().map_err(|error| Failure::other("making a session", error))?;
    rustix::process::ioctl_tiocsctty(io::stdin())
        .map_err(|error| Failure::other("taking the terminal", error))?;
    let command = to_execute(&record.command, &record.env, &record.workdir)?;
    Ok((command, record.command.first().cloned().unwrap_or_default()))
}

/// The command with exactly these variables, in `workdir`, which is entered now.
fn to_execute(command: &[String], env: &[(String, String)], workdir: &Path) -> Result<Command, Failure> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| Failure::other("starting the command", "there is none"))?;
    std::env::set_current_dir(workdir).map_err(|error| Failure {
        reason: Reason::Workdir,
        message: format!("cannot start in {}: {error}", workdir.display()),
    })?;
    let mut execute = Command::new(program);
    execute.args(arguments).env_clear().envs(env.iter().map(|(name, value)| (name, value)));
    Ok(execute)
}

/// Says why a program could not be executed.
pub(super) fn cannot_execute(program: &str, error: &io::Error) -> Failure {
    let (reason, message) = match error.kind() {
        io::ErrorKind::NotFound => (Reason::NotFound, format!("command not found: {program}")),
        io::ErrorKind::PermissionDenied => {
            (Reason::NotExecutable, format!("command is not executable: {program}"))
        }
        _ => (Reason::NotExecutable, format!("cannot execute {program}: {error}")),
    };
    Failure { reason, message }
}
