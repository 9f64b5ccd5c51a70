use insta::assert_snapshot;

use super::{from_environment, from_text, shown};
use crate::{Loaded, Settings, shape};

/// A value for each variable that there is; a key without one here fails the test.
fn value_for(variable: &str) -> &'static str {
    let rest = variable.strip_prefix("BERTHOLD_").unwrap();
    let key = |end: &str| rest.ends_with(end);
    match rest {
        _ if key("LISTEN") => "127.0.0.1:9801",
        _ if key("AUTO_START") => "false",
        _ if key("ENABLED") || key("INTERACTIVE") || key("TERMINAL") => "true",
        _ if key("GUARDS") => {
            if cfg!(target_os = "linux") {
                "false"
            } else {
                "true"
            }
        }
        _ if key("RANGE") => "7000-7999",
        _ if key("PORTS_PER_AGENT") || key("PORTS") => "7",
        _ if key("HOST_URL") => "https://box.example",
        _ if key("EXCLUDE") => "[8080, \"8443-8450\"]",
        _ if key("BIND_ADDRESS") => "0.0.0.0",
        _ if key("COOL_DOWN") || key("RECONCILE_INTERVAL") || key("TIMEOUT") => "33s",
        _ if key("ENV_ALIASES") => "{ PORT: A }",
        _ if key("RUNTIME") => "process",
        _ if key("PREVIEW_URL") => "https://{label}-{name}.preview.example.com",
        _ if key("TLS_CERTIFICATE") || key("TLS_KEY") => "/etc/berthold/tls.pem",
        _ if key("PREVIEW_HOST") => "localhost",
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

/// The variables without which one cannot be set.
fn needed_by(variable: &str) -> Vec<(&'static str, &'static str)> {
    let needed = match variable.strip_prefix("BERTHOLD_SERVER_BROKER_") {
        Some("PORT_POOL_PREVIEW_URL") => "BERTHOLD_SERVER_BROKER_LISTEN",
        Some("TLS_CERTIFICATE") => "BERTHOLD_SERVER_BROKER_TLS_KEY",
        Some("TLS_KEY") => "BERTHOLD_SERVER_BROKER_TLS_CERTIFICATE",
        _ => return Vec::new(),
    };
    vec![(needed, value_for(needed))]
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    let variables = shape::ROOT.variables();
    assert!(variables.len() > 25, "{variables:?}");
    for rest in variables {
        let name = format!("BERTHOLD_{rest}");
        let mut variables = needed_by(&name);
        if !variables.is_empty() {
            let alone = from_environment(&[(&name, value_for(&name))]);
            assert!(alone.is_err(), "{name} needs {variables:?}");
        }
        variables.push((&name, value_for(&name)));
        let settings = from_environment(&variables).unwrap_or_else(|error| panic!("{error}"));
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
            from_environment(&[(name, value)]).map(|settings| Loaded {
                settings,
                files: Vec::new(),
                variables: Vec::new(),
            }),
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
