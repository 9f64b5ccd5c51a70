//! What the broker knows of ports that it has not handed out: who holds them, told without anyone having to run into them.

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use serde_json::Value;

use crate::support::*;

/// What `ports` shows of a port; null if it is free.
fn shown(host: &Host, port: u16) -> Value {
    let pool = host.json(&["ports"])["pool"].clone();
    let ports = pool["ports"].as_array().unwrap().clone();
    ports.into_iter().find(|it| it["port"] == port).unwrap_or_default()
}

/// P7: by name and pid, for as long as it listens, and not as long as it takes until someone starts an agent.
#[test]
fn a_listener_is_shown_with_its_process() {
    let host = Host::started(10);
    for address in ["127.0.0.1", "0.0.0.0", "[::1]"] {
        let Ok(listener) = TcpListener::bind(format!("{address}:{}", host.port(3))) else { continue };
        let port = shown(&host, host.port(3));
        let detail = port["detail"].as_str().unwrap_or_default();
        assert_eq!(port["state"], "blocked", "{address}: {}", host.broker_log());
        if cfg!(target_os = "linux") {
            assert!(detail.ends_with(&format!("(pid {})", std::process::id())), "{address}: {detail}");
        }
        drop(listener);
        assert_eq!(shown(&host, host.port(3)), Value::Null, "{address}: {}", host.broker_log());
    }
    let told = host.broker_log().matches("a port of the pool is held by someone else").count();
    assert!((2..=3).contains(&told), "each change is logged once: {}", host.broker_log());
}

/// P7, L9: a connection has the port from which it goes out for itself, and no process listens there.
#[test]
#[cfg(target_os = "linux")]
fn an_outgoing_connection_is_shown_with_its_other_end() {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

    let host = Host::started(10);
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let address = |port: &u16| std::net::SocketAddr::from(([127, 0, 0, 1], *port));
    // The test before may have left connections of its own in the range.
    let port = (0..10).map(|n| host.port(n)).find(|port| bind(&near, &address(port)).is_ok()).unwrap();
    connect(&near, &far.local_addr().unwrap()).unwrap();
    let _client = TcpStream::from(near);
    let detail = shown(&host, port)["detail"].clone();
    let expected = format!("(pid {}) to {}", std::process::id(), far.local_addr().unwrap());
    assert!(detail.as_str().unwrap().ends_with(&expected), "{detail}");
    host.ok(&["start", "dev", "--ports", "9", "--runtime", "process", "--", "sleep", "100000"]);
    let ports = host.agent("dev")["ports"].clone();
    assert!(ports.as_object().unwrap().values().all(|it| *it != port), "{ports}");
}

/// P7: what an engine publishes by packet rules alone has no socket, so the engine is asked.
#[test]
#[cfg(target_os = "linux")]
fn a_foreign_container_is_shown_by_name_also_without_a_socket() {
    needs_docker!();
    let (host, image) = (Host::started(10), image());
    let (foreign, port) = (format!("{}-foreign", host.project()), host.port(2));
    let publish = format!("127.0.0.1:{port}:80");
    docker(&["run", "-d", "--rm", "--name", &foreign, "-p", &publish, &image, "sleep", "100000"]);
    let expected = format!("the docker container {foreign}");
    assert_eq!(shown(&host, port)["detail"], expected);
    // The engine's proxy is what has the socket; the rules stay without it.
    for pid in proxies(port) {
        assert!(Command::new("kill").arg(pid.to_string()).status().unwrap().success());
    }
    eventually("the socket is gone", || TcpListener::bind(("127.0.0.1", port)).is_ok());
    assert_eq!(shown(&host, port)["detail"], expected, "{}", host.broker_log());
    docker(&["rm", "-f", &foreign]);
    assert_eq!(shown(&host, port), Value::Null);
}

/// The processes with which Docker holds a published port.
#[cfg(target_os = "linux")]
fn proxies(port: u16) -> Vec<u32> {
    let is_it = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let port = port.to_string();
        arguments[0].ends_with(b"docker-proxy")
            && arguments.windows(2).any(|it| it[0] == b"-host-port" && it[1] == port.as_bytes())
    };
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(is_it).collect()
}
