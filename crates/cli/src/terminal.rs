//! The terminal of the person, while a command beside an agent has it.

use std::io::{self, IsTerminal};

use api::exec::Size;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// A terminal that passes every key on as it is; as it was before once this is dropped.
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Takes the terminal of standard input; none if that is not one.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to be restored.
        tcsetattr(io::stdin(), OptionalActions::Now, &self.before).unwrap_or_default();
    }
}

/// Whether there is a terminal on standard output.
pub(crate) fn is_there() -> bool {
    io::stdout().is_terminal()
}

/// The size of the terminal on standard output; that of the first terminals where there is none.
pub(crate) fn size() -> Size {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Size { columns: size.ws_col, rows: size.ws_row },
        _ => Size { columns: 80, rows: 24 },
    }
}
