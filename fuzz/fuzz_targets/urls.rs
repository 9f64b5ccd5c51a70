//! `host_url` and `preview_url` as a person writes them in the first line; then an agent, a label, and a port.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pool::{AgentKey, HostUrl, Label, Port, PreviewUrl};
use url::Url;

fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let pattern = lines.next().unwrap_or_default();
    let key = lines.next().and_then(|line| line.parse().ok());
    let key = key.unwrap_or_else(|| "shop/dev".parse().expect("it is an agent's name"));
    let label = lines.next().and_then(|line| line.parse().ok());
    let label = label.unwrap_or_else(|| "A".parse().expect("it is a label"));
    let port = lines.next().and_then(|line| line.parse().ok()).and_then(Port::new).unwrap_or(Port::MAX);
    if let Ok(host_url) = pattern.parse() {
        check_host_url(&host_url, port);
    }
    if let Ok(preview_url) = pattern.parse() {
        check_preview_url(&preview_url, &key, label);
    }
});

fn check_host_url(host_url: &HostUrl, port: Port) {
    assert_eq!(host_url.to_string().parse().as_ref(), Ok(host_url));
    let url = Url::parse(&host_url.at(port)).expect("what is filled in is a URL");
    assert_eq!(url.port_or_known_default(), Some(port.get()), "{url}");
    assert_eq!(url.scheme() == "https", host_url.is_https(), "{url}");
    assert_eq!(url.host_str().map(|host| host.trim_matches(['[', ']'])), Some(&*host_url.host()));
    assert!(url.path() == "/" && url.query().is_none() && url.fragment().is_none(), "{url}");
    assert!(url.username().is_empty() && url.password().is_none(), "{url}");
    assert_eq!(
        host_url.is_loopback() && host_url.ip().is_some(),
        host_url.ip().is_some_and(|ip| ip.is_loopback())
    );
}

fn check_preview_url(pattern: &PreviewUrl, key: &AgentKey, label: Label) {
    assert_eq!(pattern.to_string().parse().as_ref(), Ok(pattern));
    let Some(text) = pattern.at(key, label) else { return };
    let url = Url::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(url.scheme(), pattern.scheme());
    assert!(url.path() == "/" && url.query().is_none() && url.fragment().is_none(), "{url}");
    assert!(url.username().is_empty() && url.password().is_none(), "{url}");
    // What a browser sends as `Host` leads to the port, and nothing else has the same name, unless `--` is in it.
    let host = url.host_str().expect("http has a host");
    let meant = pattern.meant_by(host);
    assert!(meant.contains(&(key.clone(), label)), "{host} means {meant:?} of {pattern}");
    for (key, label) in meant {
        assert_eq!(pattern.at(&key, label).as_deref(), Some(text.as_str()), "{key} {label}");
    }
}
