//! Rebuilds a library whose store has lost acknowledged changes, from the uploads and the ledger: every asset
//! gets its id, name and metadata back and is indexed again.

use std::path::{Path, PathBuf};

use crate::collection::{LibraryError, tracks, utf8};
use crate::embed::Embedder;
use crate::files::{Quarantine, Uploads};
use crate::ledger::{AssetEntry, Replay, WorkKind};
use crate::sqlite::FILES;
use crate::store::{AssetFacts, NewAsset, Store, StoreError};
use crate::types::{AssetId, TrackChoice};

/// How many lost assets the log names; the rest are only counted.
const NAMED: usize = 20;
/// Hex digits of the content hash that name an asset whose name is lost.
const NAME_DIGITS: usize = 12;

/// Moves the store and its indexes to quarantine. They must not be open.
pub(super) fn put_store_aside(folder: &Path, quarantine: &Quarantine) -> std::io::Result<()> {
    // Clip ids restart from 1, so an index of the old store would mean other clips by the same ids.
    for name in FILES.into_iter().chain(["index"]) {
        let path = folder.join(name);
        if path.try_exists()? {
            quarantine.take(&path, "rebuilding the library from its uploads")?;
        }
    }
    Ok(())
}

/// The assets that the ledger names; without a ledger, one per uploaded file.
pub(super) fn entries(replay: &Replay, uploads: &Uploads) -> std::io::Result<Vec<AssetEntry>> {
    if replay.exists {
        return Ok(replay.live.values().cloned().collect());
    }
    let mut entries = Vec::new();
    for name in uploads.kept_names()? {
        let Some(sha256) = name.get(3..67) else { continue };
        let size_bytes =
            uploads.kept_file(&name).map_or(Ok(0), |path| path.metadata().map(|file| file.len()))?;
        entries.push(AssetEntry {
            id: AssetId::generate(),
            sha256: sha256.to_owned(),
            size_bytes,
            name: format!("recovered-{}", &sha256[..NAME_DIGITS]),
            upload: Some(name),
            path: None,
            metadata: serde_json::json!({}),
            created_unix_ms: crate::types::now_unix_ms(),
            choice: TrackChoice::default(),
        });
    }
    Ok(entries)
}

/// Accepts assets again under their own ids. The workers index them when they start.
pub(super) async fn take_up(
    store: &dyn Store,
    entries: Vec<AssetEntry>,
    uploads: &Uploads,
    embedder: &Embedder,
) -> Result<(), LibraryError> {
    let segmentation = tracks::segmentation(embedder);
    let (mut taken, mut missing) = (0_usize, Vec::new());
    for entry in entries {
        let Some(path) = place_of(&entry, uploads) else {
            missing.push(format!("{} ({})", entry.name, entry.id));
            continue;
        };
        let id = entry.id;
        let accepted = store
            .begin_asset(NewAsset {
                given: Some((entry.id, entry.created_unix_ms)),
                sha256: entry.sha256,
                model: embedder.bundle().id().clone(),
                segmentation: format!("{segmentation}{}", entry.choice.key()),
                choice: entry.choice,
                name: entry.name,
                path: utf8(&path)?,
                owned: entry.upload.is_some(),
                size_bytes: entry.size_bytes,
                metadata: entry.metadata,
            })
            .await;
        match accepted {
            Ok((_, true)) => taken += 1,
            // The same bytes exist under another id.
            Ok((_, false)) => {}
            // A damaged row is in the way; reading it reports it.
            Err(StoreError::Database(why)) => {
                tracing::error!(asset = %id, why, "cannot index an asset again")
            }
            Err(error) => return Err(error.into()),
        }
    }
    if taken > 0 {
        tracing::warn!(assets = taken, "indexing assets again that the store had lost");
    }
    if !missing.is_empty() {
        let named = missing.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        tracing::error!(
            assets = missing.len(),
            named,
            "some assets are lost: their files are missing or truncated"
        );
    }
    Ok(())
}

/// Restores acknowledged values to assets whose rows differ from the ledger.
pub(super) async fn mend(
    store: &dyn Store,
    altered: &[AssetEntry],
    uploads: &Uploads,
) -> Result<(), LibraryError> {
    for entry in altered {
        let kept = entry.upload.as_deref().and_then(|name| uploads.kept_file(name));
        let Some(path) = kept.or_else(|| entry.path.as_ref().map(PathBuf::from)) else { continue };
        tracing::warn!(asset = %entry.id, name = entry.name, "repaired a damaged row from the ledger");
        store
            .mend_asset(&AssetFacts {
                id: entry.id,
                sha256: entry.sha256.clone(),
                size_bytes: entry.size_bytes,
                path: utf8(&path)?,
                owned: entry.upload.is_some(),
                name: entry.name.clone(),
                metadata: entry.metadata.clone(),
                created_unix_ms: entry.created_unix_ms,
            })
            .await?;
    }
    Ok(())
}

/// Path of an asset's bytes; `None` if they are missing or have another size.
fn place_of(entry: &AssetEntry, uploads: &Uploads) -> Option<PathBuf> {
    match (&entry.upload, &entry.path) {
        (Some(name), _) => {
            let path = uploads.kept_file(name)?;
            let whole = path.metadata().is_ok_and(|file| file.is_file() && file.len() == entry.size_bytes);
            whole.then_some(path)
        }
        // Indexing reports whether the user's file exists.
        (None, Some(path)) => Some(PathBuf::from(path)),
        (None, None) => None,
    }
}

/// Logs what cannot be rebuilt because only the store had all of it.
pub(super) fn tell_lost_work(replay: &Replay) {
    for (kind, what) in [
        (WorkKind::Job, "jobs, including finished ones"),
        (WorkKind::StandingQuery, "standing queries"),
        (WorkKind::Watch, "watched folders"),
        (WorkKind::RetentionRules, "retention rules"),
    ] {
        let ids: Vec<&str> =
            replay.work.iter().filter(|(of, _)| *of == kind).map(|(_, id)| id.as_str()).collect();
        if !ids.is_empty() {
            let named = ids.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
            tracing::error!(count = ids.len(), named, "{what} cannot be rebuilt: set them up again");
        }
    }
}
