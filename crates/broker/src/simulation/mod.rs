//! The broker's own code under a scheduler that is told what to do: whole lives of brokers, with several callers at once, an engine
//! that fails in every way, strangers, a disk that fills up, clocks that are set and settings that change, in a time that passes only when all wait.
//!
//! Everything runs on one thread with tokio's paused clock, so an hour takes a moment, and what happens when follows from a seed: the
//! order in which calls arrive, come about and are answered, and the instants at which brokers die. The engine and the disk are the
//! only stand-ins ([`engine`], and `ledger::ByHand`, which is the ledger's writer without its thread). What they are told is checked
//! against the promises with every change, by facts that the broker has no part in ([`world`]).
//!
//! `BERTHOLD_SEED=N cargo nextest run -p broker simulation` runs one again and prints all of it; `BERTHOLD_SEEDS=N` tries N of them.

mod engine;
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::{LeaseRequest, StartRequest};
use pool::{AgentKey, PortState};
use runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::bare::Release;
use crate::clock;
use crate::core::{Core, Parts, State};
use crate::home::Home;
use crate::ledger::{self, ByHand};
use crate::model::Stage;
use crate::runtimes::Runtimes;
use crate::serve::{enter, keep_up, take_up};
use crate::warnings::About;

use engine::Engine;
use world::{Counts, Fate, World};

/// The first port of the pool, or one that is a little higher: the settings change from one broker to the next.
const LOWEST: u16 = 64_000;
/// How many ports it has: few enough to be exhausted now and then.
const SIZE: u16 = 12;
/// How many seeds are tried if nothing else is said.
const SEEDS: u64 = 200;
/// How many brokers live one after the other.
const LIVES: u64 = 6;
/// How long the longest of them lives, apart from the last.
const LIFE: Duration = Duration::from_secs(90);
/// Who asks for something, at once.
const CALLERS: usize = 4;
/// By then everything must agree once nothing fails any more.
const RECOVERY: Duration = Duration::from_secs(180);
/// The longest that a caller may wait for an answer.
const ANSWER: Duration = Duration::from_secs(300);

#[test]
fn the_promises_hold_whatever_comes_when() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("BERTHOLD_SEED") {
        let (world, outcome) = history(seed);
        println!("{}", world.trace(usize::MAX));
        outcome.unwrap();
        return;
    }
    let mut sum = Counts::default();
    for seed in 1..=number("BERTHOLD_SEEDS").unwrap_or(SEEDS) {
        let (world, outcome) = history(seed);
        if let Err(why) = outcome {
            panic!("BERTHOLD_SEED={seed}: {why}\n{}", world.trace(150));
        }
        sum.add(world.counts());
    }
    println!("{sum:?}");
}

/// What a seed leads to is always the same, or a failure could not be looked into.
#[test]
fn a_seed_leads_to_the_same_history() {
    for seed in 1..=3 {
        assert_eq!(history(seed).0.counts(), history(seed).0.counts(), "{seed}");
    }
}

/// P3: what seems not to have started, for that answer was lost, may start after a stop.
#[test]
fn a_start_that_comes_about_after_a_stop_runs_with_no_freed_port() {
    after_a_lost_start(async |core, world| {
        core.stop(key("a"), None).await.unwrap();
        assert_eq!(world.on_disk(), ledger::Leases::new());
    });
}

/// P1: or after another start, which may give the ports to what it makes.
#[test]
fn a_start_that_comes_about_after_another_start_is_not_beside_it() {
    after_a_lost_start(async |core, world| {
        assert!(core.start(key("a"), start_request()).await.unwrap().created);
        assert_eq!(world.never_started(), 0, "what had not started yet is still there");
    });
}

