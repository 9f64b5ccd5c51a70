//! The web server of the demo's agents: `berthold __demo-server`, hidden, in the container or process of an agent.
//!
//! It listens on every port that the agent was given and answers each with a page that says whose it is. Clients may be
//! slow, broken or many: a request has a size and a time, and only so many are answered at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pool::environment::{AGENT_VARIABLE, PORT_PREFIX, URL_PREFIX};

/// The first argument that makes this program the demo's web server.
pub(crate) const ROLE: &str = "__demo-server";

const LONGEST_REQUEST: u64 = 8 << 10;
const TIME_FOR_A_REQUEST: Duration = Duration::from_secs(5);
const AT_ONCE: usize = 64;

/// What the page tells.
struct Told {
    agent: String,
    host: String,
    ports: BTreeMap<(usize, String), (u16, Option<String>)>,
    since: Instant,
}

/// Serves until it is asked to end.
pub(crate) fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let told = Arc::new(Told::from_environment(std::env::vars()));
    let busy = Arc::new(AtomicUsize::new(0));
    if told.ports.is_empty() {
        let text = format!("{PORT_PREFIX}A is not set: this is to be run as an agent of Berthold");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    for (port, _) in told.ports.values() {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("port {port}: {error}"));
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).map_err(failed)?;
        writeln!(io::stdout(), "{} listens on {port}", told.agent)?;
        let (told, busy, port) = (Arc::clone(&told), Arc::clone(&busy), *port);
        thread::spawn(move || accept(&listener, port, &told, &busy));
    }
    await_end()
}

/// The default action of SIGTERM does not apply to process 1 of a container, so it is waited for (kill(2)).
fn await_end() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}

