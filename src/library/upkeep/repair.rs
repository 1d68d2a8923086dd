//! Recomputes damaged vectors from the files.

use std::collections::{BTreeMap, HashMap};

use super::Upkeep;
use crate::collection::{DamagedAsset, LibraryError};
use crate::ingest::Again;
use crate::model::Priority;
use crate::store::{AssetRecord, ClipRecord, DamagedVectors, StoreError};
use crate::types::{AssetId, ClipId, TimeSpan, Track};

/// Clips whose bounds differ by less than this are the same clip.
const SAME_SECS: f64 = 1e-6;

impl Upkeep {
    /// Recomputes damaged vectors from the files and keeps their ids; indexes assets with missing clips
    /// again.
    pub(super) async fn repair(&self, damaged: &DamagedVectors) -> Result<(), LibraryError> {
        for id in &damaged.assets {
            self.index_again(*id).await?;
        }
        let mut by_asset: BTreeMap<AssetId, Vec<ClipRecord>> = BTreeMap::new();
        for clip in self.collection.store.clips(&damaged.clips).await? {
            by_asset.entry(clip.asset).or_default().push(clip);
        }
        for (id, clips) in by_asset {
            if self.collection.life.stop.is_cancelled() {
                return Err(LibraryError::Stopping);
            }
            if damaged.assets.contains(&id) {
                self.count_repaired(&clips);
                continue;
            }
            let record = match self.collection.store.asset(id).await {
                Err(StoreError::NotFound(_)) => continue,
                found => found?,
            };
            match self.mend(&record, clips.clone()).await {
                Ok(rest) if rest.is_empty() => {}
                // The file is now cut into other clips.
                Ok(rest) => {
                    self.index_again(id).await?;
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
        self.collection.open_content(record).await?;
        // Sound and pictures may have clips of their own over the same seconds.
        let known = self.collection.store.clips_with_tracks(record.id).await?;
        let tracks: HashMap<ClipId, Vec<Track>> =
            known.into_iter().map(|(clip, tracks)| (clip.id, tracks)).collect();
        let mut stream = self
            .collection
            .embedder
            .open_tracks(record.path.as_ref(), None, record.tracks_read(), Priority::Bulk)
            .await?;
        while !clips.is_empty() {
            let Some(embedded) = stream.next().await? else { break };
            let new = self.collection.new_clip(embedded);
            let has = |track: &Track| new.vectors.iter().any(|own| own.track == *track);
            let fits = |clip: &ClipRecord| {
                is_same(clip.span, new.span) && tracks.get(&clip.id).is_none_or(|all| all.iter().all(has))
            };
            let Some(at) = clips.iter().position(fits) else { continue };
            let clip = clips.swap_remove(at);
            self.collection.mend_clip(clip.id, &new.vectors).await?;
            self.count_repaired(&[clip]);
        }
        Ok(clips)
    }

    /// Indexes an asset again under its id, in the background.
    async fn index_again(&self, id: AssetId) -> Result<(), LibraryError> {
        match self.ingest.index_again(id).await? {
            Again::Queued => self.checker.report.change(|report| report.reindexed_assets += 1),
            Again::Unreadable(record, error) => {
                self.checker.report.unrepaired(DamagedAsset::new(&record, error.code()));
            }
            Again::NotNeeded => {}
        }
        Ok(())
    }
}

fn is_same(a: TimeSpan, b: TimeSpan) -> bool {
    (a.start_secs - b.start_secs).abs() < SAME_SECS && (a.end_secs - b.end_secs).abs() < SAME_SECS
}
