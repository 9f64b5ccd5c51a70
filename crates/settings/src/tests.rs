use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use insta::assert_snapshot;

use super::*;

/// What loading a file of this text leads to, as a person sees it: the error with its hint, or "fine".
fn check(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("settings.yaml");
    fs::write(&path, text).unwrap();
    let sources = Sources { explicit: Some(path), ..Sources::default() };
    shown(load(&sources), directory.path())
}

fn shown(result: Result<Loaded, SettingsError>, directory: &std::path::Path) -> String {
    match result {
        Ok(_) => "fine".to_owned(),
        Err(error) => {
            let hint = error.hint().map_or_else(String::new, |hint| format!("\nhint: {hint}"));
            format!("{error}{hint}").replace(&format!("{}/", directory.display()), "")
        }
    }
}

/// The same for what stands below `server.broker.port_pool`, in one line.
fn check_pool(text: &str) -> String {
    check(&format!("server:\n  broker:\n    port_pool: {{ {text} }}\n"))
}

fn from_text(text: &str) -> Settings {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("settings.yaml");
    fs::write(&path, text).unwrap();
    load(&Sources { explicit: Some(path), ..Sources::default() })
        .unwrap_or_else(|error| panic!("{error}"))
        .settings
}

fn from_environment(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(&Sources { environment, ..Sources::default() }).map(|loaded| loaded.settings)
}

/// The example of the design, which must load as it is.
const EXAMPLE: &str = r#"
server:
  broker:
    listen: "127.0.0.1:9800"
    port_pool:
      enabled: true
      range: "8000-9000"
      ports_per_agent: 2
      host_url: "http://203.0.113.7/"
      exclude: [8080, "8443-8450"]
      bind_address: "127.0.0.1"
      cool_down: "0s"
      env_aliases: { PORT: A }
    default_runtime: docker
    reconcile_interval: "10s"
    stop_timeout: "10s"
runtimes:
  docker: { host: "unix:///var/run/docker.sock" }
  podman: { host: "unix:///run/podman/podman.sock" }
  kubernetes: { context: "", namespace: "default", expose: forward }
templates:
  web: { image: "node:22", command: ["npm", "run", "dev"], env: {}, volumes: [], network: "" }
"#;

#[test]
fn the_example_loads() {
    let settings = from_text(EXAMPLE);
    let pool = settings.server.broker.port_pool.clone().unwrap();
    assert_eq!(pool.range.to_string(), "8000-9000");
    assert_eq!(pool.host_url.unwrap().to_string(), "http://203.0.113.7");
    assert_eq!(pool.exclude.iter().map(ToString::to_string).collect::<Vec<_>>(), ["8080", "8443-8450"]);
    assert_eq!(pool.env_aliases["PORT"].to_string(), "A");
    assert_eq!(settings.server.broker.default_runtime, Some(RuntimeName::Docker));
    assert_eq!(settings.templates["web"].command, ["npm", "run", "dev"]);
    assert_eq!(settings.runtimes.kubernetes, Kubernetes::default());
}

#[test]
fn what_is_written_out_means_the_same() {
    for text in [EXAMPLE, "", "server: { broker: { listen: none, port_pool: , stop_timeout: 1m 30s } }"] {
        let settings = from_text(text);
        assert_eq!(from_text(&to_yaml(&settings)), settings, "{}", to_yaml(&settings));
    }
}

