//! The `berthold` command: parses what was typed, asks the broker, prints.
//!
//! | module | what it does |
//! |---|---|
//! | `arguments` | the command line as it is typed |
//! | `commands` | what each command does, a file each |
//! | `demo` | the main job in one go |
//! | `context`, `background` | the way to the broker, which is started if need be |
//! | `output`, `table`, `view`, `lease_formats`, `progress` | what people and programs see |
//! | `job` | a child in the foreground |
//! | `error` | what went wrong, and the exit code |

mod age;
mod arguments;
mod background;
mod commands;
mod complete;
mod context;
mod conversation;
mod demo;
mod detach_keys;
mod duration;
mod error;
mod job;
mod lease_formats;
mod names;
mod output;
mod progress;
mod roles;
mod signals;
mod start_request;
mod table;
mod terminal;
mod view;

use std::process::ExitCode;
use std::sync::Arc;

use arguments::{Answered, Arguments};
use context::Context;
use error::CliError;
use output::Output;

fn main() -> ExitCode {
    // Before anything else: a shim has no threads and is not yet to look at its environment.
    if let Some(code) = roles::other_than_command() {
        return code;
    }
    complete::answer_the_shell();
    let typed = match arguments::parse(std::env::args_os()) {
        Ok(typed) => typed,
        Err(Answered { exit_code }) => return exit_code.into(),
    };
    let output = Arc::new(Output::standard(typed.global.json, typed.global.color.into()));
    roles::start_logging(&typed);
    run(typed, &output).unwrap_or_else(|error| {
        error.show(&output);
        error.exit_code().into()
    })
}

fn run(typed: Arguments, output: &Arc<Output>) -> Result<ExitCode, CliError> {
    let context = Context::new(Arc::clone(output), &typed.global)?;
    let runtime =
        tokio::runtime::Runtime::new().map_err(|source| CliError::io("no threads can be had", source))?;
    let result = runtime.block_on(commands::run(typed.command, &context));
    // A read of standard input that still waits for a key is not waited for.
    runtime.shutdown_background();
    result
}
