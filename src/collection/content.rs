//! Access to the bytes of assets: a file is opened only while its bytes are those that were indexed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::{Collection, LibraryError, blocking};
use crate::catalog::UserFile;
use crate::files::{FileError, kept_name, let_settle, open_resolved};
use crate::store::{AssetRecord, ContentNote, Damage, changed_ns, mtime_ns};
use crate::types::{AssetId, now_unix_ms};

/// Bytes hashed at a time.
const CHUNK_BYTES: usize = 1 << 18;
/// Assets read per page.
const PAGE: u32 = 1000;
/// Number of files whose state is remembered in memory, beyond what the store knows.
const MOST_REMEMBERED: usize = 16_384;
/// Time limit for reading files that may have changed, before the answer goes out without the result.
const LOOKS_AT_MOST: Duration = Duration::from_secs(2);

/// State of a file when all its bytes were read.
#[derive(Debug, Clone, Copy)]
struct Seen {
    size_bytes: u64,
    stamp_ns: i64,
    /// Whether its bytes are those that were indexed.
    right: bool,
}

/// The state of files that the store does not know, or not yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verified {
    seen: Arc<Mutex<HashMap<AssetId, Seen>>>,
    /// Only one file is hashed at a time, however many requests need it.
    hashing: Arc<tokio::sync::Mutex<()>>,
}

impl Verified {
    fn of(&self, id: AssetId) -> Option<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }

    fn remember(&self, id: AssetId, seen: Seen) {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_REMEMBERED {
            all.clear();
        }
        all.insert(id, seen);
    }
}

/// The file of an asset, as it was when opened.
#[derive(Debug)]
pub struct Opened {
    /// The file, open for reading.
    pub file: File,
    /// Its size in bytes.
    pub size_bytes: u64,
    stamp_ns: i64,
    owned: bool,
}

impl Opened {
    /// Whether the file has not changed since it was opened, so all bytes read in between belong together.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.file
            .metadata()
            .is_ok_and(|meta| meta.len() == self.size_bytes && stamp_ns(&meta, self.owned) == self.stamp_ns)
    }
}

/// The time stamp that reveals a write. Nobody but the server writes to uploads, and their change times do
/// not survive the restoration of a snapshot; the modification time of a user's file can be set back.
fn stamp_ns(meta: &std::fs::Metadata, owned: bool) -> i64 {
    if owned { mtime_ns(meta) } else { changed_ns(meta) }
}

fn open(path: &str, owned: bool) -> Result<Opened, LibraryError> {
    let file = open_resolved(path.as_ref())?;
    let meta = file.metadata()?;
    Ok(Opened { size_bytes: meta.len(), stamp_ns: stamp_ns(&meta, owned), file, owned })
}

