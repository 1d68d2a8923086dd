//! The store: assets, clips, vectors, jobs. The indexes are derived from it.

mod assets;
mod checks;
mod clips;
mod embedded;
mod ended;
mod error;
mod full;
mod job_view;
mod jobs;
mod lock;
mod retention;
mod standing;
mod watches;
mod webhooks;

use async_trait::async_trait;

pub use assets::{
    AssetOutcome, AssetRecord, AssetState, AssetStore, Damage, DeletedAsset, NewAsset, Totals, content_key,
};
pub use checks::{AssetFacts, Checks, ContentNote, DamagedRow, DamagedVectors, changed_ns, mtime_ns};
pub use clips::{ClipCursor, ClipRecord, ClipStore, ClipVector, ExportedClip, NewClip, VectorCensus};
pub use embedded::{EmbeddedStore, StoreSpace};
pub(crate) use ended::{WebhookBody, ended};
pub use error::{StoreError, WorkError};
pub use full::{StorageFull, TellsFull};
pub use job_view::{JobBaseline, JobView};
pub use jobs::{JobItem, JobKind, JobRecord, JobStore, NewItem, WorkState};
pub use lock::FolderLock;
pub use retention::{RetentionRule, RetentionRun, RetentionStore};
pub use standing::{
    MatchRecord, MatchedMoment, NewMatch, NewStanding, PendingAsset, PendingEnd, Settled, StandingChange,
    StandingRecord, StandingStore, StandingVectors,
};
pub use watches::{WatchRecord, WatchSpec, WatchStore, WatchedFile};
pub use webhooks::{Attempt, DeliveryRecord, DeliveryState, DueDelivery, NewWebhook, WebhookStore};

/// All queries and changes of the store, by record. Operations of a store in files on this machine are in
/// [`EmbeddedStore`]; [`SqliteStore`](crate::sqlite::SqliteStore) is the one there is.
#[async_trait]
pub trait Store:
    AssetStore + ClipStore + JobStore + WatchStore + StandingStore + WebhookStore + RetentionStore + Checks
{
    /// Monotonic number that changes with every committed change of clips.
    async fn sequence(&self) -> Result<i64, StoreError>;
    /// Monotonic number that rises with every committed change that is acknowledged: of assets, jobs and
    /// other user settings. It never falls, even when another model's store takes over.
    async fn acknowledged(&self) -> Result<i64, StoreError>;
    /// Writes something durably, only to see whether that works.
    async fn try_write(&self) -> Result<(), StoreError>;
}
