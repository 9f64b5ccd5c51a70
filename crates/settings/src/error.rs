//! What is wrong with settings, where it stands, and what to write instead.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::tree::{Origin, Place};

/// Settings that cannot be honoured. Shown, it is the place, what is wrong, and the line in question.
#[derive(Debug)]
pub struct SettingsError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    problem: Problem,
    place: Option<Place>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("the settings file {} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the settings file {} is not UTF-8 text", path.display())]
    NotText { path: PathBuf },
    #[error("this is not valid YAML: {reason}")]
    Syntax { reason: String },
    #[error("the key `{key}` stands here twice; the first is in line {first_line}")]
    Duplicate { key: String, first_line: usize },
    #[error("there is no key `{key}`{}", within(parent))]
    UnknownKey { key: String, parent: String, nearest: Option<String>, known: Vec<String> },
    #[error("the variable {name} names no setting")]
    UnknownVariable { name: String, nearest: Option<String> },
    #[error("`{key}` {why}")]
    Wrong { key: String, why: String, hint: Option<String> },
}

fn within(parent: &str) -> String {
    if parent.is_empty() { String::new() } else { format!(" in `{parent}`") }
}

impl SettingsError {
    pub(crate) fn new(problem: Problem, place: Place) -> Self {
        Self(Box::new(Inner { problem, place: Some(place) }))
    }

    pub(crate) fn without_place(problem: Problem) -> Self {
        Self(Box::new(Inner { problem, place: None }))
    }

    /// What to write instead, where that is known.
    pub fn hint(&self) -> Option<String> {
        match &self.0.problem {
            Problem::UnknownKey { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Problem::UnknownKey { known, .. } if !known.is_empty() => {
                Some(format!("it can hold {}", known.join(", ")))
            }
            Problem::UnknownVariable { nearest: Some(nearest), .. } => {
                Some(format!("did you mean {nearest}?"))
            }
            Problem::UnknownVariable { .. } => Some(
                "`berthold settings schema` lists the keys; their path, with `_` between, is the variable"
                    .to_owned(),
            ),
            Problem::Wrong { hint, .. } => hint.clone(),
            Problem::Duplicate { .. } => Some("keep one of the two".to_owned()),
            Problem::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("`--settings` and BERTHOLD_SETTINGS must name a file that is there".to_owned())
            }
            Problem::Syntax { reason } if reason.contains("tab") => {
                Some("indent with spaces: YAML does not allow tabs there".to_owned())
            }
            _ => None,
        }
    }

    /// The file in which it stands, if it stands in one.
    pub fn file(&self) -> Option<&Path> {
        match (&self.0.problem, self.0.place.as_ref().map(|place| &*place.origin)) {
            (Problem::Unreadable { path, .. } | Problem::NotText { path }, _) => Some(path),
            (_, Some(Origin::File { path, .. })) => Some(path),
            _ => None,
        }
    }

    /// The line, from 1, if it stands in a file.
    pub fn line(&self) -> Option<usize> {
        self.in_file().map(|place| place.line)
    }

    /// The column, from 1, if it stands in a file.
    pub fn column(&self) -> Option<usize> {
        self.in_file().map(|place| place.column)
    }

    /// The key that it is about, with its parents, if it is about one.
    pub fn key(&self) -> Option<String> {
        match &self.0.problem {
            Problem::UnknownKey { key, parent, .. } if !parent.is_empty() => Some(format!("{parent}.{key}")),
            Problem::UnknownKey { key, .. } | Problem::Wrong { key, .. } | Problem::Duplicate { key, .. } => {
                Some(key.clone())
            }
            _ => None,
        }
    }

    fn in_file(&self) -> Option<&Place> {
        self.0.place.as_ref().filter(|place| matches!(*place.origin, Origin::File { .. }))
    }
}

impl std::error::Error for SettingsError {}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = &self.0.place else { return self.0.problem.fmt(f) };
        match &*place.origin {
            Origin::File { path, .. } => write!(f, "{}:{}:{}: ", path.display(), place.line, place.column)?,
            // What is wrong with the name is told by the problem itself.
            Origin::Variable { .. } if matches!(self.0.problem, Problem::UnknownVariable { .. }) => {}
            Origin::Variable { name, .. } => write!(f, "{name}: ")?,
            Origin::Flag { name, .. } => write!(f, "--{name}: ")?,
        }
        self.0.problem.fmt(f)?;
        if matches!(*place.origin, Origin::File { .. }) {
            snippet(f, place)?;
        }
        Ok(())
    }
}

/// The line, with a mark below what is meant: the word that begins there.
fn snippet(f: &mut fmt::Formatter<'_>, place: &Place) -> fmt::Result {
    let Some(line) = place.origin.text().lines().nth(place.line - 1) else { return Ok(()) };
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    let before: String =
        line.chars().take(place.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let rest: String = line.chars().skip(place.column - 1).collect();
    let quoted = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
    let end = match quoted {
        Some(quote) => rest[1..].find(quote).map(|at| at + 2),
        None => rest
            .find([',', ']', '}', '#'])
            .into_iter()
            .chain(rest.find(": "))
            .chain(rest.ends_with(':').then(|| rest.len() - 1))
            .min(),
    };
    let word = rest[..end.unwrap_or(rest.len())].trim_end();
    let marks = "^".repeat(word.chars().count().max(1));
    write!(f, "\n{margin} |\n{number} | {line}\n{margin} | {before}{marks}")
}
