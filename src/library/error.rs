//! Why the library refused or failed.

use super::{StandingError, WebhookError};
use crate::embed::EmbedError;
use crate::index::IndexError;
use crate::model::ModelError;
use crate::outbound::OutboundError;
use crate::search::SearchError;
use crate::store::{StorageFull, StoreError};
use crate::types::{Modality, WatchId};

/// Why the library refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Embedding.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// Search.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// Another host.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// A path outside the allowed roots.
    #[error("{0} is not in an allowed folder")]
    PathNotAllowed(String),
    /// A folder or file that is not there.
    #[error("{0}: no such file or folder")]
    PathMissing(String),
    /// A path of another kind than expected.
    #[error("expected {1}, but {0} is not")]
    PathKind(String, &'static str),
    /// A path that this process may not read.
    #[error("cannot read {0}: permission denied")]
    PathUnreadable(String),
    /// More files than one job takes.
    #[error("expected at most {0} files; index them in several jobs")]
    TooManyFiles(usize),
    /// A manifest with a line that is no item.
    #[error("cannot read the manifest: {0}")]
    BadManifest(String),
    /// A folder that is watched already.
    #[error("the folder is already watched, as {0}")]
    WatchExists(WatchId),
    /// More watches than a library takes.
    #[error(
        "the limit of {0} watched folders is reached; delete some, or watch a common parent folder instead"
    )]
    TooManyWatches(usize),
    /// A file that was found in a listing and is not to be indexed.
    #[error("{}", .0.reason)]
    LeftOut(crate::jobs::LeftOut),
    /// An export that could not be written.
    #[error("could not write the export: {0}")]
    Export(String),
    /// Too much work is queued.
    #[error("too much work is queued; try again in {retry_after_secs} s")]
    Busy {
        /// When to try again.
        retry_after_secs: u64,
    },
    /// An upload larger than the server takes.
    #[error("the file is larger than {max_bytes} bytes")]
    UploadTooLarge {
        /// The cap.
        max_bytes: u64,
    },
    /// A stored asset without the requested track.
    #[error("the asset has no {0} vectors in this span")]
    NoSuchTrack(Modality),
    /// A name that does not tell one asset.
    #[error("{1} named `{0}`; use its id")]
    UnknownAsset(String, &'static str),
    /// A webhook that is refused.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// A standing query that is refused.
    #[error(transparent)]
    Standing(#[from] StandingError),
    /// A field of a request that is meaningless or ambiguous.
    #[error("{message}")]
    BadField {
        /// Which field, as `metadata` or `rules[0].by`.
        at: String,
        /// Human-readable message.
        message: String,
    },
    /// Snapshots and compaction.
    #[error(transparent)]
    Backup(#[from] super::BackupError),
    /// The store is older than what the ledger says was acknowledged.
    #[error(
        "the store has lost acknowledged changes: {0}. Restore a snapshot (`triptych snapshot restore`), restore the newer database, or start with --rebuild-from-uploads to index everything again from the uploaded files and from the names and metadata in the ledger"
    )]
    StoreBehind(super::Shortfall),
    /// The database cannot be opened.
    #[error(
        "cannot open the store: {0}. Restore a snapshot (`triptych snapshot restore`), or start with --rebuild-from-uploads to index everything again from the uploaded files and from the names and metadata in the ledger"
    )]
    StoreUnreadable(String),
    /// The file of an asset holds other bytes than those that were indexed.
    #[error("{}", if *owned {
        "this upload is damaged; upload the same file again, or restore it from a snapshot"
    } else {
        "the file has changed since it was indexed; index it again"
    })]
    ContentDamaged {
        /// Whether the bytes are our own copy.
        owned: bool,
    },
    /// A check is running.
    #[error("a check is already running; see GET /v1/checks")]
    CheckRunning,
    /// The work was cancelled by a user.
    #[error("cancelled")]
    Cancelled,
    /// The server is going down; the work goes on at the next start.
    #[error("the server is shutting down")]
    Stopping,
    /// No model of this name or digest.
    #[error("no model named `{0}` is loaded; see /v1/models")]
    UnknownModel(String),
    /// A model that is loaded already.
    #[error("the model `{0}` is already loaded")]
    ModelLoaded(String),
    /// A model that cannot take over yet.
    #[error("the model `{0}` has not embedded all assets yet; see its progress in /v1/models")]
    ModelBehind(String),
    /// The model that serves cannot be unloaded.
    #[error("the model `{0}` is serving; promote another model first")]
    ModelServes(String),
    /// A part of ours panicked; the log has the place.
    #[error("internal error; the server's log has details")]
    Panicked,
    /// Input/output on the data folder.
    #[error("cannot read or write the data folder: {0}")]
    Io(std::io::Error),
}

impl From<std::io::Error> for LibraryError {
    fn from(error: std::io::Error) -> Self {
        StorageFull::of_io(&error).map_or(Self::Io(error), |full| StoreError::from(full).into())
    }
}

