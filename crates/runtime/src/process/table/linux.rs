//! The process table as `/proc` has it.

use std::io;
use std::path::Path;

use crate::process::table::Process;

/// What tells this boot from every other.
pub(in crate::process) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The process that has this pid.
pub(in crate::process) fn process(pid: u32) -> io::Result<Option<Process>> {
    let path = Path::new("/proc").join(pid.to_string()).join("stat");
    // The name in it may be anything, also not UTF-8.
    let stat = match std::fs::read(&path) {
        Ok(stat) => stat,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let process = parse(pid, &String::from_utf8_lossy(&stat));
    process.map(Some).ok_or_else(|| io::Error::other(format!("{} is not as expected", path.display())))
}

/// All processes.
pub(in crate::process) fn processes() -> io::Result<Vec<Process>> {
    let mut processes = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            processes.extend(process(pid)?);
        }
    }
    Ok(processes)
}

/// Whether a process was started with `variable`, `NAME=VALUE`. Another user's process is never ours to ask.
pub(in crate::process) fn has_variable(pid: u32, variable: &str) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
}

/// A process may vanish between being listed and being opened, and between being opened and being read.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// Reads `PID (NAME) STATE PARENT GROUP SESSION …`; the name may hold blanks and brackets.
fn parse(pid: u32, stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let state = *fields.first()?;
    // The first thread of a process may be a zombie while others live on and hold its files.
    let threads: u64 = fields.get(17)?.parse().ok()?;
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        // Kernel threads of some sandboxes have -1 here.
        session: fields.get(3)?.parse().unwrap_or(0),
        start_time: (*fields.get(19)?).to_owned(),
        dead: matches!(state, "X" | "x") || (state == "Z" && threads <= 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_process_calls_itself() {
        let line = |state, threads| {
            format!(
                "7 (a ) S 1 (b) {state} 3 5 6 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 12345 0 0 1844674407370"
            )
        };
        let process = Process { pid: 7, parent: 3, session: 6, start_time: "12345".into(), dead: false };
        assert_eq!(parse(7, &line("S", 1)), Some(process.clone()));
        assert_eq!(parse(7, &line("Z", 3)), Some(process.clone()));
        assert_eq!(parse(7, &line("Z", 1)), Some(Process { dead: true, ..process }));
        assert_eq!(parse(7, "7 (a"), None);
    }
}
