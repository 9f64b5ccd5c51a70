//! As much of SPDY/3.1 as Kubernetes speaks on its exec and port-forward connections.
//!
//! Every version of Kubernetes speaks it, and unlike the older WebSocket forms it can close one direction of a stream, which a
//! forwarded connection and a command's standard input need. The frames are those of the SPDY/3 draft
//! (<https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>); what the other side makes of them is in
//! <https://github.com/moby/spdystream>: data before the reply to a stream's opening is dropped, and there is no flow control,
//! so whoever does not read one stream holds up all of its connection.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::codec::{Decoder, FramedRead};
use tokio_util::task::AbortOnDropHandle;

const CONTROL_BIT: u32 = 0x8000_0000;
const VERSION: u32 = 3 << 16;
const SYN_STREAM: u32 = 1;
const SYN_REPLY: u32 = 2;
const RST_STREAM: u32 = 3;
const PING: u32 = 6;
const GOAWAY: u32 = 7;
const FLAG_FIN: u8 = 1;
const HEADER: usize = 8;
/// What is read or written at once.
const CHUNK: usize = 128 * 1024;
/// The longest frame that is sent: its length has 24 bits.
const LONGEST: usize = 1 << 20;
/// How often the other side is asked whether it is still there: a network that has gone away says nothing.
const PINGS: Duration = Duration::from_secs(15);
/// After how many times as long a side that says nothing, not even to a ping, is gone; and after how many if it may only be waiting
/// until the agent takes what was sent. (TCP itself gives a network up after about a quarter of an hour.)
const SILENCE: u32 = 4;
const SILENCE_OF_A_READER: u32 = 40;
/// How many frames the other side has room for that the agent does not take, less some.
const ROOM: u64 = 40;
/// How long the other side may take to open a stream.
const REPLY: Duration = Duration::from_secs(30);
/// Pieces that wait for the reader of a stream.
const PIECES: usize = 16;

/// A connection with its streams. It ends with the value.
pub(super) struct Connection<T> {
    shared: Arc<Shared<T>>,
    next: u32,
    opened_one: bool,
    _reading: AbortOnDropHandle<()>,
    _pinging: AbortOnDropHandle<()>,
}

struct Shared<T> {
    writer: tokio::sync::Mutex<WriteHalf<T>>,
    asked: Mutex<Asked>,
    /// None once nothing comes any more.
    streams: Mutex<Option<HashMap<u32, Incoming>>>,
}

/// What a silence of the other side can mean. It reads on only while it has room for what it has read: 50 frames for each stream,
/// which the agent may take at its leisure. So it is known to be gone only if it need not have stopped reading.
#[derive(Default)]
struct Asked {
    /// The frames of data that were written so far.
    frames: u64,
    /// The last ping, and how many frames there were before it.
    ping: (u32, u64),
    /// How many frames there were before the last ping that came back: they all have been read.
    read: u64,
}

impl Asked {
    /// Whether the other side has read all, or has room for it all.
    fn must_answer(&self) -> bool {
        self.frames <= ROOM || self.frames == self.read
    }
}

/// Where what comes for a stream goes.
struct Incoming {
    replied: Option<oneshot::Sender<()>>,
    data: mpsc::Sender<io::Result<Bytes>>,
}

/// The direction of a stream that is written.
pub(super) struct Outgoing<T> {
    id: u32,
    shared: Arc<Shared<T>>,
}

/// The direction of a stream that is read: its pieces, then none; an error if it was cut off.
pub(super) type Reading = mpsc::Receiver<io::Result<Bytes>>;

