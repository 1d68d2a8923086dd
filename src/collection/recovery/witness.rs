//! Store and ledger: both record acknowledged changes, and startup compares them.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::{opened_store, rebuild};
use crate::collection::{LibraryError, blocking};
use crate::embed::Embedder;
use crate::files::{Disk, Quarantine, Shortfall, Uploads, kept_name, move_away, shortfall_of, stray_log};
use crate::ledger::{AssetEntry, Entry, LEDGER, Ledger, Replay, WorkKind};
use crate::sqlite::SqliteStore;
use crate::store::{AssetRecord, EmbeddedStore, Store, StoreError};
use crate::types::AssetId;

/// Assets read per page.
const PAGE: u32 = 1000;
/// Number of user settings, finished jobs included, above which the ledger is rewritten at startup.
const MAX_WORK: usize = 1000;

/// The assets of a store, compared with the ledger.
#[derive(Debug, Default)]
pub(in crate::collection) struct Census {
    ids: HashSet<AssetId>,
    /// Assets that the ledger describes differently, as in the ledger.
    altered: Vec<AssetEntry>,
}

impl Census {
    pub(in crate::collection) async fn of(store: &dyn Store, replay: &Replay) -> Result<Self, LibraryError> {
        let (mut census, mut after) = (Self::default(), None);
        loop {
            let page = store.list_assets(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(census) };
            after = Some(last.id);
            for asset in page {
                census.ids.insert(asset.id);
                let noted = replay.live.get(&asset.id).filter(|noted| is_altered(&asset, noted));
                census.altered.extend(noted.cloned());
            }
        }
    }
}

/// Names, beneath `uploads/`, of the files that assets own. Includes files of rows that cannot be read, or
/// whose path is damaged.
async fn owned_uploads(store: &dyn Store, replay: &Replay) -> Result<HashSet<String>, LibraryError> {
    let stored = store.owned_paths().await?;
    let stored = stored.iter().filter_map(|path| kept_name(path.as_ref()));
    Ok(stored.chain(replay.live.values().filter_map(|asset| asset.upload.clone())).collect())
}

/// Whether a row differs from what was acknowledged. The folder of uploads may have moved.
fn is_altered(asset: &AssetRecord, noted: &AssetEntry) -> bool {
    let upload = asset.owned.then(|| kept_name(asset.path.as_ref())).flatten();
    asset.owned != noted.upload.is_some()
        || upload != noted.upload
        || noted.path.as_ref().is_some_and(|path| *path != asset.path)
        || asset.sha256 != noted.sha256
        || asset.size_bytes != noted.size_bytes
        || asset.name != noted.name
        || asset.metadata != noted.metadata
        || asset.created_unix_ms != noted.created_unix_ms
}

/// The verdict on a store after the comparison with the ledger.
#[derive(Debug, PartialEq)]
pub(in crate::collection) enum Verdict {
    /// The store has all that was acknowledged.
    Whole,
    /// The store has the latest changes, but earlier rows were lost or altered by damage.
    Damaged {
        /// Assets that the store lacks.
        missing: Vec<AssetEntry>,
        /// Altered assets, as they were acknowledged.
        altered: Vec<AssetEntry>,
    },
    /// The store lacks acknowledged changes.
    Behind(Shortfall),
}

/// Compares a store with the ledger. `holds_uploads`: whether there are uploaded files.
pub(in crate::collection) async fn compare(
    store: &dyn Store,
    replay: &Replay,
    census: &Census,
    holds_uploads: bool,
) -> Result<Verdict, LibraryError> {
    let stored = store.acknowledged().await?;
    let missing: Vec<_> =
        replay.live.values().filter(|asset| !census.ids.contains(&asset.id)).cloned().collect();
    let shortfall = Shortfall { acknowledged: replay.acknowledged, stored, missing_assets: missing.len() };
    // A new database beside uploads without a ledger: the old database is gone.
    if !replay.exists && stored == 0 && census.ids.is_empty() && holds_uploads {
        return Ok(Verdict::Behind(shortfall));
    }
    if stored < replay.acknowledged {
        return Ok(Verdict::Behind(shortfall));
    }
    // A store that is ahead has committed a deletion that did not reach the ledger before a crash.
    if stored > replay.acknowledged || (missing.is_empty() && census.altered.is_empty()) {
        return Ok(Verdict::Whole);
    }
    Ok(Verdict::Damaged { missing, altered: census.altered.clone() })
}

/// The parts of an opened data folder.
pub(in crate::collection) struct Opened {
    pub(in crate::collection) store: Arc<dyn EmbeddedStore>,
    pub(in crate::collection) uploads: Arc<Uploads>,
    pub(in crate::collection) ledger: Arc<Ledger>,
}

