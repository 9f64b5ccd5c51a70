//! The client against a server that answers with what it is told to.

use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::*;
use crate::exec::Frame;
use crate::{Code, Problem};

/// A broker that gives one answer, and keeps what it was asked.
struct Canned {
    client: Client,
    asked: Arc<Mutex<String>>,
    _directory: tempfile::TempDir,
}

impl Canned {
    /// Answers with `pieces`, one after the other, and hangs up.
    fn new(pieces: Vec<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("broker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let asked = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&asked);
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            answer(stream, pieces, &kept).await;
        });
        Self { client: Client::new(Endpoint::Unix(path), None), asked, _directory: directory }
    }

    fn json(status: &str, body: &str) -> Self {
        let length = body.len();
        Self::new(vec![format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}")])
    }

    fn asked(&self) -> String {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, pieces: Vec<String>, asked: &Mutex<String>) {
    let request = read_request(&mut stream).await;
    *asked.lock().unwrap() = request;
    for piece in pieces {
        stream.write_all(piece.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads the head of a request, and the body that it announces.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut request = Vec::new();
    loop {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).await.unwrap();
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |n| n.parse().unwrap());
        if body.len() >= length || read == 0 {
            return text;
        }
    }
}

const AGENT: &str = r#"{"project":"default","name":"dev","runtime":"docker","state":"running","id":null,"lease":null,
    "ports":{"A":8000},"urls":{},"published":null,"image":null,"command":[],"started_at":null,"former_ports":[],
    "warnings":[],"reason":null,"added_by_a_later_version":1}"#;

