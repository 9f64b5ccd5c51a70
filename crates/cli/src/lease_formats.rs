//! A lease in the words of what is to use it: a shell, a file of variables, `docker run`, Compose.

use std::net::IpAddr;

use api::Lease;
use clap::ValueEnum;

/// A form in which a lease is printed for another program.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// `export NAME=VALUE` lines, for `eval "$(…)"`
    Env,
    /// NAME=VALUE lines, for a file of variables
    Dotenv,
    /// The document that --json prints
    Json,
    /// Arguments for `docker run $(…) IMAGE`
    Docker,
    /// The keys `ports` and `environment` of a service in a Compose file
    Compose,
}

/// `export` lines that any POSIX shell evaluates.
pub(crate) fn env(lease: &Lease) -> String {
    let line = |(name, value): (&String, &String)| format!("export {name}={}", quoted(value));
    lines(lease.environment.iter().map(line))
}

/// A file of variables. Docker and Compose, shells and the libraries called dotenv all read such a line alike, for the values are
/// numbers, names and URLs: nothing in them needs quotes.
pub(crate) fn dotenv(lease: &Lease) -> String {
    lines(lease.environment.iter().map(|(name, value)| format!("{name}={value}")))
}

/// Arguments for `docker run`. They are meant for `$(…)` without quotes around it, whose result a shell cuts at blanks and from which
/// it takes no quotes away; so there are none, and no value may have a blank, which none has.
pub(crate) fn docker(lease: &Lease) -> String {
    let published = lease.ports.values().map(|port| format!("-p {}", publish(lease, *port)));
    let told = lease.environment.iter().map(|(name, value)| format!("-e {name}={value}"));
    published.chain(told).collect::<Vec<_>>().join(" ")
}

/// The part of a service in a Compose file. Everything is quoted: YAML would take some of it for numbers.
pub(crate) fn compose(lease: &Lease) -> String {
    let published = lease.ports.values().map(|port| format!("  - \"{}\"", publish(lease, *port)));
    let told = lease.environment.iter().map(|(name, value)| format!("  {name}: \"{value}\""));
    let heading = |text: &str| std::iter::once(text.to_owned());
    lines(heading("ports:").chain(published).chain(heading("environment:")).chain(told))
}

/// `ADDRESS:PORT:PORT`, as Docker and Compose have it.
fn publish(lease: &Lease, port: u16) -> String {
    let address = lease.bind_address.as_deref().unwrap_or("127.0.0.1");
    match address.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{port}:{port}"),
        _ => format!("{address}:{port}:{port}"),
    }
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_./:=,@%+".contains(character);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples::lease;

    /// One whose addresses are of IPv6, with all that shells and YAML could take for something else.
    fn ipv6() -> Lease {
        let mut lease = lease();
        lease.bind_address = Some("::".into());
        let url = ("AVAILABLE_LOCALHOST_URL_A".into(), "http://[2001:db8::1]:8000".into());
        lease.environment.extend([url]);
        lease
    }

    #[test]
    fn for_a_shell_and_a_file() {
        insta::assert_snapshot!(env(&ipv6()), @"
        export AVAILABLE_LOCALHOST_PORT_A=8000
        export AVAILABLE_LOCALHOST_PORT_B=8001
        export AVAILABLE_LOCALHOST_URL_A='http://[2001:db8::1]:8000'
        export BERTHOLD_AGENT=shop/db
        export PORT=8000
        ");
        insta::assert_snapshot!(dotenv(&ipv6()), @"
        AVAILABLE_LOCALHOST_PORT_A=8000
        AVAILABLE_LOCALHOST_PORT_B=8001
        AVAILABLE_LOCALHOST_URL_A=http://[2001:db8::1]:8000
        BERTHOLD_AGENT=shop/db
        PORT=8000
        ");
    }

    #[test]
    fn for_docker_and_compose() {
        insta::assert_snapshot!(docker(&lease()), @"-p 127.0.0.1:8000:8000 -p 127.0.0.1:8001:8001 -e AVAILABLE_LOCALHOST_PORT_A=8000 -e AVAILABLE_LOCALHOST_PORT_B=8001 -e BERTHOLD_AGENT=shop/db -e PORT=8000");
        insta::assert_snapshot!(docker(&ipv6()), @"-p [::]:8000:8000 -p [::]:8001:8001 -e AVAILABLE_LOCALHOST_PORT_A=8000 -e AVAILABLE_LOCALHOST_PORT_B=8001 -e AVAILABLE_LOCALHOST_URL_A=http://[2001:db8::1]:8000 -e BERTHOLD_AGENT=shop/db -e PORT=8000");
        insta::assert_snapshot!(compose(&lease()), @r#"
        ports:
          - "127.0.0.1:8000:8000"
          - "127.0.0.1:8001:8001"
        environment:
          AVAILABLE_LOCALHOST_PORT_A: "8000"
          AVAILABLE_LOCALHOST_PORT_B: "8001"
          BERTHOLD_AGENT: "shop/db"
          PORT: "8000"
        "#);
        insta::assert_snapshot!(compose(&ipv6()), @r#"
        ports:
          - "[::]:8000:8000"
          - "[::]:8001:8001"
        environment:
          AVAILABLE_LOCALHOST_PORT_A: "8000"
          AVAILABLE_LOCALHOST_PORT_B: "8001"
          AVAILABLE_LOCALHOST_URL_A: "http://[2001:db8::1]:8000"
          BERTHOLD_AGENT: "shop/db"
          PORT: "8000"
        "#);
    }

    #[test]
    fn the_fragment_for_compose_is_yaml() {
        let parsed: serde_json::Value = serde_saphyr::from_str(&compose(&ipv6())).unwrap();
        let expected = serde_json::json!({
            "ports": ["[::]:8000:8000", "[::]:8001:8001"],
            "environment": ipv6().environment,
        });
        assert_eq!(parsed, expected);
    }

    #[test]
    fn words_of_a_shell() {
        assert_eq!(quoted("a/b-1:2"), "a/b-1:2");
        assert_eq!(quoted("it's $x"), r"'it'\''s $x'");
        assert_eq!(quoted(""), "''");
    }
}
