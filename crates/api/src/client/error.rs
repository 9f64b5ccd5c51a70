//! Why a call to a broker gave no result.

use std::io;

use crate::{Code, Endpoint, Problem};

/// Why a call to a broker gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection was made: the request has not been sent.
    #[error("no broker answers at {endpoint}")]
    Unreachable {
        /// Where it was looked for.
        endpoint: Endpoint,
        /// What the system says.
        source: io::Error,
    },
    /// The connection broke off, or the answer did not come in time. Whether the request was carried out is not known.
    #[error("the broker at {endpoint} broke off in the middle of {call}")]
    BrokenOff {
        /// Which broker.
        endpoint: Endpoint,
        /// The method and the path.
        call: String,
        /// What happened to the connection.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The broker says no.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// The answer is not one of a broker, or of one too old or too new.
    #[error("the answer to {call} from {endpoint} is not what a broker would say: {reason}")]
    Protocol {
        /// Who answered.
        endpoint: Endpoint,
        /// The method and the path.
        call: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl ClientError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Unreachable { .. } | Self::BrokenOff { .. } => Code::BrokerUnreachable,
            Self::Problem(problem) => problem.code,
            Self::Protocol { .. } => Code::Failed,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Some(
                "the broker belongs to another user: use its token and address, or a broker of your own"
                    .to_owned(),
            ),
            Self::Unreachable { .. } => Some("start one with `berthold serve`".to_owned()),
            Self::BrokenOff { .. } => Some(
                "see with `berthold broker status` whether it still runs; its log says why it ended"
                    .to_owned(),
            ),
            Self::Problem(problem) => problem.hint.clone(),
            Self::Protocol { .. } => Some(
                "something else may listen there, or the broker is of another version of berthold".to_owned(),
            ),
        }
    }
}
