use std::path::PathBuf;
use std::process::ExitCode;

use api::{Broker, Pool};
use owo_colors::{AnsiColors, OwoColorize};
use serde_json::{Value, json};

use crate::context::{Context, are_same_files};
use crate::error::CliError;

/// Say what works here, and what would have to be done for the rest
///
/// Looks at the settings, the broker, the pool, and every runtime as the broker finds it: where it is, in which version, and
/// which is the default. The exit code is 1 if something is wrong; a runtime that is not here is not wrong.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold doctor
  berthold doctor --json | jq '.doctor.checks[] | select(.state != \"ok\")'")]
pub(crate) struct Arguments {}

/// What is known of Apple's `container`.
const RESETS: &str = "if a port resets connections while the container's own address answers, see \
     https://github.com/apple/container/issues/1180";

/// How something is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Ok,
    /// It works, but something should be known.
    Warning,
    /// It is not here, and need not be.
    Absent,
    /// It is wrong.
    Failed,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Absent => "absent",
            Self::Failed => "failed",
        }
    }

    fn color(self) -> AnsiColors {
        match self {
            Self::Ok => AnsiColors::Green,
            Self::Warning => AnsiColors::Yellow,
            Self::Absent => AnsiColors::Default,
            Self::Failed => AnsiColors::Red,
        }
    }
}

/// One thing that was looked at.
struct Check {
    name: String,
    state: State,
    detail: String,
    hint: Option<String>,
}

