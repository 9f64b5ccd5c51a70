//! Commands beside an agent that run on a terminal of their own.
//!
//! The broker holds one end of a pseudo-terminal. The command gets the other as its controlling terminal, which takes
//! a step of the program itself (see the module `becoming`) between broker and command.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use tokio::process::Command;

use super::ShimCommand;
use super::becoming::TerminalRecord;
use super::beside::{Beside, confirm};
use super::folder::Folder;
use super::record;
use super::shim::STEP;
use super::table::MARK;
use crate::child::terminal::Terminal;
use crate::{Attached, ErrorKind, RuntimeError, TerminalSize};

/// Runs the command on a terminal of this size.
pub(super) fn run(
    shim: &ShimCommand,
    folder: &Folder,
    beside: Beside,
    with_input: bool,
    size: TerminalSize,
) -> Result<Attached, RuntimeError> {
    let failed =
        |error: io::Error| RuntimeError::new(ErrorKind::Other, "no terminal can be made").source(error);
    let (terminal, theirs) = Terminal::open(size).map_err(failed)?;
    let record = TerminalRecord { command: beside.command, env: beside.env, workdir: beside.workdir };
    let file = format!("terminal-{}.json", super::processes::random_suffix()?);
    record::write(&folder.file(&file), &record).map_err(failed)?;

    let spawned = start(shim, &folder.path, &folder.agent.id, &file, theirs);
    let child = spawned.inspect_err(|_| {
        // It goes with the folder if this fails too; the first error is the one to tell.
        let _left_over = std::fs::remove_file(folder.file(&file));
    });
    let mut child = child.map_err(failed)?;
    confirm(folder, &mut child)?;

    terminal.attach(child, with_input).map_err(failed)
}

fn start(
    shim: &ShimCommand,
    folder: &Path,
    id: &str,
    file: &str,
    terminal: OwnedFd,
) -> io::Result<tokio::process::Child> {
    let mut command = Command::new(&shim.program);
    command.args(&shim.arguments).arg(folder).env_clear().env(STEP, file).env(MARK, id);
    command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal);
    // The broker's copies of the terminal's other end are closed with `command`.
    command.spawn()
}
