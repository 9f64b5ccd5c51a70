//! Names of agents and projects, and the identity made of both.

use std::fmt;
use std::str::FromStr;

/// The longest name: a DNS label, so that a name can stand in a host name (RFC 1123, section 2.1).
pub const MAX_NAME_LENGTH: usize = 63;
/// The project of an agent for which none was given.
pub const DEFAULT_PROJECT: &str = "default";

/// A name of an agent or a project: 1–63 of `a-z0-9-`, starting and ending with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A text that is not a [`Name`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{given}` is not a valid name: a name is 1 to 63 of a-z, 0-9 and -, and starts and ends with a letter or digit"
)]
pub struct NameError {
    /// What was given.
    pub given: String,
    /// The nearest valid name, if any letter or digit is left of what was given.
    pub suggestion: Option<Name>,
}

impl Name {
    /// Checks `text` and takes it as a name.
    ///
    /// # Errors
    /// [`NameError`], with the nearest valid name where there is one.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let inner_is_valid = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let valid = !text.is_empty()
            && text.len() <= MAX_NAME_LENGTH
            && inner_is_valid
            && !text.starts_with('-')
            && !text.ends_with('-');
        if valid {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError { given: text.to_owned(), suggestion: nearest(text) })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Name {
    /// `default`, the project of an agent for which none was given.
    fn default() -> Self {
        Self(DEFAULT_PROJECT.to_owned())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

/// Lower-cases, turns every run of other characters into one `-`, and trims.
fn nearest(text: &str) -> Option<Name> {
    let mut name = String::with_capacity(text.len());
    for character in text.chars().flat_map(char::to_lowercase) {
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            name.push(character);
        } else if !name.ends_with('-') {
            name.push('-');
        }
    }
    let trimmed = name.trim_matches('-');
    let cut = trimmed[..trimmed.len().min(MAX_NAME_LENGTH)].trim_end_matches('-');
    (!cut.is_empty()).then(|| Name(cut.to_owned()))
}

/// The identity of an agent, written `project/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentKey {
    /// The namespace; `default` when none was given.
    pub project: Name,
    /// The agent's own name.
    pub name: Name,
}

/// A text that is not `project/name`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AgentKeyError {
    /// There is not exactly one `/`.
    #[error("`{given}` is not of the form project/name")]
    NotAPair {
        /// What was given.
        given: String,
    },
    /// One of the two is no valid name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl AgentKey {
    /// The identity of the agent `name` in `project`.
    pub fn new(project: Name, name: Name) -> Self {
        Self { project, name }
    }

    /// What the agent is called on its runtime: `<project>--<name>`, and `<name>` alone in the project `default`. A name of
    /// one character keeps its project: Docker's names have at least two.
    ///
    /// A valid name may hold `--`, so `default/shop--dev` and `shop/dev` share it: the broker refuses the second.
    pub fn runtime_name(&self) -> String {
        if self.project == Name::default() && self.name.as_str().len() > 1 {
            return self.name.to_string();
        }
        format!("{}--{}", self.project, self.name)
    }
}

impl fmt::Display for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.name)
    }
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.name)
    }
}

impl FromStr for AgentKey {
    type Err = AgentKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((project, name)) if !name.contains('/') => {
                Ok(Self::new(Name::new(project)?, Name::new(name)?))
            }
            _ => Err(AgentKeyError::NotAPair { given: text.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggestion(text: &str) -> Option<String> {
        Name::new(text).expect_err("the name is wrong").suggestion.map(|name| name.to_string())
    }

    #[test]
    fn valid_names() {
        for name in ["a", "0", "dev", "a-b", "a--b", &"x".repeat(63)] {
            assert_eq!(Name::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn wrong_names_come_with_the_nearest_right_one() {
        assert_eq!(suggestion("My Agent"), Some("my-agent".into()));
        assert_eq!(suggestion("-dev-"), Some("dev".into()));
        assert_eq!(suggestion("web_1.2"), Some("web-1-2".into()));
        assert_eq!(suggestion("café"), Some("caf".into()));
        assert_eq!(suggestion(&"x".repeat(64)), Some("x".repeat(63)));
        assert_eq!(suggestion(""), None);
        assert_eq!(suggestion("___"), None);
    }

    #[test]
    fn identity_on_the_runtime() {
        let key = |text: &str| text.parse::<AgentKey>().unwrap();
        assert_eq!(key("default/dev").runtime_name(), "dev");
        assert_eq!(key("shop/dev").runtime_name(), "shop--dev");
        assert_eq!(key("default/shop--dev").runtime_name(), "shop--dev");
        assert_eq!(key("default/d").runtime_name(), "default--d");
        assert!(matches!("a/b/c".parse::<AgentKey>(), Err(AgentKeyError::NotAPair { .. })));
        assert!(matches!("a/B".parse::<AgentKey>(), Err(AgentKeyError::Name(_))));
    }
}
