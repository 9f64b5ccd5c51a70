//! What this program is, other than a command: the shim of an agent, or the demo's web server. And whether it logs.

use std::env;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use runtime::process::ShimCommand;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use crate::arguments::Arguments;
use crate::demo::server;

/// The first argument that makes this program the shim of an agent.
const SHIM: &str = "__shim";

/// Is what the first argument asks for, to its end, if that is no command.
pub(crate) fn other_than_command() -> Option<ExitCode> {
    let mut typed = env::args_os().skip(1);
    let role = typed.next()?;
    if role == server::ROLE {
        return Some(server::run());
    }
    let (files, directory) = if role == SHIM { (typed.next()?, typed.next()?) } else { return None };
    limit_files(files.to_str());
    Some(runtime::process::run_shim(Path::new(&directory)))
}

/// How a broker in this program starts the shims of its agents.
pub(crate) fn shim() -> std::io::Result<ShimCommand> {
    // Leads to this very program also after its file was replaced by a newer one (proc_pid_exe(5)).
    let itself = Path::new("/proc/self/exe");
    let program = if itself.exists() { itself.to_owned() } else { env::current_exe()? };
    let files = getrlimit(Resource::Nofile).current.map_or_else(String::new, |files| files.to_string());
    Ok(ShimCommand { program, arguments: vec![SHIM.into(), files.into()] })
}

/// Gives the agent the limit of open files that the broker was started with: the broker may have raised its own, and programs
/// that use select(2) do not bear more than 1024.
fn limit_files(files: Option<&str>) {
    if let Some(current) = files.and_then(|files| files.parse().ok()) {
        let limit = Rlimit { current: Some(current), ..getrlimit(Resource::Nofile) };
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            // The agent runs all the same.
            tracing::debug!(%error, "the limit of open files stays that of the broker");
        }
    }
}

/// Logs to standard error: a broker always, a command if it was asked to. `BERTHOLD_LOG` says what.
pub(crate) fn start_logging(typed: &Arguments) {
    let usual = match (typed.global.verbose, typed.command.is_a_broker()) {
        (true, _) => "info,api=debug,berthold=debug,broker=debug,runtime=debug",
        (false, true) => "info",
        (false, false) => "off",
    };
    let wanted = env::var("BERTHOLD_LOG").ok().filter(|text| !text.is_empty());
    let filter = EnvFilter::builder().parse_lossy(wanted.as_deref().unwrap_or(usual));
    let colors = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colors && std::io::stderr().is_terminal())
        // It would be told on standard error too, with a panic if that is a file on a full disk.
        .log_internal_errors(false)
        .init();
}
