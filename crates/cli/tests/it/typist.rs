//! A person at a terminal: types, sees, pulls at the window's corner.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Winsize};

use crate::support::*;

pub(crate) struct Typist {
    ours: File,
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Typist {
    /// Starts `berthold` with `arguments` in a new terminal of so many columns and rows.
    pub(crate) fn start(host: &Host, arguments: &[&str], size: (u16, u16)) -> Self {
        Self::start_program(&host.command(), arguments, size)
    }

    /// The same with a program that may be another.
    pub(crate) fn start_program(plain: &Command, arguments: &[&str], size: (u16, u16)) -> Self {
        let ours =
            rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::grantpt(&ours).unwrap();
        rustix::pty::unlockpt(&ours).unwrap();
        let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap();
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs: File = rustix::fs::open(path, flags, Mode::empty()).unwrap().into();
        let ours: File = ours.into();
        set_size(&ours, size);
        // Whose terminal it is gets told of its sizes.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(plain.get_program()).args(plain.get_args()).args(arguments);
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let copy = || theirs.try_clone().unwrap();
        let child = command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, seen) = (ours.try_clone().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The other end being closed is an error here.
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                seen.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { ours, child, shown }
    }

    pub(crate) fn types(&mut self, text: &str) {
        self.ours.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn resize(&self, size: (u16, u16)) {
        set_size(&self.ours, size);
    }

    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    pub(crate) fn sees(&self, text: &str) {
        eventually_or(&format!("`{text}` is on the screen"), || self.shown().contains(text), || self.shown());
    }

    /// Whether keys are passed on as they are typed, and not line by line.
    pub(crate) fn is_raw(&self) -> bool {
        !rustix::termios::tcgetattr(&self.ours).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the command's end; its exit code.
    pub(crate) fn code(mut self) -> i32 {
        self.ends()
    }

    /// The same, with the terminal still there.
    pub(crate) fn ends(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

fn set_size(terminal: &File, (columns, rows): (u16, u16)) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).unwrap();
}
