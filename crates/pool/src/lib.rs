//! The rules by which ports are handed out, as plain functions of state and arguments.
//!
//! This crate does no I/O, keeps no clock, draws no random numbers and knows no async: what it must know about
//! the world (which ports are blocked, what time it is, a fresh lease id) comes in as arguments. So every rule
//! can be tested as a function, and checked against a naive model.
//!
//! | module | what it holds |
//! |---|---|
//! | [`port`] | [`Port`] and the inclusive [`PortRange`] |
//! | [`name`] | [`Name`] and the identity of an agent, [`AgentKey`] |
//! | [`label`] | [`Label`]: `A` … `Z`, `AA` … `ZZ` |
//! | [`lease`] | [`LeaseId`], [`Owner`], [`Moment`] |
//! | [`host_url`] | [`HostUrl`]: where a person finds the host |
//! | [`environment`] | the variables that tell an agent its ports |
//! | [`port_pool`] | [`PortPool`]: who holds which port, and which one is next |

mod bitmap;
pub mod environment;
pub mod host_url;
pub mod label;
pub mod lease;
pub mod name;
pub mod port;
pub mod port_pool;
pub mod preview_url;

pub use host_url::{HostUrl, HostUrlError};
pub use label::{Label, LabelError};
pub use lease::{LeaseId, Moment, Owner};
pub use name::{AgentKey, AgentKeyError, DEFAULT_PROJECT, Name, NameError};
pub use port::{Port, PortRange, PortRangeError};
pub use port_pool::{Clash, Counts, Exhausted, Holder, PoolSpec, PortPool, PortState};
pub use preview_url::{PreviewUrl, PreviewUrlError};
