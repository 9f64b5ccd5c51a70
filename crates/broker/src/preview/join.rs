//! Passes bytes both ways.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long one side may say nothing once the other has gone away: it may not have noticed.
const LEFT: Duration = Duration::from_secs(60);
const BUFFER: usize = 16 << 10;

/// Passes bytes both ways until both sides have ended what they say. The end of one is told to the other.
pub(super) async fn join(
    one: impl AsyncRead + AsyncWrite + Unpin,
    other: impl AsyncRead + AsyncWrite + Unpin,
) {
    let (from_one, to_one) = split(one);
    let (from_other, to_other) = split(other);
    let (one_ended, other_ended) = (CancellationToken::new(), CancellationToken::new());
    // A direction that breaks off has ended, as one that ends; the other is told no more of it.
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
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read?,
            () = silence(other_ended) => return Ok(()),
        };
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
    }
}

async fn silence(other_ended: &CancellationToken) {
    other_ended.cancelled().await;
    sleep(LEFT).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

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
}
