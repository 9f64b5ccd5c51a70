//! What the settings of a project may say.
//!
//! They stand in the directory of the project, which is what agents work in and may write to: an agent that could write there where the
//! broker listens, which engine it uses, or what runs without a container, would have a way out of its own. So such a file may only say
//! what concerns the agents of the project and stays inside of their containers; the rest is for the user's own settings.

use crate::error::{Problem, SettingsError};
use crate::model::{RuntimeName, Settings, Template};
use crate::tree::{Entry, Node, Value};

/// The keys that a project may set; `*` stands for any name.
const ITS_OWN: [&str; 20] = [
    "server.broker.auto_start",
    "server.broker.port_pool.cool_down",
    "server.broker.port_pool.enabled",
    "server.broker.port_pool.env_aliases",
    "server.broker.port_pool.exclude",
    "server.broker.port_pool.guards",
    "server.broker.port_pool.ports_per_agent",
    "server.broker.port_pool.range",
    "server.broker.preview_host",
    "server.broker.reconcile_interval",
    "server.broker.stop_timeout",
    "templates.*.command",
    "templates.*.env",
    "templates.*.image",
    "templates.*.interactive",
    "templates.*.network",
    "templates.*.ports",
    "templates.*.runtime",
    "templates.*.terminal",
    "templates.*.volumes",
];

/// Refuses keys that a project may not set, anywhere in its `layer`. Keys that there are not are told elsewhere.
pub(crate) fn check_keys(layer: &Node) -> Result<(), SettingsError> {
    check_below(layer, &[])
}

fn check_below(node: &Node, path: &[&str]) -> Result<(), SettingsError> {
    let Value::Map(map) = &node.value else { return Ok(()) };
    for (name, entry) in map {
        let path = [path, &[name.as_str()]].concat();
        match standing(&path) {
            Standing::Above => check_below(&entry.node, &path)?,
            Standing::Within => {}
            Standing::Beside => {
                return Err(refused(
                    &path,
                    entry,
                    "is not for a project to set, whose files agents can write",
                ));
            }
        }
    }
    Ok(())
}

/// Refuses templates in a project's `layer` that, as they are `merged` with all else, give an agent more than its container.
pub(crate) fn check_templates(layer: &Node, merged: &Settings) -> Result<(), SettingsError> {
    let block = |node: &Node, name: &str| match &node.value {
        Value::Map(map) => map.get(name).map(|entry| entry.node.clone()),
        _ => None,
    };
    let Some(Value::Map(templates)) = block(layer, "templates").map(|node| node.value) else { return Ok(()) };
    for (name, entry) in &templates {
        let Some(template) = merged.templates.get(name) else { continue };
        if leads_outside(template, merged.server.broker.default_runtime) {
            let why = "leads out of the agent's container, so it is not for a project to set, whose files agents can write";
            return Err(refused(&["templates", name], entry, why));
        }
    }
    Ok(())
}

/// Where a key stands, as seen from [`ITS_OWN`].
enum Standing {
    /// It is a block in which there are some.
    Above,
    /// It is one.
    Within,
    /// It is none.
    Beside,
}

fn standing(path: &[&str]) -> Standing {
    let own = ITS_OWN.iter().map(|key| key.split('.').collect::<Vec<_>>());
    let begin_alike = |key: &Vec<&str>| key.iter().zip(path).all(|(own, name)| *own == "*" || own == name);
    let alike: Vec<Vec<&str>> = own.filter(begin_alike).collect();
    match alike.iter().map(Vec::len).max() {
        None => Standing::Beside,
        Some(length) if length > path.len() => Standing::Above,
        Some(_) => Standing::Within,
    }
}

fn leads_outside(template: &Template, default_runtime: Option<RuntimeName>) -> bool {
    let network = template.network.as_deref().unwrap_or_default();
    // Those with a `:` are of another container, or of a namespace of the host's.
    let is_another_s = network == "host" || network.contains(':');
    let is_path = |volume: &String| volume.split(':').next().is_some_and(|source| source.contains('/'));
    template.runtime.or(default_runtime) == Some(RuntimeName::Process)
        || template.workspace.is_some()
        || is_another_s
        || template.volumes.iter().any(is_path)
}

fn refused(path: &[&str], entry: &Entry, why: &str) -> SettingsError {
    let hint = "write it in your own settings, ~/.config/berthold/settings.yaml; or trust this file and name it with `--settings FILE`";
    let problem = Problem::Wrong { key: path.join("."), why: why.to_owned(), hint: Some(hint.to_owned()) };
    SettingsError::new(problem, entry.key.clone())
}
