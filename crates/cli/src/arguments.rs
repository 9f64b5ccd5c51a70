//! The command line as it is typed.

use std::ffi::OsString;
use std::path::PathBuf;

use anstream::ColorChoice;
use api::{Code, ErrorBody, ErrorDocument};
use clap::builder::styling::{AnsiColor, Styles};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};

use crate::commands::Command;
use crate::duration;
use crate::output::Output;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Runs coding agents in containers and gives each one its own host ports.
///
/// A broker in the background holds a pool of host ports. Each agent that you start gets a few of them, which no other agent has,
/// and is told them in $AVAILABLE_LOCALHOST_PORT_A, _B and so on. Inside and outside the container the numbers are the same.
#[derive(Parser, Debug)]
#[command(
    name = "berthold",
    version,
    styles = STYLES,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  berthold demo                                       see it at work
  berthold start dev --image node:22 -- npm run dev   start an agent
  berthold list                                       agents with their ports
  berthold ports                                      who has which port

Exit codes:
  0 done, 1 failed, 2 wrong usage or settings, 3 no such agent, 4 pool exhausted,
  5 broker unreachable, 6 runtime failed or unreachable, 7 conflict, 8 not allowed"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Print one JSON document, also for an error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The project of the agents
    #[arg(long, global = true, value_name = "NAME", env = "BERTHOLD_PROJECT", hide_env_values = true)]
    pub(crate) project: Option<String>,
    /// The broker to ask, by its URL or the path of its socket
    #[arg(long, global = true, value_name = "URL|PATH", env = "BERTHOLD_BROKER", hide_env_values = true)]
    pub(crate) broker: Option<String>,
    /// The settings to read in place of the usual files
    #[arg(long, global = true, value_name = "FILE", env = "BERTHOLD_SETTINGS", hide_env_values = true)]
    pub(crate) settings: Option<PathBuf>,
    /// Log what is done to standard error
    #[arg(long, global = true)]
    pub(crate) verbose: bool,
    /// When to use colours: auto, always or never
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub(crate) color: Color,
}

/// When colours are used.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl From<Color> for ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

/// A command line that was answered already: with help, a version, or what is wrong with it.
pub(crate) struct Answered {
    /// The exit code of the process.
    pub(crate) exit_code: u8,
}

/// Reads the command line; what is no command is answered.
pub(crate) fn parse(typed: impl IntoIterator<Item = OsString>) -> Result<Arguments, Answered> {
    let typed: Vec<OsString> = typed.into_iter().collect();
    let parsed = Arguments::command()
        .try_get_matches_from(&typed)
        .and_then(|matches| Arguments::from_arg_matches(&matches));
    parsed.map_err(|mut error| {
        if let Some(tip) = tip(&error, &typed) {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
        let exit_code = u8::try_from(error.exit_code()).unwrap_or(2);
        if error.use_stderr() && asks_for_json(&typed) {
            let output = Output::standard(true, ColorChoice::Never);
            // Who has gone away does not want to know.
            drop(output.document(&ErrorDocument { error: usage_error(&error) }));
        } else {
            drop(error.print());
        }
        Answered { exit_code }
    })
}

/// What to say of a word that stands where it is not expected, as it may with Docker.
fn tip(error: &clap::Error, typed: &[OsString]) -> Option<String> {
    let words: Vec<&str> = typed.iter().skip(1).map(|word| word.to_str().unwrap_or_default()).collect();
    if words.contains(&"--") {
        return None;
    }
    let mut command = Arguments::command();
    command.build();
    let (name, rest) = first_word(&command, &words)?;
    let command = command.find_subcommand(name)?;
    let stray = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) if error.kind() == ErrorKind::UnknownArgument => word.as_str(),
        // What was taken for the name of its lease is the command.
        _ if error.kind() == ErrorKind::MissingRequiredArgument && name == "run" => {
            first_word(command, rest)?.0
        }
        _ => return None,
    };
    let is_duration = duration::parse(stray).is_ok() && rest.windows(2).any(|pair| pair == ["--wait", stray]);
    if is_duration && command.get_arguments().any(|argument| argument.get_long() == Some("wait")) {
        return Some(format!("write `--wait={stray}`"));
    }
    let takes_command = ["start", "exec", "run"].contains(&name) && !stray.starts_with('-');
    let before = if error.kind() == ErrorKind::UnknownArgument { " …" } else { "" };
    takes_command.then(|| format!("put `--` before the command: `berthold {name}{before} -- {stray} …`"))
}

/// The first word that is neither a flag of `command` nor the value of one, and what follows it.
fn first_word<'a, 'b>(command: &clap::Command, words: &'b [&'a str]) -> Option<(&'a str, &'b [&'a str])> {
    let mut rest = words;
    while let [word, following @ ..] = rest {
        let takes_next = match word.strip_prefix('-') {
            None => return Some((word, following)),
            Some(flag) => takes_next(command, flag),
        };
        rest = if takes_next { following.get(1..)? } else { following };
    }
    None
}

/// Whether the word after the flag, which is without its first dash, is the flag's value.
fn takes_next(command: &clap::Command, flag: &str) -> bool {
    let takes_value =
        |argument: &clap::Arg| argument.get_action().takes_values() && !argument.is_require_equals_set();
    if let Some(long) = flag.strip_prefix('-') {
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(long));
        return argument.is_some_and(takes_value);
    }
    // In several short flags at once, a value ends them: it is what is left of the word, or else the next one.
    let mut letters = flag.chars();
    let value = letters.find(|letter| {
        let argument = command.get_arguments().find(|argument| argument.get_short() == Some(*letter));
        argument.is_some_and(takes_value)
    });
    value.is_some() && letters.as_str().is_empty()
}

