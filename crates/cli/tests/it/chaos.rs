//! A long random mix of everything that happens to a real host, with an observer beside it that asks nothing of the broker.
//!
//! `BERTHOLD_CHAOS_STEPS` and `BERTHOLD_CHAOS_SEED` make it longer and have it again as it was. What the engine and the scheduler do is
//! not in the seed, so that the same one may take another course; each step begins with chances of its own, whatever came of those before.
//!
//! The engine is cut off and loses what it runs, as with a restart; `BERTHOLD_CHAOS_ENGINE`, a command of the shell, really restarts it,
//! on a machine where nothing else needs it.

#![expect(clippy::print_stdout, reason = "figures, for whoever runs this with `--no-capture`")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::clock::Clock;
use crate::observer::{self, Holders, Seen};
use crate::support::*;

/// The agents of a run, so few that they meet each other's past, and so many that they fill the pool.
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
/// The owners of bare leases, of whom nothing runs.
const OWNERS: [&str; 2] = ["x", "y"];
/// How many ports the pool has; with four agents of the larger kind it is nearly full.
const POOL: u16 = 18;
/// After how many steps all must agree.
const PACE: u64 = 15;

/// Where agents run, how what runs there is seen, and how it is ended behind the broker's back.
#[derive(Clone, Copy)]
struct Subject {
    runtime: &'static str,
    seen: fn(&Host) -> Seen,
    end: fn(&Host, &str, &mut Rng),
    /// The same without a word on what seems to be there twice.
    holders: fn(&Host) -> Holders,
    /// Whether each port of an agent that runs has a socket that listens, whatever the agent does.
    has_sockets: bool,
    /// What runs a web server on the agent's ports, or on the first of them.
    server: &'static [&'static str],
}

/// Says whose it is on port A.
const HTTPD: &str = "echo $BERTHOLD_AGENT > /tmp/index.html; trap 'exit 0' TERM
    httpd -p $AVAILABLE_LOCALHOST_PORT_A -h /tmp; sleep 100000 & wait";
/// What is in the command of all that answer.
const SERVERS: [&str; 2] = ["httpd", "__demo-server"];

/// One run.
struct Chaos {
    subject: Subject,
    host: Host,
    seed: u64,
    rng: Rng,
    /// What the broker reaches Docker through, and where.
    engine: Option<Between>,
    socket: PathBuf,
    clock: Option<Clock>,
    /// The ports that are held by this process, which stands for strangers.
    foreign: BTreeMap<u16, TcpListener>,
    containers: BTreeSet<u16>,
    figures: Figures,
    done: Vec<String>,
}

#[derive(Default, Debug)]
struct Figures {
    commands: u64,
    /// How many of those that were waited for have succeeded.
    succeeded: u64,
    kills: u64,
    ledgers_lost: u64,
    ended_outside: u64,
    disk_full: u64,
    engine_restarts: u64,
    clock_jumps: u64,
    /// How often it was looked for ports with two owners while commands were under way.
    looks: u64,
    /// How often an agent's server answered on its port.
    answers: u64,
    /// From the start of the next broker, before it answers, until ledger and runtime agreed, after a kill.
    recoveries: Vec<Duration>,
}

impl Chaos {
    fn new(subject: Subject, seed: u64) -> Self {
        let host = Host::with_settings(|_| String::new(), POOL).with_kubeconfig("/dev/null");
        // Beside the home, which is to be on a disk of its own.
        let socket = host.path(".").canonicalize().unwrap().with_extension("sock");
        let engine = (subject.runtime == "docker").then(|| Between::open(&socket));
        let docker = if engine.is_some() { socket.to_str().unwrap() } else { "/nowhere" };
        let settings = format!(
            "server: {{ broker: {{ listen: none, auto_start: false, reconcile_interval: 1s, \
             port_pool: {{ range: \"{}-{}\" }} }} }}\n\
             runtimes: {{ docker: {{ host: \"unix://{docker}\" }}, podman: {{ host: unix:///nowhere }} }}\n",
            host.port(0),
            host.port(POOL - 1),
        );
        fs::write(host.path("settings.yaml"), settings).unwrap();
        let (foreign, containers) = (BTreeMap::new(), BTreeSet::new());
        let rng = Rng::with_seed(seed);
        let (clock, figures) = (Clock::find(), Figures::default());
        Self {
            subject,
            host,
            seed,
            rng,
            engine,
            socket,
            clock,
            foreign,
            containers,
            figures,
            done: Vec::new(),
        }
    }

