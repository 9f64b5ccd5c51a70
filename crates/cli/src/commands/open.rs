use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use api::{Agent, AgentState, Code, Label};
use serde_json::json;

use crate::context::Context;
use crate::error::CliError;
use crate::view;

/// Open an agent's URL in the browser, or the broker's own page
///
/// Prints the URL, and opens it where there is a browser. Without a name it is that of the page of all agents and ports; it lets one
/// browser in, once, within a minute.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold open
  berthold open dev
  berthold open dev B --print
  berthold open dev --preview")]
pub(crate) struct Arguments {
    /// The agent, as NAME or PROJECT/NAME
    #[arg(add = crate::complete::agents())]
    name: Option<String>,
    /// The label of the port
    #[arg(default_value = "A")]
    label: String,
    /// The URL of the port's preview, through the broker: http://a.dev.localhost:9800
    #[arg(long, requires = "name")]
    preview: bool,
    /// Only print the URL
    #[arg(long)]
    print: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let Some(name) = &arguments.name else {
        let session = context.client().await?.session().await?;
        return shown(&session.url, context, |url| {
            if !arguments.print {
                browse_unseen(url, context);
            }
        });
    };
    let key = context.agent(name)?;
    let agent = context.client().await?.agent(key.project.as_str(), key.name.as_str()).await?;
    let url =
        if arguments.preview { preview(&agent, &arguments.label) } else { url(&agent, &arguments.label) };
    shown(url?, context, |url| {
        if !arguments.print {
            browse(OsStr::new(url));
        }
    })
}

fn shown(url: &str, context: &Context, then: impl FnOnce(&str)) -> Result<(), CliError> {
    match context.output.is_json() {
        true => context.output.document(&json!({ "url": url }))?,
        false => context.output.print(url)?,
    }
    then(url);
    Ok(())
}

/// Opens a URL that lets one in. Every user of the host sees what programs are started with (proc(5), `/proc/PID/cmdline`), so it is
/// handed over in a file that only this one can read.
fn browse_unseen(url: &str, context: &Context) {
    if opener().is_none() {
        return;
    }
    let handed = context.home().map_err(|error| error.body().message).and_then(|home| {
        let path = home.state().join("open.html");
        home.make().map_err(|error| error.to_string())?;
        // One of an earlier time may be there, whose link has been used or is too old.
        drop(fs::remove_file(&path));
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(redirection(url).as_bytes()));
        written.map(|()| path).map_err(|error| error.to_string())
    });
    match handed {
        Ok(path) => browse(path.as_os_str()),
        Err(error) => context.output.warn(&format!("no browser was opened ({error}): open the URL above")),
    }
}

/// A page that leads on to `url`.
fn redirection(url: &str) -> String {
    let url = url.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    format!(
        "<!doctype html><meta charset=\"utf-8\"><meta name=\"referrer\" content=\"no-referrer\">\
         <meta http-equiv=\"refresh\" content=\"0; url={url}\"><title>Berthold</title><a href=\"{url}\">Berthold</a>\n"
    )
}

fn url<'a>(agent: &'a Agent, label: &str) -> Result<&'a str, CliError> {
    let none = ("ports that can be reached", "`berthold ports` says whether there is a pool");
    of_port(agent, label, &agent.urls, none)
}

fn preview<'a>(agent: &'a Agent, label: &str) -> Result<&'a str, CliError> {
    let hint = "they need ports, and a broker that listens: `berthold broker status` says where";
    of_port(agent, label, &agent.previews, ("previews", hint))
}

fn of_port<'a>(
    agent: &Agent,
    label: &str,
    urls: &'a BTreeMap<Label, String>,
    (what, hint): (&str, &str),
) -> Result<&'a str, CliError> {
    if let Some(url) = urls.get(&Label(label.to_uppercase())) {
        return Ok(url);
    }
    let name = view::name(agent);
    if agent.state != AgentState::Running {
        let problem =
            CliError::failed(Code::NotRunning, format!("{name} is {}, so it has no URL", view::state(agent)));
        return Err(problem.with_hint(format!("start it with `berthold start {name}`")));
    }
    if urls.is_empty() {
        return Err(CliError::failed(Code::Failed, format!("{name} has no {what}")).with_hint(hint));
    }
    let labels: Vec<String> = urls.keys().map(Label::to_string).collect();
    Err(CliError::usage(format!("{name} has no port {label}"))
        .with_hint(format!("it has {}", labels.join(", "))))
}

/// Opens a URL or a page if there is something to open it with; the URL was printed in any case.
fn browse(what: &OsStr) {
    let Some(opener) = opener() else { return };
    let mut command = Command::new(opener);
    drop(command.arg(what).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn());
}

/// What opens things for a person, where there is a display.
fn opener() -> Option<&'static str> {
    let has_display =
        ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|variable| std::env::var_os(variable).is_some());
    match cfg!(target_os = "macos") {
        true => Some("open"),
        false => has_display.then_some("xdg-open"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples::{exited, running};

    fn check(agent: &Agent, label: &str) -> String {
        said(url(agent, label))
    }

    fn said(url: Result<&str, CliError>) -> String {
        match url {
            Ok(url) => url.to_owned(),
            Err(error) => {
                let body = error.body();
                format!("{}: {} ({})", body.code.as_str(), body.message, body.hint.unwrap_or_default())
            }
        }
    }

    #[test]
    fn a_url_or_why_there_is_none() {
        let unpublished = Agent { urls: BTreeMap::new(), previews: BTreeMap::new(), ..running() };
        insta::assert_snapshot!(check(&running(), "b"), @"http://localhost:8001");
        insta::assert_snapshot!(check(&running(), "C"), @"invalid_request: dev has no port C (it has A, B)");
        insta::assert_snapshot!(check(&exited(), "A"), @"not_running: shop/tests is exited (2), so it has no URL (start it with `berthold start shop/tests`)");
        insta::assert_snapshot!(said(preview(&running(), "b")), @"http://b.dev.localhost:9800");
        insta::assert_snapshot!(said(preview(&running(), "C")), @"invalid_request: dev has no port C (it has A, B)");
        insta::assert_snapshot!(said(preview(&unpublished, "A")), @"failed: dev has no previews (they need ports, and a broker that listens: `berthold broker status` says where)");
        insta::assert_snapshot!(check(&unpublished, "A"), @"failed: dev has no ports that can be reached (`berthold ports` says whether there is a pool)");
    }
}
