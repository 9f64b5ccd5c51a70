//! The broker dies, or a call fails, at every step of starts, stops, restarts, deletions and reconciling, one step at a time. What another process
//! sees then, and what the next broker makes of it, must keep the promises.
//!
//! The steps of each script are counted by a run without a fault (`broker/src/faults.rs` says what a step is), so that new ones are tried too.

#![expect(clippy::print_stdout, reason = "figures, for whoever runs this with `--no-capture`")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::kubernetes::needs_cluster;
use crate::observer::{self, Seen};
use crate::support::*;

/// How many brokers are tried at a time.
const AT_ONCE: usize = 4;

/// How often a step is looked for that did not come.
const TRIES: usize = 5;

/// Something that is done with a few agents.
struct Script {
    /// The agents that it has, or had.
    names: &'static [&'static str],
    /// What an earlier broker leaves; none for a fresh home.
    before: Option<Before>,
    /// None of its commands need succeed. The steps are those of the broker that runs meanwhile.
    run: fn(Subject, &Host),
}

/// What there is when the broker starts.
struct Before {
    /// What a broker that is killed then has done.
    run: fn(Subject, &Host),
    /// What others do until the next one comes.
    meanwhile: fn(Subject, &Host),
    loses_ledger: bool,
}

/// Every kind of operation, on agents that run, have ended, failed and never were, and all that a broker finds that comes anew. Each is short,
/// for it is run once for each of its steps.
const SCRIPTS: [Script; 7] = [
    Script {
        names: &["a", "b"],
        before: None,
        run: |subject, host| {
            subject.start(host, "a", &[], IDLE);
            host.run(&["restart", "a"]);
            subject.start(host, "b", &[], IDLE);
        },
    },
    Script {
        names: &["b"],
        before: None,
        run: |subject, host| {
            subject.start(host, "b", &["--ports", "3"], IDLE);
            host.run(&["stop", "b"]);
            subject.start(host, "b", &["--ports", "3"], IDLE);
            host.run(&["delete", "b"]);
        },
    },
    Script {
        names: &["a", "fails", "brief"],
        before: None,
        run: |subject, host| {
            subject.start(host, "a", &[], IDLE);
            subject.start(host, "fails", &[], "exit 3");
            subject.start(host, "brief", &["--rm"], "exit 0");
        },
    },
    Script {
        names: &["a"],
        before: None,
        run: |subject, host| {
            subject.start(host, "a", &[], IDLE);
            subject.start(host, "a", &["--replace", "-e", "COLOUR=red"], IDLE);
        },
    },
    Script {
        names: &["c", "a"],
        before: None,
        run: |subject, host| {
            subject.start(host, "c", &["--rm"], IDLE);
            host.run(&["stop", "c"]);
            subject.start(host, "a", &[], IDLE);
        },
    },
    // What has ended, what is gone, what is to be forgotten, and what runs on.
    Script {
        names: &["a", "b", "c", "d"],
        before: Some(Before {
            run: |subject, host| {
                for (name, more) in [("a", &[][..]), ("b", &[]), ("c", &["--rm"]), ("d", &[])] {
                    assert_eq!(subject.start(host, name, more, IDLE).code, 0);
                }
            },
            meanwhile: |subject, host| {
                (subject.end)(host, "a");
                (subject.remove)(host, "b");
                (subject.end)(host, "c");
            },
            loses_ledger: false,
        }),
        run: settle,
    },
    // What is adopted, and what has ended and is nobody's any more.
    Script {
        names: &["a", "b", "c"],
        before: Some(Before {
            run: |subject, host| {
                for name in ["a", "b", "c"] {
                    assert_eq!(subject.start(host, name, &[], IDLE).code, 0);
                }
            },
            meanwhile: |subject, host| (subject.end)(host, "c"),
            loses_ledger: true,
        }),
        run: settle,
    },
];

/// Has the broker look at all until nothing is left to be done about it, or the broker is dead.
fn settle(subject: Subject, host: &Host) {
    eventually("all is as it should be, or the broker is dead", || {
        let listed = host.run(&["--json", "list"]);
        let done = host.run(&["--json", "reconcile"]);
        if [listed.code, done.code].contains(&5) {
            return true;
        }
        // An end may be known to the runtime a moment later than to who brought it about.
        let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
        let mut listed: Vec<&Value> = listed["agents"].as_array().unwrap().iter().collect();
        listed.retain(|agent| agent["state"] == "running");
        if listed.len() != (subject.seen)(host).len() {
            return false;
        }
        let told: Value = serde_json::from_str(&done.stdout).unwrap();
        let told = &told["reconciliation"];
        done.code == 0 && told["findings"] == json!([]) && told["unreachable"] == json!([])
    });
}

