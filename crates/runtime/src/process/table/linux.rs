//! The process table as `/proc` has it.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::process::table::Process;

/// What tells this boot from every other.
pub(in crate::process) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The process that has this pid.
pub(in crate::process) fn process(pid: u32) -> io::Result<Option<Process>> {
    Ok(read(pid)?.map(|(process, _)| process))
}

/// All processes, without the kernel's own.
pub(in crate::process) fn processes() -> io::Result<Vec<Process>> {
    let mut processes = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let found = read(pid)?.filter(|(_, flags)| flags & KERNEL_THREAD == 0);
        processes.extend(found.map(|(process, _)| process));
    }
    Ok(processes)
}

/// Whether a process was started with `variable`, `NAME=VALUE`. Another user's process is never ours to ask.
///
/// While a process is in the middle of `exec`, its variables read as empty for a moment: whoever started it may know already
/// that it runs. So those that read as empty are asked again, longer if there is no command line either.
pub(in crate::process) fn has_variable(pid: u32, variable: &str) -> bool {
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}"));
    let mut tries = 0;
    loop {
        let Ok(environment) = read("environ") else { return false };
        if !environment.is_empty() {
            return environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes());
        }
        tries += 1;
        let limit = if read("cmdline").is_ok_and(|line| line.is_empty()) { EXEC_TRIES } else { 2 };
        if tries >= limit || !process(pid).is_ok_and(|process| process.is_some_and(|process| !process.dead)) {
            return false;
        }
        std::thread::sleep(EXEC_PAUSE);
    }
}

/// `PF_KTHREAD` among a process's flags.
const KERNEL_THREAD: u64 = 0x0020_0000;
const EXEC_TRIES: u32 = 200;
const EXEC_PAUSE: Duration = Duration::from_millis(1);

fn read(pid: u32) -> io::Result<Option<(Process, u64)>> {
    let path = Path::new("/proc").join(pid.to_string()).join("stat");
    // The name in it may be anything, also not UTF-8.
    let stat = match std::fs::read(&path) {
        Ok(stat) => stat,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = parse(pid, &String::from_utf8_lossy(&stat));
    found.map(Some).ok_or_else(|| io::Error::other(format!("{} is not as expected", path.display())))
}

/// A process may vanish between being listed and being opened, and between being opened and being read.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// Reads `PID (NAME) STATE PARENT GROUP SESSION …`; the name may hold blanks and brackets. Also gives the flags.
fn parse(pid: u32, stat: &str) -> Option<(Process, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let state = *fields.first()?;
    // The first thread of a process may be a zombie while others live on and hold its files.
    let threads: u64 = fields.get(17)?.parse().ok()?;
    let process = Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        // Kernel threads of some sandboxes have -1 here.
        session: fields.get(3)?.parse().unwrap_or(0),
        start_time: (*fields.get(19)?).to_owned(),
        dead: matches!(state, "X" | "x") || (state == "Z" && threads <= 1),
    };
    Some((process, fields.get(6)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_process_calls_itself() {
        let line = |state, threads| {
            format!(
                "7 (a ) S 1 (b) {state} 3 5 6 0 -1 64 0 0 0 0 0 0 0 0 20 0 {threads} 0 12345 0 0 1844674407370"
            )
        };
        let process = Process { pid: 7, parent: 3, session: 6, start_time: "12345".into(), dead: false };
        assert_eq!(parse(7, &line("S", 1)), Some((process.clone(), 64)));
        assert_eq!(parse(7, &line("Z", 3)), Some((process.clone(), 64)));
        assert_eq!(parse(7, &line("Z", 1)), Some((Process { dead: true, ..process }, 64)));
        assert_eq!(parse(7, "7 (a"), None);
    }
}
