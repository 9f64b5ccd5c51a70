//! What can go wrong with a command, how it is shown, and with which code the process then ends.

use std::error::Error;
use std::io;

use api::{ClientError, Code, ErrorBody, ErrorDocument};
use jiff::Timestamp;
use owo_colors::OwoColorize;
use serde_json::{Map, Value, json};

use crate::age::age;
use crate::background::BackgroundError;
use crate::output::Output;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// What was typed is wrong.
    #[error("{message}")]
    Usage { message: String, hint: Option<String> },
    /// The settings are wrong.
    #[error(transparent)]
    Settings(#[from] settings::SettingsError),
    /// The broker could not be asked, or says no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No broker could be started in the background.
    #[error(transparent)]
    Background(#[from] BackgroundError),
    /// The broker in the foreground could not go on.
    #[error(transparent)]
    Serve(#[from] broker::ServeError),
    /// A file or a system call.
    #[error("{doing}")]
    Io { doing: String, source: io::Error },
    /// Anything else, with its code.
    #[error("{message}")]
    Failed { code: Code, message: String, hint: Option<String> },
    /// Some of several things that were to be done could not be done.
    #[error("{} of {} failed", errors.len(), errors.len() + done.len())]
    Several { errors: Vec<CliError>, done: Vec<api::Agent> },
    /// Whoever read standard output has gone away.
    #[error("standard output is closed")]
    BrokenPipe,
}

impl CliError {
    /// What was typed is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: None }
    }

    /// A failure of that code.
    pub(crate) fn failed(code: Code, message: impl Into<String>) -> Self {
        Self::Failed { code, message: message.into(), hint: None }
    }

    /// A failure of the system while `doing` something.
    pub(crate) fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io { doing: doing.into(), source }
    }

    /// The same with what to do next, for the kinds that have no hint of their own.
    #[must_use]
    pub(crate) fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Usage { hint, .. } | Self::Failed { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// Standard output could not be written.
    pub(crate) fn from_output(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::io("standard output cannot be written", source),
        }
    }

    /// The stable code.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Usage { .. } => Code::InvalidRequest,
            Self::Settings(_) => Code::InvalidSettings,
            Self::Client(error) => error.code(),
            Self::Background(error) => error.code(),
            Self::Serve(error) => error.code(),
            Self::Failed { code, .. } => *code,
            Self::Io { .. } | Self::BrokenPipe => Code::Failed,
            Self::Several { errors, .. } => {
                let mut codes = errors.iter().map(Self::code);
                let first = codes.next().unwrap_or(Code::Failed);
                if codes.all(|code| code == first) { first } else { Code::Failed }
            }
        }
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            _ => exit_code(self.code()),
        }
    }

    /// The error in the form of `--json`.
    pub(crate) fn body(&self) -> ErrorBody {
        ErrorBody { code: self.code(), message: chain(self), hint: self.hint(), details: self.details() }
    }

    /// Shows it: as one document on standard output with `--json`, else as lines on standard error.
    pub(crate) fn show(&self, output: &Output) {
        if matches!(self, Self::BrokenPipe) {
            return;
        }
        if output.is_json() {
            // Who has gone away does not want to know.
            drop(output.document(&ErrorDocument { error: self.body() }));
            return;
        }
        match self {
            Self::Several { errors, .. } => errors.iter().for_each(|error| error.show(output)),
            _ => output.say(&text(&self.body(), Timestamp::now())),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } | Self::Failed { hint, .. } => hint.clone(),
            Self::Settings(error) => error.hint(),
            Self::Client(error) => error.hint(),
            Self::Background(error) => error.hint(),
            Self::Serve(error) => error.hint(),
            Self::Several { errors, .. } => errors.iter().find_map(Self::hint),
            Self::Io { .. } | Self::BrokenPipe => None,
        }
    }

    fn details(&self) -> Map<String, Value> {
        let details = match self {
            Self::Client(ClientError::Problem(problem)) => return problem.details.clone(),
            Self::Background(error) => json!({ "log": error.log() }),
            Self::Several { errors, done } => {
                let errors: Vec<ErrorBody> = errors.iter().map(Self::body).collect();
                json!({ "errors": errors, "agents": done })
            }
            _ => return Map::new(),
        };
        match details {
            Value::Object(details) => details,
            _ => Map::new(),
        }
    }
}

