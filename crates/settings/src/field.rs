//! What stands under a key: a block of keys, or a single setting, with the errors that name it and its place.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use pool::{Port, PortRange, label};

use crate::error::{Problem, SettingsError};
use crate::tree::{Entry, Node, Origin, Place, Value};

pub(crate) type Result<T> = std::result::Result<T, SettingsError>;

/// The longest duration: more than anyone means, and little enough to be added to any time of a clock.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A block of keys, or none where it was not written or left empty.
pub(crate) struct Block<'a> {
    pub(crate) map: Option<&'a BTreeMap<String, Entry>>,
    path: String,
}

impl<'a> Block<'a> {
    pub(crate) fn of(node: Option<&'a Node>, path: &str) -> Result<Self> {
        let map = match node.map(|node| (&node.value, node)) {
            None | Some((Value::Null, _)) => None,
            Some((Value::Map(map), _)) => Some(map),
            Some((_, node)) => {
                let why = format!("must be a block of keys, not {}", node.kind());
                let hint = match &*node.place.origin {
                    Origin::File { .. } if path.is_empty() => "begin with `server:`",
                    Origin::File { .. } => "write `key: value` lines, indented below it",
                    Origin::Variable { .. } | Origin::Flag { .. } => "write it like { key: value }",
                };
                let hint = Some(hint.to_owned());
                let problem = Problem::Wrong { key: path.to_owned(), why, hint };
                return Err(SettingsError::new(problem, node.place.clone()));
            }
        };
        Ok(Self { map, path: path.to_owned() })
    }

    fn path_to(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn node(&self, name: &str) -> Option<&'a Node> {
        self.map.and_then(|map| map.get(name)).map(|entry| &entry.node)
    }

    /// The block `name`, if it stands there at all, be it empty.
    pub(crate) fn written_block(&self, name: &str) -> Result<Option<Block<'a>>> {
        self.node(name).map(|_| self.block(name)).transpose()
    }

    pub(crate) fn block(&self, name: &str) -> Result<Block<'a>> {
        Block::of(self.node(name), &self.path_to(name))
    }

    /// The blocks below it, by the names that the user chose.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Result<(&'a String, Block<'a>)>> {
        let block = |(name, entry): (&'a String, &'a Entry)| {
            Block::of(Some(&entry.node), &self.path_to(name)).map(|block| (name, block))
        };
        self.map.into_iter().flatten().map(block)
    }

    pub(crate) fn get(&self, name: &str) -> Field<'a> {
        let node = self.node(name).filter(|node| !matches!(node.value, Value::Null));
        Field { node, path: self.path_to(name) }
    }
}

/// A single setting or a list, or none where it was not written or left empty.
pub(crate) struct Field<'a> {
    node: Option<&'a Node>,
    path: String,
}

