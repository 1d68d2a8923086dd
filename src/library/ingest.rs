//! Ingests one file: accepts it, embeds it clip by clip, commits the clips, and adds them to the index.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::active::{Active, Claim};
use super::retries::Tries;
use super::{IngestReport, IngestSource, Library, LibraryError, StageSecs};
use crate::catalog::ClipEntry;
use crate::embed::{AssetStream, ClipVectors, EmbedError};
use crate::fail_points::crash_point;
use crate::files::hash_file;
use crate::jobs::Place;
use crate::ledger::Ticket;
use crate::model::Priority;
use crate::preprocess::AssetSummary;
use crate::store::{AssetOutcome, AssetRecord, AssetState, NewAsset, NewClip, StoreError, content_key};
use crate::types::{AssetId, ClipId, Track};

/// Clips per transaction; each transaction costs one sync of the disk.
const BATCH_CLIPS: usize = 64;
/// Greatest age of a clip before it is committed, so that long files become searchable step by step.
const BATCH_AGE: Duration = Duration::from_millis(750);

/// What `accept` found.
pub(super) enum Accepted<C> {
    /// New bytes, with what `claimed` made of the claim.
    New(C, AssetRecord),
    /// Another task is indexing these bytes.
    Running(std::sync::Arc<Active>, AssetRecord),
    /// The bytes were indexed before.
    Known(AssetRecord),
}

/// How the stream of an asset's clips ended.
enum Ended {
    Complete(Option<AssetSummary>),
    Broken(EmbedError, Option<AssetSummary>),
    /// The file does not hold the accepted bytes.
    Damaged(LibraryError),
    Cancelled,
}