/// Opens the store in `folder`, compares it with the ledger, rebuilds it if that is allowed and necessary,
/// and clears out files that no asset owns. The caller holds the data folder's lock.
pub(in crate::collection) async fn open_store(
    rebuild_wanted: bool,
    data_dir: &Path,
    folder: &Path,
    embedder: &Embedder,
    quarantine: &Quarantine,
    disk: &Disk,
) -> Result<Opened, LibraryError> {
    let (replay, uploads) = {
        let data_dir = data_dir.to_owned();
        blocking(move || Ok((Ledger::read(&data_dir)?, Uploads::of(&data_dir)?))).await?
    };
    let rebuild = Rebuild { wanted: rebuild_wanted, data_dir, folder, embedder, quarantine };
    let store: Arc<dyn EmbeddedStore> = Arc::new(rebuild.open(&replay, &uploads).await?);
    let owned = owned_uploads(store.as_ref(), &replay).await?;
    let kept: HashSet<String> = uploads.kept_names()?.into_iter().collect();
    let missing = owned.difference(&kept).count();
    if missing > 0 {
        tracing::error!(missing, of = owned.len(), "uploads are missing: is their disk mounted?");
    }
    let uploads = Arc::new(uploads);
    {
        let (uploads, deleted, quarantine) =
            (Arc::clone(&uploads), replay.deleted_uploads.clone(), quarantine.clone());
        blocking(move || Ok(uploads.clear_unowned(&owned, &deleted, &quarantine)?)).await?;
    }
    let ledger = match settle(store.as_ref(), &replay, data_dir, quarantine).await {
        Err(error) => match error.storage_full() {
            Some(full) => {
                disk.owe_start(full);
                Ledger::unwritten(data_dir)
            }
            None => return Err(error),
        },
        Ok(ledger) => ledger,
    };
    Ok(Opened { store, uploads, ledger: Arc::new(ledger) })
}

/// Repairs or rebuilds a store that has lost something.
struct Rebuild<'a> {
    wanted: bool,
    data_dir: &'a Path,
    folder: &'a Path,
    embedder: &'a Embedder,
    quarantine: &'a Quarantine,
}

impl Rebuild<'_> {
    /// Opens a store that has everything acknowledged.
    async fn open(&self, replay: &Replay, uploads: &Uploads) -> Result<SqliteStore, LibraryError> {
        let holds_uploads = !uploads.kept_names()?.is_empty();
        let looked = shortfall_of(self.data_dir, self.folder, replay, holds_uploads).await;
        let looked = readable(looked, self.wanted)?;
        if let Some(Some(shortfall)) = looked
            && !self.wanted
        {
            return Err(LibraryError::StoreBehind(shortfall));
        }
        // Not earlier: a startup that refuses must change nothing.
        self.prepare(uploads).await?;
        match looked {
            // Move it to quarantine unchanged.
            None => return self.start_over(replay, uploads).await,
            Some(Some(shortfall)) => return self.behind(shortfall, replay, uploads).await,
            Some(None) => {}
        }
        let opened = match opened_store::open_model_store(self.folder, self.embedder).await {
            Err(LibraryError::Store(error)) => readable(Err(error), self.wanted)?,
            opened => Some(opened?),
        };
        let Some(store) = opened else { return self.start_over(replay, uploads).await };
        if self.wanted && is_damaged(&store).await? {
            store.close().await?;
            return self.start_over(replay, uploads).await;
        }
        let census = Census::of(&store, replay).await?;
        match compare(&store, replay, &census, holds_uploads).await? {
            Verdict::Whole => Ok(store),
            Verdict::Damaged { missing, altered } => {
                let mended = async {
                    rebuild::mend(&store, &altered, uploads).await?;
                    rebuild::take_up(&store, missing, uploads, self.embedder).await
                };
                match mended.await {
                    // The ledger still names them, so the next start tries again.
                    Err(error) if error.storage_full().is_some() => {
                        tracing::warn!(%error, "some assets remain missing")
                    }
                    outcome => outcome?,
                }
                Ok(store)
            }
            // Only if it could not be inspected before.
            Verdict::Behind(shortfall) => {
                if self.wanted {
                    store.close().await?;
                } else {
                    // Closing it would delete the write-ahead log. The process is about to end.
                    std::mem::forget(store);
                }
                self.behind(shortfall, replay, uploads).await
            }
        }
    }

    /// Removes leftovers of earlier startups.
    async fn prepare(&self, uploads: &Uploads) -> Result<(), LibraryError> {
        let (data_dir, folder) = (self.data_dir.to_owned(), self.folder.to_owned());
        let (uploads, quarantine) = (uploads.clone(), self.quarantine.clone());
        blocking(move || {
            crate::ledger::remove_leftovers(&data_dir)?;
            uploads.prepare(&quarantine)?;
            if let Some(log) = stray_log(&folder) {
                move_away(&quarantine, &log, "its database is missing");
            }
            Ok(())
        })
        .await
    }

    async fn behind(
        &self,
        shortfall: Shortfall,
        replay: &Replay,
        uploads: &Uploads,
    ) -> Result<SqliteStore, LibraryError> {
        if !self.wanted {
            return Err(LibraryError::StoreBehind(shortfall));
        }
        tracing::error!(%shortfall, "the store is behind the ledger");
        self.start_over(replay, uploads).await
    }

    async fn start_over(&self, replay: &Replay, uploads: &Uploads) -> Result<SqliteStore, LibraryError> {
        rebuild::put_store_aside(self.folder, self.quarantine)?;
        let store = opened_store::open_model_store(self.folder, self.embedder).await?;
        rebuild::take_up(&store, rebuild::entries(replay, uploads)?, uploads, self.embedder).await?;
        rebuild::tell_lost_work(replay);
        Ok(store)
    }
}

