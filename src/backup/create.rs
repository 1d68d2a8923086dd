//! Takes a snapshot: the store at one moment, everything it needs, and the manifest last.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::destination::Destination;
use super::manifest::{
    FORMAT, FileEntry, MANIFEST, MEDIA, Manifest, MediaEntry, STORE, encode_media, file_key, is_plain,
    is_sha256, media_key,
};
use super::view::Running;
use super::{BackupError, read_manifests};
use crate::files::Content;
use crate::index::snapshot;
use crate::sqlite::{CopyFacts, StoreCopy};
use crate::store::EmbeddedStore;
use crate::types::{ModelId, SnapshotId};

/// Rows of the store's copy read per page.
const PAGE: u32 = 4096;

/// The parts of a library to take a snapshot of.
pub struct Source {
    /// The store to copy.
    pub store: Arc<dyn EmbeddedStore>,
    /// The saved indexes, and the other files beside them.
    pub index_dir: PathBuf,
    /// Where to copy the store to if the destination has no better place.
    pub scratch: PathBuf,
}

/// How to take a snapshot.
#[derive(Debug, Clone, Copy, Default)]
pub struct SnapshotOptions {
    /// Whether the schedule started it.
    pub scheduled: bool,
    /// Whether to read the media that the destination already has, and replace the damaged ones.
    pub recheck: bool,
}

/// An upload that the store's copy names.
struct Wanted {
    sha256: String,
    path: PathBuf,
    size_bytes: u64,
}

#[derive(Default)]
struct Media {
    list: Vec<MediaEntry>,
    bytes: u64,
    copied_files: u64,
    copied_bytes: u64,
    lacking: u64,
}

/// Takes a snapshot. The caller holds the destination's lock and prevents the removal of uploads.
pub(super) async fn create(
    source: &Source,
    destination: &dyn Destination,
    running: &Running,
    options: SnapshotOptions,
) -> Result<Manifest, BackupError> {
    remove_halves(destination).await?;
    let CopiedStore { facts, wanted, store } = copy_store(source, destination, running).await?;
    let bytes = wanted.iter().map(|file| file.size_bytes).sum::<u64>();
    running.expect(wanted.len() as u64, store.size_bytes + bytes);
    let mut files = vec![store];
    files.extend(copy_index(source, destination, running, &facts).await?);
    let media = copy_media(destination, running, wanted, options.recheck).await?;
    let list = encode_media(&media.list)?;
    files.push(entry_of(MEDIA, &list));
    destination.write(&file_key(running.id, MEDIA), list).await?;
    let manifest = Manifest {
        format: FORMAT,
        id: running.id,
        created_unix_ms: running.created_unix_ms,
        scheduled: options.scheduled,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model: facts.model,
        sequence: facts.sequence,
        assets: facts.assets,
        clips: facts.clips,
        media_secs: facts.media_secs,
        files,
        media_files: media.list.len() as u64 - media.lacking,
        media_bytes: media.bytes,
        copied_files: media.copied_files,
        copied_bytes: media.copied_bytes,
        lacking: media.lacking,
        by_path: facts.by_path,
    };
    running.meter.check()?;
    // Last: from here on the snapshot exists.
    destination.write(&file_key(running.id, MANIFEST), manifest.encode()?).await?;
    Ok(manifest)
}

/// Removes unfinished snapshots, which have no manifest. Their media stay: the next snapshot needs them.
async fn remove_halves(destination: &dyn Destination) -> Result<(), BackupError> {
    let keys = destination.list("snapshots/").await?;
    let whole: HashSet<&str> = keys.iter().filter_map(|key| key.strip_suffix(MANIFEST)).collect();
    for key in &keys {
        let folder = key.splitn(3, '/').take(2).map(str::len).sum::<usize>() + 2;
        if key.get(..folder).is_some_and(|folder| !whole.contains(folder)) {
            destination.delete(key).await?;
        }
    }
    Ok(())
}

