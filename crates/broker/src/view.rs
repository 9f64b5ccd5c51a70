//! What the broker knows, as the wire has it.

use std::collections::BTreeMap;

use api::AgentState;
use pool::environment::{self, UrlForms};
use pool::{Moment, Port, PortState, PreviewUrl};
use settings::{PortPool, Settings};

use crate::clock;
use crate::core::State;
use crate::listen::Address;
use crate::model::{AgentRecord, BareLease, Stage};
use crate::preview::address;
use crate::reach::Reach;
use crate::runtimes::Locality;

/// Where the ports of an agent on the host's own network are.
pub(crate) const HOST_NETWORK: &str = "host network";

/// One agent, whose ports are those of a host of that `locality`; `reach` tells where this host reaches one, `doubt` why it may be in another
/// state by now.
pub(crate) fn agent(
    record: &AgentRecord,
    settings: &Settings,
    listen: Option<&Address>,
    locality: Locality,
    reach: impl Fn(Port) -> Option<Reach>,
    doubt: Option<String>,
) -> api::Agent {
    let forms = settings.server.broker.port_pool.as_ref().map(PortPool::url_forms).unwrap_or_default();
    // Without any form they are URLs of `localhost`, which another host's ports do not have.
    let has_urls = locality == Locality::Local || forms.host_url.is_some() || forms.preview_url.is_some();
    let urls = match record.published {
        Some(_) if has_urls => environment::urls(&record.key, record.ports(), forms),
        _ => Vec::new(),
    };
    let label = |label: pool::Label| api::Label(label.to_string());
    api::Agent {
        project: record.key.project.to_string(),
        name: record.key.name.to_string(),
        runtime: record.runtime.clone(),
        state: match record.stage {
            Stage::Starting => AgentState::Starting,
            Stage::Running => AgentState::Running,
            Stage::Stopping => AgentState::Stopping,
            Stage::Stopped => AgentState::Stopped,
            Stage::Exited => AgentState::Exited,
            Stage::Failed => AgentState::Failed,
        },
        id: record.container.clone(),
        lease: record.lease.as_ref().map(|lease| lease.id.to_string()),
        ports: environment::labelled(record.ports()).map(|(name, port)| (label(name), port.get())).collect(),
        urls: urls.into_iter().map(|(name, url)| (label(name), url)).collect(),
        previews: previews(record, forms.preview_url, listen, reach),
        environment: match record.lease {
            Some(_) => environment(record, settings).into_iter().collect(),
            None => BTreeMap::new(),
        },
        own_variables: record.spec.iter().flat_map(|spec| spec.env.keys().cloned()).collect(),
        published: record.published.clone(),
        image: record.spec.as_ref().and_then(|spec| spec.image.clone()),
        command: record.spec.as_ref().map(|spec| spec.command.clone()).unwrap_or_default(),
        started_at: record.started_at.map(clock::shown),
        ended_at: record.ended_at.map(clock::shown),
        exit_code: record.exit_code,
        former_ports: record.former.iter().map(|port| port.get()).collect(),
        warnings: record.warnings.clone(),
        reason: record.reason.clone(),
        doubt,
    }
}

/// The variables that an agent gets, without those whose names its own have.
pub(crate) fn environment(record: &AgentRecord, settings: &Settings) -> Vec<(String, String)> {
    let pool = settings.server.broker.port_pool.as_ref();
    let (forms, none) = (pool.map(PortPool::url_forms).unwrap_or_default(), BTreeMap::new());
    let aliases = pool.map_or(&none, |pool| &pool.env_aliases);
    let mut variables = environment::variables(&record.key, record.ports(), forms, aliases);
    let own = record.spec.as_ref().map(|spec| &spec.env);
    variables.retain(|(name, _)| own.is_none_or(|own| !own.contains_key(name)));
    variables
}

