//! The error type of the library.

use super::{MAX_GIVEN_BYTES, MAX_STANDING, Shortfall};
use crate::backup::BackupError;
use crate::embed::EmbedError;
use crate::files::FileError;
use crate::index::IndexError;
use crate::model::ModelError;
use crate::outbound::OutboundError;
use crate::search::SearchError;
use crate::store::{StorageFull, StoreError, TellsFull};
use crate::types::{Deciding, Modality, WatchId};
use crate::webhooks::WebhookError;

/// Why the library refused a request or failed.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Embedding failed.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// The search failed.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// A request to another host failed.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// A file of a user, or of the data folder.
    #[error(transparent)]
    File(FileError),
    /// A job would have more files than the maximum (the field).
    #[error("expected at most {0} files; index them in several jobs")]
    TooManyFiles(usize),
    /// A line of the manifest is not a valid item.
    #[error("cannot read the manifest: {0}")]
    BadManifest(String),
    /// The folder is already watched.
    #[error("the folder is already watched, as {0}")]
    WatchExists(WatchId),
    /// The limit of watches is reached.
    #[error(
        "the limit of {0} watched folders is reached; delete some, or watch a common parent folder instead"
    )]
    TooManyWatches(usize),
    /// A file was listed but must not be indexed.
    #[error("{}", .0.reason)]
    LeftOut(crate::jobs::LeftOut),
    /// The export could not be written.
    #[error("could not write the export: {0}")]
    Export(String),
    /// Too much work is queued.
    #[error("too much work is queued; try again in {retry_after_secs} s")]
    Busy {
        /// When to try again, in seconds.
        retry_after_secs: u64,
    },
    /// The stored asset does not have the requested track.
    #[error("the asset has no {0} vectors in this span")]
    NoSuchTrack(Modality),
    /// A name that does not identify one asset.
    #[error("{1} named `{0}`; use its id")]
    UnknownAsset(String, &'static str),
    /// The webhook was refused.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// The standing query was refused.
    #[error(transparent)]
    Standing(#[from] StandingError),
    /// A field of the request is meaningless or ambiguous.
    #[error("{message}")]
    BadField {
        /// The field, such as `metadata` or `rules[0].by`.
        at: String,
        /// Human-readable message.
        message: String,
    },
    /// The asset is in another state than the caller expected.
    #[error(
        "expected the version in `If-Match`, but the asset has changed since; fetch it again and send its new ETag"
    )]
    OtherVersion,
    /// A part of a query cannot be embedded.
    #[error("{error}")]
    Part {
        /// The field that it came from, such as `query[0].text`.
        at: String,
        /// Why it cannot be embedded.
        error: Box<LibraryError>,
    },
    /// A snapshot or compaction failed.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The store lacks changes that the ledger records as acknowledged.
    #[error("the store has lost acknowledged changes: {0}")]
    StoreBehind(Shortfall),
    /// The database cannot be opened.
    #[error("cannot open the store: {0}")]
    StoreUnreadable(String),
    /// The bytes of the asset's file are not those that were indexed.
    #[error("{}", if *owned {
        "this upload is damaged; upload the same file again, or restore it from a snapshot"
    } else {
        "the file has changed since it was indexed; index it again"
    })]
    ContentDamaged {
        /// Whether the file is an upload, not a file indexed by path.
        owned: bool,
    },
    /// A check is already running.
    #[error("a check is already running")]
    CheckRunning,
    /// A user cancelled the work.
    #[error("cancelled")]
    Cancelled,
    /// The server is shutting down; the work resumes at the next start.
    #[error("the server is shutting down")]
    Stopping,
    /// No loaded model has this name or digest.
    #[error("no model named `{0}` is loaded")]
    UnknownModel(String),
    /// The model is already loaded.
    #[error("the model `{0}` is already loaded")]
    ModelLoaded(String),
    /// The model cannot be promoted yet.
    #[error("the model `{0}` has not embedded all assets yet")]
    ModelBehind(String),
    /// The serving model cannot be unloaded.
    #[error("the model `{0}` is serving; promote another model first")]
    ModelServes(String),
    /// Our code panicked; the log names the place.
    #[error("internal error; the server's log has details")]
    Panicked,
    /// Input or output on the data folder failed.
    #[error("cannot read or write the data folder: {0}")]
    Io(std::io::Error),
}

impl From<std::io::Error> for LibraryError {
    fn from(error: std::io::Error) -> Self {
        StorageFull::of_io(&error).map_or(Self::Io(error), |full| StoreError::from(full).into())
    }
}

