//! Recall of an index over its last probes.

use std::collections::VecDeque;

/// Number of probes over which recall is computed.
pub const WINDOW: usize = 256;

/// Result of one query answered both normally and exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// Number of true neighbours found.
    pub found: usize,
    /// Number of true neighbours: k, or the size of a smaller collection.
    pub wanted: usize,
}

/// Recall of an index.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recall {
    /// Whether the scan answers searches, which misses nothing.
    pub exact: bool,
    /// Share of the ten true neighbours that the last probes found. 1 if the scan answers; `None` if a graph
    /// answers and has not been probed.
    pub at_10: Option<f64>,
    /// Number of probes behind the share, at most [`WINDOW`].
    pub probes: usize,
}

/// The last probes, oldest first.
#[derive(Debug, Default)]
pub(super) struct Window(VecDeque<Probed>);

impl Window {
    pub fn push(&mut self, probed: Probed) {
        if self.0.len() >= WINDOW {
            self.0.pop_front();
        }
        self.0.push_back(probed);
    }

    /// Recall over these probes; `exact` overrides it, since the scan misses nothing.
    pub fn recall(&self, exact: bool) -> Recall {
        let (mut found, mut wanted) = (0, 0);
        for probed in &self.0 {
            found += probed.found;
            wanted += probed.wanted;
        }
        let share = (wanted > 0).then(|| found as f64 / wanted as f64);
        Recall { exact, at_10: if exact { Some(1.0) } else { share }, probes: self.0.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_the_last_probes() {
        let mut window = Window::default();
        assert_eq!(window.recall(false), Recall { exact: false, at_10: None, probes: 0 });
        assert_eq!(window.recall(true), Recall { exact: true, at_10: Some(1.0), probes: 0 });
        for _ in 0..WINDOW {
            window.push(Probed { found: 0, wanted: 10 });
        }
        for _ in 0..WINDOW / 2 {
            window.push(Probed { found: 9, wanted: 10 });
        }
        let recall = window.recall(false);
        assert_eq!((recall.at_10, recall.probes), (Some(0.45), WINDOW));
    }
}
