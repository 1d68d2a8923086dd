//! The keys of a running server: looked up for each request, and reloaded when the file changes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use super::caller::{Caller, Found, Holder, KnownKey};
use super::file::Stamp;
use super::key::digest;
use super::{AccessError, KeyFile, KeyRecord, NewKey, Role};
use crate::types::{KeyId, now_unix_ms};

/// How often to check whether the command line has changed the keys.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// All keys of a server.
pub struct Keys {
    file: Option<KeyFile>,
    fixed: Option<[u8; 32]>,
    state: RwLock<State>,
    next_look: Mutex<Instant>,
    /// Once keys are required, they stay required, whatever happens to the file.
    required: AtomicBool,
}

#[derive(Default)]
struct State {
    stamp: Option<Stamp>,
    known: Arc<Vec<Arc<KnownKey>>>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            file: None,
            fixed: None,
            state: RwLock::default(),
            next_look: Mutex::new(Instant::now()),
            required: AtomicBool::new(false),
        }
    }
}

impl Keys {
    /// Reads the keys of a data folder; `fixed` is the key of the command line.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn open(data_dir: Option<&Path>, fixed: Option<&str>) -> Result<Self, AccessError> {
        let keys = Self {
            file: data_dir.map(KeyFile::new),
            fixed: fixed.map(|key| digest(key.as_bytes())),
            required: AtomicBool::new(fixed.is_some()),
            ..Self::default()
        };
        if let Some(file) = &keys.file {
            keys.load(file, &file.last_used())?;
        }
        Ok(keys)
    }

    /// Whether a request needs a key.
    #[must_use]
    pub fn required(&self) -> bool {
        self.refresh();
        self.required.load(Ordering::Relaxed)
    }

    /// Whether the key of the command line is set.
    #[must_use]
    pub const fn has_fixed(&self) -> bool {
        self.fixed.is_some()
    }

    /// Looks up a key of the keys file. All keys are compared, so the time reveals nothing.
    #[must_use]
    pub fn find(&self, key: &[u8]) -> Found {
        self.refresh();
        let given = digest(key);
        let mut found = None;
        for known in self.known().iter() {
            if bool::from(known.record.sha256.ct_eq(&given)) {
                found = Some(Arc::clone(known));
            }
        }
        found.map_or(Found::Unknown, Found::key)
    }

    /// Whether this is the key of the command line.
    #[must_use]
    pub fn find_fixed(&self, key: &[u8]) -> Found {
        let given = digest(key);
        match &self.fixed {
            Some(fixed) if bool::from(fixed.ct_eq(&given)) => Found::Caller(Caller { known: None }),
            _ => Found::Unknown,
        }
    }

    /// Looks up the key for which a session cookie was issued.
    #[must_use]
    pub fn of(&self, holder: Holder) -> Found {
        self.refresh();
        match holder {
            Holder::Fixed if self.fixed.is_some() => Found::Caller(Caller { known: None }),
            Holder::Fixed => Found::Unknown,
            Holder::Key(id) => {
                let known = self.known();
                let key = known.iter().find(|known| known.record.id == id);
                key.map_or(Found::Unknown, |known| Found::key(Arc::clone(known)))
            }
        }
    }

    /// All keys of the file, newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<KnownKey>> {
        self.refresh();
        self.known().iter().rev().cloned().collect()
    }

    /// Whether an active admin key remains, which can change the keys through the API.
    #[must_use]
    pub fn has_admin(&self) -> bool {
        let now = now_unix_ms();
        let admin = |known: &Arc<KnownKey>| known.record.role == Role::Admin && known.record.works(now);
        self.fixed.is_some() || self.known().iter().any(admin)
    }

    /// Creates a key, which works when this returns. Waits for the disk.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn create(&self, new: NewKey) -> Result<(String, KeyRecord), AccessError> {
        let file = self.file.as_ref().ok_or(AccessError::Off)?;
        let made = file.create(new)?;
        self.load(file, &HashMap::new())?;
        Ok(made)
    }

    /// Revokes a key, which no longer works when this returns. Waits for the disk.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn revoke(&self, id: KeyId) -> Result<KeyRecord, AccessError> {
        let file = self.file.as_ref().ok_or(AccessError::Off)?;
        let revoked = file.revoke(id)?;
        self.load(file, &HashMap::new())?;
        Ok(revoked)
    }

    /// Stores when keys were last used. Waits for the disk.
    pub fn save_last_used(&self) {
        let Some(file) = &self.file else { return };
        let used: HashMap<KeyId, i64> = self
            .known()
            .iter()
            .filter_map(|known| Some((known.record.id, known.last_used_unix_ms()?)))
            .collect();
        if used.is_empty() || used == file.last_used() {
            return;
        }
        if let Err(error) = file.write_last_used(&used) {
            tracing::debug!(%error, "could not save when the keys were last used");
        }
    }

    fn known(&self) -> Arc<Vec<Arc<KnownKey>>> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).known)
    }

    /// Reloads the file if it was replaced.
    fn refresh(&self) {
        let Some(file) = &self.file else { return };
        {
            let mut next = self.next_look.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if now < *next {
                return;
            }
            *next = now + LOOK_EVERY;
        }
        let known = self.state.read().unwrap_or_else(PoisonError::into_inner).stamp;
        if file.stamp() == known {
            return;
        }
        if let Err(error) = self.load(file, &HashMap::new()) {
            // Keep the known keys: a damaged file neither opens the server nor locks everybody out.
            tracing::error!(code = error.code(), %error, "could not reload the keys");
            metrics::counter!("triptych_keys_unreadable_total").increment(1);
            self.state.write().unwrap_or_else(PoisonError::into_inner).stamp = file.stamp();
        }
    }

    fn load(&self, file: &KeyFile, used: &HashMap<KeyId, i64>) -> Result<(), AccessError> {
        // Take the lock first, so that an older reading cannot replace a newer one.
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // Read before the file: if the file is replaced in between, it is read again.
        let stamp = file.stamp();
        let records = file.read()?;
        let before: HashMap<KeyId, Arc<KnownKey>> =
            state.known.iter().map(|known| (known.record.id, Arc::clone(known))).collect();
        let keep = |record: KeyRecord| match before.get(&record.id) {
            // Keep the known key, with the state of its rate limit.
            Some(known) if known.record == record => Arc::clone(known),
            known => {
                let last = known.and_then(|known| known.last_used_unix_ms());
                let used_unix_ms = last.or_else(|| used.get(&record.id).copied()).unwrap_or(0);
                Arc::new(KnownKey::new(record, used_unix_ms))
            }
        };
        state.known = Arc::new(records.into_iter().map(keep).collect());
        state.stamp = stamp;
        if !state.known.is_empty() {
            self.required.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Rate;

    fn new(role: Role, rate: Option<Rate>) -> NewKey {
        NewKey { name: "k".to_owned(), role, expires_unix_ms: None, rate }
    }

    fn role(found: &Found) -> Option<Role> {
        if let Found::Caller(caller) = found { Some(caller.role()) } else { None }
    }

    #[test]
    fn keys_work_until_they_are_revoked_also_from_outside() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(Some(dir.path()), None).unwrap();
        assert!(!keys.required() && !keys.has_admin());
        let (first, record) = keys.create(new(Role::Admin, None)).unwrap();
        assert!(keys.required() && keys.has_admin());
        assert_eq!(role(&keys.find(first.as_bytes())), Some(Role::Admin));
        for wrong in ["", "tk_", &first[..66], &format!("{first}0"), &first.to_uppercase()] {
            assert!(matches!(keys.find(wrong.as_bytes()), Found::Unknown), "{wrong}");
        }
        // Changes of another process are noticed.
        let (second, _) = KeyFile::new(dir.path()).create(new(Role::Read, None)).unwrap();
        KeyFile::new(dir.path()).revoke(record.id).unwrap();
        std::thread::sleep(LOOK_EVERY);
        assert_eq!(role(&keys.find(second.as_bytes())), Some(Role::Read));
        assert!(matches!(keys.find(first.as_bytes()), Found::Revoked));
        assert!(matches!(keys.of(Holder::Key(record.id)), Found::Revoked));
        assert!(!keys.has_admin() && keys.required());
        // A damaged or missing file changes nothing for a running server, and stops one that starts.
        std::fs::write(dir.path().join("keys.json"), "{").unwrap();
        std::thread::sleep(LOOK_EVERY);
        assert_eq!(role(&keys.find(second.as_bytes())), Some(Role::Read));
        std::fs::remove_file(dir.path().join("keys.json")).unwrap();
        std::thread::sleep(LOOK_EVERY);
        assert_eq!(role(&keys.find(second.as_bytes())), Some(Role::Read));
        assert!(keys.required());
        assert!(Keys::open(Some(dir.path()), None).is_err());
    }

    #[test]
    fn the_fixed_key_is_an_admin() {
        let keys = Keys::open(None, Some("s3cret")).unwrap();
        assert!(keys.required() && keys.has_admin());
        assert_eq!(role(&keys.find_fixed(b"s3cret")), Some(Role::Admin));
        assert_eq!(role(&keys.of(Holder::Fixed)), Some(Role::Admin));
        for wrong in ["", "s3cre", "s3crett"] {
            assert!(matches!(keys.find_fixed(wrong.as_bytes()), Found::Unknown));
        }
        let none = Keys::open(None, None).unwrap();
        assert!(matches!(none.find_fixed(b""), Found::Unknown));
        assert!(matches!(none.of(Holder::Fixed), Found::Unknown));
        assert_eq!(none.create(new(Role::Read, None)).unwrap_err().code(), "keys_off");
    }

    #[test]
    fn limits_hold_over_changes_of_other_keys() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(Some(dir.path()), None).unwrap();
        let (limited, _) = keys.create(new(Role::Read, Rate::new(0.01, Some(3)).ok())).unwrap();
        let turn = || match keys.find(limited.as_bytes()) {
            Found::Caller(caller) => caller.take_turn(),
            _ => panic!("the key works"),
        };
        assert!(turn().is_ok() && turn().is_ok());
        keys.create(new(Role::Read, None)).unwrap();
        assert!(turn().is_ok());
        let wait = turn().unwrap_err();
        assert!(wait > Duration::from_secs(90) && wait <= Duration::from_secs(100), "{wait:?}");
        keys.save_last_used();
        assert_eq!(KeyFile::new(dir.path()).last_used().len(), 1);
    }

    #[test]
    fn holders_have_names() {
        for holder in [Holder::Fixed, Holder::Key(KeyId::generate())] {
            assert_eq!(holder.to_string().parse(), Ok(holder));
        }
        assert!("".parse::<Holder>().is_err());
    }
}