impl From<FileError> for LibraryError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io(error) => error.into(),
            FileError::Changed => Self::ContentDamaged { owned: false },
            error => Self::File(error),
        }
    }
}

impl TellsFull for LibraryError {
    fn storage_full(&self) -> Option<StorageFull> {
        self.storage_full()
    }
}

impl LibraryError {
    /// The reason why the disk accepts no more bytes, if that is the cause.
    #[must_use]
    pub const fn storage_full(&self) -> Option<StorageFull> {
        match self {
            Self::Store(StoreError::StorageFull(full))
            | Self::Index(IndexError::Store(StoreError::StorageFull(full)))
            | Self::Backup(BackupError::Store(StoreError::StorageFull(full))) => Some(*full),
            Self::Part { error, .. } => error.storage_full(),
            _ => None,
        }
    }

    /// Adds advice for a startup that fails because pages of the database are damaged.
    pub(crate) fn at_start(self) -> Self {
        match self {
            Self::Store(StoreError::Malformed(why))
            | Self::Index(IndexError::Store(StoreError::Malformed(why))) => Self::StoreUnreadable(why),
            other => other,
        }
    }

    /// Stable error code.
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
            Self::Store(_) => Deciding::StoreFailed.as_str(),
            Self::Index(_) => Deciding::IndexFailed.as_str(),
            Self::Embed(error) => error.code(),
            Self::Search(error) => error.code(),
            Self::Outbound(error) => error.code(),
            Self::File(error) => error.code(),
            Self::TooManyFiles(_) => "too_many_files",
            Self::BadManifest(_) => "invalid_manifest",
            Self::WatchExists(_) => "watch_exists",
            Self::TooManyWatches(_) => "too_many_watches",
            Self::LeftOut(left_out) => left_out.code,
            Self::Export(_) => "export_failed",
            Self::Busy { .. } => Deciding::Busy.as_str(),
            Self::UnknownAsset(..) => "asset_unknown",
            Self::NoSuchTrack(_) => "no_such_track",
            Self::Webhook(error) => error.code(),
            Self::Standing(error) => error.code(),
            Self::BadField { .. } => "invalid_value",
            Self::OtherVersion => "precondition_failed",
            Self::Part { error, .. } => error.code(),
            Self::Backup(error) => error.code(),
            Self::StoreBehind(_) => "store_behind",
            Self::StoreUnreadable(_) => "store_unreadable",
            Self::ContentDamaged { .. } => Deciding::ContentDamaged.as_str(),
            Self::CheckRunning => "check_running",
            Self::Cancelled => "cancelled",
            Self::Stopping => "shutting_down",
            Self::Panicked => "internal",
            Self::Io(_) => Deciding::Io.as_str(),
        }
    }
}

impl LibraryError {
    /// Whether a text has no word that the model knows.
    pub(crate) fn is_about_unknown_words(&self) -> bool {
        match self {
            Self::Embed(EmbedError::Model(ModelError::NoKnownWords { .. })) => true,
            Self::Part { error, .. } => error.is_about_unknown_words(),
            _ => false,
        }
    }

    /// The message for users, which items and assets store: the error's own text, unless the fault is ours,
    /// as that text may name paths of this machine. The log has the full text.
    #[must_use]
    pub fn user_message(&self) -> String {
        match self {
            Self::Store(StoreError::NotFound(_) | StoreError::Sealed) => self.to_string(),
            Self::Store(_) | Self::Index(_) | Self::Io(_) | Self::Search(SearchError::Index(_)) => {
                OUR_FAULT.to_owned()
            }
            Self::Embed(error) => embedding_message(error),
            Self::Part { error, .. } => error.user_message(),
            Self::Backup(error) => error.without_paths(),
            other => other.to_string(),
        }
    }
}

const OUR_FAULT: &str = "internal error; the server's log has details";

/// Like [`LibraryError::user_message`], for an embedding error.
pub(crate) fn embedding_message(error: &EmbedError) -> String {
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

/// Why a standing query was refused.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// The limit of standing queries is reached.
    #[error("the limit of {MAX_STANDING} standing queries is reached; delete one first")]
    TooMany,
    /// The files of the query are too large to be stored.
    #[error("the files of a standing query must not exceed {MAX_GIVEN_BYTES} bytes in total")]
    TooLarge,
    /// The stored query cannot be decoded.
    #[error("the stored query is damaged; delete it and create it again")]
    Damaged,
}

impl StandingError {
    /// Stable error code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooMany => "too_many_standing_queries",
            Self::TooLarge => "payload_too_large",
            Self::Damaged => "standing_query_damaged",
        }
    }
}
