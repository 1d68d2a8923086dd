//! Reads a snapshot to verify or restore it.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::BackupError;
use super::destination::{Destination, Meter};
use super::folder::make_folder;
use super::manifest::{
    FileEntry, MANIFEST, MAX_MANIFEST_BYTES, MEDIA, Manifest, MediaEntry, STORE, decode_media, file_key,
    is_sha256, media_key,
};
use crate::files::Content;
use crate::sqlite::{CopiedAsset, DATABASE, StoreCopy};
use crate::store::StorageFull;

/// Rows of the store's copy read per page.
const PAGE: u32 = 4096;
/// Largest media list that is read; an entry takes 170 bytes.
const MAX_LIST_BYTES: u64 = 4 << 30;
/// How many missing files are named; the rest are only counted.
const NAMED: usize = 1000;

/// The result of a restoration.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Restored {
    /// Number of assets.
    pub assets: u64,
    /// Number of clips.
    pub clips: u64,
    /// Number of uploads restored.
    pub media_files: u64,
    /// Total size of all written files.
    pub bytes: u64,
    /// Uploads that the snapshot lacks because they were missing or damaged when it was taken.
    pub lacking: u64,
    /// Number of files indexed by path that are no longer where they were.
    pub missing_by_path: u64,
    /// The first thousand of their paths.
    pub missing_paths: Vec<String>,
}

/// Reads and verifies a manifest.
pub(super) async fn manifest_of(destination: &dyn Destination, id: &str) -> Result<Manifest, BackupError> {
    let key = format!("snapshots/{id}/{MANIFEST}");
    let missing = || BackupError::NotFound(id.to_owned());
    if destination.size(&key).await?.ok_or_else(missing)? > MAX_MANIFEST_BYTES {
        return Err(BackupError::damaged(MANIFEST, "does not have the size given in the manifest"));
    }
    let bytes = destination.read(&key, MAX_MANIFEST_BYTES).await?.ok_or_else(missing)?;
    let manifest = Manifest::decode(&bytes)?;
    if manifest.id.to_string() == id {
        Ok(manifest)
    } else {
        Err(BackupError::damaged(MANIFEST, "belongs to another snapshot"))
    }
}

/// Like `manifest_of`, for a snapshot that the caller needs: leftovers of one are an error.
pub(super) async fn wanted_manifest(
    destination: &dyn Destination,
    id: &str,
) -> Result<Manifest, BackupError> {
    match manifest_of(destination, id).await {
        Err(BackupError::NotFound(_)) if !destination.list(&format!("snapshots/{id}/")).await?.is_empty() => {
            Err(BackupError::damaged(MANIFEST, "is missing"))
        }
        outcome => outcome,
    }
}

/// Reads and verifies the media list.
pub(super) async fn media_of(
    destination: &dyn Destination,
    manifest: &Manifest,
) -> Result<Vec<MediaEntry>, BackupError> {
    let Some(entry) = manifest.files.iter().find(|file| file.path == MEDIA) else {
        return Err(BackupError::damaged(MEDIA, "is missing"));
    };
    let bytes = destination.read(&file_key(manifest.id, MEDIA), MAX_LIST_BYTES).await?;
    let bytes = bytes.ok_or_else(|| BackupError::damaged(MEDIA, "is missing"))?;
    let found = Content { sha256: hex::encode(Sha256::digest(&bytes)), size_bytes: bytes.len() as u64 };
    compare(MEDIA, Some(found), &entry.sha256, entry.size_bytes)?;
    decode_media(&bytes)
}

fn compare(file: &str, found: Option<Content>, sha256: &str, size_bytes: u64) -> Result<(), BackupError> {
    match found {
        None => Err(BackupError::damaged(file, "is missing")),
        Some(found) if found.size_bytes != size_bytes => {
            Err(BackupError::damaged(file, "does not have the size given in the manifest"))
        }
        Some(found) if found.sha256 != sha256 => {
            Err(BackupError::damaged(file, "does not match its checksum"))
        }
        Some(_) => Ok(()),
    }
}

