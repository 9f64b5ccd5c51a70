//! From a start request to what is run: template and defaults filled in, and everything checked before anything is done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use api::StartRequest;
use pool::{AgentKey, environment};
use runtime::Volume;
use settings::{Settings, Template};

use crate::error::OperationError;
use crate::model::AgentSpec;

/// What a request means.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The runtime that was asked for, if any was.
    pub(crate) runtime: Option<String>,
    pub(crate) spec: AgentSpec,
}

/// Whether the request says nothing of what to run: then the agent is meant as it was last time.
pub(crate) fn says_nothing(request: &StartRequest) -> bool {
    let StartRequest {
        image,
        template,
        runtime,
        ports,
        env,
        volumes,
        workspace,
        network,
        command,
        interactive,
        terminal,
        ..
    } = request;
    image.is_none()
        && template.is_none()
        && runtime.is_none()
        && ports.is_none()
        && env.is_empty()
        && volumes.is_empty()
        && workspace.is_none()
        && network.is_none()
        && command.is_empty()
        && interactive.is_none()
        && terminal.is_none()
}

/// Whether the request leaves open what is run, and only says how: then the rest is meant as it was last time.
pub(crate) fn says_only_how(request: &StartRequest, had_image: bool) -> bool {
    request.image.is_none() && request.template.is_none() && (had_image || request.command.is_empty())
}

/// The request with all that it leaves open as it was.
pub(crate) fn completed(request: &StartRequest, runtime: &str, was: &AgentSpec) -> StartRequest {
    let mut whole = request.clone();
    whole.runtime = Some(runtime.to_owned());
    whole.image.clone_from(&was.image);
    whole.ports = request.ports.or(Some(was.ports));
    whole.workspace = request.workspace.clone().or_else(|| was.workspace.clone());
    whole.network = request.network.clone().or_else(|| Some(was.network.clone()));
    whole.interactive = request.interactive.or(Some(was.interactive));
    whole.terminal = request.terminal.or(Some(was.terminal));
    whole.env = was.env.clone();
    whole.env.extend(request.env.clone());
    if request.volumes.is_empty() {
        whole.volumes.clone_from(&was.volumes);
    }
    if request.command.is_empty() {
        whole.command.clone_from(&was.command);
    }
    whole.remove |= was.remove;
    whole
}

/// Fills in the template and the defaults of `settings`.
///
/// # Errors
/// [`OperationError::Invalid`] for whatever in the request cannot be meant.
pub(crate) fn resolve(request: &StartRequest, settings: &Settings) -> Result<Resolved, OperationError> {
    let nothing = Template::default();
    let template = match &request.template {
        None => &nothing,
        Some(name) => settings.templates.get(name).ok_or_else(|| unknown_template(name, settings))?,
    };
    let mut env = template.env.clone();
    env.extend(request.env.clone());
    check_env(&env)?;
    let volumes = volumes(&template.volumes, &request.volumes)?;
    let workspace = request.workspace.clone().or_else(|| template.workspace.clone());
    for directory in [&workspace, &request.directory].into_iter().flatten() {
        if !Path::new(directory).is_absolute() {
            return Err(invalid(format!("the workspace `{directory}` is not an absolute path"), None));
        }
    }
    let command = if request.command.is_empty() { &template.command } else { &request.command };
    if command.first().is_some_and(String::is_empty) {
        return Err(invalid("the command is empty".to_owned(), None));
    }
    let image =
        request.image.clone().or_else(|| template.image.clone()).filter(|image| !image.trim().is_empty());
    Ok(Resolved {
        runtime: request.runtime.clone().or_else(|| template.runtime.map(|runtime| runtime.to_string())),
        spec: AgentSpec {
            image,
            command: command.clone(),
            env,
            volumes,
            workspace,
            network: request.network.clone().or_else(|| template.network.clone()).unwrap_or_default(),
            ports: ports(request.ports.or(template.ports), settings)?,
            interactive: request.interactive.or(template.interactive).unwrap_or(false),
            terminal: request.terminal.or(template.terminal).unwrap_or(false),
            remove: request.remove,
        },
    })
}

/// What differs between two specifications, one line each, for a person.
pub(crate) fn differences(runs: &AgentSpec, asked: &AgentSpec) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut lines = Vec::new();
    let pairs = [
        ("image", text(&runs.image), text(&asked.image)),
        ("command", runs.command.join(" "), asked.command.join(" ")),
        ("volumes", runs.volumes.join(" "), asked.volumes.join(" ")),
        ("workspace", text(&runs.workspace), text(&asked.workspace)),
        ("network", runs.network.clone(), asked.network.clone()),
        ("number of ports", runs.ports.to_string(), asked.ports.to_string()),
        ("--interactive", runs.interactive.to_string(), asked.interactive.to_string()),
        ("--tty", runs.terminal.to_string(), asked.terminal.to_string()),
        ("--rm", runs.remove.to_string(), asked.remove.to_string()),
    ];
    for (what, runs, asked) in pairs {
        if runs != asked {
            lines.push(difference(what, &runs, &asked));
        }
    }
    // Values may be secret: only names are told.
    let names: BTreeSet<&String> = runs.env.keys().chain(asked.env.keys()).collect();
    for name in names {
        match (runs.env.get(name), asked.env.get(name)) {
            (Some(_), None) => lines.push(format!("variable {name}: it runs with it, asked for without")),
            (None, Some(_)) => lines.push(format!("variable {name}: it runs without it, asked for with")),
            (runs, asked) if runs != asked => {
                lines.push(format!("variable {name}: another value was asked for"))
            }
            _ => {}
        }
    }
    lines
}

