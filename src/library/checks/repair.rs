//! Recomputes damaged vectors from the files.

use std::collections::BTreeMap;

use super::report::DamagedAsset;
use crate::library::{Library, LibraryError};
use crate::model::Priority;
use crate::store::{AssetRecord, AssetState, ClipRecord, DamagedVectors, StoreError};
use crate::types::{AssetId, TimeSpan};

/// Clips whose bounds differ by less than this are the same clip.
const SAME_SECS: f64 = 1e-6;

impl Library {
    /// Recomputes damaged vectors from the files and keeps their ids; indexes assets with missing clips
    /// again.
    pub(super) async fn repair(&self, damaged: &DamagedVectors) -> Result<(), LibraryError> {
        for id in &damaged.assets {
            self.index_anew(*id).await?;
        }
        let mut by_asset: BTreeMap<AssetId, Vec<ClipRecord>> = BTreeMap::new();
        for clip in self.store.clips(&damaged.clips).await? {
            by_asset.entry(clip.asset).or_default().push(clip);
        }
        for (id, clips) in by_asset {
            if self.stop.is_cancelled() {
                return Err(LibraryError::Stopping);
            }
            if damaged.assets.contains(&id) {
                self.count_repaired(&clips);
                continue;
            }
            let record = match self.store.asset(id).await {
                Err(StoreError::NotFound(_)) => continue,
                found => found?,
            };
            match self.mend(&record, clips.clone()).await {
                Ok(rest) if rest.is_empty() => {}
                // The file is now cut into other clips.
                Ok(rest) => {
                    self.index_anew(id).await?;
                    self.count_repaired(&rest);
                }
                Err(error) if error.storage_full().is_some() => return Err(error),
                Err(error) => self.checker.report.unrepaired(DamagedAsset::new(&record, error.code())),
            }
        }
        Ok(())
    }

    fn count_repaired(&self, clips: &[ClipRecord]) {
        let mut left = self.checker.clips();
        clips.iter().for_each(|clip| {
            left.remove(&clip.id);
        });
        self.checker.report.change(|report| report.repaired_clips += clips.len() as u64);
    }

    /// Embeds an asset again and replaces the vectors of these clips; returns the clips that did not turn up.
    async fn mend(
        &self,
        record: &AssetRecord,
        mut clips: Vec<ClipRecord>,
    ) -> Result<Vec<ClipRecord>, LibraryError> {
        self.open_content(record).await?;
        let mut stream = self
            .embedder
            .open_tracks(record.path.as_ref(), None, record.tracks_read(), Priority::Bulk)
            .await?;
        while !clips.is_empty() {
            let Some(embedded) = stream.next().await? else { break };
            let new = self.new_clip(embedded);
            let Some(at) = clips.iter().position(|clip| is_same(clip.span, new.span)) else { continue };
            let clip = clips.swap_remove(at);
            let _gate = self.commit_gate.read().await;
            self.store.put_vectors(clip.id, &new.vectors).await?;
            self.index.upsert(clip.id, &new.vectors)?;
            self.index.mended(clip.id);
            self.count_repaired(&[clip]);
        }
        Ok(clips)
    }

    /// Indexes an asset again under its id, in the background.
    async fn index_anew(&self, id: AssetId) -> Result<(), LibraryError> {
        let _serial = self.accept_lock.lock().await;
        let record = match self.store.asset(id).await {
            Err(StoreError::NotFound(_)) => return Ok(()),
            found => found?,
        };
        if self.active.by_id(id).is_some() {
            return Ok(());
        }
        if let Err(error) = self.open_content(&record).await {
            self.checker.report.unrepaired(DamagedAsset::new(&record, error.code()));
            return Ok(());
        }
        self.drop_clips(id).await?;
        let record = AssetRecord { state: AssetState::Indexing, ..record };
        let claim = self.active.claim(id, &record.content_key(), &self.stop);
        self.work.push(claim, record);
        self.checker.report.change(|report| report.reindexed_assets += 1);
        Ok(())
    }
}

fn is_same(a: TimeSpan, b: TimeSpan) -> bool {
    (a.start_secs - b.start_secs).abs() < SAME_SECS && (a.end_secs - b.end_secs).abs() < SAME_SECS
}
