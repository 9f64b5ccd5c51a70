//! What every test here stands on: a broker of its own, in a home of its own, with a port range of its own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// The program under test.
pub(crate) const BERTHOLD: &str = env!("CARGO_BIN_EXE_berthold");
/// How many ports a test's range has.
pub(crate) const RANGE_SIZE: u16 = 40;
/// Where the ranges of the tests lie: below Linux's ephemeral ports (32768) and above what services use.
const FIRST_RANGE: u16 = 18_000;
const LAST_RANGE: u16 = 30_000;
/// How long anything is waited for. Generous: it is only reached when something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker's home and all that a test did with it. What is left at the end is stopped and removed.
pub(crate) struct Host {
    home: TempDir,
    serve: Option<Child>,
    range: Range,
    project: String,
    /// A directory with commands that stand before all others.
    commands: Option<PathBuf>,
    /// The cluster that it knows: only that which the tests were given, if any.
    kubeconfig: std::ffi::OsString,
    has_small_disk: bool,
}

/// How much room there is on a disk that can be filled, in bytes.
pub(crate) const SMALL_DISK: usize = 64 << 20;

/// A block of ports that no other test has.
struct Range {
    first: u16,
    _lock: File,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Host {
    /// A home whose settings have a pool of `ports` ports, two an agent.
    pub(crate) fn with_pool(ports: u16) -> Self {
        Self::with_settings(
            |range| {
                format!("server: {{ broker: {{ listen: none, port_pool: {{ range: \"{range}\" }} }} }}\n")
            },
            ports,
        )
    }

    /// A home whose broker looks at everything so often.
    pub(crate) fn looking_every(interval: &str, ports: u16) -> Self {
        let settings = |range: &str| {
            format!(
                "server: {{ broker: {{ listen: none, reconcile_interval: {interval}, port_pool: {{ range: \"{range}\" }} }} }}\n"
            )
        };
        Self::with_settings(settings, ports)
    }

    /// A home whose broker looks every `interval` at a Docker behind a socket of its own, and that socket. Nothing answers there yet.
    pub(crate) fn with_engine(interval: &str, ports: u16) -> (Self, PathBuf) {
        let host = Self::looking_every(interval, ports);
        let socket = host.path("engine.sock");
        let mut settings = fs::read_to_string(host.path("settings.yaml")).unwrap();
        settings += &format!("runtimes: {{ docker: {{ host: \"unix://{}\" }} }}\n", socket.display());
        fs::write(host.path("settings.yaml"), settings).unwrap();
        (host, socket)
    }

    /// A home with the settings that `settings` writes for a range of `ports` ports.
    pub(crate) fn with_settings(settings: impl FnOnce(&str) -> String, ports: u16) -> Self {
        assert!(ports <= RANGE_SIZE, "a test has {RANGE_SIZE} ports at the most");
        let range = Range::take();
        let home = tempfile::Builder::new().prefix("bt").tempdir_in("/tmp").unwrap();
        let text = settings(&format!("{}-{}", range.first, range.first + ports - 1));
        fs::write(home.path().join("settings.yaml"), text).unwrap();
        let project = format!("t{}", home.path().file_name().unwrap().to_string_lossy()[2..].to_lowercase());
        Self {
            home,
            serve: None,
            range,
            project,
            commands: None,
            kubeconfig: tests_kubeconfig(),
            has_small_disk: false,
        }
    }

    /// The same with its broker running.
    pub(crate) fn started(ports: u16) -> Self {
        let mut host = Self::with_pool(ports);
        host.serve();
        host
    }

    /// Lets the broker find a `container` command that stands in for Apple's and keeps its containers on Docker.
    pub(crate) fn with_fake_container(mut self) -> Self {
        self.commands = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakes"));
        self
    }

    /// Lets the broker use the cluster of this kubeconfig.
    pub(crate) fn with_kubeconfig(mut self, path: &str) -> Self {
        self.kubeconfig = path.into();
        self
    }

    /// Starts the broker and waits until it answers.
    pub(crate) fn serve(&mut self) {
        self.serve_with(&[]);
    }

    /// The same with further variables.
    pub(crate) fn serve_with(&mut self, variables: &[(&str, &str)]) {
        self.spawn_broker(variables);
        self.await_broker();
    }

    /// The same of a broker that may be killed before it answers.
    pub(crate) fn serve_in_danger(&mut self, variables: &[(&str, &str)]) {
        self.spawn_broker(variables);
        eventually("the broker answers or is dead", || {
            let is_dead = self.serve.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some());
            is_dead || self.is_ready()
        });
    }

