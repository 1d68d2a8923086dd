//! How an index begins: from its file if that is intact and of this model and state of the store, otherwise from the
//! store.

use std::path::{Path, PathBuf};

use crate::index::IndexError;
use crate::index::rows::Rows;
use crate::index::snapshot;
use crate::store::Store;
use crate::types::{ClipId, ModelId, Space, Track};

/// Number of vectors read from the store at a time.
const SCAN_PAGE: u32 = 2048;

/// A space's name comes from a manifest, so only lower-case letters and digits go into the file name
/// unencoded.
pub(super) fn snapshot_path(dir: &Path, track: Track, space: &Space) -> PathBuf {
    let plain = space.as_str().chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let name = if plain { space.as_str().to_owned() } else { format!("x{}", hex::encode(space.as_str())) };
    dir.join(format!("{}-{name}.snapshot", track.as_str()))
}

/// What the header of an index file must say.
pub(super) struct Wanted<'a> {
    pub(super) model: &'a ModelId,
    pub(super) track: Track,
    pub(super) space: &'a Space,
    pub(super) dim: usize,
    pub(super) sequence: i64,
}

pub(super) async fn load_snapshot(dir: &Path, wanted: Wanted<'_>) -> Option<(Rows, Vec<ClipId>)> {
    let path = snapshot_path(dir, wanted.track, wanted.space);
    let (header, rows) = tokio::task::spawn_blocking(move || snapshot::load(&path)).await.ok()??;
    let matches = header.model == *wanted.model
        && header.track == wanted.track
        && header.space == *wanted.space
        && header.dim == wanted.dim
        && header.sequence == wanted.sequence;
    matches.then_some((rows, header.damaged))
}

pub(super) async fn rebuild(
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
