//! `expose: forward`: the broker listens, and passes on.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::{ECHO, WEB, host, needs_cluster, server_of, start, web};
use crate::support::*;

/// Sends `data`, then closes this direction, and reads what comes back until the end.
fn echoed(port: u16, data: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // What does not arrive is missing in the answer.
            drop(writer.write_all(data));
            drop(writer.shutdown(Shutdown::Write));
        });
        let mut back = Vec::new();
        // Nor does what was cut off before its end.
        drop(stream.read_to_end(&mut back));
        back
    })
}

/// What is under way when one direction ends still comes, every time.
#[test]
fn forward_ends_each_direction_by_itself() {
    needs_cluster!();
    let (host, image) = (host("forward", "", 4), cluster_image());
    let mut arguments = start("dev", &image, ECHO);
    arguments.insert(2, "--wait");
    host.ok(&arguments);
    let data: Vec<u8> = (0..2_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert!(echoed(host.port(0), &data) == data, "something is missing"));
        }
    });
}

/// A client that has said all may end its direction before it has its answer, which is then still whole: a node would cut it off after a
/// second.
#[test]
fn forward_waits_for_the_answer_to_who_has_nothing_more_to_say() {
    needs_cluster!();
    let (host, image) = (host("forward", "", 4), cluster_image());
    let slow = "nc -ll -p $AVAILABLE_LOCALHOST_PORT_A -e sh -c 'read name; sleep 3; echo Hello,; sleep 3; echo $name'";
    let mut arguments = start("dev", &image, slow);
    arguments.insert(2, "--wait");
    host.ok(&arguments);
    assert_eq!(echoed(host.port(0), b"you\n"), b"Hello,\nyou\n");
}

/// All are open and have been answered by the pod before any of them asks for what it came for.
#[test]
fn forward_passes_a_hundred_connections_at_once() {
    needs_cluster!();
    let (host, image) = (host("forward", "", 4), cluster_image());
    let script = "trap 'exit 0' TERM
        nc -ll -p $AVAILABLE_LOCALHOST_PORT_A -e sh -c '
            echo welcome; read number; busybox seq $number 100 3000000; echo over' & wait";
    let mut arguments = start("dev", &image, script);
    arguments.insert(2, "--wait");
    host.ok(&arguments);
    let (port, welcomed) = (host.port(0), &AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 0..100_u32 {
            scope.spawn(move || {
                // This server lets no more than two wait: on a busy machine it keeps others for long, or cuts them off.
                let mut answer = None;
                eventually(&format!("connection {number} is welcome"), || {
                    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    let (mut reader, mut line) = (BufReader::new(stream), String::new());
                    let is_welcome = reader.read_line(&mut line).is_ok() && line == "welcome\n";
                    answer = Some(reader);
                    is_welcome
                });
                let mut answer = answer.unwrap();
                answer.get_ref().set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                welcomed.fetch_add(1, Ordering::Relaxed);
                let all = || welcomed.load(Ordering::Relaxed) == 100;
                eventually_or("all are welcome", all, || format!("{welcomed:?}"));
                // What each is sent is its own.
                writeln!(answer.get_mut(), "{number}").unwrap();
                let mut received = String::new();
                answer.read_to_string(&mut received).unwrap_or_else(|error| {
                    panic!("connection {number}, after {} bytes: {error}", received.len())
                });
                let mut expected = String::new();
                for line in (number..=3_000_000).step_by(100) {
                    writeln!(expected, "{line}").unwrap();
                }
                expected.push_str("over\n");
                assert!(received == expected, "connection {number}: {} bytes", received.len());
            });
        }
    });
}

/// A stretch of 1 MiB that differs from all others by the number that it begins with: one that is passed on twice, or in the place of
/// another, changes the checksum of the whole.
fn numbered(number: u32, rest: &[u8]) -> Vec<u8> {
    [format!("{number:07}\n").as_bytes(), rest].concat()
}

