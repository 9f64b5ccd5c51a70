//! What the fuzz targets reach of this crate's insides.

use crate::container::listing;
use crate::docker::refusal;
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
