//! `berthold demo`: the main job in one go, with nothing but this program and, if there is one, a container engine.
//!
//! All is the real thing: the broker is this program as `serve` in a scratch home, and the agents are started through its
//! API as anyone would. Their program is this one again, with a hidden role (`server`).
//!
//! | module | what it does |
//! |---|---|
//! | `ports` | finds a range for the pool |
//! | `scratch` | the home and the broker, and the end of both |
//! | `image`, `root` | the image, and the files in it |
//! | `server`, `page` | the agents' web server, and what it shows |
//! | `fetch` | fetches a page as a browser would |
//! | `report` | what was seen |
//!
//! Whatever fails at whichever step, and when a signal comes, what was started is ended and the home removed, unless all is
//! to be kept. If the demo itself is killed, its broker and agents go on; `berthold delete --all` in its home, which then is
//! still there, ends them.

mod fetch;
mod image;
mod page;
mod ports;
mod report;
mod root;
mod scratch;
pub(crate) mod server;

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use api::{Agent, Code, StartRequest};
use pool::PortRange;

use crate::context::Context;
use crate::error::CliError;
use crate::output::Output;
use crate::signals::{self, EndSignals};
use fetch::fetch;
use image::DemoImage;
use report::{Answer, Document, Report};
use scratch::Scratch;

const AGENTS: [&str; 2] = ["ada", "bert"];
const PORTS_PER_AGENT: u16 = 2;
const ENDED: &str = "
All is ended, the ports are free again, and nothing is left behind.
`demo --keep` leaves it running, so that you can open the pages.";
/// How long an agent's server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(15);

/// See it at work: two agents, each with ports of its own
///
/// Starts a broker in a scratch home and two agents whose web servers listen on the ports that they were given, fetches all
/// their URLs, shows who has which port, and cleans up. The agents run on Docker if it answers, in an image that is made on the
/// spot from this very program, and as plain processes otherwise. Nothing is pulled, and nothing is left behind.
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
    /// What runs the agents: docker or process [Docker if it answers, else plain processes]
    #[arg(long, value_name = "NAME", value_parser = ["docker", "process"], hide_possible_values = true)]
    runtime: Option<String>,
}

/// What the agents run in.
enum Place {
    /// Containers of an engine, of the image that the scratch home holds.
    Docker,
    /// Plain processes, and why that is, where it was not asked for.
    Processes(Option<String>),
}