#[test]
fn an_absent_block_means_no_pool_and_an_empty_one_means_the_defaults() {
    for text in [
        "",
        "# nothing\n",
        "server:\n",
        "server: { broker: {} }",
        "server: { broker: { port_pool: { enabled: false } } }",
    ] {
        assert_eq!(from_text(text).server.broker.port_pool, None, "{text:?}");
    }
    for text in ["server: { broker: { port_pool: } }", "server: { broker: { port_pool: {} } }"] {
        let pool = from_text(text).server.broker.port_pool.unwrap();
        assert_eq!((pool.range.to_string().as_str(), pool.ports_per_agent), ("8000-9000", 2));
        assert_eq!(pool.bind_address, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(pool.cool_down, Duration::ZERO);
    }
}

#[test]
fn the_bind_address_follows_the_host_url() {
    let bind = |text: &str| {
        let text = format!("server: {{ broker: {{ port_pool: {{ {text} }} }} }}");
        from_text(&text).server.broker.port_pool.unwrap().bind_address.to_string()
    };
    assert_eq!(bind("host_url: http://203.0.113.7//"), "0.0.0.0");
    assert_eq!(bind("host_url: http://localhost"), "127.0.0.1");
    assert_eq!(bind("host_url: 'http://[::1]'"), "127.0.0.1");
    assert_eq!(bind("host_url: http://203.0.113.7, bind_address: 192.0.2.1"), "192.0.2.1");
}

#[test]
fn layers_are_merged_by_key_and_the_stronger_wins() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let weak = file(
        "weak.yaml",
        "server: { broker: { stop_timeout: 1s, port_pool: { range: 8000-8999, exclude: [8001] } } }",
    );
    let strong =
        file("strong.yaml", "server: { broker: { port_pool: { exclude: [8002], ports_per_agent: 3 } } }");
    let absent = directory.path().join("absent.yaml");
    let mut sources = Sources { layers: vec![weak.clone(), absent, strong.clone()], ..Sources::default() };
    let loaded = load(&sources).unwrap();
    let pool = loaded.settings.server.broker.port_pool.clone().unwrap();
    assert_eq!(loaded.files, [weak, strong]);
    assert_eq!(loaded.settings.server.broker.stop_timeout, Duration::from_secs(1));
    assert_eq!((pool.range.size(), pool.ports_per_agent, pool.exclude.len()), (1000, 3, 1));
    assert_eq!(pool.exclude[0].to_string(), "8002", "a list is replaced");

    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    sources.environment = vec![set("BERTHOLD_SERVER_BROKER_PORT_POOL_PORTS_PER_AGENT", "4")];
    assert_eq!(load(&sources).unwrap().settings.server.broker.port_pool.unwrap().ports_per_agent, 4);
    sources.overrides = vec![set("server.broker.port_pool.ports_per_agent", "5")];
    assert_eq!(load(&sources).unwrap().settings.server.broker.port_pool.unwrap().ports_per_agent, 5);

    // What two layers break together is blamed on the value that breaks it.
    let narrow = file("narrow.yaml", "server:\n  broker:\n    port_pool: { range: 8000-8001 }\n");
    let wide = file("wide.yaml", "server: { broker: { port_pool: { ports_per_agent: 9 } } }");
    let result = load(&Sources { layers: vec![wide, narrow], ..Sources::default() });
    assert_snapshot!(shown(result, directory.path()), @"
    wide.yaml:1:51: `server.broker.port_pool.ports_per_agent` is 9, but the pool holds only 2 ports
      |
    1 | server: { broker: { port_pool: { ports_per_agent: 9 } } }
      |                                                   ^
    hint: ask for fewer ports, or widen the range
    ");
}

/// A value for each variable that there is; a key without one here fails the test.
fn value_for(variable: &str) -> &'static str {
    let rest = variable.strip_prefix("BERTHOLD_").unwrap();
    let key = |end: &str| rest.ends_with(end);
    match rest {
        _ if key("LISTEN") => "127.0.0.1:9801",
        _ if key("AUTO_START") => "false",
        _ if key("ENABLED") => "true",
        _ if key("RANGE") => "7000-7999",
        _ if key("PORTS_PER_AGENT") || key("PORTS") => "7",
        _ if key("HOST_URL") => "https://box.example",
        _ if key("EXCLUDE") => "[8080, \"8443-8450\"]",
        _ if key("BIND_ADDRESS") => "0.0.0.0",
        _ if key("COOL_DOWN") || key("RECONCILE_INTERVAL") || key("STOP_TIMEOUT") => "33s",
        _ if key("ENV_ALIASES") => "{ PORT: A }",
        _ if key("RUNTIME") => "process",
        _ if key("HOST") => "tcp://127.0.0.1:2375",
        _ if key("CONTEXT") || key("NAMESPACE") => "blue",
        _ if key("EXPOSE") => "none",
        _ if key("IMAGE") => "registry.example:5000/web:1 # not a comment",
        _ if key("COMMAND") => "[npm, run, dev]",
        _ if key("ENV") => "{ COLOUR: red }",
        _ if key("VOLUMES") => "[\"/a:/b:ro\"]",
        _ if key("NETWORK") => "host",
        _ if key("WORKSPACE") => "/srv",
        _ => panic!("no value for {variable}"),
    }
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    let variables = shape::ROOT.variables();
    assert!(variables.len() > 25, "{variables:?}");
    for rest in variables {
        let name = format!("BERTHOLD_{rest}");
        let settings =
            from_environment(&[(&name, value_for(&name))]).unwrap_or_else(|error| panic!("{error}"));
        let is_default_by_itself = name.ends_with("PORT_POOL_ENABLED");
        let without = if name.contains("PORT_POOL") {
            from_text("server: { broker: { port_pool: } }")
        } else if name.contains("TEMPLATES") {
            from_text("templates: { web: {} }")
        } else {
            Settings::default()
        };
        assert_eq!(settings == without, is_default_by_itself, "{name} has no effect");
    }
}