    fn serve(&mut self) {
        // A log that is never read would fill the disk.
        drop(fs::remove_file(self.host.path("broker.log")));
        let mut variables = vec![("BERTHOLD_LOG", "info")];
        variables.extend(self.clock.iter().flat_map(Clock::variables));
        self.host.serve_with(&variables);
    }

    fn run(&mut self, steps: u64) {
        self.serve();
        for step in 1..=steps {
            self.rng = Rng::with_seed(self.seed ^ step.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let before = (self.subject.seen)(&self.host);
            let held: BTreeSet<u16> = self.foreign.keys().chain(&self.containers).copied().collect();
            self.step();
            let seen = (self.subject.seen)(&self.host);
            self.check_at_any_time(&seen);
            for (name, ports) in seen.iter().filter(|(name, ports)| before.get(*name) != Some(ports)) {
                let taken: Vec<&u16> = ports.iter().filter(|port| held.contains(port)).collect();
                assert!(taken.is_empty(), "{name} was given {taken:?}, which others hold\n{}", self.story());
            }
            if step % PACE == 0 {
                self.check_agreement();
            }
        }
        self.check_agreement();
        self.foreign.clear();
        self.remove_containers();
        self.host.ok(&["delete", "--all", "-t", "0s"]);
        for owner in OWNERS {
            self.host.run(&["release", owner]);
        }
        assert_eq!((self.subject.seen)(&self.host), Seen::new(), "{}", self.story());
        assert_eq!(observer::ledger(&self.host), Seen::new(), "{}", self.story());
        assert_eq!(self.host.leftovers(self.subject.runtime), Vec::<String>::new(), "{}", self.story());
        // A broker that refuses everything keeps most promises.
        let Figures { commands, succeeded, looks, answers, .. } = self.figures;
        assert!(succeeded * 5 > commands && looks > 0, "{:?}", self.figures);
        assert!(answers > 0 || steps < 60, "{:?}", self.figures);
    }

    fn step(&mut self) {
        match self.rng.u32(0..100) {
            0..=24 => self.commands(1),
            25..=29 => self.come_back(),
            30..=54 => self.commands(3),
            55..=61 => self.commands(8),
            62..=70 => self.end_outside(),
            71..=82 => self.toggle_foreign(),
            83..=86 => self.kill_broker(),
            87..=88 => self.restart_engine(),
            89..=92 => self.kill_broker_at_work(),
            93..=94 => self.set_clock(),
            95 => {
                self.say("the broker is restarted");
                self.host.stop_broker();
                self.serve();
            }
            96 => self.change_range(),
            97 => self.lose_ledger(),
            98 => self.damage_ledger(),
            _ => self.fill_disk(),
        }
    }

    /// Several commands at once; none need succeed.
    fn commands(&mut self, count: usize) {
        let mut children: Vec<_> = (0..count).map(|_| self.spawn()).collect();
        self.watch(&mut children);
        for child in children {
            let output = child.wait_with_output().unwrap();
            let code = output.status.code();
            self.figures.succeeded += u64::from(code == Some(0));
            // What a user may meet: failed; a restart of what was found by its labels; no such agent, pool exhausted, the
            // container gone in the middle of it, conflict.
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(matches!(code, Some(0..=4 | 6 | 7)), "{code:?}: {text}\n{}", self.story());
        }
    }

    /// P1 holds in every instant while these are under way, and not only when they are over.
    fn watch(&mut self, children: &mut [Child]) {
        while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
            self.figures.looks += 1;
            let doubles = || observer::doubles(&(self.subject.holders)(&self.host));
            // A port may pass from one to the other between the beginning of a look and its end, but not in each of three.
            let mut found = doubles();
            for _ in 0..2 {
                sleep(Duration::from_millis(20));
                if !found.is_empty() {
                    let again = doubles();
                    found.retain(|port, owners| again.get(port) == Some(owners));
                }
            }
            assert!(found.is_empty(), "two owners: {found:?}\n{}", self.story());
        }
    }

