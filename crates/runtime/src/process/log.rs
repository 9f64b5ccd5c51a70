//! What an agent wrote: the end of its log, and what comes later.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;

use super::ending::{blocking, is_running};
use super::folder::Folder;
use super::record::file_error;
use crate::{LogRequest, LogStream, Output, RuntimeError};

const CHUNK: usize = 64 * 1024;
const POLL: Duration = Duration::from_millis(100);

struct Reader {
    file: File,
    folder: Folder,
    follow: bool,
}

enum Step {
    Data(Bytes),
    /// At the end of the file, though more may come.
    Waiting,
    End,
}

/// Opens the log. Everything is standard output: both streams go to one file, in order.
pub(super) async fn open(folder: Folder, request: &LogRequest) -> Result<LogStream, RuntimeError> {
    let request = request.clone();
    let reader = blocking(move || {
        let path = folder.file("log");
        let mut file = File::open(&path).map_err(|error| file_error("cannot open", &path, error))?;
        if let Some(lines) = request.tail {
            let positioned = last_lines(&file, lines).and_then(|offset| file.seek(SeekFrom::Start(offset)));
            positioned.map_err(|error| file_error("cannot read", &path, error))?;
        }
        Ok(Reader { file, folder, follow: request.follow })
    })
    .await?;
    Ok(Box::pin(stream::try_unfold(Some(reader), next)))
}

async fn next(reader: Option<Reader>) -> Result<Option<(Output, Option<Reader>)>, RuntimeError> {
    let Some(mut reader) = reader else { return Ok(None) };
    loop {
        let (step, back) = blocking(move || Ok((reader.step()?, reader))).await?;
        reader = back;
        match step {
            Step::Data(data) => return Ok(Some((Output::Stdout(data), Some(reader)))),
            Step::Waiting => tokio::time::sleep(POLL).await,
            Step::End => return Ok(None),
        }
    }
}

impl Reader {
    fn step(&mut self) -> Result<Step, RuntimeError> {
        if let Some(data) = self.read()? {
            return Ok(Step::Data(data));
        }
        if !self.follow {
            return Ok(Step::End);
        }
        if is_running(self.folder.life()?.as_ref()) {
            return Ok(Step::Waiting);
        }
        // It may have written its last words after the first look at the file and before it ended.
        Ok(self.read()?.map_or(Step::End, Step::Data))
    }

    fn read(&mut self) -> Result<Option<Bytes>, RuntimeError> {
        let mut data = vec![0; CHUNK];
        let length = loop {
            match self.file.read(&mut data) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => break done,
            }
        };
        let length = length.map_err(|error| file_error("cannot read", &self.folder.file("log"), error))?;
        data.truncate(length);
        Ok((length > 0).then(|| data.into()))
    }
}

/// Where the last so many lines begin. A line without an end counts as one. Reads no more than those lines.
fn last_lines(file: &File, lines: usize) -> io::Result<u64> {
    let mut position = file.metadata()?.len();
    if lines == 0 {
        return Ok(position);
    }
    let mut chunk = vec![0; CHUNK];
    let mut ends_to_pass = lines;
    let mut is_last_byte = true;
    while position > 0 {
        let length = position.min(CHUNK as u64);
        let begin = position - length;
        let chunk = &mut chunk[..usize::try_from(length).expect("a chunk is small")];
        file.read_exact_at(chunk, begin)?;
        for (index, byte) in chunk.iter().enumerate().rev() {
            // The end of the last line separates nothing.
            if *byte == b'\n' && !std::mem::take(&mut is_last_byte) {
                ends_to_pass -= 1;
                if ends_to_pass == 0 {
                    return Ok(begin + index as u64 + 1);
                }
            }
            is_last_byte = false;
        }
        position = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn check(text: &[u8], lines: usize, expected: &[u8]) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        let begin = usize::try_from(last_lines(&file, lines).unwrap()).unwrap();
        assert_eq!(&text[begin..], expected, "the last {lines} lines");
    }

    #[test]
    fn the_last_lines_are_found() {
        check(b"", 3, b"");
        check(b"one\ntwo\n", 0, b"");
        check(b"one\ntwo\nthree\n", 2, b"two\nthree\n");
        check(b"one\ntwo\nthree", 2, b"two\nthree");
        check(b"one\n\n\n", 2, b"\n\n");
        check(b"one\ntwo\n", 5, b"one\ntwo\n");
    }

    #[test]
    fn lines_longer_than_a_chunk_are_found() {
        let long = [vec![b'a'; CHUNK], b"\n".to_vec(), vec![b'b'; 2 * CHUNK], b"\n".to_vec()].concat();
        check(&long, 1, &long[CHUNK + 1..]);
        check(&long, 2, &long);
    }
}
