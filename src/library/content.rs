//! The bytes of assets: opened only while they are those that were indexed.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::uploads::let_settle;
use super::{Library, LibraryError, open_resolved};
use crate::catalog::UserFile;
use crate::jobs::now_unix_ms;
use crate::store::{AssetRecord, ContentNote, Damage, StoreError, changed_ns, mtime_ns};
use crate::types::AssetId;

/// Bytes hashed at a time.
const CHUNK_BYTES: usize = 1 << 18;
/// Files whose state is remembered besides what the store knows of them.
const MOST_REMEMBERED: usize = 16_384;
/// Longest that files which may have changed are read before an answer is given without.
const LOOKS_AT_MOST: Duration = Duration::from_secs(2);

/// Size and time of a file, and whether its bytes are right.
type Seen = (u64, i64, bool);

/// What is known of files that the store does not know, or not yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Verified {
    seen: Arc<Mutex<HashMap<AssetId, Seen>>>,
    /// One file is hashed at a time, however many ask for it.
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

/// The file of an asset as it was opened.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: File,
    /// Bytes.
    pub size_bytes: u64,
    stamp_ns: i64,
    owned: bool,
}

impl Opened {
    /// Whether the file is as it was when it was opened: what was read of it meanwhile is of the same bytes.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.file
            .metadata()
            .is_ok_and(|meta| meta.len() == self.size_bytes && stamp_ns(&meta, self.owned) == self.stamp_ns)
    }
}

/// What tells that a file was written to. Nobody but the server writes to its own copies, and their times of
/// change do not outlive a restored snapshot; the time of the last write of a user's file can be set back.
fn stamp_ns(meta: &std::fs::Metadata, owned: bool) -> i64 {
    if owned { mtime_ns(meta) } else { changed_ns(meta) }
}

fn open(path: &str, owned: bool) -> Result<Opened, LibraryError> {
    let file = open_resolved(path.as_ref())?;
    let meta = file.metadata()?;
    Ok(Opened { size_bytes: meta.len(), stamp_ns: stamp_ns(&meta, owned), file, owned })
}

