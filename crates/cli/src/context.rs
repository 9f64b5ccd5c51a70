//! What every command works with: the output, the project, and the way to the broker.

use std::env;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{Client, ClientError, Endpoint};
use broker::Home;
use pool::{AgentKey, Name};

use crate::arguments::Global;
use crate::background;
use crate::error::CliError;
use crate::names;
use crate::output::Output;

/// What every command works with.
pub(crate) struct Context {
    /// Where it writes.
    pub(crate) output: Arc<Output>,
    /// The project of agents for which no other is typed.
    pub(crate) project: Name,
    /// The broker that was typed, if any.
    broker: Option<Endpoint>,
    settings_file: Option<PathBuf>,
    directory: PathBuf,
}

impl Context {
    /// Makes sense of what was typed.
    pub(crate) fn new(output: Arc<Output>, global: &Global) -> Result<Self, CliError> {
        let directory = env::current_dir()
            .map_err(|source| CliError::io("the working directory cannot be told", source))?;
        let settings_file = global.settings.as_ref().filter(|path| !path.as_os_str().is_empty());
        Ok(Self {
            output,
            project: names::project(global.project.as_deref())?,
            broker: global.broker.as_deref().filter(|text| !text.is_empty()).map(endpoint).transpose()?,
            // A broker that is started with it works elsewhere.
            settings_file: settings_file.map(|path| directory.join(path)),
            directory,
        })
    }

    /// The agent that is meant by `typed`.
    pub(crate) fn agent(&self, typed: &str) -> Result<AgentKey, CliError> {
        names::agent(&self.project, typed)
    }

    /// The owner of a bare lease that is meant by `typed`.
    pub(crate) fn owner(&self, typed: &str) -> Result<AgentKey, CliError> {
        names::owner(&self.project, typed)
    }

    /// Where the command was started.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The settings file that was typed, if any.
    pub(crate) fn settings_file(&self) -> Option<&Path> {
        self.settings_file.as_deref()
    }

    /// Whether another broker than that of the home was asked for.
    pub(crate) fn names_a_broker(&self) -> bool {
        self.broker.is_some()
    }

    /// The home that the environment names.
    pub(crate) fn home(&self) -> Result<Home, CliError> {
        Home::find(|variable| env::var_os(variable), &self.directory)
            .map_err(|error| CliError::usage(error.to_string()).with_hint("set HOME, or BERTHOLD_HOME=DIR"))
    }

    /// The settings, with what was typed (by the path of the key) on top.
    pub(crate) fn load_settings(
        &self,
        overrides: Vec<(String, String)>,
    ) -> Result<settings::Loaded, CliError> {
        let home = self.home()?;
        let sources = settings::Sources {
            explicit: self.settings_file.clone(),
            layers: vec![home.settings().to_owned()],
            project: home.project_settings().map(Path::to_owned),
            environment: env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            overrides,
        };
        Ok(settings::load(&sources)?)
    }

    /// The broker, which is started in the background if it is the home's own and does not run.
    pub(crate) async fn client(&self) -> Result<Client, CliError> {
        let client = self.client_as_it_is().await?;
        if self.names_a_broker() {
            return Ok(client);
        }
        match client.ready().await {
            Err(error) if runs_not(&error) => {
                if !self.load_settings(Vec::new())?.settings.server.broker.auto_start {
                    return Err(error.into());
                }
                let started = background::start(self, &client).await?;
                if let Some(started) = started {
                    let (pid, log) = (started.pid, started.log.display());
                    self.output
                        .say(&format!("started a broker in the background (pid {pid}); its log: {log}"));
                }
                Ok(client)
            }
            Ok(()) => {
                self.warn_of_other_settings(&client).await;
                Ok(client)
            }
            // The call itself meets the same trouble, and says more.
            Err(_) => Ok(client),
        }
    }

