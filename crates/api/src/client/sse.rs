//! Reads server-sent events (WHATWG HTML, section 9.2) from bytes that come in pieces of any size.
//!
//! Only what a broker sends is kept: the `event` and `data` fields. Ids and retry times are passed over.

/// The most bytes that one event may have.
const LONGEST: usize = 16 << 20;

/// One event.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Message {
    /// The `event` field; empty if there was none.
    pub(super) event: String,
    /// The `data` fields, joined by line feeds.
    pub(super) data: String,
}

/// An event that is longer than any that a broker would send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an event is longer than {LONGEST} bytes")]
pub(super) struct TooLong;

/// What has come of events that are not complete.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    event: String,
    data: Option<String>,
    after_return: bool,
}

impl Parser {
    /// Takes the next bytes and gives the events that they complete.
    ///
    /// # Errors
    /// [`TooLong`], after which the stream is of no more use.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Message>, TooLong> {
        let mut complete = Vec::new();
        for &byte in bytes {
            // A line ends with CR, LF or both; the LF after a CR is no line of its own.
            let second_half = std::mem::replace(&mut self.after_return, byte == b'\r') && byte == b'\n';
            match byte {
                b'\n' if second_half => {}
                b'\n' | b'\r' => complete.extend(self.end_line()),
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.as_ref().map_or(0, String::len) > LONGEST {
                return Err(TooLong);
            }
        }
        Ok(complete)
    }

    fn end_line(&mut self) -> Option<Message> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return self.data.take().map(|data| Message { event, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wire: &str, expected: &[(&str, &str)]) {
        let shown = |pieces: &[&[u8]]| {
            let mut parser = Parser::default();
            let messages: Vec<Message> =
                pieces.iter().flat_map(|piece| parser.push(piece).unwrap()).collect();
            messages.into_iter().map(|message| (message.event, message.data)).collect::<Vec<_>>()
        };
        let expected: Vec<_> =
            expected.iter().map(|(event, data)| ((*event).to_owned(), (*data).to_owned())).collect();
        assert_eq!(shown(&[wire.as_bytes()]), expected, "in one piece: {wire:?}");
        let bytes: Vec<&[u8]> = wire.as_bytes().chunks(1).collect();
        assert_eq!(shown(&bytes), expected, "byte by byte: {wire:?}");
    }

    #[test]
    fn events_with_any_line_ending() {
        check("event: agent\ndata: {}\n\n", &[("agent", "{}")]);
        check("event: agent\r\ndata: {}\r\n\r\n", &[("agent", "{}")]);
        check("event: agent\rdata: {}\r\r", &[("agent", "{}")]);
        check("data:1\n\ndata:2\n\n", &[("", "1"), ("", "2")]);
    }

    #[test]
    fn comments_other_fields_and_half_events_are_no_events() {
        check(": keep-alive\n\n", &[]);
        check("id: 1\nretry: 5\nevent: lonely\n\ndata: x\n\n", &[("", "x")]);
        check("data: never ended\n", &[]);
    }

    #[test]
    fn data_of_several_lines_and_non_ascii() {
        check("\u{feff}data: a\ndata:  b\ndata\n\n", &[("", "a\n b\n")]);
        check("data: Üb\n\n", &[("", "Üb")]);
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let mut parser = Parser::default();
        let mebibyte = vec![b'x'; 1 << 20];
        assert_eq!((0..17).find_map(|_| parser.push(&mebibyte).err()), Some(TooLong));
    }
}
