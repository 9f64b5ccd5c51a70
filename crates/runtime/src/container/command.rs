//! Running the `container` command, and what its refusals mean.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::{ErrorKind, RuntimeError};

/// What helps where the service does not run.
const START_THE_SERVICE: &str = "start its service: `container system start`";

/// The command.
#[derive(Clone, Debug)]
pub(super) struct ContainerCommand {
    pub(super) program: PathBuf,
}

/// What it printed when it succeeded. Ids are on its standard output alone; warnings go to its standard error.
pub(super) struct Printed {
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl ContainerCommand {
    /// Runs it to its end, which must come within `limit`; `doing` completes "container cannot …".
    pub(super) async fn run(
        &self,
        doing: &str,
        arguments: &[String],
        limit: Duration,
    ) -> Result<Printed, RuntimeError> {
        let mut command = self.with(arguments);
        let output = match tokio::time::timeout(limit, command.output()).await {
            Ok(output) => output.map_err(|error| self.unusable(&error))?,
            Err(_elapsed) => {
                let message = format!("container cannot {doing}: no answer after {} s", limit.as_secs());
                let hint = "see whether `container system status` answers";
                return Err(RuntimeError::new(ErrorKind::Unreachable, message).hint(hint));
            }
        };
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(refused(doing, &stderr));
        }
        Ok(Printed { stdout: String::from_utf8_lossy(&output.stdout).into_owned(), stderr })
    }

    /// The command with these arguments, without input, to be ended with the value that holds it.
    pub(super) fn with(&self, arguments: &[String]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that Ctrl-C at a broker in the foreground does not reach it.
        command.process_group(0).kill_on_drop(true);
        command
    }

    pub(super) fn unusable(&self, error: &std::io::Error) -> RuntimeError {
        let message = format!("{} cannot be run: {error}", self.program.display());
        RuntimeError::new(ErrorKind::Unreachable, message)
    }
}

impl Printed {
    /// What it warned of.
    pub(super) fn warnings(&self) -> Vec<String> {
        let is_warning = |line: &&str| line.to_lowercase().starts_with("warning");
        self.stderr.lines().map(str::trim).filter(is_warning).map(str::to_owned).collect()
    }
}

/// The error for what the command printed when it failed.
pub(super) fn refused(doing: &str, stderr: &str) -> RuntimeError {
    let sentence = sentence(stderr);
    let kind = kind(&sentence.to_lowercase());
    let sentence = if sentence.is_empty() { "it gave no reason" } else { &sentence };
    let error = RuntimeError::new(kind.clone(), format!("container cannot {doing}: {sentence}"));
    if kind == ErrorKind::Unreachable { error.hint(START_THE_SERVICE) } else { error }
}

/// Its own reason, without the `Error:` before it and the usage behind it.
fn sentence(stderr: &str) -> String {
    let lines = stderr.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let told: Vec<&str> =
        lines.filter(|line| !line.is_empty() && !line.to_lowercase().starts_with("warning")).collect();
    let told = told.join("; ");
    told.strip_prefix("Error: ").unwrap_or(&told).to_owned()
}

/// The command has one exit code for all its failures, so the sentence decides. That something is *not* there is never
/// concluded from it: that frees ports, and is seen in a listing that succeeded.
fn kind(lower: &str) -> ErrorKind {
    let any = |needles: &[&str]| needles.iter().any(|needle| lower.contains(needle));
    if any(&[
        "container system start",
        "connection invalid",
        "xpc connection error",
        "apiserver is not running",
    ]) {
        ErrorKind::Unreachable
    } else if any(&["address already in use", "errno: 48"]) {
        ErrorKind::PortRefused { port: None }
    } else if lower.contains("already exists") {
        ErrorKind::NameTaken
    } else if any(&["failed to find target executable", "executable file not found"]) {
        ErrorKind::Command
    } else if any(&["is not running", "not in the running state"]) {
        ErrorKind::NotRunning
    } else if any(&["invalidargument", "is not a directory", "unknown option", "missing expected argument"]) {
        ErrorKind::Invalid
    } else {
        ErrorKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_as_the_command_prints_them() {
        let kind = |stderr: &str| refused("do it", stderr).kind;
        let not_running = "Error: interrupted: \"XPC connection error: Connection invalid\"\nEnsure container system service has been started with `container system start`.";
        assert_eq!(kind(not_running), ErrorKind::Unreachable);
        assert_eq!(refused("do it", not_running).hint.as_deref(), Some(START_THE_SERVICE));
        assert_eq!(kind("Error: exists: \"container already exists: web\""), ErrorKind::NameTaken);
        assert_eq!(
            kind(
                "Error: unknown: \"failed to bootstrap container: bind(descriptor:ptr:bytes:): Address already in use (errno: 48)\""
            ),
            ErrorKind::PortRefused { port: None }
        );
        assert_eq!(
            kind(
                "Error: internalError: \"failed to start process\" (cause: \"failed to find target executable /no/such\")"
            ),
            ErrorKind::Command
        );
        // Neither frees a port nor blocks one.
        assert_eq!(kind("Error: notFound: \"container with ID web not found\""), ErrorKind::Other);
        assert_eq!(kind(""), ErrorKind::Other);
    }

    #[test]
    fn the_reason_stands_alone() {
        let error = refused(
            "create it",
            "Warning! old config\nError: Unknown option '--x'\nUsage: container create [<options>]\n  See 'container create --help'",
        );
        assert_eq!(error.message, "container cannot create it: Unknown option '--x'");
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert_eq!(refused("stop it", "").message, "container cannot stop it: it gave no reason");
    }
}