impl<'a> Field<'a> {
    pub(crate) fn place(&self) -> Option<&'a Place> {
        self.node.map(|node| &node.place)
    }

    /// What is wrong with the value, said as the end of a sentence that begins with the key.
    pub(crate) fn wrong(&self, why: &str, hint: Option<&str>) -> SettingsError {
        let problem =
            Problem::Wrong { key: self.path.clone(), why: why.to_owned(), hint: hint.map(str::to_owned) };
        match self.node {
            Some(node) => SettingsError::new(problem, node.place.clone()),
            None => SettingsError::without_place(problem),
        }
    }

    /// The value as text, whatever scalar it is. An empty text is as good as none: a variable cannot say it otherwise.
    pub(crate) fn scalar(&self) -> Result<Option<String>> {
        let Some(node) = self.node else { return Ok(None) };
        match node.text() {
            Some(text) => Ok(Some(text).filter(|text| !text.is_empty())),
            None => Err(self.wrong(&format!("must be a single value, not {}", node.kind()), None)),
        }
    }

    /// A value whose own type says what is wrong with it.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self) -> Result<Option<T>> {
        let Some(text) = self.scalar()? else { return Ok(None) };
        text.parse().map(Some).map_err(|error: T::Err| self.wrong(&format!("is wrong: {error}"), None))
    }

    pub(crate) fn truth(&self) -> Result<Option<bool>> {
        if let Some(Node { value: Value::Bool(value), .. }) = self.node {
            return Ok(Some(*value));
        }
        match self.scalar()?.as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(text) => {
                let why = format!("is `{text}`, which is neither true nor false");
                Err(self.wrong(&why, Some("write true or false")))
            }
        }
    }

    /// A whole number, if it is written as a number or as its digits. One that is beyond all bounds comes as the largest.
    fn whole_number(&self) -> Option<i128> {
        match &self.node?.value {
            Value::Integer(number) => Some(*number),
            #[expect(clippy::cast_possible_truncation, reason = "the cast keeps to the bounds of its type")]
            Value::Float(number) if number.fract() == 0.0 => Some(*number as i128),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// A number of ports of an agent.
    pub(crate) fn count(&self) -> Result<Option<u16>> {
        let Some(text) = self.scalar()? else { return Ok(None) };
        let most = label::LABEL_COUNT;
        let hint = format!("write a whole number from 0 to {most}");
        match self.whole_number().map(u16::try_from) {
            None => Err(self.wrong(&format!("is `{text}`, which is not a whole number"), Some(&hint))),
            Some(Ok(count)) if count <= most => Ok(Some(count)),
            Some(_) => {
                let why = format!("is {text}, but an agent can have 0 to {most} ports");
                Err(self.wrong(&why, Some(&hint)))
            }
        }
    }

    /// A port or a range of ports.
    pub(crate) fn range(&self) -> Result<Option<PortRange>> {
        let is_number = self.node.is_some_and(|node| !matches!(node.value, Value::Text(_)));
        let Some(number) = self.whole_number().filter(|_| is_number) else { return self.parsed() };
        match u16::try_from(number).ok().and_then(Port::new) {
            Some(port) => Ok(Some(PortRange::single(port))),
            None => {
                let text = self.scalar()?.unwrap_or_default();
                let hint = "write a port such as 8000, or a range such as 8000-9000";
                Err(self.wrong(&format!("is {text}, but ports go from 1 to 65535"), Some(hint)))
            }
        }
    }

    pub(crate) fn duration(&self) -> Result<Option<Duration>> {
        let Some(text) = self.scalar()? else { return Ok(None) };
        let text = text.trim();
        if text == "0" {
            return Ok(Some(Duration::ZERO));
        }
        let hint = "write a duration such as 10s, 500ms or 1m 30s";
        match text.parse::<f64>() {
            Ok(number) if number > 0.0 && number.is_finite() => {
                let hint = format!("write the unit too, such as {text}s");
                return Err(self.wrong(&format!("is `{text}`, which has no unit"), Some(&hint)));
            }
            _ if text.starts_with('-') => {
                return Err(self.wrong(&format!("is `{text}`, but no duration is less than 0"), Some(hint)));
            }
            _ => {}
        }
        match humantime::parse_duration(text) {
            Ok(duration) if duration <= LONGEST => Ok(Some(duration)),
            Ok(_) => Err(self.wrong(&format!("is `{text}`, which is more than a year"), Some(hint))),
            Err(humantime::DurationError::NumberOverflow) => {
                Err(self.wrong(&format!("is `{text}`, which is too long or too finely divided"), Some(hint)))
            }
            Err(humantime::DurationError::UnknownUnit { unit, .. }) => {
                let why = format!("is `{text}`, but there is no unit of time `{unit}`");
                Err(self.wrong(&why, Some("units are ms, s, m, h and days")))
            }
            Err(_) => Err(self.wrong(&format!("is `{text}`, which is no duration"), Some(hint))),
        }
    }

    /// The entries of a list, none of which may be empty.
    pub(crate) fn list(&self) -> Result<Vec<Field<'a>>> {
        let Some(node) = self.node else { return Ok(Vec::new()) };
        let Value::List(items) = &node.value else {
            let hint = match node.text() {
                Some(text) => format!("write [{text}]"),
                None => "write it like [a, b]".to_owned(),
            };
            return Err(self.wrong(&format!("must be a list, not {}", node.kind()), Some(&hint)));
        };
        let mut fields = Vec::with_capacity(items.len());
        for (index, node) in items.iter().enumerate() {
            let field = Field { node: Some(node), path: format!("{}[{index}]", self.path) };
            if matches!(node.value, Value::Null) {
                return Err(field.wrong("is empty", Some("take it out, or write \"\" for an empty text")));
            }
            fields.push(field);
        }
        Ok(fields)
    }

    /// A list of texts.
    pub(crate) fn texts(&self) -> Result<Vec<String>> {
        self.list()?.iter().map(|item| item.scalar().map(Option::unwrap_or_default)).collect()
    }

    /// The entries of a block whose keys the user chooses, each with the place of its key.
    pub(crate) fn map(&self) -> Result<impl Iterator<Item = (&'a String, &'a Place, Field<'a>)>> {
        let block = Block::of(self.node, &self.path)?;
        let path = self.path.clone();
        let field = move |(name, entry): (&'a String, &'a Entry)| {
            let field = Field { node: Some(&entry.node), path: format!("{path}.{name}") };
            (name, &entry.key, field)
        };
        Ok(block.map.into_iter().flatten().map(field))
    }

    /// What is wrong with the key, and not with the value.
    pub(crate) fn wrong_key(&self, key: &Place, why: &str, hint: &str) -> SettingsError {
        let problem =
            Problem::Wrong { key: self.path.clone(), why: why.to_owned(), hint: Some(hint.to_owned()) };
        SettingsError::new(problem, key.clone())
    }
}
