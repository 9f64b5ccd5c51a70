//! Names as they are typed: `dev`, or `shop/dev` for the agent of another project.

use pool::{AgentKey, Name, NameError};

use crate::error::CliError;

/// The project that is meant by `--project TEXT`; the default one by nothing.
pub(crate) fn project(typed: Option<&str>) -> Result<Name, CliError> {
    match typed {
        // An empty variable is one that is not set.
        None | Some("") => Ok(Name::default()),
        Some(text) => Name::new(text).map_err(|error| wrong("project", "", &error)),
    }
}

/// The agent that is meant by `typed` in `project`.
pub(crate) fn agent(project: &Name, typed: &str) -> Result<AgentKey, CliError> {
    named("agent", project, typed)
}

/// The owner of a bare lease that is meant by `typed` in `project`.
pub(crate) fn owner(project: &Name, typed: &str) -> Result<AgentKey, CliError> {
    named("owner", project, typed)
}

fn named(what: &str, project: &Name, typed: &str) -> Result<AgentKey, CliError> {
    let (project, name) = match typed.split_once('/') {
        None => (project.clone(), typed),
        Some((project, name)) => (Name::new(project).map_err(|error| wrong("project", "", &error))?, name),
    };
    let prefix = &typed[..typed.len() - name.len()];
    let name = Name::new(name).map_err(|error| wrong(what, prefix, &error))?;
    Ok(AgentKey::new(project, name))
}

/// An agent as a person would type it.
pub(crate) fn shown(project: &str, name: &str) -> String {
    if project == Name::default().as_str() { name.to_owned() } else { format!("{project}/{name}") }
}

fn wrong(what: &str, prefix: &str, error: &NameError) -> CliError {
    let usage = CliError::usage(format!("wrong name of {what}: {error}"));
    match &error.suggestion {
        Some(suggestion) => usage.with_hint(format!("did you mean `{prefix}{suggestion}`?")),
        None => usage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(typed: &str, expected: &str) {
        let shown = match agent(&Name::new("shop").unwrap(), typed) {
            Ok(key) => key.to_string(),
            Err(error) => error.body().hint.unwrap_or_else(|| "no hint".to_owned()),
        };
        assert_eq!(shown, expected, "{typed}");
    }

    #[test]
    fn agents_of_this_project_and_of_others() {
        check("dev", "shop/dev");
        check("default/dev", "default/dev");
        check("My_Dev", "did you mean `my-dev`?");
        check("default/Dev", "did you mean `default/dev`?");
        check("UP/dev", "did you mean `up`?");
        check("a/b/c", "did you mean `a/b-c`?");
        check("", "no hint");
    }

    #[test]
    fn the_project_may_be_unset_or_empty() {
        assert_eq!(project(None).unwrap(), Name::default());
        assert_eq!(project(Some("")).unwrap(), Name::default());
        assert_eq!(project(Some("My Shop")).unwrap_err().exit_code(), 2);
        assert_eq!(shown("default", "dev"), "dev");
        assert_eq!(shown("shop", "dev"), "shop/dev");
    }
}
