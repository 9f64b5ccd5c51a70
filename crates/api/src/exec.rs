//! Commands beside an agent, and an agent's own streams: `POST /v1/agents/{project}/{name}/exec` or `…/attach` with
//! `Upgrade: berthold-exec`, then [`Frame`]s both ways.
//!
//! After the request's JSON body the broker answers `101 Switching Protocols` and the connection carries frames: a byte
//! for the kind, four for the length (big endian), then the payload. The broker's last frame is [`Frame::Exit`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio_util::codec::{Decoder, Encoder};
use utoipa::ToSchema;

/// The protocol's name in the `Upgrade` header.
pub const PROTOCOL: &str = "berthold-exec";
/// The longest payload of a frame, in bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// The header of an answer to `…/attach` that says which of `stdin` and `terminal` there is, parted by a comma.
pub const STREAMS: &str = "berthold-streams";
const HEADER: usize = 5;

/// What to run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExecRequest {
    /// The command with its arguments.
    pub command: Vec<String>,
    /// Further variables, `NAME=VALUE`.
    pub env: Vec<String>,
    /// The directory inside; the agent's own if not given.
    pub workdir: Option<String>,
    /// Whether standard input is forwarded.
    pub stdin: bool,
    /// Whether the command gets a terminal, and of which size.
    pub terminal: Option<Size>,
}

/// To what to attach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AttachRequest {
    /// Whether standard input is forwarded.
    pub stdin: bool,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Size {
    /// Width.
    pub columns: u16,
    /// Height.
    pub rows: u16,
}

/// One message of the upgraded connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// To the command's standard input.
    Stdin(Bytes),
    /// No more input will come.
    StdinEnd,
    /// From the command's standard output.
    Stdout(Bytes),
    /// From the command's standard error.
    Stderr(Bytes),
    /// The client's terminal has a new size.
    Resize(Size),
    /// The command has ended with this code.
    Exit(i64),
    /// The command could not be run or watched to its end, for this reason.
    Failed(String),
}

/// Reads and writes [`Frame`]s.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameCodec;

impl Encoder<Frame> for FrameCodec {
    type Error = std::io::Error;

    fn encode(&mut self, frame: Frame, buffer: &mut BytesMut) -> std::io::Result<()> {
        let (kind, payload) = match frame {
            Frame::Stdin(data) => (0, data),
            Frame::StdinEnd => (1, Bytes::new()),
            Frame::Stdout(data) => (2, data),
            Frame::Stderr(data) => (3, data),
            Frame::Resize(size) => {
                let [c1, c0] = size.columns.to_be_bytes();
                let [r1, r0] = size.rows.to_be_bytes();
                (4, Bytes::copy_from_slice(&[c1, c0, r1, r0]))
            }
            Frame::Exit(code) => (5, Bytes::copy_from_slice(&code.to_be_bytes())),
            Frame::Failed(reason) => (6, Bytes::from(reason)),
        };
        let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_PAYLOAD);
        let length = length.ok_or_else(|| invalid("a frame is too long to be sent"))?;
        buffer.reserve(HEADER + payload.len());
        buffer.put_u8(kind);
        buffer.put_u32(length);
        buffer.put(payload);
        Ok(())
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = std::io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> std::io::Result<Option<Frame>> {
        let Some((kind, length)) = header(buffer) else { return Ok(None) };
        if length > MAX_PAYLOAD {
            return Err(invalid("a frame is longer than allowed"));
        }
        if buffer.len() < HEADER + length {
            buffer.reserve(HEADER + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(HEADER);
        let payload = buffer.split_to(length).freeze();
        let frame = match (kind, &*payload) {
            (0, _) => Frame::Stdin(payload),
            (1, _) => Frame::StdinEnd,
            (2, _) => Frame::Stdout(payload),
            (3, _) => Frame::Stderr(payload),
            (4, [c1, c0, r1, r0]) => Frame::Resize(Size {
                columns: u16::from_be_bytes([*c1, *c0]),
                rows: u16::from_be_bytes([*r1, *r0]),
            }),
            (5, code) => {
                let code = code.try_into().map_err(|_| invalid("an exit frame has the wrong length"))?;
                Frame::Exit(i64::from_be_bytes(code))
            }
            (6, reason) => Frame::Failed(String::from_utf8_lossy(reason).into_owned()),
            _ => return Err(invalid("a frame is of no known kind")),
        };
        Ok(Some(frame))
    }
}

fn header(buffer: &[u8]) -> Option<(u8, usize)> {
    match buffer {
        [kind, a, b, c, d, ..] => Some((*kind, usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).ok()?)),
        _ => None,
    }
}

fn invalid(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire_in_pieces() {
        let frames = [
            Frame::Stdin(Bytes::from_static(b"in")),
            Frame::StdinEnd,
            Frame::Stdout(Bytes::from_static(b"out")),
            Frame::Stderr(Bytes::new()),
            Frame::Resize(Size { columns: 300, rows: 2 }),
            Frame::Exit(-1),
            Frame::Failed("no such file".into()),
        ];
        let (mut codec, mut wire) = (FrameCodec, BytesMut::new());
        for frame in &frames {
            codec.encode(frame.clone(), &mut wire).unwrap();
        }
        let (mut arrived, mut decoded) = (BytesMut::new(), Vec::new());
        for byte in wire {
            arrived.put_u8(byte);
            while let Some(frame) = codec.decode(&mut arrived).unwrap() {
                decoded.push(frame);
            }
        }
        assert_eq!(decoded, frames);
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_is_read() {
        let mut wire = BytesMut::from(&[2, 0xff, 0xff, 0xff, 0xff][..]);
        assert!(FrameCodec.decode(&mut wire).is_err());
    }
}
