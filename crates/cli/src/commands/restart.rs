use std::time::Duration;

use api::{AgentDocument, RestartRequest};

use super::start::{PATIENCE, shown};
use crate::context::Context;
use crate::duration::{self, milliseconds};
use crate::error::CliError;
use crate::{progress, view};

/// Stop an agent and start it again with the same ports
///
/// The agent is created anew from what it was started with. One that does not run is started.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold restart dev
  berthold restart dev --wait")]
pub(crate) struct Arguments {
    /// The agent, as NAME or PROJECT/NAME
    #[arg(add = crate::complete::agents())]
    name: String,
    /// How long it has to end by itself before it is ended by force, such as 30s
    #[arg(short, long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Wait until port A answers [30s if no duration is given]
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = PATIENCE,
        value_parser = duration::parse)]
    wait: Option<Duration>,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let key = context.agent(&arguments.name)?;
    let client = context.client().await?;
    let request = RestartRequest {
        timeout_ms: arguments.timeout.map(milliseconds),
        wait_ms: arguments.wait.map(milliseconds),
    };
    let work = client.restart(key.project.as_str(), key.name.as_str(), &request);
    let agent = progress::shown_during(work, &client, &key, &context.output).await?;
    if context.output.is_json() {
        return context.output.document(&AgentDocument { agent });
    }
    view::warn(&agent, &context.output);
    context.output.print(&shown(&agent, true))
}
