//! From creation to removal.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use runtime::docker::Docker;
use runtime::{ErrorKind, LogRequest, Network, ObservedState, Runtime, Spec, Volume};

use crate::support::{
    Agents, LONG, LOOPBACK, an_engine, answer, exec_request, free_port, observed, publish, refused, written,
};

#[tokio::test]
async fn what_it_publishes_can_be_reached_until_it_is_stopped() {
    let Some(agents) = Agents::new().await else { return };
    let docker = &agents.docker;
    let port = free_port();
    let spec = Spec {
        labels: [
            ("berthold.agent".to_owned(), "shop/dev".to_owned()),
            ("berthold.broker".to_owned(), agents.name.clone()),
            ("berthold.ports".to_owned(), format!("{port}")),
        ]
        .into(),
        ..agents.serving(port)
    };
    let created = docker.create(&spec).await.unwrap();
    assert_eq!(created.warnings, Vec::<String>::new());
    let before = observed(docker, &created.id).await;
    assert_eq!((before.state, before.published), (ObservedState::Created, Vec::new()));

    docker.start(&created.id).await.unwrap();
    docker.start(&created.id).await.expect("starting what runs succeeds");
    assert!(fetch(port).contains(&format!("hello from {port}")));

    let running = observed(docker, &spec.name).await;
    assert!(matches!(running.state, ObservedState::Running { since: Some(_) }), "{:?}", running.state);
    assert_eq!((&running.id, &running.name), (&created.id, &spec.name));
    assert_eq!((&running.labels, running.image), (&spec.labels, spec.image.clone()));
    assert_eq!(running.published, publish(port));

    let listed = docker.list().await.unwrap();
    let listed = listed.iter().find(|listed| listed.id == created.id).expect("it is listed");
    assert_eq!((&listed.name, &listed.labels, &listed.published), (&spec.name, &spec.labels, &publish(port)));
    assert!(matches!(listed.state, ObservedState::Running { .. }));

    docker.stop(&created.id, Duration::from_secs(1)).await.unwrap();
    TcpListener::bind((LOOPBACK, port)).expect("the port is free once stop returns");
    let stopped = observed(docker, &created.id).await;
    assert!(matches!(stopped.state, ObservedState::Exited { .. }), "{:?}", stopped.state);
    assert_eq!(stopped.published, Vec::new());
    let listed = docker.list().await.unwrap();
    let listed = listed.into_iter().find(|listed| listed.id == created.id).expect("it is still listed");
    assert_eq!(listed, stopped);

    docker.stop(&created.id, Duration::from_secs(1)).await.expect("stopping what is stopped succeeds");
    docker.remove(&created.id).await.unwrap();
    assert_eq!(docker.inspect(&created.id).await.unwrap(), None);
    docker.remove(&created.id).await.expect("removing what is gone succeeds");
    docker.stop(&spec.name, Duration::from_secs(1)).await.expect("stopping what is gone succeeds");
    assert_eq!(docker.wait_for_end(&created.id, LONG).await.unwrap(), None);
    assert_eq!(docker.start(&created.id).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn two_removals_at_a_time_both_succeed() {
    let Some(agents) = Agents::new().await else { return };
    let created = agents.docker.create(&agents.spec(&["sleep", "60"])).await.unwrap();
    agents.docker.start(&created.id).await.unwrap();
    let (one, other) = tokio::join!(agents.docker.remove(&created.id), agents.docker.remove(&created.id));
    one.unwrap();
    other.unwrap();
    assert_eq!(agents.docker.inspect(&created.id).await.unwrap(), None);
}

#[tokio::test]
async fn the_host_network_publishes_nothing() {
    let Some(agents) = Agents::new().await else { return };
    for network in [Network::Host, Network::None] {
        let spec = Spec { network, ..agents.serving(free_port()) };
        let created = agents.docker.create(&spec).await.unwrap();
        agents.docker.start(&created.id).await.unwrap();
        assert_eq!(observed(&agents.docker, &created.id).await.published, Vec::new());
        agents.docker.remove(&created.id).await.unwrap();
    }
}

#[tokio::test]
async fn volumes_variables_and_the_directory_reach_the_command() {
    let Some(agents) = Agents::new().await else { return };
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("given"), "from the host\n").unwrap();
    let volume = |target: &str, read_only| Volume {
        source: directory.path().to_str().unwrap().to_owned(),
        target: target.to_owned(),
        read_only,
    };
    let script = "cat /in/given; pwd; echo $A; echo kept > /out/made; touch /in/made || true";
    let spec = Spec {
        volumes: vec![volume("/in", true), volume("/out", false)],
        workdir: Some("/out".into()),
        env: vec![("A".into(), "first".into()), ("A".into(), "last = wins".into())],
        ..agents.spec(&["sh", "-c", script])
    };
    let created = agents.docker.create(&spec).await.unwrap();
    agents.docker.start(&created.id).await.unwrap();
    assert_eq!(ended(&agents.docker, &created.id).await, (Some(0), None));
    let log = agents.docker.logs(&created.id, &LogRequest::default()).await.unwrap();
    let (out, error) = written(log).await;
    assert_eq!(out, "from the host\n/out\nlast = wins\n");
    assert!(error.contains("Read-only file system"), "{error}");
    assert_eq!(std::fs::read_to_string(directory.path().join("made")).unwrap(), "kept\n");
}

#[tokio::test]
async fn exit_codes_and_logs() {
    let Some(agents) = Agents::new().await else { return };
    let docker = &agents.docker;
    let script = "seq 1 5; echo complaint >&2; exit 7";
    let created = docker.create(&agents.spec(&["sh", "-c", script])).await.unwrap();
    docker.start(&created.id).await.unwrap();
    assert_eq!(ended(docker, &created.id).await, (Some(7), None));

    let log = async |tail, follow| {
        written(docker.logs(&created.id, &LogRequest { tail, follow }).await.unwrap()).await
    };
    assert_eq!(log(None, false).await, ("1\n2\n3\n4\n5\n".into(), "complaint\n".into()));
    let (out, error) = log(Some(3), false).await;
    assert_eq!((out + &error).lines().count(), 3);
    assert_eq!(log(None, true).await.0.lines().count(), 5, "following what has ended comes to an end");

    let nothing = docker.logs("berthold-nothing", &LogRequest::default()).await.map(|_| ()).unwrap_err();
    assert_eq!(nothing.kind, ErrorKind::NotFound, "{nothing}");
}

#[tokio::test]
async fn a_followed_log_goes_on_until_the_agent_ends() {
    let Some(agents) = Agents::new().await else { return };
    let docker = &agents.docker;
    let created = docker.create(&agents.spec(&["sh", "-c", "echo one; sleep 1; echo two"])).await.unwrap();
    docker.start(&created.id).await.unwrap();
    let running = docker.wait_for_end(&created.id, Duration::from_millis(10)).await.unwrap().unwrap();
    assert!(matches!(running.state, ObservedState::Running { .. }), "the limit is kept");
    let log = docker.logs(&created.id, &LogRequest { tail: None, follow: true }).await.unwrap();
    assert_eq!(written(log).await.0, "one\ntwo\n");
    assert_eq!(ended(docker, &created.id).await, (Some(0), None));
}

/// Podman (4.3) begins to answer with the first line, however long that takes.
#[tokio::test]
async fn a_followed_log_may_be_silent_for_as_long_as_it_likes() {
    let (podman, engine) = an_engine("podman");
    // The test says when the first line is written.
    let (speak, spoken) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        answer(&engine, &format!(r#"{{"Id":"{}","Name":"web"}}"#, "a".repeat(64)), || ());
        answer(&engine, "\u{1}\0\0\0\0\0\0\u{6}first\n", || spoken.recv().unwrap());
    });
    let log = podman.logs("web", &LogRequest { tail: None, follow: true }).await.unwrap();
    speak.send(()).unwrap();
    assert_eq!(written(log).await.0, "first\n");
}

/// Podman (4.3) has a word of its own for the time from a container's end until its ports are taken down.
#[tokio::test]
async fn what_has_ended_is_told_as_such_once_it_is_taken_down() {
    let (podman, engine) = an_engine("podman");
    let (id, other) = ("a".repeat(64), "b".repeat(64));
    let inspection =
        |id: &str, status: &str| format!(r#"{{"Id":"{id}","State":{{"Status":"{status}","ExitCode":3}}}}"#);
    let listing = format!(r#"[{{"Id":"{id}","State":"stopped"}},{{"Id":"{other}","State":"running"}}]"#);
    let answers = [
        inspection(&id, "stopped"),
        inspection(&id, "stopped"),
        inspection(&id, "exited"),
        listing,
        inspection(&id, "exited"),
    ];
    std::thread::spawn(move || answers.iter().for_each(|body| answer(&engine, body, || ())));
    let ended = ObservedState::Exited { code: Some(3), at: None, detail: None };
    assert_eq!(podman.inspect(&id).await.unwrap().unwrap().state, ended);
    let states: Vec<ObservedState> = podman.list().await.unwrap().into_iter().map(|it| it.state).collect();
    assert_eq!(states, [ended, ObservedState::Running { since: None }]);
}

#[tokio::test]
async fn what_ignores_the_request_to_end_is_ended_by_force() {
    let Some(agents) = Agents::new().await else { return };
    let spec = agents.spec(&["sh", "-c", "trap '' TERM; echo ready; while true; do sleep 1; done"]);
    let created = agents.docker.create(&spec).await.unwrap();
    agents.docker.start(&created.id).await.unwrap();
    let mut log = agents.docker.logs(&created.id, &LogRequest { tail: None, follow: true }).await.unwrap();
    log.next().await.expect("it is ready").unwrap();

    let start = Instant::now();
    agents.docker.stop(&created.id, Duration::from_millis(600)).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(600), "it was given its time");
    assert!(start.elapsed() < Duration::from_secs(10), "it was given {:?}", start.elapsed());
    assert_eq!(ended(&agents.docker, &created.id).await.0, Some(137));
}

#[tokio::test]
async fn a_paused_agent_can_be_stopped() {
    let Some(agents) = Agents::new().await else { return };
    let spec = agents.spec(&["sleep", "60"]);
    let created = agents.docker.create(&spec).await.unwrap();
    agents.docker.start(&created.id).await.unwrap();
    agents.command(&["pause", &spec.name]);
    let paused = observed(&agents.docker, &created.id).await;
    assert!(matches!(paused.state, ObservedState::Running { .. }), "{:?}", paused.state);
    let error = refused(&agents.docker, &created.id, &exec_request(&["true"])).await;
    assert_eq!(error.kind, ErrorKind::NotRunning, "{error}");
    agents.docker.stop(&created.id, Duration::from_secs(1)).await.unwrap();
    let stopped = observed(&agents.docker, &created.id).await;
    assert!(matches!(stopped.state, ObservedState::Exited { .. }), "{:?}", stopped.state);
}

/// The answer to an HTTP request on loopback, once something answers.
fn fetch(port: u16) -> String {
    let deadline = Instant::now() + LONG;
    loop {
        let answer = TcpStream::connect(SocketAddr::new(LOOPBACK, port)).and_then(|mut stream| {
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        match answer {
            Ok(answer) if answer.contains("hello") => return answer,
            _ if Instant::now() > deadline => panic!("nothing answers on port {port}: {answer:?}"),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// How it ended: exit code and detail.
async fn ended(docker: &Docker, id: &str) -> (Option<i64>, Option<String>) {
    match docker.wait_for_end(id, LONG).await.unwrap().expect("the container is there").state {
        ObservedState::Exited { code, at, detail } => {
            assert!(at.is_some(), "the time of the end is known");
            (code, detail)
        }
        other => panic!("it has not ended: {other:?}"),
    }
}
