//! The command lines, as plain functions of what is asked for.
//!
//! The options are those of `container` 0.6 to 1.2, from its command reference
//! (<https://github.com/apple/container/blob/main/docs/command-reference.md>).

use std::net::IpAddr;
use std::time::Duration;

use crate::{Console, ErrorKind, ExecRequest, LogRequest, Network, Publish, RuntimeError, Spec, Volume};

/// What to do in place of attaching, for which `container` 1.2 has no command.
pub(super) const NO_CONSOLE: &str = "leave out `-i` and `-t`; `berthold logs -f NAME` follows what it writes, `berthold exec -it NAME -- sh` has a terminal";

/// How long a name can be, from the source of `container` 1.2.
const LONGEST_NAME: usize = 63;

/// How many ports a container can publish, from that source too.
const MOST_PORTS: usize = 64;

/// `container create` for `spec`.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for what `container` cannot do, [`ErrorKind::Invalid`] for a name that is too long, or a volume that has a
/// colon in it.
pub(super) fn create(spec: &Spec) -> Result<Vec<String>, RuntimeError> {
    let image =
        spec.image.clone().ok_or_else(|| RuntimeError::new(ErrorKind::Invalid, "an image is needed"))?;
    if spec.name.len() > LONGEST_NAME {
        let message = format!(
            "`{}` has {} characters, and Apple's container wants names of at most {LONGEST_NAME}",
            spec.name,
            spec.name.len()
        );
        let hint = "choose a shorter name or project; a project other than `default` is part of the name";
        return Err(RuntimeError::new(ErrorKind::Invalid, message).hint(hint));
    }
    let mut line = Line::of(&["create", "--name", &spec.name]);
    for (name, value) in &spec.env {
        line.option("--env", format!("{name}={value}"));
    }
    for (name, value) in &spec.labels {
        line.option("--label", format!("{name}={value}"));
    }
    for mount in &spec.volumes {
        line.option("--volume", volume(mount)?);
    }
    if let Some(directory) = &spec.workdir {
        line.option("--workdir", directory.clone());
    }
    if spec.console != Console::default() {
        return Err(unsupported("cannot attach to what runs", NO_CONSOLE));
    }
    match &spec.network {
        Network::Default => {}
        Network::Host => return Err(unsupported("has no host network", "leave out `--network host`")),
        Network::None => line.option("--network", "none".to_owned()),
        Network::Named(name) if name.starts_with("container:") => {
            let hint = "name a network that `container network list` shows";
            return Err(unsupported("cannot share another container's network", hint));
        }
        Network::Named(name) => line.option("--network", name.clone()),
    }
    if spec.network.publishes() {
        if spec.publish.len() > MOST_PORTS {
            let what = format!("publishes at most {MOST_PORTS} ports, not {}", spec.publish.len());
            return Err(unsupported(&what, "ask for fewer with `--ports`"));
        }
        for port in &spec.publish {
            line.option("--publish", publication(*port));
        }
    }
    line.0.push(image);
    line.0.extend(spec.command.iter().cloned());
    Ok(line.0)
}

/// `container exec`.
pub(super) fn exec(id: &str, request: &ExecRequest) -> Vec<String> {
    let mut line = Line::of(&["exec"]);
    if request.stdin {
        line.0.push("--interactive".to_owned());
    }
    if request.terminal.is_some() {
        line.0.push("--tty".to_owned());
    }
    for (name, value) in &request.env {
        line.option("--env", format!("{name}={value}"));
    }
    if let Some(directory) = &request.workdir {
        line.option("--workdir", directory.display().to_string());
    }
    line.0.push(id.to_owned());
    line.0.extend(request.command.iter().cloned());
    line.0
}

/// `container logs`.
pub(super) fn logs(id: &str, request: &LogRequest) -> Vec<String> {
    let mut line = Line::of(&["logs"]);
    if request.follow {
        line.0.push("--follow".to_owned());
    }
    if let Some(lines) = request.tail {
        line.option("-n", lines.to_string());
    }
    line.0.push(id.to_owned());
    line.0
}

/// `container stop`, with whole seconds, rounded up.
pub(super) fn stop(id: &str, grace: Duration) -> Vec<String> {
    let seconds = grace.as_secs().saturating_add(u64::from(grace.subsec_nanos() > 0));
    // The command takes 32 bits.
    let seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
    Line::of(&["stop", "--time", &seconds.to_string(), id]).0
}

/// A command line with nothing but these arguments.
pub(super) fn plain(arguments: &[&str]) -> Vec<String> {
    Line::of(arguments).0
}

struct Line(Vec<String>);

impl Line {
    fn of(arguments: &[&str]) -> Self {
        Self(arguments.iter().map(|argument| (*argument).to_owned()).collect())
    }

    fn option(&mut self, name: &str, value: String) {
        self.0.extend([name.to_owned(), value]);
    }
}

fn publication(port: Publish) -> String {
    let address = match port.address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    format!("{address}:{}:{}/tcp", port.host, port.container)
}

