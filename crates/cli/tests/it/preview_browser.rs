//! Previews over HTTP/2 and TLS, and in a real browser.

use std::io::{Read, Write};
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::ext::Protocol;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::preview::{Stage, answer};
use crate::support::*;

/// Many requests share a connection, and a WebSocket is one of its streams (RFC 8441).
#[tokio::test]
async fn over_one_http2_connection_go_requests_and_websockets() {
    let stage = Stage::new("");
    stage.serve(0, |head, mut stream| {
        let path = head.split(' ').nth(1).unwrap();
        // A server that answers whatever is asked is none for WebSockets.
        if path != "/socket" {
            let answer = "HTTP/1.1 200 OK\r\nContent-Length";
            write!(stream.get_mut(), "{answer}: {}\r\nConnection: close\r\n\r\n{path}", path.len()).unwrap();
            return;
        }
        let lines = head.to_lowercase();
        for line in ["get /socket http/1.1", "upgrade: websocket", "sec-websocket-version: 13"] {
            assert!(lines.contains(&format!("{line}\r\n")), "{head}");
        }
        assert!(lines.contains("sec-websocket-key: "), "{head}");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.get_mut().write_all(answer.as_bytes()).unwrap();
        let mut byte = [0];
        while let Ok(1) = stream.read(&mut byte) {
            stream.get_mut().write_all(&byte.map(|byte| byte.to_ascii_uppercase())).unwrap();
        }
    });
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", stage.listen)).await.unwrap();
    let (client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let _connection = tokio::spawn(connection);
    let uri = |path: &str| format!("http://{}{path}", stage.name("a"));
    let answers = (0..40).map(|n| {
        let request = Request::get(uri(&format!("/{n}"))).body(Full::<Bytes>::default()).unwrap();
        let mut client = client.clone();
        async move {
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, format!("/{n}"));
        }
    });
    futures_util::future::join_all(answers).await;

    let socket = |path: &str| {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(uri(path))
            .header("sec-websocket-version", "13")
            .body(Full::default())
            .unwrap();
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        client.clone().send_request(request)
    };
    assert_eq!(socket("/page").await.unwrap().status(), StatusCode::BAD_GATEWAY);
    let mut response = socket("/socket").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut socket = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    for word in ["hello", "again"] {
        socket.write_all(word.as_bytes()).await.unwrap();
        let mut back = vec![0; word.len()];
        socket.read_exact(&mut back).await.unwrap();
        assert_eq!(String::from_utf8(back).unwrap(), word.to_uppercase());
    }
}

/// A server that ends while something is sent to it: that is told also while the rest is still on its way.
#[tokio::test]
async fn an_upload_over_http2_that_is_cut_is_told_as_that() {
    let stage = Stage::new("");
    stage.serve(0, |_, stream| drop(stream));
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", stage.listen)).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let _connection = tokio::spawn(connection);
    let uri = format!("http://{}/x", stage.name("a"));
    let body = Full::new(Bytes::from(vec![0; 30 << 20]));
    let response = client.send_request(Request::put(uri).body(body).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    let said = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&said).contains("nothing answers"));
}

/// What one agent takes no more of keeps only its own stream.
#[tokio::test]
async fn uploads_that_are_stuck_do_not_keep_others_of_their_connection() {
    let stage = Stage::new("");
    let (done, waits) = std::sync::mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    stage.serve(0, move |_, _stream| {
        // It comes with the end of the test.
        waits.lock().unwrap().recv().unwrap_err();
    });
    stage.serve(1, |_, mut stream| {
        stream.read_exact(&mut [0; 1000]).unwrap();
        answer(&mut stream, "", "taken");
    });
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", stage.listen)).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let _connection = tokio::spawn(connection);
    let mut put = |label: &str, length| {
        let body = Full::new(Bytes::from(vec![0; length]));
        client.send_request(Request::put(format!("http://{}/", stage.name(label))).body(body).unwrap())
    };
    let stuck = futures_util::future::join_all([put("a", 30 << 20), put("a", 30 << 20)]);
    tokio::pin!(stuck);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
    drop(tokio::time::timeout_at(deadline.into(), &mut stuck).await);
    let taken = tokio::time::timeout(std::time::Duration::from_secs(60), put("b", 1000));
    let taken = taken.await.expect("it is not kept waiting").unwrap();
    assert_eq!(taken.into_body().collect().await.unwrap().to_bytes(), "taken");
    drop(done);
}

/// A real dev server: its page through the preview, and an edit that arrives by its WebSocket.
#[test]
fn vite_reloads_hot_through_its_preview() {
    vite(&Stage::new(""), "http/1.1");
}

#[test]
fn vite_reloads_hot_over_tls_and_http2() {
    let directory = tempfile::tempdir().unwrap();
    vite(&Stage::new(&own_certificate(directory.path())), "h2");
}

/// The settings of a broker with a certificate that it made itself, in this directory.
pub(crate) fn own_certificate(directory: &Path) -> String {
    let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    format!(", tls: {{ certificate: {}, key: {} }}", certificate.display(), key.display())
}

fn vite(stage: &Stage, protocol: &str) {
    let Some(files) = browser_tests() else { return };
    let work = stage.host.path("app");
    std::fs::create_dir(&work).unwrap();
    std::os::unix::fs::symlink(files.join("node_modules"), work.join("node_modules")).unwrap();
    let index = "<!doctype html><html lang=en><head><title>app</title></head><body><p id=said></p>\
        <script type=module src=/main.js></script></body></html>";
    std::fs::write(work.join("index.html"), index).unwrap();
    let main = "import { said } from './said.js';\n\
        const show = (text) => { document.getElementById('said').textContent = text; };\n\
        show(said);\nimport.meta.hot.accept('./said.js', (module) => show(module.said));\n";
    std::fs::write(work.join("main.js"), main).unwrap();
    std::fs::write(work.join("said.js"), "export const said = 'before';\n").unwrap();
    // Two of them at once must not share it.
    std::fs::write(work.join("vite.config.js"), "export default { cacheDir: '.vite' };\n").unwrap();
    let vite = work.join("node_modules/vite/bin/vite.js");
    let command = format!(
        "while [ ! -e go ]; do sleep 0.2; done; exec node {} --host 127.0.0.1 --strictPort --port $AVAILABLE_LOCALHOST_PORT_A",
        vite.display()
    );
    let workspace = work.to_str().unwrap();
    stage.host.ok(&["start", "vite", "--runtime", "process", "-w", workspace, "--", "sh", "-c", &command]);
    let url = stage.host.agent("vite")["previews"]["A"].as_str().unwrap().to_owned();
    let output = stage
        .host
        .command_of("node")
        .arg("vite.mjs")
        .current_dir(&files)
        .envs([("URL", url.as_str()), ("PROTOCOL", protocol)])
        .env("FILE", work.join("said.js"))
        .env("GO", work.join("go"))
        .output()
        .unwrap();
    let log = stage.host.run(&["logs", "vite"]).stdout;
    assert!(output.status.success(), "{}\n{log}", String::from_utf8_lossy(&output.stderr));
}
