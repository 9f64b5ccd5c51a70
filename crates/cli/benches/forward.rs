//! How fast `expose: forward` passes data on, beside `kubectl port-forward` to the same pod: a file of 256 MiB is fetched through
//! both in turn, and the median of the ratios is printed. The machine's speed cancels out in each pair.
//!
//! `BERTHOLD_KUBECONFIG=FILE cargo bench -p cli --bench forward`; `PAIRS=5` for fewer. Needs `kubectl`, and a cluster whose nodes
//! have the tests' image (BERTHOLD_TEST_CLUSTER_IMAGE).

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BERTHOLD: &str = env!("CARGO_BIN_EXE_berthold");
const SIZE: u64 = 256 << 20;
const PORT: u16 = 17_060;

fn main() {
    let pairs: usize = std::env::var("PAIRS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let Some(kubeconfig) = std::env::var_os("BERTHOLD_KUBECONFIG") else {
        println!("not measured: BERTHOLD_KUBECONFIG names no cluster");
        return;
    };
    let image =
        std::env::var("BERTHOLD_TEST_CLUSTER_IMAGE").unwrap_or_else(|_| "localhost/httpd:1".to_owned());
    let home = tempfile::tempdir().expect("a scratch home can be made");
    let settings = format!(
        "server: {{ broker: {{ listen: none, port_pool: {{ range: \"{PORT}\", ports_per_agent: 1 }} }} }}\n"
    );
    std::fs::write(home.path().join("settings.yaml"), settings).expect("the scratch home can be written to");
    let berthold = |arguments: &[&str]| {
        let mut command = Command::new(BERTHOLD);
        command.env("BERTHOLD_HOME", home.path()).env("KUBECONFIG", &kubeconfig).args(arguments);
        command.stdout(Stdio::null());
        command
    };
    let _broker =
        Ended(berthold(&["serve"]).stderr(Stdio::null()).spawn().expect("the broker can be started"));
    while !berthold(&["broker", "status"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    {
        std::thread::sleep(Duration::from_millis(50));
    }
    let script = "busybox truncate -s 256M /tmp/big
        trap 'exit 0' TERM; httpd -f -p $AVAILABLE_LOCALHOST_PORT_A -h /tmp & wait";
    let start = [
        "start",
        "forward-bench",
        "--runtime",
        "kubernetes",
        "--image",
        &image,
        "--wait",
        "--",
        "sh",
        "-c",
        script,
    ];
    assert!(berthold(&start).status().is_ok_and(|status| status.success()), "the pod does not start");
    let forward = ["port-forward", "pod/forward-bench", &format!(":{PORT}")];
    let mut kubectl = Command::new("kubectl")
        .env("KUBECONFIG", &kubeconfig)
        .args(forward)
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl can be started");
    let mut line = String::new();
    let told = kubectl.stdout.take().expect("its output was asked for");
    let mut told = BufReader::new(told);
    told.read_line(&mut line).expect("kubectl says where it listens");
    let _kubectl = Ended(kubectl);
    // `Forwarding from 127.0.0.1:40123 -> 17060`
    let theirs = line.split(" -> ").next().and_then(|text| text.rsplit(':').next()?.parse().ok());
    let theirs = theirs.expect("kubectl says on which port it listens");

    // The first pair warms both up and does not count.
    fetch(PORT);
    fetch(theirs);
    let mut ratios = Vec::new();
    for pair in 0..pairs {
        let (ours, kubectl) = if pair % 2 == 0 {
            let ours = fetch(PORT);
            (ours, fetch(theirs))
        } else {
            let kubectl = fetch(theirs);
            (fetch(PORT), kubectl)
        };
        ratios.push(kubectl.as_secs_f64() / ours.as_secs_f64());
        let rate = |time: Duration| (SIZE >> 20) as f64 / time.as_secs_f64();
        println!("pair {pair:2}: berthold {:6.0} MiB/s, kubectl {:6.0} MiB/s", rate(ours), rate(kubectl));
    }
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    println!(
        "median throughput, berthold / kubectl: {:.2} ({pairs} pairs, {least:.2} to {most:.2})",
        ratios[ratios.len() / 2]
    );
    drop(berthold(&["delete", "forward-bench", "-t", "0s"]).status());
}

fn fetch(port: u16) -> Duration {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the forward listens");
    stream.write_all(b"GET /big HTTP/1.0\r\n\r\n").expect("the forward takes the request");
    let (mut buffer, mut length) = (vec![0; 1 << 18], 0);
    loop {
        match stream.read(&mut buffer).expect("the forward passes on") {
            0 => break,
            read => length += read as u64,
        }
    }
    assert!(length > SIZE, "only {length} bytes came");
    begun.elapsed()
}

/// Ended with the value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