/// Has a start be answered only after `then`, when it comes about nevertheless.
fn after_a_lost_start(then: impl AsyncFnOnce(&Arc<Core>, &World)) {
    let (home, world) = (tempfile::tempdir().unwrap(), World::new(1));
    world.calm_down();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        clock::simulated::set(1_000_000_000_000);
        world.carry_over(Vec::new());
        let core = begin(&world, home.path()).await;
        world.foresee("start", Fate::Lost, RECOVERY);
        world.foresee("remove", Fate::Refused, Duration::ZERO);
        assert!(core.start(key("a"), start_request()).await.is_err());
        assert_eq!(world.never_started(), 1, "it is there, and could not be removed");
        then(&core, &world).await;
        world.hurry();
        check_agreement(&core, &world).unwrap();
    });
    assert_eq!(world.broken(), None, "{}", world.trace(usize::MAX));
}

/// Some lives of brokers on one engine, one home.
fn history(seed: u64) -> (Arc<World>, Result<(), String>) {
    let home = tempfile::tempdir().unwrap();
    let world = World::new(seed);
    let (mut carried, mut milliseconds) = (Vec::new(), 1_000_000_000_000);
    for life in 1..=LIVES {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let outcome = runtime.block_on(async {
            clock::simulated::set(milliseconds);
            world.carry_over(std::mem::take(&mut carried));
            let outcome = if life == LIVES {
                last_life(&world, home.path()).await
            } else {
                // Whether it died or has gone on makes no difference to what follows.
                drop(timeout(world.some_time(LIFE), live(&world, home.path())).await);
                Ok(())
            };
            milliseconds = clock::now().0;
            outcome
        });
        drop(runtime);
        if let Some(why) = world.broken() {
            return (world, Err(why));
        }
        if outcome.is_err() {
            return (world, outcome);
        }
        carried = world.crash();
        if world.roll(12) == 0 {
            world.lose_ledger();
            for file in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
                drop(std::fs::remove_file(home.path().join(file)));
            }
        }
    }
    (world, Ok(()))
}

/// A broker with callers and strangers, until it dies.
async fn live(world: &Arc<World>, home: &Path) {
    let core = begin(world, home).await;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (core, world) = (Arc::clone(&core), Arc::clone(world));
        callers.spawn(async move {
            loop {
                sleep(world.some_time(Duration::from_secs(5))).await;
                ask(&core, &world, caller).await;
            }
        });
    }
    let strangers = async {
        loop {
            sleep(world.some_time(Duration::from_secs(10))).await;
            world.meddle();
            if world.roll(15) == 0 {
                set_clock(world);
            }
        }
    };
    tokio::select! {
        () = strangers => {}
        ended = callers.join_next() => world.give_up(&format!("a caller: {ended:?}")),
    }
}

/// Someone sets the host's clock, by up to an hour either way.
fn set_clock(world: &World) {
    let hour = 3_600_000;
    let by = i64::try_from(world.roll(2 * hour)).unwrap() - i64::try_from(hour).unwrap();
    world.note(&format!("the clock is set by {} s", by / 1000));
    clock::simulated::set(clock::now().0 + by);
}

