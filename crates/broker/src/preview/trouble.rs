//! Why an agent's server has given no answer, and what is said of it.

use std::io;

use axum::http::StatusCode;

use super::CONNECTING;
use super::notice::Notice;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("it does not accept a connection within {} s", CONNECTING.as_secs())]
    Silent,
    #[error(transparent)]
    Connection(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("it has become another protocol without having been asked to")]
    Unasked,
    #[error("it was asked for a WebSocket and answered with status {0}")]
    NoWebSocket(StatusCode),
    #[error("the limit of open files (`ulimit -n`, LimitNOFILE) leaves none for one more connection")]
    TooMany,
}

impl Trouble {
    /// What is said instead of an answer of `agent` on `port`.
    pub(super) fn notice(&self, agent: &str, port: u16) -> Notice {
        if let Self::TooMany = self {
            return Notice {
                status: StatusCode::SERVICE_UNAVAILABLE,
                said: "the broker has as many connections to agents as it may have".to_owned(),
                hint: "close pages that you do not need, or raise the limit of open files (`ulimit -n`, LimitNOFILE)".to_owned(),
                passes: true,
            };
        }
        match self.unreadable() {
            Some(reason) => Notice {
                status: StatusCode::BAD_GATEWAY,
                said: format!("what answers on port {port} of {agent} cannot be shown"),
                hint: format!("its answer is not as HTTP/1.1 has it: {reason}"),
                passes: false,
            },
            // An engine's proxy accepts a connection also while nothing listens inside, and closes it then.
            None => Notice {
                status: StatusCode::BAD_GATEWAY,
                said: format!("nothing answers on port {port} of {agent} yet"),
                hint: "the server must listen on 0.0.0.0 inside, on the port in its variable".to_owned(),
                passes: true,
            },
        }
    }

    /// What is wrong with the answer, if there is one.
    fn unreadable(&self) -> Option<String> {
        match self {
            Self::Silent | Self::Connection(_) | Self::TooMany => None,
            Self::Http(error) => unreadable(error),
            Self::Unasked | Self::NoWebSocket(_) => Some(self.to_string()),
        }
    }
}

fn unreadable(error: &hyper::Error) -> Option<String> {
    // That it has not been read to the end is a connection that was closed.
    (error.is_parse() && !error.is_incomplete_message()).then(|| error.to_string())
}
