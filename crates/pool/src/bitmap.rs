//! A set of ports whose lowest member is found in three steps, however full or empty it is.
//!
//! Three levels of 64-bit words over the 65,536 numbers: a bit of a level is set while the word that it stands
//! for, one level down, is not zero. Finding the lowest member reads one word of each level.

use crate::Port;

const WORDS: usize = 1024;
const GROUPS: usize = 16;

#[derive(Clone)]
pub(crate) struct PortSet {
    words: Box<[u64; WORDS]>,
    groups: [u64; GROUPS],
    top: u64,
    len: usize,
}

impl PortSet {
    pub(crate) fn new() -> Self {
        Self { words: Box::new([0; WORDS]), groups: [0; GROUPS], top: 0, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds `port`; false if it was there.
    pub(crate) fn insert(&mut self, port: Port) -> bool {
        let (word, bit) = place(port);
        if self.words[word] & bit != 0 {
            return false;
        }
        self.words[word] |= bit;
        self.groups[word / 64] |= 1 << (word % 64);
        self.top |= 1 << (word / 64);
        self.len += 1;
        true
    }

    /// Takes `port` out; false if it was not there.
    pub(crate) fn remove(&mut self, port: Port) -> bool {
        let (word, bit) = place(port);
        if self.words[word] & bit == 0 {
            return false;
        }
        self.words[word] &= !bit;
        if self.words[word] == 0 {
            self.groups[word / 64] &= !(1 << (word % 64));
            if self.groups[word / 64] == 0 {
                self.top &= !(1 << (word / 64));
            }
        }
        self.len -= 1;
        true
    }

    /// The lowest member.
    pub(crate) fn lowest(&self) -> Option<Port> {
        if self.top == 0 {
            return None;
        }
        let group = self.top.trailing_zeros() as usize;
        let word = group * 64 + self.groups[group].trailing_zeros() as usize;
        let number = word * 64 + self.words[word].trailing_zeros() as usize;
        u16::try_from(number).ok().and_then(Port::new)
    }
}

fn place(port: Port) -> (usize, u64) {
    let number = usize::from(port.get());
    (number / 64, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_sorted_set(steps in prop::collection::vec((any::<bool>(), 1u16..=u16::MAX), 0..400)) {
            let (mut set, mut model) = (PortSet::new(), BTreeSet::new());
            for (insert, number) in steps {
                let port = Port::new(number).expect("the strategy starts at 1");
                if insert {
                    prop_assert_eq!(set.insert(port), model.insert(port));
                } else {
                    // Removing what was drawn rarely hits: take the member nearest to it instead.
                    let target = model.range(port..).next().copied().unwrap_or(port);
                    prop_assert_eq!(set.remove(target), model.remove(&target));
                }
                prop_assert_eq!(set.lowest(), model.first().copied());
                prop_assert_eq!(set.len(), model.len());
            }
        }
    }
}