/// Where agents run, and how what runs there is seen.
#[derive(Clone, Copy)]
struct Subject {
    runtime: &'static str,
    /// How ports are reached there, where there are several ways.
    expose: Option<&'static str>,
    seen: fn(&Host) -> Seen,
    /// Ends an agent behind the broker's back, and leaves nothing of one.
    end: fn(&Host, &str),
    remove: fn(&Host, &str),
    /// What may be left there of an agent beside what runs: it is counted when all is over.
    left: fn(&Host) -> usize,
}

const PROCESS: Subject = Subject {
    runtime: "process",
    expose: None,
    seen: observer::processes,
    end: observer::kill_processes,
    remove: observer::kill_processes,
    left: |_| 0,
};
const DOCKER: Subject = Subject {
    runtime: "docker",
    expose: None,
    seen: observer::containers,
    end: |host, name| drop(docker(&["kill", &host.container(name)])),
    remove: |host, name| drop(docker(&["rm", "-f", &host.container(name)])),
    left: created,
};
const PODS: Subject = Subject {
    runtime: "kubernetes",
    expose: Some("host_port"),
    seen: observer::pods,
    end: |host, name| {
        // The end takes the shell that brings it about along.
        let kill = ["exec", &host.container(name), "--", "sh", "-c", "kill 1"];
        drop(kubectl_command().args(kill).output());
    },
    remove: |host, name| drop(kubectl(&["delete", "pod", "--now", &host.container(name)])),
    left: observer::claims,
};

/// Containers that were created and never started.
fn created(host: &Host) -> usize {
    let label = format!("label=berthold.project={}", host.project());
    docker(&["ps", "-aq", "--filter", "status=created", "--filter", &label]).lines().count()
}

impl Subject {
    /// A home whose broker knows no other engine and is not started by commands.
    fn host(self) -> Host {
        let docker = if self.runtime == "docker" { "" } else { "docker: { host: unix:///nowhere }, " };
        let expose = self.expose.map_or_else(String::new, |way| format!(", kubernetes: {{ expose: {way} }}"));
        let settings = |range: &str| {
            format!(
                "server: {{ broker: {{ listen: none, auto_start: false, port_pool: {{ range: \"{range}\" }} }} }}\n\
                 runtimes: {{ {docker}podman: {{ host: unix:///nowhere }}{expose} }}\n"
            )
        };
        let host = Host::with_settings(settings, 12);
        if self.runtime == "kubernetes" { host } else { host.with_kubeconfig("/dev/null") }
    }

    /// What the script begins with, and a broker to which `fault` happens.
    fn begin(self, script: &Script, fault: &str) -> Host {
        let mut host = self.host();
        if let Some(before) = &script.before {
            host.serve();
            (before.run)(self, &host);
            host.kill_broker();
            (before.meanwhile)(self, &host);
            if before.loses_ledger {
                observer::lose_ledger(&host);
            }
        }
        host.serve_in_danger(&[("BERTHOLD_FAULT", fault)]);
        host
    }

    fn start(self, host: &Host, name: &str, more: &[&str], script: &str) -> Done {
        let image = if self.runtime == "kubernetes" { cluster_image() } else { image() };
        let mut arguments = vec!["--json", "start", name, "--runtime", self.runtime];
        if self.runtime != "process" {
            arguments.extend(["--image", &image]);
        }
        arguments.extend(more);
        arguments.extend(["--", "sh", "-c", script]);
        host.run(&arguments)
    }

    /// Holds in every instant, also while no broker is there: P1, and P2 in the form in which it can be seen. A ledger that was lost must
    /// be there again before that can be said of it.
    fn check_after(self, script: &Script, host: &Host) {
        if script.before.as_ref().is_some_and(|before| before.loses_ledger) {
            observer::check_unique(&(self.seen)(host));
        } else {
            self.check_at_any_time(host);
        }
    }

    fn check_at_any_time(self, host: &Host) {
        let seen = (self.seen)(host);
        observer::check_unique(&seen);
        let recorded = observer::ledger(host);
        for (name, ports) in &seen {
            assert_eq!(recorded.get(name), Some(ports), "{name} runs with ports that are not on disk");
        }
    }