/// The URLs under which the broker leads to the agent's ports that it reaches, where it has an address for browsers. Those below
/// `localhost` lead nowhere if it listens on some other address alone.
fn previews(
    record: &AgentRecord,
    pattern: Option<&PreviewUrl>,
    listen: Option<&Address>,
    reach: impl Fn(Port) -> Option<Reach>,
) -> BTreeMap<api::Label, String> {
    let Some(listen) = listen else { return BTreeMap::new() };
    let local = |label| {
        let host = address::host(&record.key, label);
        listen.is_on_localhost().then(|| format!("{}://{host}:{}", listen.scheme(), listen.socket.port()))
    };
    environment::labelled(record.ports())
        .filter(|(_, port)| reach(*port).is_some())
        .filter_map(|(label, _)| {
            let configured = pattern.and_then(|pattern| pattern.at(&record.key, label));
            Some((api::Label(label.to_string()), configured.or_else(|| local(label))?))
        })
        .collect()
}

/// One bare lease.
pub(crate) fn lease(bare: &BareLease, settings: &Settings) -> api::Lease {
    let pool = settings.server.broker.port_pool.as_ref();
    // Previews are of agents.
    let forms = UrlForms { host_url: pool.and_then(|pool| pool.host_url.as_ref()), preview_url: None };
    let aliases = BTreeMap::new();
    let (ports, label) = (&bare.lease.ports, |label: pool::Label| api::Label(label.to_string()));
    let aliases = pool.map_or(&aliases, |pool| &pool.env_aliases);
    api::Lease {
        project: bare.key.project.to_string(),
        name: bare.key.name.to_string(),
        id: bare.lease.id.to_string(),
        ports: environment::labelled(ports).map(|(name, port)| (label(name), port.get())).collect(),
        urls: environment::urls(&bare.key, ports, forms)
            .into_iter()
            .map(|(name, url)| (label(name), url))
            .collect(),
        environment: environment::variables(&bare.key, ports, forms, aliases).into_iter().collect(),
        bind_address: pool.map(|pool| pool.bind_address.to_string()),
        since: clock::shown(bare.lease.since),
        holder: bare.holder.as_ref().map(|holder| api::Holder {
            pid: holder.process.pid(),
            start_time: holder.process.start_time().to_owned(),
            boot_id: holder.process.boot_id().to_owned(),
            command: holder.command.clone(),
        }),
    }
}

/// The pool; all ports, or those that are not free.
pub(crate) fn pool(state: &State, settings: &Settings, all: bool, now: Moment) -> api::Pool {
    let Some(configured) = &settings.server.broker.port_pool else { return api::Pool::default() };
    let mut counts = api::Counts::default();
    let mut ports = Vec::new();
    for (number, port_state) in state.pool.ports(now) {
        let mut port = port(number, &port_state);
        if let PortState::Leased { owner: pool::Owner::Bare(owner), .. } = &port_state {
            let holder = state.bare.get(owner).and_then(|bare| bare.holder.as_ref());
            port.detail = holder.map(|holder| format!("until process {} ends", holder.process.pid()));
        }
        let count = match port.state {
            api::PoolPortState::Free => &mut counts.free,
            api::PoolPortState::Leased => &mut counts.leased,
            api::PoolPortState::Remembered => &mut counts.remembered,
            api::PoolPortState::Cooling => &mut counts.cooling,
            api::PoolPortState::Blocked => &mut counts.blocked,
        };
        *count += 1;
        if all || port.state != api::PoolPortState::Free {
            ports.push(port);
        }
    }
    api::Pool {
        enabled: true,
        range: configured.range.to_string(),
        size: state.pool.size(),
        excluded: state.pool.excluded().map(|range| range.to_string()).collect(),
        ports_per_agent: configured.ports_per_agent,
        host_url: configured.host_url.as_ref().map(ToString::to_string),
        bind_address: Some(configured.bind_address.to_string()),
        counts,
        ports,
    }
}

/// How many ports are in each state.
pub(crate) fn counts(state: &State, now: Moment) -> api::Counts {
    let pool::Counts { free, leased, remembered, cooling, blocked } = state.pool.counts(now);
    api::Counts { free, leased, remembered, cooling, blocked }
}

