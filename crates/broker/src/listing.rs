//! What a runtime said that is there, to be looked up by lease: there may be hundreds of agents, and the state is locked meanwhile.

use std::collections::HashMap;

use runtime::Observed;

use crate::labels;
use crate::model::AgentRecord;

/// All that is on a runtime.
pub(crate) struct Listing {
    observed: Vec<Observed>,
    /// What bears the label of each lease, by its places in `observed`. Copies of an agent have its labels too.
    of_lease: HashMap<String, Vec<usize>>,
}

impl Listing {
    pub(crate) fn new(observed: Vec<Observed>) -> Self {
        let mut of_lease: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, observed) in observed.iter().enumerate() {
            if let Some(lease) = observed.labels.get(labels::LEASE) {
                of_lease.entry(lease.clone()).or_default().push(place);
            }
        }
        Self { observed, of_lease }
    }

    /// The agent under the lease that it has now, if it is there; `broker` is the id of ours.
    pub(crate) fn agent(&self, broker: &str, record: &AgentRecord) -> Option<&Observed> {
        let places = self.of_lease.get(record.lease.as_ref()?.id.as_str())?;
        let mut candidates = places.iter().filter_map(|place| self.observed.get(*place));
        candidates.find(|observed| labels::is_of_lease(broker, observed, record))
    }

    /// Everything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Observed> {
        self.observed.iter()
    }
}
