//! The only place that writes to standard output and standard error.
//!
//! Results go to standard output, everything else to standard error. Colours are taken out unless they are wanted. A reader
//! that has gone away (`berthold list | head`) ends the command quietly.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;

use anstream::{AutoStream, ColorChoice};
use serde::Serialize;

use crate::error::CliError;

/// Where a command writes.
pub(crate) struct Output {
    json: bool,
    width: Option<u16>,
    shows_progress: bool,
    results: Channel,
    messages: Channel,
}

struct Channel {
    styled: bool,
    stream: Mutex<Box<dyn Write + Send>>,
}

impl Output {
    /// The standard output and standard error of this process.
    pub(crate) fn standard(json: bool, color: ColorChoice) -> Self {
        // NO_COLOR goes before what was typed (https://no-color.org leaves that open).
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = if no_color { ColorChoice::Never } else { color };
        // With `auto` this looks at CLICOLOR, CLICOLOR_FORCE and TERM, and whether the stream is a terminal.
        color.write_global();
        let styled = |choice| !matches!(choice, ColorChoice::Never);
        Self {
            json,
            width: terminal_width(),
            shows_progress: io::stderr().is_terminal(),
            results: Channel::new(styled(AutoStream::choice(&io::stdout())), io::stdout()),
            messages: Channel::new(styled(AutoStream::choice(&io::stderr())), io::stderr()),
        }
    }

    /// Whether one JSON document is wanted in place of text.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// How many characters fit in a line of standard output; none where it is not a terminal.
    pub(crate) fn width(&self) -> Option<u16> {
        self.width
    }

    /// Whether messages can be drawn over, as a progress bar does.
    pub(crate) fn shows_progress(&self) -> bool {
        self.shows_progress
    }

    /// A line, or several, of the result.
    pub(crate) fn print(&self, text: &str) -> Result<(), CliError> {
        self.results.line(text).map_err(CliError::from_output)
    }

    /// A piece of the result as it is, such as what an agent wrote.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), CliError> {
        self.results.bytes(bytes).map_err(CliError::from_output)
    }

    /// A piece of what a command beside an agent wrote on its standard error.
    pub(crate) fn write_beside(&self, bytes: &[u8]) -> Result<(), CliError> {
        self.messages.bytes(bytes).map_err(CliError::from_output)
    }

    /// The result as a JSON document.
    pub(crate) fn document(&self, document: &impl Serialize) -> Result<(), CliError> {
        let text =
            serde_json::to_string_pretty(document).expect("documents have only string keys and plain values");
        self.print(&text)
    }

    /// A message that is not part of the result.
    pub(crate) fn say(&self, text: &str) {
        // Where nobody reads the messages, the work goes on all the same.
        drop(self.messages.line(text));
    }

    /// Something that a person should know though the command succeeds.
    pub(crate) fn warn(&self, text: &str) {
        use owo_colors::OwoColorize;
        self.say(&format!("{} {text}", "warning:".yellow().bold()));
    }
}

impl Channel {
    fn new(styled: bool, stream: impl Write + Send + 'static) -> Self {
        Self { styled, stream: Mutex::new(Box::new(stream)) }
    }

    fn line(&self, text: &str) -> io::Result<()> {
        let line = match self.styled {
            true => format!("{text}\n"),
            false => format!("{}\n", anstream::adapter::strip_str(text)),
        };
        self.bytes(line.as_bytes())
    }

    fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        // A panic elsewhere does not make the stream wrong.
        let mut stream = self.stream.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        stream.write_all(bytes)?;
        stream.flush()
    }
}

fn terminal_width() -> Option<u16> {
    let size = io::stdout().is_terminal().then(|| rustix::termios::tcgetwinsize(io::stdout()).ok())??;
    (size.ws_col > 0).then_some(size.ws_col)
}

#[cfg(test)]
pub(crate) mod captured {
    //! An output that tests can read.

    use std::sync::Arc;

    use super::*;

    /// What was written so far.
    #[derive(Clone, Default)]
    pub(crate) struct Captured {
        results: Buffer,
        messages: Buffer,
    }

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Captured {
        /// An output of plain text, as it is without a terminal, and what is written to it.
        pub(crate) fn new(json: bool) -> (Output, Self) {
            let captured = Self::default();
            let output = Output {
                json,
                width: None,
                shows_progress: false,
                results: Channel::new(false, captured.results.clone()),
                messages: Channel::new(false, captured.messages.clone()),
            };
            (output, captured)
        }

        pub(crate) fn results(&self) -> String {
            String::from_utf8(self.results.0.lock().unwrap().clone()).unwrap()
        }

        pub(crate) fn messages(&self) -> String {
            String::from_utf8(self.messages.0.lock().unwrap().clone()).unwrap()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::captured::Captured;
    use super::*;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn colours_are_taken_out_where_they_are_not_wanted_but_an_agents_own_output_stays_as_it_is() {
        let (output, captured) = Captured::new(false);
        output.warn("careful");
        output.print("\u{1b}[31mred\u{1b}[0m").unwrap();
        output.write(b"\x1b[31mraw\x1b[0m").unwrap();
        assert_eq!(captured.messages(), "warning: careful\n");
        assert_eq!(captured.results(), "red\n\u{1b}[31mraw\u{1b}[0m");
    }

    #[test]
    fn a_reader_that_has_gone_away_is_no_error_to_be_shown() {
        let (mut output, _captured) = Captured::new(false);
        output.results = Channel::new(false, Closed);
        output.messages = Channel::new(false, Closed);
        output.say("nobody hears this");
        assert!(matches!(output.print("x"), Err(CliError::BrokenPipe)));
    }
}
