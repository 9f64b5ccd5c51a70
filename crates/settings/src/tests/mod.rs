//! Settings as a person writes them, and what comes of it.

mod documents;
mod environment;
mod errors;
mod layers;

use std::fs;
use std::path::Path;

use crate::{Loaded, Settings, SettingsError, Sources, load};

/// What loading a file of this text leads to, as a person sees it: the error with its hint, or "fine".
fn check(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("settings.yaml");
    fs::write(&path, text).unwrap();
    let sources = Sources { explicit: Some(path), ..Sources::default() };
    shown(load(&sources), directory.path())
}

fn shown(result: Result<Loaded, SettingsError>, directory: &Path) -> String {
    match result {
        Ok(_) => "fine".to_owned(),
        Err(error) => {
            let hint = error.hint().map_or_else(String::new, |hint| format!("\nhint: {hint}"));
            format!("{error}{hint}").replace(&format!("{}/", directory.display()), "")
        }
    }
}

/// The same for what stands below `server.broker.port_pool`, in one line.
fn check_pool(text: &str) -> String {
    check(&format!("server:\n  broker:\n    port_pool: {{ {text} }}\n"))
}

fn from_text(text: &str) -> Settings {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("settings.yaml");
    fs::write(&path, text).unwrap();
    load(&Sources { explicit: Some(path), ..Sources::default() })
        .unwrap_or_else(|error| panic!("{error}"))
        .settings
}

fn from_environment(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(&Sources { environment, ..Sources::default() }).map(|loaded| loaded.settings)
}

/// The example of the design, which must load as it is.
const EXAMPLE: &str = r#"
server:
  broker:
    listen: "127.0.0.1:9800"
    port_pool:
      enabled: true
      range: "8000-9000"
      ports_per_agent: 2
      host_url: "http://203.0.113.7/"
      exclude: [8080, "8443-8450"]
      bind_address: "127.0.0.1"
      cool_down: "0s"
      env_aliases: { PORT: A }
    default_runtime: docker
    reconcile_interval: "10s"
    stop_timeout: "10s"
runtimes:
  docker: { host: "unix:///var/run/docker.sock" }
  podman: { host: "unix:///run/podman/podman.sock" }
  kubernetes: { context: "", namespace: "default", expose: forward }
templates:
  web: { image: "node:22", command: ["npm", "run", "dev"], env: {}, volumes: [], network: "" }
"#;