fn port(number: pool::Port, state: &PortState<'_>) -> api::PoolPort {
    use api::PoolPortState::{Blocked, Cooling, Free, Leased, Remembered};
    let mut port = api::PoolPort {
        port: number.get(),
        state: Free,
        agent: None,
        bare: false,
        label: None,
        since: None,
        detail: None,
    };
    let mut held = |kind, owner: Option<&pool::Owner>, since: Moment| {
        port.state = kind;
        port.agent = owner.map(|owner| owner.key().to_string());
        port.bare = matches!(owner, Some(pool::Owner::Bare(_)));
        port.since = (since != Moment::default()).then(|| clock::shown(since));
    };
    match state {
        PortState::Free => {}
        PortState::Leased { owner, label, since, .. } => {
            held(Leased, Some(owner), *since);
            port.label = Some(label.to_string());
        }
        PortState::Remembered { owner, since } => held(Remembered, Some(owner), *since),
        PortState::Cooling { owner, since, until } => {
            held(Cooling, *owner, *since);
            port.detail = Some(format!("until {}", clock::shown(*until)));
        }
        PortState::Blocked { by, since } => {
            held(Blocked, None, *since);
            port.detail = Some((*by).to_owned());
        }
    }
    port
}

#[cfg(test)]
mod tests {
    use pool::LeaseId;

    use super::*;
    use crate::model::Lease;

    /// P9: `localhost` is not where another host publishes.
    #[test]
    fn another_host_s_ports_have_no_urls_of_localhost() {
        let mut record = AgentRecord::new("shop/web".parse().unwrap(), "podman".to_owned());
        let ports = vec![Port::new(8000).unwrap()];
        record.lease = Some(Lease { id: LeaseId::new("01J"), ports, since: Moment(0) });
        record.published = Some("0.0.0.0".to_owned());
        let urls = |settings: &Settings, locality| {
            agent(&record, settings, None, locality, |_| None, None).urls.into_values().collect::<Vec<_>>()
        };
        let plain = Settings::default();
        assert_eq!(urls(&plain, Locality::Local), ["http://localhost:8000"]);
        assert_eq!(urls(&plain, Locality::Remote), Vec::<String>::new());
        let mut named = Settings::default();
        named.server.broker.port_pool = Some(PortPool {
            range: "8000-8001".parse().unwrap(),
            ports_per_agent: 1,
            host_url: Some("http://203.0.113.7".parse().unwrap()),
            preview_url: None,
            exclude: Vec::new(),
            bind_address: std::net::Ipv4Addr::UNSPECIFIED.into(),
            cool_down: std::time::Duration::ZERO,
            guards: false,
            env_aliases: BTreeMap::new(),
        });
        assert_eq!(urls(&named, Locality::Remote), ["http://203.0.113.7:8000"]);
    }

    /// P9: a preview leads where the broker reaches the agent, and is reached where the broker listens.
    #[test]
    fn previews_are_of_what_is_reached_and_where_they_are() {
        let mut record = AgentRecord::new("shop/web".parse().unwrap(), "docker".to_owned());
        let ports = vec![Port::new(8000).unwrap()];
        record.lease = Some(Lease { id: LeaseId::new("01J"), ports, since: Moment(0) });
        record.published = Some("0.0.0.0".to_owned());
        let previews = |listen: &str, pattern: Option<&PreviewUrl>, is_here| {
            let listen = Address { socket: listen.parse().unwrap(), is_tls: false };
            previews(&record, pattern, Some(&listen), |port| Reach::of(&record, port, is_here))
                .into_values()
                .collect::<Vec<_>>()
        };
        let own = ["http://a.web.shop.localhost:9800"];
        for listen in ["127.0.0.1:9800", "[::1]:9800", "0.0.0.0:9800"] {
            assert_eq!(previews(listen, None, true), own, "{listen}");
            assert_eq!(previews(listen, None, false), Vec::<String>::new(), "{listen}");
        }
        assert_eq!(previews("192.0.2.7:9800", None, true), Vec::<String>::new());
        let pattern = "https://{label}.{name}.{project}.example.com".parse().unwrap();
        let named = ["https://a.web.shop.example.com"];
        assert_eq!(previews("192.0.2.7:9800", Some(&pattern), true), named);
        assert_eq!(previews("192.0.2.7:9800", Some(&pattern), false), Vec::<String>::new());
    }
}