    /// What must come true by itself, and that all goes on from there: P4, P5, and P6 for whoever is known still.
    /// `had` is what each had when the fault had happened.
    fn check_recovery(self, host: &Host, names: &[&str], had: &Seen, what: &str) {
        let agrees = || {
            let seen = (self.seen)(host);
            observer::check_unique(&seen);
            let mut known = Seen::new();
            for (port, number) in host.leased() {
                known.entry(port.split_once(' ').unwrap().0.to_owned()).or_default().push(number);
            }
            for ports in known.values_mut() {
                ports.sort_unstable();
            }
            let sorted = |(name, mut ports): (String, Vec<u16>)| {
                ports.sort_unstable();
                (name, ports)
            };
            seen.into_iter().map(sorted).collect::<Seen>() == known
        };
        eventually_or(what, agrees, || {
            // The log is long; what is not as it should be comes first.
            format!("seen {:?}, known {:?}\n{}", (self.seen)(host), host.leased(), host.broker_log())
        });
        if self.runtime == "docker" {
            assert_eq!((self.left)(host), 0, "{what}: leftovers of starts");
        }
        // One that was being forgotten may be so by now; who comes back then is another.
        let known = host.json(&["list"])["agents"].clone();
        let is_known = |name: &str| known.as_array().unwrap().iter().any(|agent| agent["name"] == name);
        for name in names {
            let ports = had.get(*name).filter(|_| is_known(name));
            let done = self.start(host, name, &["--replace"], IDLE);
            assert_eq!(done.code, 0, "{what}: {done:?}\n{}", host.broker_log());
            if let Some(ports) = ports {
                let has = &(self.seen)(host)[*name];
                // One whose deletion was under way is a new one, with as many as are usual.
                let kept = has.iter().filter(|port| ports.contains(port)).count();
                let log = || {
                    format!("{what}: {name} had {ports:?} and came back with {has:?}\n{}", host.broker_log())
                };
                assert_eq!(kept, ports.len().min(has.len()), "{}", log());
            }
        }
        self.check_at_any_time(host);
        host.ok(&["delete", "--all", "-t", "0s"]);
        assert_eq!((host.leased(), (self.seen)(host)), (vec![], Seen::new()), "{what}");
        assert_eq!(
            ((self.left)(host), host.leftovers(self.runtime)),
            (0, vec![]),
            "{what}: something is left"
        );
        assert_eq!(observer::ledger(host), Seen::new(), "{what}: {}", host.broker_log());
    }
}

/// The steps of a script: what was changed, in order.
fn steps(subject: Subject, script: &Script) -> Vec<String> {
    let host = subject.begin(script, "none");
    (script.run)(subject, &host);
    let steps: Vec<String> =
        std::fs::read_to_string(host.path("faults.log")).unwrap().lines().map(str::to_owned).collect();
    subject.check_recovery(&host, script.names, &observer::ports_had(&host), "without a fault");
    steps
}

/// How many steps each script has.
fn lengths(subject: Subject) -> Vec<u64> {
    let lengths = SCRIPTS.iter().map(|script| steps(subject, script).len() as u64);
    lengths.inspect(|length| assert!(*length > 0, "a script without steps shows nothing")).collect()
}

/// Tries `case` with each script and each number up to the last of it, several at a time. It is told how many come after it.
fn each(lasts: &[u64], case: impl Fn(&Script, u64, u64) + Sync) {
    let cases = SCRIPTS
        .iter()
        .zip(lasts)
        .flat_map(|(script, last)| (1..=*last).map(move |it| (script, it, *last - it)));
    let cases = Mutex::new(cases);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = cases.lock().unwrap().next();
                    let Some((script, number, rest)) = next else { return };
                    case(script, number, rest);
                }
            });
        }
    });
}

