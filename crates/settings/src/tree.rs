//! Settings as they were written: a tree of values, each with the place where it stands.
//!
//! Trees of several layers are merged before anything is checked, so that an error points at the very value that causes
//! it, in whichever file, variable or flag that stands.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, Spanned};

use crate::error::{Problem, SettingsError};

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(BTreeMap<String, Entry>),
}

/// A value of a map, and where its key stands.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Place,
    pub(crate) node: Node,
}

/// Where something stands. Lines and columns are counted from 1, columns in characters.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) origin: Arc<Origin>,
    pub(crate) line: usize,
    pub(crate) column: usize,
    /// The bytes of the origin's text that it takes; for a list or a block, its opening bracket alone.
    bytes: Range<usize>,
}

/// Where settings come from, with what is written there.
#[derive(Debug)]
pub(crate) enum Origin {
    File { path: PathBuf, text: String },
    Variable { name: String, text: String },
    Flag { name: String, text: String },
}

impl Origin {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::File { text, .. } | Self::Variable { text, .. } | Self::Flag { text, .. } => text,
        }
    }
}

impl Place {
    pub(crate) fn start(origin: &Arc<Origin>) -> Self {
        Self::at(origin, 1, 1)
    }

    pub(crate) fn at(origin: &Arc<Origin>, line: usize, column: usize) -> Self {
        Self { origin: Arc::clone(origin), line, column, bytes: 0..0 }
    }

    fn of(origin: &Arc<Origin>, at: serde_saphyr::Location) -> Self {
        let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let bytes = at.span().byte_offset().zip(at.span().byte_len());
        let bytes = bytes.map_or(0..0, |(from, length)| number(from)..number(from.saturating_add(length)));
        let (line, column) = (number(at.line()).max(1), number(at.column()).max(1));
        Self { origin: Arc::clone(origin), line, column, bytes }
    }

    /// What is written there, letter by letter; empty where that is not known.
    pub(crate) fn written(&self) -> &str {
        self.origin.text().get(self.bytes.clone()).unwrap_or_default()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.origin {
            Origin::File { path, .. } => write!(f, "{}:{}:{}", path.display(), self.line, self.column),
            Origin::Variable { name, .. } => f.write_str(name),
            Origin::Flag { name, .. } => write!(f, "--{name}"),
        }
    }
}

impl Node {
    /// What kind of value it is, for a message.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a truth value",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a block of keys",
        }
    }

    /// A single value as it was written, so that `3.10`, `007`, and the label `NO` stay what they are; `None` for lists and
    /// blocks.
    pub(crate) fn text(&self) -> Option<String> {
        let written = |shown: String| match self.place.written() {
            "" => shown,
            // A number with a tag may stand in quotes: `!!int "3"`.
            written => written.trim_matches(['"', '\'']).to_owned(),
        };
        match &self.value {
            Value::Null => Some(String::new()),
            Value::Bool(value) => Some(written(value.to_string())),
            Value::Integer(value) => Some(written(value.to_string())),
            Value::Float(value) => Some(written(value.to_string())),
            Value::Text(text) => Some(text.clone()),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Lays `stronger` over this: maps are merged by key, everything else is replaced. A block that stands there empty
    /// is still there.
    pub(crate) fn merge(self, stronger: Self) -> Self {
        match (self.value, stronger.value) {
            (Value::Map(mut map), Value::Map(other)) => {
                for (key, entry) in other {
                    let merged = match map.remove(&key) {
                        Some(weaker) => Entry { key: entry.key, node: weaker.node.merge(entry.node) },
                        None => entry,
                    };
                    map.insert(key, merged);
                }
                Self { value: Value::Map(map), place: stronger.place }
            }
            (Value::Map(map), Value::Null) => Self { value: Value::Map(map), place: self.place },
            (_, value) => Self { value, place: stronger.place },
        }
    }
}

/// Reads what is written at `origin`; nothing at all is an empty map.
pub(crate) fn parse(origin: &Arc<Origin>) -> Result<Node, SettingsError> {
    let text = origin.text();
    if text.trim().is_empty() {
        return Ok(Node { value: Value::Null, place: Place::start(origin) });
    }
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        reject_unsupported_tags: true,
    };
    let raw: Spanned<Raw> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map_or_else(|| Place::start(origin), |at| Place::of(origin, at));
        SettingsError::new(syntax(error.without_snippet()), place)
    })?;
    settle(origin, raw)
}

/// The parser's error in words for the author of the file, not for the user of the parser.
fn syntax(error: &serde_saphyr::Error) -> Problem {
    use serde_saphyr::Error;
    let (reason, hint) = match error {
        Error::MultipleDocuments { .. } => {
            ("a second document begins here".to_owned(), Some("take out the line `---` above it"))
        }
        Error::NullIntoString { .. } => ("a key is missing here".to_owned(), Some("write `key: value`")),
        Error::Unexpected { expected: "string scalar", .. } => {
            ("a key must be text".to_owned(), Some("write `key: value`"))
        }
        error => {
            let message = error.to_string();
            let first = message.lines().next().unwrap_or(&message);
            let first = first.split_once(" at line ").map_or(first, |(before, _)| before);
            // Without the position, which is told anyway.
            let reason = match first.strip_prefix("error: line ").and_then(|rest| rest.split_once(": ")) {
                Some((_, reason)) => reason,
                None => first.trim_start_matches("error: "),
            };
            (reason.trim_end_matches('.').to_owned(), remedy(reason))
        }
    };
    Problem::Syntax { reason, hint }
}

/// What usually helps against what the parser says.
fn remedy(reason: &str) -> Option<&'static str> {
    let table = [
        ("tab", "indent with spaces: YAML does not allow tabs there"),
        ("mapping values are not allowed", "if the `:` belongs to the text, put the text in quotes"),
        ("did not find expected key", "the keys of a block start in the same column"),
        ("unexpected character", "put the text in quotes"),
        ("unclosed bracket", "close it, on this line or below"),
        ("unclosed quote", "close it"),
        ("unknown escape", "in single quotes a backslash is only a backslash"),
        ("unsupported tag", "take it out: tags mean nothing in settings"),
        ("unknown anchor", "the anchor (`&name`) must stand above; text that starts with `*` needs quotes"),
    ];
    table.into_iter().find(|(sign, _)| reason.contains(sign)).map(|(_, remedy)| remedy)
}

/// A value as the parser has it.
enum Raw {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn settle(origin: &Arc<Origin>, raw: Spanned<Raw>) -> Result<Node, SettingsError> {
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(value) => Value::Bool(value),
        Raw::Integer(value) => Value::Integer(value),
        Raw::Float(value) => Value::Float(value),
        Raw::Text(value) => Value::Text(value),
        Raw::List(items) => {
            Value::List(items.into_iter().map(|item| settle(origin, item)).collect::<Result<_, _>>()?)
        }
        Raw::Map(pairs) => {
            let mut map: BTreeMap<String, Entry> = BTreeMap::new();
            for (key, value) in pairs {
                let here = Place::of(origin, key.defined);
                if let Some(before) = map.get(&key.value) {
                    let first = (before.key.line, before.key.column);
                    return Err(SettingsError::new(Problem::Duplicate { key: key.value, first }, here));
                }
                let node = settle(origin, value)?;
                map.insert(key.value, Entry { key: here, node });
            }
            Value::Map(map)
        }
    };
    // Where an alias (`*name`) stands for it, the value itself is shown and not the alias.
    Ok(Node { value, place: Place::of(origin, raw.defined) })
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Integer(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Integer(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = access.next_entry()? {
            pairs.push(pair);
        }
        Ok(Raw::Map(pairs))
    }
}
