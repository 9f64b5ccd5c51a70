//! From a start request to what is run: template and defaults filled in, and everything checked before anything is done.

use std::collections::BTreeMap;
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
    let StartRequest { image, template, runtime, ports, env, volumes, workspace, network, command, .. } =
        request;
    image.is_none()
        && template.is_none()
        && runtime.is_none()
        && ports.is_none()
        && env.is_empty()
        && volumes.is_empty()
        && workspace.is_none()
        && network.is_none()
        && command.is_empty()
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
    let volumes: Vec<String> = template.volumes.iter().chain(&request.volumes).cloned().collect();
    for volume in &volumes {
        parse_volume(volume)?;
    }
    let workspace = request.workspace.clone().or_else(|| template.workspace.clone());
    if let Some(directory) = workspace.as_deref().filter(|directory| !Path::new(directory).is_absolute()) {
        return Err(invalid(format!("the workspace `{directory}` is not an absolute path"), None));
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
            remove: request.remove,
        },
    })
}

/// What differs between two specifications, one line each, for a person.
pub(crate) fn differences(is: &AgentSpec, asked: &AgentSpec) -> Vec<String> {
    let mut lines = Vec::new();
    let mut note = |what: &str, is: String, asked: String| {
        if is != asked {
            lines.push(format!("{what} is {is}, not {asked}"));
        }
    };
    let text = |value: &Option<String>| {
        value.as_ref().map_or_else(|| "not set".to_owned(), |text| format!("`{text}`"))
    };
    let list = |values: &[String]| {
        if values.is_empty() { "not set".to_owned() } else { format!("`{}`", values.join(" ")) }
    };
    note("image", text(&is.image), text(&asked.image));
    note("command", list(&is.command), list(&asked.command));
    // Values may be secret: only names are told.
    let names: std::collections::BTreeSet<&String> = is.env.keys().chain(asked.env.keys()).collect();
    for name in names {
        match (is.env.get(name), asked.env.get(name)) {
            (Some(_), None) => lines.push(format!("variable {name} is set")),
            (None, Some(_)) => lines.push(format!("variable {name} is not set")),
            (is, asked) if is != asked => lines.push(format!("variable {name} has another value")),
            _ => {}
        }
    }
    let mut note = |what: &str, is: String, asked: String| {
        if is != asked {
            lines.push(format!("{what} is {is}, not {asked}"));
        }
    };
    note("volumes", list(&is.volumes), list(&asked.volumes));
    note("workspace", text(&is.workspace), text(&asked.workspace));
    let network = |name: &str| if name.is_empty() { "the usual one".to_owned() } else { format!("`{name}`") };
    note("network", network(&is.network), network(&asked.network));
    note("number of ports", is.ports.to_string(), asked.ports.to_string());
    note("--rm", is.remove.to_string(), asked.remove.to_string());
    lines
}

/// What the runtime is to mount: the volumes, then the workspace.
///
/// # Errors
/// [`OperationError::Invalid`] for a volume that is not `SRC:DST[:ro]`.
pub(crate) fn mounts(spec: &AgentSpec) -> Result<Vec<Volume>, OperationError> {
    let mut mounts = spec.volumes.iter().map(|text| parse_volume(text)).collect::<Result<Vec<_>, _>>()?;
    if let Some(directory) = &spec.workspace {
        mounts.push(Volume { source: directory.clone(), target: directory.clone(), read_only: false });
    }
    Ok(mounts)
}

fn parse_volume(text: &str) -> Result<Volume, OperationError> {
    let wrong = |why: &str| {
        let hint = "write SRC:DST or SRC:DST:ro, where SRC is an absolute path or the name of a volume";
        invalid(format!("the volume `{text}` {why}"), Some(hint.to_owned()))
    };
    let (source, target, read_only) = match text.split(':').collect::<Vec<_>>()[..] {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
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
