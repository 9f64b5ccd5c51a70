//! What `berthold start` means: from what was typed, and the directory and variables around it, to the request.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use api::StartRequest;

use crate::commands::StartArguments;
use crate::duration::milliseconds;
use crate::error::CliError;

/// What a command line can refer to without naming it.
pub(crate) struct Surroundings<'a> {
    /// Where relative paths start.
    pub(crate) directory: &'a Path,
    /// The value of a variable, if it is set.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
}

/// The request that is meant by what was typed.
pub(crate) fn meant(typed: StartArguments, around: &Surroundings<'_>) -> Result<StartRequest, CliError> {
    let mut env = BTreeMap::new();
    for file in &typed.env_file {
        env.extend(around.env_file(file)?);
    }
    for text in &typed.env {
        let (name, value) = around.env(text)?;
        env.insert(name, value);
    }
    Ok(StartRequest {
        image: typed.image,
        template: typed.template,
        runtime: typed.runtime,
        ports: typed.ports,
        env,
        volumes: typed.volume.iter().map(|text| around.volume(text)).collect::<Result<_, _>>()?,
        workspace: typed.workspace.map(|path| around.workspace(&path)).transpose()?,
        directory: around.directory.to_str().map(str::to_owned),
        network: typed.network,
        command: typed.command,
        interactive: typed.interactive.then_some(true),
        terminal: typed.terminal.then_some(true),
        replace: typed.replace,
        remove: typed.rm,
        wait_ms: typed.wait.map(milliseconds),
    })
}

