//! Passes bytes both ways.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::{Instant, Interval, interval_at, sleep};
use tokio_util::sync::CancellationToken;

/// How long one side may say and take nothing once the other has gone away: it may not have noticed.
const LEFT: Duration = Duration::from_secs(60);
/// How often a side to which there is nothing to say is asked whether it is still there.
const LOOKED: Duration = Duration::from_secs(5);
const BUFFER: usize = 16 << 10;

/// Passes bytes both ways until both sides have ended what they say. The end of one is told to the other.
///
/// Nothing is read of a side while the other takes nothing, so it is by what is to be written to it that it is seen to be gone: see
/// [`broken`]. A side that takes nothing, such as a server at a breakpoint, is waited for as long as the other is there.
pub(super) async fn join(
    one: impl AsyncRead + AsyncWrite + Unpin,
    other: impl AsyncRead + AsyncWrite + Unpin,
) {
    let (from_one, to_one) = split(one);
    let (from_other, to_other) = split(other);
    let (one_ended, other_ended) = (CancellationToken::new(), CancellationToken::new());
    // A direction that breaks off has ended, as one that ends.
    tokio::join!(async { drop(pass(from_one, to_other, &one_ended, &other_ended).await) }, async {
        drop(pass(from_other, to_one, &other_ended, &one_ended).await)
    });
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    ended: &CancellationToken,
    other_ended: &CancellationToken,
) -> io::Result<()> {
    // Also where it breaks off.
    let _ended = ended.clone().drop_guard();
    let mut buffer = vec![0; BUFFER];
    let mut looks = interval_at(Instant::now() + LOOKED, LOOKED);
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = silence(other_ended) => return Ok(()),
            error = broken(&mut to, &mut looks) => return Err(error),
        };
        let Ok(read @ 1..) = read else {
            // However it ended, the other side is to know.
            return unless_left(other_ended, to.shutdown()).await;
        };
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let written = unless_left(other_ended, to.write(rest)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = &rest[written..];
        }
        unless_left(other_ended, to.flush()).await?;
    }
}

async fn silence(other_ended: &CancellationToken) {
    other_ended.cancelled().await;
    sleep(LEFT).await;
}

/// Does this to a side, unless that lets nothing be done for long after the other's end.
async fn unless_left<T>(
    other_ended: &CancellationToken,
    done: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    tokio::select! {
        done = done => done,
        () = silence(other_ended) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Why nothing can be said to a side any more, as soon as that is so. To flush what is empty does nothing else than tell.
async fn broken(to: &mut (impl AsyncWrite + Unpin), looks: &mut Interval) -> io::Error {
    loop {
        looks.tick().await;
        if let Err(error) = to.flush().await {
            return error;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;
    use crate::places::{Placed, Places};

    #[tokio::test(start_paused = true)]
    async fn what_does_not_notice_the_other_s_end_is_left() {
        let (mut client, one) = duplex(64);
        let (mut agent, other) = duplex(64);
        let joined = tokio::spawn(join(one, other));
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut said = Vec::new();
        agent.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"hello");
        // Half of a connection may go on for long, as long as something comes.
        for _ in 0..10 {
            sleep(LEFT / 2).await;
            agent.write_all(b"x").await.unwrap();
        }
        let mut back = [0; 10];
        client.read_exact(&mut back).await.unwrap();
        joined.await.unwrap();
        assert_eq!(client.read(&mut back).await.unwrap(), 0);
        drop(agent);
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_nothing_is_left_too() {
        let (mut client, one) = duplex(64);
        let (mut agent, other) = duplex(64);
        let joined = tokio::spawn(join(one, other));
        let sending = tokio::spawn(async move { client.write_all(&[0; 1024]).await });
        agent.shutdown().await.unwrap();
        timeout(2 * LEFT, joined).await.expect("it ends though the agent takes nothing").unwrap();
        sending.await.unwrap().unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_gone_is_noticed_while_the_agent_takes_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (one, _) = listener.accept().await.unwrap();
        let place = Places::new(1).take().unwrap();
        let (_agent, other) = duplex(64);
        let joined = tokio::spawn(join(Placed::lingering(one, place), other));
        client.write_all(&[0; 1 << 16]).await.unwrap();
        sleep(100 * LEFT).await;
        assert!(!joined.is_finished(), "the client may wait for as long as it likes");
        client.set_zero_linger().unwrap();
        drop(client);
        timeout(3 * LEFT, joined).await.expect("it ends with its client").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_breaks_off_is_told_as_an_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let agent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (other, _) = listener.accept().await.unwrap();
        let (mut client, one) = duplex(64);
        let _joined = tokio::spawn(join(one, other));
        agent.set_zero_linger().unwrap();
        drop(agent);
        let told = timeout(LEFT / 2, client.read(&mut [0])).await;
        assert_eq!(told.expect("the client is told at once").unwrap(), 0);
    }
}
