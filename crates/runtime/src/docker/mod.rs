//! Docker, and whatever else speaks its API: Podman's service does.
//!
//! The engine remembers everything; nothing is kept here but where it listens. So there is nothing to recover after a
//! crash of the broker, and a broker that starts anew finds its containers by their labels.
//!
//! # Layout
//!
//! `endpoint` finds the engine and `wire` connects to it. `containers` is the runtime, `exec` and `image` are its longer
//! parts; they ask through `asking`, which sets the limit and has `refusal` say what a failure means. `create`, `observe`,
//! `output` and `pull` translate between our words and the engine's, and do no I/O. `engine` has what differs between
//! Docker and its likes.
//!
//! Requests and answers are bollard's. Logs and commands are read without it: it guesses from the first byte whether a
//! stream comes from a terminal, and one that shows a zero byte would stand still.
//!
//! # What is asked of the engine
//!
//! - Containers are addressed by their whole id. The engine would also take the beginning of an id, so that the name of
//!   an agent such as `cafe` might stop a stranger: a name is looked up first, and what is found has to bear it.
//! - "Nothing is there" is believed only if the engine says so in words, never for a status alone.
//! - Every question has a time limit, after which the engine counts as unreachable. Only streams have none.
//! - No API version is asked for, and fields of answers may be missing: Docker 20.10 to 29 and Podman share this code.
//!
//! # Limits
//!
//! - TLS and ssh endpoints are refused (module `endpoint`), and pulls carry no credentials.
//! - After a timeout while creating, the container may exist; its labels say whose it is.

mod asking;
mod containers;
mod create;
pub mod endpoint;
mod engine;
mod exec;
mod image;
mod limits;
pub(crate) mod observe;
mod output;
mod platform;
mod pull;
pub(crate) mod refusal;
mod wire;

pub use containers::Docker;
pub use endpoint::EngineEndpoint;
pub use platform::Platform;