impl LibraryError {
    /// Why the disk takes no more bytes, where that is what failed.
    #[must_use]
    pub const fn storage_full(&self) -> Option<StorageFull> {
        match self {
            Self::Store(StoreError::StorageFull(full))
            | Self::Index(IndexError::Store(StoreError::StorageFull(full)))
            | Self::Backup(super::BackupError::Store(StoreError::StorageFull(full))) => Some(*full),
            _ => None,
        }
    }

    /// At a start: what is to be done is told where pages of the database are damaged.
    pub(super) fn at_start(self) -> Self {
        match self {
            Self::Store(StoreError::Malformed(why))
            | Self::Index(IndexError::Store(StoreError::Malformed(why))) => Self::StoreUnreadable(why),
            other => other,
        }
    }

    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Store(StoreError::NotFound(_)) => "not_found",
            Self::Store(StoreError::Sealed) => "switching_models",
            Self::UnknownModel(_) => "model_not_found",
            Self::ModelLoaded(_) => "model_loaded",
            Self::ModelBehind(_) => "model_behind",
            Self::ModelServes(_) => "model_serves",
            Self::Store(error @ (StoreError::OtherModel { .. } | StoreError::Locked(_))) => error.code(),
            Self::Store(StoreError::StorageFull(_))
            | Self::Index(IndexError::Store(StoreError::StorageFull(_))) => StorageFull::CODE,
            Self::Store(error @ StoreError::DamagedRow(_)) => error.code(),
            Self::Store(StoreError::Malformed(_))
            | Self::Index(IndexError::Store(StoreError::Malformed(_))) => "store_unreadable",
            Self::Store(_) => "store_failed",
            Self::Index(_) => "index_failed",
            Self::Embed(error) => error.code(),
            Self::Search(error) => error.code(),
            Self::Outbound(error) => error.code(),
            Self::PathNotAllowed(_) => "path_not_allowed",
            Self::PathMissing(_) => "path_missing",
            Self::PathKind(..) => "path_kind",
            Self::PathUnreadable(_) => "path_unreadable",
            Self::TooManyFiles(_) => "too_many_files",
            Self::BadManifest(_) => "invalid_manifest",
            Self::WatchExists(_) => "watch_exists",
            Self::TooManyWatches(_) => "too_many_watches",
            Self::LeftOut(left_out) => left_out.code,
            Self::Export(_) => "export_failed",
            Self::Busy { .. } => "busy",
            Self::UploadTooLarge { .. } => "payload_too_large",
            Self::UnknownAsset(..) => "asset_unknown",
            Self::NoSuchTrack(_) => "no_such_track",
            Self::Webhook(error) => error.code(),
            Self::Standing(error) => error.code(),
            Self::BadField { .. } => "invalid_value",
            Self::Backup(error) => error.code(),
            Self::StoreBehind(_) => "store_behind",
            Self::StoreUnreadable(_) => "store_unreadable",
            Self::ContentDamaged { .. } => "content_damaged",
            Self::CheckRunning => "check_running",
            Self::Cancelled => "cancelled",
            Self::Stopping => "shutting_down",
            Self::Panicked => "internal",
            Self::Io(_) => "io",
        }
    }
}

impl LibraryError {
    /// What people may be told, and items and assets keep: the error's own sentence, but where the fault is
    /// ours, for then it may name paths of this machine. The log has it whole.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Store(StoreError::NotFound(_) | StoreError::Sealed) => self.to_string(),
            Self::Store(_) | Self::Index(_) | Self::Io(_) | Self::Search(SearchError::Index(_)) => {
                OUR_FAULT.to_owned()
            }
            Self::Embed(error) => told_of_embedding(error),
            other => other.to_string(),
        }
    }
}

const OUR_FAULT: &str = "internal error; the server's log has details";

/// [`LibraryError::told`] of an embedding.
pub(super) fn told_of_embedding(error: &EmbedError) -> String {
    let clean = match error {
        EmbedError::Model(error) => matches!(
            error,
            ModelError::NotSupported(_)
                | ModelError::NoKnownWords { .. }
                | ModelError::TextTooLong { .. }
                | ModelError::BadSamples
                | ModelError::Overloaded { .. }
        ),
        _ => true,
    };
    if clean { error.to_string() } else { OUR_FAULT.to_owned() }
}

/// Whether the same may well succeed a little later, by an error's code: what failed is ours, not the
/// file's.
pub(super) fn is_passing(code: &str) -> bool {
    matches!(
        code,
        "io" | "store_failed"
            | "storage_full"
            | "index_failed"
            | "busy"
            | "overloaded"
            | "tower_failed"
            | "decode_worker_failed"
            | "decode_worker_killed"
            | "url_failed"
            | "url_timeout"
            // A file that was written to while it was indexed.
            | "content_damaged"
    )
}
