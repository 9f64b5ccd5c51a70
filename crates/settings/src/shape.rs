//! Which keys there are: one table, from which unknown keys are told, variables of the environment find their key, settings
//! are written in order, and the JSON Schema is made.

use serde_json::{Value, json};

/// What may stand under a key.
pub(crate) enum Shape {
    /// A block of these keys.
    Block(&'static [Key]),
    /// A block of keys of the user's choice, each of this shape.
    Named(&'static Shape),
    /// A single value or list.
    Leaf(fn() -> Value),
}

/// A key, what may stand under it, and what it is for.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) shape: Shape,
}

const fn key(name: &'static str, about: &'static str, shape: Shape) -> Key {
    Key { name, about, shape }
}

const fn leaf(name: &'static str, about: &'static str, schema: fn() -> Value) -> Key {
    Key { name, about, shape: Shape::Leaf(schema) }
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn truth() -> Value {
    json!({ "type": "boolean" })
}

fn duration() -> Value {
    json!({ "type": "string", "examples": ["500ms", "10s", "1m 30s"] })
}

fn range() -> Value {
    json!({ "anyOf": [
        { "type": "string", "pattern": "^\\s*[0-9]+\\s*(-\\s*[0-9]+\\s*)?$", "examples": ["8000-9000"] },
        { "type": "integer", "minimum": 1, "maximum": 65535 }
    ] })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0, "maximum": 702 })
}

fn texts() -> Value {
    json!({ "type": "array", "items": { "type": ["string", "number", "boolean"] } })
}

fn variables() -> Value {
    json!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } })
}

fn runtime() -> Value {
    json!({ "enum": crate::RuntimeName::ALL.map(crate::RuntimeName::as_str) })
}

/// The whole file.
pub(crate) static ROOT: Shape = Shape::Block(&[
    key(
        "server",
        "What concerns the server.",
        Shape::Block(&[key(
            "broker",
            "What concerns the broker.",
            Shape::Block(&[
                leaf(
                    "listen",
                    "Where the API listens besides the Unix socket: ADDRESS:PORT, or `none`. Unset: 127.0.0.1:9800, or another \
                 free port if that is taken.",
                    text,
                ),
                key(
                    "tls",
                    "With what `listen` speaks TLS and HTTP/2. Absent: plain HTTP.",
                    Shape::Block(&[
                        leaf(
                            "certificate",
                            "The file with the certificate and those that sign it, in PEM.",
                            text,
                        ),
                        leaf("key", "The file with its private key, in PEM.", text),
                    ]),
                ),
                leaf("auto_start", "Whether a command that needs a broker starts one. Default: true.", truth),
                key(
                    "port_pool",
                    "The pool of ports. Absent: agents get no ports.",
                    Shape::Block(&[
                        leaf(
                            "enabled",
                            "Whether the pool is on. Default: true, once the block is there.",
                            truth,
                        ),
                        leaf(
                            "range",
                            "The ports, 1-65535. A single port is a range of one. Default: 8000-9000.",
                            range,
                        ),
                        leaf(
                            "ports_per_agent",
                            "How many ports an agent gets: 0-702, and no more than the pool holds. Default: 2.",
                            count,
                        ),
                        leaf(
                            "host_url",
                            "Where people find this host: http or https and a host, nothing more.",
                            text,
                        ),
                        leaf(
                            "preview_url",
                            "The pattern of the URLs of previews, for a domain that leads to the broker: {label}, {name} and {project} stand \
                             for what is meant.",
                            || json!({ "type": "string", "examples": ["https://{label}-{name}.preview.example.com"] }),
                        ),
                        leaf(
                            "exclude",
                            "Ports and ranges that are left out. Default: none.",
                            || json!({ "type": "array", "items": range() }),
                        ),
                        leaf(
                            "bind_address",
                            "The address on which ports are published. Default: 127.0.0.1, or 0.0.0.0 if host_url names another host.",
                            text,
                        ),
                        leaf(
                            "cool_down",
                            "For how long a released port is handed out only if nothing else is left, at most a year. Default: 0s.",
                            duration,
                        ),
                        leaf(
                            "guards",
                            "Whether idle ports are kept from being taken by accident. Default: true on Linux.",
                            truth,
                        ),
                        leaf(
                            "env_aliases",
                            "Further variables, and the label whose port each gets.",
                            || json!({ "type": "object", "additionalProperties": { "type": "string", "pattern": "^[A-Z]{1,2}$" } }),
                        ),
                    ]),
                ),
                leaf(
                    "default_runtime",
                    "The runtime of an agent that names none. Default: the first of docker, podman and container that answers.",
                    runtime,
                ),
                leaf(
                    "reconcile_interval",
                    "How often the ledger is compared with the runtimes: more than 0, at most a year. Default: 10s.",
                    duration,
                ),
                leaf(
                    "preview_host",
                    "Under which name previews ask an agent's server: keep (the preview's own) or localhost. Default: keep.",
                    || json!({ "enum": crate::PreviewHost::ALL.map(crate::PreviewHost::as_str) }),
                ),
                leaf(
                    "stop_timeout",
                    "How long an agent has to end by itself when it is stopped, at most a year. Default: 10s.",
                    duration,
                ),
            ]),
        )]),
    ),
    key(
        "runtimes",
        "Where the runtimes are.",
        Shape::Block(&[
            key(
                "docker",
                "Docker.",
                Shape::Block(&[leaf(
                    "host",
                    "Its URL or the path of its socket. Default: as the docker command finds it.",
                    text,
                )]),
            ),
            key(
                "podman",
                "Podman.",
                Shape::Block(&[leaf(
                    "host",
                    "Its URL or the path of its socket. Default: the usual sockets.",
                    text,
                )]),
            ),
            key(
                "kubernetes",
                "Kubernetes.",
                Shape::Block(&[
                    leaf("context", "The context of the kubeconfig. Default: its current one.", text),
                    leaf("namespace", "The namespace of the agents. Default: default.", text),
                    leaf(
                        "expose",
                        "How ports are reached. Default: forward.",
                        || json!({ "enum": crate::Expose::ALL.map(crate::Expose::as_str) }),
                    ),
                    leaf(
                        "start_timeout",
                        "How long a pod may take until it runs, with finding a node and pulling the image: more than 0, at most a year. Default: 2m.",
                        duration,
                    ),
                ]),
            ),
        ]),
    ),
    key("templates", "What `berthold start --template NAME` fills in, by name.", Shape::Named(&TEMPLATE)),
]);

