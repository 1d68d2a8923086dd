//! The kinds of jobs, one file each: how a request becomes items, and how an item is processed. Of a kind,
//! the store knows only its name and the messages with which its jobs end.

mod index;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub use self::index::JobSource;
pub(crate) use self::index::{Index, IndexRequest, found_item};
use super::Ingest;
use crate::collection::LibraryError;
use crate::store::{JobItem, JobKind, JobRecord, NewItem};

/// What is particular to one kind of job.
pub(crate) trait Kind {
    /// Name of the kind, as stored.
    const KIND: JobKind;
    /// The client's request.
    type Request: Send;

    /// Checks a request and expands it into items. Stores nothing.
    fn plan(
        ingest: &Ingest,
        request: Self::Request,
    ) -> impl Future<Output = Result<Plan, LibraryError>> + Send;

    /// Processes one item and records the outcome in it. Safe to repeat: after a crash, an item that was
    /// running is queued again.
    fn run(
        ingest: &Ingest,
        job: &JobRecord,
        item: &mut JobItem,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<(), LibraryError>> + Send;
}

/// A job to store.
pub(crate) struct Plan {
    /// The request as JSON.
    pub(crate) request: Value,
    /// Its items, in order.
    pub(crate) items: Vec<NewItem>,
}

/// Runs an item by the kind of its job.
pub(crate) async fn run(
    ingest: &Ingest,
    job: &JobRecord,
    item: &mut JobItem,
    cancel: &CancellationToken,
) -> Result<(), LibraryError> {
    match job.kind {
        JobKind::Index => Index::run(ingest, job, item, cancel).await,
    }
}