impl Surroundings<'_> {
    /// The variable that was typed as `NAME=VALUE`, or as a name alone whose value is one's own.
    pub(crate) fn env(&self, text: &str) -> Result<(String, String), CliError> {
        match text.split_once('=') {
            Some(("", _)) => Err(CliError::usage(format!("the variable `{text}` has no name"))),
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => {
                let value = (self.variable)(text).ok_or_else(|| {
                    CliError::usage(format!(
                        "the variable {text} is not set, so there is no value to pass on"
                    ))
                    .with_hint(format!("give it one with `-e {text}=VALUE`, or set it before"))
                })?;
                Ok((text.to_owned(), value))
            }
        }
    }

    /// The variables of a file as Docker reads it: values as they are, with no quotes taken away; a name alone
    /// passes on the value of one's own, if it is set.
    fn env_file(&self, file: &Path) -> Result<Vec<(String, String)>, CliError> {
        let path = self.directory.join(file);
        let text = fs::read_to_string(&path).map_err(|source| {
            CliError::usage(format!("the file {} cannot be read: {source}", file.display()))
        })?;
        let mut variables = Vec::new();
        // Some editors begin a file with a mark that says that it is UTF-8.
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = match line.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (line.trim_end(), (self.variable)(line.trim_end())),
            };
            if name.is_empty() || name.contains(char::is_whitespace) {
                let place = format!("{}:{}", file.display(), number + 1);
                return Err(CliError::usage(format!("{place}: `{line}` is not of the form NAME=VALUE")));
            }
            variables.extend(value.map(|value| (name.to_owned(), value)));
        }
        Ok(variables)
    }

    /// Makes the source of a mount absolute if it is a path from here or from home.
    fn volume(&self, text: &str) -> Result<String, CliError> {
        let (source, rest) = text
            .split_once(':')
            .filter(|(source, rest)| !source.is_empty() && !rest.is_empty())
            .ok_or_else(|| {
                CliError::usage(format!("the volume `{text}` is not of the form SRC:DST or SRC:DST:ro"))
                    .with_hint("SRC is a path of the host or the name of a volume, DST the path inside")
            })?;
        // No name of a volume has a slash in it.
        let is_relative = source.starts_with(['.', '~']) || source.contains('/') && !source.starts_with('/');
        if !is_relative {
            return Ok(text.to_owned());
        }
        Ok(format!("{}:{rest}", self.text(&self.absolute(Path::new(source))?)?))
    }

    fn workspace(&self, path: &Path) -> Result<String, CliError> {
        let absolute = self.absolute(path)?;
        if !absolute.is_dir() {
            let shown = path.display();
            return Err(CliError::usage(format!("the workspace {shown} is not a directory that is there"))
                .with_hint("-w takes a directory of the host; a volume is given with -v"));
        }
        self.text(&absolute)
    }

    fn absolute(&self, path: &Path) -> Result<PathBuf, CliError> {
        let path = match path.strip_prefix("~") {
            Err(_) => self.directory.join(path),
            Ok(rest) => match (self.variable)("HOME") {
                Some(home) => Path::new(&home).join(rest),
                None => {
                    return Err(CliError::usage(format!(
                        "{} cannot be found: HOME is not set",
                        path.display()
                    )));
                }
            },
        };
        // Links stay as they are typed only where nothing is there yet, which the runtime may create or refuse.
        Ok(fs::canonicalize(&path).unwrap_or_else(|_| path.components().collect()))
    }

    fn text(&self, path: &Path) -> Result<String, CliError> {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| CliError::usage(format!("the path {} is not UTF-8", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str], directory: &Path) -> Result<StartRequest, String> {
        let typed = StartArguments::from_words(words).map_err(|error| error.to_string())?;
        let variable = |name: &str| match name {
            "HOME" => Some("/home/me".to_owned()),
            "MINE" => Some("my value".to_owned()),
            _ => None,
        };
        meant(typed, &Surroundings { directory, variable: &variable }).map_err(|error| {
            let body = error.body();
            format!("{} ({})", body.message, body.hint.unwrap_or_default())
        })
    }

    fn nowhere(words: &[&str]) -> Result<StartRequest, String> {
        request(words, Path::new("/nowhere/here"))
    }

    /// What a name alone means: nothing but from where it was typed.
    fn as_it_was() -> StartRequest {
        StartRequest { directory: Some("/nowhere/here".into()), ..StartRequest::default() }
    }

    #[test]
    fn a_name_alone_asks_for_the_agent_as_it_was() {
        assert_eq!(nowhere(&["dev"]).unwrap(), as_it_was());
    }

    #[test]
    fn everything_at_once() {
        let words = "dev --image i --template t --runtime r --ports 3 --network host --replace --rm --wait=5s -- sh -c x";
        let expected = StartRequest {
            image: Some("i".into()),
            template: Some("t".into()),
            runtime: Some("r".into()),
            ports: Some(3),
            network: Some("host".into()),
            command: vec!["sh".into(), "-c".into(), "x".into()],
            replace: true,
            remove: true,
            wait_ms: Some(5_000),
            ..as_it_was()
        };
        assert_eq!(nowhere(&words.split(' ').collect::<Vec<_>>()).unwrap(), expected);
        assert_eq!(nowhere(&["dev", "--wait"]).unwrap().wait_ms, Some(30_000));
        assert!(nowhere(&["dev", "--ports", "703"]).unwrap_err().contains("703 is not in 0..=702"));
    }

    #[test]
    fn variables_from_the_line_go_before_those_of_a_file() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("vars"), "# mine\n\nA=1\nB=\"2\"\nMINE\nUNSET\n").unwrap();
        let env = |words: &[&str]| request(words, directory.path()).map(|request| request.env);
        fs::write(directory.path().join("marked"), "\u{feff}A=1\r\nB=2\r\n").unwrap();
        let marked = env(&["dev", "--env-file", "marked"]).unwrap();
        assert_eq!(marked, [("A", "1"), ("B", "2")].map(|(n, v)| (n.to_owned(), v.to_owned())).into());
        let expected = [("A", "over"), ("B", "\"2\""), ("C", ""), ("MINE", "my value")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(env(&["dev", "-e", "A=over", "-e", "C=", "--env-file", "vars"]), Ok(expected));
        assert_eq!(env(&["dev", "-e", "MINE"]).unwrap()["MINE"], "my value");
        insta::assert_snapshot!(env(&["dev", "-e", "UNSET"]).unwrap_err(), @"the variable UNSET is not set, so there is no value to pass on (give it one with `-e UNSET=VALUE`, or set it before)");
        insta::assert_snapshot!(env(&["dev", "-e", "=1"]).unwrap_err(), @"the variable `=1` has no name ()");
        fs::write(directory.path().join("wrong"), "A=1\nB C=2\n").unwrap();
        insta::assert_snapshot!(env(&["dev", "--env-file", "wrong"]).unwrap_err(), @"wrong:2: `B C=2` is not of the form NAME=VALUE ()");
        assert!(
            env(&["dev", "--env-file", "missing"])
                .unwrap_err()
                .starts_with("the file missing cannot be read")
        );
    }

    #[test]
    fn sources_of_mounts_are_made_absolute_where_they_are_relative() {
        let volume = |text: &str| nowhere(&["dev", "-v", text]).map(|request| request.volumes[0].clone());
        assert_eq!(volume("./src:/src:ro"), Ok("/nowhere/here/src:/src:ro".into()));
        assert_eq!(volume("~/src:/src"), Ok("/home/me/src:/src".into()));
        assert_eq!(volume("src/app:/x"), Ok("/nowhere/here/src/app:/x".into()));
        assert_eq!(volume("link/:/x"), Ok("/nowhere/here/link:/x".into()));
        assert_eq!(volume("/abs:/x"), Ok("/abs:/x".into()));
        assert_eq!(volume("named:/x"), Ok("named:/x".into()));
        insta::assert_snapshot!(volume("lonely").unwrap_err(), @"the volume `lonely` is not of the form SRC:DST or SRC:DST:ro (SRC is a path of the host or the name of a volume, DST the path inside)");
    }

    #[test]
    fn a_workspace_is_a_directory_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(directory.path()).unwrap();
        let workspace =
            |path: &str| request(&["dev", "-w", path], directory.path()).map(|request| request.workspace);
        assert_eq!(workspace("."), Ok(Some(real.to_str().unwrap().to_owned())));
        insta::assert_snapshot!(workspace("./missing").unwrap_err(), @"the workspace ./missing is not a directory that is there (-w takes a directory of the host; a volume is given with -v)");
    }
}