/// Carries it out. The exit code is 0, or that of the signal which ended it.
pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode, CliError> {
    let output = &context.output;
    let mut signals =
        EndSignals::listen().map_err(|source| CliError::io("signals cannot be waited for", source))?;
    let mut scratch = Scratch::new(range_of_other_broker(context).await)?;
    // What is given up half-way is made good below.
    let result = tokio::select! {
        result = perform(arguments, context, &mut scratch) => result.map_err(|error| (error, None)),
        kind = signals.next() => {
            Err((CliError::failed(Code::Failed, "the demo was interrupted"), Some(kind)))
        }
    };
    // With `--json` the one document is written when nothing can fail any more.
    let result = result.and_then(|report| match output.is_json() {
        true => Ok(report),
        false => output.print(&report.text(output.width())).map(|()| report).map_err(|error| (error, None)),
    });
    match result {
        Ok(report) if arguments.keep => {
            output.say(&format!("\nAll of it goes on running. {}", scratch.keep()));
            print_document(report, output)?;
        }
        Ok(report) => {
            clean_up(&mut scratch, &mut signals, false, output).await?;
            output.say(ENDED);
            print_document(report, output)?;
        }
        Err((error, interrupted)) => {
            let log = scratch.log_tail();
            if interrupted.is_none() && !log.is_empty() && !matches!(error, CliError::BrokenPipe) {
                output.say(&format!("the last lines of the broker's log:\n{log}"));
            }
            // The first failure is the one that ends the command.
            if let Err(error) = clean_up(&mut scratch, &mut signals, interrupted.is_some(), output).await {
                output.warn(&error.body().message);
                error.body().hint.iter().for_each(|hint| output.say(hint));
            }
            let Some(kind) = interrupted else { return Err(error) };
            error.show(output);
            return Ok(ExitCode::from(signals::exit_code(kind)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_document(report: Report, output: &Output) -> Result<(), CliError> {
    if output.is_json() { output.document(&Document { demo: report }) } else { Ok(()) }
}

/// Ends everything. A signal that was not the first ends the demo at once.
async fn clean_up(
    scratch: &mut Scratch,
    signals: &mut EndSignals,
    mut is_interrupted: bool,
    output: &Output,
) -> Result<(), CliError> {
    let stays = {
        let mut work = std::pin::pin!(scratch.clean_up());
        loop {
            // Both branches are cancel-safe: the work is pinned outside.
            tokio::select! {
                result = &mut work => break Some(result?),
                _ = signals.next() => {
                    if is_interrupted {
                        break None;
                    }
                    is_interrupted = true;
                    output.say("the demo is cleaning up; once more ends it at once");
                }
            }
        }
    };
    let Some(stays) = stays else {
        let interrupted = CliError::failed(Code::Failed, "the demo was interrupted while it cleaned up");
        return Err(interrupted.with_hint(scratch.keep()));
    };
    stays.iter().for_each(|stays| output.warn(stays));
    Ok(())
}

/// The range of the broker that this user has apart from the demo, if one runs. Its agents may have ports on which they do not
/// listen yet, so that they cannot be seen.
async fn range_of_other_broker(context: &Context) -> Option<PortRange> {
    let client = context.client_as_it_is().await.ok()?;
    client.ready().await.ok()?;
    client.pool(false).await.ok()?.range.parse().ok()
}

/// All of the demo but its end.
async fn perform(
    arguments: &Arguments,
    context: &Context,
    scratch: &mut Scratch,
) -> Result<Report, CliError> {
    let say = |text: &str| context.output.say(&format!("· {text}"));
    let mut place = choose(arguments, context, scratch, &say).await?;
    scratch.start_broker().await?;
    say(&format!("a broker runs in {}, with the ports {}", scratch.home().display(), scratch.range()));

    let mut started = start_agents(scratch, &place, &say).await;
    if let Err(error) = &started
        && arguments.runtime.is_none()
        && matches!(place, Place::Docker)
    {
        let reason = format!("Docker answers but does not run the agents ({})", error.body().message);
        say(&format!("{reason}, so they run as plain processes"));
        scratch.delete_agents().await?;
        place = Place::Processes(Some(reason));
        started = start_agents(scratch, &place, &say).await;
    }
    let agents = started?;
    report::check_ports(&agents)?;

    let mut answers = Vec::new();
    for agent in &agents {
        for ((label, port), url) in agent.ports.iter().zip(agent.urls.values()) {
            let fetched = fetch(url, PATIENCE).await.map_err(|error| {
                let message = format!("{url} of {} does not answer: {error}", agent.name);
                CliError::failed(Code::StartFailed, message)
            })?;
            answers.push(Answer::new(agent, label, *port, url, fetched)?);
        }
    }
    say(&format!("all {} URLs answer on this host, each with the page of its agent\n", answers.len()));

    let (runtime, reason) = match place {
        Place::Docker => ("docker", None),
        Place::Processes(reason) => ("process", reason),
    };
    let pool = scratch.client().pool(false).await?;
    let home = scratch.home().display().to_string();
    Ok(Report { runtime, reason, home, kept: arguments.keep, agents, answers, pool })
}

/// Decides what the agents run in, and prepares it.
async fn choose(
    arguments: &Arguments,
    context: &Context,
    scratch: &mut Scratch,
    say: &impl Fn(&str),
) -> Result<Place, CliError> {
    if arguments.runtime.as_deref() == Some("process") {
        scratch.write_settings(None)?;
        return Ok(Place::Processes(None));
    }
    // The engine that a person has named in the settings is the one that is meant. Settings that are wrong are not the demo's
    // concern: it has its own.
    let host = context.load_settings(Vec::new()).ok().and_then(|it| it.settings.runtimes.docker.host);
    let made = async {
        let image = scratch.hold(DemoImage::plan(host.as_deref()).await?);
        let is_new = image.make().await?;
        let engine = image.engine();
        say(&format!("Docker {} answers at {}", engine.version, engine.endpoint));
        let (reference, megabytes) = (image.reference(), image.bytes() / 1_000_000);
        match is_new {
            true => say(&format!(
                "the image {reference} ({megabytes} MB) is made of this program; nothing is pulled"
            )),
            false => say(&format!("the image {reference} is there already")),
        }
        let endpoint = engine.endpoint.clone();
        scratch.write_settings(Some(&endpoint))
    };
    match made.await {
        Ok(()) => Ok(Place::Docker),
        Err(error) if arguments.runtime.is_some() => Err(error),
        Err(error) => {
            let reason = error.body().message;
            say(&format!("{reason}, so the agents run as plain processes"));
            scratch.write_settings(None)?;
            Ok(Place::Processes(Some(reason)))
        }
    }
}

async fn start_agents(
    scratch: &mut Scratch,
    place: &Place,
    say: &impl Fn(&str),
) -> Result<Vec<Agent>, CliError> {
    let mut agents = Vec::new();
    for name in AGENTS {
        let request = request(scratch, place)?;
        let agent = scratch.start_agent(name, &request).await?;
        let ports: Vec<String> = agent.ports.values().map(ToString::to_string).collect();
        let kind = if matches!(place, Place::Docker) { "in a container" } else { "as a process" };
        say(&format!("{name} runs {kind}, with the ports {}", ports.join(" and ")));
        agents.push(agent);
    }
    Ok(agents)
}

fn request(scratch: &Scratch, place: &Place) -> Result<StartRequest, CliError> {
    let request = StartRequest {
        wait_ms: Some(u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX)),
        ..StartRequest::default()
    };
    Ok(match place {
        Place::Docker => StartRequest {
            runtime: Some("docker".to_owned()),
            image: scratch.image().map(|image| image.reference().to_owned()),
            command: vec![root::PROGRAM.to_owned(), server::ROLE.to_owned()],
            ..request
        },
        Place::Processes(_) => {
            let program = env::current_exe()
                .map_err(|source| CliError::io("this very program cannot be found", source))?;
            // A process has no engine before it that would publish its ports on the loopback address alone.
            let words = [&*program.to_string_lossy(), server::ROLE, "127.0.0.1"];
            StartRequest {
                runtime: Some("process".to_owned()),
                command: words.map(str::to_owned).to_vec(),
                ..request
            }
        }
    })
}
