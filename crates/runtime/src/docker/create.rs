//! The request that creates a container.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType, PortBinding, PortMap};

use crate::{ErrorKind, Network, RuntimeError, Spec, Volume};

/// The request for `spec`.
///
/// Ports are bound *and* exposed: without the latter the engine publishes nothing and says nothing. There is no restart
/// policy, since an engine that restarts an agent takes its ports again when they may be someone else's.
pub(super) fn request(spec: &Spec) -> Result<ContainerCreateBody, RuntimeError> {
    let image =
        spec.image.clone().ok_or_else(|| RuntimeError::new(ErrorKind::Invalid, "an image is needed"))?;
    let mounts = spec.volumes.iter().map(mount).collect::<Result<Vec<_>, _>>()?;
    let bindings = bindings(spec);
    let mut exposed: Vec<String> = bindings.keys().cloned().collect();
    exposed.sort_unstable();
    Ok(ContainerCreateBody {
        image: Some(image),
        cmd: (!spec.command.is_empty()).then(|| spec.command.clone()),
        env: Some(variables(&spec.env)),
        labels: Some(spec.labels.clone().into_iter().collect()),
        working_dir: spec.workdir.clone(),
        // Without StdinOnce: the end of one attachment's input is not that of the agent's.
        open_stdin: spec.console.stdin.then_some(true),
        tty: spec.console.terminal.then_some(true),
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        host_config: Some(HostConfig {
            network_mode: network_mode(&spec.network),
            port_bindings: (!bindings.is_empty()).then_some(bindings),
            mounts: (!mounts.is_empty()).then_some(mounts),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    })
}

/// Each variable once, with the value that wins: a process that finds two takes whichever its library prefers.
pub(super) fn variables(variables: &[(String, String)]) -> Vec<String> {
    let wins: HashMap<&str, usize> =
        variables.iter().enumerate().map(|(place, (name, _))| (name.as_str(), place)).collect();
    let winners = variables.iter().enumerate().filter(|(place, (name, _))| wins[name.as_str()] == *place);
    winners.map(|(_, (name, value))| format!("{name}={value}")).collect()
}

fn network_mode(network: &Network) -> Option<String> {
    match network {
        Network::Default => None,
        Network::Host => Some("host".to_owned()),
        Network::None => Some("none".to_owned()),
        Network::Named(name) => Some(name.clone()),
    }
}

fn bindings(spec: &Spec) -> PortMap {
    let mut bindings = PortMap::new();
    if !spec.network.publishes() {
        return bindings;
    }
    for port in &spec.publish {
        let binding =
            PortBinding { host_ip: Some(port.address.to_string()), host_port: Some(port.host.to_string()) };
        let inside = bindings.entry(format!("{}/tcp", port.container)).or_default();
        inside.get_or_insert_default().push(binding);
    }
    bindings
}

/// Mounts and not binds: for a source that is not there, those would make a directory that belongs to root.
fn mount(volume: &Volume) -> Result<Mount, RuntimeError> {
    let invalid = |what: &str, hint: &str| {
        let message = format!("the volume {}:{} {what}", volume.source, volume.target);
        Err(RuntimeError::new(ErrorKind::Invalid, message).hint(hint))
    };
    if !volume.target.starts_with('/') {
        return invalid(
            "has no absolute path inside the container",
            "a volume is SOURCE:TARGET, where TARGET starts with /",
        );
    }
    let typ = if volume.source.starts_with('/') { MountType::BIND } else { MountType::VOLUME };
    if typ == MountType::VOLUME && (volume.source.is_empty() || volume.source.contains('/')) {
        return invalid(
            "is neither an absolute path nor the name of a volume",
            "give the source's absolute path, or the name of a volume without /",
        );
    }
    Ok(Mount {
        typ: Some(typ),
        source: Some(volume.source.clone()),
        target: Some(volume.target.clone()),
        read_only: Some(volume.read_only),
        ..Mount::default()
    })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::{Console, Publish};

    fn spec() -> Spec {
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        Spec {
            name: "web".into(),
            image: Some("node:22".into()),
            command: Vec::new(),
            env: vec![("A".into(), "1".into()), ("B".into(), "2".into()), ("A".into(), "3".into())],
            labels: [("berthold.ports".to_owned(), "8000-8001".to_owned())].into(),
            volumes: Vec::new(),
            workdir: None,
            console: Console::default(),
            network: Network::Default,
            publish: vec![
                Publish { address: loopback, host: 8000, container: 8000 },
                Publish { address: loopback, host: 8001, container: 8001 },
            ],
            binds: Vec::new(),
        }
    }

    fn sent(spec: &Spec) -> serde_json::Value {
        serde_json::to_value(request(spec).unwrap()).unwrap()
    }

    #[test]
    fn what_is_published_is_exposed_as_well() {
        let sent = sent(&spec());
        assert_eq!(sent["ExposedPorts"], serde_json::json!({"8000/tcp": {}, "8001/tcp": {}}));
        assert_eq!(
            sent["HostConfig"]["PortBindings"],
            serde_json::json!({
                "8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8000"}],
                "8001/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8001"}],
            })
        );
        assert_eq!(sent["HostConfig"].get("NetworkMode"), None);
        assert_eq!(sent["HostConfig"].get("RestartPolicy"), None);
        assert_eq!(sent["Env"], serde_json::json!(["B=2", "A=3"]));
        assert_eq!(sent.get("Cmd"), None);
    }

    #[test]
    fn networks_from_which_nothing_can_be_published() {
        for (network, mode) in [
            (Network::Host, "host"),
            (Network::None, "none"),
            (Network::Named("container:0a1b".into()), "container:0a1b"),
        ] {
            let sent = sent(&Spec { network, ..spec() });
            assert_eq!(sent["HostConfig"]["NetworkMode"], mode);
            assert_eq!((sent.get("ExposedPorts"), sent["HostConfig"].get("PortBindings")), (None, None));
        }
        let sent = sent(&Spec { network: Network::Named("shop".into()), ..spec() });
        assert_eq!(sent["HostConfig"]["NetworkMode"], "shop");
        assert!(sent["HostConfig"]["PortBindings"].is_object());
    }

    #[test]
    fn volumes() {
        let volume = |source: &str, target: &str| Volume {
            source: source.into(),
            target: target.into(),
            read_only: true,
        };
        let with = |source: &str, target: &str| Spec { volumes: vec![volume(source, target)], ..spec() };
        assert_eq!(
            sent(&with("/srv/data", "/data"))["HostConfig"]["Mounts"],
            serde_json::json!([{"Type": "bind", "Source": "/srv/data", "Target": "/data", "ReadOnly": true}])
        );
        assert_eq!(sent(&with("cache", "/cache"))["HostConfig"]["Mounts"][0]["Type"], "volume");
        for (source, target) in [("./data", "/data"), ("", "/data"), ("/data", "data")] {
            assert_eq!(request(&with(source, target)).unwrap_err().kind, ErrorKind::Invalid);
        }
    }
}
