//! Where an engine listens, as far as a text can tell: what the runtimes can use, and nothing else. A test of the broker, which knows
//! both, compares this with their own reading.

use std::net::Ipv6Addr;

use crate::field::{Block, Field, Result};
use crate::model::Engine;

/// An engine, and how its socket on another host is forwarded, as `ssh -L` has it.
pub(crate) fn engine(block: &Block<'_>, forwarded: &str) -> Result<Engine> {
    let field = block.get("host");
    let Some(host) = field.scalar()? else { return Ok(Engine::default()) };
    let (scheme, rest) = match host.split_once("://") {
        Some(parts) => parts,
        None if host.starts_with('/') => ("unix", host.as_str()),
        None => return Err(no_endpoint(&field, &host)),
    };
    match scheme {
        "unix" if rest.starts_with('/') => {}
        "tcp" | "http" if is_host_and_port(rest.strip_suffix('/').unwrap_or(rest)) => {}
        "https" | "ssh" | "npipe" | "fd" => {
            let why = format!("is `{host}`, but engines behind {scheme} cannot be used");
            let hint = format!("forward the engine's socket (`ssh -nNT -L {forwarded} HOST`) and name that");
            return Err(field.wrong(&why, Some(&hint)));
        }
        _ => return Err(no_endpoint(&field, &host)),
    }
    Ok(Engine { host: Some(host) })
}

fn no_endpoint(field: &Field<'_>, host: &str) -> crate::SettingsError {
    let hint = "write unix:///PATH, tcp://HOST:PORT, or the absolute path of a socket";
    field.wrong(&format!("is `{host}`, which is no endpoint of an engine"), Some(hint))
}

/// Whether this is a host, with or without a port.
fn is_host_and_port(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').map(|bracketed| bracketed.split_once(']')) {
        Some(Some((host, rest))) if host.parse::<Ipv6Addr>().is_ok() => match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return false,
        },
        Some(_) => return false,
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0);
    !host.is_empty() && host.bytes().all(is_plain) && port.is_none_or(is_port)
}
