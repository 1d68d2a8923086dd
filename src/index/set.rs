//! All indexes of a library.

mod load;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::load::{Wanted, load_snapshot, rebuild, snapshot_path};
use super::hybrid::{GraphEngine, HybridIndex};
use super::recall::{Probed, Recall, Window};
use super::rows::View;
use super::snapshot::{self, Header};
use super::{ClipFilter, IndexError, Neighbour, SearchParams};
use crate::store::{ClipVector, Store};
use crate::types::{ClipId, Embedding, ModelId, Space, Track};

/// Neighbours that a probe asks for.
const PROBE_K: usize = 10;
/// How often [`IndexSet::snapshot`] retries while the library is changing.
const SNAPSHOT_TRIES: u32 = 20;
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(50);

/// What an index is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexSpec {
    /// Track of its vectors.
    pub track: Track,
    /// Space of its vectors.
    pub space: Space,
    /// Number of values of a vector.
    pub dim: usize,
}

impl IndexSpec {
    /// An index for the vectors of a track in a space.
    #[must_use]
    pub const fn new(track: Track, space: Space, dim: usize) -> Self {
        Self { track, space, dim }
    }
}

/// What one index holds.
#[derive(Debug, Clone)]
pub struct IndexStats {
    /// Track of its vectors.
    pub track: Track,
    /// Space of its vectors.
    pub space: Space,
    /// Number of vectors.
    pub vectors: usize,
    /// The engine that answers unfiltered searches now.
    pub engine: &'static str,
    /// Memory used, in bytes.
    pub bytes: usize,
}

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
    /// Clips whose stored vector is damaged.
    damaged: Mutex<Vec<ClipId>>,
    probes: Mutex<Window>,
}

impl Member {
    fn snapshot_path(&self, dir: &Path) -> PathBuf {
        snapshot_path(dir, self.track, &self.space)
    }
}