#[test]
fn other_variables_are_passed_over_and_wrong_ones_are_told() {
    let fine =
        from_environment(&[("BERTHOLD_HOME", "/x"), ("BERTHOLD_TOKEN", "y"), ("SERVER_BROKER_LISTEN", "z")]);
    assert_eq!(fine.unwrap(), Settings::default());
    let nowhere = std::path::Path::new("/nowhere");
    let check = |name: &str, value: &str| {
        shown(
            from_environment(&[(name, value)]).map(|settings| Loaded { settings, files: Vec::new() }),
            nowhere,
        )
    };
    assert_snapshot!(check("BERTHOLD_SERVER_BROKER_PORT_POOL_RNGE", "1-2"), @r"
    the variable BERTHOLD_SERVER_BROKER_PORT_POOL_RNGE names no setting
    hint: did you mean BERTHOLD_SERVER_BROKER_PORT_POOL_RANGE?
    ");
    assert_snapshot!(check("BERTHOLD_SERVER_BROKER_PORT_POOL_RANGE", "nine"), @"BERTHOLD_SERVER_BROKER_PORT_POOL_RANGE: `server.broker.port_pool.range` is wrong: `nine` is not a port number; ports are whole numbers from 1 to 65535");
    let template = from_environment(&[
        ("BERTHOLD_TEMPLATES_WEB_APP_IMAGE", "x"),
        ("BERTHOLD_TEMPLATES_WEB_APP_ENV", "{ A: b }"),
    ]);
    let template = template.unwrap().templates["web-app"].clone();
    assert_eq!((template.image.as_deref(), template.env["A"].as_str()), (Some("x"), "b"));
}

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
    hint: it can hold listen, auto_start, port_pool, default_runtime, reconcile_interval, stop_timeout
    ");
    assert_snapshot!(check("templates:\n  web:\n    img: node\n"), @"
    settings.yaml:3:5: there is no key `img` in `templates.web`
      |
    3 |     img: node
      |     ^^^
    hint: did you mean `image`?
    ");
    assert_snapshot!(check("server:\n  broker:\n    listen: none\n    listen: none\n"), @"
    settings.yaml:4:5: the key `listen` stands here twice; the first is in line 3
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
      | 	^^^^^^
    hint: indent with spaces: YAML does not allow tabs there
    ");
    assert_snapshot!(check("server: [broker]\n"), @"
    settings.yaml:1:9: `server` must be a block of keys, not a list
      |
    1 | server: [broker]
      |         ^^^^^^^
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
    settings.yaml:1:1: `the file` must be a block of keys, not a list
      |
    1 | - server
      | ^^^^^^^^
    hint: write `key: value` lines, indented below it
    ");
    assert_snapshot!(check("server: { broker: "), @"
    settings.yaml:1:9: this is not valid YAML: unclosed bracket '{'
      |
    1 | server: { broker: 
      |         ^^^^^^^^
    ");
    assert_snapshot!(check_pool("range: [8000, 9000]"), @"
    settings.yaml:3:25: `server.broker.port_pool.range` must be a single value, not a list
      |
    3 |     port_pool: { range: [8000, 9000] }
      |                         ^^^^^
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
    settings.yaml:3:25: `server.broker.port_pool.range` is wrong: port 70000 is out of bounds; ports go from 1 to 65535
      |
    3 |     port_pool: { range: 70000 }
      |                         ^^^^^
    ");
    assert_snapshot!(check_pool("range: 8000-8010, exclude: [\"8000-8010\"]"), @r#"
    settings.yaml:3:45: `server.broker.port_pool.exclude` leaves no port of the range 8000-8010
      |
    3 |     port_pool: { range: 8000-8010, exclude: ["8000-8010"] }
      |                                             ^^^^^^^^^^^^
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
    settings.yaml:3:53: `server.broker.port_pool.ports_per_agent` is 4, but the pool holds only 3 ports
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
    settings.yaml:1:35: `server.broker.stop_timeout` is `soon`, which is no duration: expected number at 0
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
    assert_snapshot!(explicit("binary"), @"the settings file binary is not UTF-8 text");
    assert_snapshot!(explicit("folder"), @"the settings file folder cannot be read: Is a directory (os error 21)");
}

/// `UPDATE=1 cargo nextest run -p settings schema` rewrites the file.
#[test]
fn the_schema_is_checked_in() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema.json");
    let current = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, &current).unwrap();
    }
    let checked_in = fs::read_to_string(path).unwrap_or_default();
    assert!(checked_in == current, "schema.json is out of date: run this test with UPDATE=1");
}
