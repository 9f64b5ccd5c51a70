//! Previews: an agent's server under a name, through the broker.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::json;

use crate::support::*;

/// A broker for browsers, and an agent that has ports on which this process listens in its place.
pub(crate) struct Stage {
    pub(crate) host: Host,
    pub(crate) listen: u16,
}

impl Stage {
    pub(crate) fn new(settings: &str) -> Self {
        Self::listening("127.0.0.1", "", settings)
    }

    /// The same with its broker listening on `address`, and these settings of the pool besides.
    fn listening(address: &str, pool: &str, settings: &str) -> Self {
        let mut listen = 0;
        let mut host = Host::with_settings(
            |range| {
                listen = range.split_once('-').unwrap().1.parse().unwrap();
                format!(
                    "server: {{ broker: {{ listen: \"{address}:{listen}\", port_pool: {{ range: \"{range}\"{pool} }} {settings} }} }}\n"
                )
            },
            6,
        );
        host.serve();
        host.ok(&["start", "dev", "--runtime", "process", "--", "sleep", "100000"]);
        Self { host, listen }
    }

    /// The name of port `label` of the agent.
    pub(crate) fn name(&self, label: &str) -> String {
        format!("{label}.dev.{}.localhost:{}", self.host.project(), self.listen)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.listen)).unwrap()
    }

    /// The whole answer to a request of these lines.
    pub(crate) fn ask(&self, lines: &[&str]) -> String {
        let mut stream = self.connect();
        write!(stream, "{}\r\nConnection: close\r\n\r\n", lines.join("\r\n")).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Serves port `n` of the agent: each connection goes to `serve` with the head of its first request.
    pub(crate) fn serve(&self, n: u16, serve: impl Fn(String, BufReader<TcpStream>) + Send + Sync + 'static) {
        let listener = TcpListener::bind(("127.0.0.1", self.host.port(n))).unwrap();
        let serve = std::sync::Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let serve = std::sync::Arc::clone(&serve);
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    let head = head(&mut stream);
                    if !head.is_empty() {
                        serve(head, stream);
                    }
                });
            }
        });
    }
}

/// What comes until an empty line.
pub(crate) fn head(stream: &mut impl BufRead) -> String {
    let mut head = String::new();
    while let Ok(1..) = stream.read_line(&mut head) {
        if head.ends_with("\r\n\r\n") {
            break;
        }
    }
    head
}

