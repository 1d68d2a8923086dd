//! Data about assets and clips for searches, besides vectors, in memory: times, names, metadata, and the
//! assets of each value. Derived from the store and rebuilt from it at startup, like an index;
//! docs/storage-and-index.md explains why searches do not query the store instead.

mod column;
mod entry;
mod fields;
mod filter;
mod id_map;
mod of_assets;
mod posting;
mod run;
mod value;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

pub use entry::{AssetEntry, ClipEntry, UserFile, entry};
pub use filter::{Condition, Filter, FilterError};
pub use id_map::IdMap;
pub use value::Scalar;

use crate::store::{AssetRecord, Store, StoreError};
use crate::types::{AssetId, ClipId};
use fields::Fields;
use posting::{Bits, Ordinal};
use run::Run;

/// Rows read from the store at a time.
const PAGE: u32 = 4096;
/// Number of remembered filter results, and limit on the clip ids in all of them together.
const REMEMBERED: usize = 32;
const REMEMBERED_IDS: usize = 1 << 20;

/// Which clips pass a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Every clip of the library passes.
    All,
    /// Only these clips; ids ascending.
    Only(Vec<ClipId>),
    /// All clips but these; ids ascending. Used if this list is the shorter one.
    Except(Vec<ClipId>),
}

impl Selection {
    const fn listed(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Only(ids) | Self::Except(ids) => ids.len(),
        }
    }

    /// Whether a clip is selected.
    #[must_use]
    pub fn has(&self, clip: ClipId) -> bool {
        match self {
            Self::All => true,
            Self::Only(ids) => ids.binary_search(&clip).is_ok(),
            Self::Except(ids) => ids.binary_search(&clip).is_err(),
        }
    }
}

/// Thread-safe catalog; see the module.
#[derive(Debug, Default)]
pub struct Catalog {
    state: RwLock<State>,
    lately: Mutex<VecDeque<Remembered>>,
}

/// Result of a filter at one version of the catalog. Clients repeat the same filters.
#[derive(Debug)]
struct Remembered {
    version: u64,
    filter: Filter,
    selection: Arc<Selection>,
}

#[derive(Debug, Default)]
struct State {
    assets: Vec<Option<Arc<AssetEntry>>>,
    /// Ids of each asset's clips in compact form, so that a filter over many small assets need not
    /// dereference every entry.
    runs: Vec<Run>,
    ordinals: HashMap<AssetId, Ordinal>,
    /// Assets that exist.
    live: Bits,
    /// Ordinal of the asset of each clip.
    clips: IdMap,
    fields: Fields,
    /// Incremented by every change.
    version: u64,
}

impl Catalog {
    /// Builds the catalog from the store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let mut by_asset: HashMap<AssetId, Vec<ClipEntry>> = HashMap::new();
        let mut after = ClipId(0);
        loop {
            let page = store.scan_clips(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for clip in page {
                by_asset.entry(clip.asset).or_default().push(entry(&clip));
            }
        }
        let catalog = Self::default();
        let mut after = None;
        loop {
            let page = store.list_assets(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(catalog) };
            after = Some(last.id);
            for record in &page {
                catalog.put_asset(record);
                catalog.add_clips(record.id, &by_asset.remove(&record.id).unwrap_or_default());
            }
        }
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.version += 1;
        change(&mut state)
    }

    /// Adds an asset or updates it to the store's record. Its clips stay.
    pub fn put_asset(&self, record: &AssetRecord) {
        self.write(|state| {
            let known = state.ordinals.get(&record.id).copied();
            let old = known.and_then(|ordinal| state.take(ordinal));
            let clips = old.map(|old| old.clips.clone()).unwrap_or_default();
            let new = AssetEntry::new(record, clips);
            let ordinal = known.unwrap_or(state.assets.len() as Ordinal);
            state.fields.add(ordinal, &new.entries);
            state.ordinals.insert(record.id, ordinal);
            state.live.put(ordinal);
            match state.assets.get_mut(ordinal as usize) {
                Some(place) => *place = Some(Arc::new(new)),
                None => {
                    state.assets.push(Some(Arc::new(new)));
                    state.runs.push(Run::NONE);
                }
            }
        });
    }

