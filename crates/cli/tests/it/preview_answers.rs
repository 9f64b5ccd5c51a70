//! Previews of servers that answer oddly, late, or not at all.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use crate::preview::{Stage, answer, head};
use crate::support::*;

/// The answer to a browser that opens port A.
fn page(stage: &Stage) -> String {
    stage.ask(&["GET / HTTP/1.1", &format!("Host: {}", stage.name("a")), "Accept: text/html"])
}

/// What will not be otherwise in a second is not looked at again each second.
#[test]
fn what_is_no_http_is_told_as_that() {
    for said in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: upgrade\r\n\r\n",
    ] {
        let stage = Stage::new("");
        stage.serve(0, move |_, mut stream| {
            stream.get_mut().write_all(said.as_bytes()).unwrap();
            // Until it is closed from there.
            drop(stream.read(&mut [0]));
        });
        let told = page(&stage);
        assert!(told.starts_with("HTTP/1.1 502") && told.contains("cannot be shown"), "{said}: {told}");
        assert!(!told.contains("http-equiv"), "{said}: {told}");
    }
}

/// So does an engine's proxy while nothing listens inside.
#[test]
fn what_hangs_up_is_not_there_yet() {
    let stage = Stage::new("");
    stage.serve(0, |_, stream| drop(stream));
    let told = page(&stage);
    assert!(told.starts_with("HTTP/1.1 502") && told.contains("nothing answers"), "{told}");
    assert!(told.contains("http-equiv"), "{told}");
}

#[test]
fn an_answer_may_have_many_headers() {
    let stage = Stage::new("");
    stage.serve(0, |_, mut stream| {
        let many: String = (0..200).map(|n| format!("x-{n}: {n}\r\n")).collect();
        answer(&mut stream, &many, "all");
    });
    for request in ["GET", "POST"] {
        let lines = [&format!("{request} / HTTP/1.1"), &format!("Host: {}", stage.name("a"))[..]];
        let told = if request == "POST" {
            stage.ask(&[lines[0], lines[1], "Transfer-Encoding: chunked", "Trailer: x", "\r\n0\r\n"])
        } else {
            stage.ask(&lines)
        };
        assert!(told.contains("\r\nx-199: 199\r\n"), "{request}: {told}");
    }
}

/// A server may close a kept connection at the very moment at which the next request is on its way.
#[test]
fn a_request_that_a_kept_connection_died_of_is_sent_again() {
    let stage = Stage::new("");
    let listener = TcpListener::bind(("127.0.0.1", stage.host.port(0))).unwrap();
    let taken = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&taken);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                // One answer each; the second request is read, and answered by an end.
                head(&mut stream);
                answer(&mut stream, "", "one");
                head(&mut stream);
            });
        }
    });
    for _ in 0..5 {
        let told = page(&stage);
        assert!(told.starts_with("HTTP/1.1 200") && told.ends_with("one"), "{told}");
    }
    assert_eq!(taken.load(Ordering::SeqCst), 5, "each second request went to a new connection");
}

/// So do servers of Node.js on `localhost`, where that name means `::1` first; a browser finds them there.
#[test]
fn a_server_of_the_ipv6_loopback_alone_is_reached() {
    let stage = Stage::new("");
    let Ok(listener) = TcpListener::bind(("::1", stage.host.port(0))) else {
        return assert!(!is_required("ipv6"), "there is no IPv6 here");
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                let asked = head(&mut stream);
                if asked.starts_with("POST") {
                    let mut body = [0; 5];
                    stream.read_exact(&mut body).unwrap();
                    assert_eq!(&body, b"hello");
                }
                answer(&mut stream, "Connection: close\r\n", "<title>of six</title>");
            });
        }
    });
    assert!(page(&stage).ends_with("<title>of six</title>"));
    let mut post = stage.connect();
    let name = stage.name("a");
    write!(post, "POST / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
        .unwrap();
    let mut told = String::new();
    post.read_to_string(&mut told).unwrap();
    assert!(told.ends_with("<title>of six</title>"), "{told}");
    let behind = behind(&stage.host, "dev");
    assert_eq!((&behind["listens"], &behind["title"]), (&true.into(), &"of six".into()), "{behind}");
}

/// A server may say that it wants no more of a body, and be gone before that is sent.
#[test]
fn an_early_answer_is_passed_on() {
    let stage = Stage::new("");
    stage.serve(0, |_, mut stream| {
        let said = "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig";
        stream.get_mut().write_all(said.as_bytes()).unwrap();
    });
    for label in ["a", "b", "c"] {
        let mut upload = stage.connect();
        let name = stage.name(label);
        write!(upload, "POST / HTTP/1.1\r\nHost: {name}\r\nContent-Length: {}\r\n\r\n", 8 << 20).unwrap();
        // All of it, before anything is read.
        upload.write_all(&vec![0; 8 << 20]).unwrap();
        let status = head(&mut BufReader::new(upload));
        let expected = ["413", "502", "404"][usize::from(label.as_bytes()[0] - b'a')];
        assert!(status.starts_with(&format!("HTTP/1.1 {expected}")), "{label}: {status}");
    }
}

/// RFC 9112, section 6.3: where both are there, the chunks count.
#[test]
fn a_false_length_cuts_nothing() {
    let stage = Stage::new("");
    stage.serve(0, |_, mut stream| {
        let said = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\na\r\n0123456789\r\n0\r\n\r\n";
        stream.get_mut().write_all(said.as_bytes()).unwrap();
    });
    let told = page(&stage);
    assert!(told.contains("0123456789") && !told.to_lowercase().contains("content-length"), "{told}");
}

