//! Frees the memory of removed rows. New rows reuse their slots, so this matters only for collections that
//! have shrunk.

use std::sync::Arc;

use super::HybridIndex;
use crate::index::rows::{CHUNK_ROWS, Rows, Slot, View};
use crate::types::ClipId;

/// Minimum number of unused slots for an automatic compaction. They must also be no fewer than the used ones.
const UNUSED_FROM: usize = 4 * CHUNK_ROWS;

impl HybridIndex {
    /// Runs [`compact`](Self::compact) if there is enough memory to free.
    pub fn compact_if_due(&self) -> bool {
        let view = self.view();
        let unused = view.slots() - view.live;
        unused >= UNUSED_FROM && unused >= view.live && self.compact()
    }

    /// Compacts the rows and frees the unused memory. Returns false if there was nothing to free or a graph
    /// is being built. Searches and writes continue meanwhile. The graph refers to slots, so it is rebuilt.
    pub fn compact(&self) -> bool {
        // One at a time: each gives the rows a generation of their own.
        let Ok(_one) = self.compacting.try_lock() else { return false };
        let view = self.view();
        if view.slots() == view.live || self.engines.iter().any(|engine| engine.is_building()) {
            return false;
        }
        let mut rows = Rows::succeeding(&view);
        for (slot, clip) in view.live_slots() {
            rows.insert(clip, view.values(slot));
        }
        let writing = self.writing();
        let old = self.rows.write(|now| {
            catch_up(&mut rows, &view, now.view());
            std::mem::replace(now, rows)
        });
        drop(writing);
        // Outside the locks: freeing rows or a graph is slow.
        drop(old);
        self.engines.iter().for_each(|engine| engine.restart());
        true
    }
}

/// Applies the changes between two views to rows built from the first one. Both views share unchanged chunks.
fn catch_up(rows: &mut Rows, from: &View, to: &View) {
    let (mut gone, mut written): (Vec<ClipId>, Vec<(ClipId, Slot)>) = Default::default();
    for n in 0..from.chunks.len().max(to.chunks.len()) {
        let (old, new) = (from.chunks.get(n), to.chunks.get(n));
        if old.zip(new).is_some_and(|(old, new)| Arc::ptr_eq(old, new)) {
            continue;
        }
        let first = n * CHUNK_ROWS;
        for slot in (first..first + CHUNK_ROWS).map(|slot| slot as Slot) {
            let (was, is) = (from.id(slot), to.id(slot));
            if was == is && was.is_none_or(|_| from.values(slot) == to.values(slot)) {
                continue;
            }
            gone.extend(was);
            written.extend(is.map(|clip| (clip, slot)));
        }
    }
    // Remove all first: a clip can move from one slot to another.
    for clip in gone {
        rows.remove(clip);
    }
    for (clip, slot) in written {
        rows.insert(clip, to.values(slot));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::index::SearchParams;
    use crate::types::Embedding;

    fn vector(seed: i64) -> Embedding {
        Embedding::new((0..8).map(|i| ((seed * 8 + i) as f32 * 0.7).sin()).collect(), 8).unwrap()
    }

    #[test]
    fn rows_catch_up_with_what_was_written_meanwhile() {
        let mut rows = Rows::new(8);
        let put = |rows: &mut Rows, id| {
            rows.insert(ClipId(id), vector(id).as_slice());
        };
        (0..5000).for_each(|id| put(&mut rows, id));
        assert!((0..2000).all(|id| rows.remove(ClipId(id)).is_some()));
        let before = rows.view().clone();
        let mut compacted = Rows::new(8);
        before.live_slots().for_each(|(_, id)| put(&mut compacted, id.0));
        assert_eq!(compacted.view().slots(), 3000);
        // Removed, replaced, new, and moved to another slot.
        assert!((2000..2100).all(|id| rows.remove(ClipId(id)).is_some()));
        rows.insert(ClipId(4000), vector(-1).as_slice());
        (7000..9500).for_each(|id| put(&mut rows, id));
        put(&mut rows, 2050);
        catch_up(&mut compacted, &before, rows.view());
        assert_eq!(compacted.census(), rows.census());
        for (slot, id) in rows.view().live_slots() {
            let other = compacted.slot(id).unwrap();
            assert_eq!(compacted.view().values(other), rows.view().values(slot), "{id:?}");
        }
    }

    #[test]
    fn a_compacted_index_answers_as_before() {
        let index = HybridIndex::new(8);
        (0..20_000).for_each(|id| index.upsert(ClipId(id), &vector(id)).unwrap());
        assert!((0..20_000).filter(|id| id % 5 != 0).all(|id| index.remove(ClipId(id))));
        let answers = || {
            let of = |n| index.search(&vector(n), 20, SearchParams::default(), None).unwrap();
            (0..20).map(of).collect::<Vec<_>>()
        };
        let (before, bytes) = (answers(), index.memory_bytes());
        assert!(index.compact_if_due());
        assert_eq!((answers(), index.len(), index.view().slots()), (before, 4000, 4000));
        assert!(index.memory_bytes() * 3 < bytes, "{bytes} bytes became {}", index.memory_bytes());
        assert!(!index.compact() && !index.compact_if_due());
    }
}
