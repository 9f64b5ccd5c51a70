use api::LeasesDocument;

use crate::context::Context;
use crate::error::CliError;
use crate::names;

/// Give the ports of a lease back
///
/// Ends what `berthold lease OWNER` began. While something still listens on one of the ports it is refused, so that nobody gets a port
/// that is in use; end that first, or use --force. Releasing what is released already succeeds.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold release db
  berthold release db --lease 01KAZ3NDEKTSV4RRFFQ69G5FAV      only that one, and not a later one
  berthold release db --force")]
pub(crate) struct Arguments {
    /// Whose lease it is, as NAME or PROJECT/NAME
    #[arg(add = crate::complete::owners())]
    owner: String,
    /// Only the lease of this id, which `berthold lease --json` tells
    #[arg(long, value_name = "ID")]
    lease: Option<String>,
    /// Also while a port is in use; whoever has it then is shown by `berthold ports`
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let key = context.owner(&arguments.owner)?;
    let client = context.client().await?;
    let (project, name) = (key.project.as_str(), key.name.as_str());
    let released = client.release(project, name, arguments.lease.as_deref(), arguments.force).await?;
    let output = &context.output;
    let owner = names::shown(project, name);
    match &released {
        _ if output.is_json() => output.document(&LeasesDocument { leases: released.into_iter().collect() }),
        Some(lease) => {
            let ports: Vec<String> = lease.ports.values().map(u16::to_string).collect();
            output.print(&format!("released {} of {owner}", ports.join(", ")))
        }
        None => {
            let agents = client.agents(Some(project)).await.unwrap_or_default();
            let is_agent = agents.iter().any(|agent| agent.name == name);
            output.say(&nothing(&owner, is_agent));
            Ok(())
        }
    }
}

fn nothing(owner: &str, is_agent: bool) -> String {
    match is_agent {
        true => {
            format!("{owner} is an agent and has no bare lease: `berthold stop {owner}` gives its ports back")
        }
        false => format!("{owner} has no lease: nothing to release"),
    }
}
