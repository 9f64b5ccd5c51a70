//! `berthold demo`: the main job in one go.
//!
//! A broker of its own in a scratch home, two agents with real web servers, their URLs fetched and shown. All is the real
//! thing: the broker is this program as `serve`, the agents are what anyone would start. Whatever fails at whichever step,
//! what was started is ended and the home is removed, unless it is to be kept.

mod image;
mod scratch;
pub(crate) mod server;

use std::fmt::Write;
use std::time::Duration;

use api::{Agent, Code, StartRequest, StopRequest};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::context::Context;
use crate::error::CliError;
use crate::table::{Field, Table};
use image::DemoImage;
use scratch::Scratch;

const AGENTS: [&str; 2] = ["ada", "bert"];
const PROJECT: &str = "default";
/// How long an agent's server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// See it at work: two agents, each with ports of its own
///
/// Starts a broker in a scratch home and two agents whose web servers listen on the ports that they were given, fetches all
/// their URLs, shows who has which port, and cleans up. The agents run on Docker if it answers, in an image that is made on the
/// spot, and as plain processes otherwise. Nothing is pulled, and nothing is left behind.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold demo
  berthold demo --keep                  leave it running, to look at the pages
  berthold demo --runtime process       without Docker")]
pub(crate) struct Arguments {
    /// Leave broker and agents running, and say how to end them
    #[arg(long)]
    keep: bool,
    /// What runs the agents; Docker if it answers, else plain processes
    #[arg(long, value_name = "NAME", value_parser = ["docker", "process"])]
    runtime: Option<String>,
}

/// What was seen behind one port of an agent.
struct Answer {
    agent: String,
    label: String,
    port: u16,
    url: String,
    bytes: usize,
}

/// Runs it.
pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let mut scratch = Scratch::new()?;
    let result = tokio::select! {
        result = show(arguments, context, &mut scratch) => result,
        interrupted = tokio::signal::ctrl_c() => Err(match interrupted {
            Ok(()) => CliError::failed(Code::Failed, "the demo was interrupted"),
            Err(source) => CliError::io("signals cannot be waited for", source),
        }),
    };
    match result {
        Ok(()) if arguments.keep => {
            context.output.say(&scratch.keep());
            Ok(())
        }
        Ok(()) => {
            scratch.clean_up().await?;
            context.output.say("All ports are free again, and nothing is left behind.");
            Ok(())
        }
        Err(error) => {
            let log = scratch.log_tail();
            if !log.is_empty() {
                context.output.say(&format!("the last lines of the broker's log:\n{log}"));
            }
            // The first failure is the one that is told.
            if let Err(error) = scratch.clean_up().await {
                context.output.warn(&format!("not all was cleaned up: {error}"));
            }
            Err(error)
        }
    }
}

async fn show(arguments: &Arguments, context: &Context, scratch: &mut Scratch) -> Result<(), CliError> {
    let say = |text: &str| context.output.say(&format!("· {text}"));
    scratch.start_broker().await?;
    say(&format!("a broker runs in {}, with the ports {}", scratch.home().display(), scratch.range()));

    let agents = match arguments.runtime.as_deref() {
        Some("process") => start_agents(scratch, None, &say).await?,
        Some(_) => {
            let image =
                DemoImage::make(&say).await.map_err(|why| CliError::failed(Code::RuntimeUnreachable, why))?;
            start_agents(scratch, Some(image), &say).await?
        }
        None => match DemoImage::make(&say).await {
            Ok(image) => match start_agents(scratch, Some(image), &say).await {
                Ok(agents) => agents,
                Err(error) => {
                    say(&format!(
                        "Docker answers but cannot run the agents ({error}), so they run as plain processes"
                    ));
                    scratch.delete_agents().await?;
                    start_agents(scratch, None, &say).await?
                }
            },
            Err(why) => {
                say(&format!("{why}, so the agents run as plain processes"));
                start_agents(scratch, None, &say).await?
            }
        },
    };

    let mut answers = Vec::new();
    for agent in &agents {
        for (label, port) in &agent.ports {
            let url = agent.urls.get(label).cloned().unwrap_or_default();
            let body = fetch(*port).await.map_err(|why| {
                CliError::failed(Code::StartFailed, format!("{url} of {} does not answer: {why}", agent.name))
            })?;
            let bytes = body.len();
            answers.push(Answer {
                agent: agent.name.clone(),
                label: label.to_string(),
                port: *port,
                url,
                bytes,
            });
        }
    }
    say(&format!("fetched {} URLs from this host", answers.len()));
    if context.output.is_json() {
        return context.output.document(&document(scratch, &agents, &answers));
    }
    context.output.print(&table(&agents, &answers, context.output.width()))
}