    /// Adds clips, in ascending order of ids, to an existing asset.
    pub fn add_clips(&self, asset: AssetId, clips: &[ClipEntry]) {
        self.write(|state| {
            let Some(ordinal) = state.ordinals.get(&asset).copied() else { return };
            let Some(Some(entry)) = state.assets.get_mut(ordinal as usize) else { return };
            Arc::make_mut(entry).clips.extend_from_slice(clips);
            if let Some(run) = state.runs.get_mut(ordinal as usize) {
                *run = run.with(clips);
            }
            for clip in clips {
                state.clips.insert(clip.id, ordinal);
            }
        });
    }

    /// Drops the clips of an asset.
    pub fn drop_clips(&self, asset: AssetId) {
        self.write(|state| {
            let Some(ordinal) = state.ordinals.get(&asset).copied() else { return };
            let Some(Some(entry)) = state.assets.get_mut(ordinal as usize) else { return };
            let clips = std::mem::take(&mut Arc::make_mut(entry).clips);
            if let Some(run) = state.runs.get_mut(ordinal as usize) {
                *run = Run::NONE;
            }
            for clip in clips {
                state.clips.remove(clip.id);
            }
        });
    }

    /// Drops an asset with its clips.
    pub fn remove_asset(&self, asset: AssetId) {
        self.write(|state| {
            let Some(ordinal) = state.ordinals.remove(&asset) else { return };
            state.live.clear(ordinal);
            if let Some(run) = state.runs.get_mut(ordinal as usize) {
                *run = Run::NONE;
            }
            if let Some(entry) = state.take(ordinal) {
                for clip in &entry.clips {
                    state.clips.remove(clip.id);
                }
            }
        });
    }

    /// One asset with its clips.
    #[must_use]
    pub fn asset(&self, id: AssetId) -> Option<Arc<AssetEntry>> {
        self.read(|state| state.asset(*state.ordinals.get(&id)?).cloned())
    }

    /// All assets, in the order in which they were added.
    #[must_use]
    pub fn assets(&self) -> Vec<Arc<AssetEntry>> {
        self.read(|state| state.assets.iter().flatten().cloned().collect())
    }

    /// The given clips with their assets. Clips that no longer exist are left out.
    #[must_use]
    pub fn owners(&self, clips: impl IntoIterator<Item = ClipId>) -> Vec<(ClipId, Arc<AssetEntry>)> {
        self.read(|state| {
            let owner = |clip: ClipId| Some((clip, state.asset(state.clips.get(clip)?)?.clone()));
            clips.into_iter().filter_map(owner).collect()
        })
    }

    /// Number of assets and number of clips.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        self.read(|state| (state.ordinals.len(), state.clips.len()))
    }

    /// The clips that pass a filter.
    #[must_use]
    pub fn select(&self, filter: &Filter) -> Arc<Selection> {
        if filter.is_empty() {
            return Arc::new(Selection::All);
        }
        let remembered = || self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.read(|state| state.version);
        if let Some(known) = remembered().iter().find(|known| known.version == now && known.filter == *filter)
        {
            return Arc::clone(&known.selection);
        }
        let (version, selection) = self.read(|state| (state.version, Arc::new(state.select(filter))));
        let mut lately = remembered();
        lately.retain(|known| known.version == version);
        lately.push_front(Remembered { version, filter: filter.clone(), selection: Arc::clone(&selection) });
        let mut ids = 0;
        // From the newest to the oldest.
        let fits = |known: &&Remembered| {
            ids += known.selection.listed();
            ids <= REMEMBERED_IDS
        };
        let fitting = lately.iter().take_while(fits).count();
        lately.truncate(fitting.min(REMEMBERED));
        selection
    }
}

impl State {
    fn asset(&self, ordinal: Ordinal) -> Option<&Arc<AssetEntry>> {
        self.assets.get(ordinal as usize)?.as_ref()
    }

    fn take(&mut self, ordinal: Ordinal) -> Option<Arc<AssetEntry>> {
        let entry = self.assets.get_mut(ordinal as usize)?.take()?;
        self.fields.remove(ordinal, &entry.entries);
        Some(entry)
    }

    fn select(&self, filter: &Filter) -> Selection {
        let kept = self.fields.select(filter, &self.live, self.assets.len());
        let of_clips = filter.of_clips();
        let mut only = Vec::new();
        kept.for_each(|ordinal| {
            if of_clips {
                self.passing(ordinal, filter, true, &mut only);
            } else {
                self.clips_of(ordinal, &mut only);
            }
        });
        if only.len() * 2 <= self.clips.len() {
            only.sort_unstable();
            return Selection::Only(only);
        }
        let mut except = Vec::new();
        for ordinal in self.live.iter() {
            if !kept.has(ordinal) {
                self.clips_of(ordinal, &mut except);
            } else if of_clips {
                self.passing(ordinal, filter, false, &mut except);
            }
        }
        except.sort_unstable();
        Selection::Except(except)
    }