/// The exit code that goes with a code.
fn exit_code(code: Code) -> u8 {
    match code {
        Code::InvalidRequest | Code::InvalidSettings | Code::Unsupported => 2,
        Code::NoSuchAgent | Code::NoSuchLease => 3,
        Code::PoolExhausted => 4,
        Code::BrokerUnreachable => 5,
        Code::RuntimeUnreachable | Code::RuntimeFailed => 6,
        Code::Conflict => 7,
        Code::Unauthorized | Code::Forbidden => 8,
        Code::StartFailed
        | Code::NotFound
        | Code::NotRunning
        | Code::LedgerFailed
        | Code::ShuttingDown
        | Code::Failed => 1,
    }
}

/// The error for a person: what happened, what there is to see, what to do next.
fn text(error: &ErrorBody, now: Timestamp) -> String {
    let mut lines = vec![format!("{} {}", "error:".red().bold(), error.message)];
    for holder in error.details.get("holders").and_then(Value::as_array).into_iter().flatten() {
        lines.extend(holder_line(holder, now));
    }
    for line in error.details.get("log").and_then(Value::as_array).into_iter().flatten() {
        lines.push(format!("  | {}", line.as_str().unwrap_or_default()));
    }
    if let Some(hint) = &error.hint {
        lines.push(format!("{} {hint}", "hint:".cyan().bold()));
    }
    lines.join("\n")
}

fn holder_line(holder: &Value, now: Timestamp) -> Option<String> {
    let owner = holder.get("owner")?.as_str()?;
    let ports: Vec<String> = holder.get("ports")?.as_array()?.iter().map(ToString::to_string).collect();
    let since =
        holder.get("since").and_then(Value::as_str).map(|since| format!(", since {}", age(since, now)));
    Some(format!("  {owner} has {}{}", ports.join(", "), since.unwrap_or_default()))
}

