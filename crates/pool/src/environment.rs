//! The variables that tell an agent its ports.

use std::collections::BTreeMap;

use crate::{AgentKey, HostUrl, Label, Port, PreviewUrl};

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

/// From what the URLs of ports are made.
#[derive(Clone, Copy, Debug, Default)]
pub struct UrlForms<'a> {
    /// The pattern of previews, if there is one: it goes before all else.
    pub preview_url: Option<&'a PreviewUrl>,
    /// Where people find the host.
    pub host_url: Option<&'a HostUrl>,
}

impl UrlForms<'_> {
    /// The configured URL of a port of `key`; none where none is.
    fn configured(&self, key: &AgentKey, label: Label, port: Port) -> Option<String> {
        let preview = self.preview_url.and_then(|pattern| pattern.at(key, label));
        preview.or_else(|| self.host_url.map(|host| host.at(port)))
    }
}

/// The variables of the agent `key` that holds `ports`, in label order: ports, URLs, its own name, then the
/// aliases (a name, and the label whose port it gets; a label that the lease has not is passed over).
pub fn variables(
    key: &AgentKey,
    ports: &[Port],
    forms: UrlForms<'_>,
    aliases: &BTreeMap<String, Label>,
) -> Vec<(String, String)> {
    let mut variables = Vec::with_capacity(2 * ports.len() + aliases.len() + 1);
    for (label, port) in labelled(ports) {
        variables.push((format!("{PORT_PREFIX}{label}"), port.to_string()));
    }
    for (label, port) in labelled(ports) {
        if let Some(url) = forms.configured(key, label, port) {
            variables.push((format!("{URL_PREFIX}{label}"), url));
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

/// What a person can open for each port: what is configured, else `http://localhost:PORT`.
pub fn urls(key: &AgentKey, ports: &[Port], forms: UrlForms<'_>) -> Vec<(Label, String)> {
    labelled(ports)
        .map(|(label, port)| {
            let configured = forms.configured(key, label, port);
            (label, configured.unwrap_or_else(|| format!("http://localhost:{port}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> Vec<Port> {
        [8000, 8001].into_iter().filter_map(Port::new).collect()
    }

    fn key() -> AgentKey {
        "default/dev".parse().unwrap()
    }

    fn urls_of(forms: UrlForms<'_>) -> Vec<String> {
        urls(&key(), &ports(), forms).into_iter().map(|(label, url)| format!("{label} {url}")).collect()
    }

    #[test]
    fn with_a_host_url_and_an_alias() {
        let aliases =
            BTreeMap::from([("PORT".into(), "A".parse().unwrap()), ("X".into(), "C".parse().unwrap())]);
        let host_url = "http://203.0.113.7//".parse().unwrap();
        let forms = UrlForms { host_url: Some(&host_url), preview_url: None };
        let shown: Vec<String> = variables(&key(), &ports(), forms, &aliases)
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
        let variables = variables(&key(), &ports(), UrlForms::default(), &BTreeMap::new());
        assert!(!variables.iter().any(|(name, _)| name.starts_with(URL_PREFIX)));
        assert_eq!(urls_of(UrlForms::default()), ["A http://localhost:8000", "B http://localhost:8001"]);
    }

    #[test]
    fn previews_go_before_the_host_url() {
        let (host_url, preview_url) =
            ("http://203.0.113.7".parse().unwrap(), "https://{label}-{name}.example.com".parse().unwrap());
        let forms = UrlForms { host_url: Some(&host_url), preview_url: Some(&preview_url) };
        let of_a = "https://a-dev.example.com".to_owned();
        let variables = variables(&key(), &ports(), forms, &BTreeMap::new());
        assert!(variables.contains(&(format!("{URL_PREFIX}A"), of_a)), "{variables:?}");
        assert_eq!(urls_of(forms), ["A https://a-dev.example.com", "B https://b-dev.example.com"]);
    }

    #[test]
    fn reserved_names() {
        assert!(is_reserved("BERTHOLD_X") && is_reserved("AVAILABLE_LOCALHOST_PORT_A"));
        assert!(!is_reserved("PORT") && !is_reserved("MY_BERTHOLD_X"));
    }
}
