use super::several::{self, Operation, Selection};
use crate::context::Context;
use crate::error::CliError;

/// Stop agents and give their ports back
///
/// The agents stay known: `berthold start NAME` starts one as it was, with its former ports if they are still free. Stopping
/// what is stopped already, or not there, succeeds.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold stop dev
  berthold stop dev web --timeout 30s
  berthold stop --all --project shop")]
pub(crate) struct Arguments {
    #[command(flatten)]
    selection: Selection,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    several::run(Operation::Stop, &arguments.selection, context).await
}
