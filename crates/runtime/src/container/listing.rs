//! What `container list --all --format json` prints, as of 0.6 to 1.2.
//!
//! Up to 0.x `status` is a word, and what is known of the run stands beside it; since 1.0 `status` is an object. Both forms
//! are read. A date is a text by now, and was once the number of seconds since the beginning of 2001.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Deserialize;

use crate::{Observed, ObservedState, Publish};

/// The beginning of 2001 in Unix time, from which Swift's dates are counted.
const SWIFT_EPOCH: i64 = 978_307_200;

#[derive(Deserialize)]
struct Container {
    configuration: Configuration,
    status: Status,
    #[serde(rename = "startedDate")]
    started: Option<Date>,
}

#[derive(Deserialize)]
struct Configuration {
    id: String,
    image: Option<Image>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default, rename = "publishedPorts")]
    published: Vec<Published>,
}

#[derive(Deserialize)]
struct Image {
    reference: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Published {
    host_address: IpAddr,
    host_port: u16,
    container_port: u16,
    #[serde(default)]
    proto: Option<String>,
    #[serde(default)]
    count: Option<u16>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Status {
    Word(String),
    Whole {
        state: String,
        #[serde(rename = "startedDate")]
        started: Option<Date>,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Date {
    Text(String),
    SinceTheEpoch(f64),
}

impl Date {
    fn moment(&self) -> Option<Timestamp> {
        match self {
            Self::Text(text) => text.parse().ok(),
            #[expect(clippy::cast_possible_truncation, reason = "the cast keeps to the bounds of its type")]
            Self::SinceTheEpoch(seconds) => {
                Timestamp::from_second((*seconds as i64).saturating_add(SWIFT_EPOCH)).ok()
            }
        }
    }
}

/// Everything in the listing.
///
/// # Errors
/// If any of it is not understood: a listing with gaps would end leases that are alive.
pub(crate) fn read(json: &str) -> Result<Vec<Observed>, serde_json::Error> {
    let containers: Vec<Container> = serde_json::from_str(json)?;
    Ok(containers.into_iter().map(observed).collect())
}

fn observed(container: Container) -> Observed {
    let (word, started) = match container.status {
        Status::Word(word) => (word, container.started),
        Status::Whole { state, started } => (state, started),
    };
    let configuration = container.configuration;
    // What is stopping still holds its ports, and of what is unknown nothing else may be assumed.
    let state = match word.as_str() {
        "stopped" => ObservedState::Exited { code: None, at: None, detail: None },
        _ => ObservedState::Running { since: started.as_ref().and_then(Date::moment) },
    };
    let is_running = matches!(state, ObservedState::Running { .. });
    let published = configuration.published.iter().flat_map(Published::each);
    Observed {
        id: configuration.id.clone(),
        name: configuration.id,
        labels: configuration.labels,
        image: configuration.image.map(|image| image.reference),
        published: if is_running { published.collect() } else { Vec::new() },
        state,
    }
}

impl Published {
    /// One for each number of the block.
    fn each(&self) -> impl Iterator<Item = Publish> {
        let is_tcp = self.proto.as_deref().is_none_or(|proto| proto == "tcp");
        let count = if is_tcp { self.count.unwrap_or(1) } else { 0 };
        (0..count).filter_map(|n| {
            let (host, container) = (self.host_port.checked_add(n)?, self.container_port.checked_add(n)?);
            Some(Publish { address: self.host_address, host, container })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINCE_1_0: &str = r#"[{"id":"web","configuration":{"id":"web","image":{"reference":"docker.io/library/node:22"},
        "labels":{"berthold.broker":"b"},"publishedPorts":[
            {"hostAddress":"127.0.0.1","hostPort":8000,"containerPort":8000,"proto":"tcp","count":1},
            {"hostAddress":"::1","hostPort":9000,"containerPort":9100,"proto":"tcp","count":2},
            {"hostAddress":"0.0.0.0","hostPort":53,"containerPort":53,"proto":"udp","count":1}],
        "initProcess":{"environment":["K=V"]},"creationDate":"2026-11-23T08:59:59Z"},
        "status":{"state":"STATE","startedDate":"2026-11-23T09:00:00Z","networks":[{"ipv4Address":"192.168.65.6/24"}]}}]"#;
    const BEFORE_1_0: &str = r#"[{"status":"STATE","networks":[{"address":"192.168.64.3/24"}],"startedDate":785581200.5,
        "configuration":{"id":"web","image":{"reference":"node:22","descriptor":{"size":1}},"labels":{},
        "publishedPorts":[{"hostAddress":"0.0.0.0","hostPort":8000,"containerPort":80,"proto":"tcp"}]}}]"#;

    fn one(json: &str, state: &str) -> Observed {
        let mut observed = read(&json.replace("STATE", state)).unwrap();
        assert_eq!(observed.len(), 1);
        observed.remove(0)
    }

    fn port(address: &str, host: u16, container: u16) -> Publish {
        Publish { address: address.parse().unwrap(), host, container }
    }

    #[test]
    fn the_form_since_1_0() {
        let web = one(SINCE_1_0, "running");
        assert_eq!((web.id.as_str(), web.name.as_str()), ("web", "web"));
        assert_eq!(web.image.as_deref(), Some("docker.io/library/node:22"));
        assert_eq!(web.labels["berthold.broker"], "b");
        let since = "2026-11-23T09:00:00Z".parse().ok();
        assert_eq!(web.state, ObservedState::Running { since });
        let expected = [port("127.0.0.1", 8000, 8000), port("::1", 9000, 9100), port("::1", 9001, 9101)];
        assert_eq!(web.published, expected);
    }

    #[test]
    fn the_form_before_1_0() {
        let web = one(BEFORE_1_0, "running");
        assert_eq!(web.state, ObservedState::Running { since: "2025-11-23T09:00:00Z".parse().ok() });
        assert_eq!(web.published, [port("0.0.0.0", 8000, 80)]);
    }

    #[test]
    fn only_what_has_stopped_holds_no_port() {
        for form in [SINCE_1_0, BEFORE_1_0] {
            for held in ["running", "stopping", "unknown", "of a later version"] {
                assert!(matches!(one(form, held).state, ObservedState::Running { .. }), "{held}");
            }
            let ended = one(form, "stopped");
            assert!(matches!(ended.state, ObservedState::Exited { code: None, .. }));
            assert_eq!(ended.published, []);
        }
    }

    #[test]
    fn a_listing_that_is_not_understood_is_no_listing() {
        assert_eq!(read("[]").unwrap(), []);
        for broken in
            ["", "{}", "null", r#"[{"id":"web"}]"#, r#"[{"configuration":{"id":1},"status":"running"}]"#]
        {
            assert!(read(broken).is_err(), "{broken}");
        }
    }
}