static TEMPLATE: Shape = Shape::Block(&[
    leaf("image", "The image.", text),
    leaf("command", "The command with its arguments.", texts),
    leaf("env", "Variables.", variables),
    leaf("volumes", "Mounts, SRC:DST or SRC:DST:ro.", texts),
    leaf("network", "The network: host, none, or the name of one.", text),
    leaf("runtime", "The runtime.", runtime),
    leaf("ports", "How many ports, 0-702.", count),
    leaf(
        "workspace",
        "A host directory that is mounted under its own path and in which the command starts.",
        text,
    ),
    leaf("interactive", "Whether its standard input is kept open, for `berthold attach`.", truth),
    leaf("terminal", "Whether it gets a terminal.", truth),
]);

impl Shape {
    /// The shape of what stands under the key `name`.
    pub(crate) fn below(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Leaf(_) => None,
            Self::Named(shape) => Some(shape),
            Self::Block(keys) => keys.iter().find(|key| key.name == name).map(|key| &key.shape),
        }
    }

    /// The JSON Schema of what may stand here.
    pub(crate) fn schema(&self) -> Value {
        match self {
            Self::Leaf(schema) => schema(),
            Self::Named(shape) => {
                json!({ "type": ["object", "null"], "additionalProperties": shape.schema() })
            }
            Self::Block(keys) => {
                let property = |key: &Key| {
                    let mut schema = key.shape.schema();
                    schema["description"] = key.about.into();
                    (key.name.to_owned(), schema)
                };
                let properties: serde_json::Map<String, Value> = keys.iter().map(property).collect();
                json!({ "type": ["object", "null"], "properties": properties, "additionalProperties": false })
            }
        }
    }

    /// The variables of all keys that can be set, without the prefix; what a user may name is called `WEB`.
    pub(crate) fn variables(&self) -> Vec<String> {
        match self {
            Self::Leaf(_) => vec![String::new()],
            Self::Named(shape) => shape.variables().iter().map(|rest| format!("WEB_{rest}")).collect(),
            Self::Block(keys) => {
                let below = |key: &Key| {
                    let name = key.name.to_ascii_uppercase();
                    let join = move |rest: &String| {
                        if rest.is_empty() { name.clone() } else { format!("{name}_{rest}") }
                    };
                    key.shape.variables().iter().map(join).collect::<Vec<_>>()
                };
                keys.iter().flat_map(below).collect()
            }
        }
    }
}