/// Whether a file has this hash; `None` if cancelled. Blocking. Reads at `bytes_per_sec`; 0: at full speed.
pub(crate) fn has_hash(
    mut file: &File,
    sha256: &str,
    bytes_per_sec: u64,
    stop: &CancellationToken,
) -> std::io::Result<Option<bool>> {
    file.seek(SeekFrom::Start(0))?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; CHUNK_BYTES]);
    let (began, mut done) = (Instant::now(), 0_u64);
    loop {
        if stop.is_cancelled() {
            return Ok(None);
        }
        let read = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        hasher.update(part);
        done += read as u64;
        if bytes_per_sec > 0 {
            let due = Duration::from_secs_f64(done as f64 / bytes_per_sec as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(Some(hex::encode(hasher.finalize()) == sha256))
}

/// The result of reading all bytes of an asset.
pub(crate) struct WholeRead {
    pub(crate) note: ContentNote,
    pub(crate) size_bytes: u64,
}

/// Reads all bytes of an asset; `None` if cancelled. Blocking.
pub(crate) fn read_whole(
    asset: &AssetRecord,
    bytes_per_sec: u64,
    stop: &CancellationToken,
) -> Result<Option<WholeRead>, LibraryError> {
    let note = |mtime_ns, damage| ContentNote {
        id: asset.id,
        mtime_ns,
        checked_unix_ms: Some(now_unix_ms()),
        damage,
    };
    let opened = match open(&asset.path, asset.owned) {
        Err(LibraryError::File(FileError::Missing(_) | FileError::Kind(..) | FileError::NotAllowed(_))) => {
            return Ok(Some(WholeRead { note: note(None, Some(Damage::Missing)), size_bytes: 0 }));
        }
        opened => opened?,
    };
    let right = opened.size_bytes == asset.size_bytes;
    let right = if right { has_hash(&opened.file, &asset.sha256, bytes_per_sec, stop)? } else { Some(false) };
    Ok(right.map(|right| WholeRead {
        note: note(Some(opened.stamp_ns), (!right).then_some(Damage::Changed)),
        size_bytes: opened.size_bytes,
    }))
}

impl Collection {
    /// Opens the file of an asset. Size and time tell whether it is the one that was indexed; if they do not,
    /// the whole file is read.
    ///
    /// # Errors
    /// [`LibraryError::ContentDamaged`] if it contains other bytes, [`FileError::Missing`].
    pub async fn open_content(&self, asset: &AssetRecord) -> Result<Opened, LibraryError> {
        let (path, owned) = (asset.path.clone(), asset.owned);
        let opened = match blocking(move || open(&path, owned)).await {
            Err(error @ LibraryError::File(FileError::Missing(_))) => {
                // A user's file may be on a disk that is not mounted.
                if owned && asset.damage != Some(Damage::Missing) {
                    self.note_content(asset, None, Some(Damage::Missing)).await;
                }
                return Err(error);
            }
            opened => opened?,
        };
        let right = match self.known(asset, &opened) {
            Some(right) => right,
            None => self.verify(asset, &opened).await?,
        };
        if right {
            if owned && asset.damage == Some(Damage::Missing) {
                self.note_content(asset, Some(opened.stamp_ns), None).await;
            }
            return Ok(opened);
        }
        if !owned && asset.damage != Some(Damage::Changed) {
            self.note_content(asset, Some(opened.stamp_ns), Some(Damage::Changed)).await;
        }
        metrics::counter!("triptych_content_damaged_total").increment(1);
        Err(LibraryError::ContentDamaged { owned })
    }

    /// Compares the files in the folder of uploads with the assets that own them, and records which are missing
    /// and which are back. Returns the number of those that were not known to be missing.
    pub(crate) async fn compare_uploads(&self) -> Result<usize, LibraryError> {
        for asset in self.store.damaged_assets(u32::MAX).await?.0 {
            if asset.damage == Some(Damage::Missing) && self.open_content(&asset).await.is_ok() {
                tracing::info!(asset = %asset.id, "a missing upload is back");
            }
        }
        // The names on the disk are read later than those in the store: a file is there before its row.
        let owned = self.store.owned_paths().await?;
        let uploads = Arc::clone(&self.data.uploads);
        let lost: HashSet<String> = blocking(move || {
            let kept: HashSet<String> = uploads.kept_names()?.into_iter().collect();
            let is_lost = |path: &String| kept_name(path.as_ref()).is_some_and(|name| !kept.contains(&name));
            Ok(owned.into_iter().filter(is_lost).collect())
        })
        .await?;
        let (mut found, mut after) = (0, None);
        while !lost.is_empty() {
            let page = self.store.list_assets(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            let gone = page.into_iter().filter(|asset| {
                asset.owned && asset.damage != Some(Damage::Missing) && lost.contains(&asset.path)
            });
            let note = |asset: AssetRecord| ContentNote {
                id: asset.id,
                mtime_ns: None,
                checked_unix_ms: None,
                damage: Some(Damage::Missing),
            };
            let notes: Vec<_> = gone.map(note).collect();
            if !notes.is_empty() {
                self.store.note_content(&notes).await?;
                found += notes.len();
            }
        }
        Ok(found)
    }

    /// Current damage of these assets. Files of users are checked on the disk; one that cannot be verified in
    /// time counts as changed.
    pub async fn damage_now(&self, assets: &[AssetRecord]) -> HashMap<AssetId, Damage> {
        let ends = tokio::time::Instant::now() + LOOKS_AT_MOST;
        let mut damaged = HashMap::new();
        for asset in assets {
            let damage = if asset.owned {
                asset.damage
            } else {
                match tokio::time::timeout_at(ends, self.open_content(asset)).await {
                    Ok(Ok(_)) => asset.damage.filter(|damage| *damage == Damage::Metadata),
                    Ok(Err(LibraryError::ContentDamaged { .. })) | Err(_) => Some(Damage::Changed),
                    Ok(Err(_)) => Some(Damage::Missing),
                }
            };
            damaged.extend(damage.map(|damage| (asset.id, damage)));
        }
        damaged
    }

    /// Damage of the users' files among these assets. Usually checks only each file's size and time.
    pub(crate) async fn damage_of(
        &self,
        ids: BTreeSet<AssetId>,
    ) -> Result<HashMap<AssetId, Damage>, LibraryError> {
        let files: Vec<_> = ids
            .into_iter()
            .filter_map(|id| Some((id, self.searched.catalog.asset(id)?.file.clone()?)))
            .collect();
        if files.is_empty() {
            return Ok(HashMap::new());
        }
        let doubtful = blocking(move || {
            let same = |file: &UserFile| {
                std::fs::symlink_metadata(&*file.path).is_ok_and(|meta| {
                    meta.len() == file.size_bytes && Some(changed_ns(&meta)) == file.changed_ns
                })
            };
            Ok(files.into_iter().filter(|(_, file)| !same(file)).map(|(id, _)| id).collect::<Vec<_>>())
        });
        let doubtful = doubtful.await?;
        if doubtful.is_empty() {
            return Ok(HashMap::new());
        }
        Ok(self.damage_now(&self.store.assets(&doubtful).await?).await)
    }

    /// Whether the bytes are right, if that is known without reading them.
    fn known(&self, asset: &AssetRecord, opened: &Opened) -> Option<bool> {
        if opened.size_bytes != asset.size_bytes {
            return Some(false);
        }
        if asset.file_mtime_ns == Some(opened.stamp_ns) {
            match asset.damage {
                None | Some(Damage::Metadata) => return Some(true),
                Some(Damage::Changed) => return Some(false),
                // Its disk is mounted again.
                Some(Damage::Missing) if asset.owned => return Some(true),
                Some(Damage::Missing) => {}
            }
        }
        let Seen { size_bytes, stamp_ns, right } = self.verified.of(asset.id)?;
        ((size_bytes, stamp_ns) == (opened.size_bytes, opened.stamp_ns)).then_some(right)
    }

    async fn verify(&self, asset: &AssetRecord, opened: &Opened) -> Result<bool, LibraryError> {
        let turn = Arc::clone(&self.verified.hashing).lock_owned().await;
        // Another request may just have read it.
        if let Some(right) = self.known(asset, opened) {
            return Ok(right);
        }
        let (file, sha256, stop) = (opened.file.try_clone()?, asset.sha256.clone(), self.life.stop.clone());
        let (verified, id, owned) = (self.verified.clone(), asset.id, asset.owned);
        // Continues, and is remembered, even if the request that started it has gone.
        let read = blocking(move || {
            let _turn = turn;
            let_settle(&file)?;
            let meta = file.metadata()?;
            let (size_bytes, stamp_ns) = (meta.len(), stamp_ns(&meta, owned));
            let right = has_hash(&file, &sha256, 0, &stop)?.ok_or(LibraryError::Stopping)?;
            verified.remember(id, Seen { size_bytes, stamp_ns, right });
            Ok((right, stamp_ns))
        });
        let (right, stamp_ns) = read.await?;
        self.note_content(asset, Some(stamp_ns), (!right).then_some(Damage::Changed)).await;
        Ok(right)
    }

    /// Records what is known about the bytes of an asset.
    async fn note_content(&self, asset: &AssetRecord, mtime_ns: Option<i64>, damage: Option<Damage>) {
        match damage {
            Some(damage) if asset.owned => {
                tracing::error!(asset = %asset.id, damage = damage.as_str(), "an upload is damaged");
            }
            Some(_) => {
                tracing::info!(asset = %asset.id, path = asset.path, "a file has changed since it was indexed")
            }
            None => {}
        }
        let checked_unix_ms = mtime_ns.map(|_| now_unix_ms());
        let note = ContentNote { id: asset.id, mtime_ns, checked_unix_ms, damage };
        if let Err(error) = self.store.note_content(&[note]).await {
            // The next access finds it out again.
            tracing::debug!(%error, "could not record the state of an asset's file");
        }
    }

    /// Records that a user's file was just read completely and contains the bytes of this asset.
    pub(crate) async fn content_seen(&self, asset: &mut AssetRecord, path: &Path, changed_ns: i64) {
        if asset.owned || asset.path.as_bytes() != path.as_os_str().as_encoded_bytes() {
            return;
        }
        let damage = asset.damage.filter(|damage| *damage == Damage::Metadata);
        if asset.file_mtime_ns != Some(changed_ns) || asset.damage != damage {
            self.note_content(asset, Some(changed_ns), None).await;
            (asset.file_mtime_ns, asset.damage) = (Some(changed_ns), damage);
            let seen = Seen { size_bytes: asset.size_bytes, stamp_ns: changed_ns, right: true };
            self.verified.remember(asset.id, seen);
        }
    }

    /// Clears the damage of an upload after the same file was uploaded again.
    pub(crate) async fn content_renewed(&self, asset: &AssetRecord) {
        let meta = tokio::fs::metadata(&asset.path).await.ok();
        if let Some(meta) = meta.filter(|_| asset.damage.is_some_and(|damage| damage != Damage::Metadata)) {
            self.note_content(asset, Some(mtime_ns(&meta)), None).await;
            tracing::info!(asset = %asset.id, "a damaged upload was replaced by a new upload of the same file");
        }
    }
}