/// A line that says what runs, and what was asked for in its place.
pub(crate) fn difference(what: &str, runs: &str, asked: &str) -> String {
    let shown = |text: &str| if text.is_empty() { "none".to_owned() } else { format!("`{text}`") };
    format!("{what}: it runs with {}, asked for was {}", shown(runs), shown(asked))
}

/// What a runtime with images is to mount: the volumes, then the workspace. Without images there is only the host's own
/// file system, in which the workspace is where it is.
///
/// # Errors
/// [`OperationError::Invalid`] for a volume that is not `SRC:DST[:ro]`.
pub(crate) fn mounts(spec: &AgentSpec, has_images: bool) -> Result<Vec<Volume>, OperationError> {
    let mut mounts = spec.volumes.iter().map(|text| parse_volume(text)).collect::<Result<Vec<_>, _>>()?;
    if let Some(directory) = spec.workspace.as_ref().filter(|_| has_images) {
        mounts.push(Volume { source: directory.clone(), target: directory.clone(), read_only: false });
    }
    Ok(mounts)
}

/// Those of the template and those that were asked for, which take the places of the former.
fn volumes(template: &[String], asked: &[String]) -> Result<Vec<String>, OperationError> {
    let target = |text: &String| parse_volume(text).map(|it| it.target.trim_end_matches('/').to_owned());
    let taken = asked.iter().map(target).collect::<Result<BTreeSet<_>, _>>()?;
    let mut volumes = Vec::new();
    for volume in template {
        if !taken.contains(&target(volume)?) {
            volumes.push(volume.clone());
        }
    }
    volumes.extend(asked.iter().cloned());
    Ok(volumes)
}

fn parse_volume(text: &str) -> Result<Volume, OperationError> {
    let wrong = |why: &str| {
        let hint = "write SRC:DST or SRC:DST:ro, where SRC is an absolute path or the name of a volume";
        invalid(format!("the volume `{text}` {why}"), Some(hint.to_owned()))
    };
    let (source, target, read_only) = match text.split(':').collect::<Vec<_>>()[..] {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        [_, _, mode] if mode.split(',').any(|it| matches!(it, "z" | "Z")) => {
            let hint = "have SELinux let containers in with `chcon -R -t container_file_t SRC`, and leave the mode out";
            let message =
                format!("the volume `{text}` asks for files to be relabelled, which Berthold does not do");
            return Err(invalid(message, Some(hint.to_owned())));
        }
        [_, _, mode] => return Err(wrong(&format!("has the unknown mode `{mode}`"))),
        _ => return Err(wrong("has not the right number of parts")),
    };
    if source.is_empty() || target.is_empty() {
        return Err(wrong("has an empty part"));
    }
    if !target.starts_with('/') {
        return Err(wrong("has a target that is not an absolute path"));
    }
    if source.contains('/') && !source.starts_with('/') {
        return Err(wrong("has a source that is a relative path"));
    }
    Ok(Volume { source: source.to_owned(), target: target.to_owned(), read_only })
}

fn check_env(env: &BTreeMap<String, String>) -> Result<(), OperationError> {
    for (name, value) in env {
        if environment::is_reserved(name) {
            let hint = "names that start with AVAILABLE_LOCALHOST_ or BERTHOLD_ are set by the broker alone; use \
                        `server.broker.port_pool.env_aliases` to give a port a name of your own";
            return Err(invalid(
                format!("the variable {name} cannot be set by the caller"),
                Some(hint.to_owned()),
            ));
        }
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(invalid(
                format!("`{name}` is no name of a variable, or its value holds a NUL"),
                None,
            ));
        }
    }
    Ok(())
}

fn ports(asked: Option<u16>, settings: &Settings) -> Result<u16, OperationError> {
    let Some(pool) = &settings.server.broker.port_pool else {
        return match asked {
            Some(1..) => Err(invalid(
                "ports were asked for, but this broker has no port pool".to_owned(),
                Some("add `server.broker.port_pool` to the settings and restart the broker".to_owned()),
            )),
            _ => Ok(0),
        };
    };
    let count = asked.unwrap_or(pool.ports_per_agent);
    if count > pool::label::LABEL_COUNT {
        let most = pool::label::LABEL_COUNT;
        return Err(invalid(
            format!("{count} ports are too many: an agent can have {most} at the most"),
            None,
        ));
    }
    Ok(count)
}

fn unknown_template(name: &str, settings: &Settings) -> OperationError {
    let nearest = nearest(name, settings.templates.keys().map(String::as_str));
    let hint = match nearest {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None if settings.templates.is_empty() => "add it under `templates:` in the settings".to_owned(),
        None => {
            let names: Vec<&str> = settings.templates.keys().map(String::as_str).collect();
            format!("the settings have {}", names.join(", "))
        }
    };
    invalid(format!("there is no template `{name}`"), Some(hint))
}

/// The candidate that `given` was probably meant to be.
pub(crate) fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = candidates.map(|candidate| (strsim::damerau_levenshtein(given, candidate), candidate));
    scored.filter(|(distance, _)| *distance <= 1 + given.len() / 4).min().map(|(_, candidate)| candidate)
}

/// Whether the two name one agent on a runtime, though they are two.
pub(crate) fn share_a_name(a: &AgentKey, b: &AgentKey) -> bool {
    a != b && a.runtime_name() == b.runtime_name()
}

pub(crate) fn invalid(message: String, hint: Option<String>) -> OperationError {
    OperationError::Invalid { message, hint }
}
