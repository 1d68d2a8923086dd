//! The observers of removed assets, notified by every path that removes them: requests, retention, watches,
//! jobs.

use std::fmt;
use std::sync::{PoisonError, RwLock};

use crate::types::AssetId;

type Observer = Box<dyn Fn(AssetId) + Send + Sync>;

/// The observers of a data folder, in the order in which they were added.
#[derive(Default)]
pub(crate) struct Removals(RwLock<Vec<Observer>>);

impl Removals {
    /// From now on, calls `observer` with each removed asset. It is called while the collection is locked: it must be
    /// quick and must not remove assets itself.
    pub(super) fn observe(&self, observer: impl Fn(AssetId) + Send + Sync + 'static) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(observer));
    }

    pub(super) fn tell(&self, id: AssetId) {
        for observer in self.0.read().unwrap_or_else(PoisonError::into_inner).iter() {
            observer(id);
        }
    }
}

impl fmt::Debug for Removals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Removals").finish_non_exhaustive()
    }
}