/// An error with all its causes, each said once.
fn chain(error: &CliError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use api::{Endpoint, Problem};

    use super::*;
    use crate::output::captured::Captured;
    use crate::view::samples::{now, running};

    fn problem(code: Code, detail: &str, hint: Option<&str>, details: Value) -> CliError {
        let Value::Object(details) = details else { panic!("details are an object") };
        let hint = hint.map(str::to_owned);
        let (kind, title) = ("about:blank".to_owned(), String::new());
        let problem =
            Problem { kind, title, status: code.status(), detail: detail.to_owned(), code, hint, details };
        ClientError::Problem(Box::new(problem)).into()
    }

    fn shown(error: &CliError) -> String {
        anstream::adapter::strip_str(&text(&error.body(), now())).to_string()
    }

    #[test]
    fn every_code_has_its_exit_code() {
        let table = [
            (Code::InvalidRequest, 2),
            (Code::InvalidSettings, 2),
            (Code::Unsupported, 2),
            (Code::NoSuchAgent, 3),
            (Code::NoSuchLease, 3),
            (Code::PoolExhausted, 4),
            (Code::BrokerUnreachable, 5),
            (Code::RuntimeUnreachable, 6),
            (Code::RuntimeFailed, 6),
            (Code::Conflict, 7),
            (Code::Unauthorized, 8),
            (Code::Forbidden, 8),
            (Code::NotFound, 1),
            (Code::StartFailed, 1),
            (Code::NotRunning, 1),
            (Code::LedgerFailed, 1),
            (Code::ShuttingDown, 1),
            (Code::Failed, 1),
        ];
        for (code, expected) in table {
            assert_eq!(exit_code(code), expected, "{}", code.as_str());
        }
        assert_eq!(CliError::usage("x").exit_code(), 2);
        assert_eq!(CliError::BrokenPipe.exit_code(), 0);
    }

    #[test]
    fn exhaustion_names_who_holds_the_ports() {
        let holders = json!([
            { "owner": "default/web", "ports": [8000, 8001], "since": "2026-11-23T07:00:00Z" },
            { "owner": "shop/db", "ports": [8002], "since": "2026-11-23T09:03:00Z" },
        ]);
        let error = problem(
            Code::PoolExhausted,
            "no ports for default/dev: 2 were asked for and 0 of 3 are free",
            Some("stop an agent that is no longer needed, such as `berthold stop web`"),
            json!({ "holders": holders }),
        );
        assert_eq!(error.exit_code(), 4);
        insta::assert_snapshot!(shown(&error), @"
        error: no ports for default/dev: 2 were asked for and 0 of 3 are free
          default/web has 8000, 8001, since 2h
          shop/db has 8002, since 20s
        hint: stop an agent that is no longer needed, such as `berthold stop web`
        ");
    }

    #[test]
    fn a_failed_start_shows_the_last_lines_of_the_log() {
        let log = json!({ "log": ["> vite", "Error: no such module"], "exit_code": 1 });
        let error = problem(
            Code::StartFailed,
            "the agent default/dev did not start: it ended with code 1",
            None,
            log,
        );
        insta::assert_snapshot!(shown(&error), @"
        error: the agent default/dev did not start: it ended with code 1
          | > vite
          | Error: no such module
        ");
    }

    #[test]
    fn causes_are_said_once_and_hints_apart() {
        let source = io::Error::from(io::ErrorKind::ConnectionRefused);
        let endpoint = Endpoint::Unix("/h/broker.sock".into());
        insta::assert_snapshot!(shown(&ClientError::Unreachable { endpoint, source }.into()), @"
        error: no broker answers at /h/broker.sock: connection refused
        hint: start one with `berthold serve`
        ");
        let source = io::Error::other("the disk is full");
        insta::assert_snapshot!(shown(&CliError::io("the manual cannot be written", source)), @"error: the manual cannot be written: the disk is full");
        insta::assert_snapshot!(shown(&CliError::usage("wrong").with_hint("do it right")), @"
        error: wrong
        hint: do it right
        ");
    }

    #[test]
    fn with_json_an_error_is_a_document_on_standard_output() {
        let (output, captured) = Captured::new(true);
        CliError::failed(Code::NotRunning, "dev is stopped").with_hint("start it").show(&output);
        assert_eq!(captured.messages(), "");
        insta::assert_snapshot!(captured.results(), @r#"
        {
          "error": {
            "code": "not_running",
            "message": "dev is stopped",
            "hint": "start it",
            "details": {}
          }
        }
        "#);
    }

    #[test]
    fn several_errors_are_shown_one_by_one_and_are_one_document() {
        let unreachable =
            || problem(Code::RuntimeUnreachable, "docker does not answer", Some("start it"), json!({}));
        let errors = || vec![unreachable(), CliError::failed(Code::Failed, "something else")];
        let several = CliError::Several { errors: errors(), done: vec![running()] };
        assert_eq!(several.exit_code(), 1);
        let alike = CliError::Several { errors: vec![unreachable(), unreachable()], done: Vec::new() };
        assert_eq!(alike.exit_code(), 6);
        let (output, captured) = Captured::new(false);
        several.show(&output);
        insta::assert_snapshot!(captured.messages(), @"
        error: docker does not answer
        hint: start it
        error: something else
        ");
        let body = serde_json::to_value(several.body()).unwrap();
        assert_eq!(body["message"], "2 of 3 failed");
        assert_eq!(body["details"]["errors"][0]["code"], "runtime_unreachable");
        assert_eq!(body["details"]["agents"][0]["name"], "dev");
    }
}
