//! Changes to the names and metadata of existing assets.

use serde_json::Value;

use super::{Accepting, Ingest};
use crate::collection::LibraryError;
use crate::store::AssetRecord;
use crate::types::AssetId;

/// Largest metadata of one asset, in bytes of JSON.
pub const MAX_METADATA_BYTES: usize = 64 << 10;
/// Maximum number of assets that one transaction changes.
const ASSETS_A_BATCH: usize = 64;

/// The states of an asset in which a change may be made: see [`AssetRecord::version`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// All.
    Any,
    /// Those of these versions.
    OneOf(Vec<String>),
}

impl Expected {
    /// Whether a version is one of them.
    #[must_use]
    pub fn holds(&self, version: &str) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(versions) => versions.iter().any(|wanted| wanted == version),
        }
    }

    pub(super) fn check(&self, asset: &AssetRecord) -> Result<(), LibraryError> {
        let holds = *self == Self::Any || self.holds(&asset.version());
        if holds { Ok(()) } else { Err(LibraryError::OtherVersion) }
    }
}

/// Changes to an asset's name and metadata.
#[derive(Debug, Clone, Default)]
pub struct AssetPatch {
    name: Option<String>,
    metadata: Option<Value>,
}

impl AssetPatch {
    /// A new name, and a merge patch for the metadata as in RFC 7396: keys that it names are set, objects are
    /// merged, null removes a key, and a null in place of the object removes everything.
    ///
    /// # Errors
    /// [`LibraryError::BadField`] if the metadata would no longer be an object.
    pub fn new(name: Option<String>, metadata: Option<Value>) -> Result<Self, LibraryError> {
        if metadata.as_ref().is_some_and(|metadata| !metadata.is_object() && !metadata.is_null()) {
            let message = "`metadata` must be a JSON object or null".to_owned();
            return Err(LibraryError::BadField { at: "metadata".to_owned(), message });
        }
        Ok(Self { name, metadata })
    }

    fn applied(&self, record: &AssetRecord) -> Result<AssetRecord, LibraryError> {
        let mut record = record.clone();
        if let Some(name) = &self.name {
            record.name.clone_from(name);
        }
        if let Some(patch) = &self.metadata {
            json_patch::merge(&mut record.metadata, patch);
            if record.metadata.is_null() {
                record.metadata = serde_json::json!({});
            }
        }
        if record.metadata.to_string().len() > MAX_METADATA_BYTES {
            let message = format!("the metadata of {} would exceed {MAX_METADATA_BYTES} bytes", record.id);
            return Err(LibraryError::BadField { at: "metadata".to_owned(), message });
        }
        Ok(record)
    }
}

impl Ingest {
    /// Changes the name and metadata of an asset, durably; its vectors stay. Returns the updated asset.
    ///
    /// # Errors
    /// [`LibraryError::BadField`] if the metadata would grow too large; [`LibraryError::OtherVersion`]; others.
    pub async fn patch_asset(
        &self,
        id: AssetId,
        patch: &AssetPatch,
        expected: &Expected,
    ) -> Result<AssetRecord, LibraryError> {
        self.patch_batch(&[id], patch, expected).await?;
        Ok(self.collection.store.asset(id).await?)
    }

    /// Changes the names and metadata of many assets, a few per transaction, and skips those that no longer
    /// exist. If it ends early, the changes made so far stay. Returns the existing assets, in order.
    ///
    /// # Errors
    /// As [`Ingest::patch_asset`].
    pub async fn patch_assets(
        &self,
        ids: &[AssetId],
        patch: &AssetPatch,
    ) -> Result<Vec<AssetId>, LibraryError> {
        let mut patched = Vec::with_capacity(ids.len());
        for batch in ids.chunks(ASSETS_A_BATCH) {
            if self.collection.life.stop.is_cancelled() {
                return Err(LibraryError::Stopping);
            }
            patched.extend(self.patch_batch(batch, patch, &Expected::Any).await?);
        }
        Ok(patched)
    }

    async fn patch_batch(
        &self,
        ids: &[AssetId],
        patch: &AssetPatch,
        expected: &Expected,
    ) -> Result<Vec<AssetId>, LibraryError> {
        // Nobody else may write, or delete an asset, between the read and the change.
        let turn = self.accept.turn().await;
        let before = self.collection.store.assets(ids).await?;
        let mut changed = Vec::new();
        for before in &before {
            expected.check(before)?;
            let after = patch.applied(before)?;
            if after.name != before.name || after.metadata != before.metadata {
                changed.push(after);
            }
        }
        self.describe(&turn, &changed).await?;
        Ok(ids.iter().copied().filter(|id| before.iter().any(|asset| asset.id == *id)).collect())
    }

    /// Writes the paths, names and metadata of assets.
    pub(super) async fn describe(
        &self,
        _turn: &Accepting<'_>,
        records: &[AssetRecord],
    ) -> Result<(), LibraryError> {
        if records.is_empty() {
            return Ok(());
        }
        let described = self.collection.store.describe_assets(records).await?;
        for record in &described {
            self.collection.searched.catalog.put_asset(record);
            self.collection.life.tell(record.id);
        }
        let ticket = self.collection.note_put(&described).await?;
        self.collection.noted(ticket).await
    }
}