/// A copy of the store as of one moment.
struct CopiedStore {
    facts: CopyFacts,
    /// The uploads that it names.
    wanted: Vec<Wanted>,
    store: FileEntry,
}

/// Copies the store as of one moment.
async fn copy_store(
    source: &Source,
    destination: &dyn Destination,
    running: &Running,
) -> Result<CopiedStore, BackupError> {
    let scratch = destination.scratch().unwrap_or(&source.scratch);
    let copy = scratch.join(format!("{}.db", running.id));
    let made = copy_and_look(source, destination, running, &copy).await;
    if made.is_err() {
        // The copy is useless now. If it cannot be removed, the next snapshot or start removes it.
        let _ = tokio::fs::remove_file(&copy).await;
    }
    made
}

async fn copy_and_look(
    source: &Source,
    destination: &dyn Destination,
    running: &Running,
    copy: &Path,
) -> Result<CopiedStore, BackupError> {
    source.store.copy_to(copy).await?;
    running.meter.check()?;
    let mut opened = StoreCopy::open(copy).await?;
    let facts = opened.facts().await?;
    let (mut wanted, mut known, mut after) = (Vec::new(), HashSet::new(), 0);
    loop {
        let page = opened.assets(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.n;
        for asset in page.into_iter().filter(|asset| asset.owned && is_sha256(&asset.sha256)) {
            if known.insert(asset.sha256.clone()) {
                let (sha256, size_bytes) = (asset.sha256, asset.size_bytes);
                wanted.push(Wanted { sha256, path: asset.path.into(), size_bytes });
            }
        }
    }
    opened.close().await?;
    let content = destination.adopt(copy, &file_key(running.id, STORE), &running.meter).await?;
    Ok(CopiedStore { facts, wanted, store: entry(STORE, content) })
}

/// Copies the index files that match the store's copy. Whoever opens the library would discard files from any
/// other moment and rebuild the indexes from the store.
async fn copy_index(
    source: &Source,
    destination: &dyn Destination,
    running: &Running,
    facts: &CopyFacts,
) -> Result<Vec<FileEntry>, BackupError> {
    let (folder, model, sequence) = (source.index_dir.clone(), facts.model.clone(), facts.sequence);
    let listed = tokio::task::spawn_blocking(move || index_files(&folder, &model, sequence)).await;
    let mut files = Vec::new();
    for (name, path) in listed.map_err(std::io::Error::other)?? {
        let shown = format!("index/{name}");
        match destination.upload(&path, &file_key(running.id, &shown), None, &running.meter).await {
            Ok(content) => files.push(entry(&shown, content)),
            // Replaced or removed in the meantime: index files are only a cache.
            Err(BackupError::Destination(error)) if !path.is_file() => {
                tracing::debug!(%error, "an index file was removed before it could be copied");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

fn index_files(folder: &Path, model: &ModelId, sequence: i64) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(error),
    };
    for file in entries {
        let path = file?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| is_plain(name)) else {
            continue;
        };
        let wanted = match path.extension().and_then(|ending| ending.to_str()) {
            Some("snapshot") => {
                snapshot::peek(&path).is_some_and(|h| h.model == *model && h.sequence == sequence)
            }
            Some("json") => true,
            _ => false,
        };
        if wanted {
            files.push((name.to_owned(), path));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Copies the uploads that the destination does not have yet.
async fn copy_media(
    destination: &dyn Destination,
    running: &Running,
    wanted: Vec<Wanted>,
    recheck: bool,
) -> Result<Media, BackupError> {
    let mut media = Media::default();
    for file in wanted {
        running.meter.check()?;
        let key = media_key(&file.sha256);
        let there = destination.size(&key).await? == Some(file.size_bytes)
            && (!recheck
                || destination.digest(&key, &running.meter).await?.is_some_and(|c| c.sha256 == file.sha256));
        let lacking = if there {
            running.meter.add(if recheck { 0 } else { file.size_bytes });
            None
        } else {
            let lacking = copy_one(destination, running, &file, &key).await?;
            media.copied_files += u64::from(lacking.is_none());
            media.copied_bytes += if lacking.is_none() { file.size_bytes } else { 0 };
            lacking
        };
        match &lacking {
            None => media.bytes += file.size_bytes,
            Some(reason) => {
                media.lacking += 1;
                tracing::warn!(sha256 = file.sha256, reason, "the snapshot lacks an upload");
            }
        }
        running.one_done();
        media.list.push(MediaEntry { sha256: file.sha256, size_bytes: file.size_bytes, lacking });
    }
    Ok(media)
}

/// Copies one upload. Returns why it is lacking if the data folder does not have its original bytes.
async fn copy_one(
    destination: &dyn Destination,
    running: &Running,
    file: &Wanted,
    key: &str,
) -> Result<Option<String>, BackupError> {
    match destination.upload(&file.path, key, Some(&file.sha256), &running.meter).await {
        Ok(content) if content.sha256 == file.sha256 => Ok(None),
        Ok(_) => Ok(Some("damaged".to_owned())),
        Err(BackupError::Destination(_)) if !file.path.is_file() => Ok(Some("missing".to_owned())),
        Err(error) => Err(error),
    }
}

fn entry(path: &str, content: Content) -> FileEntry {
    FileEntry { path: path.to_owned(), size_bytes: content.size_bytes, sha256: content.sha256 }
}

fn entry_of(path: &str, bytes: &[u8]) -> FileEntry {
    use sha2::Digest;
    let sha256 = hex::encode(sha2::Sha256::digest(bytes));
    FileEntry { path: path.to_owned(), size_bytes: bytes.len() as u64, sha256 }
}

/// Removes a snapshot's folder, the manifest first: what remains is no longer a snapshot.
pub(super) async fn remove_files(destination: &dyn Destination, id: SnapshotId) -> Result<(), BackupError> {
    destination.delete(&file_key(id, MANIFEST)).await?;
    for key in destination.list(&format!("snapshots/{id}/")).await? {
        destination.delete(&key).await?;
    }
    Ok(())
}

/// Deletes a snapshot and the media that only it needed. The manifest goes first: from then on the snapshot
/// does not exist, even if the deletion is interrupted. The caller holds the destination's lock.
pub(super) async fn delete(destination: &dyn Destination, id: &str) -> Result<(), BackupError> {
    let folder = format!("snapshots/{id}/");
    let manifest = format!("{folder}{MANIFEST}");
    if destination.size(&manifest).await?.is_none() {
        return Err(BackupError::NotFound(id.to_owned()));
    }
    let needed = needed_by_others(destination, id).await;
    destination.delete(&manifest).await?;
    for key in destination.list(&folder).await? {
        destination.delete(&key).await?;
    }
    let Some(needed) = needed? else {
        tracing::warn!("cannot read another snapshot, so no media is deleted");
        return Ok(());
    };
    for key in destination.list("media/").await? {
        let name = key.rsplit('/').next().unwrap_or_default();
        if is_sha256(name) && !needed.contains(name) {
            destination.delete(&key).await?;
        }
    }
    Ok(())
}

/// Hashes of the media that other snapshots need; `None` if that cannot be determined.
async fn needed_by_others(
    destination: &dyn Destination,
    id: &str,
) -> Result<Option<HashSet<String>>, BackupError> {
    let mut needed = HashSet::new();
    for (other, manifest) in read_manifests(destination).await? {
        if other == id {
            continue;
        }
        let Ok(manifest) = manifest else { return Ok(None) };
        match super::restore::media_of(destination, &manifest).await {
            Ok(list) => needed.extend(list.into_iter().map(|entry| entry.sha256)),
            Err(BackupError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(needed))
}
