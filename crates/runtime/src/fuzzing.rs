//! What the fuzz targets reach of this crate's insides.

use crate::container::listing;
use crate::docker::{observe, refusal};
use crate::{ErrorKind, Observed};

/// What Docker's refusal means, and its sentence as a person is told it.
pub fn refusal(status: Option<u16>, message: &str) -> (ErrorKind, String) {
    let refusal = refusal::classify(status, message);
    (refusal.kind, refusal.sentence)
}

/// What the listing of Apple's `container` says; none if any of it is not understood.
pub fn listing(json: &str) -> Option<Vec<Observed>> {
    listing::read(json).ok()
}

/// What the listing of Docker or Podman says of each container, which is none of those that are to be inspected; none if it is not understood.
pub fn containers(answer: serde_json::Value) -> Option<Vec<Option<Observed>>> {
    Some(observe::listing(answer).ok()?.iter().map(observe::from_listing).collect())
}

/// What an inspection says of a container; none if it is not understood.
pub fn inspection(answer: serde_json::Value) -> Option<Observed> {
    Some(observe::from_inspection("0a1b".to_owned(), observe::inspection(answer).ok()?))
}