/// The contents of the store; `None` if it is damaged and may be rebuilt. Nothing else is damage: a lack of
/// descriptors, memory or rights is temporary, and a newer version can read its own database.
fn readable<T>(read: Result<T, StoreError>, rebuild_wanted: bool) -> Result<Option<T>, LibraryError> {
    match read {
        Err(StoreError::Malformed(why)) if rebuild_wanted => {
            tracing::error!(why, "the store cannot be opened");
            Ok(None)
        }
        Err(StoreError::Malformed(why)) => Err(LibraryError::StoreUnreadable(why)),
        read => Ok(Some(read?)),
    }
}

/// Whether pages are damaged that a server may have found only while it ran.
async fn is_damaged(store: &SqliteStore) -> Result<bool, LibraryError> {
    let problems = match store.integrity().await {
        Err(StoreError::Malformed(why)) => vec![why],
        problems => problems?,
    };
    if let Some(first) = problems.first() {
        tracing::error!(problems = problems.len(), first, "the database is damaged");
    }
    Ok(!problems.is_empty())
}

/// Opens the ledger for appending, in agreement with the store. It is rewritten if it disagrees: after a
/// crash, after damage, or in a data folder of a version without a ledger.
pub(in crate::collection) async fn settle(
    store: &dyn Store,
    replay: &Replay,
    data_dir: &Path,
    quarantine: &Quarantine,
) -> Result<Ledger, LibraryError> {
    let stored = store.acknowledged().await?;
    if replay.damaged_lines > 0 {
        let reason =
            format!("{} of its lines are damaged; writing a new one from the store", replay.damaged_lines);
        quarantine.take(&data_dir.join(LEDGER), &reason)?;
    } else if replay.exists
        && stored == replay.acknowledged
        && replay.deleted_uploads.is_empty()
        && replay.work.len() <= MAX_WORK
    {
        let (data_dir, replay) = (data_dir.to_owned(), replay.clone());
        return blocking(move || Ok(Ledger::open(&data_dir, &replay)?)).await;
    }
    let ledger = Arc::new(Ledger::unwritten(data_dir));
    write(store, &ledger).await?;
    Arc::into_inner(ledger)
        .ok_or_else(|| std::io::Error::other("the ledger is in use by another process").into())
}

/// Rewrites the ledger from the store.
pub(in crate::collection) async fn write(
    store: &dyn Store,
    ledger: &Arc<Ledger>,
) -> Result<(), LibraryError> {
    let acknowledged = store.acknowledged().await?;
    let mut entries = Vec::new();
    let mut after = None;
    loop {
        let page = store.list_assets(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        entries.extend(page.iter().map(put));
    }
    entries.extend(work_entries(store).await?);
    let ledger = Arc::clone(ledger);
    blocking(move || Ok(ledger.write(acknowledged, &entries)?)).await
}

/// User settings in a store: everything that users created besides assets.
async fn work_entries(store: &dyn Store) -> Result<Vec<Entry>, LibraryError> {
    let work = |kind, id: String| Entry::Work { kind, id, exists: true };
    let mut entries = Vec::new();
    // Ended jobs are history; the others must still be done.
    entries.extend(store.unended_jobs().await?.into_iter().map(|id| work(WorkKind::Job, id.to_string())));
    entries
        .extend(store.list_watches().await?.iter().map(|watch| work(WorkKind::Watch, watch.id.to_string())));
    let mut after = None;
    loop {
        let page = store.list_standing(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        entries.extend(page.iter().map(|query| work(WorkKind::StandingQuery, query.id.to_string())));
    }
    if !store.retention_rules().await?.is_empty() {
        entries.push(work(WorkKind::RetentionRules, String::new()));
    }
    Ok(entries)
}

/// The ledger entry of an asset.
pub(in crate::collection) fn put(asset: &AssetRecord) -> Entry {
    let upload = asset.owned.then(|| kept_name(asset.path.as_ref())).flatten();
    let path = (!asset.owned).then(|| asset.path.clone());
    Entry::Put(AssetEntry {
        id: asset.id,
        sha256: asset.sha256.clone(),
        size_bytes: asset.size_bytes,
        upload,
        path,
        name: asset.name.clone(),
        metadata: asset.metadata.clone(),
        created_unix_ms: asset.created_unix_ms,
        choice: asset.choice,
    })
}

#[cfg(test)]
mod tests;
