use std::path::{Path, PathBuf};

use serde_json::json;

use crate::context::Context;
use crate::error::CliError;

/// Check and show the settings
///
/// They are read from the file of --settings or BERTHOLD_SETTINGS; without one, from settings.yaml in the directory of your
/// configuration and then in ./.berthold. Variables such as BERTHOLD_SERVER_BROKER_PORT_POOL_RANGE go before files.
#[derive(clap::Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Check the settings, and say which files were read
    ///
    /// The exit code is 2 if anything is wrong with them.
    Check,
    /// Show the settings as the broker would have them, with all defaults
    Show,
    /// Show the JSON Schema of settings.yaml
    Schema,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let output = &context.output;
    match arguments.action {
        Action::Schema => output.document(&settings::schema()),
        Action::Show => {
            let loaded = context.load_settings(Vec::new())?;
            match output.is_json() {
                true => output.document(&json!({ "settings": settings::to_json(&loaded.settings) })),
                false => output.print(settings::to_yaml(&loaded.settings).trim_end()),
            }
        }
        Action::Check => {
            let settings::Loaded { files, variables, .. } = context.load_settings(Vec::new())?;
            let result = json!({ "valid": true, "files": files, "variables": variables });
            match output.is_json() {
                true => output.document(&json!({ "settings": result })),
                false => {
                    let home = context.home()?;
                    let looked_for = [Some(home.settings()), home.project_settings()];
                    let looked_for = looked_for.into_iter().flatten().map(Path::to_owned).collect::<Vec<_>>();
                    output.print(&shown(&files, &variables, &looked_for))
                }
            }
        }
    }
}

fn shown(read: &[PathBuf], variables: &[String], looked_for: &[PathBuf]) -> String {
    let lines = |paths: &[PathBuf]| {
        paths.iter().map(|path| format!("  {}", path.display())).collect::<Vec<_>>().join("\n")
    };
    let mut text = match read {
        [] => format!("there is no settings file, so the defaults hold. Looked for\n{}", lines(looked_for)),
        read => format!("the settings are right. Read, the weakest first\n{}", lines(read)),
    };
    if !variables.is_empty() {
        text.push_str("\nOn top of that, these variables are in force\n  ");
        text.push_str(&variables.join("\n  "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_check_says() {
        let paths =
            ["/home/me/.config/berthold/settings.yaml".into(), "/work/.berthold/settings.yaml".into()];
        insta::assert_snapshot!(shown(&paths[..1], &[], &paths), @"
        the settings are right. Read, the weakest first
          /home/me/.config/berthold/settings.yaml
        ");
        insta::assert_snapshot!(shown(&[], &["BERTHOLD_SERVER_BROKER_PORT_POOL_RANGE".to_owned()], &paths), @"
        there is no settings file, so the defaults hold. Looked for
          /home/me/.config/berthold/settings.yaml
          /work/.berthold/settings.yaml
        On top of that, these variables are in force
          BERTHOLD_SERVER_BROKER_PORT_POOL_RANGE
        ");
    }
}
