//! The bytes of assets: opened only while they are those that were indexed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::{Library, LibraryError, open_resolved};
use crate::jobs::now_unix_ms;
use crate::store::{AssetRecord, ContentNote, Damage, mtime_ns};
use crate::types::AssetId;

/// Bytes hashed at a time.
const CHUNK_BYTES: usize = 1 << 18;
/// Files whose state is remembered besides what the store knows of them.
const MOST_REMEMBERED: usize = 16_384;

/// Size and time of a file, and whether its bytes are right.
type Seen = (u64, i64, bool);

/// What is known of files that the store does not know, or not yet.
#[derive(Debug, Default)]
pub(super) struct Verified {
    seen: Mutex<HashMap<AssetId, Seen>>,
    /// One file is hashed at a time, however many ask for it.
    hashing: tokio::sync::Mutex<()>,
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

/// A file as it was opened.
struct Opened {
    file: File,
    size_bytes: u64,
    mtime_ns: i64,
}

fn open(path: &str) -> Result<Opened, LibraryError> {
    let file = open_resolved(path.as_ref())?;
    let meta = file.metadata()?;
    Ok(Opened { size_bytes: meta.len(), mtime_ns: mtime_ns(&meta), file })
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
    let opened = match open(&asset.path) {
        Err(LibraryError::PathMissing(_) | LibraryError::PathKind(..) | LibraryError::PathNotAllowed(_)) => {
            return Ok(Some(WholeRead { note: note(None, Some(Damage::Missing)), size_bytes: 0 }));
        }
        opened => opened?,
    };
    let right = opened.size_bytes == asset.size_bytes;
    let right = if right { has_hash(&opened.file, &asset.sha256, bytes_per_sec, stop)? } else { Some(false) };
    Ok(right.map(|right| WholeRead {
        note: note(Some(opened.mtime_ns), (!right).then_some(Damage::Changed)),
        size_bytes: opened.size_bytes,
    }))
}

impl Library {
    /// Opens the file of an asset, and its length. Size and time tell whether it is the one that was indexed;
    /// where they do not, it is read as a whole.
    ///
    /// # Errors
    /// [`LibraryError::ContentDamaged`] where it holds other bytes, [`LibraryError::PathMissing`].
    pub async fn open_content(&self, asset: &AssetRecord) -> Result<(File, u64), LibraryError> {
        let path = asset.path.clone();
        let opened = match super::blocking(move || open(&path)).await {
            Err(error @ LibraryError::PathMissing(_)) => {
                if asset.damage != Some(Damage::Missing) {
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
            return Ok((opened.file, opened.size_bytes));
        }
        metrics::counter!("triptych_content_damaged_total").increment(1);
        Err(LibraryError::ContentDamaged { owned: asset.owned })
    }

    /// Whether the bytes are right, where that is known without reading them.
    fn known(&self, asset: &AssetRecord, opened: &Opened) -> Option<bool> {
        if opened.size_bytes != asset.size_bytes {
            return Some(false);
        }
        if asset.file_mtime_ns == Some(opened.mtime_ns) {
            match asset.damage {
                None | Some(Damage::Metadata) => return Some(true),
                Some(Damage::Changed) => return Some(false),
                Some(Damage::Missing) => {}
            }
        }
        let (size_bytes, mtime_ns, right) = self.verified.of(asset.id)?;
        ((size_bytes, mtime_ns) == (opened.size_bytes, opened.mtime_ns)).then_some(right)
    }

    async fn verify(&self, asset: &AssetRecord, opened: &Opened) -> Result<bool, LibraryError> {
        let _turn = self.verified.hashing.lock().await;
        // Somebody may just have read it.
        if let Some(right) = self.known(asset, opened) {
            return Ok(right);
        }
        let (file, sha256, stop) = (opened.file.try_clone()?, asset.sha256.clone(), self.stop.clone());
        let right = super::blocking(move || Ok(has_hash(&file, &sha256, 0, &stop)?)).await?;
        let right = right.ok_or(LibraryError::Stopping)?;
        self.verified.remember(asset.id, (opened.size_bytes, opened.mtime_ns, right));
        self.note_content(asset, Some(opened.mtime_ns), (!right).then_some(Damage::Changed)).await;
        Ok(right)
    }

    /// Notes what is known of the bytes of an asset. Files of a user are theirs to change.
    async fn note_content(&self, asset: &AssetRecord, mtime_ns: Option<i64>, damage: Option<Damage>) {
        if let Some(damage) = damage.filter(|_| asset.owned) {
            tracing::error!(asset = %asset.id, damage = damage.as_str(), "the bytes of an upload are damaged");
        }
        if !asset.owned && damage.is_some() {
            return;
        }
        let checked_unix_ms = mtime_ns.map(|_| now_unix_ms());
        let note = ContentNote { id: asset.id, mtime_ns, checked_unix_ms, damage };
        if let Err(error) = self.store.note_content(&[note]).await {
            // It is found out again.
            tracing::debug!(%error, "what is known of an asset's bytes could not be noted");
        }
    }

    /// Bytes that were sent once more have taken the place of those that were damaged.
    pub(super) async fn content_renewed(&self, asset: &AssetRecord) {
        let meta = tokio::fs::metadata(&asset.path).await.ok();
        if let Some(meta) = meta.filter(|_| asset.damage.is_some_and(|damage| damage != Damage::Metadata)) {
            self.note_content(asset, Some(mtime_ns(&meta)), None).await;
            tracing::info!(asset = %asset.id, "the bytes of a damaged upload were sent again");
        }
    }
}
