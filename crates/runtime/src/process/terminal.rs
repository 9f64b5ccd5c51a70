//! Commands beside an agent that run on a terminal of their own.
//!
//! The broker holds one end of a pseudo-terminal. The command gets the other as its controlling terminal, which takes
//! a step of the program itself (see the module `becoming`) between broker and command.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::ShimCommand;
use super::becoming::TerminalRecord;
use super::beside::{Beside, channel, confirm, exit_of, read, stream, write_to};
use super::folder::Folder;
use super::record;
use super::shim::STEP;
use super::table::MARK;
use crate::{Attached, ErrorKind, Output, RuntimeError, TerminalSize};

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
    let (ours, theirs) = open(size).map_err(failed)?;
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

    let ended = CancellationToken::new();
    let (reading, writing) = ends(&ours).map_err(failed)?;
    let (sender, output) = channel();
    tokio::spawn(read(reading, Output::Stdout, sender, ended.clone()));
    let input = with_input.then(|| write_to(writing, ended.clone()));
    let resize = Some(resize(ours, ended.clone()));
    Ok(Attached { output: stream(output), input, resize, exit: exit_of(child, ended) })
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

/// Both ends of a new terminal, ours first.
fn open(size: TerminalSize) -> io::Result<(File, OwnedFd)> {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&ours)?;
    rustix::pty::unlockpt(&ours)?;
    let name = rustix::pty::ptsname(&ours, Vec::new())?;
    let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
    let theirs = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::fcntl_setfl(&ours, rustix::fs::fcntl_getfl(&ours)? | OFlags::NONBLOCK)?;
    rustix::termios::tcsetwinsize(&ours, window(size))?;
    Ok((ours.into(), theirs))
}

/// Our end twice, to read and to write. To tokio's reactor it is like a pipe.
fn ends(ours: &File) -> io::Result<(pipe::Receiver, pipe::Sender)> {
    let reading = pipe::Receiver::from_file_unchecked(ours.try_clone()?)?;
    Ok((reading, pipe::Sender::from_file_unchecked(ours.try_clone()?)?))
}

fn resize(ours: File, ended: CancellationToken) -> mpsc::Sender<TerminalSize> {
    // Who is attached sends and ends it; sizes come one at a time, from a person's hand.
    let (sender, mut receiver) = mpsc::channel(4);
    let resizing = async move {
        while let Some(size) = receiver.recv().await {
            // A terminal that is gone needs no size.
            let _gone = rustix::termios::tcsetwinsize(&ours, window(size));
        }
    };
    tokio::spawn(ended.run_until_cancelled_owned(resizing));
    sender
}

fn window(size: TerminalSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}
