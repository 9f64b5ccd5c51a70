use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use insta::assert_snapshot;

use super::{EXAMPLE, from_text, shown};
use crate::{Kubernetes, RuntimeName, Sources, load, to_yaml};

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

/// Also what YAML may not have as it is, or may read as the end of a line.
#[test]
fn every_character_is_written_out_so_that_it_is_read_again() {
    let all: Vec<char> = ('\u{1}'..='\u{1ffff}').collect();
    for some in all.chunks(0x1000) {
        let escaped: String = some.iter().map(|c| format!("\\U{:08x}", u32::from(*c))).collect();
        let settings = from_text(&format!("templates: {{ a: {{ env: {{ A: \"{escaped}\" }} }} }}\n"));
        assert_eq!(settings.templates["a"].env["A"], some.iter().collect::<String>());
        assert_eq!(from_text(&to_yaml(&settings)), settings);
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
    assert_eq!(bind("host_url: 'http://[::1]'"), "::1");
    assert_eq!(bind("host_url: http://127.0.0.2"), "127.0.0.2");
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
    wide.yaml:1:51: `server.broker.port_pool.ports_per_agent` is 9, but the pool holds only 2 ports of 8000-8001 (narrow.yaml:3:25)
      |
    1 | server: { broker: { port_pool: { ports_per_agent: 9 } } }
      |                                                   ^
    hint: ask for fewer ports, or widen the range
    ");
}

/// Agents can write it, who have the directory of the project mounted.
#[test]
fn a_project_s_file_sets_what_stays_within_its_agents() {
    let directory = tempfile::tempdir().unwrap();
    let project = directory.path().join("project.yaml");
    let load_it = |text: &str| {
        fs::write(&project, text).unwrap();
        load(&Sources { project: Some(project.clone()), ..Sources::default() })
    };
    let right = "server: { broker: { stop_timeout: 1s, port_pool: { range: 8000-8009, env_aliases: { PORT: A } } } }\n\
                 templates: { web: { image: 'node:22', env: { A: b }, runtime: docker, volumes: ['cache-1.2:/cache'], network: back } }\n";
    let loaded = load_it(right).unwrap();
    assert_eq!(loaded.settings.templates["web"].volumes, ["cache-1.2:/cache"]);
    assert_eq!(loaded.files.first(), Some(&project));
    for (text, key) in [
        ("server: { broker: { listen: '0.0.0.0:9800' } }", "server.broker.listen"),
        ("server: { broker: { default_runtime: process } }", "server.broker.default_runtime"),
        ("server: { broker: { tls: { key: /k, certificate: /c } } }", "server.broker.tls"),
        (
            "server: { broker: { port_pool: { host_url: 'https://evil.example' } } }",
            "server.broker.port_pool.host_url",
        ),
        (
            "server: { broker: { port_pool: { bind_address: 0.0.0.0 } } }",
            "server.broker.port_pool.bind_address",
        ),
        ("runtimes: { docker: { host: 'tcp://192.0.2.7' } }", "runtimes"),
        ("templates: { web: { runtime: process } }", "templates.web"),
        ("templates: { web: { workspace: / } }", "templates.web.workspace"),
        ("templates: { web: { network: host } }", "templates.web"),
        ("templates: { web: { network: 'container:db' } }", "templates.web"),
        ("templates: { web: { network: 'ns:/proc/1/ns/net' } }", "templates.web"),
        ("templates: { web: { volumes: ['a:/a', '/:/host'] } }", "templates.web"),
    ] {
        assert_eq!(load_it(text).unwrap_err().key().as_deref(), Some(key), "{text}");
        let named =
            Sources { explicit: Some(project.clone()), project: Some(project.clone()), ..Sources::default() };
        assert!(load(&named).is_ok(), "whoever names it trusts it: {text}");
    }
    // Nor does it change what the user's own settings let out.
    let own = directory.path().join("own.yaml");
    for (text, is_right) in [
        ("templates: { web: { runtime: process } }", false),
        ("templates: { web: { workspace: /home } }", false),
        ("server: { broker: { default_runtime: process } }", false),
        ("server: { broker: { default_runtime: docker } }, templates: { other: { runtime: process } }", true),
    ] {
        fs::write(&own, text.replace("}, t", "}\nt")).unwrap();
        fs::write(&project, "templates: { web: { command: [sh, -c, id] } }").unwrap();
        let layered =
            Sources { layers: vec![own.clone()], project: Some(project.clone()), ..Sources::default() };
        assert_eq!(load(&layered).is_ok(), is_right, "{text}");
    }
    let result = load_it("server:\n  broker:\n    listen: none\n");
    assert_snapshot!(shown(result, directory.path()), @"
    project.yaml:3:5: `server.broker.listen` is not for a project to set, whose files agents can write
      |
    3 |     listen: none
      |     ^^^^^^
    hint: write it in your own settings, ~/.config/berthold/settings.yaml; or trust this file and name it with `--settings FILE`
    ");
    let unknown = load_it("server: { brokr: 1 }").unwrap_err();
    assert!(unknown.to_string().contains("there is no key `brokr`"), "{unknown}");
}
