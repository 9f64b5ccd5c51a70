//! The process table as `ps` has it, for hosts without `/proc`.
//!
//! `ps` tells start times in whole seconds, and neither sessions (the process group stands in) nor variables.

use std::io;
use std::process::{Command, Stdio};

use crate::process::table::Process;

/// Start times are dates here, so they need no boot to be told apart.
pub(in crate::process) fn boot_id() -> io::Result<String> {
    Ok(String::new())
}

/// The process that has this pid.
pub(in crate::process) fn process(pid: u32) -> io::Result<Option<Process>> {
    // `ps -p` fails alike for a process that is gone and for any other reason, so the whole table is asked.
    Ok(processes()?.into_iter().find(|process| process.pid == pid))
}

/// All processes.
pub(in crate::process) fn processes() -> io::Result<Vec<Process>> {
    let mut command = Command::new("/bin/ps");
    command.args(["-A", "-o", "pid=,ppid=,pgid=,stat=,lstart="]).env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output()?;
    if !output.status.success() {
        return Err(io::Error::other("ps does not list the processes"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(parse).collect())
}

/// Whether a process was started with `variable`: not to be told here.
pub(in crate::process) fn has_variable(_pid: u32, _variable: &str) -> bool {
    false
}

fn parse(line: &str) -> Option<Process> {
    let mut fields = line.split_ascii_whitespace();
    Some(Process {
        pid: fields.next()?.parse().ok()?,
        parent: fields.next()?.parse().ok()?,
        session: fields.next()?.parse().ok()?,
        dead: fields.next()?.starts_with('Z'),
        start_time: fields.collect::<Vec<_>>().join(" "),
    })
}
