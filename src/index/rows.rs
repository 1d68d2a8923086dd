//! The vectors of one index in memory, as f32 and int8, in chunks that readers share. A writer copies a chunk
//! only while a reader holds it. A search works on a frozen [`View`] without a lock, and writers never wait
//! for it.

use std::sync::{Arc, PoisonError, RwLock};

use crate::catalog::IdMap;
use crate::codes::kernels::{LINE, Line, flat};
use crate::codes::quantize::{Codes, lines_for, quantize};
use crate::store::VectorCensus;
use crate::types::ClipId;

/// Rows per chunk: the most that a writer copies because of a reader (1.3 MB at 256 values).
pub const CHUNK_ROWS: usize = 1024;

/// Position of a row. Slots of removed rows are reused.
pub type Slot = u32;

/// Scale and error of a row's codes. Stored together, since each scattered row costs a cache line.
#[derive(Debug, Clone, Copy)]
pub struct CodeScale {
    /// Value of a code of 1.
    pub scale: f32,
    /// Quantisation error; minus infinity for removed rows, whose upper bound then never suffices.
    pub error: f32,
}

/// What an empty place holds.
const UNUSED: CodeScale = CodeScale { scale: 0.0, error: f32::NEG_INFINITY };

/// Up to [`CHUNK_ROWS`] rows.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Clip of each row; `None` if the row was removed.
    pub ids: Vec<Option<ClipId>>,
    values: Vec<f32>,
}

impl Clone for Chunk {
    fn clone(&self) -> Self {
        // Allocate full capacity: the copy is the one that grows.
        fn copy<T: Clone>(from: &[T], per_row: usize) -> Vec<T> {
            let mut to = Vec::with_capacity(per_row * CHUNK_ROWS);
            to.extend_from_slice(from);
            to
        }
        let rows = self.ids.len().max(1);
        Self { ids: copy(&self.ids, 1), values: copy(&self.values, self.values.len() / rows) }
    }
}

impl Chunk {
    fn put(&mut self, row: usize, id: ClipId, values: &[f32]) {
        if row == self.ids.len() {
            self.ids.push(Some(id));
            self.values.extend_from_slice(values);
        } else {
            let dim = values.len();
            self.ids[row] = Some(id);
            self.values[row * dim..(row + 1) * dim].copy_from_slice(values);
        }
    }
}

/// The codes of a chunk: flat arrays with a place for each of its rows, used or not.
#[derive(Debug, Clone)]
pub struct CodePage {
    lines: Arc<[Line]>,
    /// Scale and error of each row's codes.
    pub scales: Arc<[CodeScale]>,
    /// 1 / length of each row's codes: with it, a dot product of codes is a cosine. 0 where no row has been yet,
    /// negative where it was removed; its codes stay until the place is used again.
    pub norms: Arc<[f32]>,
}

impl CodePage {
    fn new(lines: usize) -> Self {
        let line = Line([0; LINE]);
        Self {
            lines: std::iter::repeat_n(line, lines * CHUNK_ROWS).collect(),
            scales: std::iter::repeat_n(UNUSED, CHUNK_ROWS).collect(),
            norms: std::iter::repeat_n(0.0, CHUNK_ROWS).collect(),
        }
    }

    /// The int8 codes of rows `from..to`, `lines` lines each.
    #[must_use]
    pub fn codes(&self, from: usize, to: usize, lines: usize) -> &[i8] {
        flat(&self.lines[from * lines..to * lines])
    }

    /// The int8 codes of all places.
    #[must_use]
    pub fn all(&self) -> &[i8] {
        flat(&self.lines)
    }

    fn put(&mut self, row: usize, codes: &Codes) {
        let lines = codes.lines.len();
        Arc::make_mut(&mut self.lines)[row * lines..(row + 1) * lines].copy_from_slice(&codes.lines);
        let scale = CodeScale { scale: codes.scale, error: codes.error };
        Arc::make_mut(&mut self.scales)[row] = scale;
        Arc::make_mut(&mut self.norms)[row] = codes.inverse_norm();
    }

