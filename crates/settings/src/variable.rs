//! Which key a variable of the environment means.
//!
//! A variable's name is the key's path in capitals with `_` between. Keys hold `_` themselves, so each block is asked
//! which of its keys the name goes on with. A template has the name that it has in a file, if one is meant by the
//! variable; a template that only variables make is called in small letters, with `-` for `_`.

use crate::error::{Problem, SettingsError};
use crate::keys::nearest;
use crate::shape::{ROOT, Shape};
use crate::tree::{Node, Place, Value};

/// What is a setting starts so.
const PREFIX: &str = "BERTHOLD_";
/// And goes on so; every other variable is passed over.
const SECTIONS: [&str; 3] = ["SERVER_", "RUNTIMES_", "TEMPLATES_"];

/// What a variable's name means.
pub(crate) enum Meaning {
    /// It is none of the settings' variables.
    NoSetting,
    /// The setting of this path.
    Key(Vec<String>),
    /// This path if the value is a block, else nothing: the name of a template that is not known yet, in which a
    /// mistyped key may be hidden.
    Block(Vec<String>),
    /// It starts like a setting, but there is none.
    Unknown,
}

/// The key that the variable `name` means, where `written` is what weaker layers hold.
pub(crate) fn meaning(name: &str, written: &Node) -> Meaning {
    let rest = name.strip_prefix(PREFIX).unwrap_or_default();
    if !SECTIONS.iter().any(|section| rest.starts_with(section)) {
        return Meaning::NoSetting;
    }
    find(&ROOT, rest, Some(written)).unwrap_or(Meaning::Unknown)
}

/// The error for a variable that means nothing.
pub(crate) fn unknown(name: &str, place: Place) -> SettingsError {
    let nearest = name.strip_prefix(PREFIX).and_then(|rest| suggestion(&ROOT, rest));
    let nearest = nearest.map(|rest| format!("{PREFIX}{rest}"));
    SettingsError::new(Problem::UnknownVariable { name: name.to_owned(), nearest }, place)
}

fn find(shape: &Shape, rest: &str, written: Option<&Node>) -> Option<Meaning> {
    match shape {
        // A block as a whole can be given too, such as `{ range: 8000-9000 }`.
        _ if rest.is_empty() => Some(Meaning::Key(Vec::new())),
        Shape::Leaf(_) => None,
        Shape::Block(keys) => keys.iter().find_map(|key| {
            let rest = go_on(rest, &key.name.to_ascii_uppercase())?;
            find(&key.shape, rest, below(written, key.name)).map(|found| found.within(key.name))
        }),
        Shape::Named(shape) => find_named(shape, rest, written),
    }
}

/// What follows `name` and the `_` behind it.
fn go_on<'a>(rest: &'a str, name: &str) -> Option<&'a str> {
    let rest = rest.strip_prefix(name)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('_').filter(|rest| !rest.is_empty()) }
}

fn find_named(shape: &Shape, rest: &str, written: Option<&Node>) -> Option<Meaning> {
    let mut names: Vec<&String> = match written.map(|node| &node.value) {
        Some(Value::Map(map)) => map.keys().collect(),
        _ => Vec::new(),
    };
    // The longest first, so that `web-app` goes before `web`.
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let key_of_known = names.iter().find_map(|name| {
        let rest = go_on(rest, &in_capitals(name)).filter(|rest| !rest.is_empty())?;
        find(shape, rest, below(written, name)).map(|found| found.within(name))
    });
    let known = || names.iter().find(|name| in_capitals(name) == rest);
    let whole_known = || known().map(|name| Meaning::Key(vec![(*name).clone()]));
    let key_of_new = || {
        rest.rmatch_indices('_').find_map(|(at, _)| {
            let (name, rest) = (in_small_letters(&rest[..at])?, &rest[at + 1..]);
            let found = if rest.is_empty() { None } else { find(shape, rest, None) };
            found.map(|found| found.within(&name))
        })
    };
    let whole_new = || {
        let name = in_small_letters(rest)?;
        Some(if rest.contains('_') { Meaning::Block(vec![name]) } else { Meaning::Key(vec![name]) })
    };
    key_of_known.or_else(whole_known).or_else(key_of_new).or_else(whole_new)
}

impl Meaning {
    fn within(mut self, name: &str) -> Self {
        if let Self::Key(path) | Self::Block(path) = &mut self {
            path.insert(0, name.to_owned());
        }
        self
    }
}

fn below<'a>(written: Option<&'a Node>, name: &str) -> Option<&'a Node> {
    match written.map(|node| &node.value) {
        Some(Value::Map(map)) => map.get(name).map(|entry| &entry.node),
        _ => None,
    }
}

fn in_capitals(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

fn in_small_letters(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_ascii_lowercase().replace('_', "-"))
}

/// The variable, without the prefix, that was probably meant.
fn suggestion(shape: &Shape, rest: &str) -> Option<String> {
    match shape {
        Shape::Leaf(_) => None,
        Shape::Block(keys) => {
            let deeper = keys.iter().find_map(|key| {
                let name = key.name.to_ascii_uppercase();
                let rest = go_on(rest, &name).filter(|rest| !rest.is_empty())?;
                Some((name, key, rest))
            });
            match deeper {
                Some((name, key, rest)) => {
                    suggestion(&key.shape, rest).map(|found| format!("{name}_{found}"))
                }
                None => {
                    let known = shape.variables();
                    nearest(rest, known.iter().map(String::as_str)).map(str::to_owned)
                }
            }
        }
        Shape::Named(shape) => rest.match_indices('_').find_map(|(at, _)| {
            let (name, rest) = (&rest[..at], &rest[at + 1..]);
            suggestion(shape, rest).filter(|_| !name.is_empty()).map(|found| format!("{name}_{found}"))
        }),
    }
}
