//! Commands beside an agent.

use bytes::Bytes;
use futures_util::StreamExt;
use runtime::process::Identity;
use runtime::{Attached, ErrorKind, ExecRequest, Output, Runtime, Spec, Streams, TerminalSize};

use crate::host::{ENOUGH, Host, process_called, shell, text, until};

async fn start(host: &Host) -> String {
    let env = vec![("COLOUR".to_owned(), "blue".to_owned()), ("SHAPE".to_owned(), "round".to_owned())];
    let spec = Spec { env, workdir: Some("/usr".into()), ..shell("dev", "exec sleep 1000") };
    host.start(&spec).await
}

fn request(script: &str) -> ExecRequest {
    ExecRequest { command: ["sh", "-c", script].map(String::from).into(), ..ExecRequest::default() }
}

/// What came on standard output, on standard error, and the exit code.
async fn collect(attached: Attached) -> (String, String, i64) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut output = attached.streams.output;
    while let Some(piece) = output.next().await {
        match piece.unwrap() {
            Output::Stdout(bytes) => out.extend(bytes),
            Output::Stderr(bytes) => err.extend(bytes),
        }
    }
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), attached.exit.await.unwrap())
}

pub(crate) async fn a_command_beside_an_agent_has_its_variables_and_streams(host: &Host) {
    let id = start(host).await;
    let env = vec![("SHAPE".to_owned(), "square".to_owned())];
    let request = ExecRequest { env, stdin: true, ..request("echo $COLOUR $SHAPE; pwd; cat >&2; exit 9") };
    let mut attached = host.processes.exec(&id, &request).await.unwrap();
    let input = attached.streams.input.take().unwrap();
    let large = "x".repeat(300_000);
    let writing = tokio::spawn(async move {
        for chunk in large.as_bytes().chunks(10_000) {
            input.send(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        large
    });
    let (out, err, code) = collect(attached).await;
    assert_eq!((&*out, code), ("blue square\n/usr\n", 9));
    assert!(err == writing.await.unwrap(), "the input did not come back whole");

    let request = ExecRequest { workdir: Some("/etc".into()), ..self::request("pwd; cat; kill -9 $$") };
    let attached = host.processes.exec(&id, &request).await.unwrap();
    assert!(attached.streams.input.is_none());
    assert_eq!(collect(attached).await, ("/etc\n".into(), String::new(), 137));
}

pub(crate) async fn a_command_beside_an_agent_that_cannot_run_is_told_apart(host: &Host) {
    let id = start(host).await;
    let terminal = Some(TerminalSize { columns: 80, rows: 24 });
    for terminal in [None, terminal] {
        for (command, kind) in [("no-such-command", ErrorKind::Command), ("/etc/passwd", ErrorKind::Command)]
        {
            let request = ExecRequest { command: vec![command.into()], terminal, ..ExecRequest::default() };
            let error = host.processes.exec(&id, &request).await.err().unwrap();
            assert_eq!(error.kind, kind, "{error}");
        }
        let request = ExecRequest { workdir: Some("/no/such".into()), terminal, ..request("true") };
        assert_eq!(host.processes.exec(&id, &request).await.err().unwrap().kind, ErrorKind::Invalid);
    }
    assert_eq!(host.processes.exec("other", &request("true")).await.err().unwrap().kind, ErrorKind::NotFound);
    host.processes.stop(&id, ENOUGH).await.unwrap();
    assert_eq!(host.processes.exec(&id, &request("true")).await.err().unwrap().kind, ErrorKind::NotRunning);
}

pub(crate) async fn a_command_beside_an_agent_ends_with_it(host: &Host) {
    // Whether the agent is stopped or ends by itself.
    for by_itself in [false, true] {
        let id = start(host).await;
        let mut attached =
            host.processes.exec(&id, &request("echo $$ beside; exec sleep 1000")).await.unwrap();
        let Output::Stdout(line) = attached.streams.output.next().await.unwrap().unwrap() else {
            panic!("not an output")
        };
        let beside = process_called("beside", std::str::from_utf8(&line).unwrap());
        if by_itself {
            let leader: Identity = host.recorded("dev", "started.json");
            leader.signal(rustix::process::Signal::TERM).unwrap();
            assert_eq!(host.ended(&id).await.0, Some(143));
        } else {
            host.processes.stop(&id, ENOUGH).await.unwrap();
        }
        assert!(!beside.is_alive().unwrap(), "by itself: {by_itself}");
        assert!(attached.exit.await.unwrap() > 128);
        host.processes.remove(&id).await.unwrap();
    }
}

pub(crate) async fn output_ends_with_the_command_even_if_something_holds_the_pipe(host: &Host) {
    let id = start(host).await;
    let attached = host.processes.exec(&id, &request("sleep 1000 & echo $! sleeper; exit 6")).await.unwrap();
    let (out, _, code) = collect(attached).await;
    assert_eq!(code, 6);
    let sleeper = process_called("sleeper", &out);
    host.processes.stop(&id, ENOUGH).await.unwrap();
    until("the sleeper has ended", || !sleeper.is_alive().unwrap()).await;
}

pub(crate) async fn a_terminal_has_a_size_and_signals(host: &Host) {
    let id = start(host).await;
    let terminal = Some(TerminalSize { columns: 100, rows: 30 });
    let resized = "while [ \"$(stty size)\" = \"30 100\" ]; do sleep 0.01; done; stty size";
    let script =
        format!("tty; stty size; echo $COLOUR; {resized}; read line; echo \"got $line\"; exec sleep 1000");
    let request = ExecRequest { terminal, stdin: true, ..request(&script) };
    let mut attached = host.processes.exec(&id, &request).await.unwrap();
    let mut seen = String::new();
    read_until(&mut attached, &mut seen, "blue").await;
    assert!(seen.contains("/dev/pts/") && seen.contains("30 100"), "{seen:?}");

    let resize = attached.streams.resize.take().unwrap();
    resize.send(TerminalSize { columns: 120, rows: 40 }).await.unwrap();
    read_until(&mut attached, &mut seen, "40 120").await;
    let input = attached.streams.input.take().unwrap();
    input.send("word\n".into()).await.unwrap();
    read_until(&mut attached, &mut seen, "got word").await;

    // Ctrl-C reaches the foreground process, so the terminal controls it.
    input.send(Bytes::from_static(b"\x03")).await.unwrap();
    let Attached { streams: Streams { output, .. }, exit } = attached;
    text(output).await;
    assert_eq!(exit.await.unwrap(), 130);
    let left = std::fs::read_dir(host.directory().join("dev")).unwrap().flatten();
    let left: Vec<_> =
        left.filter(|entry| entry.file_name().to_string_lossy().contains("terminal")).collect();
    assert!(left.is_empty(), "{left:?}");
}

async fn read_until(attached: &mut Attached, seen: &mut String, wanted: &str) {
    while !seen.contains(wanted) {
        let piece = tokio::time::timeout(ENOUGH, attached.streams.output.next()).await;
        match piece.unwrap_or_else(|_| panic!("{wanted:?} does not come: {seen:?}")) {
            Some(Ok(Output::Stdout(bytes))) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            other => panic!("{other:?} after {seen:?}"),
        }
    }
}