    fn bury(&mut self, row: usize) {
        Arc::make_mut(&mut self.scales)[row].error = f32::NEG_INFINITY;
        let norm = &mut Arc::make_mut(&mut self.norms)[row];
        *norm = -norm.abs();
    }
}

/// All rows at one moment. Cheap to clone.
#[derive(Debug, Clone)]
pub struct View {
    /// Number of values of a vector.
    pub dim: usize,
    /// Chunks of rows; all but the last are full.
    pub chunks: Arc<Vec<Arc<Chunk>>>,
    /// The codes of each chunk.
    pub codes: Arc<Vec<CodePage>>,
    /// Number of rows that contain a vector.
    pub live: usize,
    /// Rises when the rows are replaced as a whole: a slot then means another clip.
    pub generation: u64,
}

impl View {
    /// Number of slots in use, including those of removed rows.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK_ROWS + last.ids.len())
    }

    /// Lines per row of codes.
    #[must_use]
    pub const fn lines(&self) -> usize {
        lines_for(self.dim)
    }

    /// The clip in a slot; `None` if the slot is empty.
    #[must_use]
    pub fn id(&self, slot: Slot) -> Option<ClipId> {
        let (chunk, row) = place(slot);
        self.chunks.get(chunk).and_then(|c| c.ids.get(row).copied().flatten())
    }

    /// The f32 vector in a slot.
    #[must_use]
    pub fn values(&self, slot: Slot) -> &[f32] {
        let (chunk, row) = place(slot);
        &self.chunks[chunk].values[row * self.dim..(row + 1) * self.dim]
    }

    /// The int8 codes in a slot.
    #[must_use]
    pub fn codes(&self, slot: Slot) -> &[i8] {
        let (chunk, row) = place(slot);
        self.codes[chunk].codes(row, row + 1, self.lines())
    }

    /// Slots that contain a vector, with their clips, in ascending order.
    pub fn live_slots(&self) -> impl Iterator<Item = (Slot, ClipId)> + '_ {
        let ids = self.chunks.iter().flat_map(|chunk| chunk.ids.iter());
        (0..).zip(ids).filter_map(|(slot, id)| id.map(|id| (slot, id)))
    }
}

/// Splits a slot into chunk and row.
#[must_use]
pub const fn place(slot: Slot) -> (usize, usize) {
    (slot as usize / CHUNK_ROWS, slot as usize % CHUNK_ROWS)
}

/// The writer's side: the current view and the slot of each clip.
#[derive(Debug)]
pub struct Rows {
    view: View,
    slots: IdMap,
    free: Vec<Slot>,
}

impl Rows {
    /// An empty collection of vectors of `dim` values.
    #[must_use]
    pub fn new(dim: usize) -> Self {
        let view = View { dim, chunks: Arc::default(), codes: Arc::default(), live: 0, generation: 0 };
        Self { view, slots: IdMap::default(), free: Vec::new() }
    }

    /// An empty collection that is to replace the one of this view.
    #[must_use]
    pub fn succeeding(view: &View) -> Self {
        let mut rows = Self::new(view.dim);
        rows.view.generation = view.generation + 1;
        rows
    }

    /// The current rows.
    #[must_use]
    pub const fn view(&self) -> &View {
        &self.view
    }

    /// The slot of a clip, if it has one.
    #[must_use]
    pub fn slot(&self, id: ClipId) -> Option<Slot> {
        self.slots.get(id)
    }

