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
    #[error("this is not UTF-8 text")]
    NotText,
    #[error("this is not valid YAML: {reason}")]
    Syntax { reason: String, hint: Option<&'static str> },
    #[error("the key `{key}` stands here twice; the first is in line {}, column {}", first.0, first.1)]
    Duplicate { key: String, first: (usize, usize) },
    #[error("there is no key `{key}`{}", within(parent))]
    UnknownKey { key: String, parent: String, hint: String },
    #[error("the variable {name} names no setting")]
    UnknownVariable { name: String, nearest: Option<String> },
    #[error("{} {why}", subject(key))]
    Wrong { key: String, why: String, hint: Option<String> },
}

fn subject(key: &str) -> String {
    if key.is_empty() { "the file".to_owned() } else { format!("`{key}`") }
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
            Problem::UnknownKey { hint, .. } => Some(hint.clone()),
            Problem::UnknownVariable { nearest: Some(nearest), .. } => {
                Some(format!("did you mean {nearest}?"))
            }
            Problem::UnknownVariable { .. } => Some(
                "`berthold settings schema` lists the keys; their path, with `_` between, is the variable"
                    .to_owned(),
            ),
            Problem::Wrong { hint, .. } => hint.clone(),
            Problem::Duplicate { .. } => Some("keep one of the two".to_owned()),
            Problem::Unreadable { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => {
                    Some("`--settings` and BERTHOLD_SETTINGS must name a file that is there".to_owned())
                }
                io::ErrorKind::IsADirectory => Some("name a file, such as settings.yaml in it".to_owned()),
                io::ErrorKind::PermissionDenied => {
                    Some("the user who runs this must be allowed to read it".to_owned())
                }
                _ => None,
            },
            Problem::NotText => Some("save the file as UTF-8".to_owned()),
            Problem::Syntax { hint, .. } => hint.map(str::to_owned),
        }
    }

    /// The file in which it stands, if it stands in one.
    pub fn file(&self) -> Option<&Path> {
        match (&self.0.problem, self.0.place.as_ref().map(|place| &*place.origin)) {
            (Problem::Unreadable { path, .. }, _) => Some(path),
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
            Problem::Wrong { key, .. } if key.is_empty() => None,
            Problem::UnknownKey { key, .. } | Problem::Wrong { key, .. } | Problem::Duplicate { key, .. } => {
                Some(key.clone())
            }
            _ => None,
        }
    }

    /// File, line, column and key, as far as they are known, for a reader that is a program.
    pub fn details(&self) -> serde_json::Map<String, serde_json::Value> {
        let file = self.file().map(|path| path.display().to_string().into());
        let (line, column) = (self.line().map(Into::into), self.column().map(Into::into));
        let details =
            [("file", file), ("line", line), ("column", column), ("key", self.key().map(Into::into))];
        details.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    fn in_file(&self) -> Option<&Place> {
        self.0.place.as_ref().filter(|place| matches!(*place.origin, Origin::File { .. }))
    }
}

impl std::error::Error for SettingsError {}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = &self.0.place else { return self.0.problem.fmt(f) };
        // A variable that names no setting is told by the problem itself.
        if !matches!(self.0.problem, Problem::UnknownVariable { .. }) {
            write!(f, "{place}: ")?;
        }
        self.0.problem.fmt(f)?;
        let is_text = !matches!(self.0.problem, Problem::NotText);
        if is_text && matches!(*place.origin, Origin::File { .. }) {
            snippet(f, place)?;
        }
        Ok(())
    }
}

/// The line, with a mark below what is meant.
fn snippet(f: &mut fmt::Formatter<'_>, place: &Place) -> fmt::Result {
    let Some(line) = place.origin.text().lines().nth(place.line - 1) else { return Ok(()) };
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    let before: String =
        line.chars().take(place.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let width = place.written().lines().next().map_or(1, |first| first.chars().count().max(1));
    write!(f, "\n{margin} |\n{number} | {line}\n{margin} | {before}{}", "^".repeat(width))
}
