use api::{Pool, PoolDocument, PoolPort, PoolPortState};
use jiff::Timestamp;
use owo_colors::AnsiColors;

use crate::age::age;
use crate::context::Context;
use crate::error::CliError;
use crate::table::{Field, Table};

/// Show the pool: which ports are free, and who has the others
///
/// A port is `free`; `leased` by an agent, or by whoever took a lease without one; `remembered` for a stopped agent, which gets it
/// again unless it is needed elsewhere; `cooling`, that is released a short while ago; or `blocked`, that is in use by someone whom
/// Berthold did not start.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold ports
  berthold ports --all
  berthold ports --json | jq .pool.counts")]
pub(crate) struct Arguments {
    /// Also the free ports
    #[arg(short, long)]
    all: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let pool = context.client().await?.pool(arguments.all).await?;
    let output = &context.output;
    if output.is_json() {
        return output.document(&PoolDocument { pool });
    }
    if !pool.enabled {
        output.say(SWITCHED_OFF);
    }
    if pool.enabled || !pool.ports.is_empty() {
        output.print(&shown(&pool, output.width(), Timestamp::now()))?;
    }
    Ok(())
}

const SWITCHED_OFF: &str = "\
the pool is off: agents get no ports. To switch it on, put this into the settings and start the broker anew:
  server:
    broker:
      port_pool:
        range: \"8000-9000\"
`berthold settings check` names the files that are read";

fn shown(pool: &Pool, width: Option<u16>, now: Timestamp) -> String {
    let mut text = header(pool);
    if !pool.ports.is_empty() {
        text.push_str("\n\n");
        text.push_str(&table(&pool.ports, now).render(width));
    }
    text
}

fn header(pool: &Pool) -> String {
    if !pool.enabled {
        return "pool off; still leased:".to_owned();
    }
    let counts = pool.counts;
    let others = [
        (counts.leased, "leased"),
        (counts.remembered, "remembered"),
        (counts.cooling, "cooling"),
        (counts.blocked, "blocked"),
    ];
    let mut text = format!("{}: {} of {} ports free", pool.range, counts.free, pool.size);
    for (count, state) in others.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!(", {count} {state}"));
    }
    text.push_str(&format!("; {} for each agent", pool.ports_per_agent));
    if let Some(host_url) = &pool.host_url {
        text.push_str(&format!("; at {host_url}"));
    }
    text
}

fn table(ports: &[PoolPort], now: Timestamp) -> Table {
    let headers = ["PORT", "STATE", "OWNER", "LABEL", "SINCE", "DETAIL"];
    let mut table = Table::new(&headers).expendable(&["DETAIL"]);
    for port in ports {
        let color = match port.state {
            PoolPortState::Leased => Some(AnsiColors::Green),
            PoolPortState::Blocked => Some(AnsiColors::Red),
            PoolPortState::Cooling => Some(AnsiColors::Yellow),
            PoolPortState::Free | PoolPortState::Remembered => None,
        };
        table.row([
            port.port.to_string().into(),
            Field::colored(port.state.as_str(), color),
            port.agent.clone().unwrap_or_default().into(),
            port.label.clone().unwrap_or_default().into(),
            port.since.as_ref().map(|since| age(since, now)).unwrap_or_default().into(),
            detail(port).into(),
        ]);
    }
    table
}

/// What else there is to say. An owner without an agent is told apart from an agent of the same name.
fn detail(port: &PoolPort) -> String {
    let bare = port.bare.then(|| "bare lease".to_owned());
    bare.into_iter().chain(port.detail.clone()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use api::Counts;

    use super::*;
    use crate::view::samples::now;

    fn port(port: u16, state: PoolPortState) -> PoolPort {
        PoolPort { port, state, agent: None, bare: false, label: None, since: None, detail: None }
    }

    fn pool() -> Pool {
        let (agent, db) = (Some("default/dev".to_owned()), Some("default/db".to_owned()));
        let since = Some("2026-11-23T09:00:00Z".to_owned());
        let detail = Some("python3 (pid 4711)".to_owned());
        Pool {
            excluded: Vec::new(),
            enabled: true,
            range: "8000-9000".into(),
            size: 1000,
            ports_per_agent: 2,
            host_url: Some("http://203.0.113.7".into()),
            bind_address: Some("0.0.0.0".into()),
            counts: Counts { free: 997, leased: 1, remembered: 1, cooling: 0, blocked: 1 },
            ports: vec![
                PoolPort { agent, label: Some("A".into()), since, ..port(8000, PoolPortState::Leased) },
                PoolPort { detail, ..port(8001, PoolPortState::Blocked) },
                PoolPort { agent: db, bare: true, ..port(8002, PoolPortState::Remembered) },
            ],
        }
    }

    fn plain(pool: &Pool) -> String {
        anstream::adapter::strip_str(&shown(pool, None, now())).to_string()
    }

    #[test]
    fn a_pool_and_who_has_its_ports() {
        insta::assert_snapshot!(plain(&pool()), @"
        8000-9000: 997 of 1000 ports free, 1 leased, 1 remembered, 1 blocked; 2 for each agent; at http://203.0.113.7

        PORT  STATE       OWNER        LABEL  SINCE  DETAIL
        8000  leased      default/dev  A      3m     -
        8001  blocked     -            -      -      python3 (pid 4711)
        8002  remembered  default/db   -      -      bare lease
        ");
    }

    #[test]
    fn a_pool_of_free_ports_and_one_that_was_switched_off() {
        let counts = Counts { free: 1000, ..Counts::default() };
        insta::assert_snapshot!(plain(&Pool { counts, ports: Vec::new(), host_url: None, ..pool() }), @"8000-9000: 1000 of 1000 ports free; 2 for each agent");
        insta::assert_snapshot!(plain(&Pool { enabled: false, ..pool() }), @"
        pool off; still leased:

        PORT  STATE       OWNER        LABEL  SINCE  DETAIL
        8000  leased      default/dev  A      3m     -
        8001  blocked     -            -      -      python3 (pid 4711)
        8002  remembered  default/db   -      -      bare lease
        ");
    }
}
