//! Sets of asset ordinals: bit sets, and posting lists for the assets of one value.

/// Number of an asset within this process. Never reused.
pub(super) type Ordinal = u32;

const WORD: Ordinal = u64::BITS;
/// Average distance below which neighbouring assets are likely to share a word. If they are unordered,
/// checking for the word of the previous asset costs more than it saves (`benches/filters.rs`, the unordered
/// range).
const FEW_A_WORD: Ordinal = 32;
/// Minimum number of assets for which a bit set may replace a list.
const BITS_FROM: usize = 16;
/// Most bits per asset at which a bit set is still no larger than a list.
const BITS_AN_ASSET: usize = 32;

/// A set of assets, one bit each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub fn none(assets: usize) -> Self {
        Self(vec![0; assets.div_ceil(WORD as usize)])
    }

    /// Number of assets that fit.
    pub const fn room(&self) -> usize {
        self.0.len() * WORD as usize
    }

    /// Adds an asset. Ignored if it does not fit.
    pub fn set(&mut self, ordinal: Ordinal) {
        if let Some(word) = self.0.get_mut((ordinal / WORD) as usize) {
            *word |= 1 << (ordinal % WORD);
        }
    }

    /// Adds an asset, growing the set if needed.
    pub fn put(&mut self, ordinal: Ordinal) {
        let words = (ordinal / WORD) as usize + 1;
        if self.0.len() < words {
            self.0.resize(words, 0);
        }
        self.set(ordinal);
    }

    pub fn clear(&mut self, ordinal: Ordinal) {
        if let Some(word) = self.0.get_mut((ordinal / WORD) as usize) {
            *word &= !(1 << (ordinal % WORD));
        }
    }

    pub fn has(&self, ordinal: Ordinal) -> bool {
        self.0.get((ordinal / WORD) as usize).is_some_and(|word| word & (1 << (ordinal % WORD)) != 0)
    }

    /// A copy with room for this many assets.
    pub fn sized(&self, assets: usize) -> Self {
        let mut bits = self.clone();
        bits.0.resize(assets.div_ceil(WORD as usize), 0);
        bits
    }

    /// Intersects with another set. Assets beyond the other's room count as absent.
    pub fn and(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine &= theirs);
        self.0.iter_mut().skip(other.0.len()).for_each(|mine| *mine = 0);
    }

    /// Adds the other set's assets that fit.
    pub fn or(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine |= theirs);
    }

    /// Removes the other set's assets.
    pub fn and_not(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine &= !theirs);
    }

    /// Adds the assets that fit. Assets ingested one after the other often have consecutive values (dates,
    /// numbered names); a run of them is added as a whole.
    pub fn add(&mut self, ordinals: &[Ordinal]) {
        for ordinals in ordinals.chunks(WORD as usize) {
            let [first, .., last] = *ordinals else {
                ordinals.iter().for_each(|ordinal| self.set(*ordinal));
                continue;
            };
            let in_a_row =
                (first..).zip(ordinals).fold(true, |so_far, (n, ordinal)| so_far & (n == *ordinal));
            if in_a_row {
                self.add_run(first, ordinals.len() as Ordinal);
            } else if first.abs_diff(last) < ordinals.len() as Ordinal * FEW_A_WORD {
                self.add_close(ordinals);
            } else {
                ordinals.iter().for_each(|ordinal| self.set(*ordinal));
            }
        }
    }

    /// Combines the assets of one word before writing it. Written one at a time, each would wait for the
    /// previous write to the same word.
    fn add_close(&mut self, ordinals: &[Ordinal]) {
        let (mut at, mut word) = (0, 0_u64);
        for ordinal in ordinals {
            let next = (ordinal / WORD) as usize;
            if next != at {
                self.or_word(at, word);
                (at, word) = (next, 0);
            }
            word |= 1 << (ordinal % WORD);
        }
        self.or_word(at, word);
    }

    /// Adds `count` consecutive assets, at most one word's worth, starting with `first`.
    fn add_run(&mut self, first: Ordinal, count: Ordinal) {
        let (at, shift) = ((first / WORD) as usize, first % WORD);
        let run = u64::MAX >> (WORD - count.clamp(1, WORD));
        self.or_word(at, run << shift);
        if shift > 0 {
            self.or_word(at + 1, run >> (WORD - shift));
        }
    }

    fn or_word(&mut self, at: usize, word: u64) {
        if let Some(held) = self.0.get_mut(at) {
            *held |= word;
        }
    }

    /// Calls `look` with each asset, ascending.
    pub fn for_each(&self, mut look: impl FnMut(Ordinal)) {
        for (at, word) in self.0.iter().enumerate() {
            let mut left = *word;
            while left != 0 {
                look(at as u32 * WORD + left.trailing_zeros());
                left &= left - 1;
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Ordinal> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(at as u32 * WORD + bit)
            })
        })
    }
}