/// P1 to P6, L3, L4: killed after every change, one after the other.
fn a_broker_that_is_killed_after_any_step(subject: Subject) {
    let lengths = lengths(subject);
    let killed = Mutex::new(BTreeMap::<String, u64>::new());
    let missed = Mutex::new(Vec::new());
    each(&lengths, |script, number, rest| {
        // What runs beside the script may come earlier in one run than in the other, so the last steps are not always reached.
        let killed_there = (0..TRIES).find_map(|_| {
            let mut host = subject.begin(script, &format!("kill {number}"));
            (script.run)(subject, &host);
            host.broker_was_killed().then_some(host)
        });
        let Some(mut host) = killed_there else {
            missed.lock().unwrap().push((script.names, number, rest));
            return;
        };
        let log = std::fs::read_to_string(host.path("faults.log")).unwrap();
        let step = log.lines().last().unwrap().to_owned();
        subject.check_after(script, &host);
        // Read from the disk: what the next broker says of it is what is tried here.
        let is_lost = script.before.as_ref().is_some_and(|before| before.loses_ledger);
        let had = if is_lost { (subject.seen)(&host) } else { observer::ports_had(&host) };
        host.serve();
        let what = format!("killed at step {number}, after {step}");
        subject.check_recovery(&host, script.names, &had, &what);
        *killed.lock().unwrap().entry(step).or_default() += 1;
    });
    let killed = killed.into_inner().unwrap();
    let (total, steps): (u64, u64) = (killed.values().sum(), lengths.iter().sum());
    let missed = missed.into_inner().unwrap();
    println!(
        "{}: {steps} steps, killed after {total} of them: {killed:?}; not reached: {missed:?}",
        subject.runtime
    );
    assert!(missed.len() <= lengths.len() && missed.iter().all(|(_, _, rest)| *rest < 2), "{missed:?}");
    for step in ["a commit", "create", "start", "stop", "remove"] {
        assert!(killed.keys().any(|it| it.ends_with(step)), "no kill after {step}: {killed:?}");
    }
}

/// P3 to P6, L3: every call fails once, be it that it was not made or that its answer was lost.
fn a_call_that_fails_at_any_step(subject: Subject, kind: &str) {
    let lengths = lengths(subject);
    // There are fewer than two questions for every change; answers of commits cannot be lost.
    let lasts: Vec<u64> = lengths.iter().map(|steps| steps * if kind == "refuse" { 3 } else { 1 }).collect();
    let failed = AtomicU64::new(0);
    each(&lasts, |script, number, rest| {
        let host = subject.begin(script, &format!("{kind} {number}"));
        (script.run)(subject, &host);
        let log = std::fs::read_to_string(host.path("faults.log")).unwrap();
        let Some(fault) = log.lines().find(|line| line.contains(" was ")) else {
            // The script is over before it comes to that.
            return;
        };
        // There is no end to the questions of a broker that looks at all until nothing is left to be done.
        let is_bounded = script.before.is_none();
        assert!(
            !(rest == 0 && is_bounded),
            "there may be more calls than were tried: {fault} is number {number}"
        );
        subject.check_after(script, &host);
        let had = observer::ports_had(&host);
        subject.check_recovery(&host, script.names, &had, &format!("{kind} {number}: {fault}"));
        failed.fetch_add(1, Ordering::Relaxed);
    });
    let (failed, steps) = (failed.into_inner(), lengths.iter().sum::<u64>());
    println!("{}: {steps} steps, {failed} calls failed once ({kind})", subject.runtime);
    let least = if kind == "refuse" { steps } else { steps / 3 };
    assert!(failed >= least, "{failed} calls failed, of {steps} steps");
}

#[test]
fn a_kill_at_every_step_with_processes() {
    a_broker_that_is_killed_after_any_step(PROCESS);
}

#[test]
fn a_kill_at_every_step_with_docker() {
    needs_docker!();
    a_broker_that_is_killed_after_any_step(DOCKER);
}

/// By hand: `cargo nextest run --workspace --run-ignored only -E 'test(pods)'`.
#[test]
#[ignore = "takes long: it starts hundreds of pods, each of which takes seconds"]
fn a_kill_at_every_step_with_pods() {
    needs_cluster!();
    a_broker_that_is_killed_after_any_step(PODS);
}

#[test]
fn a_call_refused_at_every_step_with_processes() {
    a_call_that_fails_at_any_step(PROCESS, "refuse");
}

#[test]
fn a_call_refused_at_every_step_with_docker() {
    needs_docker!();
    a_call_that_fails_at_any_step(DOCKER, "refuse");
}

#[test]
fn an_answer_lost_at_every_step_with_processes() {
    a_call_that_fails_at_any_step(PROCESS, "lose");
}

#[test]
fn an_answer_lost_at_every_step_with_docker() {
    needs_docker!();
    a_call_that_fails_at_any_step(DOCKER, "lose");
}
