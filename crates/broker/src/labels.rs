//! The labels by which the broker knows its agents again on a runtime.

use std::collections::{BTreeMap, BTreeSet};

use pool::{AgentKey, LeaseId, Name, Port, label};
use runtime::Observed;

use crate::model::{AgentRecord, Lease, join_ports, split_ports};

/// The agent, as `project/name`.
pub(crate) const AGENT: &str = "berthold.agent";
const PROJECT: &str = "berthold.project";
const NAME: &str = "berthold.name";
/// The stable id of the broker whose agent it is.
pub(crate) const BROKER: &str = "berthold.broker";
/// The id of the lease under which it was started.
pub(crate) const LEASE: &str = "berthold.lease";
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
///
/// Labels alone do not make it an agent: `docker commit` copies them into an image, and whatever is run from that has them too. It
/// must also have the agent's name on the runtime, or be what is known to be the agent: see [`read_known`].
pub(crate) fn read(broker: &str, observed: &Observed) -> Option<Tag> {
    claimed(broker, observed).filter(|tag| observed.name == tag.key.runtime_name())
}

/// The same where this is `known` of the agent that the labels may name: someone may have given its container another name.
pub(crate) fn read_known(broker: &str, observed: &Observed, known: &AgentRecord) -> Option<Tag> {
    let is_it = |tag: &Tag| {
        tag.key == known.key
            && (observed.name == tag.key.runtime_name()
                || known.container.as_deref() == Some(observed.id.as_str()))
    };
    claimed(broker, observed).filter(is_it)
}

/// Whether this is the agent under the lease that it has now.
pub(crate) fn is_of_lease(broker: &str, observed: &Observed, known: &AgentRecord) -> bool {
    let tag = read_known(broker, observed, known);
    matches!((tag, &known.lease), (Some(tag), Some(lease)) if tag.lease == lease.id)
}

/// What the labels say, whoever bears them.
fn claimed(broker: &str, observed: &Observed) -> Option<Tag> {
    let label = |name: &str| observed.labels.get(name).map(String::as_str);
    if label(BROKER)? != broker {
        return None;
    }
    let key = match (label(PROJECT), label(NAME)) {
        (Some(project), Some(name)) => AgentKey::new(Name::new(project).ok()?, Name::new(name).ok()?),
        _ => label(AGENT)?.parse().ok()?,
    };
    let ports = split_ports(label(PORTS)?).filter(|ports| are_of_one_lease(ports))?;
    Some(Tag { key, lease: LeaseId::new(label(LEASE)?), ports })
}

fn are_of_one_lease(ports: &[Port]) -> bool {
    let distinct: BTreeSet<&Port> = ports.iter().collect();
    distinct.len() == ports.len() && ports.len() <= usize::from(label::LABEL_COUNT)
}

#[cfg(test)]
mod tests {
    use runtime::ObservedState;

    use super::*;

    fn observed(labels: BTreeMap<String, String>) -> Observed {
        Observed {
            id: "1".into(),
            name: "shop--dev".into(),
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
    fn copied_labels_make_nothing_an_agent() {
        let (tag, labels) = tag();
        let mut copy = observed(labels);
        copy.name = "debugging".to_owned();
        assert_eq!(read("b1", &copy), None);
        let mut known = AgentRecord::new(tag.key.clone(), "docker".to_owned());
        assert_eq!(read_known("b1", &copy, &known), None);
        known.container = Some("2".to_owned());
        assert_eq!(read_known("b1", &copy, &known), None);
        known.container = Some("1".to_owned());
        assert_eq!(read_known("b1", &copy, &known), Some(tag), "the agent itself, under another name");
        known.key = "shop/other".parse().unwrap();
        assert_eq!(read_known("b1", &copy, &known), None);
    }

    #[test]
    fn what_is_not_ours_or_makes_no_sense_is_passed_over() {
        let (_, labels) = tag();
        assert_eq!(read("b2", &observed(labels.clone())), None);
        let too_many: Vec<String> = (8000..8703).map(|port| port.to_string()).collect();
        for (name, value) in [
            ("berthold.ports", "8000,x"),
            ("berthold.name", "No Name"),
            ("berthold.ports", "0"),
            ("berthold.ports", "8000-8001-8000"),
            ("berthold.ports", &too_many.join("-")),
        ] {
            let mut labels = labels.clone();
            labels.insert(name.to_owned(), value.to_owned());
            assert_eq!(read("b1", &observed(labels)), None, "{name}={value}");
        }
        let mut labels = labels;
        labels.remove("berthold.lease");
        assert_eq!(read("b1", &observed(labels)), None);
    }
}
