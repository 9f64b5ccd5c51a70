//! What a broker and its clients say to one another: the wire types, and the client. No domain logic.
//!
//! The same objects are printed by `--json` and sent by the HTTP API. Fields are only ever added, so a reader passes
//! over what it does not know.

mod agent;
mod broker;
mod client;
mod error;
mod event;
pub mod exec;
mod history;
mod lease;
mod pool;
mod reconcile;
mod session;

pub use agent::{
    Agent, AgentDocument, AgentState, AgentsDocument, Label, RestartRequest, StartRequest, StopRequest,
};
pub use broker::{Broker, BrokerDocument, RuntimeStatus};
pub use client::{Attachment, Client, ClientError, Endpoint, EndpointError, ExecConnection};
pub use error::{Code, ErrorBody, ErrorDocument, Problem};
pub use event::{Event, Events};
pub use exec::{AttachRequest, ExecRequest};
pub use history::{HistoryDocument, HistoryEntry, HistoryQuery};
pub use lease::{Holder, Lease, LeaseDocument, LeaseRequest, LeasesDocument};
pub use pool::{Counts, Pool, PoolDocument, PoolPort, PoolPortState};
pub use reconcile::{Finding, ReconcileAction, Reconciliation, ReconciliationDocument, UnreachableRuntime};
pub use session::{Behind, BehindDocument, Session, SessionDocument, SignIn, SignedIn};

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}
