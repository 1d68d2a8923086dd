//! Brings the assets of a model beside to their state in the serving model, from the same bytes and under the same ids.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::Ingest;
use super::active::Claim;
use crate::collection::LibraryError;
use crate::model::Priority;
use crate::store::{AssetRecord, AssetState, NewAsset, StoreError};
use crate::types::AssetId;

/// Assets per page of a full comparison.
const PAGE: u32 = 1000;

impl Ingest {
    /// Assets that `primary` has and this library lacks, failed on or describes differently, and those that
    /// `primary` lacks.
    pub(crate) async fn differing(&self, primary: &Self) -> Result<Vec<AssetId>, LibraryError> {
        let mut gone: HashSet<AssetId> =
            self.collection.searched.catalog.assets().iter().map(|asset| asset.id).collect();
        let mut differing = Vec::new();
        let mut after = None;
        loop {
            let page = primary.collection.store.list_assets(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            let ids: Vec<AssetId> = page.iter().map(|asset| asset.id).collect();
            let own = self.collection.store.assets(&ids).await?;
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
    pub(crate) async fn mirror_all(
        self: &Arc<Self>,
        primary: &Arc<Self>,
        ids: Vec<AssetId>,
        stop: &CancellationToken,
    ) -> Result<(), LibraryError> {
        let width = self.collection.data.config.ingest_workers.max(1);
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
        let theirs = match primary.collection.store.asset(id).await {
            Ok(theirs) => theirs,
            Err(StoreError::NotFound(_)) => return gone(self.delete_asset(id).await),
            Err(error) => return Err(error.into()),
        };
        // A change follows when it is done.
        if theirs.state == AssetState::Indexing {
            return Ok(());
        }
        match self.collection.store.asset(id).await {
            Ok(mine) if !is_behind(&mine, &theirs) => {
                if is_described_otherwise(&mine, &theirs) {
                    let turn = self.accept.turn().await;
                    self.describe(&turn, std::slice::from_ref(&theirs)).await?;
                }
                return Ok(());
            }
            Ok(_) | Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        // A file damaged since it was indexed must not be embedded as if it were intact.
        let damaged = primary.collection.open_content(&theirs).await.err();
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
    pub(crate) async fn accept_from(
        &self,
        theirs: &AssetRecord,
    ) -> Result<Option<(Claim, AssetRecord)>, LibraryError> {
        let _turn = self.accept.turn().await;
        if self.active.by_id(theirs.id).is_some() {
            return Ok(None);
        }
        let new = NewAsset {
            given: Some((theirs.id, theirs.created_unix_ms)),
            sha256: theirs.sha256.clone(),
            model: self.collection.embedder.bundle().id().clone(),
            segmentation: format!("{}{}", self.collection.segmentation(), theirs.choice.key()),
            choice: theirs.choice,
            name: theirs.name.clone(),
            path: theirs.path.clone(),
            owned: theirs.owned,
            size_bytes: theirs.size_bytes,
            metadata: theirs.metadata.clone(),
        };
        let (record, is_new) = self.collection.store.begin_asset(new).await?;
        if !is_new {
            return Ok(None);
        }
        self.collection.searched.catalog.drop_clips(record.id);
        self.collection.searched.catalog.put_asset(&record);
        let claim = self.active.claim(record.id, &record.content_key(), &self.collection.life.stop);
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
