use std::path::Path;
use std::time::{Duration, Instant};

use api::{Broker, BrokerDocument, Client, Code};
use jiff::Timestamp;
use serde_json::json;
use tokio::time::sleep;

use crate::age::age;
use crate::background::is_held;
use crate::context::{Context, runs_not};
use crate::error::CliError;
use crate::table;

/// How long a broker may take to end: it waits for agents that are being stopped.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(20);

/// Look after the broker
#[derive(clap::Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Show whether the broker runs, and how it is
    ///
    /// Starts none: without one the exit code is 5.
    Status,
    /// End the broker
    ///
    /// Waits until it has ended. Agents go on running with their ports; the next broker finds them.
    Stop,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let client = context.client_as_it_is().await?;
    match arguments.action {
        Action::Status => status(&client, context).await,
        Action::Stop => stop(&client, context).await,
    }
}

async fn status(client: &Client, context: &Context) -> Result<(), CliError> {
    let broker = client.broker().await?;
    let output = &context.output;
    if output.is_json() {
        return output.document(&BrokerDocument { broker });
    }
    for warning in &broker.warnings {
        output.warn(warning);
    }
    output.print(&shown(&broker, Timestamp::now()))
}

fn shown(broker: &Broker, now: Timestamp) -> String {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut add = |key: &str, value: String| pairs.push((key.to_owned(), value));
    let runtimes: Vec<String> = broker
        .runtimes
        .iter()
        .map(|runtime| {
            let is_default = broker.default_runtime.as_ref() == Some(&runtime.name);
            let mark = if is_default { ", the default" } else { "" };
            let found = match runtime.reachable {
                true => {
                    let parts = [runtime.version.as_deref(), runtime.endpoint.as_deref()];
                    parts.into_iter().flatten().collect::<Vec<_>>().join(" at ")
                }
                false => {
                    let detail = runtime.detail.as_deref().unwrap_or("it does not answer");
                    format!("not reachable: {}", detail.lines().next().unwrap_or_default())
                }
            };
            format!("{}{mark}: {found}", runtime.name)
        })
        .collect();
    add("broker", format!("running, since {}", age(&broker.started_at, now)));
    add("version", broker.version.clone());
    add("pid", broker.pid.to_string());
    add("id", broker.id.clone());
    add("home", broker.home.clone());
    add("socket", broker.socket.clone());
    add("API", broker.listen.clone().unwrap_or_else(|| "only on the socket".to_owned()));
    add(
        "settings",
        if broker.settings.is_empty() { "none read".to_owned() } else { broker.settings.join("\n") },
    );
    add("runtimes", if runtimes.is_empty() { "none".to_owned() } else { runtimes.join("\n") });
    add("agents", format!("{}, {} running", broker.agents, broker.running));
    add(
        "ports",
        match broker.ports {
            Some(counts) => {
                format!("{} free, {} leased, {} blocked", counts.free, counts.leased, counts.blocked)
            }
            None => "the pool is off".to_owned(),
        },
    );
    table::aligned(&pairs)
}

async fn stop(client: &Client, context: &Context) -> Result<(), CliError> {
    let output = &context.output;
    let stopped = match client.shutdown().await {
        Ok(()) => true,
        Err(error) if runs_not(&error) => false,
        // It is ending already, and answers no more.
        Err(api::ClientError::BrokenOff { .. }) => true,
        Err(error) => return Err(error.into()),
    };
    if stopped {
        let lock = if context.names_a_broker() { None } else { Some(context.home()?.lock()) };
        await_end(client, lock.as_deref()).await?;
    }
    match (output.is_json(), stopped) {
        (true, _) => output.document(&json!({ "stopped": stopped })),
        (false, true) => output.print("the broker has ended; agents go on running"),
        (false, false) => {
            output.say(&format!("no broker runs at {}", client.endpoint()));
            Ok(())
        }
    }
}

/// Waits until the broker no longer answers and, where its lock can be seen, until the process has let go of it.
async fn await_end(client: &Client, lock: Option<&Path>) -> Result<(), CliError> {
    let deadline = Instant::now() + PATIENCE;
    while client.ready().await.is_ok() || lock.is_some_and(is_held) {
        if Instant::now() >= deadline {
            let message = format!("the broker has not ended after {} s", PATIENCE.as_secs());
            return Err(CliError::failed(Code::Failed, message).with_hint("its log says what it waits for"));
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::{Counts, RuntimeStatus};

    use super::*;
    use crate::view::samples::now;

    fn runtime(name: &str) -> RuntimeStatus {
        RuntimeStatus {
            name: name.into(),
            reachable: true,
            version: None,
            endpoint: None,
            detail: None,
            hint: None,
            misnamed: false,
            warning: None,
        }
    }

    #[test]
    fn how_a_broker_is() {
        let docker = RuntimeStatus {
            version: Some("28.2.2".into()),
            endpoint: Some("unix:///var/run/docker.sock".into()),
            ..runtime("docker")
        };
        let podman = RuntimeStatus {
            reachable: false,
            detail: Some("no socket was found".into()),
            ..runtime("podman")
        };
        let mut broker = Broker {
            templates: Vec::new(),
            version: "0.1.0".into(),
            id: "01J".into(),
            pid: 4711,
            started_at: "2026-11-23T07:00:00Z".into(),
            home: "/h".into(),
            socket: "/h/broker.sock".into(),
            listen: Some("http://127.0.0.1:9800".into()),
            settings: vec!["/a.yaml".into(), "/b.yaml".into()],
            runtimes: vec![docker, podman],
            default_runtime: Some("docker".into()),
            preferred_runtime: None,
            agents: 3,
            running: 2,
            ports: Some(Counts { free: 996, leased: 4, ..Counts::default() }),
            warnings: Vec::new(),
        };
        insta::assert_snapshot!(shown(&broker, now()), @"
        broker:    running, since 2h
        version:   0.1.0
        pid:       4711
        id:        01J
        home:      /h
        socket:    /h/broker.sock
        API:       http://127.0.0.1:9800
        settings:  /a.yaml
                   /b.yaml
        runtimes:  docker, the default: 28.2.2 at unix:///var/run/docker.sock
                   podman: not reachable: no socket was found
        agents:    3, 2 running
        ports:     996 free, 4 leased, 0 blocked
        ");
        broker.runtimes.clear();
        broker.settings.clear();
        (broker.listen, broker.ports) = (None, None);
        insta::assert_snapshot!(shown(&broker, now()), @"
        broker:    running, since 2h
        version:   0.1.0
        pid:       4711
        id:        01J
        home:      /h
        socket:    /h/broker.sock
        API:       only on the socket
        settings:  none read
        runtimes:  none
        agents:    3, 2 running
        ports:     the pool is off
        ");
    }
}
