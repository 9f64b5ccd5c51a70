use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use api::{Client, Holder, Lease, LeaseRequest};
use pool::environment::{LEASE_VARIABLE, PORT_PREFIX, URL_PREFIX, is_reserved};
use runtime::process::Identity;
use tokio::process::Command;

use crate::context::Context;
use crate::error::CliError;
use crate::job::Signals;
use crate::start_request::Surroundings;
use crate::{names, view};

/// Run a command in the foreground, with ports of its own
///
/// The command runs in your terminal and directory, with your variables and those of an agent. Its ports are leased for as long as it
/// runs, and given back when it has ended, with all that it started, even if `berthold run` itself is killed. The exit code is the
/// command's own, 128 and the number of the signal if one ended it.
///
/// With a NAME it gets the same ports again the next time, if they are free. Under one name there is one command at a time.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold run -- sh -c 'npx vite --port $AVAILABLE_LOCALHOST_PORT_A'
  berthold run web -n 1 -- npm run dev       with `env_aliases: { PORT: A }` in the settings
  berthold run tests -e CI=1 -- make test")]
pub(crate) struct Arguments {
    /// Whose lease it is, as NAME or PROJECT/NAME [one of its own]
    #[arg(add = crate::complete::owners())]
    name: Option<String>,
    /// How many ports it gets, if not the usual number
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(pool::label::LABEL_COUNT)))]
    ports: Option<u16>,
    /// A further variable; without a value, that of your own environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Do not say which ports it has
    #[arg(short, long)]
    quiet: bool,
    /// The command with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode, CliError> {
    let output = &context.output;
    if output.is_json() {
        return Err(CliError::usage("what a command prints is not one JSON document")
            .with_hint("leave out --json; `berthold leases --json` shows the ports while it runs"));
    }
    let typed = typed(&arguments.env, context)?;
    let key = match &arguments.name {
        Some(name) => context.owner(name)?,
        None => context.owner(&unheard_of()?)?,
    };
    let itself = Identity::current().map_err(|source| CliError::io("this process cannot be told", source))?;
    let command = view::command(&arguments.command);
    let client = context.client().await?;
    let request = LeaseRequest {
        ports: arguments.ports,
        holder: Some(holder(&itself, &command)),
        forget: arguments.name.is_none(),
        ..LeaseRequest::default()
    };
    let (lease, _) = client.lease(key.project.as_str(), key.name.as_str(), &request).await?;
    if !arguments.quiet {
        output.say(&shown(&lease));
    }
    let signals = Signals::listen().map_err(|source| CliError::io("signals cannot be passed on", source))?;
    let mut child = Command::new(&arguments.command[0]);
    child.args(&arguments.command[1..]).env_clear().envs(variables(std::env::vars_os(), &lease, &typed));
    let mut child = match child.spawn() {
        Ok(child) => child,
        Err(source) => {
            // Nothing was started, so nothing can have the ports.
            give_back(&client, &lease, true, context).await;
            let code = if source.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
            CliError::io(format!("{} cannot be run", arguments.command[0]), source).show(output);
            return Ok(code.into());
        }
    };
    let identity = child.id().map(Identity::of_child).transpose();
    let identity = identity.map_err(|source| CliError::io("the command cannot be told", source))?;
    let holder = identity.as_ref().map(|identity| holder(identity, &command));
    let (code, handed_over) = tokio::join!(
        signals.pass_on(&mut child, identity.as_ref()),
        hand_over(&client, &lease, holder.clone())
    );
    let code = code.map_err(|source| CliError::io("the command cannot be waited for", source))?;
    if !handed_over {
        // The lease would be given back only after the end of this process, with which it ends as yet.
        hand_over(&client, &lease, holder).await;
    }
    give_back(&client, &lease, false, context).await;
    Ok(code.into())
}

