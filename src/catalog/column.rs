//! The numbers or dates of one key, stored contiguously in ascending order, so that a range is one sequential
//! read. In a tree, every few values are in another node, and reading a range of thousands waits for each.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::posting::{Bits, Ordinal};

/// Marks an entry whose value was removed. No set has room for an ordinal this high.
const GONE: Ordinal = 1 << 31;
/// Entries that may be unsorted or removed before the column is sorted again.
const LEAST_UNSORTED: usize = 256;
/// In larger columns, one entry in this many may be unsorted or removed.
const SHARE_UNSORTED: usize = 32;

/// Values with the assets that have them.
#[derive(Debug)]
pub(super) struct Column<V> {
    /// Ascending. Equal values are in ascending order of their assets.
    values: Vec<V>,
    /// Asset of each value, possibly marked [`GONE`]. A separate vector, since reading a range needs only the
    /// assets.
    assets: Vec<Ordinal>,
    gone: usize,
    /// Values added since the last sort that do not belong at the end.
    recent: BTreeSet<(V, Ordinal)>,
}

impl<V> Default for Column<V> {
    fn default() -> Self {
        Self { values: Vec::new(), assets: Vec::new(), gone: 0, recent: BTreeSet::new() }
    }
}

impl<V: Ord + Copy> Column<V> {
    /// Adds a value of an asset.
    pub fn insert(&mut self, value: V, asset: Ordinal) {
        match self.place(value, asset) {
            Ok(at) => {
                if let Some(asset) = self.assets.get_mut(at).filter(|asset| **asset & GONE != 0) {
                    *asset &= !GONE;
                    self.gone -= 1;
                }
            }
            Err(at) if at == self.values.len() => {
                self.values.push(value);
                self.assets.push(asset);
            }
            Err(_) => {
                self.recent.insert((value, asset));
                self.sort_if_due();
            }
        }
    }

    /// Drops a value of an asset.
    pub fn remove(&mut self, value: V, asset: Ordinal) {
        if self.recent.remove(&(value, asset)) {
            return;
        }
        let place = self.place(value, asset).ok();
        if let Some(asset) = place.and_then(|at| self.assets.get_mut(at)).filter(|asset| **asset & GONE == 0)
        {
            *asset |= GONE;
            self.gone += 1;
            self.sort_if_due();
        }
    }

    /// Adds the assets with a value between the lower and the upper bound to a set.
    pub fn add_range(&self, (low, high): (Bound<V>, Bound<V>), set: &mut Bits) {
        let from = match low {
            Bound::Included(low) => self.values.partition_point(|value| *value < low),
            Bound::Excluded(low) => self.values.partition_point(|value| *value <= low),
            Bound::Unbounded => 0,
        };
        let to = match high {
            Bound::Included(high) => self.values.partition_point(|value| *value <= high),
            Bound::Excluded(high) => self.values.partition_point(|value| *value < high),
            Bound::Unbounded => self.values.len(),
        };
        set.add(self.assets.get(from..to).unwrap_or_default());
        let low = match low {
            Bound::Included(low) => Bound::Included((low, 0)),
            Bound::Excluded(low) => Bound::Excluded((low, Ordinal::MAX)),
            Bound::Unbounded => Bound::Unbounded,
        };
        let high = match high {
            Bound::Included(high) => Bound::Included((high, Ordinal::MAX)),
            Bound::Excluded(high) => Bound::Excluded((high, 0)),
            Bound::Unbounded => Bound::Unbounded,
        };
        self.recent.range((low, high)).for_each(|(_, asset)| set.set(*asset));
    }

    fn place(&self, value: V, asset: Ordinal) -> Result<usize, usize> {
        let from = self.values.partition_point(|other| *other < value);
        let equal = self.values.get(from..).unwrap_or_default();
        let to = from + equal.partition_point(|other| *other == value);
        let among = self.assets.get(from..to).unwrap_or_default();
        let found = among.binary_search_by(|held| (held & !GONE).cmp(&asset));
        found.map(|at| from + at).map_err(|at| from + at)
    }

    fn sort_if_due(&mut self) {
        if self.recent.len() + self.gone <= LEAST_UNSORTED.max(self.values.len() / SHARE_UNSORTED) {
            return;
        }
        let held = std::mem::take(&mut self.values).into_iter().zip(std::mem::take(&mut self.assets));
        let mut all: Vec<(V, Ordinal)> = held.filter(|(_, asset)| asset & GONE == 0).collect();
        all.extend(std::mem::take(&mut self.recent));
        // These are two ascending runs, which the standard sort merges in one pass.
        all.sort();
        (self.values, self.assets) = all.into_iter().unzip();
        self.gone = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Bound::{Excluded, Included, Unbounded};

    use proptest::prelude::*;

    use super::*;

    fn bound() -> impl Strategy<Value = (u8, i64)> {
        (0_u8..3, -5_i64..45)
    }

    fn made((kind, value): (u8, i64)) -> Bound<i64> {
        [Included(value), Excluded(value), Unbounded][kind as usize]
    }

    proptest! {
        #[test]
        fn a_range_holds_what_lies_in_it(
            steps in prop::collection::vec((0_u8..4, 0_i64..40, 0_u32..50), 1..2500),
            ranges in prop::collection::vec((bound(), bound()), 1..12),
        ) {
            let (mut column, mut slow) = (Column::default(), BTreeSet::new());
            for (step, value, asset) in steps {
                if step == 0 {
                    column.remove(value, asset);
                    slow.remove(&(value, asset));
                } else {
                    column.insert(value, asset);
                    slow.insert((value, asset));
                }
            }
            for (low, high) in ranges {
                let (low, high) = (made(low), made(high));
                // Filters refuse an empty range, so skip it here as well.
                let none = match (low, high) {
                    (Included(a), Included(b)) => a > b,
                    (Included(a) | Excluded(a), Included(b) | Excluded(b)) => a >= b,
                    _ => false,
                };
                if none {
                    continue;
                }
                let mut found = Bits::none(50);
                column.add_range((low, high), &mut found);
                let within = |(value, _): &&(i64, Ordinal)| std::ops::RangeBounds::contains(&(low, high), value);
                let wanted: BTreeSet<Ordinal> = slow.iter().filter(within).map(|(_, asset)| *asset).collect();
                prop_assert_eq!(found.iter().collect::<Vec<_>>(), wanted.into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn what_comes_in_order_is_only_appended_and_the_rest_is_sorted_in_time() {
        let mut column = Column::default();
        (0..1000).for_each(|n| column.insert(n, n as Ordinal));
        assert!(column.recent.is_empty());
        (0..1000).for_each(|n| column.insert(n, 5000 + n as Ordinal));
        assert!(column.recent.len() <= LEAST_UNSORTED && column.values.len() > 1700);
        (0..1000).for_each(|n| column.remove(n, n as Ordinal));
        assert!(column.gone <= LEAST_UNSORTED && column.values.len() + column.recent.len() < 1300);
    }
}