    /// The same of a broker that is another user's, by whom the home is from now on.
    pub(crate) fn serve_as(&mut self, user: u32, variables: &[(&str, &str)]) {
        use std::os::unix::process::CommandExt;

        // The program itself may be where only who builds it can see it.
        let program = self.path("berthold");
        fs::copy(BERTHOLD, &program).unwrap();
        for path in [self.home.path(), &self.path("settings.yaml"), &program] {
            std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
        }
        let mut command = self.command_of(program.to_str().unwrap());
        command.uid(user).gid(user);
        self.spawn(command, variables);
        self.await_broker();
    }

    /// The same of a broker that `command` becomes, with the arguments that it is given.
    pub(crate) fn serve_by(&mut self, command: Command) {
        self.spawn(command, &[]);
        self.await_broker();
    }

    fn spawn_broker(&mut self, variables: &[(&str, &str)]) {
        self.spawn(self.command(), variables);
    }

    fn spawn(&mut self, mut command: Command, variables: &[(&str, &str)]) {
        assert!(self.serve.is_none(), "the broker runs already");
        let log = File::options().create(true).append(true).open(self.path("broker.log")).unwrap();
        let child = command
            .args(["serve"])
            .env("BERTHOLD_LOG", "debug")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.serve = Some(child);
    }

