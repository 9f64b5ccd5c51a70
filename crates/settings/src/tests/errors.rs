use std::fs;

use insta::assert_snapshot;

use super::{check, check_pool, shown};
use crate::{Sources, load};

#[test]
fn wrong_keys() {
    assert_snapshot!(check("server:\n  broker:\n    port_pool:\n      rnage: 8000-9000\n"), @"
    settings.yaml:4:7: there is no key `rnage` in `server.broker.port_pool`
      |
    4 |       rnage: 8000-9000
      |       ^^^^^
    hint: did you mean `range`?
    ");
    assert_snapshot!(check("servers: {}\n"), @"
    settings.yaml:1:1: there is no key `servers`
      |
    1 | servers: {}
      | ^^^^^^^
    hint: did you mean `server`?
    ");
    assert_snapshot!(check("server: { broker: { colour: red } }"), @"
    settings.yaml:1:21: there is no key `colour` in `server.broker`
      |
    1 | server: { broker: { colour: red } }
      |                     ^^^^^^
    hint: it can hold listen, tls, auto_start, port_pool, default_runtime, reconcile_interval, preview_host, stop_timeout
    ");
    assert_snapshot!(check("templates:\n  web:\n    img: node\n"), @"
    settings.yaml:3:5: there is no key `img` in `templates.web`
      |
    3 |     img: node
      |     ^^^
    hint: did you mean `image`?
    ");
    assert_snapshot!(check("server:\n  broker:\n    listen: none\n    listen: none\n"), @"
    settings.yaml:4:5: the key `listen` stands here twice; the first is in line 3, column 5
      |
    4 |     listen: none
      |     ^^^^^^
    hint: keep one of the two
    ");
}

#[test]
fn wrong_forms() {
    assert_snapshot!(check("server:\n\tbroker: {}\n"), @"
    settings.yaml:2:2: this is not valid YAML: tabs disallowed within this context (block indentation)
      |
    2 | 	broker: {}
      | 	^
    hint: indent with spaces: YAML does not allow tabs there
    ");
    assert_snapshot!(check("server: [broker]\n"), @"
    settings.yaml:1:9: `server` must be a block of keys, not a list
      |
    1 | server: [broker]
      |         ^
    hint: write `key: value` lines, indented below it
    ");
    assert_snapshot!(check("server: { broker: { port_pool: 8000-9000 } }"), @"
    settings.yaml:1:32: `server.broker.port_pool` must be a block of keys, not text
      |
    1 | server: { broker: { port_pool: 8000-9000 } }
      |                                ^^^^^^^^^
    hint: write `key: value` lines, indented below it
    ");
    assert_snapshot!(check("- server\n"), @"
    settings.yaml:1:1: the file must be a block of keys, not a list
      |
    1 | - server
      | ^
    hint: begin with `server:`
    ");
    assert_snapshot!(check("server: { broker: "), @"
    settings.yaml:1:9: this is not valid YAML: unclosed bracket '{'
      |
    1 | server: { broker: 
      |         ^
    hint: close it, on this line or below
    ");
    assert_snapshot!(check_pool("range: [8000, 9000]"), @"
    settings.yaml:3:25: `server.broker.port_pool.range` must be a single value, not a list
      |
    3 |     port_pool: { range: [8000, 9000] }
      |                         ^
    ");
    assert_snapshot!(check_pool("exclude: 8080"), @"
    settings.yaml:3:27: `server.broker.port_pool.exclude` must be a list, not a number
      |
    3 |     port_pool: { exclude: 8080 }
      |                           ^^^^
    hint: write [8080]
    ");
}

#[test]
fn wrong_ranges() {
    assert_snapshot!(check_pool("range: \"9000-8000\""), @r#"
    settings.yaml:3:25: `server.broker.port_pool.range` is wrong: the range 9000-8000 runs backwards; did you mean 8000-9000?
      |
    3 |     port_pool: { range: "9000-8000" }
      |                         ^^^^^^^^^^^
    "#);
    assert_snapshot!(check_pool("range: 0-100"), @"
    settings.yaml:3:25: `server.broker.port_pool.range` is wrong: port 0 is out of bounds; ports go from 1 to 65535
      |
    3 |     port_pool: { range: 0-100 }
      |                         ^^^^^
    ");
    assert_snapshot!(check_pool("range: 70000"), @"
    settings.yaml:3:25: `server.broker.port_pool.range` is 70000, but ports go from 1 to 65535
      |
    3 |     port_pool: { range: 70000 }
      |                         ^^^^^
    hint: write a port such as 8000, or a range such as 8000-9000
    ");
    assert_snapshot!(check_pool("range: 8000-8010, exclude: [\"8000-8010\"]"), @r#"
    settings.yaml:3:45: `server.broker.port_pool.exclude` leaves no port of the range 8000-8010
      |
    3 |     port_pool: { range: 8000-8010, exclude: ["8000-8010"] }
      |                                             ^
    hint: exclude fewer ports, or widen the range
    "#);
    assert_snapshot!(check_pool("exclude: [8080, x]"), @"
    settings.yaml:3:34: `server.broker.port_pool.exclude[1]` is wrong: `x` is not a port number; ports are whole numbers from 1 to 65535
      |
    3 |     port_pool: { exclude: [8080, x] }
      |                                  ^
    ");
    assert_snapshot!(check_pool("range: 8000"), @"
    settings.yaml:3:25: `server.broker.port_pool.range` leaves too few ports: 1, where an agent gets 2
      |
    3 |     port_pool: { range: 8000 }
      |                         ^^^^
    hint: widen the range, or set ports_per_agent to less
    ");
}

#[test]
fn wrong_numbers_of_ports() {
    assert_snapshot!(check_pool("ports_per_agent: -1"), @"
    settings.yaml:3:35: `server.broker.port_pool.ports_per_agent` is -1, but an agent can have 0 to 702 ports
      |
    3 |     port_pool: { ports_per_agent: -1 }
      |                                   ^^
    hint: write a whole number from 0 to 702
    ");
    assert_snapshot!(check_pool("ports_per_agent: 703"), @"
    settings.yaml:3:35: `server.broker.port_pool.ports_per_agent` is 703, but an agent can have 0 to 702 ports
      |
    3 |     port_pool: { ports_per_agent: 703 }
      |                                   ^^^
    hint: write a whole number from 0 to 702
    ");
    assert_snapshot!(check_pool("ports_per_agent: 70000"), @"
    settings.yaml:3:35: `server.broker.port_pool.ports_per_agent` is 70000, but an agent can have 0 to 702 ports
      |
    3 |     port_pool: { ports_per_agent: 70000 }
      |                                   ^^^^^
    hint: write a whole number from 0 to 702
    ");
    assert_snapshot!(check_pool("ports_per_agent: two"), @"
    settings.yaml:3:35: `server.broker.port_pool.ports_per_agent` is `two`, which is not a whole number
      |
    3 |     port_pool: { ports_per_agent: two }
      |                                   ^^^
    hint: write a whole number from 0 to 702
    ");
    assert_snapshot!(check_pool("ports_per_agent: 1.5"), @"
    settings.yaml:3:35: `server.broker.port_pool.ports_per_agent` is `1.5`, which is not a whole number
      |
    3 |     port_pool: { ports_per_agent: 1.5 }
      |                                   ^^^
    hint: write a whole number from 0 to 702
    ");
    assert_snapshot!(check_pool("range: 8000-8002, ports_per_agent: 4"), @"
    settings.yaml:3:53: `server.broker.port_pool.ports_per_agent` is 4, but the pool holds only 3 ports of 8000-8002
      |
    3 |     port_pool: { range: 8000-8002, ports_per_agent: 4 }
      |                                                     ^
    hint: ask for fewer ports, or widen the range
    ");
}

#[test]
fn wrong_addresses() {
    assert_snapshot!(check_pool("host_url: \"203.0.113.7\""), @r#"
    settings.yaml:3:28: `server.broker.port_pool.host_url` is wrong: `203.0.113.7` does not start with http:// or https://
      |
    3 |     port_pool: { host_url: "203.0.113.7" }
      |                            ^^^^^^^^^^^^^
    "#);
    assert_snapshot!(check_pool("host_url: \"http://203.0.113.7:8000/\""), @r#"
    settings.yaml:3:28: `server.broker.port_pool.host_url` is wrong: `http://203.0.113.7:8000/` has a port, but a host URL is http or https and a host, nothing more
      |
    3 |     port_pool: { host_url: "http://203.0.113.7:8000/" }
      |                            ^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#);
    assert_snapshot!(check_pool("host_url: \"http://203.0.113.7/agents\""), @r#"
    settings.yaml:3:28: `server.broker.port_pool.host_url` is wrong: `http://203.0.113.7/agents` has a path, but a host URL is http or https and a host, nothing more
      |
    3 |     port_pool: { host_url: "http://203.0.113.7/agents" }
      |                            ^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#);
    assert_snapshot!(check_pool("bind_address: localhost"), @r#"
    settings.yaml:3:32: `server.broker.port_pool.bind_address` is `localhost`, which is no IP address
      |
    3 |     port_pool: { bind_address: localhost }
      |                                ^^^^^^^^^
    hint: write an IP address such as 127.0.0.1, 0.0.0.0 or "::1"
    "#);
    assert_snapshot!(check("server: { broker: { listen: 9800 } }"), @r#"
    settings.yaml:1:29: `server.broker.listen` is `9800`, which is neither an address with a port nor `none`
      |
    1 | server: { broker: { listen: 9800 } }
      |                             ^^^^
    hint: write "127.0.0.1:9800"
    "#);
    assert_snapshot!(check("server: { broker: { listen: \"localhost:9800\" } }"), @r#"
    settings.yaml:1:29: `server.broker.listen` is `localhost:9800`, which is neither an address with a port nor `none`
      |
    1 | server: { broker: { listen: "localhost:9800" } }
      |                             ^^^^^^^^^^^^^^^^
    hint: write "127.0.0.1:9800"
    "#);
    assert_snapshot!(check("runtimes: { docker: { host: docker.sock } }"), @"
    settings.yaml:1:29: `runtimes.docker.host` is `docker.sock`, which is no endpoint of an engine
      |
    1 | runtimes: { docker: { host: docker.sock } }
      |                             ^^^^^^^^^^^
    hint: write unix:///PATH, tcp://HOST:PORT, or the absolute path of a socket
    ");
    assert_snapshot!(check("runtimes: { docker: { host: 'ssh://me@build' } }"), @"
    settings.yaml:1:29: `runtimes.docker.host` is `ssh://me@build`, but engines behind ssh cannot be used
      |
    1 | runtimes: { docker: { host: 'ssh://me@build' } }
      |                             ^^^^^^^^^^^^^^^^
    hint: forward the engine's socket (`ssh -nNT -L /tmp/docker.sock:/var/run/docker.sock HOST`) and name that
    ");
    assert_snapshot!(check("runtimes: { podman: { host: 'https://build:8443' } }"), @"
    settings.yaml:1:29: `runtimes.podman.host` is `https://build:8443`, but engines behind https cannot be used
      |
    1 | runtimes: { podman: { host: 'https://build:8443' } }
      |                             ^^^^^^^^^^^^^^^^^^^^
    hint: forward the engine's socket (`ssh -nNT -L /tmp/podman.sock:/run/podman/podman.sock HOST`) and name that
    ");
}

#[test]
fn wrong_values() {
    assert_snapshot!(check("server: { broker: { stop_timeout: 10 } }"), @"
    settings.yaml:1:35: `server.broker.stop_timeout` is `10`, which has no unit
      |
    1 | server: { broker: { stop_timeout: 10 } }
      |                                   ^^
    hint: write the unit too, such as 10s
    ");
    assert_snapshot!(check("server: { broker: { stop_timeout: soon } }"), @"
    settings.yaml:1:35: `server.broker.stop_timeout` is `soon`, which is no duration
      |
    1 | server: { broker: { stop_timeout: soon } }
      |                                   ^^^^
    hint: write a duration such as 10s, 500ms or 1m 30s
    ");
    assert_snapshot!(check("server: { broker: { reconcile_interval: 0s } }"), @"
    settings.yaml:1:41: `server.broker.reconcile_interval` must be more than 0
      |
    1 | server: { broker: { reconcile_interval: 0s } }
      |                                         ^^
    hint: write a duration such as 10s
    ");
    assert_snapshot!(check("server: { broker: { default_runtime: dcoker } }"), @"
    settings.yaml:1:38: `server.broker.default_runtime` is `dcoker`, which is not one of docker, podman, container, kubernetes, process
      |
    1 | server: { broker: { default_runtime: dcoker } }
      |                                      ^^^^^^
    hint: did you mean `docker`?
    ");
    assert_snapshot!(check_pool("enabled: perhaps"), @"
    settings.yaml:3:27: `server.broker.port_pool.enabled` is `perhaps`, which is neither true nor false
      |
    3 |     port_pool: { enabled: perhaps }
      |                           ^^^^^^^
    hint: write true or false
    ");
    assert_snapshot!(check_pool("env_aliases: { PORT: a }"), @"
    settings.yaml:3:39: `server.broker.port_pool.env_aliases.PORT` is wrong: `a` is not a port label; labels are A to Z, then AA to ZZ
      |
    3 |     port_pool: { env_aliases: { PORT: a } }
      |                                       ^
    ");
    assert_snapshot!(check_pool("env_aliases: { BERTHOLD_PORT: A }"), @"
    settings.yaml:3:33: `server.broker.port_pool.env_aliases.BERTHOLD_PORT` is a variable that only Berthold sets
      |
    3 |     port_pool: { env_aliases: { BERTHOLD_PORT: A } }
      |                                 ^^^^^^^^^^^^^
    hint: choose a name that does not start with AVAILABLE_LOCALHOST_ or BERTHOLD_
    ");
    assert_snapshot!(check("templates: { web: { env: { AVAILABLE_LOCALHOST_PORT_A: 1 } } }"), @"
    settings.yaml:1:28: `templates.web.env.AVAILABLE_LOCALHOST_PORT_A` is a variable that only Berthold sets
      |
    1 | templates: { web: { env: { AVAILABLE_LOCALHOST_PORT_A: 1 } } }
      |                            ^^^^^^^^^^^^^^^^^^^^^^^^^^
    hint: choose a name that does not start with AVAILABLE_LOCALHOST_ or BERTHOLD_
    ");
    assert_snapshot!(check("templates: { web: { volumes: [src] } }"), @"
    settings.yaml:1:31: `templates.web.volumes[0]` is `src`, which is no volume
      |
    1 | templates: { web: { volumes: [src] } }
      |                               ^^^
    hint: write SRC:DST or SRC:DST:ro, where DST is an absolute path
    ");
    assert_snapshot!(check("templates:\n  web:\n    volumes: [cache:/cache, ./src:/src]\n"), @"
    settings.yaml:3:29: `templates.web.volumes[1]` is `./src:/src`, whose source is a relative path
      |
    3 |     volumes: [cache:/cache, ./src:/src]
      |                             ^^^^^^^^^^
    hint: write an absolute path, or the name of a volume; what is typed as `-v` may be a relative path
    ");
    assert_snapshot!(check("templates: { web: { workspace: ../web } }"), @"
    settings.yaml:1:32: `templates.web.workspace` is `../web`, which is a relative path
      |
    1 | templates: { web: { workspace: ../web } }
      |                                ^^^^^^
    hint: write an absolute path; what is typed as `-w` may be a relative one
    ");
    assert_snapshot!(check("runtimes: { kubernetes: { expose: ingress } }"), @"
    settings.yaml:1:35: `runtimes.kubernetes.expose` is `ingress`, which is not one of forward, host_port, node_port, none
      |
    1 | runtimes: { kubernetes: { expose: ingress } }
      |                                   ^^^^^^^
    hint: write one of forward, host_port, node_port, none
    ");
}

#[test]
fn wrong_files() {
    let directory = tempfile::tempdir().unwrap();
    let explicit = |name: &str| {
        shown(
            load(&Sources { explicit: Some(directory.path().join(name)), ..Sources::default() }),
            directory.path(),
        )
    };
    fs::write(directory.path().join("binary"), [0xff, 0xfe, 0x00]).unwrap();
    fs::create_dir(directory.path().join("folder")).unwrap();
    assert_snapshot!(explicit("absent.yaml"), @"
    the settings file absent.yaml cannot be read: No such file or directory (os error 2)
    hint: `--settings` and BERTHOLD_SETTINGS must name a file that is there
    ");
    assert_snapshot!(explicit("binary"), @"
    binary:1:1: this is not UTF-8 text
    hint: save the file as UTF-8
    ");
    assert_snapshot!(explicit("folder"), @"
    the settings file folder cannot be read: Is a directory (os error 21)
    hint: name a file, such as settings.yaml in it
    ");
}
