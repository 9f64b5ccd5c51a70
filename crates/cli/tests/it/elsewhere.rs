//! An engine on another host, as far as the broker can tell: behind an address that is none of this host's.

#![cfg(target_os = "linux")]

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread::spawn;

use serde_json::{Value, json};

use crate::support::*;

/// Set where this program is to be the other host's engine, to the address on which that listens.
const ADDRESS: &str = "BERTHOLD_TEST_ENGINE_AT";

/// A network with one other host in it, on which Docker answers.
struct OtherHost {
    namespace: String,
    link: String,
    address: String,
    engine: Option<Child>,
}

impl OtherHost {
    fn new() -> Self {
        let number = std::process::id();
        let subnet = format!("10.213.{}", number % 256);
        let (namespace, link) = (format!("bt{number}"), format!("bt{number}a"));
        let mut other = Self { namespace, link, address: format!("{subnet}.2:2375"), engine: None };
        let (namespace, link) = (other.namespace.as_str(), other.link.as_str());
        let inside = format!("bt{number}b");
        ip(&["netns", "add", namespace]);
        ip(&["link", "add", link, "type", "veth", "peer", "name", &inside, "netns", namespace]);
        ip(&["addr", "add", &format!("{subnet}.1/30"), "dev", link]);
        ip(&["link", "set", link, "up"]);
        ip(&["-n", namespace, "addr", "add", &format!("{subnet}.2/30"), "dev", &inside]);
        ip(&["-n", namespace, "link", "set", &inside, "up"]);
        let engine = Command::new("ip")
            .args(["netns", "exec", namespace])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "elsewhere::what_listens_here_says_nothing_of_another_host", "--nocapture"])
            .env(ADDRESS, &other.address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        other.engine = Some(engine.unwrap());
        eventually("the other host answers", || TcpStream::connect(&other.address).is_ok());
        other
    }
}

impl Drop for OtherHost {
    fn drop(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            drop(engine.kill());
            drop(engine.wait());
        }
        drop(Command::new("ip").args(["netns", "del", &self.namespace]).status());
        drop(Command::new("ip").args(["link", "del", &self.link]).stderr(Stdio::null()).status());
    }
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

/// Passes on to Docker what comes to `address`, for as long as this process lives.
fn be_engine(address: &str) {
    for near in TcpListener::bind(address).unwrap().incoming().flatten() {
        let far = UnixStream::connect("/var/run/docker.sock").unwrap();
        let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        spawn(move || {
            drop(io::copy(&mut from, &mut to));
            drop(to.shutdown(std::net::Shutdown::Write));
        });
        let (mut from, mut to) = (far, near);
        spawn(move || {
            drop(io::copy(&mut from, &mut to));
            drop(to.shutdown(std::net::Shutdown::Write));
        });
    }
}

/// P7: a port on which something listens here is free on the host where the engine is; it is for an agent of this host that it is not.
#[test]
fn what_listens_here_says_nothing_of_another_host() {
    if let Ok(address) = std::env::var(ADDRESS) {
        return be_engine(&address);
    }
    needs_docker!();
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root, so there can be no other host: not tested");
        return;
    }
    // The engine is this host's after all, and binds the other address family.
    let Ok(probe) = TcpListener::bind("[::1]:0") else {
        eprintln!("this host has no address ::1: not tested");
        return;
    };
    drop(probe);
    let other = OtherHost::new();
    let mut host = Host::with_settings(
        |range| {
            format!(
                "server: {{ broker: {{ listen: none, reconcile_interval: 1h, port_pool: {{ range: \"{range}\", bind_address: 127.0.0.1 }} }} }}\n\
                 runtimes: {{ docker: {{ host: \"tcp://{}\" }} }}\n",
                other.address
            )
        },
        8,
    );
    host.serve();
    // Once the broker has seen it for an agent of this host, the port is nobody's: there is one pool.
    let _here = TcpListener::bind(("::1", host.port(0))).unwrap();
    host.ok(&idle_agent("there", &image()));
    let there = host.agent("there");
    assert_eq!(there["ports"], json!({ "A": host.port(0), "B": host.port(1) }), "{}", host.broker_log());
    assert_eq!(
        (&there["urls"], &there["previews"]),
        (&json!({}), &json!({})),
        "they are not reached from here"
    );
    assert_ne!(there["published"], Value::Null);
    host.ok(&["delete", "there", "-t", "0s"]);
    host.ok(&["start", "here", "--runtime", "process", "--", "sleep", "100000"]);
    assert_eq!(host.agent("here")["ports"], json!({ "A": host.port(1), "B": host.port(2) }));
}