    fn is_ready(&self) -> bool {
        http_get_unix(&self.path("broker.sock"), "/readyz")
            .is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    fn await_broker(&mut self) {
        let log = self.path("broker.log");
        let told = || fs::read_to_string(&log).unwrap_or_default();
        let is_ready = || {
            if let Some(child) = &mut self.serve
                && let Some(status) = child.try_wait().unwrap()
            {
                panic!("the broker ended with {status}:\n{}", self.broker_log());
            }
            self.is_ready()
        };
        eventually_or("the broker answers", is_ready, told);
    }

    /// Ends the broker as an operator would, and waits for it.
    pub(crate) fn stop_broker(&mut self) {
        self.ok(&["broker", "stop"]);
        if let Some(mut child) = self.serve.take() {
            let status = child.wait().unwrap();
            assert!(status.success(), "the broker ended with {status}:\n{}", self.broker_log());
        }
    }

    /// Has the broker stand still, as that of a host that sleeps.
    pub(crate) fn pause_broker(&self) {
        self.signal_broker(Signal::STOP);
    }

    pub(crate) fn wake_broker(&self) {
        self.signal_broker(Signal::CONT);
    }

    fn signal_broker(&self, signal: Signal) {
        let pid = i32::try_from(self.serve.as_ref().expect("a broker runs").id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Ends the broker as a crash would.
    pub(crate) fn kill_broker(&mut self) {
        let mut child = self.serve.take().expect("the broker runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Puts the home on a disk of its own that can be filled, where that is allowed; before the broker is started.
    pub(crate) fn use_small_disk(&mut self) {
        if !rustix::process::geteuid().is_root() || !cfg!(target_os = "linux") {
            return;
        }
        let settings = fs::read(self.path("settings.yaml")).unwrap();
        let size = format!("size={SMALL_DISK}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(self.home.path());
        self.has_small_disk = mount.status().unwrap().success();
        fs::write(self.path("settings.yaml"), settings).unwrap();
    }

    pub(crate) fn has_small_disk(&self) -> bool {
        self.has_small_disk
    }

    /// Whether the broker has died of SIGKILL, which the test did not send.
    pub(crate) fn broker_was_killed(&mut self) -> bool {
        use std::os::unix::process::ExitStatusExt;

        let child = self.serve.as_mut().expect("the broker was started");
        // Its connections end a moment before it does.
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut ended = child.try_wait().unwrap();
        while ended.is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
            ended = child.try_wait().unwrap();
        }
        let was_killed = ended.is_some_and(|status| status.signal() == Some(9));
        if was_killed {
            self.serve = None;
        }
        was_killed
    }

    /// The program with this home, and nothing else of the environment that could lead it elsewhere.
    pub(crate) fn command(&self) -> Command {
        self.command_of(BERTHOLD)
    }

    /// Another program, such as a shell that calls this one, with the same.
    pub(crate) fn command_of(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BERTHOLD_") {
                command.env_remove(name);
            }
        }
        command
            .env("BERTHOLD_HOME", self.home.path())
            .env("BERTHOLD_PROJECT", &self.project)
            .env("NO_COLOR", "1")
            .current_dir(self.home.path());
        command.env("KUBECONFIG", &self.kubeconfig);
        if let Some(commands) = &self.commands {
            let path = std::env::var("PATH").unwrap();
            command.env("PATH", format!("{}:{path}", commands.display()));
        }
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        let output = self.command().args(arguments).stdin(Stdio::null()).output().unwrap();
        Done {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The same, which must succeed; its standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        assert_eq!(done.code, 0, "{arguments:?}: {done:#?}\n{}", self.broker_log());
        done.stdout
    }

    /// Runs the program with `--json`, which must succeed; the document that it prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[&["--json"], arguments].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?} printed {text:?}: {error}"))
    }

    /// Runs the program with `--json`, which must fail with `code`; the error that it prints.
    pub(crate) fn error(&self, code: i32, arguments: &[&str]) -> Value {
        self.error_of(code, arguments, &self.run(&[&["--json"], arguments].concat()))
    }

    /// The error that the program printed as JSON, which must have failed with `code`.
    pub(crate) fn error_of(&self, code: i32, arguments: &[&str], done: &Done) -> Value {
        assert_eq!(done.code, code, "{arguments:?}: {done:#?}\n{}", self.broker_log());
        let document: Value = serde_json::from_str(&done.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?} printed {:?}: {error}", done.stdout));
        document["error"].clone()
    }

    /// The agent as `show` has it.
    pub(crate) fn agent(&self, name: &str) -> Value {
        self.json(&["show", name])["agent"].clone()
    }

    /// Who holds which ports, by the pool: `name A`, port.
    pub(crate) fn leased(&self) -> Vec<(String, u16)> {
        let pool = self.json(&["ports"])["pool"].clone();
        let ports = pool["ports"].as_array().unwrap().clone();
        let leased = ports.iter().filter(|port| port["state"] == "leased");
        leased
            .map(|port| {
                let agent = port["agent"].as_str().unwrap().split_once('/').unwrap().1.to_owned();
                let label = port["label"].as_str().unwrap();
                (format!("{agent} {label}"), u16::try_from(port["port"].as_u64().unwrap()).unwrap())
            })
            .collect()
    }

    /// The `n`th port of this host's range, from 0.
    pub(crate) fn port(&self, n: u16) -> u16 {
        self.range.first + n
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn project(&self) -> &str {
        &self.project
    }

    /// The name of an agent on its runtime.
    pub(crate) fn container(&self, name: &str) -> String {
        format!("{}--{name}", self.project)
    }

    /// Waits until the broker listens to a runtime, which it does once it has a first agent there, and has looked at all of it for
    /// that: from then on it looks again only when something happens there.
    pub(crate) fn await_listening(&self, runtime: &str) {
        let told = |line: &str| {
            line.contains("listening to what is started there")
                && line.contains(&format!("runtime=\"{runtime}\""))
        };
        eventually_or("it listens", || self.broker_log().lines().any(told), || self.broker_log());
    }

    pub(crate) fn broker_log(&self) -> String {
        fs::read_to_string(self.path("broker.log")).unwrap_or_default()
    }

    /// The names of all Docker containers that carry this broker's label, in whatever state.
    pub(crate) fn containers(&self) -> Vec<String> {
        self.engine_containers("docker")
    }

    /// The names of all containers of an engine that carry this broker's label, in whatever state.
    pub(crate) fn engine_containers(&self, engine: &str) -> Vec<String> {
        self.labelled_containers(engine, "berthold.broker")
    }

    /// The names of this broker's pods, in whatever state.
    pub(crate) fn pods(&self) -> Vec<String> {
        let Ok(id) = fs::read_to_string(self.path("broker.id")) else { return Vec::new() };
        let label = format!("berthold.broker={}", id.trim());
        let listed = kubectl(&["get", "pods", "-l", &label, "-o", "name"]);
        let mut names: Vec<String> =
            listed.lines().map(|line| line.trim_start_matches("pod/").to_owned()).collect();
        names.sort();
        names
    }

    /// The names of what the fake `container` keeps on Docker for this broker, in whatever state.
    pub(crate) fn fake_containers(&self) -> Vec<String> {
        self.labelled_containers("docker", "apple.berthold.broker")
    }

    /// What is there of this broker's agents, as the runtime itself tells it.
    pub(crate) fn leftovers(&self, engine: &str) -> Vec<String> {
        match engine {
            "process" => {
                let entries = fs::read_dir(self.path("processes")).into_iter().flatten().flatten();
                let mut names: Vec<String> =
                    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
                names.retain(|name| !name.starts_with('.'));
                names.sort();
                names
            }
            "container" => self.fake_containers(),
            "kubernetes" => self.pods(),
            engine => self.engine_containers(engine),
        }
    }

    fn labelled_containers(&self, engine: &str, label: &str) -> Vec<String> {
        let Ok(id) = fs::read_to_string(self.path("broker.id")) else { return Vec::new() };
        let filter = format!("label={label}={}", id.trim());
        let listed = engine_command(engine, &["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]);
        let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
        names.sort();
        names
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let mut is_clean = false;
        if http_get_unix(&self.path("broker.sock"), "/readyz").is_some() {
            // The end of a test that may have failed already: what does not work here is not what it was about.
            let works = |args: &[&str]| {
                self.command().args(args).output().is_ok_and(|output| output.status.success())
            };
            is_clean = works(&["delete", "--all", "--timeout", "0s"]);
            let is_stopped = works(&["broker", "stop"]);
            // After a failure the broker's word on it is not to be relied on.
            is_clean &= is_stopped && !std::thread::panicking();
            if is_stopped && let Some(mut child) = self.serve.take() {
                drop(child.wait());
            }
        }
        if let Some(mut child) = self.serve.take() {
            drop(child.kill());
            drop(child.wait());
        }
        // Engines take long to say that they have nothing of this broker.
        if !is_clean && std::env::var_os("BERTHOLD_KUBECONFIG").is_some() {
            for name in self.pods() {
                drop(
                    kubectl_command()
                        .args(["delete", "pod", &name, "--grace-period", "0", "--force"])
                        .output(),
                );
            }
        }
        for engine in ENGINES.into_iter().filter(|engine| !is_clean && answers(engine)) {
            let faked = if engine == "docker" { self.fake_containers() } else { Vec::new() };
            for name in self.engine_containers(engine).into_iter().chain(faked) {
                drop(Command::new(engine).args(["rm", "-f", "-v", &name]).output());
            }
        }
        if self.has_small_disk {
            // Lazily: an agent of a test that failed may still be there.
            drop(Command::new("umount").arg("-l").arg(self.home.path()).output());
        }
    }
}

impl Range {
    fn take() -> Self {
        let is_free = |port: u16| TcpListener::bind(("0.0.0.0", port)).is_ok();
        let mut ranges = (FIRST_RANGE..LAST_RANGE).step_by(usize::from(RANGE_SIZE));
        let taken = ranges.find_map(|first| {
            let lock = lock_of_range(first)?;
            (first..first + RANGE_SIZE).all(is_free).then_some(Self { first, _lock: lock })
        });
        taken.unwrap_or_else(|| panic!("no free range of {RANGE_SIZE} ports is left"))
    }
}

/// The lock on the ports from `first` on, unless another test has it.
pub(crate) fn lock_of_range(first: u16) -> Option<File> {
    let directory = Path::new("/tmp/berthold-test-ranges");
    fs::create_dir_all(directory).unwrap();
    let path = directory.join(first.to_string());
    let lock = File::options().create(true).truncate(false).write(true).open(path).unwrap();
    lock.try_lock().is_ok().then_some(lock)
}

/// What tests call a Podman that is not root's.
pub(crate) const ROOTLESS: &str = "rootless";

/// The engines that tests use, by the names of their commands.
const ENGINES: [&str; 2] = ["docker", "podman"];

/// Whether Docker answers. Where it is required, it must.
pub(crate) fn docker_is_here() -> bool {
    engine_is_here("docker")
}

/// Whether what a test needs must be here (`BERTHOLD_REQUIRE`): that it is not is then a failure.
pub(crate) fn is_required(what: &str) -> bool {
    std::env::var("BERTHOLD_REQUIRE").unwrap_or_default().split(',').any(|name| name == what)
}

/// Whether an engine answers. Where it is required, it must.
pub(crate) fn engine_is_here(engine: &str) -> bool {
    let answers = answers(engine);
    assert!(answers || !is_required(engine), "{engine} is required and does not answer");
    answers
}

fn answers(engine: &str) -> bool {
    if engine == ROOTLESS && rootless_service().is_none() {
        return false;
    }
    command_of(engine).arg("info").output().is_ok_and(|output| output.status.success())
}

/// Where the scripts for a real browser are, if it is here with what they need. Where it is required, it must be.
pub(crate) fn browser_tests() -> Option<PathBuf> {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
    let is_here = Path::new(&chromium).exists() && files.join("node_modules/playwright-core").exists();
    if !is_here {
        assert!(!is_required("chromium"), "chromium is required and is not here");
        let said =
            "Chromium is not here, or not what drives it (`npm ci` in crates/cli/tests/browser): not tested";
        drop(writeln!(std::io::stderr(), "{said}"));
    }
    is_here.then_some(files)
}

/// Whether there is a cluster for the tests. Where it is required, it must be.
pub(crate) fn cluster_is_here() -> bool {
    let is_here = std::env::var_os("BERTHOLD_KUBECONFIG").is_some()
        && kubectl_command().args(["get", "namespaces"]).output().is_ok_and(|output| output.status.success());
    let is_named = std::env::var_os("BERTHOLD_KUBECONFIG").is_some() || is_required("kubernetes");
    assert!(is_here || !is_named, "BERTHOLD_KUBECONFIG names no cluster that answers");
    is_here
}

/// The image with which agents are run on the cluster, whose nodes must have it: busybox.
pub(crate) fn cluster_image() -> String {
    std::env::var("BERTHOLD_TEST_CLUSTER_IMAGE").unwrap_or_else(|_| "localhost/httpd:1".to_owned())
}

/// The `kubectl` command with the cluster of the tests.
pub(crate) fn kubectl_command() -> Command {
    let mut command = Command::new("kubectl");
    command.env("KUBECONFIG", tests_kubeconfig());
    command
}

fn tests_kubeconfig() -> std::ffi::OsString {
    std::env::var_os("BERTHOLD_KUBECONFIG").unwrap_or_else(|| "/dev/null".into())
}

/// Runs the `kubectl` command, which must succeed.
pub(crate) fn kubectl(arguments: &[&str]) -> String {
    let output = kubectl_command().args(arguments).output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {arguments:?}: {messages}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Ends the test here, saying so, where there is no Docker.
macro_rules! needs_docker {
    () => {
        if !crate::support::docker_is_here() {
            eprintln!("Docker is not here: not tested");
            return;
        }
    };
}
pub(crate) use needs_docker;

/// The same of Podman.
macro_rules! needs_podman {
    () => {
        if !crate::support::engine_is_here("podman") {
            eprintln!("Podman is not here: not tested");
            return;
        }
    };
}
pub(crate) use needs_podman;

/// The image with which agents are run: busybox.
pub(crate) fn image() -> String {
    std::env::var("BERTHOLD_TEST_IMAGE").unwrap_or_else(|_| "localhost/berthold-test:1".to_owned())
}

/// Runs the `docker` command, which must succeed.
pub(crate) fn docker(arguments: &[&str]) -> String {
    engine_command("docker", arguments)
}

/// The command of an engine. That of rootless Podman speaks to its service, which runs as another user.
fn command_of(engine: &str) -> Command {
    if engine != ROOTLESS {
        return Command::new(engine);
    }
    let mut command = Command::new("podman");
    command.args(["--remote", "--url", &rootless_service().unwrap_or_else(|| "unix:///nowhere".to_owned())]);
    command
}

/// Where rootless Podman listens, if there is one for the tests.
pub(crate) fn rootless_service() -> Option<String> {
    std::env::var("BERTHOLD_ROOTLESS_PODMAN").ok().filter(|service| !service.is_empty())
}

/// Runs the command of an engine, which must succeed.
pub(crate) fn engine_command(engine: &str, arguments: &[&str]) -> String {
    let output = command_of(engine).args(arguments).output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{engine} {arguments:?}: {messages}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, condition: impl FnMut() -> bool) {
    eventually_or(what, condition, String::new);
}

/// The same; `otherwise` says more if it does not.
pub(crate) fn eventually_or(what: &str, mut condition: impl FnMut() -> bool, otherwise: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what} {}", otherwise());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The body of `http://127.0.0.1:port/`, if it answers with 200.
pub(crate) fn fetch(port: u16) -> Option<String> {
    fetch_path(port, "/")
}

/// The same of a path.
pub(crate) fn fetch_path(port: u16, path: &str) -> Option<String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    // kube-proxy accepts connections on a new port that it passes on only a moment later.
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let answer = converse(stream, "GET", path)?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split_whitespace().nth(1).filter(|status| *status == "200").map(|_| body.to_owned())
}

/// The whole answer to a GET on a Unix socket, if there is one.
pub(crate) fn http_get_unix(socket: &Path, path: &str) -> Option<String> {
    converse(UnixStream::connect(socket).ok()?, "GET", path)
}

/// The body of the answer to a GET on a Unix socket.
pub(crate) fn http_body_unix(socket: &Path, path: &str) -> String {
    http_get_unix(socket, path).unwrap().split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The document that is the answer to a POST without a body on a Unix socket: at once, where starting a program would take its time.
pub(crate) fn http_post_unix(socket: &Path, path: &str) -> Value {
    let answer = converse(UnixStream::connect(socket).unwrap(), "POST", path).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(body).unwrap()
}

fn converse(mut stream: impl Read + Write, method: &str, path: &str) -> Option<String> {
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    (!answer.is_empty()).then(|| String::from_utf8_lossy(&answer).into_owned())
}

/// The arguments that start a Docker agent with a web server on both ports, which serves the agent's name.
pub(crate) fn web_agent<'a>(name: &'a str, image: &'a str) -> Vec<&'a str> {
    let script = "echo $BERTHOLD_AGENT > /tmp/index.html
        httpd -p $AVAILABLE_LOCALHOST_PORT_A -h /tmp
        trap 'exit 0' TERM
        httpd -f -p $AVAILABLE_LOCALHOST_PORT_B -h /tmp & wait";
    vec!["start", name, "--runtime", "docker", "--image", image, "--wait", "--", "sh", "-c", script]
}

/// The script of an agent that does nothing, and ends at once when asked to.
pub(crate) const IDLE: &str = "trap 'exit 0' TERM; sleep 100000 & wait";

/// The arguments that start a Docker agent that does nothing, and ends at once when asked to.
pub(crate) fn idle_agent<'a>(name: &'a str, image: &'a str) -> Vec<&'a str> {
    vec!["start", name, "--runtime", "docker", "--image", image, "--", "sh", "-c", IDLE]
}

/// The arguments that start a plain process with the demo's web server on its ports.
pub(crate) fn process_agent(name: &str) -> Vec<&str> {
    vec!["start", name, "--runtime", "process", "--", BERTHOLD, "__demo-server"]
}

/// What happens to a request on its way to Docker, and to what comes back.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    Open,
    /// What contains this is swallowed, and whoever sent it waits.
    Unheard(&'static str),
    /// The answer to what contains this breaks off in its midst.
    CutOff(&'static str),
}

/// A socket behind which Docker answers, for as long as this is there.
pub(crate) struct Between {
    path: PathBuf,
    connections: Arc<Mutex<Option<Vec<UnixStream>>>>,
}

impl Between {
    pub(crate) fn open(path: &Path) -> Self {
        Self::on(path, Way::Open)
    }

    /// One on which that happens.
    pub(crate) fn on(path: &Path, way: Way) -> Self {
        drop(fs::remove_file(path));
        let listener = UnixListener::bind(path).unwrap();
        let connections = Arc::new(Mutex::new(Some(Vec::new())));
        let open = Arc::clone(&connections);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (near, far) = (near.unwrap(), UnixStream::connect("/var/run/docker.sock").unwrap());
                let copies = [(&near, &far), (&far, &near)]
                    .map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()));
                // Whether the next answer on this connection is to break off.
                let is_cut = Arc::new(AtomicBool::new(false));
                match open.lock().unwrap().as_mut() {
                    Some(open) => open.extend([near, far]),
                    None => return,
                }
                for (is_request, (mut from, mut to)) in [true, false].into_iter().zip(copies) {
                    let is_cut = Arc::clone(&is_cut);
                    std::thread::spawn(move || {
                        let mut chunk = vec![0; 16 * 1024];
                        while let Ok(count @ 1..) = from.read(&mut chunk) {
                            let text = String::from_utf8_lossy(&chunk[..count]);
                            match way {
                                Way::Unheard(it) if text.contains(it) => continue,
                                Way::CutOff(it) if is_request => is_cut.store(text.contains(it), SeqCst),
                                _ => {}
                            }
                            let is_last = !is_request && is_cut.load(SeqCst);
                            let passed = if is_last { count / 2 } else { count };
                            if to.write_all(&chunk[..passed]).is_err() || is_last {
                                break;
                            }
                        }
                        // Whichever side goes away, the other is told.
                        drop(to.shutdown(Shutdown::Write));
                    });
                }
            }
        });
        Self { path: path.to_owned(), connections }
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
        for stream in self.connections.lock().unwrap().take().into_iter().flatten() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

/// What the broker tells of by `GET /v1/events`.
pub(crate) struct Events(std::io::Lines<BufReader<UnixStream>>);

impl Events {
    pub(crate) fn of(host: &Host) -> Self {
        let mut stream = UnixStream::connect(host.path("broker.sock")).unwrap();
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines();
        // The headers have come, so the broker tells of all that happens from now on.
        assert!(lines.by_ref().any(|line| line.unwrap().is_empty()));
        Self(lines)
    }

    /// The next event that is so.
    pub(crate) fn until(&mut self, mut is_so: impl FnMut(&serde_json::Value) -> bool) -> serde_json::Value {
        // A comment comes every so often while there is no event.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.0.next().expect("the events have ended").unwrap();
            let data = line.strip_prefix("data: ").map(|data| serde_json::from_str(data).unwrap());
            if let Some(event) = data.filter(&mut is_so) {
                return event;
            }
            assert!(Instant::now() < deadline, "no such event within {PATIENCE:?}");
        }
    }
}

/// What the API says is behind port A of an agent.
pub(crate) fn behind(host: &Host, name: &str) -> serde_json::Value {
    let path = format!("/v1/agents/{}/{name}/behind", host.project());
    let answer = http_get_unix(&host.path("broker.sock"), &path).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let (start, end) = (body.find('{').unwrap(), body.rfind('}').unwrap());
    serde_json::from_str::<serde_json::Value>(&body[start..=end]).unwrap()["behind"][0].clone()
}
