//! Why a bundle or a tower failed.

use std::path::PathBuf;

use crate::native::NativeError;
use crate::types::{Modality, Space};

/// Why a bundle or a tower failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ModelError {
    /// No bundle at this path.
    #[error("{0}: expected a model bundle, but there is no manifest.json")]
    Missing(PathBuf),
    /// The manifest, or an ONNX file against it, is not as docs/bundle.md says.
    #[error("{file}: {reason}")]
    ManifestInvalid {
        /// File with its folder.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A file the manifest lists cannot be read.
    #[error("cannot read {file} of the model: {reason}")]
    FileMissing {
        /// File with its folder.
        file: String,
        /// Why.
        reason: String,
    },
    /// A file differs from what the manifest says.
    #[error("{file} of the model is damaged: expected SHA-256 {expected}, got {actual}")]
    FileDamaged {
        /// File with its folder.
        file: String,
        /// SHA-256 in the manifest, hex.
        expected: String,
        /// SHA-256 of the file, hex.
        actual: String,
    },
    /// A tower or the tokenizer does not give what it gave when the bundle was made.
    #[error("{file} does not reproduce its golden values ({what}), so this model must not be used: {reason}")]
    GoldenMismatch {
        /// File with its folder.
        file: String,
        /// Tower and space, or the tokenizer.
        what: String,
        /// The cosine and the bound.
        reason: String,
    },
    /// ONNX Runtime is missing or cannot be loaded.
    #[error("{0}")]
    RuntimeMissing(String),
    /// ONNX Runtime is there, but not whole.
    #[error("{0}")]
    RuntimeDamaged(String),
    /// ONNX Runtime is too old.
    #[error("{0}")]
    RuntimeTooOld(String),
    /// CUDA was requested but does not work.
    #[error("cannot use CUDA: {0}")]
    CudaUnavailable(String),
    /// ONNX Runtime refused a graph or failed to run it.
    #[error("the model's {tower} encoder failed: {reason}")]
    TowerFailed {
        /// Which tower.
        tower: Modality,
        /// ONNX Runtime's message.
        reason: String,
    },
    /// The bundle has no tower for this.
    #[error("this model cannot embed {0}")]
    NotSupported(Modality),
    /// No word of the text is in the vocabulary.
    #[error("the model's vocabulary has none of these words: {words}")]
    NoKnownWords {
        /// The words, comma-separated, shortened.
        words: String,
    },
    /// The text has too many characters.
    #[error("the text must be at most {max_chars} characters")]
    TextTooLong {
        /// Limit, characters.
        max_chars: usize,
    },
    /// Samples that are not finite.
    #[error("expected finite audio samples, got NaN or infinity")]
    BadSamples,
    /// Too much waits already.
    #[error("the model is busy; try again in {retry_after_secs} s")]
    Overloaded {
        /// When to try again, seconds.
        retry_after_secs: u64,
    },
}

impl ModelError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "model_missing",
            Self::ManifestInvalid { .. } => "manifest_invalid",
            Self::FileMissing { .. } => "model_file_missing",
            Self::FileDamaged { .. } => "model_file_damaged",
            Self::GoldenMismatch { .. } => "golden_mismatch",
            Self::RuntimeMissing(_) => "onnxruntime_missing",
            Self::RuntimeDamaged(_) => "native_part_damaged",
            Self::RuntimeTooOld(_) => "onnxruntime_too_old",
            Self::CudaUnavailable(_) => "cuda_unavailable",
            Self::TowerFailed { .. } => "tower_failed",
            Self::NotSupported(_) => "modality_not_supported",
            Self::NoKnownWords { .. } => "no_known_words",
            Self::TextTooLong { .. } => "text_too_long",
            Self::BadSamples => "bad_samples",
            Self::Overloaded { .. } => "overloaded",
        }
    }

    pub(super) fn tower(tower: Modality, reason: impl ToString) -> Self {
        Self::TowerFailed { tower, reason: reason.to_string() }
    }

    /// A golden value that is off: `one_minus_cosine` is NaN where the output has no direction.
    pub(super) fn golden(
        file: String,
        tower: Modality,
        space: &Space,
        one_minus_cosine: f64,
        allowed: f64,
    ) -> Self {
        let cosine = 1.0 - one_minus_cosine;
        Self::GoldenMismatch {
            file,
            what: format!("{tower} tower, space `{space}`"),
            reason: format!(
                "expected 1 - cosine of at most {allowed:.1e}, got {one_minus_cosine:.3e} (cosine {cosine:.9})"
            ),
        }
    }
}

impl From<NativeError> for ModelError {
    fn from(error: NativeError) -> Self {
        match error {
            NativeError::TooOld { .. } => Self::RuntimeTooOld(error.to_string()),
            NativeError::Missing { .. } | NativeError::Unusable { .. } => {
                Self::RuntimeMissing(error.to_string())
            }
            NativeError::Damaged { .. } => Self::RuntimeDamaged(error.to_string()),
        }
    }
}
