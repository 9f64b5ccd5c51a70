//! The web page: who is let in, and what a real browser makes of it.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;

use crate::preview::Stage;
use crate::preview_browser::own_certificate;
use crate::support::*;

/// A script with a line each second.
const TICKS: &str = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 1; done";

/// A host whose page is on its last port.
fn listening(ports: u16) -> (Host, u16) {
    listening_with(ports, "", "")
}

/// The same with further settings of the pool, and others.
fn listening_with(ports: u16, further: &str, others: &str) -> (Host, u16) {
    let mut port = 0;
    let mut host = Host::with_settings(
        |range| {
            let last: u16 = range.split_once('-').unwrap().1.parse().unwrap();
            port = last;
            format!(
                "server: {{ broker: {{ listen: \"127.0.0.1:{last}\", port_pool: {{ range: \"{range}\"{further} }} }} }}\n\
                 templates: {{ ticker: {{ runtime: process, command: [sh, -c, {TICKS:?}] }} }}\n{others}"
            )
        },
        ports,
    );
    host.serve();
    (host, port)
}

/// The status, the headers and the body of an answer; `lines` are the request's first line and headers.
fn ask(port: u16, lines: &[&str], body: &str) -> (u16, String, String) {
    use std::io::Read;
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = lines.join("\r\n");
    write!(stream, "{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

/// Signs in as the page does; the two headers that it sends from then on.
fn signed_in(host: &Host, port: u16) -> [String; 2] {
    let url = host.ok(&["open", "--print"]);
    let ticket = url.trim().split_once("#ticket=").unwrap().1.to_owned();
    let own = format!("Host: localhost:{port}");
    let lines =
        ["POST /signin HTTP/1.1", &own, "Sec-Fetch-Site: same-origin", "Content-Type: application/json"];
    let body = format!("{{\"ticket\":\"{ticket}\"}}");
    let (status, head, answer) = ask(port, &lines, &body);
    assert_eq!(status, 200, "{head}");
    assert_eq!(ask(port, &lines, &body).0, 401, "a ticket is taken once");
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let page = answer["page"].as_str().unwrap();
    [format!("Cookie: {}", cookie.split_once(';').unwrap().0), format!("berthold-page: {page}")]
}

#[test]
fn the_page_says_nothing_to_those_who_are_not_signed_in() {
    let (_host, port) = listening(6);
    let own = format!("Host: localhost:{port}");
    for path in ["/", "/app.js", "/style.css"] {
        let (status, head, _) = ask(port, &[&format!("GET {path} HTTP/1.1"), &own], "");
        assert_eq!(status, 200, "{path}");
        let policy = head.lines().find_map(|line| line.strip_prefix("content-security-policy: "));
        let strict = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
        assert_eq!(policy, Some(strict), "{path}");
        assert!(head.contains("x-content-type-options: nosniff") && head.contains("x-frame-options: DENY"));
    }
    for call in ["GET /v1/agents", "GET /v1/pool", "GET /v1/events", "POST /v1/shutdown", "POST /v1/sessions"]
    {
        assert_eq!(ask(port, &[&format!("{call} HTTP/1.1"), &own], "").0, 401, "{call}");
    }
    let guessed =
        ["POST /signin HTTP/1.1", &own, "Sec-Fetch-Site: same-origin", "Content-Type: application/json"];
    assert_eq!(ask(port, &guessed, "{\"ticket\":\"00\"}").0, 401);
}

/// P10: a page of another origin, also of an agent on this host, does nothing with a person's session; nor does a name that was
/// made to lead here.
#[test]
fn other_sites_start_stop_and_read_nothing() {
    let (host, port) = listening(6);
    host.ok(&["start", "dev", "--runtime", "process", "--", "sleep", "100000"]);
    let [cookie, half] = signed_in(&host, port);
    let own = format!("Host: localhost:{port}");
    let dev = format!("/v1/agents/{}/dev", host.project());
    let page = "Sec-Fetch-Site: same-origin";
    assert_eq!(ask(port, &["GET /v1/agents HTTP/1.1", &own, &cookie, &half, page], "").0, 200);
    // Every server on the host sees the cookie, and can send what it likes along.
    assert_eq!(ask(port, &["GET /v1/agents HTTP/1.1", &own, &cookie, page], "").0, 401);
    // All that there is, so that none is forgotten; and what is for nobody but the page.
    let description: serde_json::Value =
        serde_json::from_str(&http_body_unix(&host.path("broker.sock"), "/openapi.json")).unwrap();
    let described = description["paths"].as_object().unwrap().iter();
    let mut calls: Vec<String> = described
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |method| (method, path)))
        .filter(|(_, path)| path.starts_with("/v1/"))
        .map(|(method, path)| {
            let path = path.replace("{project}", host.project()).replace("{name}", "dev");
            format!("{} {path}", method.to_uppercase())
        })
        .collect();
    assert!(calls.len() > 20 && calls.contains(&format!("POST {dev}/stop")), "{calls:?}");
    calls.push("PUT /v1/agents/default/evil".to_owned());
    let here = format!("Origin: http://localhost:{port}");
    for call in &calls {
        let call = format!("{call} HTTP/1.1");
        for origin in [
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-site",
            "Origin: https://evil.example",
            "Origin: http://localhost:8000",
            "Origin: null",
        ] {
            assert_eq!(ask(port, &[&call, &own, &cookie, &half, origin], "").0, 403, "{call} {origin}");
        }
        // The second could be an agent's, and there is none of that name.
        for (forged, status) in
            [("evil.example", 403), ("a.dev.localhost", 404), ("localhost.evil.example", 403)]
        {
            let forged = format!("Host: {forged}:{port}");
            assert_eq!(ask(port, &[&call, &forged, &cookie, &half, page], "").0, status, "{call} {forged}");
            assert_eq!(ask(port, &[&call, &forged, &cookie, &half, &here], "").0, status, "{call} {forged}");
        }
    }
    assert_eq!(ask(port, &["GET / HTTP/1.1", "Host: evil.example"], "").0, 403);
    // Nor does one sign a browser in, be the ticket a good one.
    let link = host.ok(&["open", "--print"]);
    let ticket = serde_json::json!({ "ticket": link.trim().split_once("#ticket=").unwrap().1 }).to_string();
    let signin = ["POST /signin HTTP/1.1", &own, "Content-Type: application/json"];
    for elsewhere in ["Sec-Fetch-Site: cross-site", "Origin: https://evil.example"] {
        assert_eq!(ask(port, &[&signin[..], &[elsewhere]].concat(), &ticket).0, 403, "{elsewhere}");
    }
    assert_eq!(ask(port, &[&signin[..], &[page]].concat(), &ticket).0, 200, "it was a good one");
    assert_eq!(ask(port, &["POST /v1/sessions HTTP/1.1", &own, &cookie, &half, page], "").0, 403);
    assert_eq!(host.json(&["list"])["agents"].as_array().unwrap().len(), 1);
    assert_eq!(host.agent("dev")["state"], "running");
}

