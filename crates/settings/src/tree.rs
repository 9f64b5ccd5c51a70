//! Settings as they were written: a tree of values, each with the place where it stands.
//!
//! Trees of several layers are merged before anything is checked, so that an error points at the very value that causes
//! it, in whichever file, variable or flag that stands.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

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

/// Where something stands. Lines and columns are counted from 1.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) origin: Arc<Origin>,
    pub(crate) line: usize,
    pub(crate) column: usize,
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
        Self { origin: Arc::clone(origin), line: 1, column: 1 }
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
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::PassThrough };
    let raw: Spanned<Raw> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map_or_else(|| Place::start(origin), |at| place(origin, at));
        let message = error.without_snippet().to_string();
        SettingsError::new(Problem::Syntax { reason: tidy(&message) }, place)
    })?;
    settle(origin, raw)
}

/// The parser's message without the position, which is told anyway.
fn tidy(message: &str) -> String {
    let first = message.lines().next().unwrap_or(message);
    let first = first.split_once(" at line ").map_or(first, |(before, _)| before);
    first.trim_start_matches("error: ").trim_end_matches('.').to_owned()
}

fn place(origin: &Arc<Origin>, at: serde_saphyr::Location) -> Place {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX).max(1);
    Place { origin: Arc::clone(origin), line: number(at.line()), column: number(at.column()) }
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
                let here = place(origin, key.referenced);
                if let Some(before) = map.get(&key.value) {
                    let first_line = before.key.line;
                    return Err(SettingsError::new(Problem::Duplicate { key: key.value, first_line }, here));
                }
                let node = settle(origin, value)?;
                map.insert(key.value, Entry { key: here, node });
            }
            Value::Map(map)
        }
    };
    Ok(Node { value, place: place(origin, raw.referenced) })
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
