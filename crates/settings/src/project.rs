//! What the settings of a project may say.
//!
//! They stand in the directory of the project, which is what agents work in and may write to: an agent that could write there where the
//! broker listens, which engine it uses, or what runs without a container, would have a way out of its own. So such a file may only say
//! what concerns the agents of the project and stays inside of their containers; the rest is for the user's own settings.

use crate::error::{Problem, SettingsError};
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

/// Refuses what a project may not set, anywhere in its tree. Keys that there are not are told elsewhere.
pub(crate) fn check(root: &Node) -> Result<(), SettingsError> {
    check_below(root, &[])
}

fn check_below(node: &Node, path: &[&str]) -> Result<(), SettingsError> {
    let Value::Map(map) = &node.value else { return Ok(()) };
    for (name, entry) in map {
        let path = [path, &[name.as_str()]].concat();
        match standing(&path) {
            Standing::Above => check_below(&entry.node, &path)?,
            Standing::Within if leads_outside(&path, &entry.node) => {
                return Err(refused(&path, entry, "would lead out of the agent's container"));
            }
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

/// Whether a value gives an agent more than its container.
fn leads_outside(path: &[&str], node: &Node) -> bool {
    let is_text =
        |node: &Node, outside: &dyn Fn(&str) -> bool| node.text().is_some_and(|text| outside(&text));
    match (path, &node.value) {
        (["templates", _, "runtime"], _) => is_text(node, &|text| text == "process"),
        (["templates", _, "network"], _) => {
            is_text(node, &|text| text == "host" || text.starts_with("container:"))
        }
        // The name of a volume has no `/`.
        (["templates", _, "volumes"], Value::List(volumes)) => volumes.iter().any(|volume| {
            let is_path = |source: &str| source.contains('/') || source.starts_with(['~', '.']);
            is_text(volume, &|text| text.split(':').next().is_some_and(is_path))
        }),
        _ => false,
    }
}

fn refused(path: &[&str], entry: &Entry, why: &str) -> SettingsError {
    let hint = "write it in your own settings, ~/.config/berthold/settings.yaml; or trust this file and name it with `--settings FILE`";
    let problem = Problem::Wrong { key: path.join("."), why: why.to_owned(), hint: Some(hint.to_owned()) };
    SettingsError::new(problem, entry.key.clone())
}
