//! The variables that tell an agent its ports.

use std::collections::BTreeMap;

use crate::{AgentKey, HostUrl, Label, Port};

/// The port of a label is in `AVAILABLE_LOCALHOST_PORT_<label>`.
pub const PORT_PREFIX: &str = "AVAILABLE_LOCALHOST_PORT_";
/// The URL of a label is in `AVAILABLE_LOCALHOST_URL_<label>`, where a host URL is configured.
pub const URL_PREFIX: &str = "AVAILABLE_LOCALHOST_URL_";
/// The agent's `project/name`.
pub const AGENT_VARIABLE: &str = "BERTHOLD_AGENT";

/// What `berthold run` starts has the id of its lease here, and so has all that is started by that: by this the broker tells whether
/// anything of it is left.
pub const LEASE_VARIABLE: &str = "BERTHOLD_LEASE";

/// Variables that start so are Berthold's own: a caller's are refused.
pub const RESERVED_PREFIXES: [&str; 2] = ["AVAILABLE_LOCALHOST_", "BERTHOLD_"];

/// Whether `variable` is one that only Berthold sets.
pub fn is_reserved(variable: &str) -> bool {
    RESERVED_PREFIXES.iter().any(|prefix| variable.starts_with(prefix))
}

/// The ports of a lease by label, in label order.
pub fn labelled(ports: &[Port]) -> impl Iterator<Item = (Label, Port)> {
    Label::all().zip(ports.iter().copied())
}

/// The variables of the agent `key` that holds `ports`, in label order: ports, URLs, its own name, then the
/// aliases (a name, and the label whose port it gets; a label that the lease has not is passed over).
pub fn variables(
    key: &AgentKey,
    ports: &[Port],
    host_url: Option<&HostUrl>,
    aliases: &BTreeMap<String, Label>,
) -> Vec<(String, String)> {
    let mut variables = Vec::with_capacity(2 * ports.len() + aliases.len() + 1);
    for (label, port) in labelled(ports) {
        variables.push((format!("{PORT_PREFIX}{label}"), port.to_string()));
    }
    for (label, port) in labelled(ports) {
        if let Some(host_url) = host_url {
            variables.push((format!("{URL_PREFIX}{label}"), host_url.at(port)));
        }
    }
    variables.push((AGENT_VARIABLE.to_owned(), key.to_string()));
    for (name, label) in aliases {
        if let Some(port) = ports.get(label.index()) {
            variables.push((name.clone(), port.to_string()));
        }
    }
    variables
}

/// What a person can open for each port: from the host URL, else `http://localhost:PORT`.
pub fn urls(ports: &[Port], host_url: Option<&HostUrl>) -> Vec<(Label, String)> {
    labelled(ports)
        .map(|(label, port)| {
            let url = host_url.map_or_else(|| format!("http://localhost:{port}"), |host| host.at(port));
            (label, url)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> Vec<Port> {
        [8000, 8001].into_iter().filter_map(Port::new).collect()
    }

    #[test]
    fn with_a_host_url_and_an_alias() {
        let aliases =
            BTreeMap::from([("PORT".into(), "A".parse().unwrap()), ("X".into(), "C".parse().unwrap())]);
        let host_url = "http://203.0.113.7//".parse().unwrap();
        let shown: Vec<String> =
            variables(&"default/dev".parse().unwrap(), &ports(), Some(&host_url), &aliases)
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
        assert_eq!(
            shown,
            [
                "AVAILABLE_LOCALHOST_PORT_A=8000",
                "AVAILABLE_LOCALHOST_PORT_B=8001",
                "AVAILABLE_LOCALHOST_URL_A=http://203.0.113.7:8000",
                "AVAILABLE_LOCALHOST_URL_B=http://203.0.113.7:8001",
                "BERTHOLD_AGENT=default/dev",
                "PORT=8000",
            ]
        );
    }

    #[test]
    fn without_a_host_url_there_are_urls_for_people_but_no_url_variables() {
        let variables = variables(&"default/dev".parse().unwrap(), &ports(), None, &BTreeMap::new());
        assert!(!variables.iter().any(|(name, _)| name.starts_with(URL_PREFIX)));
        let urls: Vec<String> =
            urls(&ports(), None).into_iter().map(|(label, url)| format!("{label} {url}")).collect();
        assert_eq!(urls, ["A http://localhost:8000", "B http://localhost:8001"]);
    }

    #[test]
    fn reserved_names() {
        assert!(is_reserved("BERTHOLD_X") && is_reserved("AVAILABLE_LOCALHOST_PORT_A"));
        assert!(!is_reserved("PORT") && !is_reserved("MY_BERTHOLD_X"));
    }
}
