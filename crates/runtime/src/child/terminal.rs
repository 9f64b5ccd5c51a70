//! A pseudo-terminal for a child: the broker holds one end, the child has the other.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{channel, exit_of, read, stream, write_to};
use crate::{Attached, Output, Streams, TerminalSize};

/// The broker's end.
pub(crate) struct Terminal(File);

impl Terminal {
    /// A new terminal of this size, and the child's end of it.
    pub(crate) fn open(size: TerminalSize) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = open(size)?;
        Ok((Self(ours), theirs))
    }

    /// The ends of the child that was started on the other end, as its controlling terminal.
    pub(crate) fn attach(self, child: Child, with_input: bool) -> io::Result<Attached> {
        self.attached(child, with_input, None)
    }

    /// The same of a child that has the terminal as its standard streams alone, and leads a process group. The kernel tells no one of a
    /// new size then, so the group is told.
    pub(crate) fn attach_uncontrolled(self, child: Child, with_input: bool) -> io::Result<Attached> {
        let group = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        self.attached(child, with_input, group)
    }

    fn attached(self, child: Child, with_input: bool, told: Option<Pid>) -> io::Result<Attached> {
        let ended = CancellationToken::new();
        let (reading, writing) = ends(&self.0)?;
        let (sender, output) = channel();
        tokio::spawn(read(reading, Output::Stdout, sender, ended.clone()));
        let input = with_input.then(|| write_to(writing, ended.clone()));
        let resize = Some(resize(self.0, told, ended.clone()));
        let streams = Streams { output: stream(output), input, resize };
        Ok(Attached { streams, exit: exit_of(child, ended) })
    }
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

fn resize(ours: File, told: Option<Pid>, ended: CancellationToken) -> mpsc::Sender<TerminalSize> {
    // Who is attached sends and ends it; sizes come one at a time, from a person's hand.
    let (sender, mut receiver) = mpsc::channel(4);
    let resizing = async move {
        while let Some(size) = receiver.recv().await {
            // A terminal that is gone needs no size.
            let _gone = rustix::termios::tcsetwinsize(&ours, window(size));
            if let Some(group) = told {
                let _gone = kill_process_group(group, Signal::WINCH);
            }
        }
    };
    tokio::spawn(ended.run_until_cancelled_owned(resizing));
    sender
}

fn window(size: TerminalSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}
