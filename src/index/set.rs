//! All indexes of a library.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::hybrid::{GRAPH_FROM, HybridIndex};
use super::recall::{Probed, Recall, Window};
use super::rows::{Rows, View};
use super::snapshot::{self, Header};
use super::{ClipFilter, IndexError, Neighbour, SearchParams, VectorIndex};
use crate::store::Store;
use crate::types::{ClipId, Embedding, ModelId, Space, Track};

/// Vectors read from the store at a time.
const SCAN_PAGE: u32 = 2048;
/// Neighbours of a probe.
const PROBE_K: usize = 10;
/// How often [`IndexSet::snapshot`] looks again while the library is being changed.
const SNAPSHOT_TRIES: u32 = 20;
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(50);

/// All indexes of a library, one per (track, space).
pub struct IndexSet {
    dir: PathBuf,
    model: ModelId,
    members: Vec<Member>,
    saved_sequence: Mutex<Option<i64>>,
}

struct Member {
    track: Track,
    space: Space,
    index: HybridIndex,
    /// Clips whose vector in the store is damaged.
    damaged: Mutex<Vec<ClipId>>,
    probes: Mutex<Window>,
}

impl Member {
    fn snapshot_path(&self, dir: &Path) -> PathBuf {
        snapshot_path(dir, self.track, &self.space)
    }
}

/// A space's name comes from a manifest: only its letters and digits are used as they are.
fn snapshot_path(dir: &Path, track: Track, space: &Space) -> PathBuf {
    let plain = space.as_str().chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let name = if plain { space.as_str().to_owned() } else { format!("x{}", hex::encode(space.as_str())) };
    dir.join(format!("{}-{name}.snapshot", track.as_str()))
}

impl IndexSet {
    /// Loads verified snapshots from `dir` where they match the model and the store's sequence,
    /// rebuilds from the store otherwise. `members` are (track, space, values of a vector).
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn open(
        dir: &Path,
        model: &ModelId,
        members: &[(Track, Space, usize)],
        store: &dyn Store,
    ) -> Result<Self, IndexError> {
        Self::open_with_graphs_from(GRAPH_FROM, dir, model, members, store).await
    }

