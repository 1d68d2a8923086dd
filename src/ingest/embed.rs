//! Embeds accepted files clip by clip, and makes the clips searchable.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::accept::Accepted;
use super::active::Claim;
use super::retries::Tries;
use super::{Expected, Ingest, IngestReport, IngestSource, StageSecs, metrics};
use crate::collection::LibraryError;
use crate::embed::{AssetStream, EmbedError};
use crate::model::Priority;
use crate::preprocess::AssetSummary;
use crate::store::{AssetOutcome, AssetRecord, AssetState, NewClip, StoreError, WorkError};
use crate::types::AssetId;

/// Clips per transaction; each transaction costs one sync of the disk.
const BATCH_CLIPS: usize = 64;
/// Greatest age of a clip before it is committed, so that long files become searchable step by step.
const BATCH_AGE: Duration = Duration::from_millis(750);

/// How the stream of an asset's clips ended.
enum Ended {
    Complete(Option<AssetSummary>),
    Broken(EmbedError, Option<AssetSummary>),
    /// The file does not contain the accepted bytes.
    Damaged(LibraryError),
    Cancelled,
}

impl Ingest {
    /// Accepts, embeds, stores and indexes one file; returns when it is searchable. For a file that cannot be
    /// decoded, the report has an asset with the state `failed`, an error code and a message.
    ///
    /// # Errors
    /// [`LibraryError`] for faults of the server, not of the file.
    pub async fn ingest(
        &self,
        source: IngestSource,
        priority: Priority,
    ) -> Result<IngestReport, LibraryError> {
        self.ingest_until(source, priority, &CancellationToken::new()).await
    }

    /// Like `ingest`, with a token that cancels it.
    pub(crate) async fn ingest_until(
        &self,
        source: IngestSource,
        priority: Priority,
        cancel: &CancellationToken,
    ) -> Result<IngestReport, LibraryError> {
        loop {
            let known = match self.accept(&source, false, |claim, _| claim).await? {
                Accepted::New(claim, record) => {
                    return self.embed_asset(claim, record, priority, cancel).await;
                }
                Accepted::Known(record) => record,
                Accepted::Running(active, _) => {
                    // Index a queued asset here: if every worker waited for the queue, no worker would be
                    // left to process it.
                    if let Some((claim, record)) = self.work.take(active.id) {
                        return self.embed_asset(claim, record, priority, cancel).await;
                    }
                    tokio::select! {
                        () = active.done.cancelled() => {}
                        () = cancel.cancelled() => return Err(LibraryError::Cancelled),
                    }
                    match self.collection.store.asset(active.id).await {
                        Ok(record) if record.state == AssetState::Indexing => {
                            if self.collection.life.stop.is_cancelled() {
                                return Err(LibraryError::Stopping);
                            }
                            // The other worker failed and put it back into the queue.
                            continue;
                        }
                        Ok(record) => record,
                        // The other worker was cancelled and removed the asset: now it is our turn.
                        Err(StoreError::NotFound(_)) => continue,
                        Err(error) => return Err(error.into()),
                    }
                }
            };
            return Ok(IngestReport { asset: known, new: false, stages: StageSecs::default() });
        }
    }

    /// Indexes a claimed asset until it is finished or given up. If the disk is full, or the decoder or the
    /// towers fail rather than the file, bulk work waits and starts over; an interactive caller gets the
    /// error, and its file is removed.
    pub(crate) async fn embed_asset(
        &self,
        claim: Claim,
        record: AssetRecord,
        priority: Priority,
        cancel: &CancellationToken,
    ) -> Result<IngestReport, LibraryError> {
        let mut tries = Tries::new(priority);
        loop {
            let embedded = self.embed_claimed(&claim, &record, priority, cancel, &tries).await;
            let Err(error) = &embedded else { return embedded };
            if self.collection.data.disk.refuses(error) && !self.collection.life.stop.is_cancelled() {
                let given_up = claim.active.cancel.is_cancelled() || cancel.is_cancelled();
                if priority == Priority::Interactive || given_up {
                    self.unwanted.push(claim, record);
                    return embedded;
                }
                tokio::select! {
                    _ = self.collection.data.disk.writable(cancel) => {}
                    () = claim.active.cancel.cancelled() => {}
                }
                // If this fails, the disk is full again and the next round handles it.
                match self.collection.drop_clips(record.id).await {
                    Err(error) if !self.collection.data.disk.refuses(&error) => return Err(error),
                    _ => {}
                }
                continue;
            }
            let LibraryError::Embed(error) = error else { return embedded };
            if priority == Priority::Interactive {
                self.hand_back(claim, &record).await?;
                return embedded;
            }
            self.wait_after(error, &mut tries, &claim, cancel).await;
            self.collection.drop_clips(record.id).await?;
        }
    }

