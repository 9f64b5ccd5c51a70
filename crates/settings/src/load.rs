//! Finds what was written, in files, variables and flags, and lays the stronger over the weaker.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Problem, SettingsError};
use crate::model::Settings;
use crate::read::{self, nearest};
use crate::shape::{ROOT, Shape};
use crate::tree::{self, Entry, Node, Origin, Place, Value};

/// Variables that start so are settings; every other one is passed over.
const PREFIX: &str = "BERTHOLD_";
const SECTIONS: [&str; 3] = ["SERVER_", "RUNTIMES_", "TEMPLATES_"];

/// Where settings are looked for.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file of `--settings` or `$BERTHOLD_SETTINGS`: it must be there, and the layers are not read.
    pub explicit: Option<PathBuf>,
    /// Files that are read if they are there, the weakest first.
    pub layers: Vec<PathBuf>,
    /// The environment, in which `BERTHOLD_SERVER_…`, `BERTHOLD_RUNTIMES_…` and `BERTHOLD_TEMPLATES_…` are looked for.
    pub environment: Vec<(String, String)>,
    /// What flags set: key paths such as `server.broker.listen`, and their values. The strongest.
    pub overrides: Vec<(String, String)>,
}

/// Settings, and the files from which they come.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The files that were read, the weakest first.
    pub files: Vec<PathBuf>,
}

/// Reads the settings of `sources`.
///
/// # Errors
/// [`SettingsError`] for whatever cannot be honoured: nothing is passed over silently.
pub fn load(sources: &Sources) -> Result<Loaded, SettingsError> {
    let mut files = Vec::new();
    let nowhere = Arc::new(Origin::Flag { name: String::new(), text: String::new() });
    let mut root = Node { value: Value::Null, place: Place::start(&nowhere) };
    let layers = sources.explicit.as_ref().map_or(sources.layers.as_slice(), std::slice::from_ref);
    for path in layers {
        if let Some(text) = read_file(path, sources.explicit.is_some())? {
            let origin = Arc::new(Origin::File { path: path.clone(), text });
            root = root.merge(tree::parse(&origin)?);
            files.push(path.clone());
        }
    }
    let mut variables: Vec<&(String, String)> = sources.environment.iter().collect();
    variables.sort();
    for (name, value) in variables {
        if let Some(node) = from_variable(name, value)? {
            root = root.merge(node);
        }
    }
    for (path, value) in &sources.overrides {
        let flag = path.rsplit('.').next().unwrap_or(path).replace('_', "-");
        let origin = Arc::new(Origin::Flag { name: flag, text: value.clone() });
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        root = root.merge(nested(&path, &origin)?);
    }
    Ok(Loaded { settings: read::settings(&root)?, files })
}

fn read_file(path: &Path, must_be_there: bool) -> Result<Option<String>, SettingsError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_be_there => return Ok(None),
        Err(source) => {
            return Err(SettingsError::without_place(Problem::Unreadable { path: path.to_owned(), source }));
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(SettingsError::without_place(Problem::NotText { path: path.to_owned() })),
    }
}

fn from_variable(name: &str, value: &str) -> Result<Option<Node>, SettingsError> {
    let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(None) };
    if !SECTIONS.iter().any(|section| rest.starts_with(section)) {
        return Ok(None);
    }
    let origin = Arc::new(Origin::Variable { name: name.to_owned(), text: value.to_owned() });
    match ROOT.path_of_variable(rest) {
        Some(path) => nested(&path, &origin).map(Some),
        None => {
            let known: Vec<String> = ROOT.variables().iter().map(|rest| format!("{PREFIX}{rest}")).collect();
            let nearest = nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
            let problem = Problem::UnknownVariable { name: name.to_owned(), nearest };
            Err(SettingsError::new(problem, Place::start(&origin)))
        }
    }
}

/// The tree in which only the value at `path` is written.
fn nested(path: &[String], origin: &Arc<Origin>) -> Result<Node, SettingsError> {
    let here = Place::start(origin);
    // Text is taken as it is: `#` and `:` mean nothing in it.
    let value = if is_text(path) {
        Node { value: Value::Text(origin.text().to_owned()), place: here.clone() }
    } else {
        tree::parse(origin)?
    };
    let wrap = |node: Node, key: &String| {
        let entry = Entry { key: here.clone(), node };
        Node { value: Value::Map(BTreeMap::from([(key.clone(), entry)])), place: here.clone() }
    };
    Ok(path.iter().rev().fold(value, wrap))
}

fn is_text(path: &[String]) -> bool {
    let mut shape = &ROOT;
    for name in path {
        shape = match shape {
            Shape::Block(keys) => match keys.iter().find(|key| key.name == name) {
                Some(key) => &key.shape,
                None => return false,
            },
            Shape::Named(shape) => shape,
            Shape::Leaf(_) => return false,
        };
    }
    matches!(shape, Shape::Leaf(schema) if schema()["type"] == "string")
}
