//! Assets and clips in the catalog's form.

use std::sync::Arc;

use super::fields::{self, Entries};
use super::filter::{Condition, Filter};
use super::value::Scalar;
use crate::store::{AssetRecord, ClipRecord, Damage};
use crate::types::{AssetId, AssetKind, ClipId, TimeSpan};

/// A clip with the values that filters and results use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClipEntry {
    /// Row id in the store.
    pub id: ClipId,
    /// Time span within its asset.
    pub span: TimeSpan,
    /// Cosine between the clip's own sound and picture; `None` if it lacks one of them.
    pub agreement: Option<f32>,
}

/// A file indexed by path. It may have changed since it was indexed.
#[derive(Debug)]
pub struct UserFile {
    /// Path on this machine.
    pub path: Box<str>,
    /// Size when it was indexed.
    pub size_bytes: u64,
    /// Modification time in nanoseconds since 1970; `None` if it is unknown or the file is known to have
    /// changed.
    pub changed_ns: Option<i64>,
}

impl UserFile {
    fn of(record: &AssetRecord) -> Self {
        let changed_ns = record.file_mtime_ns.filter(|_| record.damage != Some(Damage::Changed));
        Self { path: record.path.as_str().into(), size_bytes: record.size_bytes, changed_ns }
    }
}

/// One asset with its clips.
#[derive(Debug, Clone)]
pub struct AssetEntry {
    /// Id of the asset.
    pub id: AssetId,
    /// Display name.
    pub name: String,
    /// Kind of the file; `None` until it has been decoded.
    pub kind: Option<AssetKind>,
    /// The client's JSON object.
    pub metadata: Arc<serde_json::Value>,
    /// Clips, in ascending order of ids.
    pub clips: Vec<ClipEntry>,
    /// The file, if it was indexed by path.
    pub file: Option<Arc<UserFile>>,
    pub(super) entries: Arc<Entries>,
}

impl AssetEntry {
    pub(super) fn new(record: &AssetRecord, clips: Vec<ClipEntry>) -> Self {
        Self {
            id: record.id,
            name: record.name.clone(),
            kind: record.kind,
            metadata: Arc::new(record.metadata.clone()),
            clips,
            file: (!record.owned).then(|| Arc::new(UserFile::of(record))),
            entries: Arc::new(fields::entries_of(record)),
        }
    }

    /// The clip of this id, if it belongs to the asset.
    #[must_use]
    pub fn clip(&self, id: ClipId) -> Option<&ClipEntry> {
        self.clips.binary_search_by_key(&id, |clip| clip.id).ok().map(|at| &self.clips[at])
    }

    /// Whether a clip of this asset passes a filter.
    #[must_use]
    pub fn passes(&self, filter: &Filter, clip: &ClipEntry) -> bool {
        let holds = |condition: &Condition| self.holds(condition, clip);
        (filter.asset_ids.is_empty() || filter.asset_ids.contains(&self.id))
            && filter.must.iter().all(holds)
            && (filter.should.is_empty() || filter.should.iter().any(holds))
            && !filter.must_not.iter().any(holds)
    }

    fn holds(&self, condition: &Condition, clip: &ClipEntry) -> bool {
        if let Some(inner) = &condition.filter {
            return self.passes(inner, clip);
        }
        let key = condition.compared_key();
        let own = match &*key {
            "start_secs" => Some(Some(clip.span.start_secs)),
            "end_secs" => Some(Some(clip.span.end_secs)),
            "agreement" => Some(clip.agreement.map(f64::from)),
            _ => None,
        };
        if let Some(own) = own {
            return match condition.exists {
                Some(exists) => own.is_some() == exists,
                None => own.is_some_and(|value| condition.admits(&Scalar::number(value))),
            };
        }
        let from = self.entries.partition_point(|(name, _)| name.as_str() < &*key);
        let mut values = self.entries[from..].iter().take_while(|(name, _)| **name == *key);
        match condition.exists {
            Some(exists) => values.next().is_some() == exists,
            None => values.any(|(_, value)| value.as_ref().is_some_and(|value| condition.admits(value))),
        }
    }
}

/// The catalog's entry for a stored clip.
#[must_use]
pub const fn entry(clip: &ClipRecord) -> ClipEntry {
    ClipEntry { id: clip.id, span: clip.span, agreement: clip.agreement }
}