fn accept(listener: &TcpListener, port: u16, told: &Arc<Told>, busy: &Arc<AtomicUsize>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of file descriptors, most likely: some are given back soon.
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        if busy.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
            busy.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (told, busy) = (Arc::clone(told), Arc::clone(busy));
        thread::spawn(move || {
            // A client that breaks off is its own loss.
            drop(answer(stream, port, &told));
            busy.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn answer(mut stream: TcpStream, port: u16, told: &Told) -> io::Result<()> {
    stream.set_read_timeout(Some(TIME_FOR_A_REQUEST))?;
    stream.set_write_timeout(Some(TIME_FOR_A_REQUEST))?;
    let (method, path) = read_request(&stream)?;
    let (status, kind, body) = match path.split('?').next().unwrap_or_default() {
        _ if method != "GET" && method != "HEAD" => {
            ("405 Method Not Allowed", "text/plain", "only GET and HEAD\n".to_owned())
        }
        "/" => ("200 OK", "text/html", told.page(port)),
        "/healthz" => ("200 OK", "text/plain", "ok\n".to_owned()),
        "/api" => ("200 OK", "application/json", told.json(port)),
        _ => ("404 Not Found", "text/plain", "there is nothing here; try /\n".to_owned()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n\r\n",
        body.len()
    )?;
    if method != "HEAD" {
        stream.write_all(body.as_bytes())?;
    }
    stream.flush()
}

/// The method and the path; the headers are read and passed over.
fn read_request(stream: &TcpStream) -> io::Result<(String, String)> {
    let deadline = Instant::now() + TIME_FOR_A_REQUEST;
    let mut lines = BufReader::new(stream.take(LONGEST_REQUEST)).lines();
    let first = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    for line in lines {
        if line?.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    let mut words = first.split_whitespace().map(str::to_owned);
    match (words.next(), words.next()) {
        (Some(method), Some(path)) => Ok((method, path)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

impl Told {
    fn from_environment(variables: impl Iterator<Item = (String, String)>) -> Self {
        let variables: BTreeMap<String, String> = variables.collect();
        let port = |(name, value): (&String, &String)| {
            let label = name.strip_prefix(PORT_PREFIX)?;
            let url = variables.get(&format!("{URL_PREFIX}{label}")).cloned();
            Some(((label.len(), label.to_owned()), (value.parse().ok()?, url)))
        };
        let host = variables.get("HOSTNAME").cloned();
        Self {
            agent: variables.get(AGENT_VARIABLE).cloned().unwrap_or_else(|| "an unnamed agent".to_owned()),
            host: host.or_else(hostname).unwrap_or_else(|| "unknown".to_owned()),
            ports: variables.iter().filter_map(port).collect(),
            since: Instant::now(),
        }
    }

    fn page(&self, port: u16) -> String {
        let mut cards = String::new();
        for ((_, label), (number, url)) in &self.ports {
            let here = *number == port;
            let url = url.clone().unwrap_or_else(|| format!("http://localhost:{number}"));
            let url = escaped(&url);
            let class = if here { " class=here" } else { "" };
            let note = if here { "<span class=note>this page</span>" } else { "" };
            let label = escaped(label);
            // Writing to a string cannot fail.
            write!(
                cards,
                "<li{class}><span class=label>{label}</span><strong>{number}</strong><a href=\"{url}/\">{url}</a>{note}</li>"
            )
            .expect("a string takes all that is written");
        }
        let (project, name) = self.agent.split_once('/').unwrap_or(("", &self.agent));
        PAGE.replace("{name}", &escaped(name))
            .replace("{project}", &escaped(project))
            .replace("{host}", &escaped(&self.host))
            .replace("{seconds}", &self.since.elapsed().as_secs().to_string())
            .replace("{cards}", &cards)
    }

    fn json(&self, port: u16) -> String {
        let ports: BTreeMap<&str, u16> =
            self.ports.iter().map(|((_, label), (number, _))| (label.as_str(), *number)).collect();
        serde_json::json!({ "agent": self.agent, "port": port, "ports": ports, "host": self.host })
            .to_string()
            + "\n"
    }
}

fn hostname() -> Option<String> {
    Some(rustix::system::uname().nodename().to_str().ok()?.to_owned())
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} · Berthold</title>
<style>
:root { color-scheme: light dark; --ground: #f4f6f8; --card: #fff; --ink: #16202b; --soft: #566472; --line: #dde3e9; --mark: #0b6e99; }
@media (prefers-color-scheme: dark) { :root { --ground: #10161c; --card: #18212a; --ink: #e8eef4; --soft: #9aabba; --line: #2a3744; --mark: #6cc4ec; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 2rem 1rem; background: var(--ground); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { width: 100%; max-width: 44rem; }
p { margin: 0; color: var(--soft); }
h1 { margin: .1em 0 .15em; font-size: clamp(2.6rem, 10vw, 4.6rem); line-height: 1.05; letter-spacing: -.02em; overflow-wrap: anywhere; }
ul { list-style: none; margin: 2rem 0; padding: 0; display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); }
li { position: relative; padding: 1.2rem 1.4rem; background: var(--card); border: 1px solid var(--line); border-radius: 14px; }
li.here { border-color: var(--mark); box-shadow: inset 0 0 0 1px var(--mark); }
.label { color: var(--soft); }
strong { display: block; font-size: 2.2rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.note { position: absolute; top: 1.2rem; right: 1.4rem; color: var(--mark); }
a { color: var(--mark); overflow-wrap: anywhere; }
a:focus-visible { outline: 2px solid; outline-offset: 3px; border-radius: 3px; }
</style>
</head>
<body>
<main>
<p>An agent of project {project}</p>
<h1>{name}</h1>
<p>has these ports to itself, on this host and inside.</p>
<ul>{cards}</ul>
<p>On {host} for {seconds} s. Served by Berthold’s demo.</p>
</main>
</body>
</html>
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        let variables = [
            ("AVAILABLE_LOCALHOST_PORT_A", "8000"),
            ("AVAILABLE_LOCALHOST_PORT_B", "8001"),
            ("AVAILABLE_LOCALHOST_PORT_AA", "8002"),
            ("AVAILABLE_LOCALHOST_URL_B", "http://203.0.113.7:8001"),
            ("BERTHOLD_AGENT", "shop/<script>"),
            ("HOSTNAME", "box"),
        ];
        Told::from_environment(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())))
    }

    /// What a client gets for what it sends.
    fn ask(request: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || accept(&listener, 8001, &Arc::new(told()), &Arc::new(AtomicUsize::new(0))));
        let mut stream = TcpStream::connect(address).unwrap();
        // The server may hang up before it has read all.
        drop(stream.write_all(request));
        let mut answer = String::new();
        drop(stream.read_to_string(&mut answer));
        answer
    }

    #[test]
    fn the_page_tells_whose_it_is_and_escapes_what_it_was_told() {
        let answer = ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("<h1>&lt;script&gt;</h1>") && !answer.contains("<script>"), "{answer}");
        assert!(
            answer.contains("<li class=here><span class=label>B</span><strong>8001</strong>"),
            "{answer}"
        );
        assert!(
            answer.contains("http://203.0.113.7:8001/") && answer.contains("http://localhost:8000/"),
            "{answer}"
        );
        let [b, aa] = ["<strong>8001", "<strong>8002"].map(|part| answer.find(part).unwrap());
        assert!(b < aa, "labels are in their order");
    }

    #[test]
    fn other_requests() {
        assert!(ask(b"GET /healthz HTTP/1.1\r\n\r\n").ends_with("\r\n\r\nok\n"));
        assert!(ask(b"GET /api HTTP/1.1\r\n\r\n").contains("\"port\":8001"));
        assert!(ask(b"GET /x?y HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask(b"POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        let head = ask(b"HEAD / HTTP/1.1\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"));
    }

    #[test]
    fn clients_that_misbehave_get_nothing() {
        assert_eq!(ask(b"\r\n\r\n"), "");
        assert_eq!(ask(b"\xff\xfe\r\n\r\n"), "");
        let long = [b"GET /".as_slice(), &vec![b'x'; 20_000]].concat();
        assert!(!ask(&long).starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn without_ports_it_does_not_start() {
        assert!(Told::from_environment(std::iter::empty()).ports.is_empty());
    }
}