impl Library {
    /// Accepts a file durably (hash, stored bytes, store row) without embedding it yet. For new bytes,
    /// `claimed` receives the claim while the lock is still held. Set `promise` if the caller does not wait
    /// but has promised that the file will be indexed.
    pub(super) async fn accept<C>(
        &self,
        source: &IngestSource,
        promise: bool,
        claimed: impl FnOnce(Claim, &AssetRecord) -> C,
    ) -> Result<Accepted<C>, LibraryError> {
        let (accepted, ticket) = self.accept_in_turn(source, promise, claimed).await?;
        // Outside the lock: callers that wait for the disk share one sync.
        self.noted(ticket).await?;
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
        if self.stop.is_cancelled() {
            return Err(LibraryError::Stopping);
        }
        let (content, changed) = match &source.content {
            Some(content) => (content.clone(), None),
            None => {
                let path = source.path.clone();
                let (content, changed) = super::blocking(move || Ok(hash_file(&path)?)).await?;
                (content, Some(changed))
            }
        };
        let segmentation = format!("{}{}", self.segmentation, source.choice.key());
        let key = content_key(&content.sha256, source.choice);
        let kept = source.owned.then(|| self.uploads.path_of(&content.sha256, &segmentation));
        let path = kept.as_ref().unwrap_or(&source.path);
        let new = NewAsset {
            given: None,
            sha256: content.sha256.clone(),
            model: self.embedder.bundle().id().clone(),
            segmentation,
            choice: source.choice,
            name: source.name.clone(),
            path: super::utf8(path)?,
            owned: source.owned,
            size_bytes: content.size_bytes,
            metadata: source.metadata.clone(),
        };

        // Serialised: between checking what runs and the claim, nobody else may claim the same bytes, and no
        // deletion may remove the file that is being stored.
        let _serial = loop {
            let serial = self.accept_lock.lock().await;
            let Some(active) = self.active.by_content(&key) else { break serial };
            // Its removal was waiting for disk space; now it is wanted again.
            if let Some((claim, record)) = self.unwanted.take(active.id) {
                return Ok((Accepted::New(claimed(claim, &record), record), None));
            }
            match self.store.asset(active.id).await {
                Ok(record) => {
                    if promise {
                        active.promise();
                    }
                    return Ok((Accepted::Running(active, record), None));
                }
                // Cancelled and just removed: in a moment these bytes are new.
                Err(StoreError::NotFound(_)) => {
                    drop(serial);
                    active.done.cancelled().await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        if self.stop.is_cancelled() {
            return Err(LibraryError::Stopping);
        }
        if let Some(kept) = &kept {
            let (uploads, from, to) = (self.uploads.clone(), source.path.clone(), kept.clone());
            super::blocking(move || Ok(uploads.keep(&from, &to)?)).await?;
            self.keeper.pins.needed_again(kept);
        }
        let (mut record, is_new) = self.store.begin_asset(new).await?;
        if let Some(changed) = changed {
            self.content_seen(&mut record, &source.path, changed).await;
        }
        crash_point!("upload-committed");
        if is_new {
            // A failed asset of the same bytes may remain, under the same id.
            self.catalog.drop_clips(record.id);
            self.catalog.put_asset(&record);
            let ticket = match self.note_put(std::slice::from_ref(&record)).await {
                Ok(ticket) => ticket,
                Err(error) => {
                    // The caller gets an error. If the asset cannot be removed either, the next start indexes
                    // it.
                    let _ = self.store.delete_asset(record.id).await;
                    self.catalog.remove_asset(record.id);
                    return Err(error);
                }
            };
            let claim = self.active.claim(record.id, &key, &self.stop);
            return Ok((Accepted::New(claimed(claim, &record), record), ticket));
        }
        if kept.as_deref().is_some_and(|kept| kept == std::path::Path::new(&record.path)) {
            self.content_renewed(&record).await;
        }
        if let Some(kept) = kept.filter(|kept| record.path.as_str() != kept.as_os_str()) {
            // The library has these bytes under a user's path, so it does not need its own copy.
            self.remove_kept(&kept).await?;
        }
        Ok((Accepted::Known(self.relocated(record, source).await?), None))
    }

    /// Recognises a moved file by its bytes: its asset gets the new path.
    async fn relocated(
        &self,
        mut record: AssetRecord,
        source: &IngestSource,
    ) -> Result<AssetRecord, LibraryError> {
        let path = super::utf8(&source.path)?;
        // The old path may hold another file by now.
        if record.owned || source.owned || record.path == path || self.open_content(&record).await.is_ok() {
            return Ok(record);
        }
        if record.name == Place::of(&record.path).name() {
            record.name.clone_from(&source.name);
        }
        record.path = path;
        self.describe(std::slice::from_ref(&record)).await?;
        // The asset has another file now: check it before it is served.
        if let Err(error) = self.open_content(&record).await {
            tracing::debug!(asset = %record.id, %error, "cannot read a file that was moved");
        }
        Ok(self.store.asset(record.id).await?)
    }

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
    pub(super) async fn ingest_until(
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
                    match self.store.asset(active.id).await {
                        Ok(record) if record.state == AssetState::Indexing => {
                            if self.stop.is_cancelled() {
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
    pub(super) async fn embed_asset(
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
            if self.disk.refuses(error) && !self.stop.is_cancelled() {
                let given_up = claim.active.cancel.is_cancelled() || cancel.is_cancelled();
                if priority == Priority::Interactive || given_up {
                    self.unwanted.push(claim, record);
                    return embedded;
                }
                tokio::select! {
                    _ = self.disk.writable(cancel) => {}
                    () = claim.active.cancel.cancelled() => {}
                }
                // If this fails, the disk is full again and the next round handles it.
                match self.drop_clips(record.id).await {
                    Err(error) if !self.disk.refuses(&error) => return Err(error),
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
            self.drop_clips(record.id).await?;
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
            self.drop_clips(record.id).await?;
        }
        // Take the lock that guards descriptions: otherwise the catalog might get the older record last.
        let serial = self.accept_lock.lock().await;
        let asset = self.store.finish_asset(record.id, outcome).await?;
        self.catalog.put_asset(&asset);
        drop(serial);
        self.tell(asset.id);
        self.standing.wake();
        stages.total = began.elapsed().as_secs_f64();
        if self.serves() {
            super::metrics::ingested(&asset, &stages);
        }
        if !asset.owned && self.serves() && matches!(asset.state, AssetState::Ready | AssetState::Partial) {
            self.retire_replaced(asset.path.as_ref(), asset.id).await?;
        }
        Ok(IngestReport { asset, new: true, stages })
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
        if let Err(error @ LibraryError::ContentDamaged { .. }) = self.open_content(record).await {
            return Ok(Ended::Damaged(error));
        }
        // Cancel only while waiting: a commit that has begun runs to its end, index included. Otherwise its
        // clips could reappear after they were withdrawn.
        let opened = tokio::select! {
            biased;
            () = claim.active.cancel.cancelled() => return Ok(Ended::Cancelled),
            () = cancel.cancelled() => return Ok(Ended::Cancelled),
            opened = self.embedder.open_accepted(record.path.as_ref(), record.choice, priority) => opened,
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
                    if !record.owned
                        && let Err(error @ LibraryError::ContentDamaged { .. }) =
                            self.open_content(record).await
                    {
                        return Ok(Ended::Damaged(error));
                    }
                    return Ok(Ended::Complete(summary));
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
            batch.push(self.new_clip(clip));
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
        let _gate = self.commit_gate.read().await;
        let began = Instant::now();
        let ids = self.store.add_clips(asset, batch).await?;
        let stored = Instant::now();
        let clips = std::mem::take(batch);
        let index = std::sync::Arc::clone(&self.index);
        let count = clips.len() as u64;
        let entry = |(id, clip): (&ClipId, &NewClip)| ClipEntry {
            id: *id,
            span: clip.span,
            agreement: clip.agreement,
        };
        // Before the vectors: the catalog must know whatever the index finds.
        self.catalog.add_clips(asset, &ids.iter().zip(&clips).map(entry).collect::<Vec<_>>());
        super::blocking(move || {
            for (id, clip) in ids.into_iter().zip(&clips) {
                index.upsert(id, &clip.vectors)?;
            }
            Ok(())
        })
        .await?;
        stages.store += (stored - began).as_secs_f64();
        stages.index += stored.elapsed().as_secs_f64();
        Ok(count)
    }

    /// Ends an asset after a fault of the server: nothing partial stays searchable, and the same bytes may be
    /// sent again.
    pub(super) async fn give_up(&self, id: AssetId, error: &LibraryError) {
        let outcome = AssetOutcome {
            state: AssetState::Failed,
            kind: None,
            duration_secs: 0.0,
            width: 0,
            height: 0,
            error: Some((error.code().to_owned(), error.told())),
            tracks: Vec::new(),
        };
        let cleaned = match self.drop_clips(id).await {
            Ok(()) => self.store.finish_asset(id, outcome).await.map(|_| ()).map_err(LibraryError::from),
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
        if self.stop.is_cancelled() {
            self.drop_clips(record.id).await?;
            return Ok(LibraryError::Stopping);
        }
        self.remove_asset(record).await?;
        Ok(LibraryError::Cancelled)
    }

    pub(super) fn new_clip(&self, clip: ClipVectors) -> NewClip {
        let of = |track, vectors: Option<crate::embed::Vectors>| {
            vectors.into_iter().flatten().map(move |(space, vector)| (track, space, vector))
        };
        let vectors: Vec<_> = of(Track::Video, clip.video).chain(of(Track::Audio, clip.audio)).collect();
        let space = self.agreement_space.as_ref();
        let agreement = space.and_then(|space| super::tracks::agreement(&vectors, space));
        NewClip { span: clip.span, vectors, agreement }
    }

    pub(super) async fn drop_clips(&self, id: AssetId) -> Result<(), LibraryError> {
        let _gate = self.commit_gate.read().await;
        let clips = self.store.reset_asset(id).await?;
        self.index.remove(&clips);
        self.catalog.drop_clips(id);
        Ok(())
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
            (AssetState::Failed, Some(("nothing_to_index".to_owned(), sentence)), summary)
        }
        Ended::Complete(summary) => match summary.as_ref().and_then(|s| s.partial.clone()) {
            Some(sentence) => (AssetState::Partial, Some(("truncated".to_owned(), sentence)), summary),
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
            (AssetState::Failed, Some((error.code().to_owned(), error.to_string())), None)
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
