//! A `container` for tests: a shell script with one agent, `web`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::AppleContainer;

/// `cases` are those of a shell's `case` over the subcommand; the script's directory is `$here`. The agent runs until [`ended`].
pub(super) fn container(here: &Path, cases: &str) -> AppleContainer {
    let program = here.join("container");
    let script = format!(
        "#!/bin/sh\nhere={}\ncase $1 in list) cat \"$here/listing\" ;;\n{cases}\nesac\n",
        here.display()
    );
    // By another process: a file that this one has open for writing may not be run, and what it starts meanwhile has it open too.
    let mut writer = Command::new("sh");
    writer.args(["-c", "cat >\"$0\" && chmod +x \"$0\""]).arg(&program).stdin(Stdio::piped());
    let mut writer = writer.spawn().unwrap();
    writer.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
    list(here, "running");
    AppleContainer::at(program)
}

pub(super) fn ended(here: &Path) {
    list(here, "stopped");
}

fn list(here: &Path, state: &str) {
    let listing = format!(r#"[{{"configuration":{{"id":"web"}},"status":{{"state":"{state}"}}}}]"#);
    // Whole at once, since it may be read meanwhile.
    std::fs::write(here.join("listing.new"), listing).unwrap();
    std::fs::rename(here.join("listing.new"), here.join("listing")).unwrap();
}