impl Check {
    fn new(name: &str, state: State, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state, detail: detail.into(), hint: None }
    }

    fn failed(name: &str, error: &CliError) -> Self {
        let body = error.body();
        Self { hint: body.hint, ..Self::new(name, State::Failed, body.message) }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

pub(crate) async fn run(context: &Context) -> Result<ExitCode, CliError> {
    let mut checks = Vec::new();
    // Another host's broker has settings of its own.
    let loaded = (!context.names_a_broker()).then(|| context.load_settings(Vec::new()));
    checks.extend(loaded.as_ref().map(settings));
    match looked_at(context).await {
        Ok((broker, pool)) => {
            if let Some(Ok(loaded)) = &loaded {
                checks.extend(other_settings(&loaded.files, &broker));
            }
            checks.extend(found(&broker, &pool));
        }
        Err(error) => checks.push(Check::failed("broker", &error)),
    }
    let is_healthy = checks.iter().all(|check| check.state != State::Failed);
    match context.output.is_json() {
        true => context.output.document(&document(&checks, is_healthy))?,
        false => context.output.print(&shown(&checks))?,
    }
    Ok(if is_healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn looked_at(context: &Context) -> Result<(Broker, Pool), CliError> {
    let client = context.client().await?;
    Ok((client.broker().await?, client.pool(false).await?))
}

fn settings(loaded: &Result<settings::Loaded, CliError>) -> Check {
    match loaded {
        Ok(loaded) if loaded.files.is_empty() => {
            Check::new("settings", State::Ok, "there is no file, so the defaults hold")
        }
        Ok(loaded) => {
            let files: Vec<String> = loaded.files.iter().map(|file| file.display().to_string()).collect();
            Check::new("settings", State::Ok, files.join(", "))
        }
        Err(error) => Check::failed("settings", error),
    }
}

/// That the broker was started with other settings than these, if it was.
fn other_settings(ours: &[PathBuf], broker: &Broker) -> Option<Check> {
    if are_same_files(ours, &broker.settings) {
        return None;
    }
    let read = if broker.settings.is_empty() { "none".to_owned() } else { broker.settings.join(", ") };
    let detail = format!("the broker that runs has read others: {read}");
    Some(
        Check::new("settings", State::Warning, detail)
            .hint("`berthold broker stop` has the next one read these"),
    )
}

/// What a broker that answers tells.
fn found(broker: &Broker, pool: &Pool) -> Vec<Check> {
    let about = format!("{}, pid {}, home {}", broker.version, broker.pid, broker.home);
    let mut checks = vec![Check::new("broker", State::Ok, about)];
    checks.extend(broker.warnings.iter().map(|warning| Check::new("broker", State::Warning, warning)));
    checks.push(match pool.enabled {
        true => {
            let counts = &pool.counts;
            let state = if counts.free + counts.remembered == 0 { State::Warning } else { State::Ok };
            let held =
                if counts.blocked > 0 { format!(", {} held by others", counts.blocked) } else { String::new() };
            let detail = format!(
                "{}: {} of {} ports free{held}, {} an agent",
                pool.range, counts.free, pool.size, pool.ports_per_agent
            );
            Check::new("pool", state, detail)
        }
        false => Check::new("pool", State::Warning, "it is off, so agents get no ports")
            .hint("add `server: { broker: { port_pool: { range: 8000-9000 } } }` to the settings, and `berthold broker stop`"),
    });
    for runtime in &broker.runtimes {
        let is_default = broker.default_runtime.as_ref() == Some(&runtime.name);
        checks.push(match runtime.reachable {
            true => {
                let parts = [runtime.version.as_deref(), runtime.endpoint.as_deref()];
                let place = parts.into_iter().flatten().collect::<Vec<_>>().join(" at ");
                let mark = if is_default { "; the default" } else { "" };
                let found = format!("{place}{mark}");
                match &runtime.detail {
                    Some(lacks) => Check {
                        hint: runtime.hint.clone(),
                        ..Check::new(&runtime.name, State::Warning, format!("{found}\n{lacks}"))
                    },
                    None if runtime.name == "container" => {
                        Check::new(&runtime.name, State::Ok, found).hint(RESETS)
                    }
                    None => Check::new(&runtime.name, State::Ok, found),
                }
            }
            false => {
                let detail = runtime.detail.clone().unwrap_or_else(|| "it does not answer".to_owned());
                let state = if runtime.misnamed { State::Warning } else { State::Absent };
                Check { hint: runtime.hint.clone(), ..Check::new(&runtime.name, state, detail) }
            }
        });
    }
    if broker.default_runtime.is_none() {
        let hint = "name one with `--runtime`, such as `--runtime process`, or start one of those above";
        let misnamed = broker.runtimes.iter().find(|runtime| runtime.misnamed);
        checks.push(match (&broker.preferred_runtime, misnamed) {
            (None, Some(runtime)) => {
                let name = &runtime.name;
                let detail = format!("{name} is named and cannot be used, so no other engine is taken");
                Check::new("default", State::Failed, detail)
                    .hint(format!("see {name} above, or name another runtime with `--runtime` or in `server.broker.default_runtime`"))
            }
            (Some(name), _) => {
                let detail = format!("`server.broker.default_runtime` is {name}, which does not answer");
                Check::new("default", State::Failed, detail)
                    .hint(format!("see {name} above, or name another runtime in the settings"))
            }
            (None, None) => Check::new("default", State::Warning, "no container engine answers").hint(hint),
        });
    }
    checks
}

fn document(checks: &[Check], is_healthy: bool) -> Value {
    let checks: Vec<Value> = checks
        .iter()
        .map(|check| {
            json!({ "name": check.name, "state": check.state.as_str(), "detail": check.detail, "hint": check.hint })
        })
        .collect();
    json!({ "doctor": { "healthy": is_healthy, "checks": checks } })
}

/// A line for each check, and one more for what would have to be done.
fn shown(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let states = checks.iter().map(|check| check.state.as_str().len()).max().unwrap_or(0);
    let margin = " ".repeat(width + states + 4);
    let lines = checks.iter().flat_map(|check| {
        let state = check.state.as_str();
        let padding = " ".repeat(states - state.len());
        let mut details = check.detail.lines();
        let first = format!(
            "{:<width$}  {}{padding}  {}",
            check.name,
            state.color(check.state.color()),
            details.next().unwrap_or_default()
        );
        let further: Vec<String> = details.map(|line| format!("{margin}{line}")).collect();
        let hint = check.hint.iter().map(|hint| format!("{margin}→ {hint}"));
        std::iter::once(first).chain(further).chain(hint).collect::<Vec<_>>()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_runtime_that_is_down_and_rights_that_are_missing_are_named() {
        let runtime = |name: &str, reachable: bool| {
            json!({ "name": name, "reachable": reachable, "version": "1", "endpoint": "there",
                "detail": "the broker's user may not list nodes in all namespaces", "hint": "give it" })
        };
        let broker = json!({ "version": "1", "id": "01J", "pid": 1, "started_at": "", "home": "/h", "socket": "/s",
            "listen": null, "settings": [], "runtimes": [runtime("kubernetes", true), runtime("podman", false)],
            "default_runtime": null, "preferred_runtime": "podman", "agents": 0, "running": 0, "ports": null,
            "warnings": [] });
        let checks = found(&serde_json::from_value(broker).unwrap(), &Pool::default());
        let of = |name: &str| checks.iter().find(|check| check.name == name).unwrap();
        assert_eq!((of("kubernetes").state, of("podman").state), (State::Warning, State::Absent));
        assert!(of("kubernetes").detail.ends_with("may not list nodes in all namespaces"));
        assert_eq!(of("default").state, State::Failed);
        assert!(of("default").detail.contains("is podman"), "{}", of("default").detail);
    }

    #[test]
    fn what_was_found_and_what_would_have_to_be_done() {
        let checks = [
            Check::new("settings", State::Ok, "/home/me/.config/berthold/settings.yaml"),
            Check::new("pool", State::Warning, "it is off").hint("add `port_pool`"),
            Check::new("docker", State::Ok, "28.2.2 at unix:///var/run/docker.sock; the default"),
            Check::new("podman", State::Absent, "podman is not here").hint("install Podman"),
            Check::new("broker", State::Failed, "wrong:\n  | x"),
        ];
        let plain = anstream::adapter::strip_str(&shown(&checks)).to_string();
        insta::assert_snapshot!(plain, @"
        settings  ok       /home/me/.config/berthold/settings.yaml
        pool      warning  it is off
                           → add `port_pool`
        docker    ok       28.2.2 at unix:///var/run/docker.sock; the default
        podman    absent   podman is not here
                           → install Podman
        broker    failed   wrong:
                             | x
        ");
    }
}
