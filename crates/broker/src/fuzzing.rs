//! What the fuzz targets reach of this crate's insides.

use std::collections::BTreeMap;

use pool::{AgentKey, LeaseId, Moment, Port};
use runtime::Observed;

use crate::labels;
use crate::model::Lease;

/// Whose agent `observed` is by its labels and its name, with its lease and its ports; none if it is none of `broker`.
pub fn read_labels(broker: &str, observed: &Observed) -> Option<(AgentKey, LeaseId, Vec<Port>)> {
    labels::read(broker, observed).map(|tag| (tag.key, tag.lease, tag.ports))
}

/// The labels that the broker would give an agent.
pub fn write_labels(broker: &str, key: &AgentKey, id: &LeaseId, ports: &[Port]) -> BTreeMap<String, String> {
    labels::write(broker, key, &Lease { id: id.clone(), ports: ports.to_vec(), since: Moment(0) })
}