async fn start_agents(
    scratch: &mut Scratch,
    image: Option<DemoImage>,
    say: &impl Fn(&str),
) -> Result<Vec<Agent>, CliError> {
    let program = std::env::current_exe()
        .map_err(|source| CliError::io("this very program cannot be found", source))?;
    let (runtime, reference, program) = match &image {
        Some(image) => ("docker", Some(image.reference().to_owned()), image::PROGRAM.to_owned()),
        None => ("process", None, program.display().to_string()),
    };
    scratch.hold(image);
    let mut agents = Vec::new();
    for name in AGENTS {
        let request = StartRequest {
            runtime: Some(runtime.to_owned()),
            image: reference.clone(),
            command: vec![program.clone(), server::ROLE.to_owned()],
            wait_ms: Some(u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX)),
            ..StartRequest::default()
        };
        let (agent, _) = scratch.client().start(PROJECT, name, &request).await?;
        let ports: Vec<String> = agent.ports.values().map(ToString::to_string).collect();
        let kind = if runtime == "docker" { "in a container" } else { "as a process" };
        say(&format!("{name} runs {kind}, with the ports {}", ports.join(" and ")));
        agents.push(agent);
    }
    Ok(agents)
}

/// The page behind a port of this host.
async fn fetch(port: u16) -> Result<String, String> {
    let conversation = async {
        let mut stream = TcpStream::connect(("localhost", port)).await?;
        let request = format!("GET / HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = timeout(PATIENCE, conversation).await.map_err(|_| "time is up".to_owned())?;
    let answer = answer.map_err(|error| error.to_string())?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(answer.lines().next().unwrap_or("an empty answer").to_owned()),
    }
}

fn table(agents: &[Agent], answers: &[Answer], width: Option<u16>) -> String {
    let mut table = Table::new(&["AGENT", "RUNTIME", "PORT", "URL", "ANSWER"]).expendable(&["ANSWER"]);
    for answer in answers {
        let runtime =
            agents.iter().find(|agent| agent.name == answer.agent).map(|agent| agent.runtime.as_str());
        table.row([
            Field::from(answer.agent.as_str()),
            Field::from(runtime.unwrap_or_default()),
            Field::from(format!("{} {}", answer.label, answer.port)),
            Field::from(answer.url.as_str()),
            Field::from(format!("200 OK, {} bytes", answer.bytes)),
        ]);
    }
    let mut text = String::from("\n");
    // Writing to a string cannot fail.
    writeln!(text, "{}", table.render(width).trim_end()).expect("a string takes all that is written");
    text
}

fn document(scratch: &Scratch, agents: &[Agent], answers: &[Answer]) -> Value {
    let answers: Vec<Value> = answers
        .iter()
        .map(|it| json!({ "agent": it.agent, "label": it.label, "port": it.port, "url": it.url, "bytes": it.bytes }))
        .collect();
    json!({ "demo": {
        "home": scratch.home(),
        "range": scratch.range(),
        "agents": agents,
        "answers": answers,
    } })
}

/// Ends an agent at once: it is the demo's own.
fn at_once() -> StopRequest {
    StopRequest { timeout_ms: Some(2_000) }
}
