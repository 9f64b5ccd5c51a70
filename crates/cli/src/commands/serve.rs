use broker::ServeOptions;
use tokio::signal::unix::SignalKind;

use crate::context::Context;
use crate::error::CliError;
use crate::roles;
use crate::signals::{self, EndSignals};

/// Run the broker in the foreground
///
/// It serves the home that BERTHOLD_HOME or the XDG directories name. Commands that find no broker start one by themselves, so
/// this is for service managers and for watching it at work. When it ends, agents go on running; the next broker finds them.
///
/// SIGINT and SIGTERM end it once what is under way has come to its end; a second one ends it at once. What is logged is set
/// with BERTHOLD_LOG, such as `debug` or `broker=debug,info`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold serve
  berthold serve --range 8000-9000 --host-url http://203.0.113.7
  BERTHOLD_HOME=/tmp/other berthold serve --listen none")]
pub(crate) struct Arguments {
    /// Where the API listens: ADDRESS:PORT, or `none` for the Unix socket alone
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// The ports of the pool, such as 8000-9000
    #[arg(long, value_name = "LOW-HIGH")]
    range: Option<String>,
    /// How many ports an agent gets that asks for none in particular
    #[arg(long, value_name = "N")]
    ports_per_agent: Option<String>,
    /// Where people find this host, such as http://203.0.113.7
    #[arg(long, value_name = "URL")]
    host_url: Option<String>,
    /// Leave the terminal; for a command that starts a broker
    #[arg(long, hide = true)]
    background: bool,
}

impl Arguments {
    /// What was typed, by the keys of the settings.
    fn overrides(&self) -> Vec<(String, String)> {
        let typed = [
            ("server.broker.listen", &self.listen),
            ("server.broker.port_pool.range", &self.range),
            ("server.broker.port_pool.ports_per_agent", &self.ports_per_agent),
            ("server.broker.port_pool.host_url", &self.host_url),
        ];
        typed.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?))).collect()
    }
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    if context.names_a_broker() {
        return Err(CliError::usage("`serve` runs the broker of a home, and --broker names another one")
            .with_hint("name the home with BERTHOLD_HOME=DIR, and leave out --broker and BERTHOLD_BROKER"));
    }
    if arguments.background {
        // So that neither Ctrl-C nor the end of the terminal ends it with the command that started it.
        rustix::process::setsid()
            .map_err(|error| CliError::io("the terminal cannot be left", error.into()))?;
    }
    let failed = |source| CliError::io("signals cannot be waited for", source);
    let shutdown = asked_to_end(EndSignals::listen().map_err(failed)?);
    let settings = context.load_settings(arguments.overrides())?;
    let shim = roles::shim().map_err(|source| CliError::io("this very program cannot be found", source))?;
    broker::serve(ServeOptions { home: context.home()?, settings, shim }, shutdown).await?;
    Ok(())
}

/// Is done with the first signal that asks for an end. A second one ends the process.
async fn asked_to_end(mut signals: EndSignals) {
    next(&mut signals).await;
    tokio::spawn(async move {
        let kind = next(&mut signals).await;
        std::process::exit(signals::exit_code(kind).into());
    });
}

/// The next signal that asks a daemon for an end. That of a terminal is not its own.
async fn next(signals: &mut EndSignals) -> SignalKind {
    loop {
        let kind = signals.next().await;
        if kind != SignalKind::hangup() {
            return kind;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_goes_before_the_settings() {
        let arguments = Arguments {
            listen: Some("none".into()),
            range: Some("8000-8010".into()),
            ports_per_agent: None,
            host_url: None,
            background: false,
        };
        let expected = [("server.broker.listen", "none"), ("server.broker.port_pool.range", "8000-8010")];
        assert_eq!(arguments.overrides(), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