/// The assets of one value. Most values have one asset (an id, a name, a date); some have a large share of
/// all assets. Each shape takes the least memory for its case. Small ones are inline, so that reading a range
/// of values needs no jump for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Posting {
    One(Ordinal),
    /// Ordinals in ascending order.
    List(Vec<Ordinal>),
    Bits(Box<Counted>),
}

/// A bit set with the number of bits set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Counted {
    bits: Bits,
    held: usize,
}

impl Default for Posting {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Posting {
    pub const fn is_empty(&self) -> bool {
        match self {
            Self::One(_) => false,
            Self::List(list) => list.is_empty(),
            Self::Bits(counted) => counted.held == 0,
        }
    }

    /// Adds the assets to a set.
    pub fn add_to(&self, set: &mut Bits) {
        match self {
            Self::One(ordinal) => set.set(*ordinal),
            Self::List(list) => set.add(list),
            Self::Bits(counted) => set.or(&counted.bits),
        }
    }

    /// Drops the assets from a set.
    pub fn drop_from(&self, set: &mut Bits) {
        match self {
            Self::One(ordinal) => set.clear(*ordinal),
            Self::List(list) => list.iter().for_each(|ordinal| set.clear(*ordinal)),
            Self::Bits(counted) => set.and_not(&counted.bits),
        }
    }

    pub fn insert(&mut self, ordinal: Ordinal) {
        match self {
            Self::List(list) if list.is_empty() => *self = Self::One(ordinal),
            Self::One(one) if *one == ordinal => {}
            Self::One(one) => *self = Self::List(vec![ordinal.min(*one), ordinal.max(*one)]),
            Self::List(list) => {
                insert(list, ordinal);
                if list.len() >= BITS_FROM && fits(ordinal.max(list.last().copied().unwrap_or(0)), list.len())
                {
                    *self = Self::bits(list);
                }
            }
            // One late, far ordinal would need bits for all the assets before it.
            Self::Bits(counted) if !counted.bits.has(ordinal) && !fits(ordinal, 2 * counted.held) => {
                let mut list: Vec<Ordinal> = counted.bits.iter().collect();
                insert(&mut list, ordinal);
                *self = Self::List(list);
            }
            Self::Bits(counted) => {
                counted.held += usize::from(!counted.bits.has(ordinal));
                counted.bits.put(ordinal);
            }
        }
    }

    pub fn remove(&mut self, ordinal: Ordinal) {
        match self {
            Self::One(one) if *one == ordinal => *self = Self::default(),
            Self::One(_) => {}
            Self::List(list) => {
                if let Ok(at) = list.binary_search(&ordinal) {
                    list.remove(at);
                }
            }
            Self::Bits(counted) => {
                counted.held -= usize::from(counted.bits.has(ordinal));
                counted.bits.clear(ordinal);
                if counted.held < BITS_FROM / 2 {
                    *self = Self::List(counted.bits.iter().collect());
                }
            }
        }
    }

