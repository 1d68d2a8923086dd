//! The keys on disk: `keys.json`, replaced as a whole under a lock, so that the command line can change it
//! while a server runs.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::AccessError;
use super::key::{KeyRecord, NewKey, digest};
use crate::own_files;
use crate::types::{KeyId, now_unix_ms};

const FILE: &str = "keys.json";
/// The lock for changes of the keys. Not empty once keys exist: then a missing `keys.json` is an error,
/// rather than a server open to everybody.
const LOCK: &str = "keys.lock";
/// Times of last use; losing them does no harm.
const USED: &str = "keys-used.json";
const VERSION: u32 = 1;
/// Maximum number of active keys. Every request is compared with each of them, so that all take the same
/// time.
const MAX_KEYS: usize = 1000;
/// The lock is held only while one small file is written.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often to try to take it.
const LOCK_EVERY: Duration = Duration::from_millis(10);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    keys: Vec<KeyRecord>,
    /// SHA-256 of the keys as compact JSON: a flipped bit must not turn one role into another.
    sha256: String,
}

/// Tells whether the file was replaced since it was last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    mtime_secs: i64,
    mtime_nanos: i64,
    bytes: u64,
}

/// The keys file of a data folder.
#[derive(Debug, Clone)]
pub struct KeyFile {
    dir: PathBuf,
}

impl KeyFile {
    /// The keys file of this data folder.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    pub(super) fn stamp(&self) -> Option<Stamp> {
        let found = fs::metadata(self.path()).ok()?;
        Some(Stamp {
            inode: found.ino(),
            mtime_secs: found.mtime(),
            mtime_nanos: found.mtime_nsec(),
            bytes: found.len(),
        })
    }

    /// All keys, oldest first, including revoked and expired ones.
    ///
    /// # Errors
    /// [`AccessError::Damaged`], [`AccessError::Missing`], [`AccessError::Io`].
    pub fn read(&self) -> Result<Vec<KeyRecord>, AccessError> {
        let path = self.path();
        let damaged = |what: String| AccessError::Damaged { path: path.display().to_string(), what };
        let bytes = match own_files::read(&self.dir, FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                own_files::check_file(&self.dir, LOCK)?;
                let had_keys = fs::metadata(self.dir.join(LOCK)).is_ok_and(|found| found.len() > 0);
                if had_keys {
                    return Err(AccessError::Missing(path.display().to_string()));
                }
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        };
        let written: Written = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if written.version != VERSION {
            let what = format!("expected version {VERSION}, got {}", written.version);
            return Err(damaged(what));
        }
        if checksum(&written.keys)? != written.sha256 {
            return Err(damaged("its checksum does not match its contents".to_owned()));
        }
        Ok(written.keys)
    }

    /// Creates a key. Returns the key itself, which cannot be read again, and its record.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn create(&self, new: NewKey) -> Result<(String, KeyRecord), AccessError> {
        let (key, record) = new.make()?;
        let kept = record.clone();
        self.change(move |keys| {
            make_room(keys)?;
            keys.push(kept);
            Ok(())
        })?;
        Ok((key, record))
    }

    /// Revokes a key for good; a key revoked earlier does not change.
    ///
    /// # Errors
    /// [`AccessError::Unknown`] and others.
    pub fn revoke(&self, id: KeyId) -> Result<KeyRecord, AccessError> {
        self.change(|keys| {
            let key = keys.iter_mut().find(|key| key.id == id).ok_or(AccessError::Unknown(id))?;
            key.revoked_unix_ms.get_or_insert_with(now_unix_ms);
            Ok(key.clone())
        })
    }

    /// Changes the keys under the lock. On disk when this returns; on failure, nothing has changed.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Vec<KeyRecord>) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let mut lock = self.lock()?;
        let mut keys = self.read()?;
        let outcome = change(&mut keys)?;
        let sha256 = checksum(&keys)?;
        let bytes = serde_json::to_vec_pretty(&Written { version: VERSION, keys, sha256 })
            .map_err(std::io::Error::other)?;
        self.replace(FILE, &bytes, true)?;
        // The keys are on disk already; the next change tries again to mark the lock.
        if let Err(error) = note_keys(&mut lock) {
            tracing::warn!(%error, "could not write keys.lock");
        }
        Ok(outcome)
    }

    fn lock(&self) -> Result<File, AccessError> {
        let path = self.dir.join(LOCK);
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        let file = own_files::open_with(&self.dir, LOCK, &mut options)?;
        let began = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK) if began.elapsed() < LOCK_TIMEOUT => {
                    std::thread::sleep(LOCK_EVERY);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(AccessError::Locked(path.display().to_string()));
                }
                Err(error) => return Err(std::io::Error::from(error).into()),
            }
        }
    }

    /// Replaces a file as a whole; only the owner can read it.
    fn replace(&self, name: &str, bytes: &[u8], durable: bool) -> std::io::Result<()> {
        // Always the same name, so that leftovers of a crash are replaced.
        let new_name = format!("{name}.new");
        let new = self.dir.join(&new_name);
        own_files::check_file(&self.dir, &new_name)?;
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // A new file: what stands there by now, such as a link, is not written to.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&new, self.dir.join(name))?;
        if durable { File::open(&self.dir)?.sync_all() } else { Ok(()) }
    }

    /// When each key was last used, in Unix milliseconds, as far as a server has recorded it.
    #[must_use]
    pub fn last_used(&self) -> HashMap<KeyId, i64> {
        let bytes = own_files::read(&self.dir, USED).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    pub(super) fn write_last_used(&self, used: &HashMap<KeyId, i64>) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(used).map_err(std::io::Error::other)?;
        self.replace(USED, &bytes, false)
    }
}