#[test]
fn forward_passes_a_gibibyte_byte_for_byte() {
    needs_cluster!();
    let (host, image) = (host("forward", "", 4), cluster_image());
    // One random block, 1024 times over and numbered, and the checksum by the pod itself, as of what it is sent.
    let script = "nc -ll -p $AVAILABLE_LOCALHOST_PORT_B -e sh -c '
            busybox md5sum > /tmp/sent.new; busybox mv /tmp/sent.new /tmp/sent' &
        busybox head -c 1048568 /dev/urandom > /tmp/block
        i=0; while [ $i -lt 1024 ]; do printf '%07d\\n' $i; cat /tmp/block; i=$((i + 1)); done > /tmp/big
        busybox md5sum < /tmp/big > /tmp/sum.new; busybox mv /tmp/sum.new /tmp/sum
        trap 'exit 0' TERM; httpd -f -p $AVAILABLE_LOCALHOST_PORT_A -h /tmp & wait";
    host.ok(&start("dev", &image, script));
    let told = |path: &str| fetch_path(host.port(0), path).unwrap_or_default().trim().to_owned();
    eventually("the file is there", || !told("/sum").is_empty());
    let mut stream = TcpStream::connect(("127.0.0.1", host.port(0))).unwrap();
    write!(stream, "GET /big HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = BufReader::new(stream);
    let mut line = String::from("head");
    while !line.trim().is_empty() {
        line.clear();
        answer.read_line(&mut line).unwrap();
    }
    let mut sum = Md5::begin();
    let length = std::io::copy(&mut answer, &mut sum.input()).unwrap();
    assert_eq!(length, 1 << 30);
    assert_eq!(sum.end(), told("/sum"));

    // And the other way.
    let mut state = 1_u32;
    let rest: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take((1 << 20) - 8)
    .collect();
    let mut sum = Md5::begin();
    let mut stream = TcpStream::connect(("127.0.0.1", host.port(1))).unwrap();
    for number in 0..256 {
        let block = numbered(number, &rest);
        sum.input().write_all(&block).unwrap();
        stream.write_all(&block).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let sum = sum.end();
    eventually_or(
        "the pod has received it all",
        || told("/sent") == sum,
        || format!("{sum}, {}", told("/sent")),
    );
}

/// The command `md5sum`, as the pod has it too.
struct Md5(Child);

impl Md5 {
    fn begin() -> Self {
        Self(Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn input(&mut self) -> &mut ChildStdin {
        self.0.stdin.as_mut().unwrap()
    }

    fn end(self) -> String {
        let output = self.0.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// P9: after a restart of the broker its listeners are back; of a port that someone has taken meanwhile it says so.
#[test]
fn forward_is_taken_up_again_by_the_next_broker() {
    needs_cluster!();
    let mut host = host("forward", "", 4);
    web(&host, "dev");
    host.kill_broker();
    let thief = TcpListener::bind(("127.0.0.1", host.port(0))).unwrap();
    host.serve();
    assert_eq!(host.agent("dev")["published"], Value::Null, "it is not reached, so nothing is claimed");
    let warnings = host.json(&["broker", "status"])["broker"]["warnings"].to_string();
    assert!(warnings.contains(&host.port(0).to_string()), "{warnings}");
    drop(thief);
    eventually("it is published again", || host.agent("dev")["published"] == "127.0.0.1");
    assert!(fetch(host.port(0)).unwrap().contains("dev"));
    assert_eq!(host.json(&["broker", "status"])["broker"]["warnings"], json!([]));
}

/// The broker accepts whoever connects; that is no answer of the pod.
#[test]
fn forward_waits_until_the_pod_itself_accepts() {
    needs_cluster!();
    let (host, image) = (host("forward", "", 8), cluster_image());
    let started = |name: &str, wait: &str, script: &str| {
        let mut arguments = start(name, &image, script);
        arguments.insert(2, wait);
        host.json(&arguments)["agent"]["warnings"].clone()
    };
    let warnings = started("never", "--wait=2s", IDLE);
    assert!(warnings.to_string().contains("nothing answers"), "{warnings}");
    assert_eq!(started("late", "--wait", &format!("sleep 3; {WEB}")), json!([]));
    assert!(fetch(host.port(2)).is_some(), "it answers by now");
    // One that accepts, and then says nothing and does not go away.
    assert_eq!(started("mute", "--wait", "nc -ll -p $AVAILABLE_LOCALHOST_PORT_A -e sleep 100000"), json!([]));
}

/// P9: what is cut off is told from what has ended, and what was published is so again once the API server is back.
#[test]
fn forward_resets_what_is_cut_off_and_outlives_the_api_server_s_absence() {
    needs_cluster!();
    let (between, host, _kubeconfig) = Between::host();
    let image = cluster_image();
    let mut arguments = start("dev", &image, "nc -ll -p $AVAILABLE_LOCALHOST_PORT_A -e cat /dev/zero");
    arguments.insert(2, "--wait");
    host.ok(&arguments);
    let begun = || {
        let mut stream = TcpStream::connect(("127.0.0.1", host.port(0)))?;
        stream.read_exact(&mut [0; 1 << 16]).map(|()| stream)
    };
    let mut stream = begun().unwrap();
    between.cut(true);
    let ended = std::io::copy(&mut stream, &mut std::io::sink()).map_err(|error| error.kind());
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
    assert!(begun().is_err());
    between.cut(false);
    eventually("it is reached again", || begun().is_ok());
    assert_eq!(host.agent("dev")["published"], "127.0.0.1");
}

/// P4: a cluster that has just gone away is known to have before an agent elsewhere is ended in favour of a pod.
#[test]
fn nothing_is_ended_for_a_cluster_that_has_gone_away() {
    needs_cluster!();
    let (between, host, _kubeconfig) = Between::host();
    let image = cluster_image();
    // A pod of which nothing else is known yet vouches for its cluster.
    host.ok(&start("vouching", &image, IDLE));
    host.ok(&["start", "dev", "--runtime", "process", "--", "sleep", "100000"]);
    let agent = host.agent("dev");
    between.cut(true);
    let mut anew = start("dev", &image, IDLE);
    anew.insert(2, "--replace");
    assert_eq!(host.error(6, &anew)["code"], "runtime_unreachable");
    assert_eq!(host.agent("dev"), agent);
    between.cut(false);
    host.ok(&anew);
    assert_eq!(host.agent("dev")["runtime"], "kubernetes");
}

/// A port behind which the API server answers, unless it is cut off.
pub(super) struct Between {
    port: u16,
    /// What is open; none while it is cut off.
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Between {
    /// A broker whose kubeconfig, the file, leads here.
    pub(super) fn host() -> (Self, Host, NamedTempFile) {
        let (between, mut host, file) = Self::unserved();
        host.serve();
        (between, host, file)
    }

    /// The same before the broker runs.
    pub(super) fn unserved() -> (Self, Host, NamedTempFile) {
        let admin = fs::read_to_string(std::env::var("BERTHOLD_KUBECONFIG").unwrap()).unwrap();
        let server = server_of(&admin);
        let between = Self::open(server.trim_start_matches("https://").trim_end_matches('/'));
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), admin.replace(&server, &format!("https://127.0.0.1:{}", between.port)))
            .unwrap();
        let host = Host::with_pool(4).with_kubeconfig(file.path().to_str().unwrap());
        (between, host, file)
    }

    fn open(server: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (port, server) = (listener.local_addr().unwrap().port(), server.to_owned());
        let open = Arc::new(Mutex::new(Some(Vec::new())));
        let opened = Arc::clone(&open);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (near, far) = (near.unwrap(), TcpStream::connect(&server).unwrap());
                let copies = [(&near, &far), (&far, &near)]
                    .map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()));
                match opened.lock().unwrap().as_mut() {
                    Some(opened) => opened.extend([near, far]),
                    None => continue,
                }
                for (mut from, mut to) in copies {
                    std::thread::spawn(move || {
                        drop(std::io::copy(&mut from, &mut to));
                        drop(to.shutdown(Shutdown::Write));
                    });
                }
            }
        });
        Self { port, open }
    }

    pub(super) fn cut(&self, is_cut: bool) {
        let next = if is_cut { None } else { Some(Vec::new()) };
        for stream in std::mem::replace(&mut *self.open.lock().unwrap(), next).into_iter().flatten() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

/// Whoever makes a pod anew by hand has it under its lease, and reached again: also while it is still on its way.
#[test]
fn a_pod_that_is_made_anew_by_hand_is_reached_again() {
    needs_cluster!();
    let host = host("forward", "", 4);
    let before = web(&host, "dev");
    let name = host.container("dev");
    let pod = kubectl(&["get", "pod", &name, "-o", "json"]);
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), pod).unwrap();
    // Whoever sees its end adopts what comes after it; a broker that slept meanwhile does not see it.
    host.pause_broker();
    kubectl(&["replace", "--force", "--grace-period=1", "-f", file.path().to_str().unwrap()]);
    host.wake_broker();
    eventually_or(
        "it is reached again",
        || fetch(host.port(0)).is_some_and(|text| text.contains("dev")),
        || host.broker_log(),
    );
    let now = host.agent("dev");
    assert_eq!((&now["lease"], &now["published"]), (&before["lease"], &json!("127.0.0.1")));
    assert_ne!(now["id"], before["id"]);
    host.ok(&["delete", "dev", "-t", "1s"]);
}

/// P9: the way to a cluster may be known only after the broker has started, such as from a home that is mounted late.
#[test]
fn a_cluster_that_is_known_after_the_broker_has_started_is_reached() {
    needs_cluster!();
    let mut host = Host::looking_every("500ms", 4);
    host.serve();
    web(&host, "dev");
    host.stop_broker();
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().display().to_string();
    host.serve_with(&[("KUBECONFIG", ""), ("HOME", &home)]);
    let told = || host.json(&["broker", "status"])["broker"]["warnings"].to_string();
    eventually_or("it is told", || told().contains("kubernetes does not answer"), told);
    assert_eq!(host.leased().len(), 2);
    fs::create_dir(directory.path().join(".kube")).unwrap();
    fs::copy(std::env::var("BERTHOLD_KUBECONFIG").unwrap(), directory.path().join(".kube/config")).unwrap();
    eventually("it is reached", || fetch(host.port(0)).is_some_and(|text| text.contains("dev")));
    eventually("it is said to be", || host.agent("dev")["published"] == "127.0.0.1");
    host.ok(&["delete", "dev", "-t", "1s"]);
}
