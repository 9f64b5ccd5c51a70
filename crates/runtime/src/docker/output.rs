//! What containers and commands write, taken apart into its two streams.
//!
//! Without a terminal the engine sends frames: a byte for the stream, three zeros, four bytes for the length, and so much
//! of what was written. With a terminal it sends the bytes as they are. Which of the two it is is known beforehand and
//! not guessed from the first byte, since what a terminal shows may well begin with a zero.

use bytes::{Buf, Bytes};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};

use super::asking::Asking;
use crate::{LogStream, Output, RuntimeError};

/// A connection as it is read, or an answer's body.
pub(super) type Source = BoxStream<'static, Result<Bytes, bollard::errors::Error>>;

/// The stream of what `source` sends; `asking` says what was being done if that breaks off.
pub(super) fn taken_apart(source: Source, terminal: bool, asking: Asking) -> LogStream {
    if terminal {
        let output = move |bytes: Result<Bytes, _>| match bytes {
            Ok(bytes) => Ok(Output::Stdout(bytes)),
            Err(error) => Err(asking.failed(error)),
        };
        return source.map(output).boxed();
    }
    until_failure(frames(source, asking)).boxed()
}

fn frames(source: Source, asking: Asking) -> impl Stream<Item = Result<Output, RuntimeError>> {
    let mut frames = Frames::default();
    source.flat_map(move |bytes| {
        let outputs = match bytes {
            Ok(bytes) => frames.take(bytes).unwrap_or_else(|OutOfStep| vec![Err(asking.out_of_step())]),
            Err(error) => vec![Err(asking.failed(error))],
        };
        stream::iter(outputs)
    })
}

/// Ends the stream with its first failure: what comes after cannot be told apart any more.
fn until_failure(
    outputs: impl Stream<Item = Result<Output, RuntimeError>>,
) -> impl Stream<Item = Result<Output, RuntimeError>> {
    outputs.scan(false, |failed, output| {
        let item = (!*failed).then_some(output);
        *failed |= item.as_ref().is_some_and(Result::is_err);
        std::future::ready(item)
    })
}

/// Where in a frame the bytes taken so far end.
#[derive(Default)]
struct Frames {
    header: [u8; 8],
    header_length: usize,
    /// How much of the frame's content is still to come.
    content: usize,
}

/// What was read is no frame.
#[derive(PartialEq, Eq, Debug)]
struct OutOfStep;

impl Frames {
    /// Gives out content as soon as it is there, so that a long frame is never held in memory.
    fn take(&mut self, mut bytes: Bytes) -> Result<Vec<Result<Output, RuntimeError>>, OutOfStep> {
        let mut outputs = Vec::new();
        while !bytes.is_empty() {
            if self.content == 0 {
                let missing = (self.header.len() - self.header_length).min(bytes.len());
                bytes.copy_to_slice(&mut self.header[self.header_length..self.header_length + missing]);
                self.header_length += missing;
                if self.header_length < self.header.len() {
                    break;
                }
                let [_, 0, 0, 0, length @ ..] = self.header else { return Err(OutOfStep) };
                self.header_length = 0;
                self.content = usize::try_from(u32::from_be_bytes(length)).map_err(|_| OutOfStep)?;
                continue;
            }
            let content = bytes.split_to(self.content.min(bytes.len()));
            self.content -= content.len();
            outputs.push(Ok(match self.header[0] {
                0 | 1 => Output::Stdout(content),
                // 3 is the engine's own complaint.
                2 | 3 => Output::Stderr(content),
                _ => return Err(OutOfStep),
            }));
        }
        Ok(outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, content: &str) -> Vec<u8> {
        let mut frame = vec![stream, 0, 0, 0];
        frame.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
        frame.extend(content.as_bytes());
        frame
    }

    #[test]
    fn frames_are_taken_apart_wherever_they_are_cut() {
        let sent = [frame(1, "out"), frame(2, "error"), frame(1, ""), frame(1, "more")].concat();
        for size in 1..=sent.len() {
            let mut frames = Frames::default();
            let (mut out, mut error) = (Vec::new(), Vec::new());
            for chunk in sent.chunks(size) {
                for output in frames.take(Bytes::copy_from_slice(chunk)).unwrap() {
                    match output.unwrap() {
                        Output::Stdout(bytes) => out.extend(bytes),
                        Output::Stderr(bytes) => error.extend(bytes),
                    }
                }
            }
            assert_eq!(
                (out.as_slice(), error.as_slice()),
                (&b"outmore"[..], &b"error"[..]),
                "cut every {size}"
            );
        }
    }

    #[test]
    fn what_is_no_frame_is_not_taken_for_one() {
        assert_eq!(Frames::default().take(Bytes::from_static(b"plain text")).unwrap_err(), OutOfStep);
        assert_eq!(Frames::default().take(Bytes::from(frame(7, "x"))).unwrap_err(), OutOfStep);
    }
}
