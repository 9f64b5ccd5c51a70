use api::{Lease, LeasesDocument};
use jiff::Timestamp;

use crate::age::age;
use crate::context::Context;
use crate::error::CliError;
use crate::names;
use crate::table::Table;

/// List leases of what Berthold does not start itself
///
/// Shows what `berthold lease` and `berthold run` have leased in the project: a lease lives until it is released, or until a process
/// has ended. The ports of agents are shown by `berthold list`, and the whole pool by
/// `berthold ports`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold leases
  berthold leases --all-projects
  berthold leases --json | jq '.leases[].ports'")]
pub(crate) struct Arguments {
    /// The leases of every project
    #[arg(short = 'A', long)]
    all_projects: bool,
    /// Only the names of the owners
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let project = (!arguments.all_projects).then(|| context.project.as_str());
    let leases = context.client().await?.leases(project).await?;
    let output = &context.output;
    if output.is_json() {
        return output.document(&LeasesDocument { leases });
    }
    if leases.is_empty() {
        if !arguments.quiet {
            output.say(&nothing(project));
        }
        return Ok(());
    }
    let full_names = arguments.all_projects;
    if arguments.quiet {
        let names: Vec<String> = leases.iter().map(|lease| name(lease, full_names)).collect();
        return output.print(&names.join("\n"));
    }
    output.print(&table(&leases, full_names, Timestamp::now()).render(output.width()))
}

fn nothing(project: Option<&str>) -> String {
    let next = "take one with `berthold lease OWNER`";
    match project {
        None => format!("no leases; {next}"),
        Some(project) => format!(
            "no leases in the project {project}; {next}, or see those of every project with `berthold leases -A`"
        ),
    }
}

fn name(lease: &Lease, full: bool) -> String {
    match full {
        true => format!("{}/{}", lease.project, lease.name),
        false => names::shown(&lease.project, &lease.name),
    }
}

/// What it takes for the lease to end.
fn until(lease: &Lease) -> String {
    match &lease.holder {
        None => "released".to_owned(),
        Some(holder) if holder.command.is_empty() => format!("process {} ends", holder.pid),
        Some(holder) => format!("process {} ends: {}", holder.pid, holder.command),
    }
}

fn table(leases: &[Lease], full_names: bool, now: Timestamp) -> Table {
    let headers = ["OWNER", "PORTS", "URL", "SINCE", "UNTIL", "LEASE"];
    let mut table = Table::new(&headers).expendable(&["LEASE", "URL", "UNTIL"]);
    for lease in leases {
        let ports: Vec<String> = lease.ports.values().map(u16::to_string).collect();
        table.row([
            name(lease, full_names).into(),
            ports.join(",").into(),
            lease.urls.values().next().cloned().unwrap_or_default().into(),
            age(&lease.since, now).into(),
            until(lease).into(),
            lease.id.as_str().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use api::Holder;

    use super::*;
    use crate::view::samples::{lease, now};

    #[test]
    fn a_table_of_leases() {
        let plain = |full_names| {
            let holder = Holder {
                pid: 4711,
                start_time: "1".into(),
                boot_id: "b".into(),
                command: "npm run dev".into(),
            };
            let held = Lease { name: "web".into(), holder: Some(holder), ..lease() };
            anstream::adapter::strip_str(&table(&[lease(), held], full_names, now()).render(None)).to_string()
        };
        insta::assert_snapshot!(plain(false), @"
        OWNER     PORTS      URL                    SINCE  UNTIL                           LEASE
        shop/db   8000,8001  http://localhost:8000  3m     released                        01J
        shop/web  8000,8001  http://localhost:8000  3m     process 4711 ends: npm run dev  01J
        ");
        insta::assert_snapshot!(plain(true), @"
        OWNER     PORTS      URL                    SINCE  UNTIL                           LEASE
        shop/db   8000,8001  http://localhost:8000  3m     released                        01J
        shop/web  8000,8001  http://localhost:8000  3m     process 4711 ends: npm run dev  01J
        ");
    }
}
