//! A model beside the serving one: it embeds the same assets from the same bytes, under the same ids, and
//! follows every change.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use serde::Serialize;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::active::Claim;
use super::{Library, LibraryError};
use crate::model::Priority;
use crate::store::{AssetRecord, AssetState, NewAsset, StoreError};
use crate::types::AssetId;

/// Assets per page of a full comparison.
const PAGE: u32 = 1000;
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Progress of an additional model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Progress {
    /// Whether it has embedded all assets of the serving model.
    pub caught_up: bool,
    /// Number of assets it has embedded.
    pub assets: usize,
    /// Number of assets of the serving model.
    pub assets_total: usize,
}

/// How far a follower has got.
#[derive(Debug, Default)]
pub(super) struct Follower {
    caught_up: AtomicBool,
    error: Mutex<Option<String>>,
}

impl Follower {
    pub(super) fn caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Acquire)
    }

    /// Why the follower is stuck, if it is.
    pub(super) fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, outcome: &Result<(), LibraryError>) {
        let text = outcome.as_ref().err().map(ToString::to_string);
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// Follows whichever library serves, until stopped.
    pub(super) async fn run(
        &self,
        side: Arc<Library>,
        mut serving: watch::Receiver<Arc<Library>>,
        stop: CancellationToken,
    ) {
        while side.disk.writable(&stop).await {
            let primary = Arc::clone(&serving.borrow_and_update());
            // Subscribe before comparing, so that no change is missed in between.
            let changes = primary.changes.subscribe();
            let outcome = self.keep_up(&side, &primary, changes, &mut serving, &stop).await;
            self.caught_up.store(false, Ordering::Release);
            self.note(&outcome);
            if let Err(error) =
                outcome.or_else(|error| if primary.disk.refuses(&error) { Ok(()) } else { Err(error) })
            {
                tracing::warn!(model = side.embedder.bundle().name(), %error, "an additional model cannot keep up");
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }

    /// Follows one library until stopped, until another library serves, or until too many changes were
    /// missed.
    async fn keep_up(
        &self,
        side: &Arc<Library>,
        primary: &Arc<Library>,
        mut changes: broadcast::Receiver<AssetId>,
        serving: &mut watch::Receiver<Arc<Library>>,
        stop: &CancellationToken,
    ) -> Result<(), LibraryError> {
        let differing = side.differing(primary).await?;
        side.mirror_all(primary, differing, stop).await?;
        loop {
            self.note(&Ok(()));
            self.caught_up.store(true, Ordering::Release);
            let first = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = serving.changed() => { let _ = changed; return Ok(()) },
                change = changes.recv() => match change {
                    Ok(id) => id,
                    // Too far behind, or the library has gone: compare everything again.
                    Err(_) => return Ok(()),
                },
            };
            self.caught_up.store(false, Ordering::Release);
            let mut ids = HashSet::from([first]);
            while let Ok(id) = changes.try_recv() {
                ids.insert(id);
            }
            side.mirror_all(primary, ids.into_iter().collect(), stop).await?;
        }
    }
}

impl Library {
    /// Assets that `primary` has and this library lacks, failed on or describes differently, and those that
    /// `primary` lacks.
    pub(super) async fn differing(&self, primary: &Self) -> Result<Vec<AssetId>, LibraryError> {
        let mut gone: HashSet<AssetId> = self.catalog.assets().iter().map(|asset| asset.id).collect();
        let mut differing = Vec::new();
        let mut after = None;
        loop {
            let page = primary.store.list_assets(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            let ids: Vec<AssetId> = page.iter().map(|asset| asset.id).collect();
            let own = self.store.assets(&ids).await?;
            for asset in &page {
                gone.remove(&asset.id);
                let mine = own.iter().find(|mine| mine.id == asset.id);
                if mine.is_none_or(|mine| is_behind(mine, asset) || is_described_otherwise(mine, asset)) {
                    differing.push(asset.id);
                }
            }
        }
        differing.extend(gone);
        Ok(differing)
    }

    /// Brings assets to their state in `primary`, several in parallel.
    pub(super) async fn mirror_all(
        self: &Arc<Self>,
        primary: &Arc<Self>,
        ids: Vec<AssetId>,
        stop: &CancellationToken,
    ) -> Result<(), LibraryError> {
        let width = self.config.ingest_workers.max(1);
        let one = |id| {
            let (side, primary, stop) = (Arc::clone(self), Arc::clone(primary), stop.clone());
            async move { if stop.is_cancelled() { Ok(()) } else { side.mirror(&primary, id, &stop).await } }
        };
        let mut outcomes = futures::stream::iter(ids.into_iter().map(one)).buffer_unordered(width);
        let mut first = Ok(());
        while let Some(outcome) = outcomes.next().await {
            if first.is_ok() {
                first = outcome;
            }
        }
        first
    }

    async fn mirror(
        &self,
        primary: &Self,
        id: AssetId,
        stop: &CancellationToken,
    ) -> Result<(), LibraryError> {
        let theirs = match primary.store.asset(id).await {
            Ok(theirs) => theirs,
            Err(StoreError::NotFound(_)) => return gone(self.delete_asset(id).await),
            Err(error) => return Err(error.into()),
        };
        // A change follows when it is done.
        if theirs.state == AssetState::Indexing {
            return Ok(());
        }
        match self.store.asset(id).await {
            Ok(mine) if !is_behind(&mine, &theirs) => {
                if is_described_otherwise(&mine, &theirs) {
                    let _serial = self.accept_lock.lock().await;
                    self.describe(std::slice::from_ref(&theirs)).await?;
                }
                return Ok(());
            }
            Ok(_) | Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        // A file damaged since it was indexed must not be embedded as if it were intact.
        let damaged = primary.open_content(&theirs).await.err();
        let Some((claim, record)) = self.accept_from(&theirs).await? else { return Ok(()) };
        if let Some(error @ LibraryError::ContentDamaged { .. }) = damaged {
            self.give_up(record.id, &error).await;
            drop(claim);
            return Ok(());
        }
        match self.embed_asset(claim, record, Priority::Bulk, stop).await {
            Ok(_) | Err(LibraryError::Cancelled | LibraryError::Stopping) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Accepts another model's asset under the same id; `None` if it is known or being indexed.
    pub(super) async fn accept_from(
        &self,
        theirs: &AssetRecord,
    ) -> Result<Option<(Claim, AssetRecord)>, LibraryError> {
        let _serial = self.accept_lock.lock().await;
        if self.active.by_id(theirs.id).is_some() {
            return Ok(None);
        }
        let new = NewAsset {
            given: Some((theirs.id, theirs.created_unix_ms)),
            sha256: theirs.sha256.clone(),
            model: self.embedder.bundle().id().clone(),
            segmentation: format!("{}{}", self.segmentation, theirs.choice.key()),
            choice: theirs.choice,
            name: theirs.name.clone(),
            path: theirs.path.clone(),
            owned: theirs.owned,
            size_bytes: theirs.size_bytes,
            metadata: theirs.metadata.clone(),
        };
        let (record, is_new) = self.store.begin_asset(new).await?;
        if !is_new {
            return Ok(None);
        }
        self.catalog.drop_clips(record.id);
        self.catalog.put_asset(&record);
        let claim = self.active.claim(record.id, &record.content_key(), &self.stop);
        Ok(Some((claim, record)))
    }
}

fn gone(outcome: Result<(), LibraryError>) -> Result<(), LibraryError> {
    match outcome {
        Err(LibraryError::Store(StoreError::NotFound(_))) => Ok(()),
        outcome => outcome,
    }
}

/// Whether its file has moved, or its name or metadata have changed.
fn is_described_otherwise(mine: &AssetRecord, theirs: &AssetRecord) -> bool {
    mine.path != theirs.path || mine.name != theirs.name || mine.metadata != theirs.metadata
}

/// Whether mine is unfinished, or failed before theirs was retried.
fn is_behind(mine: &AssetRecord, theirs: &AssetRecord) -> bool {
    match mine.state {
        AssetState::Indexing => true,
        AssetState::Failed => {
            theirs.state != AssetState::Failed && theirs.updated_unix_ms > mine.updated_unix_ms
        }
        AssetState::Ready | AssetState::Partial => false,
    }
}
