//! Who is linked to whom: flat lists of fixed length, in pages that never move. Readers take no lock; the lists of one
//! node have one writer at a time.

use std::array::from_fn;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::index::rows::Slot;

/// Most links of a node on each level but the lowest.
pub const LINKS: usize = 16;
/// Most links of a node on the lowest level: two cache lines.
pub const BASE_LINKS: usize = 2 * LINKS;
/// Ends a list that is not full.
pub const NONE: Slot = Slot::MAX;
/// The highest level.
pub const TOP: u32 = 15;
/// Nodes of a page.
pub const PAGE_NODES: usize = 1024;
/// Nodes that share a lock with others: [`PAGE_NODES`] / [`LOCKS`].
const LOCKS: usize = 64;
const NO_UPPER: u16 = u16::MAX;
/// The only source of randomness for levels: the same slot always has the same level.
const SEED: u64 = 0x7472_6970;

/// A node is in the graph.
pub const LINKED: u8 = 1;
/// Other rows have the same codes and stand behind this node.
pub const HAS_TWINS: u8 = 2;

#[repr(C, align(128))]
struct BaseList([AtomicU32; BASE_LINKS]);

#[repr(C, align(64))]
struct UpperList([AtomicU32; LINKS]);

/// Nodes with their links.
pub struct Page {
    base: Box<[BaseList]>,
    upper: Box<[UpperList]>,
    /// Where the lists of a node's upper levels begin.
    upper_at: Box<[u16]>,
    flags: Box<[AtomicU8]>,
    /// Links that lead to each node on the lowest level.
    leading_here: Box<[AtomicU16]>,
    locks: [Mutex<()>; LOCKS],
}

/// The level of a node: 0 for fifteen of sixteen.
#[must_use]
pub const fn level(slot: Slot) -> u32 {
    // The finaliser of SplitMix64.
    let mut hash = (slot as u64).wrapping_add(SEED).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let level = (hash ^ (hash >> 31)).trailing_zeros() / LINKS.trailing_zeros();
    if level < TOP { level } else { TOP }
}

const fn place(slot: Slot) -> (usize, usize) {
    (slot as usize / PAGE_NODES, slot as usize % PAGE_NODES)
}

impl Page {
    fn new(number: usize) -> Self {
        let first = number * PAGE_NODES;
        let mut lists = 0;
        let upper_at = (first..first + PAGE_NODES).map(|slot| match level(slot as Slot) {
            0 => NO_UPPER,
            levels => {
                lists += levels as u16;
                lists - levels as u16
            }
        });
        let upper_at = upper_at.collect();
        Self {
            base: (0..PAGE_NODES).map(|_| BaseList(from_fn(|_| AtomicU32::new(NONE)))).collect(),
            upper: (0..lists).map(|_| UpperList(from_fn(|_| AtomicU32::new(NONE)))).collect(),
            upper_at,
            flags: (0..PAGE_NODES).map(|_| AtomicU8::new(0)).collect(),
            leading_here: (0..PAGE_NODES).map(|_| AtomicU16::new(0)).collect(),
            locks: from_fn(|_| Mutex::default()),
        }
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.base.len() * (size_of::<BaseList>() + 5)
            + self.upper.len() * size_of::<UpperList>()
    }
}

/// All pages at one moment. Pages that are added later hold nodes that are added later.
#[derive(Clone)]
pub struct Map(Arc<Vec<Arc<Page>>>);

impl Map {
    fn page(&self, slot: Slot) -> Option<(&Page, usize)> {
        let (page, at) = place(slot);
        self.0.get(page).map(|page| (page.as_ref(), at))
    }

    /// The places of a node's links on a level. Empty if the node does not reach that level.
    #[inline]
    #[must_use]
    pub fn list(&self, slot: Slot, level: u32) -> &[AtomicU32] {
        let Some((page, at)) = self.page(slot) else { return &[] };
        if level == 0 {
            return &page.base[at].0;
        }
        match page.upper_at[at] {
            NO_UPPER => &[],
            first if level <= self::level(slot) => &page.upper[first as usize + level as usize - 1].0,
            _ => &[],
        }
    }