    fn bits(list: &[Ordinal]) -> Self {
        let mut bits = Bits::default();
        list.iter().rev().for_each(|ordinal| bits.put(*ordinal));
        Self::Bits(Box::new(Counted { bits, held: list.len() }))
    }
}

/// Whether a bit set up to this asset takes at most the space of a list of `held` assets.
const fn fits(last: Ordinal, held: usize) -> bool {
    last as usize <= held * BITS_AN_ASSET
}

fn insert(list: &mut Vec<Ordinal>, ordinal: Ordinal) {
    match list.last() {
        Some(last) if *last >= ordinal => {
            if let Err(at) = list.binary_search(&ordinal) {
                list.insert(at, ordinal);
            }
        }
        _ => list.push(ordinal),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const ASSETS: usize = 6000;

    fn held(posting: &Posting) -> Vec<Ordinal> {
        let mut set = Bits::none(ASSETS);
        posting.add_to(&mut set);
        set.iter().collect()
    }

    proptest! {
        #[test]
        fn a_posting_is_a_set_in_whatever_shape(
            steps in prop::collection::vec(
                (any::<bool>(), prop_oneof![8 => 0_u32..200, 1 => 0_u32..ASSETS as u32]), 1..400),
            drain in any::<bool>(),
        ) {
            let (mut posting, mut slow) = (Posting::default(), BTreeSet::new());
            for (add, ordinal) in steps {
                // Insert more than remove at first, so that every shape occurs.
                if add || ordinal % 3 == 0 {
                    posting.insert(ordinal);
                    slow.insert(ordinal);
                } else {
                    posting.remove(ordinal);
                    slow.remove(&ordinal);
                }
                prop_assert_eq!(posting.is_empty(), slow.is_empty());
                if let Posting::Bits(counted) = &posting {
                    prop_assert_eq!(counted.held, slow.len());
                }
            }
            prop_assert_eq!(held(&posting), slow.iter().copied().collect::<Vec<_>>());
            if drain {
                for ordinal in slow {
                    posting.remove(ordinal);
                }
                prop_assert!(posting.is_empty());
            }
        }
    }

    #[test]
    fn a_posting_takes_the_shape_that_fits() {
        let of = |ordinals: &mut dyn Iterator<Item = Ordinal>| {
            let mut posting = Posting::default();
            ordinals.for_each(|ordinal| posting.insert(ordinal));
            posting
        };
        assert!(matches!(of(&mut [7].into_iter()), Posting::One(7)));
        assert!(matches!(of(&mut (0..100).map(|n| n * 100)), Posting::List(_)));
        let common = of(&mut (0..100).map(|n| n * 7));
        assert!(matches!(common, Posting::Bits(_)));
        let mut late = common;
        late.insert(1_000_000);
        assert!(matches!(late, Posting::List(_)), "bits for a million assets to name 101 of them");
    }

    #[test]
    fn what_lies_in_a_row_is_added_as_what_does_not() {
        for first in [0, 1, 37, 63, 64, 100, 190] {
            for count in [1, 2, 63, 64, 65, 128, 150, 300] {
                let mut ordinals: Vec<Ordinal> = (first..first + count).collect();
                for gap in [None, Some(ordinals.len() / 2)] {
                    gap.map(|at| ordinals.remove(at));
                    let mut set = Bits::none(256);
                    set.add(&ordinals);
                    let within: Vec<Ordinal> = ordinals.iter().copied().filter(|n| *n < 256).collect();
                    assert_eq!(set.iter().collect::<Vec<_>>(), within, "{first} {count} {gap:?}");
                }
            }
        }
    }

    #[test]
    fn sets_of_different_room_meet() {
        let mut small = Bits::none(10);
        let mut large = Bits::none(200);
        [1, 9].into_iter().for_each(|ordinal| small.set(ordinal));
        [1, 150].into_iter().for_each(|ordinal| large.set(ordinal));
        let mut both = large.clone();
        both.and(&small);
        assert_eq!(both.iter().collect::<Vec<_>>(), [1]);
        let mut any = large.clone();
        any.or(&small);
        assert_eq!(any.iter().collect::<Vec<_>>(), [1, 9, 150]);
        large.and_not(&small);
        assert_eq!(large.iter().collect::<Vec<_>>(), [150]);
        assert_eq!(small.sized(300).iter().collect::<Vec<_>>(), [1, 9]);
    }
}