    /// As [`open`](Self::open), with graphs from this many vectors on.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn open_with_graphs_from(
        graph_from: usize,
        dir: &Path,
        model: &ModelId,
        members: &[(Track, Space, usize)],
        store: &dyn Store,
    ) -> Result<Self, IndexError> {
        if let Err(error) = std::fs::create_dir_all(dir) {
            // Only a cache lies there, and whoever writes it tries again.
            tracing::warn!(%error, "could not create the folder for saved indexes");
        }
        let sequence = store.sequence().await?;
        let opened = members.iter().map(|(track, space, dim)| async move {
            let wanted = (model, *track, space, *dim, sequence);
            let (rows, damaged) = match load_snapshot(dir, wanted).await {
                Some(found) => found,
                None => rebuild(store, *track, space, *dim).await?,
            };
            Ok::<_, IndexError>(Member {
                track: *track,
                space: space.clone(),
                index: HybridIndex::with_rows(rows, graph_from),
                damaged: Mutex::new(damaged),
                probes: Mutex::default(),
            })
        });
        let members = futures::future::try_join_all(opened).await?;
        Ok(Self { dir: dir.to_owned(), model: model.clone(), members, saved_sequence: Mutex::new(None) })
    }

    fn member(&self, track: Track, space: &Space) -> Result<&Member, IndexError> {
        self.members
            .iter()
            .find(|member| member.track == track && member.space == *space)
            .ok_or_else(|| IndexError::NoSuchIndex(track, space.clone()))
    }

    /// Adds a clip's vectors to their indexes.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn upsert(&self, clip: ClipId, vectors: &[(Track, Space, Embedding)]) -> Result<(), IndexError> {
        vectors
            .iter()
            .try_for_each(|(track, space, vector)| self.member(*track, space)?.index.upsert(clip, vector))
    }

    /// Removes clips everywhere.
    pub fn remove(&self, clips: &[ClipId]) {
        for member in &self.members {
            for clip in clips {
                member.index.remove(*clip);
            }
            lock(&member.damaged).retain(|damaged| !clips.contains(damaged));
        }
    }

    /// A clip's vectors were replaced.
    pub fn mended(&self, clip: ClipId) {
        for member in &self.members {
            lock(&member.damaged).retain(|damaged| *damaged != clip);
        }
    }

    /// Searches one index. CPU-bound: call from a blocking thread for large collections.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn search(
        &self,
        track: Track,
        space: &Space,
        query: &Embedding,
        k: usize,
        params: SearchParams,
        filter: Option<&ClipFilter>,
    ) -> Result<Vec<Neighbour>, IndexError> {
        self.member(track, space)?.index.search(query, k, params, filter)
    }

    /// Answers an unfiltered query as it is served and exactly, and notes how much of the true ten was
    /// found. CPU-bound, and as dear as comparing with everything.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn probe(
        &self,
        track: Track,
        space: &Space,
        query: &Embedding,
        params: SearchParams,
    ) -> Result<Option<Probed>, IndexError> {
        let member = self.member(track, space)?;
        let probed = member.index.probe(query, PROBE_K, params)?;
        if let Some(probed) = probed {
            lock(&member.probes).push(probed);
        }
        Ok(probed)
    }

    /// How much of the true ten the last probes of an index found; `None` where there is no such index.
    #[must_use]
    pub fn recall(&self, track: Track, space: &Space) -> Option<Recall> {
        let member = self.member(track, space).ok()?;
        Some(lock(&member.probes).recall(!member.index.has_graph()))
    }

    /// Whether a graph answers there, so that there is something to probe.
    #[must_use]
    pub fn has_graph(&self, track: Track, space: &Space) -> bool {
        self.member(track, space).is_ok_and(|member| member.index.has_graph())
    }

    /// Waits until no graph is being built and none is due.
    pub fn wait_for_graphs(&self) {
        self.members.iter().for_each(|member| member.index.wait_for_graph());
    }

    /// Scores of these clips, in f32; clips without such a vector are left out.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn scores(
        &self,
        track: Track,
        space: &Space,
        query: &Embedding,
        clips: &[ClipId],
    ) -> Result<Vec<Neighbour>, IndexError> {
        self.member(track, space)?.index.scores(query, clips)
    }

    /// The vectors of these clips, in no promised order; none where there is no such index.
    #[must_use]
    pub fn vectors(&self, track: Track, space: &Space, clips: &[ClipId]) -> Vec<(ClipId, Embedding)> {
        self.member(track, space).map_or_else(|_| Vec::new(), |member| member.index.vectors(clips))
    }

    /// Up to `count` clips with their vectors, spread over the whole index; none where there is no such index.
    #[must_use]
    pub fn sample(&self, track: Track, space: &Space, count: usize) -> Vec<(ClipId, Embedding)> {
        self.member(track, space).map_or_else(|_| Vec::new(), |member| member.index.sample(count))
    }

    /// Number of vectors of one track and space; 0 where there is no such index.
    #[must_use]
    pub fn len(&self, track: Track, space: &Space) -> usize {
        self.member(track, space).map_or(0, |member| member.index.len())
    }

    /// Whether no index holds a vector.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.iter().all(|member| member.index.is_empty())
    }

    /// Clips with a vector whose stored bytes are damaged: to be indexed again.
    #[must_use]
    pub fn damaged(&self) -> Vec<ClipId> {
        let mut all: Vec<ClipId> =
            self.members.iter().flat_map(|member| lock(&member.damaged).clone()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Writes snapshots (temporary file, sync, rename), stamped with the store's sequence. Waits up
    /// to a second for a moment in which the indexes hold exactly what the store does.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn snapshot(&self, store: &dyn Store) -> Result<(), IndexError> {
        for attempt in 0..SNAPSHOT_TRIES {
            if attempt > 0 {
                tokio::time::sleep(SNAPSHOT_PAUSE).await;
            }
            let Some((sequence, views)) = self.settled(store).await? else { continue };
            if *lock(&self.saved_sequence) == Some(sequence) {
                return Ok(());
            }
            self.save(sequence, views).await?;
            *lock(&self.saved_sequence) = Some(sequence);
            return Ok(());
        }
        Err(IndexError::Snapshot(
            "the library kept changing, so its index was not saved; the next start reads it from the store"
                .into(),
        ))
    }

    /// The store's sequence and the views of all indexes, if these hold what the store holds: a
    /// clip may be committed and not yet indexed, and such a snapshot would lose it.
    async fn settled(&self, store: &dyn Store) -> Result<Option<(i64, Vec<View>)>, IndexError> {
        let sequence = store.sequence().await?;
        let mut views = Vec::with_capacity(self.members.len());
        for member in &self.members {
            let ((mut count, mut sum), view) = member.index.census();
            for clip in lock(&member.damaged).iter() {
                count += 1;
                sum += clip.0;
            }
            if store.vector_census(member.track, &member.space).await? != (count, sum) {
                return Ok(None);
            }
            views.push(view);
        }
        Ok((store.sequence().await? == sequence).then_some((sequence, views)))
    }

    async fn save(&self, sequence: i64, views: Vec<View>) -> Result<(), IndexError> {
        for (member, view) in self.members.iter().zip(views) {
            let header = Header {
                model: self.model.clone(),
                track: member.track,
                space: member.space.clone(),
                dim: view.dim,
                count: view.live,
                sequence,
                damaged: lock(&member.damaged).clone(),
            };
            let path = member.snapshot_path(&self.dir);
            tokio::task::spawn_blocking(move || snapshot::save(&path, &header, &view))
                .await
                .map_err(|error| IndexError::Snapshot(error.to_string()))??;
        }
        Ok(())
    }

    /// Gives back the memory of removed vectors. Long for large collections: call from a blocking thread.
    pub fn compact(&self) {
        for member in &self.members {
            member.index.compact();
        }
    }

    /// As [`compact`](Self::compact), if there is much to free.
    pub fn compact_if_due(&self) {
        for member in &self.members {
            member.index.compact_if_due();
        }
    }

    /// (track, space, vectors, engine name, bytes) of each.
    #[must_use]
    pub fn stats(&self) -> Vec<(Track, Space, usize, &'static str, usize)> {
        let one =
            |m: &Member| (m.track, m.space.clone(), m.index.len(), m.index.engine(), m.index.memory_bytes());
        self.members.iter().map(one).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Wanted<'a> = (&'a ModelId, Track, &'a Space, usize, i64);

async fn load_snapshot(dir: &Path, wanted: Wanted<'_>) -> Option<(Rows, Vec<ClipId>)> {
    let (model, track, space, dim, sequence) = wanted;
    let path = snapshot_path(dir, track, space);
    let (header, rows) = tokio::task::spawn_blocking(move || snapshot::load(&path)).await.ok()??;
    let matches = header.model == *model
        && header.track == track
        && header.space == *space
        && header.dim == dim
        && header.sequence == sequence;
    matches.then_some((rows, header.damaged))
}

async fn rebuild(
    store: &dyn Store,
    track: Track,
    space: &Space,
    dim: usize,
) -> Result<(Rows, Vec<ClipId>), IndexError> {
    let (mut rows, mut damaged) = (Rows::new(dim), Vec::new());
    let mut after = ClipId(0);
    loop {
        let (good, bad) = store.scan_vectors(track, space, after, SCAN_PAGE).await?;
        let Some(last) = good.last().map(|(id, _)| *id).max(bad.last().copied()) else { break };
        after = last;
        damaged.extend(bad);
        let read = tokio::task::spawn_blocking(move || {
            let mut wrong = Vec::new();
            for (id, vector) in good {
                if vector.dim() == dim {
                    rows.insert(id, vector.as_slice());
                } else {
                    wrong.push(id);
                }
            }
            (rows, wrong)
        });
        let (read_rows, wrong) = read.await.map_err(|error| IndexError::Snapshot(error.to_string()))?;
        rows = read_rows;
        damaged.extend(wrong);
    }
    if !damaged.is_empty() {
        tracing::error!(count = damaged.len(), ?track, %space, "left out damaged vectors");
    }
    Ok((rows, damaged))
}

/// Indexes are shared between the library and its workers.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Arc<IndexSet>>();
};