    /// Warns of settings that were typed and are not those with which the broker runs.
    async fn warn_of_other_settings(&self, client: &Client) {
        let Some(file) = &self.settings_file else { return };
        // What keeps it from telling is met by the call itself as well.
        let Ok(broker) = client.broker_alone().await else { return };
        if !are_same_files(std::slice::from_ref(file), &broker.settings) {
            self.output.warn(&format!(
                "the broker runs already, with its own settings: {} is not looked at (end it first with `berthold broker stop`)",
                file.display()
            ));
        }
    }

    /// The broker, whether it runs or not.
    pub(crate) async fn client_as_it_is(&self) -> Result<Client, CliError> {
        let Some(endpoint) = &self.broker else { return self.own_client() };
        let Endpoint::Tcp { host, port } = endpoint else { return Ok(Client::new(endpoint.clone(), None)) };
        let given = env::var("BERTHOLD_TOKEN").ok().filter(|token| !token.is_empty());
        // Whatever listens on this host under a port may be anyone's, and is shown no token of the home. If it is the home's broker,
        // that answers on its socket as well.
        if given.is_none()
            && is_loopback(host)
            && let Ok(own) = self.own_client()
            && let Ok(broker) = own.broker_alone().await
            && broker.listen.is_some_and(|it| is_at(&it, *port))
        {
            return Ok(own);
        }
        // Without a token the broker itself says what is missing.
        Ok(Client::new(endpoint.clone(), given.map(|token| token.trim().to_owned())))
    }

    /// That of the home, on its socket.
    fn own_client(&self) -> Result<Client, CliError> {
        Ok(Client::new(Endpoint::Unix(self.home()?.socket().to_owned()), None))
    }
}

/// Whether the URL of a broker's API is that of this port, on the loopback or all addresses.
fn is_at(url: &str, port: u16) -> bool {
    let address = url.split_once("://").and_then(|(_, rest)| rest.parse::<SocketAddr>().ok());
    address.is_some_and(|it| it.port() == port && (it.ip().is_loopback() || it.ip().is_unspecified()))
}

/// Whether the settings files of this command are those that a broker read.
pub(crate) fn are_same_files(ours: &[PathBuf], read: &[String]) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    ours.iter().map(|path| real(path)).eq(read.iter().map(|path| real(Path::new(path))))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// Whether there is no broker at all, as opposed to one that cannot be spoken to.
pub(crate) fn runs_not(error: &ClientError) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    matches!(error, ClientError::Unreachable { source, .. } if matches!(source.kind(), ConnectionRefused | NotFound))
}

fn endpoint(text: &str) -> Result<Endpoint, CliError> {
    text.parse().map_err(|error: api::EndpointError| {
        let usage = CliError::usage(error.to_string());
        match &error.suggestion {
            Some(suggestion) => usage.with_hint(format!("did you mean `{suggestion}`?")),
            None => usage.with_hint("write http://HOST:PORT, unix:///PATH, or the path of a socket"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_s_broker_is_known_by_where_it_listens() {
        for url in ["http://127.0.0.1:9800", "https://0.0.0.0:9800", "http://[::1]:9800", "http://[::]:9800"]
        {
            assert!(is_at(url, 9800) && !is_at(url, 9801), "{url}");
        }
        assert!(!is_at("http://192.0.2.7:9800", 9800) && !is_at("none", 9800));
    }

    #[test]
    fn what_is_on_this_host_is_known_by_its_name() {
        for host in ["localhost", "127.0.0.1", "127.8.0.1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.test", "203.0.113.7", "[2001:db8::1]", "localhost.example.test"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_broker_that_is_wrongly_named_is_wrong_usage_with_what_is_meant() {
        let body = endpoint("127.0.0.1:9800").unwrap_err().body();
        assert_eq!(body.hint.as_deref(), Some("did you mean `http://127.0.0.1:9800`?"));
        assert_eq!(endpoint("ftp://host").unwrap_err().exit_code(), 2);
    }
}