    /// The links of a node on a level.
    pub fn links(&self, slot: Slot, level: u32) -> impl Iterator<Item = Slot> + '_ {
        let links = self.list(slot, level).iter().map(|link| link.load(Ordering::Relaxed));
        links.take_while(|link| *link != NONE)
    }

    /// Replaces the links of a node on a level. Only with its lock, or while nobody else can reach it.
    pub fn set(&self, slot: Slot, level: u32, links: &[Slot]) {
        let list = self.list(slot, level);
        if level == 0 {
            links.iter().for_each(|link| self.count(*link, 1));
            list.iter()
                .map(|link| link.load(Ordering::Relaxed))
                .take_while(|link| *link != NONE)
                .for_each(|link| self.count(link, -1));
        }
        let ended = links.iter().copied().chain(std::iter::repeat(NONE));
        list.iter().zip(ended).for_each(|(place, link)| place.store(link, Ordering::Relaxed));
    }

    /// Adds a link at the end, if there is room. Only with the node's lock.
    pub fn push(&self, slot: Slot, level: u32, link: Slot) -> bool {
        let list = self.list(slot, level);
        let Some(free) = list.iter().find(|place| place.load(Ordering::Relaxed) == NONE) else {
            return false;
        };
        free.store(link, Ordering::Relaxed);
        if level == 0 {
            self.count(link, 1);
        }
        true
    }

    fn count(&self, slot: Slot, by: i16) {
        if let Some((page, at)) = self.page(slot) {
            page.leading_here[at].fetch_add(by.cast_unsigned(), Ordering::Relaxed);
        }
    }

    /// Number of links that lead to a node on the lowest level.
    #[must_use]
    pub fn leading_to(&self, slot: Slot) -> u16 {
        self.page(slot).map_or(0, |(page, at)| page.leading_here[at].load(Ordering::Relaxed))
    }

    /// Waits for the turn to write the links of a node. Nobody holds two such turns.
    #[must_use]
    pub fn lock(&self, slot: Slot) -> Option<MutexGuard<'_, ()>> {
        let (page, at) = self.page(slot)?;
        Some(page.locks[at % LOCKS].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a node has one of these flags.
    #[must_use]
    pub fn is(&self, slot: Slot, flag: u8) -> bool {
        self.page(slot).is_some_and(|(page, at)| page.flags[at].load(Ordering::Relaxed) & flag != 0)
    }

    /// Sets or clears flags of a node.
    pub fn mark(&self, slot: Slot, flag: u8, on: bool) {
        let Some((page, at)) = self.page(slot) else { return };
        if on {
            page.flags[at].fetch_or(flag, Ordering::Relaxed);
        } else {
            page.flags[at].fetch_and(!flag, Ordering::Relaxed);
        }
    }

    /// All places for nodes, used or not.
    pub fn places(&self) -> std::ops::Range<Slot> {
        0..(self.0.len() * PAGE_NODES) as Slot
    }
}

/// The links of a growing graph, and where a search enters it.
pub struct Links {
    pages: RwLock<Map>,
    /// Level and slot of the node at which searches begin, if there is one.
    entry: AtomicU64,
    raising: Mutex<()>,
}

const NO_ENTRY: u64 = u64::MAX;

impl Default for Links {
    fn default() -> Self {
        let pages = RwLock::new(Map(Arc::default()));
        Self { pages, entry: AtomicU64::new(NO_ENTRY), raising: Mutex::default() }
    }
}

impl Links {
    /// The pages now.
    #[must_use]
    pub fn map(&self) -> Map {
        self.pages.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pages, with one for this node.
    #[must_use]
    pub fn map_with(&self, slot: Slot) -> Map {
        let map = self.map();
        if map.page(slot).is_some() {
            return map;
        }
        let mut map = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        let pages = Arc::make_mut(&mut map.0);
        while pages.len() <= place(slot).0 {
            pages.push(Arc::new(Page::new(pages.len())));
        }
        map.clone()
    }

    /// The node at which searches begin, and its level.
    #[must_use]
    pub fn entry(&self) -> Option<(Slot, u32)> {
        let entry = self.entry.load(Ordering::Acquire);
        (entry != NO_ENTRY).then_some((entry as Slot, (entry >> 32) as u32))
    }

    /// Lets searches begin at this node if it is higher than the present entry. Returns the entry.
    pub fn raise(&self, slot: Slot) -> (Slot, u32) {
        let _one = self.raising.lock().unwrap_or_else(PoisonError::into_inner);
        match self.entry() {
            Some((entry, high)) if high >= level(slot) => (entry, high),
            _ => {
                self.enter_at(Some(slot));
                (slot, level(slot))
            }
        }
    }

    /// Lets searches begin at this node.
    pub fn enter_at(&self, slot: Option<Slot>) {
        let entry = slot.map_or(NO_ENTRY, |slot| u64::from(level(slot)) << 32 | u64::from(slot));
        self.entry.store(entry, Ordering::Release);
    }

    /// Memory used, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.map().0.iter().map(|page| page.memory_bytes() + size_of::<Arc<Page>>()).sum()
    }
}
