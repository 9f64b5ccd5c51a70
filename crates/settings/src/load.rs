//! Finds what was written, in files, variables and flags, and lays the stronger over the weaker.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Problem, SettingsError};
use crate::keys;
use crate::model::Settings;
use crate::project;
use crate::read;
use crate::shape::{ROOT, Shape};
use crate::tree::{self, Entry, Node, Origin, Place, Value};
use crate::variable::{self, Meaning};

/// Where settings are looked for.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file of `--settings` or `$BERTHOLD_SETTINGS`: it must be there, and the layers are not read.
    pub explicit: Option<PathBuf>,
    /// Files that are read if they are there, the weakest first.
    pub layers: Vec<PathBuf>,
    /// The file of a project, which is read after them if it is there, and may not set everything: agents can write it.
    pub project: Option<PathBuf>,
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
    /// The names of the variables that set something, in order.
    pub variables: Vec<String>,
}

/// Reads the settings of `sources`.
///
/// # Errors
/// [`SettingsError`] for whatever cannot be honoured: nothing is passed over silently.
pub fn load(sources: &Sources) -> Result<Loaded, SettingsError> {
    let mut files = Vec::new();
    let nowhere = Arc::new(Origin::Flag { name: String::new(), text: String::new() });
    let mut root = Node { value: Value::Null, place: Place::start(&nowhere) };
    let mut project = None;
    let layers: Vec<(&PathBuf, bool)> = match &sources.explicit {
        Some(file) => vec![(file, false)],
        None => {
            let layers = sources.layers.iter().map(|path| (path, false));
            layers.chain(sources.project.iter().map(|path| (path, true))).collect()
        }
    };
    for (path, is_projects) in layers {
        if let Some(text) = read_file(path, sources.explicit.is_some())? {
            let origin = Arc::new(Origin::File { path: path.clone(), text });
            let layer = tree::parse(&origin)?;
            if is_projects {
                keys::check(&layer)?;
                project::check_keys(&layer)?;
                project = Some(layer.clone());
            }
            root = root.merge(layer);
            files.push(path.clone());
        }
    }
    let mut variables: Vec<&(String, String)> = sources.environment.iter().collect();
    variables.sort();
    let mut in_force = Vec::new();
    for (name, value) in variables {
        if let Some(node) = from_variable(name, value, &root)? {
            in_force.push(name.clone());
            root = root.merge(node);
        }
    }
    for (path, value) in &sources.overrides {
        let flag = path.rsplit('.').next().unwrap_or(path).replace('_', "-");
        let origin = Arc::new(Origin::Flag { name: flag, text: value.clone() });
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        root = root.merge(nested(&path, &origin)?);
    }
    let settings = read::settings(&root)?;
    if let Some(layer) = project {
        project::check_templates(&layer, &settings)?;
    }
    Ok(Loaded { settings, files, variables: in_force })
}

fn read_file(path: &Path, must_be_there: bool) -> Result<Option<String>, SettingsError> {
    let is_missing =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if is_missing(&error) && !must_be_there => return Ok(None),
        Err(source) => {
            return Err(SettingsError::without_place(Problem::Unreadable { path: path.to_owned(), source }));
        }
    };
    // Some editors begin a file with a mark of its encoding, which would move the columns.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(bytes);
    String::from_utf8(bytes).map(Some).map_err(|error| not_text(path, &error))
}

fn not_text(path: &Path, error: &std::string::FromUtf8Error) -> SettingsError {
    let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let before = String::from_utf8_lossy(valid);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
    let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
    let origin = Arc::new(Origin::File { path: path.to_owned(), text });
    SettingsError::new(Problem::NotText, Place::at(&origin, line, column))
}

/// What the variable sets; nothing, if it is none of the settings'.
fn from_variable(name: &str, value: &str, weaker: &Node) -> Result<Option<Node>, SettingsError> {
    let origin = Arc::new(Origin::Variable { name: name.to_owned(), text: value.to_owned() });
    let unknown = || variable::unknown(name, Place::start(&origin));
    match variable::meaning(name, weaker) {
        Meaning::NoSetting => Ok(None),
        Meaning::Unknown => Err(unknown()),
        Meaning::Key(path) => nested(&path, &origin).map(Some),
        Meaning::Block(path) => match tree::parse(&origin) {
            Ok(Node { value: Value::Map(_), .. }) => nested(&path, &origin).map(Some),
            _ => Err(unknown()),
        },
    }
}

/// The tree in which only the value at `path` is written.
fn nested(path: &[String], origin: &Arc<Origin>) -> Result<Node, SettingsError> {
    let here = Place::start(origin);
    // Text is taken as it is, so that `#` and `:` mean nothing in it, unless it is in quotes as in a file.
    let in_quotes = origin.text().starts_with(['"', '\'']);
    let value = if is_text(path) && !in_quotes {
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
    let shape = path.iter().try_fold(&ROOT, |shape, name| shape.below(name));
    matches!(shape, Some(Shape::Leaf(schema)) if schema()["type"] == "string")
}
