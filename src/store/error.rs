//! Why the store refused or failed, and why work on an item failed.

use crate::types::{Deciding, ErrorCode};
use std::path::Path;

use serde::Serialize;
use utoipa::ToSchema;

use super::{StorageFull, TellsFull};

/// Why the store refused a request or failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing has this id.
    #[error("no {0} with this id")]
    NotFound(&'static str),
    /// The disk accepts no more bytes.
    #[error(transparent)]
    StorageFull(#[from] StorageFull),
    /// Pages of the database are damaged, or the file is not a database.
    #[error("the database is damaged: {0}")]
    Malformed(String),
    /// The database failed.
    #[error("the store failed: {0}")]
    Database(String),
    /// A stored row cannot be read.
    #[error("a stored {0}")]
    DamagedRow(String),
    /// A stored vector's checksum does not match.
    #[error("the stored vector of clip {0} is damaged")]
    DamagedVector(i64),
    /// Another process has the data folder open.
    #[error("the data folder is in use by another process: {0}")]
    Locked(String),
    /// Another model has taken over from this store.
    #[error("another model is taking over; try again in a moment")]
    Sealed,
    /// The data folder contains vectors of another model.
    #[error(
        "expected vectors of model {wanted} in the data folder, got vectors of {found}; use that model, or another folder"
    )]
    OtherModel {
        /// Model of the stored vectors.
        found: String,
        /// Model that was to be used.
        wanted: String,
    },
}

impl TellsFull for StoreError {
    fn storage_full(&self) -> Option<StorageFull> {
        if let Self::StorageFull(full) = self { Some(*full) } else { None }
    }
}

impl StoreError {
    /// The code of a row that cannot be read.
    pub(crate) const DAMAGED_ROW: &str = "damaged_row";

    /// An input/output error on a file of the data folder.
    pub(crate) fn of_io(path: &Path, error: &std::io::Error) -> Self {
        let failed = || Self::Database(format!("{}: {error}", path.display()));
        StorageFull::of_io(error).map_or_else(failed, Self::StorageFull)
    }

    /// Stable error code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::StorageFull(_) => StorageFull::CODE,
            Self::Malformed(_) => "store_unreadable",
            Self::Database(_) => Deciding::StoreFailed.as_str(),
            Self::DamagedRow(_) => Self::DAMAGED_ROW,
            Self::DamagedVector(_) => "damaged_vector",
            Self::Locked(_) => "data_folder_locked",
            Self::Sealed => "switching_models",
            Self::OtherModel { .. } => "other_model",
        }
    }
}

/// Why a job or an item failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct WorkError {
    /// Stable error code in snake_case.
    #[schema(value_type = String)]
    pub code: ErrorCode,
    /// Human-readable message.
    pub message: String,
}

impl WorkError {
    /// An error of this code.
    #[must_use]
    pub fn new(code: impl Into<ErrorCode>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}