/// Whether a file has this hash; `None` where that was cut short. Blocking; at `bytes_per_sec`, 0 being as
/// fast as it goes.
pub(super) fn has_hash(
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

/// What reading all bytes of an asset came to; `None` where that was cut short.
pub(super) struct WholeRead {
    pub(super) note: ContentNote,
    pub(super) size_bytes: u64,
}

/// Reads all bytes of an asset. Blocking.
pub(super) fn read_whole(
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
        Err(LibraryError::PathMissing(_) | LibraryError::PathKind(..) | LibraryError::PathNotAllowed(_)) => {
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

impl Library {
    /// Opens the file of an asset. Size and time tell whether it is the one that was indexed; where they do not,
    /// it is read as a whole.
    ///
    /// # Errors
    /// [`LibraryError::ContentDamaged`] where it holds other bytes, [`LibraryError::PathMissing`].
    pub async fn open_content(&self, asset: &AssetRecord) -> Result<Opened, LibraryError> {
        let (path, owned) = (asset.path.clone(), asset.owned);
        let opened = match super::blocking(move || open(&path, owned)).await {
            Err(error @ LibraryError::PathMissing(_)) => {
                // A user's disk that is not mounted looks just so.
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
            return Ok(opened);
        }
        if !owned && asset.damage != Some(Damage::Changed) {
            self.note_content(asset, Some(opened.stamp_ns), Some(Damage::Changed)).await;
        }
        metrics::counter!("triptych_content_damaged_total").increment(1);
        Err(LibraryError::ContentDamaged { owned })
    }

    /// What is wrong with the files of these assets now; of a user's file the file itself is asked, and one that
    /// cannot be told from a changed one in a moment counts as changed.
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

    /// Known damage of the users' files among these assets. Usually checks only each file's size and time.
    pub(super) async fn damage_of(
        &self,
        ids: BTreeSet<AssetId>,
    ) -> Result<HashMap<AssetId, Damage>, LibraryError> {
        let files: Vec<_> =
            ids.into_iter().filter_map(|id| Some((id, self.catalog.asset(id)?.file.clone()?))).collect();
        if files.is_empty() {
            return Ok(HashMap::new());
        }
        let doubtful = super::blocking(move || {
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

    /// Whether the bytes are right, where that is known without reading them.
    fn known(&self, asset: &AssetRecord, opened: &Opened) -> Option<bool> {
        if opened.size_bytes != asset.size_bytes {
            return Some(false);
        }
        if asset.file_mtime_ns == Some(opened.stamp_ns) {
            match asset.damage {
                None | Some(Damage::Metadata) => return Some(true),
                Some(Damage::Changed) => return Some(false),
                Some(Damage::Missing) => {}
            }
        }
        let (size_bytes, stamp_ns, right) = self.verified.of(asset.id)?;
        ((size_bytes, stamp_ns) == (opened.size_bytes, opened.stamp_ns)).then_some(right)
    }

    async fn verify(&self, asset: &AssetRecord, opened: &Opened) -> Result<bool, LibraryError> {
        let turn = Arc::clone(&self.verified.hashing).lock_owned().await;
        // Somebody may just have read it.
        if let Some(right) = self.known(asset, opened) {
            return Ok(right);
        }
        let (file, sha256, stop) = (opened.file.try_clone()?, asset.sha256.clone(), self.stop.clone());
        let (verified, id, owned) = (self.verified.clone(), asset.id, asset.owned);
        // Goes on, and is remembered, also where nobody waits for it any more.
        let read = super::blocking(move || {
            let _turn = turn;
            let_settle(&file)?;
            let meta = file.metadata()?;
            let (size_bytes, stamp_ns) = (meta.len(), stamp_ns(&meta, owned));
            let right = has_hash(&file, &sha256, 0, &stop)?.ok_or(LibraryError::Stopping)?;
            verified.remember(id, (size_bytes, stamp_ns, right));
            Ok((right, stamp_ns))
        });
        let (right, stamp_ns) = read.await?;
        self.note_content(asset, Some(stamp_ns), (!right).then_some(Damage::Changed)).await;
        Ok(right)
    }

    /// Notes what is known of the bytes of an asset.
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
            // It is found out again.
            tracing::debug!(%error, "could not record the state of an asset's file");
        }
    }

    /// The file of a user was just read as a whole and found to hold the bytes of this asset.
    pub(super) async fn content_seen(&self, asset: &mut AssetRecord, path: &Path, changed_ns: i64) {
        if asset.owned || asset.path.as_bytes() != path.as_os_str().as_encoded_bytes() {
            return;
        }
        let damage = asset.damage.filter(|damage| *damage == Damage::Metadata);
        if asset.file_mtime_ns != Some(changed_ns) || asset.damage != damage {
            self.note_content(asset, Some(changed_ns), None).await;
            (asset.file_mtime_ns, asset.damage) = (Some(changed_ns), damage);
            self.verified.remember(asset.id, (asset.size_bytes, changed_ns, true));
        }
    }

    /// Takes away what was indexed of a path before, now that other bytes of it are. Where the older bytes lie
    /// elsewhere too, their asset is found there from now on.
    pub(super) async fn retire_replaced(&self, path: &Path, by: AssetId) -> Result<(), LibraryError> {
        let path = super::utf8(path)?;
        for old in self.store.assets_at(&path).await?.into_iter().filter(|old| old.id != by) {
            let new = self.store.asset(by).await?;
            // The same bytes, cut into clips in another way; or somebody works on it, and sees to it then.
            if old.sha256 == new.sha256
                || self.active.by_id(old.id).is_some()
                || self.moved_elsewhere(&old).await?
            {
                continue;
            }
            tracing::info!(asset = %old.id, by = %by, path, "removing the clips of a file that has changed");
            match self.delete_asset(old.id).await {
                Ok(()) | Err(LibraryError::Store(StoreError::NotFound(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn moved_elsewhere(&self, old: &AssetRecord) -> Result<bool, LibraryError> {
        for path in self.store.asset_paths(old.id).await?.into_iter().filter(|path| *path != old.path) {
            let Ok(path) = self.allowed_path(path.as_ref()).and_then(|path| super::utf8(&path)) else {
                continue;
            };
            let there = AssetRecord { path, ..old.clone() };
            let (look, stop) = (there.clone(), self.stop.clone());
            let read = super::blocking(move || read_whole(&look, 0, &stop)).await?;
            if read.is_some_and(|read| read.note.damage.is_none()) {
                let _serial = self.accept_lock.lock().await;
                self.describe(std::slice::from_ref(&there)).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Bytes that were sent once more have taken the place of those that were damaged.
    pub(super) async fn content_renewed(&self, asset: &AssetRecord) {
        let meta = tokio::fs::metadata(&asset.path).await.ok();
        if let Some(meta) = meta.filter(|_| asset.damage.is_some_and(|damage| damage != Damage::Metadata)) {
            self.note_content(asset, Some(mtime_ns(&meta)), None).await;
            tracing::info!(asset = %asset.id, "a damaged upload was replaced by a new upload of the same file");
        }
    }
}
