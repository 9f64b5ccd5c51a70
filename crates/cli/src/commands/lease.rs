use api::{Lease, LeaseDocument, LeaseRequest};

use crate::context::Context;
use crate::error::CliError;
use crate::lease_formats::{self, Format};
use crate::{names, view};

/// Lease ports to something that Berthold does not start itself
///
/// The ports come from the same pool as those of agents, and nobody else gets them until `berthold release OWNER`. OWNER is a name of
/// your choice; an agent of that name is someone else. Leasing once more gives the lease that is there, so a script need not know
/// whether it has run before.
///
/// --format prints the lease for another program: with the variables that an agent would get, and for Docker and Compose with the
/// ports to be published. Inside and outside the numbers are the same, so a container must listen on them, on 0.0.0.0.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold lease db
  eval \"$(berthold lease db --format env)\"
  berthold lease db -n 1 --format dotenv > .env
  docker run $(berthold lease web --format docker) php:8 sh -c 'php -S 0.0.0.0:$AVAILABLE_LOCALHOST_PORT_A'
  berthold lease db --json | jq .lease.ports.A
  berthold lease db -n 3 --replace        keep what it has, and one port more")]
pub(crate) struct Arguments {
    /// Whose lease it is, as NAME or PROJECT/NAME
    #[arg(add = crate::complete::owners())]
    owner: String,
    /// How many ports [as many as it has, or the pool's usual number]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(pool::label::LABEL_COUNT)))]
    ports: Option<u16>,
    /// What to print it for
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Change the number of ports of a lease that is there
    #[arg(long)]
    replace: bool,
    /// With --replace: give ports up also while they are in use
    #[arg(long, requires = "replace")]
    force: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let key = context.owner(&arguments.owner)?;
    let output = &context.output;
    if output.is_json() && arguments.format.is_some_and(|format| format != Format::Json) {
        return Err(CliError::usage("--json and another --format exclude each other")
            .with_hint("leave one of the two out"));
    }
    let request = LeaseRequest {
        ports: arguments.ports,
        replace: arguments.replace,
        force: arguments.force,
        ..LeaseRequest::default()
    };
    let client = context.client().await?;
    let (lease, created) = client.lease(key.project.as_str(), key.name.as_str(), &request).await?;
    match arguments.format {
        None if !output.is_json() => {
            output.print(&shown(&lease, created))?;
            if created {
                let owner = names::shown(&lease.project, &lease.name);
                output.say(&format!("`berthold release {owner}` gives them back"));
            }
            Ok(())
        }
        None | Some(Format::Json) => output.document(&LeaseDocument { lease }),
        Some(Format::Env) => output.print(&lease_formats::env(&lease)),
        Some(Format::Dotenv) => output.print(&lease_formats::dotenv(&lease)),
        Some(Format::Docker) => output.print(&lease_formats::docker(&lease)),
        Some(Format::Compose) => output.print(&lease_formats::compose(&lease)),
    }
}

fn shown(lease: &Lease, created: bool) -> String {
    let (count, again) = (lease.ports.len(), if created { "" } else { " already" });
    let ports = if count == 1 { "1 port".to_owned() } else { format!("{count} ports") };
    let mut lines =
        vec![format!("{} has a lease of {ports}{again}", names::shown(&lease.project, &lease.name))];
    lines.extend(view::labelled(&lease.ports, &lease.urls).into_iter().map(|line| format!("  {line}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples::lease;

    #[test]
    fn what_a_lease_prints() {
        insta::assert_snapshot!(shown(&lease(), true), @"
        shop/db has a lease of 2 ports
          A  8000   http://localhost:8000
          B  8001   http://localhost:8001
        ");
        insta::assert_snapshot!(shown(&lease(), false), @"
        shop/db has a lease of 2 ports already
          A  8000   http://localhost:8000
          B  8001   http://localhost:8001
        ");
    }
}
