//! Commands that run beside an agent: with its variables, in its directory, and ended with it.
//!
//! They are children of the broker, whose death closes their pipes. They carry the agent's mark, so that stopping the
//! agent, or its own end, ends them too.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::becoming::cannot_execute;
use super::ending::is_running;
use super::environment;
use super::folder::Folder;
use super::processes::not_running;
use super::record::{AgentRecord, Left};
use super::table::MARK;
use crate::{Attached, ErrorKind, ExecRequest, RuntimeError, child};

/// A command with all that it needs.
pub(super) struct Beside {
    pub(super) command: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) workdir: PathBuf,
}

impl Beside {
    /// What the request means for this agent. That the program is there is seen here, for a terminal's sake: there
    /// the command's start is not reported back.
    pub(super) fn new(agent: &AgentRecord, request: &ExecRequest) -> Result<Self, RuntimeError> {
        let Some(program) = request.command.first() else {
            return Err(RuntimeError::new(ErrorKind::Invalid, "there is no command to run"));
        };
        let mark = (MARK.to_owned(), agent.id.clone());
        let env: Vec<_> = agent.env.iter().chain(&request.env).cloned().chain([mark]).collect();
        let workdir =
            request.workdir.as_ref().map_or_else(|| agent.workdir.clone(), |dir| agent.workdir.join(dir));
        if !workdir.is_dir() {
            let message = format!("the directory {} is not there", workdir.display());
            return Err(RuntimeError::new(ErrorKind::Invalid, message));
        }
        find_program(program, environment::value(&env, "PATH").unwrap_or_default(), &workdir)
            .map_err(|error| command_error(program, &error))?;
        Ok(Self { command: request.command.clone(), env, workdir })
    }

    /// Runs it on pipes.
    pub(super) fn run(&self, folder: &Folder, with_input: bool) -> Result<Attached, RuntimeError> {
        let (program, arguments) = self.command.split_first().expect("an empty command was refused");
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        // Its own group, so that Ctrl-C at a broker in the foreground does not reach it.
        command.current_dir(&self.workdir).process_group(0);
        command.stdin(if with_input { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| command_error(program, &error))?;
        confirm(folder, &mut child)?;
        Ok(child::on_pipes(child))
    }
}

/// Ends the command again if the agent has ended meanwhile, so that nothing runs beside what is gone.
pub(super) fn confirm(folder: &Folder, child: &mut Child) -> Result<(), RuntimeError> {
    let is_wanted = || -> Result<bool, RuntimeError> {
        let may_come = folder.exited()?.is_none_or(|exited| exited.left == Left::Descendants);
        Ok(may_come && is_running(folder.life()?.as_ref()))
    };
    let outcome =
        is_wanted().and_then(|is_wanted| is_wanted.then_some(()).ok_or_else(|| not_running(folder)));
    outcome.inspect_err(|_| {
        // It can only fail for a command that has ended by itself.
        let _has_ended = child.start_kill();
    })
}

fn command_error(program: &str, error: &io::Error) -> RuntimeError {
    let failure = cannot_execute(program, error);
    RuntimeError::new(failure.reason.kind(), failure.message)
}

/// Whether a program would be found and may be executed.
fn find_program(program: &str, path: &str, workdir: &Path) -> io::Result<()> {
    if program.contains('/') {
        return is_program(&workdir.join(program));
    }
    let mut result = Err(io::ErrorKind::NotFound.into());
    for directory in path.split(':') {
        match is_program(&workdir.join(directory).join(program)) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => result = Err(error),
            Err(_) => {}
        }
    }
    result
}

fn is_program(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(rustix::fs::access(path, rustix::fs::Access::EXEC_OK)?)
}