/// Marks in the lock file that keys exist.
fn note_keys(lock: &mut File) -> std::io::Result<()> {
    if lock.metadata()?.len() == 0 {
        lock.write_all(b"keys.json has been written\n")?;
        lock.sync_all()?;
    }
    Ok(())
}

fn checksum(keys: &[KeyRecord]) -> Result<String, AccessError> {
    let compact = serde_json::to_vec(keys).map_err(std::io::Error::other)?;
    Ok(hex::encode(digest(&compact)))
}

/// If there are too many keys, removes the oldest inactive one, so that the file stays small.
fn make_room(keys: &mut Vec<KeyRecord>) -> Result<(), AccessError> {
    if keys.len() < MAX_KEYS {
        return Ok(());
    }
    let now = now_unix_ms();
    let ended = keys.iter().position(|key| !key.works(now)).ok_or(AccessError::TooMany(MAX_KEYS))?;
    keys.remove(ended);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Rate, Role};

    fn new(name: &str, role: Role) -> NewKey {
        NewKey { name: name.to_owned(), role, expires_unix_ms: None, rate: Rate::new(2.5, Some(7)).ok() }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::new(&dir.path().join("new"));
        assert_eq!(file.read().unwrap(), []);
        assert_eq!(file.stamp(), None);
        let (_, first) = file.create(new("first", Role::Admin)).unwrap();
        let before = file.stamp();
        let (_, second) = file.create(new("second", Role::Read)).unwrap();
        assert_ne!(file.stamp(), before);
        assert_eq!(file.read().unwrap(), [first.clone(), second.clone()]);
        let revoked = file.revoke(first.id).unwrap();
        assert!(revoked.revoked_unix_ms.is_some());
        assert_eq!(file.revoke(first.id).unwrap(), revoked, "revoked once");
        assert_eq!(file.read().unwrap(), [revoked, second]);
        assert_eq!(file.revoke(KeyId::generate()).unwrap_err().code(), "not_found");
        let mode = fs::metadata(file.path()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn no_damage_is_taken_for_keys() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::new(dir.path());
        file.create(new("first", Role::Read)).unwrap();
        let good = fs::read(file.path()).unwrap();
        let keys = file.read().unwrap();
        for at in 0..good.len() {
            for bit in [0, 3, 5] {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                fs::write(file.path(), &bad).unwrap();
                // White space may change, but not the keys.
                assert!(file.read().is_err() || file.read().unwrap() == keys, "byte {at}, bit {bit}");
            }
            fs::write(file.path(), &good[..at]).unwrap();
            assert!(file.read().is_err(), "cut to {at}");
        }
        fs::remove_file(file.path()).unwrap();
        assert_eq!(file.read().unwrap_err().code(), "keys_missing");
        assert_eq!(file.create(new("x", Role::Admin)).unwrap_err().code(), "keys_missing");
    }

    #[test]
    fn nothing_but_a_regular_file_is_taken_for_keys() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "another's").unwrap();
        for name in [FILE, LOCK, "keys.json.new"] {
            let data = dir.path().join(name);
            fs::create_dir(&data).unwrap();
            let (file, path) = (KeyFile::new(&data), data.join(name));
            std::os::unix::fs::symlink(&victim, &path).unwrap();
            let error = file.create(new("a", Role::Read)).unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")) && error.contains("link"), "{error}");
            fs::remove_file(&path).unwrap();
            let fifo = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mkfifoat(rustix::fs::CWD, &path, fifo).unwrap();
            let error = file.create(new("a", Role::Read)).unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")) && error.contains("pipe"), "{error}");
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "another's");
    }

    #[test]
    fn ended_keys_make_room() {
        let (_, record) = new("a", Role::Read).make().unwrap();
        let mut keys: Vec<_> =
            (0..MAX_KEYS).map(|_| KeyRecord { id: KeyId::generate(), ..record.clone() }).collect();
        assert_eq!(make_room(&mut keys).unwrap_err().code(), "too_many_keys");
        keys[5].revoked_unix_ms = Some(1);
        let gone = keys[5].id;
        make_room(&mut keys).unwrap();
        assert!(keys.len() == MAX_KEYS - 1 && keys.iter().all(|key| key.id != gone));
    }

    #[test]
    fn two_writers_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        KeyFile::new(dir.path()).create(new("a", Role::Read)).unwrap();
                    }
                });
            }
        });
        assert_eq!(KeyFile::new(dir.path()).read().unwrap().len(), 20);
    }
}
