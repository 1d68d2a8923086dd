//! Accepts files: durably, once for the same bytes.

use std::path::Path;
use std::sync::Arc;

use super::active::{Active, Claim};
use super::{Accepting, Ingest, IngestSource};
use crate::collection::{LibraryError, blocking, read_whole, utf8};
use crate::fail_points::crash_point;
use crate::files::{Content, hash_file};
use crate::jobs::Place;
use crate::ledger::Ticket;
use crate::store::{AssetRecord, NewAsset, StoreError, content_key};
use crate::types::AssetId;

/// Outcome of `accept`.
pub(crate) enum Accepted<C> {
    /// New bytes, with what `claimed` made of the claim.
    New(C, AssetRecord),
    /// Another task is indexing these bytes.
    Running(Arc<Active>, AssetRecord),
    /// The bytes were indexed before.
    Known(AssetRecord),
}

/// Who may accept some bytes now.
enum Turn<'a> {
    /// The caller: nothing else runs for them.
    Free(Accepting<'a>),
    /// The caller, who takes over an asset that was about to be removed.
    WantedAgain(Accepting<'a>, Claim, AssetRecord),
    /// Nobody: another task is indexing them.
    Running(Arc<Active>, AssetRecord),
}

/// The content of a source and, if it was read here, when its file changed last.
async fn content_of(source: &IngestSource) -> Result<(Content, Option<i64>), LibraryError> {
    if let Some(content) = &source.content {
        return Ok((content.clone(), None));
    }
    let path = source.path.clone();
    let (content, changed) = blocking(move || Ok(hash_file(&path)?)).await?;
    Ok((content, Some(changed)))
}

impl Ingest {
    /// Accepts a file durably (hash, stored bytes, store row) without embedding it yet. For new bytes,
    /// `claimed` receives the claim while the lock is still held. Set `promise` if the caller does not wait
    /// but has promised that the file will be indexed.
    pub(crate) async fn accept<C>(
        &self,
        source: &IngestSource,
        promise: bool,
        claimed: impl FnOnce(Claim, &AssetRecord) -> C,
    ) -> Result<Accepted<C>, LibraryError> {
        let (accepted, ticket) = self.accept_in_turn(source, promise, claimed).await?;
        // Outside the lock: callers that wait for the disk share one sync.
        self.collection.noted(ticket).await?;
        if let Accepted::Known(record) = &accepted
            && !source.owned
        {
            self.retire_replaced(&source.path, record.id).await?;
        }
        Ok(accepted)
    }

    async fn accept_in_turn<C>(
        &self,
        source: &IngestSource,
        promise: bool,
        claimed: impl FnOnce(Claim, &AssetRecord) -> C,
    ) -> Result<(Accepted<C>, Option<Ticket>), LibraryError> {
        if self.collection.life.stop.is_cancelled() {
            return Err(LibraryError::Stopping);
        }
        let (content, changed) = content_of(source).await?;
        let segmentation = format!("{}{}", self.collection.segmentation(), source.choice.key());
        let key = content_key(&content.sha256, source.choice);
        let kept = source.owned.then(|| self.collection.data.uploads.path_of(&content.sha256, &segmentation));
        let path = kept.as_ref().unwrap_or(&source.path);
        let new = NewAsset {
            given: None,
            sha256: content.sha256.clone(),
            model: self.collection.embedder.bundle().id().clone(),
            segmentation,
            choice: source.choice,
            name: source.name.clone(),
            path: utf8(path)?,
            owned: source.owned,
            size_bytes: content.size_bytes,
            metadata: source.metadata.clone(),
        };

        let turn = match self.turn_for(&key, promise).await? {
            Turn::Free(turn) => turn,
            Turn::WantedAgain(_turn, claim, record) => {
                return Ok((Accepted::New(claimed(claim, &record), record), None));
            }
            Turn::Running(active, record) => return Ok((Accepted::Running(active, record), None)),
        };
        if self.collection.life.stop.is_cancelled() {
            return Err(LibraryError::Stopping);
        }
        if let Some(kept) = &kept {
            self.keep(&source.path, kept).await?;
        }
        let (mut record, is_new) = self.collection.store.begin_asset(new).await?;
        if let Some(changed) = changed {
            self.collection.content_seen(&mut record, &source.path, changed).await;
        }
        crash_point!("upload-committed");
        if is_new {
            let ticket = self.note_new(&record).await?;
            let claim = self.active.claim(record.id, &key, &self.collection.life.stop);
            return Ok((Accepted::New(claimed(claim, &record), record), ticket));
        }
        if kept.as_deref().is_some_and(|kept| kept == Path::new(&record.path)) {
            self.collection.content_renewed(&record).await;
        }
        if let Some(kept) = kept.filter(|kept| record.path.as_str() != kept.as_os_str()) {
            // The library has these bytes under a user's path, so it does not need its own copy.
            self.remove_kept(&turn, &kept).await?;
        }
        Ok((Accepted::Known(self.relocated(&turn, record, source).await?), None))
    }

    /// Takes the turn to accept these bytes. Between the check for running work and the claim, no other
    /// caller may claim the same bytes, and no deletion may remove the file that is being stored.
    async fn turn_for(&self, key: &str, promise: bool) -> Result<Turn<'_>, LibraryError> {
        loop {
            let turn = self.accept.turn().await;
            let Some(active) = self.active.by_content(key) else { return Ok(Turn::Free(turn)) };
            // Its removal was waiting for disk space; now it is wanted again.
            if let Some((claim, record)) = self.unwanted.take(&turn, active.id) {
                return Ok(Turn::WantedAgain(turn, claim, record));
            }
            match self.collection.store.asset(active.id).await {
                Ok(record) => {
                    if promise {
                        active.promise(&turn);
                    }
                    return Ok(Turn::Running(active, record));
                }
                // Cancelled and just removed: in a moment these bytes are new.
                Err(StoreError::NotFound(_)) => {
                    drop(turn);
                    active.done.cancelled().await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Moves an uploaded file to its place.
    async fn keep(&self, from: &Path, to: &Path) -> Result<(), LibraryError> {
        let uploads = Arc::clone(&self.collection.data.uploads);
        let (from, kept) = (from.to_owned(), to.to_owned());
        blocking(move || Ok(uploads.keep(&from, &kept)?)).await?;
        self.collection.data.keeper.pins.needed_again(to);
        Ok(())
    }

    /// Puts a new asset into the catalog and the ledger.
    async fn note_new(&self, record: &AssetRecord) -> Result<Option<Ticket>, LibraryError> {
        // A failed asset of the same bytes may remain, under the same id.
        self.collection.searched.catalog.drop_clips(record.id);
        self.collection.searched.catalog.put_asset(record);
        let noted = self.collection.note_put(std::slice::from_ref(record)).await;
        if noted.is_err() {
            // The caller gets an error. If the asset cannot be removed either, the next start indexes it.
            let _ = self.collection.store.delete_asset(record.id).await;
            self.collection.searched.catalog.remove_asset(record.id);
        }
        noted
    }

    /// Recognises a moved file by its bytes: its asset gets the new path.
    async fn relocated(
        &self,
        turn: &Accepting<'_>,
        mut record: AssetRecord,
        source: &IngestSource,
    ) -> Result<AssetRecord, LibraryError> {
        let path = utf8(&source.path)?;
        // The old path may have another file by now.
        if record.owned
            || source.owned
            || record.path == path
            || self.collection.open_content(&record).await.is_ok()
        {
            return Ok(record);
        }
        if record.name == Place::of(&record.path).name() {
            record.name.clone_from(&source.name);
        }
        record.path = path;
        self.describe(turn, std::slice::from_ref(&record)).await?;
        // The asset has another file now: check it before it is served.
        if let Err(error) = self.collection.open_content(&record).await {
            tracing::debug!(asset = %record.id, %error, "cannot read a file that was moved");
        }
        Ok(self.collection.store.asset(record.id).await?)
    }

    /// Removes what was indexed from a path whose bytes have since been replaced. If the older bytes also
    /// exist at another path, their asset moves to that path.
    pub(crate) async fn retire_replaced(&self, path: &Path, by: AssetId) -> Result<(), LibraryError> {
        let path = utf8(path)?;
        for old in self.collection.store.assets_at(&path).await?.into_iter().filter(|old| old.id != by) {
            let new = self.collection.store.asset(by).await?;
            // The same bytes, cut into clips differently; or another task works on the asset and handles it
            // then.
            if old.sha256 == new.sha256
                || self.active.by_id(old.id).is_some()
                || self.moved_elsewhere(&old).await?
            {
                continue;
            }
            tracing::info!(asset = %old.id, by = %by, path, "removing the clips of a file that has changed");
            match self.delete_asset(old.id).await {
                Ok(()) | Err(LibraryError::Store(StoreError::NotFound(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn moved_elsewhere(&self, old: &AssetRecord) -> Result<bool, LibraryError> {
        for path in
            self.collection.store.asset_paths(old.id).await?.into_iter().filter(|path| *path != old.path)
        {
            let Ok(path) = self.collection.data.allowed_path(path.as_ref()).and_then(|path| utf8(&path))
            else {
                continue;
            };
            let there = AssetRecord { path, ..old.clone() };
            let (look, stop) = (there.clone(), self.collection.life.stop.clone());
            let read = blocking(move || read_whole(&look, 0, &stop)).await?;
            if read.is_some_and(|read| read.note.damage.is_none()) {
                let turn = self.accept.turn().await;
                self.describe(&turn, std::slice::from_ref(&there)).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