#[test]
fn a_session_outlives_the_broker_and_not_its_token() {
    let (mut host, port) = listening(6);
    let [cookie, half] = signed_in(&host, port);
    let own = format!("Host: localhost:{port}");
    let asked =
        || ask(port, &["GET /v1/agents HTTP/1.1", &own, &cookie, &half, "Sec-Fetch-Site: same-origin"], "").0;
    assert_eq!(asked(), 200);
    host.stop_broker();
    host.serve();
    assert_eq!(asked(), 200);
    host.stop_broker();
    std::fs::remove_file(host.path("token")).unwrap();
    host.serve();
    assert_eq!(asked(), 401);
}

#[test]
fn what_is_behind_a_port_is_told() {
    let (host, _) = listening(6);
    host.ok(&[&process_agent("dev")[..2], &["--wait"], &process_agent("dev")[2..]].concat());
    host.ok(&["start", "idle", "--runtime", "process", "--", "sleep", "100000"]);
    let behind = |name: &str| behind(&host, name);
    eventually("the server answers", || behind("dev")["listens"] == true);
    let told = behind("dev");
    assert_eq!((&told["status"], &told["port"]), (&serde_json::json!(200), &serde_json::json!(host.port(0))));
    assert!(told["title"].as_str().unwrap().contains("dev"), "{told}");
    assert_eq!(behind("idle")["listens"], false);
}

#[test]
fn a_real_browser_signs_in_sees_and_does() {
    let Some(files) = browser_tests() else { return };
    // The script takes the engine away.
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let engine = directory.path().join("engine.sock");
    std::os::unix::fs::symlink("/var/run/docker.sock", &engine).unwrap();
    let runtimes = format!("runtimes: {{ docker: {{ host: \"unix://{}\" }} }}\n", engine.display());
    let (host, _) = listening_with(40, "", &runtimes);
    let image = docker_is_here().then(image);
    let containers =
        image.iter().flat_map(|image| [("IMAGE", OsStr::new(image)), ("ENGINE", engine.as_os_str())]);
    browse(&host, &files, "page.mjs", containers);
}

#[test]
fn a_dead_connection_and_a_used_ticket_are_got_over() {
    let Some(files) = browser_tests() else { return };
    browse(&listening(40).0, &files, "lost.mjs", []);
}

#[test]
fn slow_answers_and_long_logs_are_got_over() {
    let Some(files) = browser_tests() else { return };
    browse(&listening_with(40, ", cool_down: 10s", "").0, &files, "slow.mjs", []);
}

#[test]
fn over_tls_the_page_and_the_previews_are_secure() {
    let Some(files) = browser_tests() else { return };
    let directory = tempfile::tempdir().unwrap();
    browse(&Stage::new(&own_certificate(directory.path())).host, &files, "tls.mjs", []);
}

/// A pool of 1,001 ports of which 400 agents have most.
#[test]
fn a_crowd_is_looked_at() {
    let Some(files) = browser_tests() else { return };
    browse(&with_pool("12000-13000", ""), &files, "crowd.mjs", []);
}

#[test]
fn the_widest_pool_is_looked_at() {
    let Some(files) = browser_tests() else { return };
    // Sockets on all ports of this host would be in the way of every other test.
    browse(&with_pool("1-65535", ", guards: false"), &files, "widest.mjs", []);
}

/// A host with a pool of its own, which no other test has a part in.
fn with_pool(pool: &str, further: &str) -> Host {
    let settings = |range: &str| {
        let listen = range.split_once('-').unwrap().0;
        format!(
            "server: {{ broker: {{ listen: \"127.0.0.1:{listen}\", port_pool: {{ range: \"{pool}\"{further} }} }} }}\n"
        )
    };
    let mut host = Host::with_settings(settings, 1);
    host.serve();
    host
}

/// Runs what a person does with the page in a browser.
fn browse<'a>(
    host: &Host,
    files: &Path,
    script: &str,
    further: impl IntoIterator<Item = (&'a str, &'a OsStr)>,
) {
    let output = host
        .command_of("node")
        .arg(script)
        .current_dir(files)
        .envs([("BERTHOLD", BERTHOLD), ("PROJECT", host.project())])
        .envs(further)
        .output()
        .unwrap();
    drop(std::io::stderr().write_all(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
