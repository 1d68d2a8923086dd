//! How far a store falls short of the ledger, determined before anything is changed: opening a store for
//! writing moves its write-ahead log into the database and deletes it, including the part that SQLite could
//! not read.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::ledger::Replay;
use crate::sqlite::{DATABASE, StoreCopy};
use crate::store::StoreError;

/// How far a store falls short of the acknowledged changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// Number of acknowledged changes.
    pub acknowledged: i64,
    /// Number of changes that the store has.
    pub stored: i64,
    /// Number of acknowledged assets that the store lacks.
    pub missing_assets: usize,
}

impl std::fmt::Display for Shortfall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "it has {} of {} acknowledged changes and lacks {} acknowledged assets",
            self.stored, self.acknowledged, self.missing_assets
        )
    }
}

/// Inspects a store that nobody has open; changes none of its files. `None` if it does not fall short of the
/// ledger, or if only opening it can show this. `holds_uploads`: whether there are uploaded files. The caller
/// holds the data folder's lock.
///
/// # Errors
/// [`StoreError::Malformed`].
pub async fn shortfall_of(
    data_dir: &Path,
    folder: &Path,
    replay: &Replay,
    holds_uploads: bool,
) -> Result<Option<Shortfall>, StoreError> {
    let database = folder.join(DATABASE);
    if bytes_of(&beside(&database, "-journal")) > 0 {
        // Being created when the server was killed: opening it rolls that back.
        return Ok(None);
    }
    // An empty file is a new database, and SQLite deletes a log beside it.
    if bytes_of(&database) == 0 {
        return Ok(compared(0, replay, holds_uploads).then(|| Shortfall::of(replay, 0, replay.live.len())));
    }
    if bytes_of(&beside(&database, "-wal")) == 0 {
        return look(StoreCopy::open(&database).await, replay, holds_uploads).await;
    }
    let (original, scratch) = (database.clone(), data_dir.join("tmp"));
    let made = tokio::task::spawn_blocking(move || Twin::of(&original, &scratch)).await;
    let looked = match made.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(twin) => look(StoreCopy::open_with_log(&twin.0).await, replay, holds_uploads).await,
        Err(error) => Err(StoreError::of_io(&database, &error)),
    };
    match looked {
        Err(StoreError::Malformed(why)) => Err(StoreError::Malformed(why)),
        // A full disk, mostly: the store is compared once it is open.
        Err(error) => {
            tracing::warn!(%error, "cannot inspect the store before opening it");
            Ok(None)
        }
        looked => looked,
    }
}

/// A write-ahead log without its database, which SQLite would delete.
#[must_use]
pub fn stray_log(folder: &Path) -> Option<PathBuf> {
    let database = folder.join(DATABASE);
    let log = beside(&database, "-wal");
    (bytes_of(&database) == 0 && bytes_of(&log) > 0).then_some(log)
}

async fn look(
    opened: Result<StoreCopy, StoreError>,
    replay: &Replay,
    holds_uploads: bool,
) -> Result<Option<Shortfall>, StoreError> {
    let mut store = opened?;
    let stored = store.acknowledged().await?;
    let mut found = None;
    if compared(stored, replay, holds_uploads) {
        let ids = store.asset_ids().await?;
        let missing = replay.live.keys().filter(|id| !ids.contains(&id.to_string())).count();
        // A store of a version that did not count has assets, and no ledger beside it.
        found = (replay.exists || ids.is_empty()).then(|| Shortfall::of(replay, stored, missing));
    }
    store.close().await?;
    Ok(found)
}

/// Whether a store with this count may have lost something: it is behind the ledger, or new beside uploads.
fn compared(stored: i64, replay: &Replay, holds_uploads: bool) -> bool {
    stored < replay.acknowledged || (!replay.exists && stored == 0 && holds_uploads)
}

impl Shortfall {
    fn of(replay: &Replay, stored: i64, missing_assets: usize) -> Self {
        Self { acknowledged: replay.acknowledged, stored, missing_assets }
    }
}

/// The database under another name, with a copy of its write-ahead log: SQLite writes to the copy, and the
/// database is opened for reading. Removed on drop; startup removes leftovers of a crash.
struct Twin(PathBuf);

impl Twin {
    fn of(database: &Path, scratch: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(scratch)?;
        let twin = Self(scratch.join(format!("snp_look-{}.db", uuid::Uuid::now_v7().simple())));
        // A copy only where a file cannot have two names.
        if fs::hard_link(database, &twin.0).is_err() {
            fs::copy(database, &twin.0)?;
        }
        fs::copy(beside(database, "-wal"), beside(&twin.0, "-wal"))?;
        Ok(twin)
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        for ending in ["-wal", "-shm", ""] {
            match fs::remove_file(beside(&self.0, ending)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::debug!(%error, "a temporary file remains until the next startup");
                }
                _ => {}
            }
        }
    }
}

fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(ending);
    PathBuf::from(name)
}

/// Size of a file; 0 if there is none.
fn bytes_of(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |file| file.len())
}
