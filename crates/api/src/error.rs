//! Errors on the wire: problem documents (RFC 9457), and the `error` object of `--json`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What kind of error it is. Codes are stable; clients may depend on them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is wrong.
    InvalidRequest,
    /// The settings are wrong.
    InvalidSettings,
    /// There is no such agent.
    NoSuchAgent,
    /// There is no such bare lease.
    NoSuchLease,
    /// There is no such call.
    NotFound,
    /// The pool has not enough ports left.
    PoolExhausted,
    /// No broker answers.
    BrokerUnreachable,
    /// The runtime does not answer.
    RuntimeUnreachable,
    /// The runtime refused or could not do it.
    RuntimeFailed,
    /// The runtime cannot do what was asked for.
    Unsupported,
    /// The agent did not start, or ended at once.
    StartFailed,
    /// A name or port is in use, or a running agent differs from what was asked for.
    Conflict,
    /// The agent does not run.
    NotRunning,
    /// The token is missing or wrong.
    Unauthorized,
    /// The caller may not do this.
    Forbidden,
    /// The ledger could not be written or read; nothing was done.
    LedgerFailed,
    /// The broker is being shut down.
    ShuttingDown,
    /// A bug, or something that has no code of its own.
    Failed,
}

impl Code {
    /// The code as the wire has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidSettings => "invalid_settings",
            Self::NoSuchAgent => "no_such_agent",
            Self::NoSuchLease => "no_such_lease",
            Self::NotFound => "not_found",
            Self::PoolExhausted => "pool_exhausted",
            Self::BrokerUnreachable => "broker_unreachable",
            Self::RuntimeUnreachable => "runtime_unreachable",
            Self::RuntimeFailed => "runtime_failed",
            Self::Unsupported => "unsupported",
            Self::StartFailed => "start_failed",
            Self::Conflict => "conflict",
            Self::NotRunning => "not_running",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::LedgerFailed => "ledger_failed",
            Self::ShuttingDown => "shutting_down",
            Self::Failed => "failed",
        }
    }

    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::InvalidSettings | Self::Unsupported => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NoSuchAgent | Self::NoSuchLease | Self::NotFound => 404,
            Self::PoolExhausted | Self::Conflict | Self::NotRunning => 409,
            Self::StartFailed => 422,
            Self::LedgerFailed | Self::Failed => 500,
            Self::RuntimeFailed => 502,
            Self::BrokerUnreachable | Self::RuntimeUnreachable | Self::ShuttingDown => 503,
        }
    }
}

/// A problem document, `application/problem+json` (RFC 9457), with the members that every error has.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the code tells the kinds apart.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened, to which agent or port.
    pub detail: String,
    /// The stable code.
    pub code: Code,
    /// What to do next.
    #[serde(default)]
    pub hint: Option<String>,
    /// What a program may want to know.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub details: serde_json::Map<String, serde_json::Value>,
}

/// The `error` object of `--json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The stable code.
    pub code: Code,
    /// What happened, to which agent or port.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// What a program may want to know.
    #[schema(value_type = Object)]
    pub details: serde_json::Map<String, serde_json::Value>,
}

/// `{"error": …}`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorDocument {
    /// The error.
    pub error: ErrorBody,
}

impl From<Problem> for ErrorBody {
    fn from(problem: Problem) -> Self {
        Self { code: problem.code, message: problem.detail, hint: problem.hint, details: problem.details }
    }
}