/// The variables that were typed; none of those that only the broker sets.
fn typed(env: &[String], context: &Context) -> Result<Vec<(String, String)>, CliError> {
    let variable = |name: &str| std::env::var(name).ok();
    let around = Surroundings { directory: context.directory(), variable: &variable };
    let typed = env.iter().map(|text| around.env(text)).collect::<Result<Vec<_>, _>>()?;
    match typed.iter().find(|(name, _)| is_reserved(name)) {
        Some((name, _)) => Err(CliError::usage(format!("the variable {name} is set by the broker alone"))),
        None => Ok(typed),
    }
}

/// A name that nobody has.
fn unheard_of() -> Result<String, CliError> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes)
        .map_err(|error| CliError::io("the system has no random numbers to offer", error.into()))?;
    Ok(format!("run-{:08x}", u32::from_be_bytes(bytes)))
}

fn holder(process: &Identity, command: &str) -> Holder {
    Holder {
        pid: process.pid(),
        start_time: process.start_time().to_owned(),
        boot_id: process.boot_id().to_owned(),
        command: command.to_owned(),
    }
}

/// One's own variables, less the ports of another lease in which this may run, then those of this lease and those that were typed.
fn variables(
    own: impl Iterator<Item = (OsString, OsString)>,
    lease: &Lease,
    typed: &[(String, String)],
) -> Vec<(OsString, OsString)> {
    let is_of_another = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with(PORT_PREFIX) || name.starts_with(URL_PREFIX)
    };
    let mark = (LEASE_VARIABLE.to_owned(), lease.id.clone());
    let told = lease.environment.clone().into_iter().chain(typed.iter().cloned()).chain([mark]);
    let told = told.map(|(name, value)| (name.into(), value.into()));
    own.filter(|(name, _)| !is_of_another(name)).chain(told).collect()
}

/// Binds the lease to the command in place of this process; whether that was done. Without it the lease ends all the same, only a
/// little later: see the broker's `holding`.
async fn hand_over(client: &Client, lease: &Lease, holder: Option<Holder>) -> bool {
    if holder.is_none() {
        return false;
    }
    let request = LeaseRequest { holder, lease: Some(lease.id.clone()), ..LeaseRequest::default() };
    let done = client.lease(&lease.project, &lease.name, &request).await;
    done.inspect_err(|error| tracing::debug!(%error, "the lease was not handed over to the command")).is_ok()
}

async fn give_back(client: &Client, lease: &Lease, force: bool, context: &Context) {
    if let Err(error) = client.release(&lease.project, &lease.name, Some(&lease.id), force).await {
        let error = CliError::from(error).body().message;
        context.output.warn(&format!("{error}; the broker takes the ports back once nobody has them"));
    }
}

fn shown(lease: &Lease) -> String {
    let mut lines =
        vec![format!("{} has these ports until it ends", names::shown(&lease.project, &lease.name))];
    lines.extend(view::labelled(&lease.ports, &lease.urls).into_iter().map(|line| format!("  {line}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples::lease;

    #[test]
    fn what_is_said_of_the_ports() {
        insta::assert_snapshot!(shown(&lease()), @"
        shop/db has these ports until it ends
          A  8000   http://localhost:8000
          B  8001   http://localhost:8001
        ");
    }

    #[test]
    fn the_ports_of_another_lease_are_not_passed_on() {
        let own =
            [("PATH", "/bin"), ("PORT", "1"), ("AVAILABLE_LOCALHOST_PORT_C", "9"), ("BERTHOLD_HOME", "/h")];
        let own = own.into_iter().map(|(name, value)| (name.into(), value.into()));
        let typed = [("MINE".to_owned(), "x=y".to_owned())];
        let mut variables: Vec<(OsString, OsString)> = variables(own, &lease(), &typed);
        // Of two with one name, the later one counts.
        variables.reverse();
        let value = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.to_string_lossy().into_owned())
        };
        assert_eq!(value("AVAILABLE_LOCALHOST_PORT_C"), None);
        assert_eq!(value("PORT").as_deref(), Some("8000"));
        assert_eq!(value("MINE").as_deref(), Some("x=y"));
        assert_eq!(value("BERTHOLD_HOME").as_deref(), Some("/h"));
        assert_eq!(value("BERTHOLD_LEASE").as_deref(), Some("01J"));
    }
}