    /// Appends the ids of all clips of an asset.
    fn clips_of(&self, ordinal: Ordinal, ids: &mut Vec<ClipId>) {
        match self.runs.get(ordinal as usize) {
            Some(Run::Of(only, 1)) => ids.push(*only),
            Some(Run::Of(first, count)) => ids.extend((first.0..first.0 + i64::from(*count)).map(ClipId)),
            _ => ids.extend(self.asset(ordinal).into_iter().flat_map(|a| &a.clips).map(|clip| clip.id)),
        }
    }

    /// Appends the clips of an asset that pass a filter, or with `wanted` false, those that do not.
    fn passing(&self, ordinal: Ordinal, filter: &Filter, wanted: bool, ids: &mut Vec<ClipId>) {
        let Some(asset) = self.asset(ordinal) else { return };
        let passing = asset.clips.iter().filter(|clip| asset.passes(filter, clip) == wanted);
        ids.extend(passing.map(|clip| clip.id));
    }
}

/// See [`crate::fuzz`].
#[cfg(test)]
pub(crate) mod fuzzed {
    use std::sync::LazyLock;

    use serde_json::json;

    use super::{Catalog, ClipEntry, Filter};
    use crate::store::{AssetRecord, AssetState};
    use crate::types::{AssetId, AssetKind, ClipId, TimeSpan};

    static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
        let catalog = Catalog::default();
        for n in 0..20_i64 {
            let record = AssetRecord {
                id: AssetId::generate(),
                sha256: String::new(),
                choice: Default::default(),
                tracks: Vec::new(),
                name: format!("film {n}.mp4"),
                path: String::new(),
                owned: true,
                size_bytes: 1,
                kind: Some(if n % 2 == 0 { AssetKind::Video } else { AssetKind::Audio }),
                duration_secs: n as f64,
                width: 1,
                height: 1,
                state: AssetState::Ready,
                error: None,
                metadata: json!({"camera": format!("c{}", n % 3), "take": n, "day": format!("2026-11-{:02}", n + 1),
                    "tags": ["a", n], "deep": {"er": n % 2 == 0}}),
                clips: 2,
                created_unix_ms: n,
                updated_unix_ms: n,
                file_mtime_ns: None,
                damage: None,
            };
            catalog.put_asset(&record);
            let clip = |id| ClipEntry {
                id: ClipId(id),
                span: TimeSpan { start_secs: 0.0, end_secs: 3.2 },
                agreement: Some(0.1 * n as f32),
            };
            catalog.add_clips(record.id, &[clip(2 * n + 1), clip(2 * n + 2)]);
        }
        catalog
    });

    pub(crate) fn seeds() -> Vec<Vec<u8>> {
        [
            json!({"must": [{"key": "metadata.camera", "eq": "c1"}, {"key": "metadata.take", "gte": 3, "lt": 9.5}]}),
            json!({"should": [{"key": "kind", "in": ["video", "audio"]}, {"key": "metadata.deep.er", "eq": true}],
                "must_not": [{"key": "name", "eq": "film 3.mp4"}]}),
            json!({"must": [{"key": "created_at", "gte": "1970-01-01", "lte": "2026-11-25T08:00:00+02:00"},
                {"key": "metadata.day", "gt": "2026-11-05", "eq": "2026-11-07"}]}),
            json!({"must": [{"filter": {"should": [{"key": "start_secs", "lt": 1}, {"key": "agreement", "gt": 0.5}]}}]}),
            json!({"must": [{"key": "metadata.tags", "exists": true}], "asset_ids": [AssetId::generate()]}),
        ]
        .map(|json| serde_json::to_vec(&json).unwrap())
        .to_vec()
    }

    /// A filter is either refused, or `select` and `passes` agree on every clip.
    pub(crate) fn run(bytes: &[u8]) {
        let Ok(filter) = serde_json::from_slice::<Filter>(bytes) else { return };
        if let Err(error) = filter.check() {
            assert!(!error.message.is_empty());
            return;
        }
        let kept = CATALOG.select(&filter);
        for asset in CATALOG.assets() {
            for clip in &asset.clips {
                assert_eq!(kept.has(clip.id), asset.passes(&filter, clip), "{filter:?} {:?}", clip.id);
            }
        }
    }
}
