//! The block `port_pool`: the one whose settings depend on each other.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use pool::{HostUrl, Label, Port, PortRange, PreviewUrl};

use crate::field::{Block, Field, Result};
use crate::model::PortPool;
use crate::read::check_variable;

const DEFAULT_RANGE: (u16, u16) = (8000, 9000);
const DEFAULT_PORTS_PER_AGENT: u16 = 2;

/// Reads the block; none if it is switched off. It must be right even then.
pub(crate) fn port_pool(block: &Block<'_>) -> Result<Option<PortPool>> {
    let range_field = block.get("range");
    let range = range_field.range()?.unwrap_or_else(default_range);
    let exclude_field = block.get("exclude");
    let mut exclude = Vec::new();
    for item in exclude_field.list()? {
        let hint = "write a port such as 8080, or a range such as \"8443-8450\"";
        exclude.push(item.range()?.ok_or_else(|| item.wrong("is empty", Some(hint)))?);
    }
    let is_excluded = |port: &Port| exclude.iter().any(|range: &PortRange| range.contains(*port));
    let size = range.ports().filter(|port| !is_excluded(port)).count();
    if size == 0 {
        let why = format!("leaves no port of the range {range}{}", elsewhere(&range_field, &exclude_field));
        return Err(exclude_field.wrong(&why, Some("exclude fewer ports, or widen the range")));
    }
    let ports_per_agent = ports_per_agent(block, range, size)?;
    let host_url = block.get("host_url").parsed::<HostUrl>()?;
    let pool = PortPool {
        range,
        ports_per_agent,
        bind_address: bind_address(&block.get("bind_address"), host_url.as_ref())?,
        host_url,
        preview_url: preview_url(&block.get("preview_url"))?,
        exclude,
        cool_down: block.get("cool_down").duration()?.unwrap_or_default(),
        // Tried on Linux alone.
        guards: block.get("guards").truth()?.unwrap_or(cfg!(target_os = "linux")),
        env_aliases: env_aliases(&block.get("env_aliases"))?,
    };
    Ok(block.get("enabled").truth()?.unwrap_or(true).then_some(pool))
}

fn preview_url(field: &Field<'_>) -> Result<Option<PreviewUrl>> {
    let Some(text) = field.scalar()? else { return Ok(None) };
    let hint = "write a pattern such as \"https://{label}-{name}.preview.example.com\"";
    text.parse().map(Some).map_err(|error| field.wrong(&format!("is wrong: {error}"), Some(hint)))
}

fn default_range() -> PortRange {
    let low = Port::new(DEFAULT_RANGE.0);
    let high = Port::new(DEFAULT_RANGE.1);
    low.zip(high)
        .and_then(|(low, high)| PortRange::new(low, high).ok())
        .expect("8000-9000 is a range of ports")
}

/// Where `other` stands, if that is not where `blamed` stands: they come from two files, or from a file and a variable.
fn elsewhere(other: &Field<'_>, blamed: &Field<'_>) -> String {
    match other.place().zip(blamed.place()) {
        Some((other, blamed)) if !std::sync::Arc::ptr_eq(&other.origin, &blamed.origin) => {
            format!(" ({other})")
        }
        _ => String::new(),
    }
}

/// Checked against the size of the pool, and blamed on whichever of the settings was written.
fn ports_per_agent(block: &Block<'_>, range: PortRange, size: usize) -> Result<u16> {
    let (field, range_field) = (block.get("ports_per_agent"), block.get("range"));
    match field.count()? {
        Some(count) if usize::from(count) > size => {
            let ports = if size == 1 { "port" } else { "ports" };
            let place = elsewhere(&range_field, &field);
            let why = format!("is {count}, but the pool holds only {size} {ports} of {range}{place}");
            Err(field.wrong(&why, Some("ask for fewer ports, or widen the range")))
        }
        Some(count) => Ok(count),
        None if usize::from(DEFAULT_PORTS_PER_AGENT) > size => {
            let why = format!("leaves too few ports: {size}, where an agent gets {DEFAULT_PORTS_PER_AGENT}");
            let excluded = block.get("exclude");
            let blamed =
                if excluded.place().is_some() && range.size() > size { excluded } else { range_field };
            Err(blamed.wrong(&why, Some("widen the range, or set ports_per_agent to less")))
        }
        None => Ok(DEFAULT_PORTS_PER_AGENT),
    }
}

fn bind_address(field: &Field<'_>, host_url: Option<&HostUrl>) -> Result<IpAddr> {
    let hint = "write an IP address such as 127.0.0.1, 0.0.0.0 or \"::1\"";
    match field.scalar()? {
        Some(text) => {
            text.parse().map_err(|_| field.wrong(&format!("is `{text}`, which is no IP address"), Some(hint)))
        }
        // What the URLs name must be what is listened on.
        None => Ok(match host_url {
            Some(url) if !url.is_loopback() => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Some(url) => url.ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }),
    }
}

fn env_aliases(field: &Field<'_>) -> Result<BTreeMap<String, Label>> {
    let mut aliases = BTreeMap::new();
    for (name, key, item) in field.map()? {
        check_variable(name, key, &item)?;
        if item.scalar()?.is_none() {
            return Err(item.wrong_key(key, "has no label", "write a label behind it, A to ZZ"));
        }
        aliases.extend(item.parsed::<Label>()?.map(|label| (name.clone(), label)));
    }
    Ok(aliases)
}
