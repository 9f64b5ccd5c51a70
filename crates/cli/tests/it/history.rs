//! Who held which port when, across restarts and crashes of the broker.

use serde_json::Value;

use crate::support::*;

/// The entries of one history, `owner label reason`; a reason of `still held` where that is so.
fn entries(host: &Host, arguments: &[&str]) -> Vec<String> {
    let document = host.json(&[&["history"], arguments].concat());
    let shown = |entry: &Value| {
        assert_eq!(entry["to"].is_null(), entry["reason"].is_null(), "{entry}");
        let reason = entry["reason"].as_str().unwrap_or("still held");
        let kind = if entry["bare"] == true { "lease " } else { "" };
        let name = entry["owner"].as_str().unwrap().split_once('/').unwrap().1;
        format!("{kind}{name} {} {reason}", entry["label"].as_str().unwrap())
    };
    document["history"].as_array().unwrap().iter().map(shown).collect()
}

#[test]
fn a_port_has_a_history() {
    let mut host = Host::started(2);
    let port = host.port(0).to_string();
    let done = host.run(&["history", &port]);
    assert_eq!((done.code, done.stdout.as_str()), (0, ""));
    assert!(done.stderr.contains(&format!("port {port} was not leased")), "{done:?}");

    host.ok(&["start", "dev", "--runtime", "process", "--", "sleep", "100000"]);
    host.ok(&["restart", "dev", "-t", "0s"]);
    host.ok(&["stop", "dev", "-t", "0s"]);
    host.ok(&["lease", "db"]);
    host.ok(&["release", "db"]);
    host.ok(&["run", "dev", "-n", "1", "--", "true"]);
    host.kill_broker();
    host.serve();
    host.ok(&["start", "job", "--runtime", "process", "--", "sh", "-c", "exit 0"]);
    eventually("the job's end is known", || host.agent("job")["state"] == "exited");
    host.ok(&["lease", "db", "-n", "1"]);
    let expected = [
        "lease db A still held",
        "job A exited with code 0",
        "lease dev A its process ended",
        "lease db A released",
        "dev A stopped",
        "dev A started anew",
    ];
    assert_eq!(entries(&host, &[&port]), expected);
    assert_eq!(entries(&host, &[&port, "-n", "1"]), expected[..1]);
    assert_eq!(host.json(&["history", &port, "-n", "1"])["more"], true);
    let of_dev = entries(&host, &["dev"]);
    assert_eq!(of_dev.len(), 5, "the agent and the owner of a lease of that name: {of_dev:?}");
    assert_eq!(entries(&host, &["nobody"]), [""; 0]);
    assert_eq!(entries(&host, &["--since", "1h"]).len(), entries(&host, &[]).len());
    assert_eq!(entries(&host, &[&port, "--since", "2126-01-01T00:00:00Z"]), expected[..1]);
    let table = host.ok(&["history", &port]);
    assert!(table.starts_with("PORT") && table.contains("still held"), "{table}");
    assert_eq!(host.run(&["history", &port, "--since", "soon"]).code, 2);
    let error = host.error(2, &["history", "99999"]);
    assert_eq!(error["message"], "99999 is no port: ports are 1 to 65535");
    assert_eq!(entries(&host, &[&format!("{}/99999", host.project())]), [""; 0]);
}

#[test]
fn the_api_refuses_what_it_cannot_mean() {
    let host = Host::started(2);
    let get =
        |query: &str| http_get_unix(&host.path("broker.sock"), &format!("/v1/history?{query}")).unwrap();
    for query in ["port=0", "port=x", "agent=No%20Name", "since=soon", "limit=0", "limit=100000"] {
        let answer = get(query);
        assert!(answer.starts_with("HTTP/1.1 400"), "{query}: {answer}");
    }
    assert!(get("agent=dev&since=2026-11-23T09:00:00Z").ends_with(r#"{"history":[],"more":false}"#));
}
