use super::several::{self, Operation, Selection};
use crate::context::Context;
use crate::error::CliError;

/// Delete agents: stop them and forget them
///
/// Their containers are removed with all that is in them and not in a volume. Deleting what is not there succeeds.
#[derive(clap::Args, Debug)]
#[command(
    visible_alias = "rm",
    after_help = "\
Examples:
  berthold delete dev
  berthold delete --all --project shop"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Forget them also if their engine cannot be asked, such as one that is gone for good; if it still runs them, their ports are
    /// given to others all the same
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    several::run(Operation::Delete { force: arguments.force }, &arguments.selection, context).await
}