fn volume(volume: &Volume) -> Result<String, RuntimeError> {
    if volume.source.contains(':') || volume.target.contains(':') {
        let message = format!("the volume {}:{} has a colon in a path", volume.source, volume.target);
        return Err(RuntimeError::new(ErrorKind::Invalid, message).hint("mount it from a path without one"));
    }
    let mode = if volume.read_only { ":ro" } else { "" };
    Ok(format!("{}:{}{mode}", volume.source, volume.target))
}

pub(super) fn unsupported(what: &str, hint: &str) -> RuntimeError {
    RuntimeError::new(ErrorKind::Unsupported, format!("Apple's container {what}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::TerminalSize;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn spec() -> Spec {
        let port = |host| Publish { address: Ipv4Addr::LOCALHOST.into(), host, container: host };
        let volume = |source: &str, target: &str, read_only| Volume {
            source: source.to_owned(),
            target: target.to_owned(),
            read_only,
        };
        Spec {
            name: "shop--web".to_owned(),
            image: Some("node:22".to_owned()),
            command: strings(&["npm", "run", "--", "dev server"]),
            env: vec![
                ("AVAILABLE_LOCALHOST_PORT_A".to_owned(), "8000".to_owned()),
                ("EMPTY".to_owned(), String::new()),
            ],
            labels: [("berthold.agent".to_owned(), "shop/web".to_owned())].into(),
            volumes: vec![volume("/src", "/work", false), volume("cache", "/cache", true)],
            workdir: Some("/work".to_owned()),
            console: Console::default(),
            network: Network::Default,
            publish: vec![port(8000), port(8001)],
            binds: Vec::new(),
        }
    }

    /// The arguments, each in brackets, so that none can hide in another.
    fn shown(line: &[String]) -> String {
        line.iter().map(|argument| format!("[{argument}]")).collect()
    }

    #[test]
    fn the_line_that_creates() {
        assert_eq!(
            shown(&create(&spec()).unwrap()),
            "[create][--name][shop--web][--env][AVAILABLE_LOCALHOST_PORT_A=8000][--env][EMPTY=]\
             [--label][berthold.agent=shop/web][--volume][/src:/work][--volume][cache:/cache:ro]\
             [--workdir][/work][--publish][127.0.0.1:8000:8000/tcp][--publish][127.0.0.1:8001:8001/tcp]\
             [node:22][npm][run][--][dev server]"
        );
    }

    #[test]
    fn addresses_of_ipv6_are_in_brackets() {
        let port = Publish { address: Ipv6Addr::LOCALHOST.into(), host: 8000, container: 8000 };
        assert_eq!(publication(port), "[::1]:8000:8000/tcp");
    }

    #[test]
    fn networks() {
        let network = |text: &str| create(&Spec { network: Network::parse(text), ..spec() });
        assert!(shown(&network("none").unwrap()).contains("[--network][none]"));
        assert!(!shown(&network("none").unwrap()).contains("--publish"));
        assert!(shown(&network("shop").unwrap()).contains("[--network][shop][--publish]"));
        for refused in ["host", "container:0a1b"] {
            assert_eq!(network(refused).unwrap_err().kind, ErrorKind::Unsupported);
        }
    }

    #[test]
    fn what_container_cannot_do_is_refused() {
        let port = |host| Publish { address: Ipv4Addr::LOCALHOST.into(), host, container: host };
        let many = Spec { publish: (8000..8065).map(port).collect(), ..spec() };
        assert_eq!(create(&many).unwrap_err().kind, ErrorKind::Unsupported);
        let volume = Volume { source: "/a:b".to_owned(), target: "/c".to_owned(), read_only: false };
        assert_eq!(create(&Spec { volumes: vec![volume], ..spec() }).unwrap_err().kind, ErrorKind::Invalid);
    }

    #[test]
    fn names_that_are_too_long_are_refused_before_the_command_is_called() {
        let named = |length: usize| create(&Spec { name: "a".repeat(length), ..spec() });
        assert!(named(63).is_ok());
        let error = named(64).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(
            error.message.ends_with("has 64 characters, and Apple's container wants names of at most 63")
        );
        assert!(error.hint.unwrap().starts_with("choose a shorter name or project"));
    }

    #[test]
    fn the_other_lines() {
        let request = ExecRequest {
            command: strings(&["sh", "-c", "echo hi"]),
            env: vec![("A".to_owned(), "1".to_owned())],
            workdir: Some("/tmp".into()),
            stdin: true,
            terminal: Some(TerminalSize { columns: 80, rows: 24 }),
        };
        assert_eq!(
            shown(&exec("web", &request)),
            "[exec][--interactive][--tty][--env][A=1][--workdir][/tmp][web][sh][-c][echo hi]"
        );
        let request = LogRequest { tail: Some(5), follow: true };
        assert_eq!(shown(&logs("web", &request)), "[logs][--follow][-n][5][web]");
        assert_eq!(shown(&stop("web", Duration::from_millis(1500))), "[stop][--time][2][web]");
        assert_eq!(shown(&stop("web", Duration::ZERO)), "[stop][--time][0][web]");
    }
}
