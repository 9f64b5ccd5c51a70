//! Keys that there are not, and what was probably meant by them.

use crate::error::{Problem, SettingsError};
use crate::shape::{Key, ROOT, Shape};
use crate::tree::{Node, Value};

/// Tells keys that there are not, anywhere in the tree.
pub(crate) fn check(root: &Node) -> Result<(), SettingsError> {
    check_below(root, &ROOT, "")
}

fn check_below(node: &Node, shape: &Shape, path: &str) -> Result<(), SettingsError> {
    let Value::Map(map) = &node.value else { return Ok(()) };
    for (name, entry) in map {
        let below = join(path, name);
        match shape {
            Shape::Leaf(_) => {}
            Shape::Named(_) if name.is_empty() => {
                let why = "holds an entry without a name".to_owned();
                let problem = Problem::Wrong { key: path.to_owned(), why, hint: None };
                return Err(SettingsError::new(problem, entry.key.clone()));
            }
            Shape::Named(shape) => check_below(&entry.node, shape, &below)?,
            Shape::Block(keys) => match keys.iter().find(|key| key.name == name) {
                Some(key) => check_below(&entry.node, &key.shape, &below)?,
                None => {
                    let problem = Problem::UnknownKey {
                        key: name.clone(),
                        parent: path.to_owned(),
                        hint: instead(name, keys),
                    };
                    return Err(SettingsError::new(problem, entry.key.clone()));
                }
            },
        }
    }
    Ok(())
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// What to do about the unknown key `name` in a block of these `keys`.
fn instead(name: &str, keys: &[Key]) -> String {
    let known = || keys.iter().map(|key| key.name);
    if let Some(nearest) = nearest(name, known()) {
        return format!("did you mean `{nearest}`?");
    }
    let mut homes = Vec::new();
    collect_homes(name, &ROOT, "", &mut homes);
    if let [home] = &homes[..] {
        return format!("`{name}` belongs in `{home}`");
    }
    format!("it can hold {}", known().collect::<Vec<_>>().join(", "))
}

/// The paths of all blocks that have a key `name`.
fn collect_homes(name: &str, shape: &Shape, path: &str, homes: &mut Vec<String>) {
    match shape {
        Shape::Leaf(_) => {}
        Shape::Named(shape) => collect_homes(name, shape, &join(path, "NAME"), homes),
        Shape::Block(keys) => {
            for key in *keys {
                if key.name == name {
                    homes.push(path.to_owned());
                }
                collect_homes(name, &key.shape, &join(path, key.name), homes);
            }
        }
    }
}

/// The candidate that `given` was probably meant to be: a mistyped one, or the only one that has all its words.
pub(crate) fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let distance = |candidate| strsim::damerau_levenshtein(given, candidate);
    let scored = candidates.clone().map(|candidate| (distance(candidate), candidate));
    let mistyped = scored.filter(|(distance, _)| *distance <= 1 + given.len() / 3).min();
    if let Some((_, candidate)) = mistyped {
        return Some(candidate);
    }
    let has_all_words =
        |candidate: &&str| given.split(['_', '-']).all(|word| candidate.split('_').any(|has| has == word));
    let mut fuller = candidates.filter(has_all_words);
    fuller.next().filter(|_| fuller.next().is_none())
}
