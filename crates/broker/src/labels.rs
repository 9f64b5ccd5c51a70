//! The labels by which the broker knows its agents again on a runtime.

use std::collections::BTreeMap;

use pool::{AgentKey, LeaseId, Name, Port};
use runtime::Observed;

use crate::model::{Lease, join_ports, split_ports};

const AGENT: &str = "berthold.agent";
const PROJECT: &str = "berthold.project";
const NAME: &str = "berthold.name";
/// The stable id of the broker whose agent it is.
pub(crate) const BROKER: &str = "berthold.broker";
const LEASE: &str = "berthold.lease";
const PORTS: &str = "berthold.ports";

/// What the labels of something on a runtime say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Tag {
    pub(crate) key: AgentKey,
    pub(crate) lease: LeaseId,
    pub(crate) ports: Vec<Port>,
}

/// The labels of an agent.
pub(crate) fn write(broker: &str, key: &AgentKey, lease: &Lease) -> BTreeMap<String, String> {
    let label = |name: &str, value: String| (name.to_owned(), value);
    BTreeMap::from([
        label(AGENT, key.to_string()),
        label(PROJECT, key.project.to_string()),
        label(NAME, key.name.to_string()),
        label(BROKER, broker.to_owned()),
        label(LEASE, lease.id.to_string()),
        label(PORTS, join_ports(&lease.ports)),
    ])
}

/// What the labels of `observed` say, if it is an agent of the broker of that id; none for anything else, also for
/// labels that make no sense.
pub(crate) fn read(broker: &str, observed: &Observed) -> Option<Tag> {
    let label = |name: &str| observed.labels.get(name).map(String::as_str);
    if label(BROKER)? != broker {
        return None;
    }
    let key = match (label(PROJECT), label(NAME)) {
        (Some(project), Some(name)) => AgentKey::new(Name::new(project).ok()?, Name::new(name).ok()?),
        _ => label(AGENT)?.parse().ok()?,
    };
    Some(Tag { key, lease: LeaseId::new(label(LEASE)?), ports: split_ports(label(PORTS)?)? })
}

#[cfg(test)]
mod tests {
    use runtime::ObservedState;

    use super::*;

    fn observed(labels: BTreeMap<String, String>) -> Observed {
        Observed {
            id: "1".into(),
            name: "dev".into(),
            labels,
            state: ObservedState::Created,
            image: None,
            published: Vec::new(),
        }
    }

    fn tag() -> (Tag, BTreeMap<String, String>) {
        let ports: Vec<Port> = [8000, 8001, 8010].into_iter().filter_map(Port::new).collect();
        let tag = Tag { key: "shop/dev".parse().unwrap(), lease: LeaseId::new("01J"), ports: ports.clone() };
        let lease = Lease { id: tag.lease.clone(), ports, since: pool::Moment(0) };
        let labels = write("b1", &tag.key, &lease);
        (tag, labels)
    }

    #[test]
    fn labels_round_trip() {
        let (tag, labels) = tag();
        assert_eq!(labels["berthold.agent"], "shop/dev");
        assert_eq!(labels["berthold.ports"], "8000-8001-8010");
        assert_eq!(read("b1", &observed(labels)), Some(tag));
    }

    #[test]
    fn what_is_not_ours_or_makes_no_sense_is_passed_over() {
        let (_, labels) = tag();
        assert_eq!(read("b2", &observed(labels.clone())), None);
        for (name, value) in
            [("berthold.ports", "8000,x"), ("berthold.name", "No Name"), ("berthold.ports", "0")]
        {
            let mut labels = labels.clone();
            labels.insert(name.to_owned(), value.to_owned());
            assert_eq!(read("b1", &observed(labels)), None, "{name}={value}");
        }
        let mut labels = labels;
        labels.remove("berthold.lease");
        assert_eq!(read("b1", &observed(labels)), None);
    }
}
