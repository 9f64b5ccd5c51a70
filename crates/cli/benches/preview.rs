//! How fast a preview is, beside nginx with one worker as the proxy of the same server, which tells that as much of who asked: small
//! answers over 32 kept connections (`wrk`), all of which ask as fast as they are answered, or pause as browsers do; over one; and the download
//! of 1 GiB. Both are asked in turn, and the medians of the ratios are printed. The machine's speed cancels out in each pair.
//!
//! `cargo bench -p cli --bench preview`; `PAIRS=3` for fewer. Needs `nginx`, `wrk` and `curl`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fmt::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BERTHOLD: &str = env!("CARGO_BIN_EXE_berthold");
const SERVER: u16 = 17_070;
const NGINX: u16 = 17_071;
const BROKER: u16 = 17_072;
/// What `wrk` does between two requests of a connection: it waits 5 to 15 ms, so that the servers are busy about a third of the time.
const PAUSES: &str = "function delay() return math.random(5, 15) end\n";

/// What one run of `wrk` found.
struct Load {
    /// A second.
    requests: f64,
    median: Duration,
    p99: Duration,
}

fn main() {
    let pairs: usize = std::env::var("PAIRS").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    for (program, flag) in [("nginx", "-v"), ("wrk", "-v"), ("curl", "-V")] {
        let tried = Command::new(program).arg(flag).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if tried.is_err() {
            println!("not measured: there is no `{program}`");
            return;
        }
    }
    let home = tempfile::tempdir().expect("a scratch home can be made");
    let settings = format!(
        "server: {{ broker: {{ listen: \"127.0.0.1:{BROKER}\", port_pool: {{ range: \"{SERVER}\", ports_per_agent: 1 }} }} }}\n"
    );
    std::fs::write(home.path().join("settings.yaml"), settings).expect("the scratch home can be written to");
    let big = std::fs::File::create(home.path().join("big")).expect("the scratch home can be written to");
    big.set_len(1 << 30).expect("a sparse file can be made");
    let server = nginx_settings(
        home.path(),
        "server",
        &format!(
            "server {{ listen 127.0.0.1:{SERVER}; root {}; location = /small {{ return 200 'a small answer'; }} }}",
            home.path().display()
        ),
    );
    let proxy = nginx_settings(
        home.path(),
        "proxy",
        &format!(
            "upstream agent {{ server 127.0.0.1:{SERVER}; keepalive 64; }}
            server {{ listen 127.0.0.1:{NGINX}; location / {{ proxy_pass http://agent; proxy_http_version 1.1;
            proxy_set_header Connection ''; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Forwarded-Proto $scheme; proxy_max_temp_file_size 0; }} }}"
        ),
    );
    let berthold = |arguments: &[&str]| {
        let mut command = Command::new(BERTHOLD);
        command.env("BERTHOLD_HOME", home.path()).args(arguments).stdout(Stdio::null());
        command
    };
    let broker = berthold(&["serve"]).stderr(Stdio::null()).spawn();
    let _broker = Ended(broker.expect("the broker can be started"));
    while !berthold(&["broker", "status"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    {
        std::thread::sleep(Duration::from_millis(50));
    }
    let start = ["start", "bench", "--runtime", "process", "--wait", "--", "nginx", "-c", &server];
    assert!(berthold(&start).status().is_ok_and(|status| status.success()), "the server does not start");
    let nginx = Command::new("nginx").args(["-c", &proxy]).stderr(Stdio::null()).spawn();
    let _nginx = Ended(nginx.expect("nginx can be started"));
    std::thread::sleep(Duration::from_millis(500));

    let host = format!("a.bench.localhost:{BROKER}");
    let pauses = home.path().join("pauses.lua");
    std::fs::write(&pauses, PAUSES).expect("the scratch home can be written to");
    let mut ratios: [(&str, Vec<f64>); 7] = [
        "small answers",
        "median latency",
        "99th percentile",
        "median latency with pauses",
        "99th percentile with pauses",
        "latency of one at a time",
        "1 GiB",
    ]
    .map(|what| (what, Vec::new()));
    for pair in 0..pairs {
        let mut sides = [(NGINX, None), (BROKER, None)];
        // Whoever comes first finds the machine in another state than who comes second.
        if pair % 2 == 1 {
            sides.reverse();
        }
        for (port, found) in &mut sides {
            let all = load(*port, &host, 32, None);
            let pausing = load(*port, &host, 32, Some(&pauses));
            *found = Some((all, pausing, load(*port, &host, 1, None), fetch(*port, &host)));
        }
        if pair % 2 == 1 {
            sides.reverse();
        }
        let [
            (_, Some((nginx, nginx_pausing, nginx_one, nginx_fetch))),
            (_, Some((broker, broker_pausing, broker_one, broker_fetch))),
        ] = sides
        else {
            return;
        };
        println!(
            "small answers: nginx {:.0}/s, preview {:.0}/s; {:.0}/s with pauses: nginx {:?}, preview {:?}; one at a time: nginx {:?}, preview {:?}; 1 GiB: nginx {:.2} s, preview {:.2} s",
            nginx.requests,
            broker.requests,
            broker_pausing.requests,
            nginx_pausing.median,
            broker_pausing.median,
            nginx_one.median,
            broker_one.median,
            nginx_fetch.as_secs_f64(),
            broker_fetch.as_secs_f64()
        );
        let shorter = |nginx: Duration, broker: Duration| nginx.as_secs_f64() / broker.as_secs_f64();
        let found = [
            broker.requests / nginx.requests,
            shorter(nginx.median, broker.median),
            shorter(nginx.p99, broker.p99),
            shorter(nginx_pausing.median, broker_pausing.median),
            shorter(nginx_pausing.p99, broker_pausing.p99),
            shorter(nginx_one.median, broker_one.median),
            shorter(nginx_fetch, broker_fetch),
        ];
        for ((_, ratios), found) in ratios.iter_mut().zip(found) {
            ratios.push(found);
        }
    }
    drop(berthold(&["delete", "--all", "--timeout", "0s"]).status());
    println!("preview beside nginx, more than 1 is faster, medians of {pairs} pairs:");
    for (what, mut ratios) in ratios {
        ratios.sort_by(f64::total_cmp);
        let text = ratios.iter().fold(String::new(), |mut text, ratio| {
            let _ = write!(text, " {ratio:.2}");
            text
        });
        println!("  {what}: {:.2}  ({})", ratios[ratios.len() / 2], text.trim());
    }
}

/// Writes the settings of an nginx of one worker, in the foreground; their path.
fn nginx_settings(home: &Path, name: &str, http: &str) -> String {
    let path = home.join(format!("{name}.conf"));
    let directory = home.join(name);
    std::fs::create_dir(&directory).expect("the scratch home can be written to");
    let at = directory.display();
    let settings = format!(
        "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/log; events {{ worker_connections 1024; }}
        http {{ access_log off; sendfile on; keepalive_requests 1000000; client_body_temp_path {at}/a; proxy_temp_path {at}/b;
        fastcgi_temp_path {at}/c; uwsgi_temp_path {at}/d; scgi_temp_path {at}/e; {http} }}"
    );
    std::fs::write(&path, settings).expect("the scratch home can be written to");
    path.display().to_string()
}

/// Small answers over connections that are kept, with the pauses of a script if there is one.
fn load(port: u16, host: &str, connections: u8, pauses: Option<&Path>) -> Load {
    let output = Command::new("wrk")
        .args(pauses.into_iter().flat_map(|script| [Path::new("-s"), script]))
        .args(["-t1", "-d4s", "--latency", "-H", &format!("Host: {host}"), &format!("-c{connections}")])
        .arg(format!("http://127.0.0.1:{port}/small"))
        .output()
        .expect("wrk was there a moment ago");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
    let after = |word: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(word));
        line.unwrap_or_else(|| panic!("wrk says nothing of {word}: {text}")).trim()
    };
    let time = |text: &str| {
        let start = text.find(|c: char| c.is_alphabetic()).expect("a time has a unit");
        let number: f64 = text[..start].parse().expect("a time is a number");
        let unit = match &text[start..] {
            "us" => 1e-6,
            "ms" => 1e-3,
            _ => 1.0,
        };
        Duration::from_secs_f64(number * unit)
    };
    Load {
        requests: after("Requests/sec:").parse().expect("a rate is a number"),
        median: time(after("50%")),
        p99: time(after("99%")),
    }
}

/// How long 1 GiB takes.
fn fetch(port: u16, host: &str) -> Duration {
    let begun = Instant::now();
    let output = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{size_download}", "-H", &format!("Host: {host}")])
        .arg(format!("http://127.0.0.1:{port}/big"))
        .output()
        .expect("curl was there a moment ago");
    assert_eq!(String::from_utf8_lossy(&output.stdout), (1_u64 << 30).to_string());
    begun.elapsed()
}

/// A process that ends with this one.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(Command::new("kill").arg(self.0.id().to_string()).status());
        drop(self.0.wait());
    }
}