impl<T: AsyncRead + AsyncWrite + Send + 'static> Connection<T> {
    /// Speaks SPDY on `io`, as the side that opens the streams.
    pub(super) fn new(io: T) -> Self {
        Self::with_pings(io, PINGS)
    }

    fn with_pings(io: T, pace: Duration) -> Self {
        let (reader, writer) = tokio::io::split(io);
        let shared = Arc::new(Shared {
            writer: tokio::sync::Mutex::new(writer),
            asked: Mutex::default(),
            streams: Mutex::new(Some(HashMap::new())),
        });
        let reading = AbortOnDropHandle::new(tokio::spawn(read(reader, Arc::clone(&shared), pace)));
        let pinging = AbortOnDropHandle::new(tokio::spawn(ping(Arc::clone(&shared), pace)));
        Self { shared, next: 1, opened_one: false, _reading: reading, _pinging: pinging }
    }

    /// Opens a stream with these headers, whose names are in small letters. Returns once the other side has it.
    ///
    /// # Errors
    /// If the connection is gone, or the other side refuses the stream.
    pub(super) async fn open(&mut self, headers: &[(&str, &str)]) -> io::Result<(Outgoing<T>, Reading)> {
        let id = self.next;
        self.next += 2;
        let (replied, reply) = oneshot::channel();
        // The connection's reader sends and ends it, the stream's owner receives.
        let (data, reading) = mpsc::channel(PIECES);
        let aborted = |what| io::Error::new(io::ErrorKind::ConnectionAborted, what);
        match self.shared.streams().as_mut() {
            Some(streams) => drop(streams.insert(id, Incoming { replied: Some(replied), data })),
            None => return Err(aborted("the connection has ended")),
        }
        let frame = syn_stream(id, headers, !std::mem::replace(&mut self.opened_one, true));
        self.shared.writer.lock().await.write_all(&frame).await?;
        let replied =
            timeout(REPLY, reply).await.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?;
        replied.map_err(|_| aborted("the stream was refused"))?;
        Ok((Outgoing { id, shared: Arc::clone(&self.shared) }, reading))
    }
}

impl<T: AsyncRead + AsyncWrite> Outgoing<T> {
    /// Sends `data`.
    ///
    /// # Errors
    /// If the connection is gone.
    pub(super) async fn write(&self, mut data: &[u8]) -> io::Result<()> {
        let mut writer = self.shared.writer.lock().await;
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(LONGEST));
            let header = data_header(self.id, 0, now.len());
            self.shared.asked().frames += 1;
            writer.write_all_buf(&mut header.as_slice().chain(now)).await?;
            data = later;
        }
        writer.flush().await
    }

    /// Says that nothing more comes. The other direction stays open.
    ///
    /// # Errors
    /// If the connection is gone.
    pub(super) async fn finish(&self) -> io::Result<()> {
        let mut writer = self.shared.writer.lock().await;
        self.shared.asked().frames += 1;
        writer.write_all(&data_header(self.id, FLAG_FIN, 0)).await?;
        writer.flush().await
    }
}

#[cfg(test)]
impl Outgoing<tokio::io::Join<tokio::io::Empty, tokio::io::Sink>> {
    /// One of which nothing arrives anywhere.
    pub(super) fn into_nothing() -> Self {
        let (_, writer) = tokio::io::split(tokio::io::join(tokio::io::empty(), tokio::io::sink()));
        let writer = tokio::sync::Mutex::new(writer);
        Self {
            id: 1,
            shared: Arc::new(Shared { writer, asked: Mutex::default(), streams: Mutex::default() }),
        }
    }
}

impl<T> Shared<T> {
    fn streams(&self) -> MutexGuard<'_, Option<HashMap<u32, Incoming>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where what comes for a stream goes, if anyone is there for it.
    fn reader_of(&self, id: u32) -> Option<mpsc::Sender<io::Result<Bytes>>> {
        self.streams().as_ref()?.get(&id).map(|incoming| incoming.data.clone())
    }

    /// Who waits for the reply to a stream's opening.
    fn waits_for_reply(&self, id: u32) -> Option<oneshot::Sender<()>> {
        self.streams().as_mut()?.get_mut(&id)?.replied.take()
    }

