//! Maps clip ids to small values, in pages of neighbouring ids, since the ids of a library are dense.
//!
//! A hash map needs four times the memory, and reading a thousand ids in order from one costs as much as
//! comparing a thousand vectors.

use crate::types::ClipId;

const PAGE_IDS: usize = 512;

#[derive(Debug)]
struct Page {
    values: [u32; PAGE_IDS],
    held: usize,
}

/// Values below `u32::MAX`, by clip id.
#[derive(Debug, Default)]
pub struct IdMap {
    /// Ascending by page number: ids are read in order, and new ones come at the end.
    pages: Vec<(i64, Box<Page>)>,
    len: usize,
}

const NONE: u32 = u32::MAX;

const fn place(id: ClipId) -> (i64, usize) {
    (id.0.div_euclid(PAGE_IDS as i64), id.0.rem_euclid(PAGE_IDS as i64) as usize)
}

impl IdMap {
    /// Number of ids that have a value.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no id has a value.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of an id, if it has one.
    #[must_use]
    pub fn get(&self, id: ClipId) -> Option<u32> {
        let (page, at) = place(id);
        let (_, page) = self.pages.get(self.find(page).ok()?)?;
        Some(page.values[at]).filter(|value| *value != NONE)
    }

    fn find(&self, number: i64) -> Result<usize, usize> {
        match self.pages.last() {
            Some((last, _)) if *last == number => Ok(self.pages.len() - 1),
            Some((last, _)) if *last < number => Err(self.pages.len()),
            _ => self.pages.binary_search_by_key(&number, |(number, _)| *number),
        }
    }

    /// The values of the ids that have one, in the order of the ids. Fastest if the ids ascend.
    #[must_use]
    pub fn values_of(&self, ids: &[ClipId]) -> Vec<u32> {
        let mut values = Vec::with_capacity(ids.len());
        // The page of the previous id: the next id is usually in the same page or the following one.
        let mut place = 0;
        for id in ids {
            let (number, at) = self::place(*id);
            let is_here = |place: usize| self.pages.get(place).is_some_and(|(known, _)| *known == number);
            if !is_here(place) {
                let next = Some(place + 1).filter(|next| is_here(*next));
                let Some(found) = next.or_else(|| self.find(number).ok()) else { continue };
                place = found;
            }
            let value = self.pages.get(place).map(|(_, page)| page.values[at]);
            values.extend(value.filter(|value| *value != NONE));
        }
        values
    }

    /// Sets the value of an id and returns its previous value.
    pub fn insert(&mut self, id: ClipId, value: u32) -> Option<u32> {
        let (page, at) = place(id);
        let place = self.find(page).unwrap_or_else(|place| {
            self.pages.insert(place, (page, Box::new(Page { values: [NONE; PAGE_IDS], held: 0 })));
            place
        });
        let (_, page) = &mut self.pages[place];
        let old = std::mem::replace(&mut page.values[at], value);
        if old != NONE {
            return Some(old);
        }
        page.held += 1;
        self.len += 1;
        None
    }

    /// Removes the value of an id and returns it.
    pub fn remove(&mut self, id: ClipId) -> Option<u32> {
        let (number, at) = place(id);
        let place = self.find(number).ok()?;
        let (_, page) = self.pages.get_mut(place)?;
        let old = std::mem::replace(&mut page.values[at], NONE);
        if old == NONE {
            return None;
        }
        page.held -= 1;
        self.len -= 1;
        if page.held == 0 {
            self.pages.remove(place);
        }
        Some(old)
    }

    /// Sum of the ids that have a value, modulo 2^64.
    #[must_use]
    pub fn sum_of_ids(&self) -> i64 {
        let mut sum = 0_i64;
        for (number, page) in &self.pages {
            let held = (0_i64..).zip(&page.values).filter(|(_, value)| **value != NONE);
            // Wrapping is fine: the sum is only compared, and ids from a damaged file can be any number.
            let first = number.wrapping_mul(PAGE_IDS as i64);
            sum = held.fold(sum, |sum, (at, _)| sum.wrapping_add(first.wrapping_add(at)));
        }
        sum
    }

    /// Memory used, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.pages.len() * (size_of::<Page>() + size_of::<(i64, Box<Page>)>())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((-1500_i64..1500, prop::option::of(0_u32..9)), 1..300)) {
            let (mut map, mut slow) = (IdMap::default(), BTreeMap::new());
            for (id, value) in steps {
                match value {
                    Some(value) => prop_assert_eq!(map.insert(ClipId(id), value), slow.insert(id, value)),
                    None => prop_assert_eq!(map.remove(ClipId(id)), slow.remove(&id)),
                }
            }
            let ids: Vec<ClipId> = (-1600..1600).map(ClipId).collect();
            prop_assert_eq!(map.values_of(&ids), slow.values().copied().collect::<Vec<_>>());
            prop_assert!(ids.iter().all(|id| map.get(*id) == slow.get(&id.0).copied()));
            prop_assert_eq!((map.len(), map.sum_of_ids()), (slow.len(), slow.keys().sum::<i64>()));
            for id in ids {
                map.remove(id);
            }
            prop_assert!(map.is_empty() && map.memory_bytes() == 0);
        }
    }
}