#[test]
fn a_get_may_have_a_body_without_a_length() {
    let stage = Stage::new("");
    stage.serve(0, |asked, mut stream| {
        assert!(asked.to_lowercase().contains("transfer-encoding: chunked"), "{asked}");
        let mut body = String::new();
        while !body.ends_with("0\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            body.push(char::from(byte[0]));
        }
        answer(&mut stream, "Connection: close\r\n", &body.replace("\r\n", "|"));
    });
    let name = stage.name("a");
    let told = stage.ask(&[
        "GET / HTTP/1.1",
        &format!("Host: {name}"),
        "Transfer-Encoding: chunked",
        "\r\n6\r\nabcdef\r\n0\r\n",
    ]);
    assert!(told.contains("abcdef"), "{told}");
}

/// A connection goes on though the server's does not, and what is no upgrade becomes none.
#[test]
fn what_concerns_one_connection_stays_there() {
    let stage = Stage::new("");
    stage.serve(0, |asked, mut stream| {
        assert!(!asked.to_lowercase().contains("upgrade"), "{asked}");
        stream.get_mut().write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    let mut stream = BufReader::new(stage.connect());
    let name = stage.name("a");
    for further in ["", "Upgrade: websocket\r\n", "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\n"] {
        write!(stream.get_mut(), "GET / HTTP/1.1\r\nHost: {name}\r\n{further}\r\n").unwrap();
        let told = head(&mut stream);
        assert!(told.starts_with("HTTP/1.1 200"), "{further}: {told}");
        let mut body = [0; 2];
        stream.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"ok");
    }
}

/// The dev server of one agent may lead to another's, but not round in circles.
#[test]
fn a_request_may_go_from_agent_to_agent() {
    let stage = Stage::new("");
    let (listen, [a, b]) = (stage.listen, ["a", "b"].map(|label| stage.name(label)));
    let lead_to = move |name: String| {
        move |asked: String, mut stream: BufReader<std::net::TcpStream>| {
            let marks = asked.lines().filter(|line| line.to_lowercase().starts_with("berthold-preview: "));
            let marks: String = marks.map(|line| format!("{line}\r\n")).collect();
            let mut next = std::net::TcpStream::connect(("127.0.0.1", listen)).unwrap();
            let path = asked.split(' ').nth(1).unwrap();
            write!(next, "GET {path} HTTP/1.1\r\nHost: {name}\r\n{marks}Connection: close\r\n\r\n").unwrap();
            let mut told = String::new();
            next.read_to_string(&mut told).unwrap();
            stream.get_mut().write_all(told.as_bytes()).unwrap();
        }
    };
    stage.serve(0, lead_to(b));
    let back = lead_to(a);
    stage.serve(1, move |asked, mut stream| {
        if asked.starts_with("GET /round") {
            back(asked, stream)
        } else {
            answer(&mut stream, "", "the other")
        }
    });
    assert!(page(&stage).ends_with("the other"));
    let round = stage.ask(&["GET /round HTTP/1.1", &format!("Host: {}", stage.name("a"))]);
    assert!(round.starts_with("HTTP/1.1 508"), "{round}");
}

/// The log of an agent's server is not for the page's looks.
#[test]
fn a_page_that_is_known_is_not_asked_for_again() {
    let stage = Stage::new("");
    let asked = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&asked);
    stage.serve(0, move |head, mut stream| {
        if head.starts_with("GET") {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        answer(&mut stream, "Connection: close\r\n", "<title>one</title>");
    });
    for _ in 0..5 {
        assert_eq!(behind(&stage.host, "dev")["title"], "one");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// A page that streams for ever has a status all the same.
#[test]
fn what_never_ends_is_told_as_far_as_it_came() {
    let stage = Stage::new("");
    stage.serve(0, |_, mut stream| {
        let out = stream.get_mut();
        write!(out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").unwrap();
        while write!(out, "data: more\n\n").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    });
    assert_eq!(behind(&stage.host, "dev")["status"], 200);
}

/// A client that goes on saying something, as those do that ask whether the other side is still there, would else never know.
#[test]
fn a_websocket_that_its_server_resets_ends() {
    let stage = Stage::new("");
    stage.serve(0, |_, mut stream| {
        let said = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.get_mut().write_all(said.as_bytes()).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        set_socket_linger(stream.get_ref(), Some(Duration::ZERO)).unwrap();
    });
    let mut socket = stage.connect();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    write!(socket, "GET /socket HTTP/1.1\r\nHost: {}\r\n{upgrade}\r\n", stage.name("a")).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    eventually("the WebSocket is there", || head(&mut reader).starts_with("HTTP/1.1 101"));
    eventually("its client is told that it has ended", || {
        drop(socket.write_all(b"ping"));
        match reader.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    });
    eventually("nothing is taken of its client any more", || socket.write_all(b"ping").is_err());
}

/// A preview is no way to other hosts.
#[test]
fn a_tunnel_is_refused() {
    let stage = Stage::new("");
    stage.serve(0, |head, _| panic!("{head}"));
    let name = stage.name("a");
    let told = stage.ask(&[&format!("CONNECT {name} HTTP/1.1"), &format!("Host: {name}")]);
    assert!(told.starts_with("HTTP/1.1 501") && told.contains("CONNECT"), "{told}");
}