    /// P6: an agent that is restarted, or stopped and started again, has the ports that it had, unless someone else has taken one.
    fn come_back(&mut self) {
        let seen = (self.subject.seen)(&self.host);
        let Some((name, before)) = seen.iter().nth(self.rng.usize(0..NAMES.len())) else { return };
        let commands: &[&str] = if self.rng.bool() { &["restart"] } else { &["stop", "start"] };
        for command in commands {
            self.say(&format!("{command} {name}, which has {before:?}"));
            self.figures.commands += 1;
            // One that has ended by itself, or of which only the labels are known, need not come back.
            if self.host.run(&[command, name]).code != 0 {
                return;
            }
        }
        let after = (self.subject.seen)(&self.host);
        // A range that has changed meanwhile has others for who does not run.
        let is_taken =
            before.iter().any(|port| self.foreign.contains_key(port) || !self.range().contains(port));
        assert!(
            is_taken || after.get(name).is_none_or(|after| after == before),
            "{name} had {before:?} and has {:?}\n{}\n{}",
            after.get(name),
            self.story(),
            self.host.broker_log()
        );
    }

    fn spawn(&mut self) -> Child {
        let name = NAMES[self.rng.usize(0..NAMES.len())];
        let ports = self.rng.u16(1..=4).to_string();
        let (image, mut arguments) = (image(), vec!["--json"]);
        let owner = OWNERS[self.rng.usize(0..OWNERS.len())];
        match self.rng.u32(0..12) {
            10 => arguments.extend(["lease", owner, "--replace", "-n", &ports]),
            11 => arguments.extend(["release", owner]),
            0..=4 => {
                arguments.extend(["start", name, "--replace", "--ports", &ports]);
                arguments.extend(["--runtime", self.subject.runtime]);
                if self.rng.u32(0..8) == 0 {
                    arguments.push("--rm");
                }
                if self.subject.runtime == "docker" {
                    arguments.extend(["--image", &image]);
                }
                arguments.push("--");
                match self.rng.u32(0..8) {
                    0 => arguments.extend(["sh", "-c", "exit 3"]),
                    1 => arguments.extend(["sh", "-c", "sleep 0.2"]),
                    2..=4 => arguments.extend(self.subject.server),
                    _ => arguments.extend(["sh", "-c", IDLE]),
                }
            }
            5..=6 => arguments.extend(["stop", name]),
            7..=8 => arguments.extend(["restart", name]),
            _ => arguments.extend(["delete", name]),
        }
        self.say(&arguments[1..].join(" "));
        self.figures.commands += 1;
        let mut command = self.host.command();
        command.args(&arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    fn end_outside(&mut self) {
        let seen = (self.subject.seen)(&self.host);
        if let Some(name) = seen.keys().nth(self.rng.usize(0..NAMES.len())) {
            self.say(&format!("{name} is ended by someone else"));
            self.figures.ended_outside += 1;
            (self.subject.end)(&self.host, name, &mut self.rng);
        }
    }

    fn toggle_foreign(&mut self) {
        let port = self.host.port(self.rng.u16(0..POOL));
        if self.foreign.remove(&port).is_some() {
            return self.say(&format!("a stranger leaves port {port}"));
        }
        if self.containers.remove(&port) {
            self.say(&format!("a strange container leaves port {port}"));
            docker(&["rm", "-f", &self.container(port)]);
        } else if self.subject.runtime == "docker" && self.rng.bool() {
            self.say(&format!("a strange container wants port {port}"));
            let (name, publish) = (self.container(port), format!("127.0.0.1:{port}:80"));
            let started = Command::new("docker")
                .args(["run", "-d", "--name", &name, "-p", &publish, &image(), "sleep", "100000"])
                .output()
                .unwrap();
            if started.status.success() {
                self.containers.insert(port);
            } else {
                drop(Command::new("docker").args(["rm", "-f", &name]).output());
            }
        } else if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            self.say(&format!("a stranger takes port {port}"));
            self.foreign.insert(port, listener);
        }
    }

    fn container(&self, port: u16) -> String {
        format!("{}-strange-{port}", self.host.project())
    }

    fn remove_containers(&mut self) {
        for port in std::mem::take(&mut self.containers) {
            docker(&["rm", "-f", &self.container(port)]);
        }
    }

    fn kill_broker(&mut self) {
        self.say("the broker is killed");
        self.host.kill_broker();
        self.after_a_kill();
    }

    fn kill_broker_at_work(&mut self) {
        let mut children: Vec<_> = (0..4).map(|_| self.spawn()).collect();
        sleep(Duration::from_millis(self.rng.u64(0..120)));
        self.say("the broker is killed at work");
        self.host.kill_broker();
        for child in &mut children {
            child.wait().unwrap();
        }
        self.after_a_kill();
    }

    fn after_a_kill(&mut self) {
        self.figures.kills += 1;
        self.check_at_any_time(&(self.subject.seen)(&self.host));
        let since = Instant::now();
        self.serve();
        self.check_agreement();
        self.figures.recoveries.push(since.elapsed());
    }

    /// What the ledger has once what was under way has come to its end.
    fn settled_ledger(&self) -> Seen {
        let mut last = observer::ledger(&self.host);
        loop {
            sleep(Duration::from_secs(1));
            let now = observer::ledger(&self.host);
            if now == last {
                return now;
            }
            last = now;
        }
    }

    /// P3: while the engine is away nothing is given back, whatever of it has ended meanwhile.
    fn restart_engine(&mut self) {
        if self.engine.take().is_none() {
            return self.kill_broker();
        }
        self.say("the engine goes away");
        self.figures.engine_restarts += 1;
        if let Ok(command) = std::env::var("BERTHOLD_CHAOS_ENGINE") {
            let restarted = Command::new("sh").args(["-c", &command]).stdin(Stdio::null()).status();
            assert!(restarted.is_ok_and(|status| status.success()), "{command}");
            let answers = || Command::new("docker").arg("info").output().is_ok_and(|it| it.status.success());
            eventually("the engine answers", answers);
            // An engine that ends does so to its containers.
            let ended = |port: &u16| {
                docker(&["ps", "-q", "--filter", &format!("name={}", self.container(*port))]).is_empty()
            };
            let gone: Vec<u16> = self.containers.iter().copied().filter(ended).collect();
            for port in gone {
                docker(&["rm", "-f", &self.container(port)]);
                self.containers.remove(&port);
            }
        } else {
            let before = self.settled_ledger();
            for _ in 0..self.rng.u32(0..3) {
                self.end_outside();
            }
            self.commands(3);
            sleep(Duration::from_millis(self.rng.u64(0..2000)));
            let after = observer::ledger(&self.host);
            let is_agent = |(name, _): &(&String, &Vec<u16>)| !OWNERS.contains(&name.as_str());
            let lost: Vec<_> = before
                .iter()
                .filter(is_agent)
                .filter(|(name, ports)| after.get(*name) != Some(ports))
                .collect();
            assert!(
                lost.is_empty(),
                "{lost:?} given back, now {after:?}\n{}\n{}",
                self.story(),
                self.host.broker_log()
            );
        }
        self.say("the engine is back");
        self.engine = Some(Between::open(&self.socket));
        self.check_agreement();
    }

    /// Someone sets the wall clock, on which nothing may depend but what is shown.
    fn set_clock(&mut self) {
        let seconds = self.rng.i64(-100_000..100_000);
        let Some(clock) = &self.clock else { return };
        clock.set(seconds);
        self.say(&format!("the clock is set {seconds} s off"));
        self.figures.clock_jumps += 1;
        if self.rng.bool() {
            self.check_agreement();
        }
    }

    /// P8: the leases of what runs are rebuilt.
    fn lose_ledger(&mut self) {
        self.say("the ledger is lost");
        self.host.stop_broker();
        observer::lose_ledger(&self.host);
        self.figures.ledgers_lost += 1;
        self.serve();
        self.check_agreement();
    }

    fn damage_ledger(&mut self) {
        self.say("the ledger is damaged");
        self.host.stop_broker();
        let path = self.host.path("ledger.db");
        let mut bytes = fs::read(&path).unwrap();
        for _ in 0..self.rng.usize(1..2000) {
            let place = self.rng.usize(0..bytes.len());
            bytes[place] ^= 1 << self.rng.u8(0..8);
        }
        fs::write(&path, bytes).unwrap();
        self.figures.ledgers_lost += 1;
        self.serve();
        self.check_agreement();
    }

    /// The next broker has another range; what runs stays where it is.
    fn change_range(&mut self) {
        self.say("the range changes");
        let list = self.host.json(&["list"])["agents"].clone();
        let goes_on = |agent: &&serde_json::Value| {
            agent["state"] == "running" && agent["command"].to_string().contains("sleep 100000")
        };
        let idle: Vec<String> = list
            .as_array()
            .unwrap()
            .iter()
            .filter(goes_on)
            .map(|agent| agent["name"].as_str().unwrap().to_owned())
            .collect();
        self.host.stop_broker();
        let before = (self.subject.seen)(&self.host);
        let first = self.host.port(self.rng.u16(0..RANGE_SIZE - POOL));
        let path = self.host.path("settings.yaml");
        let text = fs::read_to_string(&path).unwrap();
        let (head, tail) = text.split_once("range: \"").unwrap();
        let tail = tail.split_once('"').unwrap().1;
        fs::write(&path, format!("{head}range: \"{first}-{}\"{tail}", first + POOL - 1)).unwrap();
        self.serve();
        // Those with little to do may have ended by themselves.
        let stay = |(name, ports): (&String, &Vec<u16>)| before.get(name) == Some(ports);
        let after = (self.subject.seen)(&self.host);
        let all_go_on =
            idle.iter().filter(|name| before.contains_key(*name)).all(|name| after.contains_key(name));
        assert!(after.iter().all(stay) && all_go_on, "{after:?}, before {before:?}\n{}", self.story());
        self.check_agreement();
    }

    /// No lease is granted that is not on disk, and no agent is lost for that.
    fn fill_disk(&mut self) {
        if !self.host.has_small_disk() {
            return;
        }
        self.say("the disk is full");
        self.figures.disk_full += 1;
        let filler = self.host.path("filler");
        // What does not fit is what this is about.
        drop(fs::write(&filler, vec![0_u8; SMALL_DISK]));
        let children: Vec<_> = (0..4).map(|_| self.spawn()).collect();
        for child in children {
            child.wait_with_output().unwrap();
        }
        self.check_at_any_time(&(self.subject.seen)(&self.host));
        fs::remove_file(&filler).unwrap();
        self.say("the disk has room again");
    }

    /// P1 and P2, which hold at every instant.
    fn check_at_any_time(&self, seen: &Seen) {
        observer::check_unique(seen);
        let recorded = observer::ledger(&self.host);
        observer::check_unique(&recorded);
        for (name, ports) in seen {
            // One that has ended since it was seen has given its ports back.
            let holds = recorded.get(name) == Some(ports);
            let still_runs = || (self.subject.seen)(&self.host).get(name) == Some(ports);
            assert!(
                holds || !still_runs(),
                "{name} runs with {ports:?}, the ledger has {recorded:?}\n{}",
                self.story()
            );
        }
    }

    /// P4, P5, P7 and P9: what the broker says comes to be what is there, and nothing is left over.
    fn check_agreement(&mut self) {
        let sorted = |seen: Seen| -> Seen {
            let sort = |(name, mut ports): (String, Vec<u16>)| {
                ports.sort_unstable();
                (name, ports)
            };
            seen.into_iter().map(sort).collect()
        };
        let known = || {
            let mut known = Seen::new();
            for (port, number) in self.host.leased() {
                let owner = port.split_once(' ').unwrap().0;
                // Nothing can be seen of a bare lease but that nobody else has its ports.
                if !OWNERS.contains(&owner) {
                    known.entry(owner.to_owned()).or_default().push(number);
                }
            }
            sorted(known)
        };
        let seen = || sorted((self.subject.seen)(&self.host));
        let blocked = || {
            let pool = self.host.json(&["ports"])["pool"]["ports"].clone();
            let blocked = pool.as_array().unwrap().iter().filter(|it| it["state"] == "blocked");
            blocked.map(|it| u16::try_from(it["port"].as_u64().unwrap()).unwrap()).collect::<BTreeSet<u16>>()
        };
        eventually_or(
            "ledger and runtime agree",
            || seen() == known(),
            || {
                format!(
                    "seen {:?}, known {:?}\n{}\n{}",
                    seen(),
                    known(),
                    self.story(),
                    self.host.broker_log()
                )
            },
        );
        let pool = self.range();
        let held: BTreeSet<u16> = self.foreign.keys().chain(&self.containers).copied().collect();
        // Agents that end by themselves lease less with every look.
        let expected = || {
            let leased: BTreeSet<u16> = self.host.leased().into_iter().map(|(_, port)| port).collect();
            let held = held.iter().copied().filter(|port| pool.contains(port) && !leased.contains(port));
            held.collect::<BTreeSet<u16>>()
        };
        eventually_or(
            "exactly what others hold is blocked",
            || blocked() == expected(),
            || {
                format!(
                    "blocked {:?}, held {:?}\n{}\n{}",
                    blocked(),
                    expected(),
                    self.story(),
                    self.host.broker_log()
                )
            },
        );
        // P9, and that no agent's port is held by what is none: exactly those of agents and strangers have sockets.
        let answered = || {
            let servers = observer::running(&self.host, SERVERS[1]);
            let seen = (self.subject.seen)(&self.host).into_iter();
            let seen = seen.filter(|(name, _)| self.subject.has_sockets || servers.contains(name));
            seen.flat_map(|(_, ports)| ports).chain(held.iter().copied()).collect::<BTreeSet<u16>>()
        };
        let listening = || observer::listening(&self.host);
        eventually_or(
            "exactly the ports of agents and strangers have sockets",
            || listening() == answered(),
            || {
                format!(
                    "listening {:?}, of agents and strangers {:?}\n{}",
                    listening(),
                    answered(),
                    self.story()
                )
            },
        );
        self.figures.answers += self.check_servers();
        let most = NAMES.len() + OWNERS.len();
        assert!(observer::ledger(&self.host).len() <= most, "{}", self.story());
    }

    /// P9: what is said to be published is reached, and it is that agent's. How many there were.
    fn check_servers(&self) -> u64 {
        let list = self.host.json(&["list"])["agents"].clone();
        // Of what was found by its labels alone it is not known what it runs.
        let serves = |agent: &&serde_json::Value| {
            let command = agent["command"].to_string();
            agent["state"] == "running" && SERVERS.iter().any(|server| command.contains(server))
        };
        let mut answers = 0;
        for agent in list.as_array().unwrap().iter().filter(serves) {
            let port = u16::try_from(agent["ports"]["A"].as_u64().unwrap()).unwrap();
            let name = agent["name"].as_str().unwrap();
            let whose = format!("{}/{name}", self.host.project());
            let what = format!("{whose} answers on port {port}");
            let answers_there = || fetch(port).is_some_and(|page| page.contains(&whose));
            eventually_or(&what, answers_there, || format!("{}\n{}", self.story(), self.host.broker_log()));
            answers += 1;
        }
        answers
    }

    /// The pool of the broker that runs.
    fn range(&self) -> RangeInclusive<u16> {
        let range = self.host.json(&["ports"])["pool"]["range"].as_str().unwrap().to_owned();
        let (first, last) = range.split_once('-').unwrap();
        first.parse().unwrap()..=last.parse().unwrap()
    }

    fn say(&mut self, what: &str) {
        self.done.push(what.to_owned());
    }

    /// What was done last, for whoever has to find out why.
    fn story(&self) -> String {
        self.done[self.done.len().saturating_sub(40)..].join("\n")
    }
}

fn number_from(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn run(subject: Subject, usual_steps: u64) {
    let seed = number_from("BERTHOLD_CHAOS_SEED", fastrand::u64(..));
    let steps = number_from("BERTHOLD_CHAOS_STEPS", usual_steps);
    println!("{}: BERTHOLD_CHAOS_SEED={seed} BERTHOLD_CHAOS_STEPS={steps}", subject.runtime);
    let mut chaos = Chaos::new(subject, seed);
    chaos.host.use_small_disk();
    chaos.run(steps);
    let figures = &chaos.figures;
    let longest = figures.recoveries.iter().max().copied().unwrap_or_default();
    let sum: Duration = figures.recoveries.iter().sum();
    let mean = sum.checked_div(u32::try_from(figures.recoveries.len()).unwrap()).unwrap_or_default();
    println!(
        "{}: {steps} steps, {} commands ({} waited for and successful), {} brokers killed, {} ledgers lost or damaged, {} agents ended by others, {} times a full \
         disk, {} an engine that restarts, {} a clock that is set, {} looks meanwhile, {} answers of agents; after a kill ledger and runtime agreed within {:.1} s (mean {:.1} s); leaked ports: 0, ports with two owners: 0",
        subject.runtime,
        figures.commands,
        figures.succeeded,
        figures.kills,
        figures.ledgers_lost,
        figures.ended_outside,
        figures.disk_full,
        figures.engine_restarts,
        figures.clock_jumps,
        figures.looks,
        figures.answers,
        longest.as_secs_f64(),
        mean.as_secs_f64(),
    );
}

#[test]
fn chaos_with_processes() {
    let end = |host: &Host, name: &str, _: &mut Rng| observer::kill_processes(host, name);
    let holders = observer::holders_by_processes;
    let server = &[BERTHOLD, SERVERS[1]];
    let (runtime, seen) = ("process", observer::processes);
    run(Subject { runtime, seen, end, holders, has_sockets: false, server }, 250);
}

#[test]
fn chaos_with_docker() {
    needs_docker!();
    let end = |host: &Host, name: &str, rng: &mut Rng| {
        let how: &[&str] = if rng.bool() { &["kill"] } else { &["rm", "-f"] };
        drop(Command::new("docker").args(how).arg(host.container(name)).output());
    };
    let holders = |host: &Host| observer::containers(host).into_iter().collect();
    let server = &["sh", "-c", HTTPD];
    let (runtime, seen) = ("docker", observer::containers);
    run(Subject { runtime, seen, end, holders, has_sockets: true, server }, 60);
}
