//! The API on `listen`, and who may use it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::*;

/// A host whose API listens on its last port.
fn listening() -> (Host, u16) {
    let port = std::cell::Cell::new(0);
    let settings = |range: &str| {
        let last: u16 = range.split_once('-').unwrap().1.parse().unwrap();
        port.set(last);
        format!(
            "server: {{ broker: {{ listen: \"127.0.0.1:{last}\", port_pool: {{ range: \"{range}\" }} }} }}\n"
        )
    };
    let mut host = Host::with_settings(settings, 6);
    host.serve();
    (host, port.get())
}

fn ask(port: u16, request: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split_whitespace().nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// P10.
#[test]
fn without_the_token_nothing_is_told_and_nothing_done() {
    let (host, port) = listening();
    for request in [
        "GET /v1/agents",
        "GET /v1/pool",
        "POST /v1/shutdown",
        "GET /openapi.json",
        "GET /v1/events",
        "GET /v1/leases",
        "PUT /v1/leases/db",
        "DELETE /v1/leases/default/db",
        "GET /v1/history",
        "GET /metrics",
    ] {
        for headers in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic eDp5\r\n"] {
            let (status, body) = ask(port, request, headers);
            assert_eq!(status, 401, "{request}: {body}");
            let problem: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(problem["code"], "unauthorized");
        }
    }
    let token = fs::read_to_string(host.path("token")).unwrap();
    let (status, body) = ask(port, "GET /v1/agents", &format!("Authorization: Bearer {}\r\n", token.trim()));
    assert_eq!((status, body.as_str()), (200, "{\"agents\":[]}"));
    assert_eq!(ask(port, "GET /healthz", "").0, 200);
    let mode = |name: &str| fs::metadata(host.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("token"), mode("broker.sock"), mode("ledger.db")), (0o600, 0o600, 0o600));
}

#[test]
fn the_broker_leaves_its_own_port_out_of_the_pool() {
    let (host, port) = listening();
    let pool = host.json(&["ports"])["pool"].clone();
    assert_eq!(pool["size"], 5, "{pool}");
    let warnings = host.json(&["broker", "status"])["broker"]["warnings"].to_string();
    assert!(warnings.contains(&format!("the broker's own port {port}")), "{warnings}");
}

#[test]
fn errors_are_problem_documents() {
    let host = Host::started(4);
    let answer = http_get_unix(&host.path("broker.sock"), "/v1/agents/default/nobody").unwrap();
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("application/problem+json"), "{answer}");
    let answer = http_get_unix(&host.path("broker.sock"), "/v1/nonsense").unwrap();
    assert!(answer.contains("\"code\":\"not_found\""), "{answer}");
    let answer = http_get_unix(&host.path("broker.sock"), "/v1/agents/default/No%20Name").unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("no-name"), "{answer}");
}

/// The commands work over `listen` as they do over the socket.
#[test]
fn the_command_line_speaks_to_a_broker_by_its_url() {
    let (host, port) = listening();
    let url = format!("http://127.0.0.1:{port}");
    host.ok(&["--broker", &url, "start", "dev", "--runtime", "process", "--", "sleep", "100000"]);
    let listed = host.json(&["--broker", &url, "list"]);
    assert_eq!(listed["agents"][0]["name"], "dev");
    let output = host
        .command()
        .args(["--json", "--broker", &url, "list"])
        .env("BERTHOLD_TOKEN", "wrong")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(8), "{output:?}");
}

/// P10: what listens on a port of this host may be anyone's, also under the name of this host.
#[test]
fn the_home_s_token_is_shown_to_nobody_else() {
    let (host, _) = listening();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://localhost:{}", stranger.local_addr().unwrap().port());
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = stranger.accept().unwrap();
        let mut asked = [0; 4096];
        let length = stream.read(&mut asked).unwrap();
        String::from_utf8_lossy(&asked[..length]).into_owned()
    });
    assert_eq!(host.run(&["--broker", &url, "list"]).code, 5);
    let asked = asked.join().unwrap().to_lowercase();
    assert!(asked.starts_with("get /v1/agents") && !asked.contains("authorization"), "{asked}");
}

/// P10: every user of the host sees what programs are started with.
#[test]
fn the_link_that_signs_in_is_in_no_command_line() {
    let (host, _) = listening();
    let (opener, opened) = (host.path("xdg-open"), host.path("opened"));
    fs::write(&opener, format!("#!/bin/sh\necho \"$@\" > {}\n", opened.display())).unwrap();
    fs::set_permissions(&opener, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", host.path("").display(), std::env::var("PATH").unwrap());
    let output = host.command().arg("open").env("PATH", path).env("DISPLAY", ":9").output().unwrap();
    let url = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert!(url.contains("#ticket="), "{url}");
    let typed = || fs::read_to_string(&opened).unwrap_or_default().trim().to_owned();
    eventually("it is opened", || !typed().is_empty());
    assert_eq!(typed(), host.path("open.html").display().to_string());
    assert!(fs::read_to_string(typed()).unwrap().contains(&url));
    assert_eq!(fs::metadata(typed()).unwrap().permissions().mode() & 0o777, 0o600);
}
