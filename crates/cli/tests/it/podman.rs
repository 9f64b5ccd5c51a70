//! What is particular to Podman: its service, which the broker runs itself where none listens.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use crate::support::*;

/// The pids of the services on the socket in the broker's home.
fn services(host: &Host) -> Vec<i32> {
    let socket = format!("unix://{}", host.path("podman.sock").display());
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one = |pid: &i32| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.contains("system\0service") && command.contains(&socket)
    };
    pids.filter(is_one).collect()
}

#[test]
fn the_broker_s_own_service_is_started_again_and_ends_with_it() {
    needs_podman!();
    let mut host = Host::with_pool(4);
    host.serve();
    let image = image();
    let mut arguments = idle_agent("dev", &image);
    arguments[3] = "podman";
    host.ok(&arguments);
    let usual = std::env::var("XDG_RUNTIME_DIR").map(|directory| format!("{directory}/podman/podman.sock"));
    let mut usual = usual.into_iter().chain(["/run/podman/podman.sock".to_owned()]);
    if let Some(socket) = usual.find(|socket| UnixStream::connect(socket).is_ok()) {
        assert!(!is_required("podman"), "a service of Podman listens at {socket}: this cannot be tested");
        eprintln!(
            "a service of Podman listens already at {socket}, so the broker has none of its own: not tested"
        );
        return;
    }
    let [service] = services(&host)[..] else {
        panic!("the broker has one service of its own, not these: {:?}", services(&host))
    };
    let pid = rustix::process::Pid::from_raw(service).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    eventually("the service is gone", || !services(&host).contains(&service));
    host.ok(&["exec", "dev", "--", "true"]);
    let [another] = services(&host)[..] else {
        panic!("no service was started again: {:?}", services(&host))
    };
    assert_ne!(another, service);
    host.stop_broker();
    // It has been waited for.
    assert_eq!(services(&host), Vec::<i32>::new());
    assert!(!host.path("podman.sock").exists());
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(services(&host), Vec::<i32>::new(), "nothing starts one while the broker ends");
    host.serve();
    assert_eq!(host.agent("dev")["state"], "running", "agents do not depend on it");
    // That of a broker which was killed goes on with the next, and ends with that.
    host.ok(&["exec", "dev", "--", "true"]);
    let left = services(&host);
    host.kill_broker();
    host.serve();
    host.ok(&["exec", "dev", "--", "true"]);
    assert_eq!((services(&host), left.len()), (left.clone(), 1));
    host.stop_broker();
    assert_eq!(services(&host), Vec::<i32>::new());
    assert!(!host.path("podman.sock").exists());
    host.serve();
    assert_eq!(host.agent("dev")["state"], "running");
}

/// The broker of someone who is not root runs the service of their own Podman, without any right to another's.
#[test]
fn an_ordinary_user_s_broker_runs_their_own_podman() {
    use std::os::unix::fs::MetadataExt;

    if !engine_is_here(ROOTLESS) || !rustix::process::geteuid().is_root() {
        eprintln!("{ROOTLESS} is not here, or is this user's own: not tested");
        return;
    }
    // Whose Podman it is in which the tests have their image.
    let other = rootless_service().unwrap();
    let other = Path::new(other.strip_prefix("unix://").unwrap());
    let user = fs::metadata(other).unwrap().uid();
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let mut accounts = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let home = accounts.find(|it| it[2] == user.to_string()).unwrap()[5];
    let (run, settings) = (format!("/run/user/{user}"), other.with_file_name("containers.conf"));
    let variables =
        [("HOME", home), ("XDG_RUNTIME_DIR", &run), ("CONTAINERS_CONF", settings.to_str().unwrap())];
    let mut host = Host::with_pool(4);
    host.serve_as(user, &variables);
    let image = image();
    let web = "echo $BERTHOLD_AGENT > /tmp/index.html; exec httpd -f -p $AVAILABLE_LOCALHOST_PORT_A -h /tmp";
    host.ok(&["start", "dev", "--wait", "--runtime", "podman", "--image", &image, "--", "sh", "-c", web]);
    assert!(fetch(host.port(0)).unwrap().contains("dev"));
    let [service] = services(&host)[..] else {
        panic!("the broker has one service of its own, not these: {:?}", services(&host))
    };
    assert_eq!(fs::metadata(format!("/proc/{service}")).unwrap().uid(), user);
    let name = host.container("dev");
    assert_eq!(host.engine_containers(ROOTLESS), std::slice::from_ref(&name), "it is that user's");
    assert!(!engine_command("podman", &["ps", "-a", "--format", "{{.Names}}"]).contains(&name));
    host.kill_broker();
    host.serve_as(user, &variables);
    assert!(fetch(host.port(0)).unwrap().contains("dev"), "it has gone on");
    host.ok(&["delete", "dev", "-t", "0s"]);
    assert_eq!((host.engine_containers(ROOTLESS), host.leased()), (vec![], vec![]));
    host.stop_broker();
    assert_eq!(services(&host), Vec::<i32>::new());
}

