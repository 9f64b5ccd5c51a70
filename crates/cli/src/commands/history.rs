use api::{HistoryDocument, HistoryEntry, HistoryQuery};
use jiff::{Span, SpanRelativeTo, Timestamp};
use owo_colors::AnsiColors;

use crate::age::age;
use crate::context::Context;
use crate::error::CliError;
use crate::table::{Field, Table};

/// Show who held which port, and when
///
/// Of a port, or of an agent or the owner of leases; of all without either. The latest comes first. What is held still is always there; of
/// what has ended 30 days are kept, and 100,000 entries at the most.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold history 8000                  who had port 8000
  berthold history dev --since 2h        which ports dev had in the last two hours
  berthold history --since 2026-11-23T09:00:00Z
  berthold history shop/8000             an agent whose name is a number")]
pub(crate) struct Arguments {
    /// A port, or an agent or an owner as NAME or PROJECT/NAME
    #[arg(value_name = "PORT|NAME", add = crate::complete::agents())]
    of: Option<String>,
    /// Only what was held then or later: how long ago, such as 30m, 2h or 7d, or a time such as 2026-11-23T09:00:00Z
    #[arg(long, value_name = "DURATION|TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// At most N entries
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: Option<u32>,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let of = arguments.of.as_deref().map(|typed| meant(typed, context)).transpose()?;
    let mut query = HistoryQuery {
        since: arguments.since.map(|since| since.to_string()),
        limit: arguments.limit,
        ..HistoryQuery::default()
    };
    match &of {
        Some(Of::Port(port)) => query.port = Some(*port),
        Some(Of::Owner(owner)) => query.agent = Some(owner.clone()),
        None => {}
    }
    let HistoryDocument { history, more } = context.client().await?.history(&query).await?;
    let output = &context.output;
    if output.is_json() {
        return output.document(&HistoryDocument { history, more });
    }
    if history.is_empty() {
        output.say(&nothing(of.as_ref(), arguments.since));
        return Ok(());
    }
    output.print(&table(&history, Timestamp::now()).render(output.width()))?;
    if more {
        output.say("there is more, which is older: -n shows more of it, --since says how far back");
    }
    Ok(())
}

/// Of what the history is.
enum Of {
    Port(u16),
    Owner(String),
}

fn meant(typed: &str, context: &Context) -> Result<Of, CliError> {
    match typed.parse() {
        Ok(port) if port > 0 => Ok(Of::Port(port)),
        _ if typed.bytes().all(|byte| byte.is_ascii_digit()) && !typed.is_empty() => {
            let key = context.agent(typed)?;
            Err(CliError::usage(format!("{typed} is no port: ports are 1 to 65535"))
                .with_hint(format!("for an agent of that name write {key}")))
        }
        _ => Ok(Of::Owner(context.agent(typed)?.to_string())),
    }
}

/// Takes `text` as a time, or as how long ago one was; for clap.
fn since(text: &str) -> Result<Timestamp, String> {
    since_at(text, Timestamp::now())
}

fn since_at(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let spelled = text.parse::<u64>().map_or_else(|_| text.to_owned(), |seconds| format!("{seconds}s"));
    let days = SpanRelativeTo::days_are_24_hours();
    let ago = spelled.parse::<Span>().and_then(|span| span.to_duration(days)).ok();
    let then = ago.filter(|ago| !ago.is_negative()).and_then(|ago| now.checked_sub(ago).ok());
    then.ok_or_else(|| {
        "write how long ago, such as 30m, 2h or 7d, or a time such as 2026-11-23T09:00:00Z".to_owned()
    })
}

fn nothing(of: Option<&Of>, since: Option<Timestamp>) -> String {
    let since = since.map_or_else(String::new, |since| format!(" since {}", whole_seconds(since)));
    match of {
        Some(Of::Port(port)) => {
            format!(
                "port {port} was not leased{since}, as far as is remembered; `berthold ports` shows who has it now"
            )
        }
        Some(Of::Owner(owner)) => format!("{owner} had no ports{since}, as far as is remembered"),
        None => format!("no port was leased{since}, as far as is remembered"),
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn table(history: &[HistoryEntry], now: Timestamp) -> Table {
    let mut table = Table::new(&["PORT", "LABEL", "OWNER", "FROM", "TO", "FOR", "REASON"]);
    table = table.expendable(&["REASON", "LABEL"]);
    for entry in history {
        let owner = if entry.bare { format!("lease {}", entry.owner) } else { entry.owner.clone() };
        let end = entry.to.as_ref().and_then(|to| to.parse().ok()).unwrap_or(now);
        table.row([
            entry.port.to_string().into(),
            entry.label.as_str().into(),
            owner.into(),
            entry.from.as_str().into(),
            match &entry.to {
                Some(to) => to.as_str().into(),
                None => Field::colored("still held", Some(AnsiColors::Green)),
            },
            age(&entry.from, end).into(),
            entry.reason.clone().unwrap_or_default().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples::now;

    #[test]
    fn who_had_which_port() {
        let ended = HistoryEntry {
            port: 8000,
            label: "A".into(),
            owner: "default/dev".into(),
            bare: false,
            lease: "01J".into(),
            from: "2026-11-23T08:00:00Z".into(),
            to: Some("2026-11-23T08:30:00Z".into()),
            reason: Some("exited with code 2".into()),
        };
        let held = HistoryEntry {
            owner: "default/db".into(),
            bare: true,
            from: "2026-11-23T09:00:00Z".into(),
            to: None,
            reason: None,
            ..ended.clone()
        };
        let plain = anstream::adapter::strip_str(&table(&[held, ended], now()).render(None)).to_string();
        insta::assert_snapshot!(plain, @"
        PORT  LABEL  OWNER             FROM                  TO                    FOR  REASON
        8000  A      lease default/db  2026-11-23T09:00:00Z  still held            3m   -
        8000  A      default/dev       2026-11-23T08:00:00Z  2026-11-23T08:30:00Z  30m  exited with code 2
        ");
    }

    #[test]
    fn how_far_back() {
        let shown = |text: &str| since_at(text, now()).map(|time| time.to_string());
        assert_eq!(shown("2h"), Ok("2026-11-23T07:03:20Z".into()));
        assert_eq!(shown("1d12h"), Ok("2026-11-21T21:03:20Z".into()));
        assert_eq!(shown("20"), Ok("2026-11-23T09:03:00Z".into()));
        assert_eq!(shown("2026-11-23T09:00:00Z"), Ok("2026-11-23T09:00:00Z".into()));
        for wrong in ["", "-1h", "soon", "1mo", "99999999d"] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_empty_history_is_a_sentence() {
        insta::assert_snapshot!(nothing(Some(&Of::Port(8000)), None), @"port 8000 was not leased, as far as is remembered; `berthold ports` shows who has it now");
        insta::assert_snapshot!(nothing(Some(&Of::Owner("shop/dev".into())), Some(now())), @"shop/dev had no ports since 2026-11-23T09:03:20Z, as far as is remembered");
        insta::assert_snapshot!(nothing(None, None), @"no port was leased, as far as is remembered");
    }
}
