//! Which agent a host name means: `a.dev.shop.localhost`, `a.dev.localhost`, `dev.localhost`.
//!
//! Browsers take every name below `localhost` to this host (RFC 6761, section 6.3). Two words are always a label and a name; an agent
//! of another project than `default` is named with all three.

use pool::{AgentKey, DEFAULT_PROJECT, Label, Name};

use crate::host;

/// Below which names previews are.
const SUFFIX: &str = ".localhost";

/// A port of an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Address {
    pub(crate) key: AgentKey,
    /// None for its first.
    pub(crate) label: Option<Label>,
}

/// What the header `Host` means, if it is below `localhost`; none if it is another name. The error says what is wrong with it.
pub(crate) fn of(host: &str) -> Option<Result<Address, String>> {
    let host = host::name(host).to_ascii_lowercase();
    let mut words = host.strip_suffix(SUFFIX)?.split('.');
    let (label, name, project) = match [words.next(), words.next(), words.next(), words.next()] {
        [Some(name), None, ..] => (None, name, DEFAULT_PROJECT),
        [Some(label), Some(name), None, _] => (Some(label), name, DEFAULT_PROJECT),
        [Some(label), Some(name), Some(project), None] => (Some(label), name, project),
        _ => return Some(Err(format!("`{host}` is not of the form LABEL.NAME.PROJECT{SUFFIX}"))),
    };
    Some(address(label, name, project))
}

fn address(label: Option<&str>, name: &str, project: &str) -> Result<Address, String> {
    let checked = |text: &str| Name::new(text).map_err(|error| error.to_string());
    let label = label.map(|label| label.to_uppercase().parse::<Label>()).transpose();
    Ok(Address {
        key: AgentKey::new(checked(project)?, checked(name)?),
        label: label.map_err(|error| error.to_string())?,
    })
}

/// The host name of a port's preview.
pub(crate) fn host(key: &AgentKey, label: Label) -> String {
    let label = label.to_string().to_lowercase();
    match key.project.as_str() {
        DEFAULT_PROJECT => format!("{label}.{}{SUFFIX}", key.name),
        project => format!("{label}.{}.{project}{SUFFIX}", key.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str) -> String {
        match of(host) {
            None => "no preview".to_owned(),
            Some(Err(_)) => "wrong".to_owned(),
            Some(Ok(Address { key, label })) => {
                format!("{key} {}", label.map_or_else(|| "first".to_owned(), |label| label.to_string()))
            }
        }
    }

    #[test]
    fn names_below_localhost() {
        assert_eq!(check("dev.localhost:9800"), "default/dev first");
        assert_eq!(check("a.dev.localhost"), "default/dev A");
        assert_eq!(check("AB.Dev.Shop.localhost:80"), "shop/dev AB");
        for wrong in
            ["a.b.c.d.localhost", "1.dev.localhost", "a.-dev.localhost", ".localhost", "aaa.dev.localhost"]
        {
            assert_eq!(check(wrong), "wrong", "{wrong}");
        }
        for other in ["localhost:9800", "127.0.0.1:9800", "dev.localhost.example", "xlocalhost"] {
            assert_eq!(check(other), "no preview", "{other}");
        }
    }

    #[test]
    fn the_host_of_a_port_means_that_port() {
        for (key, shown) in [("default/dev", "b.dev.localhost"), ("shop/dev", "b.dev.shop.localhost")] {
            let (key, label) = (key.parse::<AgentKey>().unwrap(), Label::from_index(1).unwrap());
            assert_eq!(host(&key, label), shown);
            assert_eq!(of(shown), Some(Ok(Address { key, label: Some(label) })));
        }
    }
}
