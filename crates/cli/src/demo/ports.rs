//! Where the demo's pool lies on this host: at the first round number behind which nobody listens.
//!
//! The broker looks at each port once more, and the engine has the last word. This is only for numbers that are easily
//! kept in mind, and for not meeting other brokers, whose agents may have ports on which they do not listen yet.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

use pool::{Port, PortRange};

/// How many ports the demo's pool has.
pub(super) const SIZE: u16 = 20;
/// Where it is looked for: above what services use, and below what Linux gives to outgoing connections.
const FIRST: u16 = 8000;
const LAST: u16 = 30_000;
const STEP: u16 = 100;

/// A range for the demo, which no other demo takes while this value is there.
pub(super) struct Claim {
    range: PortRange,
    /// A port of UDP, for which neither agents nor engines care, held on the last number of the range. The kernel gives it
    /// up with the process, and nothing of it stays behind.
    _held: UdpSocket,
}

impl Claim {
    /// Finds a range that has no port of `other`.
    pub(super) fn find(other: Option<PortRange>) -> Option<Self> {
        candidates(other).find_map(|range| {
            let held = UdpSocket::bind((Ipv4Addr::LOCALHOST, range.high().get())).ok()?;
            range.ports().all(|port| is_free(port.get())).then_some(Self { range, _held: held })
        })
    }

    /// The range.
    pub(super) fn range(&self) -> PortRange {
        self.range
    }
}

fn candidates(other: Option<PortRange>) -> impl Iterator<Item = PortRange> {
    let ranges = (FIRST..LAST).step_by(STEP.into()).filter_map(|first| {
        let (low, high) = (Port::new(first)?, Port::new(first + SIZE - 1)?);
        PortRange::new(low, high).ok()
    });
    ranges.filter(move |range| other.is_none_or(|other| !range.overlaps(other)))
}

/// Whether nobody listens there, on whatever address. What cannot be told counts as free.
fn is_free(port: u16) -> bool {
    let is_taken =
        |result: io::Result<TcpListener>| result.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    let taken = is_taken(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        || is_taken(TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)));
    !taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_numbers_come_first_and_the_range_of_another_broker_is_left_out() {
        let first = |other: Option<&str>| {
            let other = other.map(|text| text.parse().unwrap());
            candidates(other).take(2).map(|range| range.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(first(None), ["8000-8019", "8100-8119"]);
        assert_eq!(first(Some("8000-9000")), ["9100-9119", "9200-9219"]);
        assert_eq!(first(Some("8019")), ["8100-8119", "8200-8219"]);
        assert_eq!(first(Some("8020-8120")), ["8000-8019", "8200-8219"]);
        assert!(first(Some("1-65535")).is_empty());
    }

    #[test]
    fn two_demos_do_not_take_the_same_range() {
        let one = Claim::find(None).expect("some range is free");
        let other = Claim::find(None).expect("another is free");
        assert_ne!(one.range(), other.range());
    }

    #[test]
    fn a_range_in_which_someone_listens_is_passed_over() {
        let claim = Claim::find(None).expect("some range is free");
        let range = claim.range();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, range.low().get() + 7)).unwrap();
        drop(claim);
        assert_ne!(Claim::find(None).expect("another is free").range(), range);
        drop(listener);
    }
}
