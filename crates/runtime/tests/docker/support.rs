//! The engine for the tests, and the removal of what they make on it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use runtime::docker::{Docker, EngineEndpoint, endpoint};
use runtime::{ExecRequest, LogStream, Network, Observed, Output, Publish, Runtime, RuntimeError, Spec};

pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Longer than anything takes that works.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// The engine, and the agents that one test makes on it; they are removed with this.
pub(crate) struct Agents {
    pub(crate) docker: Docker,
    /// Part of the name of all of them, and of no other test's.
    pub(crate) name: String,
    pub(crate) image: String,
    count: AtomicU32,
}

impl Agents {
    /// None if there is no engine and none is required.
    pub(crate) async fn new() -> Option<Self> {
        let home = std::env::var_os("HOME").map(std::path::PathBuf::from);
        let found = endpoint::find(None, &|name| std::env::var(name).ok(), home.as_deref()).unwrap();
        for endpoint in found {
            let docker = Docker::connect("docker", &endpoint).unwrap();
            if docker.engine().await.is_ok() {
                let mut random = [0; 4];
                getrandom::fill(&mut random).unwrap();
                let name = format!("berthold-test-{:08x}", u32::from_ne_bytes(random));
                let image = std::env::var("BERTHOLD_TEST_IMAGE");
                let image = image.unwrap_or_else(|_| "localhost/berthold-test:1".to_owned());
                return Some(Self { docker, name, image, count: AtomicU32::new(0) });
            }
        }
        let required = std::env::var("BERTHOLD_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|engine| engine.trim() == "docker"),
            "docker is required but not here"
        );
        println!("docker is not here: not tested");
        None
    }

    /// An agent that runs `command`, under another name each time.
    pub(crate) fn spec(&self, command: &[&str]) -> Spec {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        Spec {
            name: format!("{}-{number}", self.name),
            image: Some(self.image.clone()),
            command: command.iter().map(|&part| part.to_owned()).collect(),
            env: Vec::new(),
            labels: BTreeMap::from([("berthold.broker".to_owned(), self.name.clone())]),
            volumes: Vec::new(),
            workdir: None,
            console: runtime::Console::default(),
            network: Network::Default,
            publish: Vec::new(),
            binds: Vec::new(),
        }
    }

    /// An agent with a web server on `port`, which it publishes on loopback.
    pub(crate) fn serving(&self, port: u16) -> Spec {
        let page = format!("mkdir -p /www && echo hello from {port} > /www/index.html");
        let script = format!("{page} && exec httpd -f -p {port} -h /www");
        Spec { publish: publish(port), ..self.spec(&["sh", "-c", &script]) }
    }

    /// What the `docker` command prints, for what the runtime does not do.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        let endpoint = self.docker.endpoint().to_string();
        let output = Command::new("docker").arg("-H").arg(endpoint).args(arguments).output().unwrap();
        assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        let count = *self.count.get_mut();
        let names: Vec<String> = (0..count).map(|number| format!("{}-{number}", self.name)).collect();
        let docker = self.docker.clone();
        // On a thread of its own, since a test's runtime cannot be waited for from within.
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for name in names {
                    if let Err(error) = docker.remove(&name).await {
                        println!("{name} is left behind: {error}");
                    }
                }
            });
        });
        let _it_has_said_what_went_wrong = removal.join();
    }
}

/// A client and the engine that it asks, to be played with [`answer`].
pub(crate) fn an_engine(name: &'static str) -> (Docker, TcpListener) {
    let engine = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let endpoint: EngineEndpoint = format!("tcp://{}", engine.local_addr().unwrap()).parse().unwrap();
    (Docker::connect(name, &endpoint).unwrap(), engine)
}

/// Answers the next question, after `before`.
pub(crate) fn answer(engine: &TcpListener, body: &str, before: impl FnOnce()) {
    let (mut connection, _) = engine.accept().unwrap();
    let _read = connection.read(&mut [0; 4096]).unwrap();
    before();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    connection.write_all((head + body).as_bytes()).unwrap();
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

pub(crate) fn publish(port: u16) -> Vec<Publish> {
    vec![Publish { address: LOOPBACK, host: port, container: port }]
}

pub(crate) async fn observed(docker: &Docker, id: &str) -> Observed {
    docker.inspect(id).await.unwrap().expect("the container is there")
}

/// All that was written on standard output and on standard error.
pub(crate) async fn written(mut stream: LogStream) -> (String, String) {
    let (mut out, mut error) = (Vec::new(), Vec::new());
    while let Some(output) = stream.next().await {
        match output.unwrap() {
            Output::Stdout(bytes) => out.extend(bytes),
            Output::Stderr(bytes) => error.extend(bytes),
        }
    }
    (String::from_utf8(out).unwrap(), String::from_utf8(error).unwrap())
}

pub(crate) fn exec_request(command: &[&str]) -> ExecRequest {
    ExecRequest { command: command.iter().map(|&part| part.to_owned()).collect(), ..ExecRequest::default() }
}

pub(crate) async fn refused(docker: &Docker, id: &str, request: &ExecRequest) -> RuntimeError {
    match docker.exec(id, request).await {
        Ok(_) => panic!("the command was run"),
        Err(error) => error,
    }
}