    async fn embed_claimed(
        &self,
        claim: &Claim,
        record: &AssetRecord,
        priority: Priority,
        cancel: &CancellationToken,
        tries: &Tries,
    ) -> Result<IngestReport, LibraryError> {
        let began = Instant::now();
        let mut stages = StageSecs::default();
        let mut clips = 0;
        let streamed = self.stream_clips(claim, record, priority, cancel, &mut clips, &mut stages).await;
        let ended = match streamed {
            Ok(ended) => ended,
            Err(error) if error.storage_full().is_some() => return Err(error),
            Err(error) => {
                self.give_up(record.id, &error).await;
                return Err(error);
            }
        };
        if matches!(ended, Ended::Cancelled) {
            return Err(self.withdraw(record).await?);
        }
        let ended = match ended {
            Ended::Broken(error, _) if self.tries_again(&error, tries).await => return Err(error.into()),
            ended => ended,
        };
        let outcome = outcome(ended, clips);
        if outcome.state == AssetState::Failed {
            self.collection.drop_clips(record.id).await?;
        }
        // Take the lock that guards descriptions: otherwise the catalog might get the older record last.
        let turn = self.accept.turn().await;
        let asset = self.collection.store.finish_asset(record.id, outcome).await?;
        self.collection.searched.catalog.put_asset(&asset);
        drop(turn);
        self.collection.life.tell(asset.id);
        self.collection.life.searchable.notify_one();
        stages.total = began.elapsed().as_secs_f64();
        if self.collection.life.serves() {
            metrics::ingested(&asset, &stages);
        }
        if !asset.owned
            && self.collection.life.serves()
            && matches!(asset.state, AssetState::Ready | AssetState::Partial)
        {
            self.retire_replaced(asset.path.as_ref(), asset.id).await?;
        }
        Ok(IngestReport { asset, new: true, stages })
    }

    /// The error of a file that no longer contains the accepted bytes.
    async fn damage_of_content(&self, record: &AssetRecord) -> Option<LibraryError> {
        self.collection
            .open_content(record)
            .await
            .err()
            .filter(|error| matches!(error, LibraryError::ContentDamaged { .. }))
    }