pub(crate) fn answer(stream: &mut BufReader<TcpStream>, headers: &str, body: &str) {
    let length = body.len();
    write!(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{headers}\r\n{body}").unwrap();
}

#[test]
fn a_name_leads_to_a_port_and_says_who_asks() {
    let stage = Stage::new("");
    stage.serve(0, |head, mut stream| {
        answer(&mut stream, "Set-Cookie: a=1; Domain=localhost\r\n", &format!("on A\n{head}"))
    });
    stage.serve(1, |_, mut stream| answer(&mut stream, "", "on B"));
    let (a, b) = (stage.name("a"), stage.name("B"));
    let agent = stage.host.agent("dev");
    assert_eq!(agent["previews"]["A"], json!(format!("http://{a}")));
    let cookie = "Cookie: mine=1; berthold-session-01x=secret; other=2";
    let told = stage.ask(&["GET /some?path=1 HTTP/1.1", &format!("Host: {a}"), cookie, "Accept: */*"]);
    assert!(told.starts_with("HTTP/1.1 200") && told.contains("on A"), "{told}");
    let has = |line: &str| told.to_lowercase().contains(&format!("\r\n{}\r\n", line.to_lowercase()));
    assert!(told.contains("GET /some?path=1 HTTP/1.1"), "{told}");
    assert!(has(&format!("host: {a}")) && has(&format!("x-forwarded-host: {a}")), "{told}");
    assert!(has("x-forwarded-for: 127.0.0.1") && has("x-forwarded-proto: http"), "{told}");
    assert!(has("cookie: mine=1; other=2") && !told.contains("secret"), "{told}");
    assert!(has("set-cookie: a=1") && !told.contains("Domain"), "{told}");
    assert!(stage.ask(&["GET / HTTP/1.1", &format!("Host: {b}")]).ends_with("on B"));
    // P10: under an agent's name there is no API and no page.
    let api = stage.ask(&["GET /v1/agents HTTP/1.1", &format!("Host: {a}")]);
    assert!(api.contains("on A"), "{api}");
}

#[test]
fn without_a_project_a_name_is_one_of_default_and_without_a_label_it_means_the_first_port() {
    let stage = Stage::new("");
    let start = ["--project", "default", "start", "dev", "--runtime", "process", "--", "sleep", "100000"];
    stage.host.ok(&start);
    for (n, said) in [(0, "A of the project"), (2, "A of default"), (3, "B of default")] {
        stage.serve(n, move |_, mut stream| answer(&mut stream, "", said));
    }
    let names = ["a", "b"].map(|label| format!("{label}.dev.localhost:{}", stage.listen));
    let told = stage.host.json(&["--project", "default", "show", "dev"]);
    let links = names.each_ref().map(|name| format!("http://{name}"));
    assert_eq!(told["agent"]["previews"], json!({ "A": links[0], "B": links[1] }));
    for (name, said) in [
        (stage.name("a"), "A of the project"),
        (names[0].clone(), "A of default"),
        (names[1].clone(), "B of default"),
        (format!("dev.localhost:{}", stage.listen), "A of default"),
    ] {
        let told = stage.ask(&["GET / HTTP/1.1", &format!("Host: {name}")]);
        assert!(told.starts_with("HTTP/1.1 200") && told.ends_with(said), "{name}: {told}");
    }
}

/// P10: what is published on loopback alone is not for who comes from elsewhere, whatever name they ask for.
#[test]
fn under_localhost_only_this_host_is_served() {
    // Nothing is sent to that address (RFC 5737): it only tells which of this host's own would be used.
    let route = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let Ok(own) = route else {
        eprintln!("this host has no address but those of loopback: not tested");
        return;
    };
    // A pattern of one's own below `localhost` leads there from nowhere else either.
    let pattern = ", preview_url: \"http://{label}-{name}.localhost:9800\"";
    for pool in ["", pattern] {
        let stage = Stage::listening("0.0.0.0", pool, "");
        let patterned = format!("a-{}--dev.localhost:{}", stage.host.project(), stage.listen);
        for name in [stage.name("a"), patterned].iter().take(if pool.is_empty() { 1 } else { 2 }) {
            let ask = |address: IpAddr| {
                let mut stream = TcpStream::connect((address, stage.listen)).unwrap();
                write!(stream, "GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer
            };
            let from_elsewhere = ask(own.ip());
            assert!(from_elsewhere.starts_with("HTTP/1.1 403"), "{name}: {from_elsewhere}");
            let from_here = ask(IpAddr::from([127, 0, 0, 1]));
            assert!(from_here.starts_with("HTTP/1.1 502"), "nothing listens there: {name}: {from_here}");
        }
    }
}

/// The proxy of an engine accepts what comes, and passes it on into the container.
#[test]
fn a_preview_leads_into_a_container() {
    needs_docker!();
    let stage = Stage::new("");
    stage.host.ok(&web_agent("web", &image()));
    for label in ["a", "b"] {
        let name = format!("{label}.web.{}.localhost", stage.host.project());
        let told = stage.ask(&["GET / HTTP/1.1", &format!("Host: {name}")]);
        let whose = format!("{}/web", stage.host.project());
        assert!(told.starts_with("HTTP/1.1 200") && told.contains(&whose), "{name}: {told}");
    }
}

/// A name of the usual form may be one of the pattern's too: it leads to the agent that is there.
#[test]
fn a_pattern_below_localhost_hides_no_agent() {
    let pattern = ", preview_url: \"http://{label}-{name}.localhost:9800\"";
    let stage = Stage::listening("127.0.0.1", pattern, "");
    let ask = || stage.ask(&["GET / HTTP/1.1", "Host: a-dev.localhost"]);
    assert!(ask().starts_with("HTTP/1.1 404"), "{}", ask());
    let start = ["--project", "default", "start", "a-dev", "--runtime", "process", "--", "sleep", "100000"];
    stage.host.ok(&start);
    assert!(ask().starts_with("HTTP/1.1 502"), "nothing listens there: {}", ask());
    stage.host.ok(&["--project", "default", "delete", "a-dev", "-t", "0s"]);
}

/// A server that refuses names that it does not know, as Rails 6 to 8 do (`ActionDispatch::HostAuthorization`: `Host` and `X-Forwarded-Host`) and
/// Next.js 16 (`allowedDevOrigins`: `Origin`); and a form from elsewhere, as both do.
fn serve_known_names(stage: &Stage) {
    stage.serve(0, |head, mut stream| {
        let head = head.to_lowercase();
        let header = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.map(str::to_owned)
        };
        let origin = header("origin");
        let host = header("x-forwarded-host").or_else(|| header("host")).unwrap();
        let named =
            origin.as_deref().and_then(|origin| origin.split_once("://")).map(|(_, name)| name.to_owned());
        let names = [header("host"), header("x-forwarded-host"), named];
        let is_known = |name: &String| {
            let name = name.split(':').next().unwrap();
            name.split_once('.').is_none_or(|(_, rest)| rest == "localhost") && name.ends_with("localhost")
        };
        let proto = header("x-forwarded-proto").unwrap();
        let is_own = origin.is_none_or(|origin| origin == format!("{proto}://{host}"));
        let said = if names.iter().flatten().all(is_known) && is_own { "let in" } else { "refused" };
        answer(&mut stream, "Connection: close\r\n", said);
    });
}

#[test]
fn a_server_that_checks_names_can_be_asked_as_localhost() {
    let ask = |stage: &Stage, further: &[&str]| {
        let host = format!("Host: {}", stage.name("a"));
        let lines: Vec<&str> =
            ["POST / HTTP/1.1", &host, "Content-Length: 0"].iter().chain(further).copied().collect();
        stage.ask(&lines).split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    let kept = Stage::new("");
    serve_known_names(&kept);
    assert_eq!(ask(&kept, &[]), "refused");
    let stage = Stage::new(", preview_host: localhost");
    serve_known_names(&stage);
    assert_eq!(ask(&stage, &[]), "let in");
    assert_eq!(ask(&stage, &[&format!("Origin: http://{}", stage.name("a"))]), "let in");
    for other in [format!("http://{}", stage.name("b")), "https://evil.example".to_owned(), "null".to_owned()]
    {
        assert_eq!(ask(&stage, &[&format!("Origin: {other}")]), "refused", "{other}");
    }
    let stage = Stage::new(", preview_host: localhost");
    stage.serve(0, |head, mut stream| answer(&mut stream, "", &head));
    let told = stage.ask(&["GET / HTTP/1.1", &format!("Host: {}", stage.name("a"))]).to_lowercase();
    assert!(told.contains(&format!("\r\nhost: localhost:{}\r\n", stage.host.port(0))), "{told}");
    assert!(
        told.contains("\r\nx-forwarded-proto: http\r\n")
            && told.contains("\r\nx-forwarded-for: 127.0.0.1\r\n"),
        "{told}"
    );
}

/// Of a proxy that ends TLS and asks under another name the server hears the scheme alone.
#[test]
fn a_redirect_of_a_server_that_is_asked_as_localhost_leads_back_through_the_proxy() {
    let stage = Stage::new(", preview_host: localhost");
    let port = stage.host.port(0);
    stage.serve(0, move |_, mut stream| {
        answer(&mut stream, &format!("Connection: close\r\nLocation: https://localhost:{port}/in\r\n"), "")
    });
    let host = format!("Host: {}", stage.name("a"));
    let proxied = ["X-Forwarded-Host: dev.example.com", "X-Forwarded-Proto: https"];
    let told = stage.ask(&["GET / HTTP/1.1", &host, proxied[0], proxied[1]]);
    assert!(told.contains("\r\nlocation: https://dev.example.com/in\r\n"), "{told}");
}

#[test]
fn where_nothing_is_a_page_says_so() {
    let stage = Stage::new("");
    let page = |name: &str| {
        stage.ask(&["GET / HTTP/1.1", &format!("Host: {name}:{}", stage.listen), "Accept: text/html"])
    };
    let project = stage.host.project().to_owned();
    let name = |words: &str| format!("{words}.{project}.localhost");
    let silent = page(&name("a.dev"));
    assert!(silent.starts_with("HTTP/1.1 502") && silent.contains("http-equiv=\"refresh\""), "{silent}");
    // A browser would look again with `GET`, and what was sent would be lost.
    for method in ["POST", "PUT", "DELETE"] {
        let line = format!("{method} / HTTP/1.1");
        let host = format!("Host: {}", stage.name("a"));
        let told = stage.ask(&[&line, &host, "Content-Length: 0", "Accept: text/html"]);
        assert!(told.starts_with("HTTP/1.1 502") && told.contains("nothing answers"), "{method}: {told}");
        assert!(told.contains("send it again") && !told.contains("http-equiv"), "{method}: {told}");
    }
    stage.serve(0, |_, mut stream| answer(&mut stream, "", "up"));
    assert!(page(&name("a.dev")).ends_with("up"));
    for (name, status, said) in [
        (name("c.dev"), 404, "has no port C"),
        (name("a.nobody"), 404, "there is no agent"),
        ("nobody.localhost".to_owned(), 404, "there is no agent nobody"),
        ("x.y.z.w.localhost".to_owned(), 404, "is not of the form"),
    ] {
        let told = page(&name);
        assert!(told.starts_with(&format!("HTTP/1.1 {status}")) && told.contains(said), "{name}: {told}");
        assert!(!told.contains("http-equiv"), "it would not pass: {told}");
    }
    stage.host.ok(&["stop", "dev"]);
    let stopped = page(&name("a.dev"));
    assert!(stopped.starts_with("HTTP/1.1 503") && stopped.contains("is stopped"), "{stopped}");
    let plain = stage.ask(&["GET / HTTP/1.1", &format!("Host: {}:{}", name("a.dev"), stage.listen)]);
    assert!(plain.contains("content-type: text/plain") && !plain.contains("<html"), "{plain}");
}

/// A domain of one's own, with a proxy in front that ends TLS.
#[test]
fn a_pattern_of_names_leads_to_ports_and_fills_the_variables() {
    let mut listen = 0;
    let mut host = Host::with_settings(
        |range| {
            listen = range.split_once('-').unwrap().1.parse().unwrap();
            format!(
                "server: {{ broker: {{ listen: \"127.0.0.1:{listen}\", port_pool: {{ range: \"{range}\", \
                 preview_url: \"https://{{label}}-{{name}}.preview.example.com\" }} }} }}\n"
            )
        },
        6,
    );
    host.serve();
    let script = "echo $AVAILABLE_LOCALHOST_URL_A $AVAILABLE_LOCALHOST_URL_B; exec sleep 100000";
    host.ok(&["start", "dev", "--runtime", "process", "--", "sh", "-c", script]);
    let stage = Stage { host, listen };
    let name = |label: &str| format!("{label}-{}--dev.preview.example.com", stage.host.project());
    let urls = format!("https://{} https://{}\n", name("a"), name("b"));
    eventually("the agent knows its URLs", || stage.host.run(&["logs", "dev"]).stdout == urls);
    let agent = stage.host.agent("dev");
    for told in ["urls", "previews"] {
        assert_eq!(agent[told]["B"], json!(format!("https://{}", name("b"))), "{told}");
    }
    stage.serve(1, |head, mut stream| answer(&mut stream, "", &head.to_lowercase()));
    let told = stage.ask(&["GET / HTTP/1.1", &format!("Host: {}", name("B"))]);
    assert!(told.starts_with("HTTP/1.1 200") && told.contains("\r\nx-forwarded-proto: https\r\n"), "{told}");
    // What the pattern does not mean is no preview, and no other name of the page either.
    for (host, status) in [
        (name("c"), 404),
        ("a-nobody.preview.example.com".to_owned(), 404),
        ("preview.example.com".to_owned(), 403),
        (format!("x.{}", name("a")), 403),
    ] {
        let told = stage.ask(&["GET /v1/agents HTTP/1.1", &format!("Host: {host}"), "Accept: text/html"]);
        assert!(told.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {told}");
    }
}

/// An event is there before the next one is written, and what is sent arrives before its end is.
#[test]
fn what_streams_streams_both_ways() {
    let stage = Stage::new("");
    let (go, wait): (Sender<()>, Receiver<()>) = channel();
    let wait = std::sync::Mutex::new(wait);
    stage.serve(0, move |_, mut stream| {
        let out = stream.get_mut();
        write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        .unwrap();
        write!(out, "b\r\ndata: one\n\n\r\n").unwrap();
        wait.lock().unwrap().recv().unwrap();
        write!(out, "b\r\ndata: two\n\n\r\n0\r\n\r\n").unwrap();
    });
    stage.serve(1, |_, mut stream| {
        // The first chunk is answered before the second has been sent.
        let mut line = String::new();
        while !line.contains("first") {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        answer(&mut stream, "Connection: close\r\n", "seen");
    });
    let mut events = stage.connect();
    write!(events, "GET / HTTP/1.1\r\nHost: {}\r\n\r\n", stage.name("a")).unwrap();
    let mut events = BufReader::new(events).lines().map(Result::unwrap);
    assert!(events.any(|line| line == "data: one"));
    go.send(()).unwrap();
    assert!(events.any(|line| line == "data: two"));

    let mut upload = stage.connect();
    write!(
        upload,
        "POST / HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n",
        stage.name("b")
    )
    .unwrap();
    let mut upload = BufReader::new(upload);
    assert!(head(&mut upload).starts_with("HTTP/1.1 200"));
}

#[test]
fn large_bodies_arrive_whole() {
    const SIZE: usize = 200 << 20;
    let stage = Stage::new("");
    let sum =
        |sum: u64, bytes: &[u8]| bytes.iter().fold(sum, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte));
    stage.serve(0, move |head, mut stream| {
        let length = head
            .to_lowercase()
            .split("content-length: ")
            .nth(1)
            .unwrap()
            .split("\r\n")
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let (mut left, mut total, mut buffer): (usize, u64, _) = (length, 0, vec![0; 1 << 16]);
        while left > 0 {
            let most = left.min(buffer.len());
            let read = stream.read(&mut buffer[..most]).unwrap();
            assert_ne!(read, 0, "the body is cut");
            total = sum(total, &buffer[..read]);
            left -= read;
        }
        answer(&mut stream, "", &format!("{length} {total:x}"));
    });
    let mut stream = stage.connect();
    write!(
        stream,
        "PUT /big HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n",
        stage.name("a")
    )
    .unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let (mut piece, mut total) = (vec![0; 1 << 20], 0);
    for _ in 0..SIZE / piece.len() {
        random.fill(&mut piece);
        total = sum(total, &piece);
        stream.write_all(&piece).unwrap();
    }
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    assert!(told.ends_with(&format!("{SIZE} {total:x}")), "{told}");
}

/// What a WebSocket is to a proxy: an upgrade, and then bytes both ways.
#[test]
fn an_upgraded_connection_is_passed_through() {
    let stage = Stage::new("");
    stage.serve(0, |head, mut stream| {
        assert!(head.to_lowercase().contains("\r\nupgrade: websocket\r\n"), "{head}");
        let out = stream.get_mut();
        write!(out, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .unwrap();
        let mut byte = [0];
        while let Ok(1) = stream.read(&mut byte) {
            stream.get_mut().write_all(&byte.map(|byte| byte.to_ascii_uppercase())).unwrap();
        }
    });
    let mut stream = stage.connect();
    write!(
        stream,
        "GET /socket HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        stage.name("a")
    )
    .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    assert!(head(&mut reader).starts_with("HTTP/1.1 101"));
    for word in ["hello\n", "again\n"] {
        stream.write_all(word.as_bytes()).unwrap();
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, word.to_uppercase());
    }
}
