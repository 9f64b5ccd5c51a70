//! What a person should know of that the broker says of itself: each once, until it is over.

use pool::AgentKey;
use runtime::Observed;

use crate::core::Core;

/// What a warning is about. There is one at most about each; they are shown in this order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum About {
    /// The ledger was damaged or is gone.
    Ledger,
    /// The runtime of this name does not answer while agents run there.
    Unreachable(String),
    /// Another engine answers under the name of this runtime.
    OtherEngine(String),
    /// What has this id on this runtime runs without a lease, or with other labels than those of its lease.
    Conflict { runtime: String, id: String },
    /// The ports of this agent cannot be reached.
    Unreached(AgentKey),
    /// This agent runs without its ports published.
    Unpublished(AgentKey),
    /// This runtime does not say which ports it holds.
    Silent(String),
    /// Not all idle ports can be guarded.
    Guards,
    /// The pool covers the broker's own port.
    OwnPort,
    /// The pool meets the kernel's ephemeral range.
    EphemeralRange,
}

impl About {
    /// A conflict about what a runtime shows.
    pub(crate) fn conflict(runtime: &str, observed: &Observed) -> Self {
        Self::Conflict { runtime: runtime.to_owned(), id: observed.id.clone() }
    }
}

impl Core {
    /// Tells a person of something, once for each change.
    pub(crate) fn warn(&self, about: About, text: &str) {
        let before = self.state().warnings.insert(about, text.to_owned());
        if before.as_deref() != Some(text) {
            tracing::error!("{text}");
            self.tell(api::Event::Broker);
        }
    }

    /// Tells no longer of what is over; whether there was any of that.
    pub(crate) fn take_back(&self, is_over: impl Fn(&About) -> bool) -> bool {
        let is_less = {
            let mut state = self.state();
            let before = state.warnings.len();
            state.warnings.retain(|about, _| !is_over(about));
            state.warnings.len() < before
        };
        if is_less {
            self.tell(api::Event::Broker);
        }
        is_less
    }
}
