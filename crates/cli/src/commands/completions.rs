use clap_complete::Shell;
use clap_complete::env::Shells;
use serde_json::json;

use crate::complete;
use crate::context::Context;
use crate::error::CliError;

/// Print the completions for a shell
///
/// They complete commands and flags, and the names of agents as the broker knows them at that moment.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  source <(berthold completions bash)       in ~/.bashrc
  source <(berthold completions zsh)        in ~/.zshrc
  berthold completions fish | source        in ~/.config/fish/config.fish")]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let script = script(arguments.shell)?;
    match context.output.is_json() {
        true => context.output.document(&json!({ "completions": script })),
        false => context.output.print(script.trim_end()),
    }
}

fn script(shell: Shell) -> Result<String, CliError> {
    let shells = Shells::builtins();
    let completer = shells.completer(&shell.to_string()).ok_or_else(|| {
        CliError::usage(format!("there are no completions for {shell}"))
            .with_hint(format!("there are some for {}", shells.names().collect::<Vec<_>>().join(", ")))
    })?;
    let mut script = Vec::new();
    completer
        .write_registration(complete::VARIABLE, "berthold", "berthold", "berthold", &mut script)
        .map_err(|source| CliError::io("the completions cannot be written", source))?;
    Ok(String::from_utf8_lossy(&script).into_owned())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_that_can_be_typed_has_completions() {
        for shell in Shell::value_variants() {
            let script = script(*shell).unwrap();
            assert!(script.contains("berthold") && script.contains(complete::VARIABLE), "{shell}: {script}");
        }
    }
}