struct Service(Child);

impl Service {
    /// One that a person has started where a session's usually listens.
    fn in_session(run: &str) -> Self {
        fs::create_dir_all(format!("{run}/podman")).unwrap();
        let socket = format!("{run}/podman/podman.sock");
        let mut command = Command::new("podman");
        let service = command.args(["system", "service", "--time=0", &format!("unix://{socket}")]).spawn();
        let service = Self(service.unwrap());
        eventually("it listens", || UnixStream::connect(&socket).is_ok());
        service
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// P4: an engine may come up after the broker, as after the host was started anew. Until then nothing is known, and it is said so.
#[test]
fn an_engine_that_comes_after_the_broker_is_found() {
    needs_podman!();
    let mut host = Host::looking_every("500ms", 4);
    host.serve();
    let image = image();
    let mut arguments = idle_agent("dev", &image);
    arguments[3] = "podman";
    host.ok(&arguments);
    let leased = host.leased();
    host.stop_broker();
    engine_command("podman", &["rm", "-f", "-t", "0", &host.container("dev")]);
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let run = directory.path().display().to_string();
    host.serve_with(&[("PATH", "/nowhere"), ("XDG_RUNTIME_DIR", &run)]);
    let told = || host.json(&["broker", "status"])["broker"]["warnings"].to_string();
    eventually_or("it is told", || told().contains("podman does not answer"), || host.broker_log());
    // Longer than the age that a lease must have before anything can end it.
    std::thread::sleep(Duration::from_secs(14));
    assert_eq!((host.leased(), host.agent("dev")["state"].clone()), (leased, "running".into()));
    let _service = Service::in_session(&run);
    // The lease must have an age before anything can end it.
    eventually_or("its end is seen", || host.agent("dev")["state"] == "exited", || host.broker_log());
    assert_eq!((host.leased(), told()), (vec![], "[]".to_owned()));
}

/// P4: a service that someone else runs may end at any time. What it ran is seen by the broker's own in its place, and what ends is.
#[test]
fn a_service_that_ends_is_replaced_by_the_broker_s_own() {
    needs_podman!();
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let run = directory.path().display().to_string();
    let service = Service::in_session(&run);
    let mut host = Host::looking_every("500ms", 4);
    host.serve_with(&[("XDG_RUNTIME_DIR", &run)]);
    let image = image();
    for name in ["dev", "gone"] {
        let mut arguments = idle_agent(name, &image);
        arguments[3] = "podman";
        host.ok(&arguments);
    }
    assert_eq!(services(&host), Vec::<i32>::new(), "the one that listens is used");
    let agent = host.agent("dev");
    drop(service);
    engine_command("podman", &["rm", "-f", "-t", "0", &host.container("gone")]);
    eventually_or("an end is seen", || host.agent("gone")["state"] == "exited", || host.broker_log());
    assert_eq!(services(&host).len(), 1);
    assert_eq!(host.agent("dev"), agent);
    assert_eq!(host.ok(&["exec", "dev", "--", "echo", "hi"]), "hi\n");
    assert_eq!(host.json(&["broker", "status"])["broker"]["warnings"].to_string(), "[]");
    let _back = Service::in_session(&run);
    host.ok(&["stop", "dev", "-t", "0s"]);
    assert_eq!(host.leased(), []);
    host.stop_broker();
    assert_eq!(services(&host), Vec::<i32>::new());
}