#[tokio::test]
async fn agents_are_asked_for_by_project_and_fields_of_later_versions_are_passed_over() {
    let broker = Canned::json("200 OK", &format!(r#"{{"agents":[{AGENT}]}}"#));
    let agents = broker.client.agents(Some("shop")).await.unwrap();
    assert_eq!(agents[0].name, "dev");
    assert!(broker.asked().starts_with("GET /v1/agents?project=shop HTTP/1.1\r\n"), "{}", broker.asked());
}

#[tokio::test]
async fn a_start_tells_whether_it_created_anything() {
    for (status, expected) in [("201 Created", true), ("200 OK", false)] {
        let broker = Canned::json(status, &format!(r#"{{"agent":{AGENT}}}"#));
        let request = StartRequest { ports: Some(1), ..StartRequest::default() };
        let (agent, created) = broker.client.start("default", "dev", &request).await.unwrap();
        assert_eq!((agent.name.as_str(), created), ("dev", expected));
        let asked = broker.asked();
        assert!(
            asked.starts_with("PUT /v1/agents/default/dev HTTP/1.1\r\n") && asked.ends_with(r#"{"ports":1}"#),
            "{asked}"
        );
    }
}

#[tokio::test]
async fn stopping_and_deleting_what_is_not_there_is_no_error() {
    let how = StopRequest { timeout_ms: Some(5) };
    let broker = Canned::new(vec!["HTTP/1.1 204 No Content\r\n\r\n".into()]);
    assert_eq!(broker.client.stop("default", "dev", &how).await.unwrap(), None);
    let broker = Canned::new(vec!["HTTP/1.1 204 No Content\r\n\r\n".into()]);
    assert_eq!(broker.client.delete("default", "dev", &how, false).await.unwrap(), None);
    let asked = broker.asked();
    assert!(asked.starts_with("DELETE /v1/agents/default/dev?timeout_ms=5 HTTP/1.1\r\n"), "{asked}");
}

#[tokio::test]
async fn a_release_may_name_the_lease_and_the_history_what_is_wanted() {
    let broker = Canned::new(vec!["HTTP/1.1 204 No Content\r\n\r\n".into()]);
    assert_eq!(broker.client.release("shop", "db", Some("01J"), true).await.unwrap(), None);
    let asked = broker.asked();
    assert!(asked.starts_with("DELETE /v1/leases/shop/db?lease=01J&force=true HTTP/1.1\r\n"), "{asked}");
    let broker = Canned::json("200 OK", r#"{"history":[],"more":false}"#);
    let query = HistoryQuery { port: Some(8000), agent: Some("shop/db".into()), ..HistoryQuery::default() };
    assert_eq!(broker.client.history(&query).await.unwrap(), HistoryDocument::default());
    let asked = broker.asked();
    assert!(asked.starts_with("GET /v1/history?port=8000&agent=shop%2Fdb HTTP/1.1\r\n"), "{asked}");
}

#[tokio::test]
async fn a_problem_keeps_its_code_hint_and_details() {
    let problem = r#"{"type":"about:blank","title":"Conflict","status":409,"detail":"no ports","code":"pool_exhausted",
        "hint":"stop one","details":{"size":3}}"#;
    let error = Canned::json("409 Conflict", problem).client.pool(false).await.unwrap_err();
    assert_eq!(
        (error.code(), error.to_string(), error.hint()),
        (Code::PoolExhausted, "no ports".into(), Some("stop one".into()))
    );
    assert!(matches!(&error, ClientError::Problem(problem) if problem.details["size"] == 3));
}

#[tokio::test]
async fn what_is_not_a_broker_is_told_apart() {
    let error = Canned::json("500 Internal Server Error", "<html>").client.broker().await.unwrap_err();
    assert!(error.to_string().contains("GET /v1/broker") && error.to_string().contains("500"), "{error}");
    let error = Canned::json("200 OK", r#"{"hello":"world"}"#).client.broker().await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    assert_eq!(error.code(), Code::Failed);
}

#[tokio::test]
async fn no_broker_at_all_and_one_that_hangs_up() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = Client::new(Endpoint::Unix(directory.path().join("none.sock")), None);
    let error = nowhere.ready().await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Unreachable { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    );
    assert_eq!(error.code(), Code::BrokerUnreachable);

    let error = Canned::new(Vec::new()).client.agents(None).await.unwrap_err();
    assert!(matches!(error, ClientError::BrokenOff { .. }), "{error}");
    assert_eq!(error.code(), Code::BrokerUnreachable);
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    let _silent = UnixListener::bind(&path).unwrap();
    let error = Client::new(Endpoint::Unix(path), None).ready().await.unwrap_err();
    let source = std::error::Error::source(&error).expect("it has a cause").to_string();
    assert_eq!(source, "no answer within 2 s");
}

#[tokio::test]
async fn over_tcp_the_token_is_brought() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let server = tokio::spawn(async move {
        let asked = Mutex::new(String::new());
        let (stream, _) = listener.accept().await.unwrap();
        answer(stream, vec!["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()], &asked).await;
        asked.into_inner().unwrap()
    });
    Client::new(endpoint, Some("secret".into())).ready().await.unwrap();
    let asked = server.await.unwrap();
    assert!(asked.contains("authorization: Bearer secret\r\n"), "{asked}");
}

#[tokio::test]
async fn a_log_streams_as_it_is_written() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let pieces = [head, "4\r\none\n\r\n", "4\r\ntwo\n\r\n", "0\r\n\r\n"].map(str::to_owned).to_vec();
    let broker = Canned::new(pieces);
    let log = broker.client.logs("default", "dev", true, Some(7)).await.unwrap();
    let pieces: Vec<Bytes> = log.map(Result::unwrap).collect().await;
    assert_eq!(pieces.concat(), b"one\ntwo\n");
    assert!(
        broker.asked().starts_with("GET /v1/agents/default/dev/logs?follow=true&tail=7 "),
        "{}",
        broker.asked()
    );
}

#[tokio::test]
async fn events_that_are_not_known_are_passed_over() {
    let events = "event: agent_deleted\ndata: {\"event\":\"agent_deleted\",\"project\":\"a\",\"name\":\"b\"}\n\n\
        : keep-alive\n\nevent: invented_later\ndata: {}\n\nevent: missed\ndata: {\"event\":\"missed\",\"count\":2}\n\n";
    let (first, second) = events.split_at(30);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let broker = Canned::new([head, first, second].map(str::to_owned).to_vec());
    let events = broker.client.events(&Events { agent: Some("a/b".into()) }).await.unwrap();
    let events: Vec<Event> = events.map(Result::unwrap).collect().await;
    let deleted = Event::AgentDeleted { project: "a".into(), name: "b".into() };
    assert_eq!(events, [deleted, Event::Missed { count: 2 }]);
    assert!(broker.asked().starts_with("GET /v1/events?agent=a%2Fb "), "{}", broker.asked());
}

#[tokio::test]
async fn a_command_beside_an_agent_speaks_frames_over_the_upgraded_connection() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream).await;
        let switched =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: berthold-exec\r\n\r\n";
        stream.write_all(switched.as_bytes()).await.unwrap();
        let mut frames = Framed::new(stream, FrameCodec);
        let Some(Ok(Frame::Stdin(input))) = frames.next().await else { panic!("no input came") };
        frames.send(Frame::Stdout(input)).await.unwrap();
        frames.send(Frame::Exit(7)).await.unwrap();
        request
    });
    let request = ExecRequest { command: vec!["cat".into()], stdin: true, ..ExecRequest::default() };
    let client = Client::new(Endpoint::Unix(path), None);
    let mut frames = client.exec("default", "dev", &request).await.unwrap();
    frames.send(Frame::Stdin(Bytes::from_static(b"hello"))).await.unwrap();
    assert_eq!(frames.next().await.unwrap().unwrap(), Frame::Stdout(Bytes::from_static(b"hello")));
    assert_eq!(frames.next().await.unwrap().unwrap(), Frame::Exit(7));
    let asked = server.await.unwrap();
    assert!(
        asked.starts_with("POST /v1/agents/default/dev/exec ")
            && asked.contains("upgrade: berthold-exec\r\n"),
        "{asked}"
    );
}

#[tokio::test]
async fn a_command_that_is_refused_is_a_problem_and_no_upgrade() {
    let problem = Problem {
        kind: "about:blank".into(),
        title: "Conflict".into(),
        status: 409,
        detail: "the agent default/dev does not run".into(),
        code: Code::NotRunning,
        hint: None,
        details: serde_json::Map::new(),
    };
    let broker = Canned::json("409 Conflict", &serde_json::to_string(&problem).unwrap());
    let error = broker.client.exec("default", "dev", &ExecRequest::default()).await.map(drop).unwrap_err();
    assert_eq!(error.code(), Code::NotRunning);
}

#[test]
fn every_event_that_is_known_is_read() {
    let (project, name) = ("shop".to_owned(), "dev".to_owned());
    for told in [
        Event::AgentDeleted { project: project.clone(), name: name.clone() },
        Event::Progress { project, name, message: "pulling".to_owned(), current: None, total: Some(1) },
        Event::Pool { lease: None, ports: vec![8000] },
        Event::Broker,
        Event::Missed { count: 1 },
    ] {
        let data = serde_json::to_string(&told).unwrap();
        let message = sse::Message { event: told.name().to_owned(), data };
        assert_eq!(event(&message).unwrap(), Some(told));
    }
}
