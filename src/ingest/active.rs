//! The assets being indexed right now, so that the same bytes are never embedded twice at the same time and
//! running work can be cancelled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::Accepting;
use crate::types::AssetId;

/// An asset that is queued or being indexed.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) id: AssetId,
    /// See `AssetRecord::content_key`.
    key: String,
    /// Cancelled to stop indexing this asset.
    pub(crate) cancel: CancellationToken,
    /// Fires when the work has ended, whatever the outcome.
    pub(crate) done: CancellationToken,
    /// Set once a caller besides the current waiter was promised that this asset will be indexed.
    promised: AtomicBool,
}

impl Active {
    /// Records such a promise.
    pub(super) fn promise(&self, _turn: &Accepting<'_>) {
        self.promised.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_promised(&self) -> bool {
        self.promised.load(Ordering::SeqCst)
    }
}

#[derive(Debug, Default)]
struct Maps {
    by_id: HashMap<AssetId, Arc<Active>>,
    by_content: HashMap<String, AssetId>,
}

/// All assets that are queued or being indexed.
#[derive(Debug, Default, Clone)]
pub(crate) struct ActiveSet(Arc<Mutex<Maps>>);

impl ActiveSet {
    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims an asset; dropping the claim releases it.
    pub(crate) fn claim(&self, id: AssetId, key: &str, stop: &CancellationToken) -> Claim {
        let active = Arc::new(Active {
            id,
            key: key.to_owned(),
            cancel: stop.child_token(),
            done: CancellationToken::new(),
            promised: AtomicBool::new(false),
        });
        let mut maps = self.maps();
        maps.by_content.insert(key.to_owned(), id);
        maps.by_id.insert(id, Arc::clone(&active));
        Claim { active, set: self.clone() }
    }

    pub(crate) fn by_id(&self, id: AssetId) -> Option<Arc<Active>> {
        self.maps().by_id.get(&id).cloned()
    }

    pub(crate) fn by_content(&self, key: &str) -> Option<Arc<Active>> {
        let maps = self.maps();
        maps.by_content.get(key).and_then(|id| maps.by_id.get(id)).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.maps().by_id.len()
    }
}

/// The exclusive right to index one asset, held by one worker or by the queue.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) active: Arc<Active>,
    set: ActiveSet,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut maps = self.set.maps();
        maps.by_id.remove(&self.active.id);
        maps.by_content.remove(&self.active.key);
        drop(maps);
        self.active.done.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_seen_until_dropped() {
        let set = ActiveSet::default();
        let stop = CancellationToken::new();
        let id = AssetId::generate();
        let claim = set.claim(id, "ab", &stop);
        let seen = set.by_content("ab").unwrap();
        assert_eq!(seen.id, id);
        stop.cancel();
        assert!(claim.active.cancel.is_cancelled() && !seen.done.is_cancelled());
        drop(claim);
        assert!(seen.done.is_cancelled());
        assert!(set.by_id(id).is_none() && set.by_content("ab").is_none() && set.len() == 0);
    }
}
