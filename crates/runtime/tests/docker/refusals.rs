//! What the engine refuses, and an engine that does not answer.

use std::io::{Read, Write};
use std::net::TcpListener;

use runtime::docker::{Docker, EngineEndpoint};
use runtime::{ErrorKind, Network, ObservedState, Runtime, Spec, Volume};

use crate::support::{Agents, LOOPBACK, free_port, observed, publish};

#[tokio::test]
async fn a_port_of_a_host_process_is_refused_by_its_number() {
    let Some(agents) = Agents::new().await else { return };
    let holder = TcpListener::bind((LOOPBACK, 0)).unwrap();
    check_refused(&agents, holder.local_addr().unwrap().port()).await;
}

#[tokio::test]
async fn a_port_of_another_container_is_refused_by_its_number() {
    let Some(agents) = Agents::new().await else { return };
    let port = free_port();
    let holder = agents.docker.create(&agents.serving(port)).await.unwrap();
    agents.docker.start(&holder.id).await.unwrap();
    check_refused(&agents, port).await;
}

async fn check_refused(agents: &Agents, port: u16) {
    let docker = &agents.docker;
    let created = docker.create(&agents.serving(port)).await.unwrap();
    let error = docker.start(&created.id).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PortRefused { port: Some(port) }, "{error}");
    assert!(error.message.starts_with("docker cannot start the container: "), "{error}");
    assert!(!error.message.contains("external connectivity"), "{error}");
    assert_eq!(observed(docker, &created.id).await.state, ObservedState::Created);
    docker.remove(&created.id).await.unwrap();
    assert_eq!(docker.inspect(&created.id).await.unwrap(), None);
}

#[tokio::test]
async fn a_taken_name_is_no_taken_port() {
    let Some(agents) = Agents::new().await else { return };
    let spec = agents.spec(&["sleep", "60"]);
    agents.docker.create(&spec).await.unwrap();
    let error = agents.docker.create(&Spec { publish: publish(free_port()), ..spec }).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NameTaken, "{error}");
}

#[tokio::test]
async fn the_beginning_of_an_id_is_not_an_id() {
    let Some(agents) = Agents::new().await else { return };
    let created = agents.docker.create(&agents.spec(&["sleep", "60"])).await.unwrap();
    let beginning = &created.id[..12];
    assert_eq!(agents.docker.inspect(beginning).await.unwrap(), None);
    agents.docker.remove(beginning).await.unwrap();
    for wrong in ["", "..", "a/b", "a?b"] {
        assert_eq!(agents.docker.inspect(wrong).await.unwrap(), None);
    }
    assert!(agents.docker.inspect(&created.id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_command_that_is_not_there() {
    let Some(agents) = Agents::new().await else { return };
    for command in ["no-such-command", "/no/such/command", "/etc"] {
        let created = agents.docker.create(&agents.spec(&[command])).await.unwrap();
        let error = agents.docker.start(&created.id).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Command, "{command}: {error}");
        assert!(error.message.contains(command), "{error}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_request() {
    let Some(agents) = Agents::new().await else { return };
    let docker = &agents.docker;
    let fine = agents.spec(&["sleep", "60"]);
    let kind = async |spec: Spec| docker.create(&spec).await.unwrap_err().kind;

    let missing = Some("localhost/berthold-no-such-image:1".to_owned());
    assert_eq!(kind(Spec { image: missing, ..fine.clone() }).await, ErrorKind::Image);
    let missing = Volume { source: "/no/such/directory".into(), target: "/data".into(), read_only: false };
    assert_eq!(kind(Spec { volumes: vec![missing], ..fine.clone() }).await, ErrorKind::Invalid);
    assert!(!std::path::Path::new("/no/such/directory").exists());
    assert_eq!(kind(Spec { name: "not a name".into(), ..fine.clone() }).await, ErrorKind::Invalid);

    let network = Network::Named("berthold-no-such-network".into());
    let error = match docker.create(&Spec { network, ..fine }).await {
        Ok(created) => docker.start(&created.id).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn what_does_not_answer_is_unreachable_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let connect = |endpoint: &EngineEndpoint| Docker::connect("docker", endpoint).unwrap();

    let missing = EngineEndpoint::unix(directory.path().join("missing.sock"));
    let error = connect(&missing).engine().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert_eq!(error.message, format!("docker cannot be reached: there is no {missing}"));
    assert!(error.hint.is_some());

    let stale = directory.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let error = connect(&EngineEndpoint::unix(stale)).list().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
}

#[tokio::test]
async fn a_stranger_is_not_believed_that_nothing_is_there() {
    let stranger = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let address = stranger.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in stranger.incoming().take(4) {
            let mut connection = connection.unwrap();
            let mut request = [0; 4096];
            let _read = connection.read(&mut request).unwrap();
            connection.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found").unwrap();
        }
    });
    let endpoint: EngineEndpoint = format!("tcp://{address}").parse().unwrap();
    let stranger = Docker::connect("docker", &endpoint).unwrap();
    assert!(stranger.is_local());
    let whole_id = "a".repeat(64);
    assert_eq!(stranger.inspect("web").await.unwrap_err().kind, ErrorKind::Other);
    assert_eq!(stranger.remove(&whole_id).await.unwrap_err().kind, ErrorKind::Other);
    assert_eq!(stranger.stop(&whole_id, std::time::Duration::ZERO).await.unwrap_err().kind, ErrorKind::Other);
    assert_eq!(stranger.list().await.unwrap_err().kind, ErrorKind::Other);
}

#[tokio::test]
async fn the_engine_introduces_itself() {
    let Some(agents) = Agents::new().await else { return };
    let engine = agents.docker.engine().await.unwrap();
    assert!(engine.version.starts_with(|first: char| first.is_ascii_digit()), "{engine:?}");
    assert_eq!(engine.endpoint, agents.docker.endpoint().to_string());
    assert_eq!((agents.docker.name(), agents.docker.needs_image()), ("docker", true));
}
