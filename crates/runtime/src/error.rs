//! What goes wrong with a runtime, classified by what the caller can do about it.

use std::error::Error;

/// Something that a runtime was asked for did not work.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RuntimeError {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// What was being done and what the runtime said; lower case, no full stop.
    pub message: String,
    /// What a person can do next, where that is known.
    pub hint: Option<String>,
    /// The underlying failure, if it says more than the message.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// The kinds of failure that callers tell apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// The runtime does not answer. Nothing is known about what runs there.
    Unreachable,
    /// The agent is not there.
    NotFound,
    /// The agent is there but does not run.
    NotRunning,
    /// Something else has that name.
    NameTaken,
    /// The image is not there and could not be pulled.
    Image,
    /// The command cannot be run: not found, not executable.
    Command,
    /// The engine cannot publish a port, because someone else has it; the number where the engine named it.
    PortRefused {
        /// The refused port.
        port: Option<u16>,
    },
    /// The broker may not do this there; nothing was done.
    Forbidden,
    /// The request asks for what this runtime cannot do.
    Unsupported,
    /// The request is wrong, such as a volume whose source is not there.
    Invalid,
    /// Anything else.
    Other,
}

impl RuntimeError {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with its cause.
    #[must_use]
    pub fn source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}