/// A broker that lives until all is well, and longer.
async fn last_life(world: &Arc<World>, home: &Path) -> Result<(), String> {
    let core = timeout(ANSWER, begin(world, home)).await.map_err(|_| "the broker does not start")?;
    let callers = (0..CALLERS).map(|caller| {
        let (core, world) = (Arc::clone(&core), Arc::clone(world));
        tokio::spawn(async move {
            for _ in 0..6 {
                sleep(world.some_time(Duration::from_secs(5))).await;
                ask(&core, &world, caller).await;
                world.meddle();
            }
        })
    });
    let asked = futures_util::future::join_all(callers.collect::<Vec<_>>());
    for outcome in asked.await {
        outcome.map_err(|error| format!("a caller: {error}"))?;
    }
    world.calm_down();
    sleep(RECOVERY).await;
    check_agreement(&core, world)?;
    // Whoever started it again is told to end it.
    for id in world.started_again() {
        if is_warned_of(&core, &id) {
            world.end_for_good(&id);
        }
    }
    sleep(RECOVERY).await;
    check_agreement(&core, world)?;
    // And everything goes on from there.
    for name in NAMES {
        let request = || StartRequest { replace: true, ports: Some(1), ..start_request() };
        let started = core.start(key(name), request()).await;
        let started = started.map_err(|error| format!("{name} cannot be started any more: {error}"))?;
        let stopped = core.stop(key(name), None).await;
        stopped.map_err(|error| format!("{name} cannot be stopped any more: {error}"))?;
        let again = core.start(key(name), request()).await;
        let again = again.map_err(|error| format!("{name} cannot be started again: {error}"))?;
        let (before, now) = (started.record.ports(), again.record.ports());
        if before != now {
            return Err(format!(
                "P6: {name} had {before:?}, and has {now:?} now that nobody else wanted them"
            ));
        }
    }
    check_agreement(&core, world)?;
    // What an engine refuses is passed over.
    let next = next_free(&core);
    core.delete(key("a"), None, false).await.map_err(|error| format!("a cannot be deleted: {error}"))?;
    if let Some(port) = next {
        world.hold_unseen(port);
    }
    let request = StartRequest { ports: Some(2), ..start_request() };
    core.start(key("a"), request)
        .await
        .map_err(|error| format!("P7: refused ports are not passed over: {error}"))?;
    world.calm_down();
    sleep(RECOVERY).await;
    check_agreement(&core, world)?;
    for name in NAMES {
        let deleted = core.delete(key(name), None, false).await;
        deleted.map_err(|error| format!("{name} cannot be deleted any more: {error}"))?;
        let released = core.release_bare(key(name), Release::default()).await;
        released.map_err(|error| format!("{name} cannot be released any more: {error}"))?;
    }
    check_agreement(&core, world)?;
    match world.on_disk() {
        disk if disk.is_empty() => Ok(()),
        disk => Err(format!("leases are left of nothing: {disk:?}")),
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn key(name: &str) -> AgentKey {
    format!("default/{name}").parse().unwrap()
}

fn start_request() -> StartRequest {
    StartRequest {
        image: Some("image".to_owned()),
        runtime: Some("docker".to_owned()),
        ..StartRequest::default()
    }
}

/// Asks for something, and waits for the answer. That it fails is fine.
async fn ask(core: &Arc<Core>, world: &Arc<World>, caller: usize) {
    let name = NAMES[usize::try_from(world.roll(4)).unwrap()];
    let what = world.roll(20);
    world.note(&format!("caller {caller} asks for {what} on {name}"));
    let asked = async {
        match what {
            0..8 => {
                let request = StartRequest {
                    replace: world.roll(2) == 0,
                    remove: world.roll(6) == 0,
                    ports: u16::try_from(world.roll(4)).ok(),
                    ..start_request()
                };
                if let Ok(started) = core.start(key(name), request).await
                    && started.record.stage == Stage::Running
                    && let Some(lease) = &started.record.lease
                {
                    world.check_said(name, lease.id.as_str());
                }
            }
            8..11 => drop(core.stop(key(name), None).await),
            11..14 => drop(core.restart(key(name), None).await),
            14..17 => drop(core.delete(key(name), None, false).await),
            17 | 18 => {
                let request =
                    LeaseRequest { replace: world.roll(2) == 0, ports: Some(1), ..LeaseRequest::default() };
                drop(core.lease_bare(key(name), request).await);
            }
            _ => drop(core.release_bare(key(name), Release::default()).await),
        }
    };
    if timeout(ANSWER, asked).await.is_err() {
        world.give_up(&format!("caller {caller} has waited {} s for {what} on {name}", ANSWER.as_secs()));
    }
    world.note(&format!("caller {caller} is answered"));
}

/// P4: the ledger, what the broker believes, and what runs are the same, and nothing is left over.
fn check_agreement(core: &Core, world: &World) -> Result<(), String> {
    let (mut running, disk) = (world.running(), world.on_disk());
    let unleased = running.extract_if(.., |id, _| is_warned_of(core, id));
    let held: Vec<u16> = unleased.flat_map(|(_, (_, (_, ports)))| ports).collect();
    let running: BTreeMap<_, _> = running.into_values().collect();
    let is_bare = |owner: &str| owner.starts_with("bare ");
    let agents = disk.iter().filter(|(_, (owner, _))| !is_bare(owner));
    let agents = agents.map(|(lease, what)| (lease.clone(), what.clone())).collect();
    if running != agents {
        return Err(format!("P4: these run: {running:?}\nand these have leases: {agents:?}"));
    }
    let state = core.state();
    let mut believed: Vec<String> = state.pool.leases().map(ToString::to_string).collect();
    believed.sort_unstable();
    if !believed.iter().eq(disk.keys()) {
        return Err(format!("P4: the pool has the leases {believed:?}, the disk {:?}", disk.keys()));
    }
    let blocked = state.pool.blocked().map(|(port, _)| port.get());
    let blocked: Vec<u16> = blocked.filter(|port| !held.contains(port)).collect();
    if !blocked.is_empty() {
        return Err(format!("P7: nobody holds {blocked:?}, which are blocked"));
    }
    if world.never_started() > 0 {
        return Err("P4: something is left that was created and never started".to_owned());
    }
    Ok(())
}

/// The port that is given out next.
fn next_free(core: &Core) -> Option<u16> {
    let state = core.state();
    let mut ports = state.pool.ports(clock::now());
    ports.find(|(_, state)| matches!(state, PortState::Free)).map(|(port, _)| port.get())
}

/// Whether a person is told that this runs without a lease, for what it had is another's by now: a stranger has started it again.
fn is_warned_of(core: &Core, id: &str) -> bool {
    let conflict = About::Conflict { runtime: "docker".to_owned(), id: id.to_owned() };
    core.state().warnings.contains_key(&conflict)
}

/// Puts a broker together as `serve` does, without sockets.
async fn begin(world: &Arc<World>, directory: &Path) -> Arc<Core> {
    let home = Home::at(directory);
    let (connection, contents, damage) = ledger::open(&home.ledger()).unwrap();
    assert_eq!(damage, None);
    // Nothing here loses what was written, and the time that a disk takes is made up.
    connection.pragma_update(None, "synchronous", "OFF").unwrap();
    let (ledger, writer) = ByHand::ledger(connection);
    tokio::spawn(write(writer, Arc::clone(world)));
    let settings = settings(world, directory);
    let mut state = State::new(&settings.settings, None);
    enter(&mut state, contents);
    let engine: Arc<dyn Runtime> = Arc::new(Engine(Arc::clone(world)));
    let core = Arc::new(Core::new(Parts {
        id: "simulated".to_owned(),
        home,
        settings,
        listen: None,
        runtimes: Runtimes::only(engine),
        ledger,
        state,
        shutdown: CancellationToken::new(),
    }));
    take_up(&core).await;
    drop(keep_up(&core));
    core
}

fn settings(world: &World, directory: &Path) -> settings::Loaded {
    let lowest = LOWEST + if world.roll(3) == 0 { SIZE / 3 } else { 0 };
    let text = format!(
        "server: {{ broker: {{ port_pool: {{ range: \"{lowest}-{}\", guards: false }} }} }}\n",
        lowest + SIZE - 1
    );
    let file = directory.join("settings.yaml");
    std::fs::write(&file, text).unwrap();
    let sources = settings::Sources { explicit: Some(file), ..settings::Sources::default() };
    settings::load(&sources).unwrap()
}

/// The disk: slow, and full at times.
async fn write(mut writer: ByHand, world: Arc<World>) {
    while let Some(waiting) = writer.next().await {
        sleep(world.some_time(Duration::from_millis(200))).await;
        let committed = writer.commit(waiting, world.is_disk_full());
        world.written(&writer.contents());
        sleep(world.some_time(Duration::from_millis(50))).await;
        committed.tell();
    }
}
