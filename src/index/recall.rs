//! How much of the truth an index finds: the last probes of it.

use std::collections::VecDeque;

/// Probes that the figure is of.
pub const WINDOW: usize = 256;

/// One query answered as it is served and exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// True neighbours that were found.
    pub found: usize,
    /// True neighbours that there are: k, or all of a small collection.
    pub wanted: usize,
}

/// How much of the truth an index finds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recall {
    /// Whether searches are answered by the scan, which leaves nothing out.
    pub exact: bool,
    /// Share of the true ten that the last probes found; 1 where the scan answers, `None` where a graph
    /// does and none was probed.
    pub at_10: Option<f64>,
    /// Probes that the share is of, at most [`WINDOW`].
    pub probes: usize,
}

/// The last probes.
#[derive(Debug, Default)]
pub(super) struct Window(VecDeque<Probed>);

impl Window {
    pub fn push(&mut self, probed: Probed) {
        if self.0.len() >= WINDOW {
            self.0.pop_front();
        }
        self.0.push_back(probed);
    }

    /// The scan is exact, regardless of earlier probes.
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
