//! How a browser is let in.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What lets one browser in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// The page, with a ticket that can be used once.
    pub url: String,
    /// How long the ticket can be used, in seconds.
    pub valid_s: u64,
}

/// `{"session": …}`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SessionDocument {
    /// What lets a browser in.
    pub session: Session,
}

/// What the page hands in: `POST /signin`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SignIn {
    /// The ticket of the URL.
    pub ticket: String,
}

/// What the page gets for it, beside the cookie, and sends along as `berthold-page`: a browser sends the cookies of one port of a host
/// to all others, but this only its own page knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SignedIn {
    /// The value of the header.
    pub page: String,
}

/// What is behind a port of an agent.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Behind {
    /// Its label.
    pub label: String,
    /// Its number.
    pub port: u16,
    /// Whether something listens.
    pub listens: bool,
    /// The status with which it answers `GET /`, if it speaks HTTP.
    pub status: Option<u16>,
    /// The title of the page that it answers with, if it has one.
    pub title: Option<String>,
}

/// `{"behind": […]}`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct BehindDocument {
    /// The agent's ports, in the order of their labels.
    pub behind: Vec<Behind>,
}
