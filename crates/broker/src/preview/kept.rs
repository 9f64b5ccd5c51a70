//! Connections to agents' servers that nobody uses.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use super::IDLE;
use crate::reach::Reach;

/// How many connections to one port are kept.
const KEPT: usize = 64;

/// Connections by where they lead. The one that was used last is the last.
pub(super) struct Kept<L>(HashMap<Reach, VecDeque<(L, Instant)>>);

impl<L> Default for Kept<L> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<L> Kept<L> {
    pub(super) fn keep(&mut self, to: Reach, link: L) {
        let links = self.0.entry(to).or_default();
        if links.len() >= KEPT {
            links.pop_front();
        }
        links.push_back((link, Instant::now()));
    }

    /// The one that was used last, if that was not long ago: servers end what is not used.
    pub(super) fn take(&mut self, to: Reach) -> Option<L> {
        let (link, used) = self.0.get_mut(&to)?.pop_back()?;
        (used.elapsed() < IDLE).then_some(link)
    }

    /// Ends those that nobody has used for long.
    pub(super) fn sweep(&mut self) {
        for links in self.0.values_mut() {
            links.retain(|(_, used)| used.elapsed() < IDLE);
        }
        self.0.retain(|_, links| !links.is_empty());
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