    /// Slots of the clips that have one, ascending, without duplicates.
    #[must_use]
    pub fn slots_of(&self, ids: &[ClipId]) -> Vec<Slot> {
        let mut slots = self.slots.values_of(ids);
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// What the rows hold.
    #[must_use]
    pub fn census(&self) -> VectorCensus {
        VectorCensus { clips: self.slots.len() as u64, sum_of_ids: self.slots.sum_of_ids() }
    }

    /// Adds or replaces a vector of the right length. Returns its slot.
    pub fn put(&mut self, id: ClipId, values: &[f32], codes: &Codes) -> Slot {
        let (slot, new) = match self.slots.get(id) {
            Some(slot) => (slot, false),
            None => (self.free.pop().unwrap_or(self.view.slots() as Slot), true),
        };
        let (chunk, row) = place(slot);
        let chunks = Arc::make_mut(&mut self.view.chunks);
        if chunk == chunks.len() {
            chunks.push(Arc::default());
        }
        Arc::make_mut(&mut chunks[chunk]).put(row, id, values);
        let pages = Arc::make_mut(&mut self.view.codes);
        if chunk == pages.len() {
            pages.push(CodePage::new(codes.lines.len()));
        }
        pages[chunk].put(row, codes);
        if new {
            self.slots.insert(id, slot);
            self.view.live += 1;
        }
        slot
    }

    /// Like [`put`](Self::put), but computes the codes.
    pub fn insert(&mut self, id: ClipId, values: &[f32]) -> Slot {
        self.put(id, values, &quantize(values))
    }

    /// Removes a clip and returns its former slot.
    pub fn remove(&mut self, id: ClipId) -> Option<Slot> {
        let slot = self.slots.remove(id)?;
        let (chunk, row) = place(slot);
        Arc::make_mut(&mut Arc::make_mut(&mut self.view.chunks)[chunk]).ids[row] = None;
        Arc::make_mut(&mut self.view.codes)[chunk].bury(row);
        self.view.live -= 1;
        self.free.push(slot);
        Some(slot)
    }

    /// Memory used, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let row = self.view.dim * 4 + self.view.lines() * LINE + 28;
        self.view.chunks.len() * CHUNK_ROWS * row + self.slots.memory_bytes() + self.free.capacity() * 4
    }
}

/// Rows that an index and its engines share. Writers take turns; searches work on views.
#[derive(Debug)]
pub struct SharedRows(RwLock<Rows>);

impl SharedRows {
    /// Shares these rows.
    #[must_use]
    pub fn new(rows: Rows) -> Arc<Self> {
        Arc::new(Self(RwLock::new(rows)))
    }

    /// Looks at the rows. Must not take another lock.
    pub fn read<T>(&self, look: impl FnOnce(&Rows) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the rows. Must not take another lock.
    pub(super) fn write<T>(&self, change: impl FnOnce(&mut Rows) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The rows now.
    #[must_use]
    pub fn view(&self) -> View {
        self.read(|rows| rows.view().clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn slots_are_reused_and_views_stay_as_they_were() {
        let mut rows = Rows::new(2);
        for id in 0..2000 {
            rows.insert(ClipId(id), &[id as f32, 1.0]);
        }
        let before = rows.view().clone();
        assert_eq!((before.slots(), before.live, before.chunks.len()), (2000, 2000, 2));
        let slot = rows.remove(ClipId(7)).unwrap();
        assert_eq!(rows.remove(ClipId(7)), None);
        assert_eq!(rows.insert(ClipId(5000), &[-1.0, 0.0]), slot);
        assert_eq!(rows.insert(ClipId(8), &[-2.0, 0.0]), 8);
        assert_eq!((rows.view().slots(), rows.view().live), (2000, 2000));
        assert_eq!((before.id(slot), before.values(8)), (Some(ClipId(7)), &[8.0, 1.0][..]));
        assert_eq!((rows.view().id(slot), rows.view().values(8)), (Some(ClipId(5000)), &[-2.0, 0.0][..]));
        // The chunk without writes is still shared.
        assert!(Arc::ptr_eq(&before.chunks[1], &rows.view().chunks[1]));
        let sum_of_ids = (0..2000).sum::<i64>() - 7 + 5000;
        assert_eq!(rows.census(), VectorCensus { clips: 2000, sum_of_ids });
    }
}
