//! Keeps uploaded files from removal while a snapshot is taken.
//!
//! The invariant: **a file that a copy of the store names is not removed before the snapshot has it.** The
//! pin is taken before the copy. Deleting an asset removes its row first and asks to remove the file
//! afterwards: without a pin, the row was gone before the copy began, so no copy names the file; with a pin,
//! the file stays until the pin goes. An upload is in its place before its row is committed, so whatever the
//! copy names exists. After a crash in between, the next start clears out the files without a row, as after
//! any other crash.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct State {
    holders: usize,
    put_off: HashSet<PathBuf>,
}

/// Files that must stay although no row needs them any more.
#[derive(Debug, Default)]
pub struct Pins(Mutex<State>);

impl Pins {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until the returned pin is dropped, no file is removed.
    pub fn pin(self: &Arc<Self>) -> Pin {
        self.state().holders += 1;
        Pin(Arc::clone(self))
    }

    /// Whether a file may be removed now; if not, remembers it for later.
    pub fn lets_go(&self, path: &Path) -> bool {
        let mut state = self.state();
        if state.holders > 0 {
            state.put_off.insert(path.to_owned());
        }
        state.holders == 0
    }

    /// Cancels the removal of a file that is needed again.
    pub fn needed_again(&self, path: &Path) {
        self.state().put_off.remove(path);
    }

    /// Takes the files that may be removed now.
    pub fn due(&self) -> HashSet<PathBuf> {
        let mut state = self.state();
        if state.holders > 0 { HashSet::new() } else { std::mem::take(&mut state.put_off) }
    }
}

/// See [`Pins::pin`].
#[derive(Debug)]
pub struct Pin(Arc<Pins>);

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.state().holders -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_while_anybody_holds_them() {
        let pins = Arc::new(Pins::default());
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        assert!(pins.lets_go(a));
        let (first, second) = (pins.pin(), pins.pin());
        assert!(!pins.lets_go(a) && !pins.lets_go(b));
        drop(first);
        assert!(!pins.lets_go(a) && pins.due().is_empty());
        pins.needed_again(b);
        drop(second);
        assert_eq!(pins.due(), HashSet::from([a.to_owned()]));
        assert!(pins.lets_go(b) && pins.due().is_empty());
    }
}