impl IndexSet {
    /// Loads index files from `dir` if they are intact and match the model and the store's sequence, and
    /// rebuilds the other indexes from the store.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn open(
        dir: &Path,
        model: &ModelId,
        members: &[IndexSpec],
        store: &dyn Store,
    ) -> Result<Self, IndexError> {
        let graph = GraphEngine::default();
        Self::open_with_graph(graph, graph.pays_from(), dir, model, members, store).await
    }

    /// Like [`open`](Self::open), with graphs of this engine from this many vectors on.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn open_with_graph(
        graph: GraphEngine,
        graph_from: usize,
        dir: &Path,
        model: &ModelId,
        members: &[IndexSpec],
        store: &dyn Store,
    ) -> Result<Self, IndexError> {
        if let Err(error) = std::fs::create_dir_all(dir) {
            // The folder only holds a cache, and saving creates it again.
            tracing::warn!(%error, "could not create the folder for saved indexes");
        }
        let sequence = store.sequence().await?;
        let opened = members.iter().map(|IndexSpec { track, space, dim }| async move {
            let wanted = Wanted { model, track: *track, space, dim: *dim, sequence };
            let (rows, damaged) = match load_snapshot(dir, wanted).await {
                Some(found) => found,
                None => rebuild(store, *track, space, *dim).await?,
            };
            Ok::<_, IndexError>(Member {
                track: *track,
                space: space.clone(),
                index: HybridIndex::with_graph(rows, graph, graph_from),
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

    /// Adds or replaces a clip's vectors in their indexes.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn upsert(&self, clip: ClipId, vectors: &[ClipVector]) -> Result<(), IndexError> {
        vectors.iter().try_for_each(|one| self.member(one.track, &one.space)?.index.upsert(clip, &one.vector))
    }

    /// Removes clips from all indexes.
    pub fn remove(&self, clips: &[ClipId]) {
        for member in &self.members {
            for clip in clips {
                member.index.remove(*clip);
            }
            lock(&member.damaged).retain(|damaged| !clips.contains(damaged));
        }
    }

    /// Notes that the vectors of a clip were repaired.
    pub fn mended(&self, clip: ClipId) {
        for member in &self.members {
            lock(&member.damaged).retain(|damaged| *damaged != clip);
        }
    }

    /// Searches one index. CPU-bound: call it from a blocking thread for large collections.
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

    /// Answers an unfiltered query both normally and exactly, and records how many of the true ten were
    /// found. CPU-bound, and as expensive as a full scan.
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

    /// Recall@10 over the last probes of an index; `None` if there is no such index.
    #[must_use]
    pub fn recall(&self, track: Track, space: &Space) -> Option<Recall> {
        let member = self.member(track, space).ok()?;
        Some(lock(&member.probes).recall(!member.index.has_graph()))
    }

    /// Whether a graph answers searches of this index, so that probing makes sense.
    #[must_use]
    pub fn has_graph(&self, track: Track, space: &Space) -> bool {
        self.member(track, space).is_ok_and(|member| member.index.has_graph())
    }

    /// Waits until no graph is being built and none is due.
    pub fn wait_for_graphs(&self) {
        self.members.iter().for_each(|member| member.index.wait_for_graph());
    }

    /// Scores of these clips in f32. Clips without a vector in this index are left out.
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

    /// The vectors of these clips, in no particular order. Empty if there is no such index.
    #[must_use]
    pub fn vectors(&self, track: Track, space: &Space, clips: &[ClipId]) -> Vec<(ClipId, Embedding)> {
        self.member(track, space).map_or_else(|_| Vec::new(), |member| member.index.vectors(clips))
    }

    /// Up to `count` clips with their vectors, spread evenly over the index. Empty if there is no such index.
    #[must_use]
    pub fn sample(&self, track: Track, space: &Space, count: usize) -> Vec<(ClipId, Embedding)> {
        self.member(track, space).map_or_else(|_| Vec::new(), |member| member.index.sample(count))
    }

    /// Number of vectors of one track and space; 0 if there is no such index.
    #[must_use]
    pub fn len(&self, track: Track, space: &Space) -> usize {
        self.member(track, space).map_or(0, |member| member.index.len())
    }

    /// Whether all indexes are empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.iter().all(|member| member.index.is_empty())
    }

    /// Clips with a damaged vector in the store. They must be indexed again.
    #[must_use]
    pub fn damaged(&self) -> Vec<ClipId> {
        let mut all: Vec<ClipId> =
            self.members.iter().flat_map(|member| lock(&member.damaged).clone()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Writes index files (temporary file, sync, rename), stamped with the store's sequence. Waits up to a
    /// second for a moment at which indexes and store have the same vectors.
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

    /// The store's sequence and the views of all indexes, if they have the vectors that the store has. A clip
    /// can be committed but not yet indexed, and an index file written then would lack it.
    async fn settled(&self, store: &dyn Store) -> Result<Option<(i64, Vec<View>)>, IndexError> {
        let sequence = store.sequence().await?;
        let mut views = Vec::with_capacity(self.members.len());
        for member in &self.members {
            let (mut census, view) = member.index.census();
            for clip in lock(&member.damaged).iter() {
                census.clips += 1;
                census.sum_of_ids += clip.0;
            }
            if store.vector_census(member.track, &member.space).await? != census {
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

    /// Frees the memory of removed vectors. Slow for large collections: call it from a blocking thread.
    pub fn compact(&self) {
        for member in &self.members {
            member.index.compact();
        }
    }

    /// Runs [`compact`](Self::compact) on each index with enough memory to free.
    pub fn compact_if_due(&self) {
        for member in &self.members {
            member.index.compact_if_due();
        }
    }

    /// What each index holds.
    #[must_use]
    pub fn stats(&self) -> Vec<IndexStats> {
        let one = |member: &Member| IndexStats {
            track: member.track,
            space: member.space.clone(),
            vectors: member.index.len(),
            engine: member.index.engine(),
            bytes: member.index.memory_bytes(),
        };
        self.members.iter().map(one).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compile-time check: the library and its workers share the indexes between threads.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Arc<IndexSet>>();
};