/// Whether `--json` was typed, in a command line that could not be read.
fn asks_for_json(typed: &[OsString]) -> bool {
    typed.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json")
}

/// clap's words for what is wrong, sorted into message and hint.
fn usage_error(error: &clap::Error) -> ErrorBody {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        let lines = paragraph.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join(" ")
    });
    let message = paragraphs.next().unwrap_or_default();
    let hint = paragraphs.find_map(|paragraph| paragraph.strip_prefix("tip: ").map(str::to_owned));
    ErrorBody {
        code: Code::InvalidRequest,
        message: message.strip_prefix("error: ").unwrap_or(&message).to_owned(),
        hint: hint.or_else(|| Some("`berthold --help` shows what can be typed".to_owned())),
        details: serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(["berthold"].into_iter().chain(words.split_whitespace()))
    }

    fn tipped(words: &str) -> Option<String> {
        let typed: Vec<OsString> =
            ["berthold"].into_iter().chain(words.split(' ')).map(OsString::from).collect();
        tip(&Arguments::try_parse_from(&typed).expect_err("the words are wrong"), &typed)
    }

    fn refused(words: &str) -> String {
        let body = usage_error(&parsed(words).expect_err("the words are wrong"));
        format!("{} ({})", body.message, body.hint.unwrap_or_default())
    }

    fn help(command: &mut clap::Command, path: &str, into: &mut String) {
        let is_first = into.is_empty();
        // What every command takes is shown once.
        let shown = command.clone().mut_args(|argument| match argument.is_global_set() && !is_first {
            true => argument.hide(true),
            false => argument,
        });
        into.push_str(&format!("$ {path} --help\n{}\n", shown.clone().render_long_help()));
        for below in command.get_subcommands_mut().filter(|it| !it.is_hide_set() && it.get_name() != "help") {
            let path = format!("{path} {}", below.get_name());
            help(below, &path, into);
        }
    }

    #[test]
    fn the_help_of_every_command() {
        let mut command = Arguments::command().term_width(100);
        command.build();
        command.clone().debug_assert();
        let mut all = String::new();
        help(&mut command, "berthold", &mut all);
        insta::assert_snapshot!("help", all);
    }

    #[test]
    fn global_flags_stand_before_and_after_the_command() {
        let before = parsed("--json --project shop list").unwrap();
        let after = parsed("list --json --project shop").unwrap();
        for arguments in [before, after] {
            assert!(arguments.global.json);
            assert_eq!(arguments.global.project.as_deref(), Some("shop"));
        }
    }

    #[test]
    fn wrong_usage_is_told_apart_into_message_and_hint() {
        insta::assert_snapshot!(refused("lst"), @"unrecognized subcommand 'lst' (some similar subcommands exist: 'stop', 'ls', 'list')");
        insta::assert_snapshot!(refused("list --al"), @"unexpected argument '--al' found (a similar argument exists: '--all-projects')");
        insta::assert_snapshot!(refused("show"), @"the following required arguments were not provided: <NAME> (`berthold --help` shows what can be typed)");
        insta::assert_snapshot!(refused("stop"), @"the following required arguments were not provided: <NAME>... (`berthold --help` shows what can be typed)");
        insta::assert_snapshot!(refused("stop dev --all"), @"the argument '[NAME]...' cannot be used with '--all' (`berthold --help` shows what can be typed)");
        insta::assert_snapshot!(refused("run dev ls"), @"unexpected argument 'ls' found (`berthold --help` shows what can be typed)");
        insta::assert_snapshot!(refused("exec dev ls"), @"unexpected argument 'ls' found (`berthold --help` shows what can be typed)");
        insta::assert_snapshot!(refused("logs dev -n -1"), @"invalid value '-1' for '--tail <N>': a number of lines is written like 20, or `all` (`berthold --help` shows what can be typed)");
        insta::assert_snapshot!(refused("start dev --wait=soon"), @"invalid value 'soon' for '--wait[=<DURATION>]': a duration is written like 30s, 1m30s or 500ms (`berthold --help` shows what can be typed)");
    }

    #[test]
    fn a_word_that_stands_where_it_is_not_expected_is_told_its_place() {
        let dashes = |shown: &str| Some(format!("put `--` before the command: `berthold {shown} …`"));
        assert_eq!(tipped("start dev --image i npm run"), dashes("start … -- npm"));
        assert_eq!(tipped("--project start --json exec -it dev ls"), dashes("exec … -- ls"));
        assert_eq!(tipped("run dev ls"), dashes("run … -- ls"));
        assert_eq!(tipped("run ls"), dashes("run -- ls"));
        assert_eq!(tipped("run -n 2 -qeA=1 -e B ls"), dashes("run -- ls"));
        assert_eq!(tipped("start dev --image i --wait npm"), dashes("start … -- npm"));
        for command in ["start dev --image i", "restart dev"] {
            assert_eq!(tipped(&format!("{command} --wait 5s")), Some("write `--wait=5s`".to_owned()));
        }
        for words in [
            "lease run 3",
            "show start x",
            "--project run show dev x",
            "start dev --imag i",
            "run",
            "exec dev",
            "run dev --",
        ] {
            assert_eq!(tipped(words), None, "{words}");
        }
    }

    #[test]
    fn json_is_heeded_only_where_it_is_a_flag_of_ours() {
        let typed = |words: &str| words.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(asks_for_json(&typed("berthold --json lst")));
        assert!(!asks_for_json(&typed("berthold exec dev -- tool --json")));
    }
}
