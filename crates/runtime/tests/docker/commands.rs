//! Commands beside an agent.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use runtime::{Attached, ErrorKind, ExecRequest, Output, Runtime, Spec, Streams, TerminalSize};

use crate::support::{Agents, exec_request, refused, written};

#[tokio::test]
async fn commands_beside_the_agent() {
    let Some(agents) = Agents::new().await else { return };
    let docker = &agents.docker;
    let spec = Spec { env: vec![("AGENT".into(), "its own".into())], ..agents.spec(&["sleep", "60"]) };
    let created = docker.create(&spec).await.unwrap();
    let error = refused(docker, &created.id, &exec_request(&["true"])).await;
    assert_eq!(error.kind, ErrorKind::NotRunning, "{error}");
    docker.start(&created.id).await.unwrap();

    let script = "echo $AGENT $MORE; pwd; echo complaint >&2; exit 3";
    let request = ExecRequest {
        env: vec![("MORE".into(), "and more".into())],
        workdir: Some("/bin".into()),
        ..exec_request(&["sh", "-c", script])
    };
    let Attached { streams: Streams { output, input, resize }, exit } =
        docker.exec(&created.id, &request).await.unwrap();
    assert!(input.is_none() && resize.is_none());
    assert_eq!(written(output).await, ("its own and more\n/bin\n".into(), "complaint\n".into()));
    assert_eq!(exit.await.unwrap(), 3);
}

#[tokio::test]
async fn commands_that_cannot_be_run() {
    let Some(agents) = Agents::new().await else { return };
    let docker = &agents.docker;
    let created = docker.create(&agents.spec(&["sleep", "60"])).await.unwrap();
    docker.start(&created.id).await.unwrap();

    let with_terminal = Some(TerminalSize { columns: 80, rows: 25 });
    for (command, terminal) in [("no-such-command", None), ("/etc", None), ("no-such-command", with_terminal)]
    {
        let request = ExecRequest { terminal, ..exec_request(&[command]) };
        let error = refused(docker, &created.id, &request).await;
        assert_eq!(error.kind, ErrorKind::Command, "{error}");
        assert!(error.message.contains(command), "{error}");
        assert!(!error.message.contains(['\n', '\r']), "{error:?}");
    }
    let nowhere = ExecRequest { workdir: Some("/no/such".into()), ..exec_request(&["pwd"]) };
    assert_eq!(refused(docker, &created.id, &nowhere).await.kind, ErrorKind::Invalid);
    assert_eq!(refused(docker, &created.id, &exec_request(&[])).await.kind, ErrorKind::Invalid);
    let error = refused(docker, "berthold-nothing", &exec_request(&["true"])).await;
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn commands_that_end_by_themselves_in_an_instant() {
    let Some(agents) = Agents::new().await else { return };
    let created = agents.docker.create(&agents.spec(&["sleep", "60"])).await.unwrap();
    agents.docker.start(&created.id).await.unwrap();
    for code in [0, 1, 126, 127] {
        let request = exec_request(&["sh", "-c", &format!("exit {code}")]);
        let attached = agents.docker.exec(&created.id, &request).await.unwrap();
        assert_eq!(written(attached.streams.output).await, (String::new(), String::new()));
        assert_eq!(attached.exit.await.unwrap(), code);
    }
}

#[tokio::test]
async fn a_command_reads_what_is_sent_until_the_sender_is_dropped() {
    let Some(agents) = Agents::new().await else { return };
    let created = agents.docker.create(&agents.spec(&["sleep", "60"])).await.unwrap();
    agents.docker.start(&created.id).await.unwrap();
    let request = ExecRequest { stdin: true, ..exec_request(&["sh", "-c", "wc -c; echo over"]) };
    let Attached { streams: Streams { output, input, .. }, exit } =
        agents.docker.exec(&created.id, &request).await.unwrap();
    let input = input.expect("it was asked for");
    // More than all buffers on the way hold.
    let piece = Bytes::from(vec![b'x'; 64 * 1024]);
    let sending = async {
        for _ in 0..64 {
            input.send(piece.clone()).await.unwrap();
        }
        drop(input);
    };
    let ((), (out, _)) = tokio::join!(sending, written(output));
    assert_eq!(out, "4194304\nover\n");
    assert_eq!(exit.await.unwrap(), 0);
}

#[tokio::test]
async fn a_terminal_has_the_size_that_it_is_given_and_shows_every_byte() {
    let Some(agents) = Agents::new().await else { return };
    let created = agents.docker.create(&agents.spec(&["sleep", "60"])).await.unwrap();
    agents.docker.start(&created.id).await.unwrap();
    let script = "read start; stty size; read again; stty size; printf '\\000\\001\\002zeros\\000'; exit 5";
    let request = ExecRequest {
        stdin: true,
        terminal: Some(TerminalSize { columns: 101, rows: 37 }),
        ..exec_request(&["sh", "-c", script])
    };
    let Attached { streams: Streams { mut output, input, resize }, exit } =
        agents.docker.exec(&created.id, &request).await.unwrap();
    let (input, resize) = (input.expect("it was asked for"), resize.expect("it was asked for"));
    let mut shown = Vec::new();
    input.send(Bytes::from_static(b"\r")).await.unwrap();
    let mut was_resized = false;
    while let Some(piece) = output.next().await {
        let Output::Stdout(piece) = piece.unwrap() else { panic!("a terminal has one stream") };
        shown.extend(piece);
        if !was_resized && String::from_utf8_lossy(&shown).contains("37 101") {
            was_resized = true;
            resize.send(TerminalSize { columns: 80, rows: 25 }).await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            input.send(Bytes::from_static(b"\r")).await.unwrap();
        }
    }
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("25 80"), "{shown:?}");
    assert!(shown.ends_with("\0\u{1}\u{2}zeros\0"), "{shown:?}");
    assert_eq!(exit.await.unwrap(), 5);
}

#[tokio::test]
async fn a_command_whose_agent_is_removed_comes_to_an_end() {
    let Some(agents) = Agents::new().await else { return };
    let created = agents.docker.create(&agents.spec(&["sleep", "60"])).await.unwrap();
    agents.docker.start(&created.id).await.unwrap();
    let request = exec_request(&["sh", "-c", "echo ready; sleep 60"]);
    let Attached { streams: Streams { mut output, .. }, exit } =
        agents.docker.exec(&created.id, &request).await.unwrap();
    assert_eq!(output.next().await.unwrap().unwrap(), Output::Stdout(Bytes::from_static(b"ready\n")));
    agents.docker.remove(&created.id).await.unwrap();
    assert!(output.next().await.is_none_or(|end| end.is_err()));
    if let Ok(code) = exit.await {
        assert_ne!(code, 0);
    }
}
