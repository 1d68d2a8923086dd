//! Pages of lists: how long, and how to request the next one.

use super::error::ApiError;
use super::views::List;
use crate::types::AssetId;

/// Most entries that a page may have.
const MAX_ENTRIES: u32 = 1000;
/// Default number of entries per page, and that for short entries.
pub const DEFAULT_ENTRIES: u32 = 50;
pub const DEFAULT_SHORT_ENTRIES: u32 = 100;
/// How many ids an answer about many assets lists.
const MAX_IDS: usize = 100;

/// How many entries a page has at most.
#[derive(Debug, Clone, Copy)]
pub struct PageSize(u32);

impl PageSize {
    /// The requested number of entries, 1 to 1000.
    pub fn of(limit: Option<u32>, default: u32) -> Result<Self, ApiError> {
        match limit.unwrap_or(default) {
            limit @ 1..=MAX_ENTRIES => Ok(Self(limit)),
            _ => Err(ApiError::invalid("limit", format!("`limit` must be from 1 to {MAX_ENTRIES}"))),
        }
    }

    /// Number of entries to read: one more than the page has, which shows whether another page follows.
    pub const fn to_read(self) -> u32 {
        self.0 + 1
    }

    /// The page of the entries read. `cursor` gives the value of `after` that continues after an entry.
    pub fn cut<T, C: ToString>(self, mut read: Vec<T>, cursor: impl FnOnce(&T) -> C) -> Page<T> {
        let more = read.len() > self.0 as usize;
        read.truncate(self.0 as usize);
        let next = read.last().filter(|_| more).map(|last| cursor(last).to_string());
        Page { entries: read, next }
    }
}

/// A page before it is shown.
#[derive(Debug)]
pub struct Page<T> {
    pub entries: Vec<T>,
    /// Value of `after` for the next page; `None` on the last one.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The page in the API's form.
    pub fn show<V>(self, view: impl FnMut(T) -> V) -> List<V> {
        List::new(self.entries.into_iter().map(view).collect(), self.next)
    }
}

/// Those of many assets that an answer lists.
pub fn first_ids(ids: &[AssetId]) -> Vec<AssetId> {
    ids.iter().take(MAX_IDS).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_page_is_named_exactly_where_there_is_one() {
        let size = PageSize::of(Some(3), 50).unwrap();
        for (there, shown, next) in
            [(0, 0, None), (2, 2, None), (3, 3, None), (4, 3, Some("c2")), (9, 3, Some("c2"))]
        {
            let read: Vec<u32> = (0..there).take(size.to_read() as usize).collect();
            let page = size.cut(read, |entry| format!("c{entry}"));
            assert_eq!((page.entries.len(), page.next.as_deref()), (shown, next), "{there}");
            let list = page.show(|entry| entry * 10);
            assert_eq!(
                (list.data, list.next.as_deref()),
                ((0..shown as u32).map(|n| n * 10).collect(), next)
            );
        }
    }

    #[test]
    fn limits_are_from_1_to_1000() {
        assert_eq!(PageSize::of(None, 50).unwrap().to_read(), 51);
        assert_eq!(PageSize::of(Some(1000), 50).unwrap().to_read(), 1001);
        for limit in [0, 1001, u32::MAX] {
            assert!(PageSize::of(Some(limit), 50).is_err(), "{limit}");
        }
    }
}
