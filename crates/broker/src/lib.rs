//! The broker: the daemon of one host that owns the pool of its ports and the agents that have them.
//!
//! | module | what it does |
//! |---|---|
//! | `serve` | puts a broker together, runs it, and ends it |
//! | `core` | what every part shares: the state behind its lock, the agents' locks, the events |
//! | `lifecycle` | start, stop, restart, delete |
//! | `spec`, `plan` | what a request means |
//! | `launch`, `outcome` | one attempt to bring an agent up, and what came of it |
//! | `leases` | takes and ends leases: pool, ledger, then the rest |
//! | `bare`, `holding` | leases of what the broker does not start itself, also such as end with a process |
//! | `engines` | which engine it is that answers |
//! | `blocked`, `holder`, `probe` | which ports others hold, and who they are |
//! | `guards` | keeps idle ports from being taken by accident |
//! | `reconcile`, `verdict` | makes ledger and runtime agree again; what is to be done for that |
//! | `survey` | the same without doing it |
//! | `watch` | knows at once when an agent ends |
//! | `ledger`, `reason` | the durable record, and why leases ended |
//! | `listen`, `tls` | connections on `listen` |
//! | `preview` | leads to agents' servers by name |
//! | `http` | the API on the Unix socket and on `listen` |
//! | `host` | under which name a request was sent |
//! | `home`, `lock` | where things are kept, and that only one broker keeps them |

mod answer;
mod bare;
mod blocked;
mod clock;
mod core;
mod descriptors;
mod engines;
mod error;
#[cfg(feature = "faults")]
mod faults;
#[cfg(fuzzing)]
pub mod fuzzing;
mod guards;
mod holder;
mod holding;
mod home;
mod host;
mod http;
mod labels;
mod launch;
mod leases;
mod ledger;
mod lifecycle;
mod listen;
mod listing;
mod lock;
mod meet;
mod model;
mod outcome;
mod places;
mod plan;
mod preview;
mod probe;
mod reach;
mod reason;
mod reconcile;
mod runtimes;
mod serve;
#[cfg(test)]
mod simulation;
mod spec;
mod survey;
mod tls;
mod told;
mod verdict;
mod view;
mod warnings;
mod watch;

pub use home::{Home, NoHome};
pub use http::openapi;
pub use serve::{ServeError, ServeOptions, serve};