    async fn stream_clips(
        &self,
        claim: &Claim,
        record: &AssetRecord,
        priority: Priority,
        cancel: &CancellationToken,
        clips: &mut u64,
        stages: &mut StageSecs,
    ) -> Result<Ended, LibraryError> {
        if let Some(error) = self.damage_of_content(record).await {
            return Ok(Ended::Damaged(error));
        }
        // Cancel only while waiting: a commit that has begun runs to its end, index included. Otherwise its
        // clips could reappear after they were withdrawn.
        let opened = tokio::select! {
            biased;
            () = claim.active.cancel.cancelled() => return Ok(Ended::Cancelled),
            () = cancel.cancelled() => return Ok(Ended::Cancelled),
            opened = self.collection.embedder.open_accepted(record.path.as_ref(), record.choice, priority) => opened,
        };
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(error) => return Ok(Ended::Broken(error, None)),
        };
        let mut batch = Vec::with_capacity(BATCH_CLIPS);
        let mut oldest = Instant::now();
        loop {
            let next = tokio::select! {
                biased;
                () = claim.active.cancel.cancelled() => return Ok(Ended::Cancelled),
                () = cancel.cancelled() => return Ok(Ended::Cancelled),
                next = stream.next() => next,
            };
            let clip = match next {
                Ok(Some(clip)) => clip,
                Ok(None) => {
                    *clips += self.commit(record.id, &mut batch, stages).await?;
                    let summary = finish_stages(&stream, stages);
                    // A user's file may have been written to while it was read.
                    let damage = if record.owned { None } else { self.damage_of_content(record).await };
                    return Ok(damage.map_or(Ended::Complete(summary), Ended::Damaged));
                }
                Err(error) => {
                    *clips += self.commit(record.id, &mut batch, stages).await?;
                    let summary = finish_stages(&stream, stages);
                    return Ok(Ended::Broken(error, summary));
                }
            };
            if batch.is_empty() {
                oldest = Instant::now();
            }
            batch.push(self.collection.new_clip(clip));
            if batch.len() >= BATCH_CLIPS || oldest.elapsed() >= BATCH_AGE {
                *clips += self.commit(record.id, &mut batch, stages).await?;
            }
        }
    }

    /// Commits a batch, then makes it searchable.
    async fn commit(
        &self,
        asset: AssetId,
        batch: &mut Vec<NewClip>,
        stages: &mut StageSecs,
    ) -> Result<u64, LibraryError> {
        if batch.is_empty() {
            return Ok(0);
        }
        let clips = std::mem::take(batch);
        let count = clips.len() as u64;
        let secs = self.collection.add_clips(asset, clips).await?;
        stages.store += secs.store;
        stages.index += secs.index;
        Ok(count)
    }

    /// Ends an asset after a fault of the server: nothing partial stays searchable, and the same bytes may be
    /// sent again.
    pub(crate) async fn give_up(&self, id: AssetId, error: &LibraryError) {
        let outcome = AssetOutcome {
            state: AssetState::Failed,
            kind: None,
            duration_secs: 0.0,
            width: 0,
            height: 0,
            error: Some(WorkError::new(error.code(), error.user_message())),
            tracks: Vec::new(),
        };
        let cleaned = match self.collection.drop_clips(id).await {
            Ok(()) => {
                self.collection.store.finish_asset(id, outcome).await.map(|_| ()).map_err(LibraryError::from)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = cleaned {
            // It stays in `indexing`, and the next start resumes it.
            tracing::error!(asset = %id, %error, "could not clean up an asset");
        }
    }

    /// Ends a cancelled asset. At a shutdown, it waits without clips for the next start; otherwise it is
    /// removed.
    async fn withdraw(&self, record: &AssetRecord) -> Result<LibraryError, LibraryError> {
        if self.collection.life.stop.is_cancelled() {
            self.collection.drop_clips(record.id).await?;
            return Ok(LibraryError::Stopping);
        }
        self.remove_asset(record, &Expected::Any).await?;
        Ok(LibraryError::Cancelled)
    }
}

fn finish_stages(stream: &AssetStream, stages: &mut StageSecs) -> Option<AssetSummary> {
    stages.inference = stream.inference_secs();
    let summary = stream.summary();
    if let Some(summary) = &summary {
        stages.decode = summary.decode_cpu_secs;
        stages.preprocess = summary.preprocess_secs;
    }
    summary
}

fn outcome(ended: Ended, clips: u64) -> AssetOutcome {
    let (state, error, summary) = match ended {
        Ended::Complete(summary) if clips == 0 => {
            let sentence = "this file has no track that the model can embed".to_owned();
            (AssetState::Failed, Some(WorkError::new("nothing_to_index", sentence)), summary)
        }
        Ended::Complete(summary) => match summary.as_ref().and_then(|s| s.partial.clone()) {
            Some(sentence) => (AssetState::Partial, Some(WorkError::new("truncated", sentence)), summary),
            None => (AssetState::Ready, None, summary),
        },
        Ended::Broken(error, summary) => {
            // The clips before damage in the file are good; after a failure of the towers, the same bytes
            // must be accepted again.
            let partial = clips > 0 && matches!(&error, EmbedError::Media(error) if !error.is_ours());
            let state = if partial { AssetState::Partial } else { AssetState::Failed };
            (state, Some(super::retries::last_word(&error)), summary)
        }
        Ended::Damaged(error) => {
            (AssetState::Failed, Some(WorkError::new(error.code(), error.to_string())), None)
        }
        Ended::Cancelled => (AssetState::Failed, None, None),
    };
    AssetOutcome {
        state,
        kind: summary.as_ref().map(|s| s.kind),
        duration_secs: summary.as_ref().map_or(0.0, |s| s.duration_secs),
        width: summary.as_ref().map_or(0, |s| s.width),
        height: summary.as_ref().map_or(0, |s| s.height),
        error,
        tracks: summary.map_or_else(Vec::new, |s| s.tracks),
    }
}