/// Reads every byte of a snapshot; returns the error of each file that does not match its checksum.
pub(super) async fn verify(
    destination: &dyn Destination,
    manifest: &Manifest,
    meter: &Arc<Meter>,
) -> Result<Vec<BackupError>, BackupError> {
    let mut wrong = Vec::new();
    let mut note = |outcome: Result<(), BackupError>| match outcome {
        Err(error @ BackupError::Damaged { .. }) => {
            wrong.push(error);
            Ok(())
        }
        other => other,
    };
    for file in &manifest.files {
        let found = destination.digest(&file_key(manifest.id, &file.path), meter).await?;
        note(compare(&file.path, found, &file.sha256, file.size_bytes))?;
    }
    match media_of(destination, manifest).await {
        Ok(list) => {
            for entry in list.iter().filter(|entry| entry.lacking.is_none()) {
                let key = media_key(&entry.sha256);
                let found = destination.digest(&key, meter).await?;
                note(compare(&key, found, &entry.sha256, entry.size_bytes))?;
            }
        }
        // Reported above already.
        Err(BackupError::Damaged { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(wrong)
}

/// Restores a snapshot as a new data folder. Everything is written and verified next to it; only a complete
/// library gets the folder's name.
pub(super) async fn restore(
    destination: &dyn Destination,
    id: &str,
    data_dir: &Path,
    meter: &Arc<Meter>,
) -> Result<Restored, BackupError> {
    let manifest = wanted_manifest(destination, id).await?;
    let media = media_of(destination, &manifest).await?;
    let data_dir = real_place(data_dir)?;
    refuse_full(&data_dir)?;
    let parent = data_dir.parent().unwrap_or(Path::new("/")).to_owned();
    let named = |error| at(&parent, &error);
    make_folder(&parent).map_err(named)?;
    let temporary = tempfile::Builder::new().prefix(".restoring-").tempdir_in(&parent).map_err(named)?;
    let root = temporary.path();
    let bytes = write_files(destination, &manifest, root, meter).await?;
    let mut restored = Restored {
        assets: manifest.assets,
        clips: manifest.clips,
        bytes,
        lacking: manifest.lacking,
        ..Restored::default()
    };
    put_media(destination, &media, root, meter, &mut restored).await?;
    sync_folders(root)?;
    refuse_full(&data_dir)?;
    // Replaces an empty folder, if there is one.
    std::fs::rename(root, &data_dir).map_err(|error| at(&data_dir, &error))?;
    // The folder has moved, so there is nothing left to remove.
    let _ = temporary.keep();
    File::open(&parent)?.sync_all()?;
    Ok(restored)
}

/// The folder itself, if it is reached by a link.
fn real_place(data_dir: &Path) -> Result<PathBuf, BackupError> {
    let data_dir = std::path::absolute(data_dir)?;
    let is_link = std::fs::symlink_metadata(&data_dir).is_ok_and(|meta| meta.is_symlink());
    if is_link { Ok(data_dir.canonicalize().map_err(|error| at(&data_dir, &error))?) } else { Ok(data_dir) }
}

/// An error with the path that it is about.
fn at(path: &Path, error: &std::io::Error) -> BackupError {
    match StorageFull::of_io(error) {
        Some(full) => BackupError::Store(full.into()),
        None => BackupError::Io(std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

fn refuse_full(data_dir: &Path) -> Result<(), BackupError> {
    match std::fs::read_dir(data_dir).map(|mut entries| entries.next().is_some()) {
        Ok(false) => Ok(()),
        Ok(true) => Err(BackupError::NotEmpty(data_dir.display().to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            Err(BackupError::NotEmpty(data_dir.display().to_string()))
        }
        Err(error) => Err(at(data_dir, &error)),
    }
}

/// Path of a snapshot's file within a data folder; `None` if it does not belong there.
fn place_of(path: &str) -> Option<PathBuf> {
    match path.split_once('/') {
        None if path == STORE => Some(DATABASE.into()),
        Some(("index", name)) if !name.contains('/') => Some(Path::new("index").join(name)),
        _ => None,
    }
}

async fn write_files(
    destination: &dyn Destination,
    manifest: &Manifest,
    root: &Path,
    meter: &Arc<Meter>,
) -> Result<u64, BackupError> {
    for folder in ["index", "uploads", "tmp"] {
        make_folder(&root.join(folder))?;
    }
    let mut bytes = 0;
    for FileEntry { path, size_bytes, sha256 } in &manifest.files {
        let key = file_key(manifest.id, path);
        let found = match place_of(path) {
            Some(place) => destination.download(&key, &root.join(place), meter).await?,
            // Verify it all the same: a damaged snapshot is refused as a whole.
            None => destination.digest(&key, meter).await?,
        };
        compare(path, found, sha256, *size_bytes)?;
        bytes += size_bytes;
    }
    Ok(bytes)
}

/// Writes the uploads to where the store expects them, and looks for the files indexed by path.
async fn put_media(
    destination: &dyn Destination,
    media: &[MediaEntry],
    root: &Path,
    meter: &Arc<Meter>,
    restored: &mut Restored,
) -> Result<(), BackupError> {
    let known: HashMap<&str, &MediaEntry> =
        media.iter().map(|entry| (entry.sha256.as_str(), entry)).collect();
    let mut store = StoreCopy::open(&root.join(DATABASE)).await?;
    let mut after = 0;
    loop {
        let page = store.assets(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(store.close().await?) };
        after = last.n;
        for asset in page {
            if !asset.owned {
                note_missing(&asset, restored);
                continue;
            }
            let Some(entry) = known.get(asset.sha256.as_str()) else {
                return Err(BackupError::damaged(MEDIA, "does not name an upload"));
            };
            if entry.lacking.is_some() {
                continue;
            }
            let place =
                kept_name(&asset).ok_or_else(|| BackupError::damaged(STORE, "names an unexpected file"))?;
            let to = root.join("uploads").join(place);
            make_folder(to.parent().unwrap_or(root))?;
            let key = media_key(&entry.sha256);
            let found = destination.download(&key, &to, meter).await?;
            compare(&key, found, &entry.sha256, entry.size_bytes)?;
            restored.media_files += 1;
            restored.bytes += entry.size_bytes;
        }
    }
}

fn note_missing(asset: &CopiedAsset, restored: &mut Restored) {
    if !Path::new(&asset.path).is_file() {
        restored.missing_by_path += 1;
        if restored.missing_paths.len() < NAMED {
            restored.missing_paths.push(asset.path.clone());
        }
    }
}

/// The part `ab/<hash>-<segmentation>` of an upload's path, if the path has that form.
fn kept_name(asset: &CopiedAsset) -> Option<PathBuf> {
    let path = Path::new(&asset.path);
    let name = path.file_name()?.to_str()?;
    let (hash, tail) = name.split_once('-')?;
    let folder = path.parent()?.file_name()?.to_str()?;
    let right = is_sha256(hash)
        && hash == asset.sha256
        && hash.starts_with(folder)
        && folder.len() == 2
        && tail.len() == 8
        && tail.bytes().all(|b| b.is_ascii_hexdigit());
    right.then(|| Path::new(folder).join(name))
}

fn sync_folders(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    File::open(folder)?.sync_all()
}