    /// Ends the reading of a stream, with `error` if it was cut off.
    async fn end(&self, id: u32, error: Option<io::Error>) {
        let incoming = self.streams().as_mut().and_then(|streams| streams.remove(&id));
        if let (Some(incoming), Some(error)) = (incoming, error) {
            // Who no longer reads need not know.
            drop(incoming.data.send(Err(error)).await);
        }
    }
}

/// Asks again and again whether the other side is there, until nothing can be written any more.
async fn ping<T: AsyncRead + AsyncWrite>(shared: Arc<Shared<T>>, pace: Duration) {
    for number in 0_u32.. {
        sleep(pace).await;
        let id = number.wrapping_mul(2).wrapping_add(1);
        let mut frame = Vec::with_capacity(HEADER + 4);
        frame.put_u32(CONTROL_BIT | VERSION | PING);
        frame.put_u32(flags_and_length(0, 4));
        frame.put_u32(id);
        let mut writer = shared.writer.lock().await;
        {
            let mut asked = shared.asked();
            asked.ping = (id, asked.frames);
        }
        if writer.write_all(&frame).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}

/// Distributes what comes until the connection ends, and then cuts off the streams that had not come to their end.
async fn read<T: AsyncRead + AsyncWrite>(reader: ReadHalf<T>, shared: Arc<Shared<T>>, pace: Duration) {
    let mut frames = FramedRead::with_capacity(reader, Frames, CHUNK);
    let mut silence = 0;
    let error = loop {
        // What waits to be read is an answer too: so whoever reads slowly here is not taken for the other side's silence.
        let Ok(frame) = timeout(pace, frames.next()).await else {
            silence += 1;
            let limit = if shared.asked().must_answer() { SILENCE } else { SILENCE_OF_A_READER };
            if silence > limit {
                break io::ErrorKind::TimedOut.into();
            }
            continue;
        };
        silence = 0;
        match frame {
            Some(Ok(Frame::Data { id, fin, data })) => {
                if let Some(to) = shared.reader_of(id)
                    && !data.is_empty()
                {
                    drop(to.send(Ok(data)).await);
                }
                if fin {
                    shared.end(id, None).await;
                }
            }
            Some(Ok(Frame::Reply { id, fin })) => {
                if let Some(replied) = shared.waits_for_reply(id) {
                    let _no_one_waits = replied.send(());
                }
                if fin {
                    shared.end(id, None).await;
                }
            }
            Some(Ok(Frame::Reset { id })) => {
                shared.end(id, Some(io::ErrorKind::ConnectionReset.into())).await;
            }
            Some(Ok(Frame::Ping(ping))) => {
                if let Err(error) = shared.writer.lock().await.write_all(&ping).await {
                    break error;
                }
            }
            Some(Ok(Frame::Pong { id })) => {
                let mut asked = shared.asked();
                if asked.ping.0 == id {
                    asked.read = asked.ping.1;
                }
            }
            // Those that are open come to their end; what follows is the end of the connection.
            Some(Ok(Frame::GoAway | Frame::Other)) => {}
            Some(Err(error)) => break error,
            None => break io::ErrorKind::UnexpectedEof.into(),
        }
    };
    let left = shared.streams().take().unwrap_or_default();
    for incoming in left.into_values() {
        drop(incoming.data.send(Err(error.kind().into())).await);
    }
}

/// What comes from the other side.
#[derive(PartialEq, Eq, Debug)]
enum Frame {
    Data {
        id: u32,
        fin: bool,
        data: Bytes,
    },
    Reply {
        id: u32,
        fin: bool,
    },
    Reset {
        id: u32,
    },
    /// To be sent back as it is.
    Ping(Bytes),
    /// The answer to a ping of ours.
    Pong {
        id: u32,
    },
    GoAway,
    Other,
}

struct Frames;

impl Decoder for Frames {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Frame>> {
        let Some(mut header) = bytes.get(..HEADER) else { return Ok(None) };
        let (word, flags_and_length) = (header.get_u32(), header.get_u32());
        let length = (flags_and_length & 0x00ff_ffff) as usize;
        let fin = (flags_and_length >> 24) as u8 & FLAG_FIN != 0;
        if word & CONTROL_BIT != 0 && word & !CONTROL_BIT & 0xffff_0000 != VERSION {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this is not SPDY/3"));
        }
        if bytes.len() < HEADER + length {
            bytes.reserve((HEADER + length - bytes.len()).max(CHUNK));
            return Ok(None);
        }
        let whole = bytes.split_to(HEADER + length).freeze();
        let body = whole.slice(HEADER..);
        if word & CONTROL_BIT == 0 {
            return Ok(Some(Frame::Data { id: word, fin, data: body }));
        }
        // Each of these begins with a stream's id.
        let id = body.get(..4).map_or(0, |mut id| id.get_u32() & !CONTROL_BIT);
        Ok(Some(match word & 0xffff {
            SYN_REPLY => Frame::Reply { id, fin },
            RST_STREAM => Frame::Reset { id },
            // Odd ones are our own.
            PING if id % 2 == 0 => Frame::Ping(whole),
            PING => Frame::Pong { id },
            GOAWAY => Frame::GoAway,
            _ => Frame::Other,
        }))
    }
}

fn data_header(id: u32, flags: u8, length: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let mut writer = header.as_mut_slice();
    writer.put_u32(id);
    writer.put_u32(flags_and_length(flags, length));
    header
}

fn flags_and_length(flags: u8, length: usize) -> u32 {
    let length = u32::try_from(length).ok().filter(|length| *length < 1 << 24);
    u32::from(flags) << 24 | length.expect("no frame is longer than LONGEST")
}

/// The frame that opens a stream. The headers of a connection are one compressed stream, which begins with its first frame;
/// here they are stored in it as they are, in a block for each frame (RFC 1950, RFC 1951 section 3.2.4), so nothing is compressed.
fn syn_stream(id: u32, headers: &[(&str, &str)], is_first: bool) -> Vec<u8> {
    let mut block = Vec::new();
    let put_text = |block: &mut Vec<u8>, text: &str| {
        block.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        block.extend_from_slice(text.as_bytes());
    };
    block.put_u32(u32::try_from(headers.len()).unwrap_or(u32::MAX));
    for (name, value) in headers {
        put_text(&mut block, name);
        put_text(&mut block, value);
    }
    let length = u16::try_from(block.len()).expect("the few headers of a stream are short");
    let mut stored = Vec::new();
    if is_first {
        stored.extend_from_slice(&[0x78, 0x01]);
    }
    stored.put_u8(0);
    stored.put_u16_le(length);
    stored.put_u16_le(!length);
    stored.append(&mut block);
    // An empty block: only then does the other side give out what came before it, as after zlib's Z_SYNC_FLUSH.
    stored.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);

    let mut frame = Vec::new();
    frame.put_u32(CONTROL_BIT | VERSION | SYN_STREAM);
    // The ids of the stream and of the one that it belongs to (none), its priority and slot.
    let body = 4 + 4 + 2 + stored.len();
    frame.put_u32(flags_and_length(0, body));
    frame.put_u32(id);
    frame.put_u32(0);
    frame.put_u16(0);
    frame.append(&mut stored);
    frame
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;

    fn control(kind: u32, flags: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.put_u32(CONTROL_BIT | VERSION | kind);
        frame.put_u32(flags_and_length(flags, body.len()));
        frame.extend_from_slice(body);
        frame
    }

    fn data(id: u32, flags: u8, content: &[u8]) -> Vec<u8> {
        [&data_header(id, flags, content.len()), content].concat()
    }

    /// A connection with one stream open, and the other side of it.
    async fn opened() -> (Connection<DuplexStream>, Outgoing<DuplexStream>, Reading, DuplexStream) {
        opened_with_pings(PINGS).await
    }

    async fn opened_with_pings(
        pace: Duration,
    ) -> (Connection<DuplexStream>, Outgoing<DuplexStream>, Reading, DuplexStream) {
        let (ours, mut theirs) = duplex(64 * 1024);
        let mut connection = Connection::with_pings(ours, pace);
        let answer = async {
            let mut frame = vec![0; syn_stream(1, &[("port", "80")], true).len()];
            theirs.read_exact(&mut frame).await.unwrap();
            theirs.write_all(&control(SYN_REPLY, 0, &1_u32.to_be_bytes())).await.unwrap();
            frame
        };
        let headers = [("port", "80")];
        let (opened, frame) = tokio::join!(connection.open(&headers), answer);
        assert_eq!(frame, syn_stream(1, &[("port", "80")], true));
        let (outgoing, reading) = opened.unwrap();
        (connection, outgoing, reading, theirs)
    }

    #[test]
    fn the_frame_that_opens_a_stream() {
        let expected = [
            &[0x80, 3, 0, 1, 0, 0, 0, 42][..],
            &[0, 0, 0, 3, 0, 0, 0, 0, 0, 0],
            // The beginning of a zlib stream, and a stored block of 20 bytes.
            &[0x78, 0x01, 0, 20, 0, 0xeb, 0xff],
            &[0, 0, 0, 1, 0, 0, 0, 4],
            b"port",
            &[0, 0, 0, 4],
            b"8000",
            &[0, 0, 0, 0xff, 0xff],
        ];
        assert_eq!(syn_stream(3, &[("port", "8000")], true), expected.concat());
        assert_eq!(syn_stream(5, &[("port", "8000")], false).len(), expected.concat().len() - 2);
    }

    #[test]
    fn frames_are_told_apart_wherever_they_are_cut() {
        let ping = control(PING, 0, &2_u32.to_be_bytes());
        let sent = [
            control(SYN_REPLY, 0, &[0, 0, 0, 1, 9, 9]),
            data(1, 0, b"some"),
            ping.clone(),
            control(9, 0, &[0; 8]),
            data(1, FLAG_FIN, b""),
            control(RST_STREAM, 0, &[0, 0, 0, 3, 0, 0, 0, 1]),
        ]
        .concat();
        for size in 1..=sent.len() {
            let (mut bytes, mut frames) = (BytesMut::new(), Vec::new());
            for chunk in sent.chunks(size) {
                bytes.extend_from_slice(chunk);
                while let Some(frame) = Frames.decode(&mut bytes).unwrap() {
                    frames.push(frame);
                }
            }
            let expected = [
                Frame::Reply { id: 1, fin: false },
                Frame::Data { id: 1, fin: false, data: Bytes::from_static(b"some") },
                Frame::Ping(Bytes::from(ping.clone())),
                Frame::Other,
                Frame::Data { id: 1, fin: true, data: Bytes::new() },
                Frame::Reset { id: 3 },
            ];
            assert_eq!(frames, expected, "cut every {size}");
        }
        let mut other = BytesMut::from(&b"HTTP/1.1 400 Bad Request"[..]);
        other[0] |= 0x80;
        assert!(Frames.decode(&mut other).is_err());
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (_connection, outgoing, mut reading, mut theirs) = opened().await;
        outgoing.write(b"question").await.unwrap();
        outgoing.finish().await.unwrap();
        let mut sent = vec![0; HEADER + 8 + HEADER];
        theirs.read_exact(&mut sent).await.unwrap();
        assert_eq!(sent, [data(1, 0, b"question"), data(1, FLAG_FIN, b"")].concat());
        theirs.write_all(&data(1, 0, b"answer")).await.unwrap();
        assert_eq!(reading.recv().await.unwrap().unwrap(), "answer");
        theirs.write_all(&data(1, FLAG_FIN, b"")).await.unwrap();
        assert!(reading.recv().await.is_none());
    }

    #[tokio::test]
    async fn what_was_cut_off_is_told_from_what_ended() {
        let (_connection, _outgoing, mut reading, theirs) = opened().await;
        drop(theirs);
        assert!(reading.recv().await.unwrap().is_err());

        let (_connection, _outgoing, mut reading, mut theirs) = opened().await;
        theirs.write_all(&control(RST_STREAM, 0, &[0, 0, 0, 1, 0, 0, 0, 2])).await.unwrap();
        assert_eq!(reading.recv().await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_ping_comes_back() {
        let (_connection, _outgoing, _reading, mut theirs) = opened().await;
        let ping = control(PING, 0, &4_u32.to_be_bytes());
        theirs.write_all(&ping).await.unwrap();
        let mut back = vec![0; ping.len()];
        theirs.read_exact(&mut back).await.unwrap();
        assert_eq!(back, ping);
    }

    #[tokio::test]
    async fn a_side_that_is_silent_is_gone_and_one_that_answers_is_not() {
        let (_connection, _outgoing, mut reading, mut theirs) =
            opened_with_pings(Duration::from_millis(100)).await;
        let mut ping = [0; HEADER + 4];
        for _ in 0..8 {
            theirs.read_exact(&mut ping).await.unwrap();
            assert_eq!(u32::from_be_bytes(ping[8..].try_into().unwrap()) % 2, 1, "{ping:?}");
            theirs.write_all(&ping).await.unwrap();
        }
        theirs.write_all(&data(1, 0, b"here")).await.unwrap();
        assert_eq!(reading.recv().await.unwrap().unwrap(), "here");
        assert_eq!(reading.recv().await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    /// What was sent may fill all the room that the other side has until the agent takes it, with pings behind it.
    #[tokio::test]
    async fn one_that_waits_for_its_agent_is_not_gone() {
        let (_connection, outgoing, mut reading, mut theirs) =
            opened_with_pings(Duration::from_millis(30)).await;
        for _ in 0..=ROOM {
            outgoing.write(b"much").await.unwrap();
        }
        sleep(Duration::from_millis(30) * 2 * SILENCE).await;
        theirs.write_all(&data(1, 0, b"here")).await.unwrap();
        assert_eq!(reading.recv().await.unwrap().unwrap(), "here");
    }

    #[tokio::test]
    async fn one_that_has_read_all_is_gone_once_it_is_silent() {
        let asked = |frames, read| Asked { frames, read, ..Asked::default() };
        assert!(asked(ROOM, 0).must_answer() && asked(1000, 1000).must_answer());
        assert!(!asked(ROOM + 1, 0).must_answer() && !asked(1000, 999).must_answer());
        let (_connection, outgoing, mut reading, mut theirs) =
            opened_with_pings(Duration::from_millis(100)).await;
        for _ in 0..=ROOM {
            outgoing.write(b"much").await.unwrap();
        }
        let mut sent = vec![0; (HEADER + 4) * (ROOM as usize + 1)];
        theirs.read_exact(&mut sent).await.unwrap();
        let mut ping = [0; HEADER + 4];
        theirs.read_exact(&mut ping).await.unwrap();
        theirs.write_all(&ping).await.unwrap();
        assert_eq!(reading.recv().await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn nothing_is_opened_on_a_connection_that_has_ended() {
        let (ours, mut theirs) = duplex(64 * 1024);
        let mut connection = Connection::new(ours);
        let (opened, ()) = tokio::join!(connection.open(&[]), async {
            theirs.write_all(&control(SYN_REPLY, 0, &1_u32.to_be_bytes())).await.unwrap();
            // It is not read any more, and can be written to all the same.
            theirs.shutdown().await.unwrap();
        });
        let (_outgoing, mut reading) = opened.unwrap();
        assert_eq!(reading.recv().await.unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let opened = connection.open(&[]).await.map(drop);
        assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_stream_that_is_refused_is_no_stream() {
        let (ours, mut theirs) = duplex(1024);
        let mut connection = Connection::new(ours);
        theirs.write_all(&control(RST_STREAM, 0, &[0, 0, 0, 1, 0, 0, 0, 3])).await.unwrap();
        assert!(connection.open(&[]).await.is_err());
    }
}
