//! The commands, a file each. A command's arguments are a clap struct whose doc comment is its help.

mod attach;
mod broker;
mod completions;
mod delete;
mod doctor;
mod exec;
mod history;
mod lease;
mod leases;
mod list;
mod logs;
mod man;
mod open;
mod ports;
mod reconcile;
mod release;
mod restart;
mod run;
mod serve;
mod settings;
mod several;
mod show;
mod start;
mod stop;

use std::process::ExitCode;

use crate::context::Context;
use crate::demo;
use crate::error::CliError;
pub(crate) use start::Arguments as StartArguments;

/// The command that was typed.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    Demo(demo::Arguments),
    Start(start::Arguments),
    Stop(stop::Arguments),
    Restart(restart::Arguments),
    Delete(delete::Arguments),
    List(list::Arguments),
    Show(show::Arguments),
    Ports(ports::Arguments),
    History(history::Arguments),
    Logs(logs::Arguments),
    Exec(exec::Arguments),
    Attach(attach::Arguments),
    Open(open::Arguments),
    Reconcile(reconcile::Arguments),
    Run(run::Arguments),
    Lease(lease::Arguments),
    Leases(leases::Arguments),
    Release(release::Arguments),
    Serve(serve::Arguments),
    Broker(broker::Arguments),
    Doctor(doctor::Arguments),
    Settings(settings::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

impl Command {
    /// Whether it runs a broker itself, and so logs without being asked to.
    pub(crate) fn is_a_broker(&self) -> bool {
        matches!(self, Self::Serve(_))
    }
}

/// Carries out `command`. The exit code is that of the command which `exec` or `run` ran, else 0.
pub(crate) async fn run(command: Command, context: &Context) -> Result<ExitCode, CliError> {
    match command {
        Command::Demo(arguments) => return demo::run(&arguments, context).await,
        Command::Start(arguments) => start::run(arguments, context).await?,
        Command::Stop(arguments) => stop::run(&arguments, context).await?,
        Command::Restart(arguments) => restart::run(&arguments, context).await?,
        Command::Delete(arguments) => delete::run(&arguments, context).await?,
        Command::List(arguments) => list::run(&arguments, context).await?,
        Command::Show(arguments) => show::run(&arguments, context).await?,
        Command::Ports(arguments) => ports::run(&arguments, context).await?,
        Command::History(arguments) => history::run(&arguments, context).await?,
        Command::Logs(arguments) => return logs::run(&arguments, context).await,
        Command::Exec(arguments) => return exec::run(arguments, context).await,
        Command::Attach(arguments) => return attach::run(arguments, context).await,
        Command::Open(arguments) => open::run(&arguments, context).await?,
        Command::Reconcile(arguments) => reconcile::run(&arguments, context).await?,
        Command::Run(arguments) => return run::run(&arguments, context).await,
        Command::Lease(arguments) => lease::run(&arguments, context).await?,
        Command::Leases(arguments) => leases::run(&arguments, context).await?,
        Command::Release(arguments) => release::run(&arguments, context).await?,
        Command::Serve(arguments) => serve::run(&arguments, context).await?,
        Command::Broker(arguments) => broker::run(&arguments, context).await?,
        Command::Doctor(_) => return doctor::run(context).await,
        Command::Settings(arguments) => settings::run(&arguments, context)?,
        Command::Completions(arguments) => completions::run(&arguments, context)?,
        Command::Man(arguments) => man::run(&arguments, context)?,
    }
    Ok(ExitCode::SUCCESS)
}
