//! `settings.yaml`: schema, layers, environment, and errors that a person can act on.
//!
//! | module | what it does |
//! |---|---|
//! | `model` | the settings as the rest of Berthold uses them |
//! | `load` | finds files, variables and flags, and merges them |
//! | `variable` | which key a variable means |
//! | `tree` | what was written, with the place of each value |
//! | `shape` | the table of all keys, and the JSON Schema |
//! | `keys` | keys that there are not, and what was meant |
//! | `read`, `endpoint`, `port_pool` | from tree to settings: checks and defaults |
//! | `field` | what stands under one key |
//! | `show` | settings written out again |
//!
//! Nothing is passed over silently: a key that there is not, or a value that cannot be honoured, is an error.

mod endpoint;
mod error;
mod field;
mod keys;
mod load;
mod model;
mod port_pool;
mod project;
mod read;
mod shape;
mod show;
#[cfg(test)]
mod tests;
mod tree;
mod variable;

pub use error::SettingsError;
pub use load::{Loaded, Sources, load};
pub use model::{
    Broker, Engine, Expose, Kubernetes, Listen, PortPool, PreviewHost, RuntimeName, Runtimes, Server,
    Settings, Template, Tls, UnknownRuntime,
};
pub use show::{to_json, to_yaml};

/// The JSON Schema (2020-12) of a settings file.
pub fn schema() -> serde_json::Value {
    let mut schema = shape::ROOT.schema();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Berthold's settings".into();
    schema
}
