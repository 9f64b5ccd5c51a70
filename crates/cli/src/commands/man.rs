use std::fs;
use std::path::PathBuf;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use serde_json::json;

use crate::context::Context;
use crate::error::CliError;

/// Print the manual page
///
/// With --directory the pages of all commands are written, such as berthold-start.1.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold man | man -l -
  berthold man --directory ~/.local/share/man/man1")]
pub(crate) struct Arguments {
    /// Where to write the pages of all commands
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let output = &context.output;
    let mut command = crate::arguments::Arguments::command();
    command.build();
    let Some(directory) = &arguments.directory else {
        let page = page(command)?;
        return match output.is_json() {
            true => output.document(&json!({ "man": page })),
            false => output.print(page.trim_end()),
        };
    };
    let failed = |source| CliError::io(format!("{} cannot be written", directory.display()), source);
    fs::create_dir_all(directory).map_err(failed)?;
    let mut files = Vec::new();
    for (name, page) in pages(command, "berthold")? {
        let file = directory.join(format!("{name}.1"));
        fs::write(&file, page).map_err(failed)?;
        files.push(file);
    }
    match output.is_json() {
        true => output.document(&json!({ "files": files })),
        false => {
            output.print(&files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join("\n"))
        }
    }
}

/// The pages of a command and of those below it, by name.
fn pages(command: Command, name: &str) -> Result<Vec<(String, String)>, CliError> {
    let mut pages = Vec::new();
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages.extend(pages_below(below, name)?);
    }
    pages.insert(0, (name.to_owned(), page(command)?));
    Ok(pages)
}

fn pages_below(command: &Command, above: &str) -> Result<Vec<(String, String)>, CliError> {
    let name = format!("{above}-{}", command.get_name());
    pages(command.clone().name(name.clone()), &name)
}

fn page(command: Command) -> Result<String, CliError> {
    let mut page = Vec::new();
    Man::new(command)
        .render(&mut page)
        .map_err(|source| CliError::io("the manual cannot be written", source))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let mut command = crate::arguments::Arguments::command();
        command.build();
        let pages = pages(command, "berthold").unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.first(), Some(&"berthold"));
        assert!(names.contains(&"berthold-start") && names.contains(&"berthold-broker-stop"), "{names:?}");
        for (name, page) in &pages {
            assert!(page.contains(".SH NAME"), "{name} has no heading: {page}");
        }
    }
}
