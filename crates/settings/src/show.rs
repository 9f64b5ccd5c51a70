//! Settings written out again: what is in force, defaults included.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::model::{Listen, PortPool, Settings, Template, Tls};
use crate::shape::{ROOT, Shape};

/// The settings as a YAML file that means the same.
pub fn to_yaml(settings: &Settings) -> String {
    let mut text = String::new();
    write(&mut text, &to_json(settings), Some(&ROOT), 0);
    text
}

/// As [`to_json`] has it.
impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        to_json(self).serialize(serializer)
    }
}

/// The settings as the JSON form of such a file.
pub fn to_json(settings: &Settings) -> Value {
    let broker = &settings.server.broker;
    let mut shown = Map::new();
    match broker.listen {
        // Left out, it means "9800 or another free port", which no value says.
        Listen::Default => {}
        Listen::None => drop(shown.insert("listen".to_owned(), "none".into())),
        Listen::Address(address) => drop(shown.insert("listen".to_owned(), address.to_string().into())),
    }
    if let Some(Tls { certificate, key }) = &broker.tls {
        shown.insert("tls".to_owned(), json!({ "certificate": certificate, "key": key }));
    }
    shown.insert("auto_start".to_owned(), broker.auto_start.into());
    if let Some(pool) = &broker.port_pool {
        shown.insert("port_pool".to_owned(), port_pool(pool));
    }
    if let Some(runtime) = broker.default_runtime {
        shown.insert("default_runtime".to_owned(), runtime.as_str().into());
    }
    shown.insert("reconcile_interval".to_owned(), duration(broker.reconcile_interval));
    shown.insert("preview_host".to_owned(), broker.preview_host.as_str().into());
    shown.insert("stop_timeout".to_owned(), duration(broker.stop_timeout));
    let engine =
        |host: &Option<String>| host.as_ref().map_or_else(|| json!({}), |host| json!({ "host": host }));
    let mut kubernetes = json!({
        "namespace": settings.runtimes.kubernetes.namespace,
        "expose": settings.runtimes.kubernetes.expose.as_str(),
        "start_timeout": duration(settings.runtimes.kubernetes.start_timeout),
    });
    if let Some(context) = &settings.runtimes.kubernetes.context {
        kubernetes["context"] = context.as_str().into();
    }
    let templates: Map<String, Value> =
        settings.templates.iter().map(|(name, it)| (name.clone(), template(it))).collect();
    json!({
        "server": { "broker": shown },
        "runtimes": {
            "docker": engine(&settings.runtimes.docker.host),
            "podman": engine(&settings.runtimes.podman.host),
            "kubernetes": kubernetes,
        },
        "templates": templates,
    })
}

fn port_pool(pool: &PortPool) -> Value {
    let exclude: Vec<String> = pool.exclude.iter().map(ToString::to_string).collect();
    let aliases: Map<String, Value> =
        pool.env_aliases.iter().map(|(name, label)| (name.clone(), label.to_string().into())).collect();
    let mut shown = json!({
        "enabled": true,
        "range": pool.range.to_string(),
        "ports_per_agent": pool.ports_per_agent,
        "exclude": exclude,
        "bind_address": pool.bind_address.to_string(),
        "cool_down": duration(pool.cool_down),
        "guards": pool.guards,
        "env_aliases": aliases,
    });
    if let Some(url) = &pool.host_url {
        shown["host_url"] = url.to_string().into();
    }
    if let Some(pattern) = &pool.preview_url {
        shown["preview_url"] = pattern.to_string().into();
    }
    shown
}

fn template(template: &Template) -> Value {
    let mut shown = json!({ "command": template.command, "env": template.env, "volumes": template.volumes });
    let texts =
        [("image", &template.image), ("network", &template.network), ("workspace", &template.workspace)];
    for (name, text) in texts {
        if let Some(text) = text {
            shown[name] = text.as_str().into();
        }
    }
    if let Some(runtime) = template.runtime {
        shown["runtime"] = runtime.as_str().into();
    }
    if let Some(ports) = template.ports {
        shown["ports"] = ports.into();
    }
    for (name, truth) in [("interactive", template.interactive), ("terminal", template.terminal)] {
        if let Some(truth) = truth {
            shown[name] = truth.into();
        }
    }
    shown
}

fn duration(duration: std::time::Duration) -> Value {
    humantime::format_duration(duration).to_string().into()
}

/// Blocks are indented; what is empty, a list or a scalar stands on its key's line as JSON, which is YAML too. Keys come in
/// the order of `shape`, those that the user chose in the order of the alphabet.
fn write(text: &mut String, value: &Value, shape: Option<&Shape>, depth: usize) {
    let Value::Object(map) = value else { return };
    let mut entries: Vec<(&String, &Value)> = map.iter().collect();
    if let Some(Shape::Block(keys)) = shape {
        entries.sort_by_key(|(name, _)| keys.iter().position(|key| key.name == *name));
    }
    for (name, value) in entries {
        let (indent, key) = ("  ".repeat(depth), plain_key(name));
        match value {
            Value::Object(below) if !below.is_empty() => {
                text.push_str(&format!("{indent}{key}:\n"));
                write(text, value, shape.and_then(|shape| shape.below(name)), depth + 1);
            }
            _ => text.push_str(&format!("{indent}{key}: {}\n", in_quotes(value))),
        }
    }
}

/// The key as it can stand in YAML: in quotes if it would else be read as something other than this text.
fn plain_key(name: &str) -> String {
    let words = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let is_plain = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        && !words.contains(&name.to_ascii_lowercase().as_str());
    if is_plain { name.to_owned() } else { in_quotes(&Value::from(name)) }
}

/// The value as JSON in which nothing stands that YAML may not have (its specification, 1.2.2, 5.1 and 5.2), or takes for the end of a
/// line in versions before (1.1, 5.4): JSON escapes no more than what is below a space.
fn in_quotes(value: &Value) -> String {
    let mut text = String::new();
    for c in value.to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => text.push(c),
        }
    }
    text
}
