//! What a person should know of that the broker says of itself: each once, until it is over.

use pool::AgentKey;
use runtime::Observed;

use crate::core::Core;
use crate::model::AgentRecord;

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
        let told = about.clone();
        let before = self.state().warnings.insert(about, text.to_owned());
        if before.as_deref() != Some(text) {
            tracing::error!("{text}");
            self.tell(api::Event::Broker);
            self.tell_doubts(&[told]);
        }
    }

    /// Tells no longer of what is over; whether there was any of that.
    pub(crate) fn take_back(&self, is_over: impl Fn(&About) -> bool) -> bool {
        let over: Vec<About> = {
            let mut state = self.state();
            state.warnings.extract_if(.., |about, _| is_over(about)).map(|(about, _)| about).collect()
        };
        if over.is_empty() {
            return false;
        }
        self.tell(api::Event::Broker);
        self.tell_doubts(&over);
        true
    }

    /// Tells of the agents of which it is not, or is again, known for sure how they are.
    fn tell_doubts(&self, changed: &[About]) {
        let is_of = |record: &AgentRecord| {
            changed.iter().any(|about| match about {
                About::Unreachable(runtime) | About::OtherEngine(runtime) => *runtime == record.runtime,
                _ => false,
            })
        };
        let doubted = |record: &&AgentRecord| record.is_live() && is_of(record);
        let keys: Vec<AgentKey> =
            self.state().agents.values().filter(doubted).map(|record| record.key.clone()).collect();
        for key in keys {
            // What is told last is what is known.
            while let Some(record) = self.agent(&key) {
                self.tell(api::Event::Agent { agent: Box::new(self.shown(&record)) });
                if self.agent(&key).as_ref() == Some(&record) {
                    break;
                }
            }
        }
    }
}
