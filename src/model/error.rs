//! Errors of bundles and towers.

use std::path::PathBuf;

use crate::native::NativeError;
use crate::types::{Deciding, Modality, Space};

/// Why a bundle or a tower failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ModelError {
    /// There is no bundle at this path.
    #[error("{0}: expected a model bundle, but there is no manifest.json")]
    Missing(PathBuf),
    /// The folder is a published checkpoint rather than a bundle.
    #[error("{0}: this is a published checkpoint, not a model bundle; import it first")]
    NotImported(PathBuf),
    /// The bundle needs more memory than there is.
    #[error(
        "the model {name} needs about {needed_mib} MiB of memory, but only {available_mib} MiB are available; \
         choose a smaller model or give it more memory"
    )]
    TooLarge {
        /// Name of the bundle.
        name: String,
        /// Memory for the weights, in MiB.
        needed_mib: u64,
        /// Memory that the machine and the process's limits leave, in MiB.
        available_mib: u64,
    },
    /// The process may not take enough address space.
    #[error(
        "expected an address space of at least {needed_mib} MiB, but `ulimit -v` allows {limit_mib} MiB; raise or \
         remove that limit (`ulimit -v unlimited`), and limit memory with a control group instead"
    )]
    AddressSpace {
        /// Address space for the small models, in MiB.
        needed_mib: u64,
        /// The limit, in MiB.
        limit_mib: u64,
    },
    /// The bundle's vectors cannot be cut to this size.
    #[error("{0}")]
    BadDim(String),
    /// A number of frames that the model's towers do not take.
    #[error("{0}")]
    BadFrames(String),
    /// The manifest is invalid, or an ONNX file contradicts it; docs/bundle.md describes the format.
    #[error("{file}: {reason}")]
    ManifestInvalid {
        /// Path of the file with its folder.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file listed in the manifest cannot be read.
    #[error("cannot read {file} of the model: {reason}")]
    FileMissing {
        /// Path of the file with its folder.
        file: String,
        /// Why it cannot be read.
        reason: String,
    },
    /// A file differs from its SHA-256 in the manifest.
    #[error("{file} of the model is damaged: expected SHA-256 {expected}, got {actual}")]
    FileDamaged {
        /// Path of the file with its folder.
        file: String,
        /// SHA-256 in the manifest, hex.
        expected: String,
        /// SHA-256 of the file, hex.
        actual: String,
    },
    /// A tower or the tokenizer does not reproduce the golden values of the bundle.
    #[error("{file} does not reproduce its golden values ({what}), so this model must not be used: {reason}")]
    GoldenMismatch {
        /// Path of the file with its folder.
        file: String,
        /// Tower and space, or the tokenizer.
        what: String,
        /// The cosine and the bound.
        reason: String,
    },
    /// ONNX Runtime is missing or cannot be loaded.
    #[error("{0}")]
    RuntimeMissing(String),
    /// ONNX Runtime is installed, but damaged.
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
        /// Modality of the tower.
        tower: Modality,
        /// ONNX Runtime's message.
        reason: String,
    },
    /// The bundle has no tower for this modality.
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
        /// Longest text in characters.
        max_chars: usize,
    },
    /// The audio samples contain NaN or infinity.
    #[error("expected finite audio samples, got NaN or infinity")]
    BadSamples,
    /// The queue is full.
    #[error("the model is busy; try again in {retry_after_secs} s")]
    Overloaded {
        /// When to try again, in seconds.
        retry_after_secs: u64,
    },
}

/// Address space in which small models always load, in MiB.
pub const ADDRESS_SPACE_MIB: u64 = 2048;
/// Below this, no thread can be started once a model is loaded, in MiB.
const UNUSABLE_ADDRESS_SPACE_MIB: u64 = 940;

impl ModelError {
    /// Stable error code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "model_missing",
            Self::NotImported(_) => "model_not_imported",
            Self::TooLarge { .. } => "model_too_large",
            Self::AddressSpace { .. } => "address_space_limit",
            Self::BadDim(_) => "bad_dim",
            Self::BadFrames(_) => "bad_frames",
            Self::ManifestInvalid { .. } => "manifest_invalid",
            Self::FileMissing { .. } => "model_file_missing",
            Self::FileDamaged { .. } => "model_file_damaged",
            Self::GoldenMismatch { .. } => "golden_mismatch",
            Self::RuntimeMissing(_) => "onnxruntime_missing",
            Self::RuntimeDamaged(_) => "native_part_damaged",
            Self::RuntimeTooOld(_) => "onnxruntime_too_old",
            Self::CudaUnavailable(_) => "cuda_unavailable",
            Self::TowerFailed { .. } => Deciding::TowerFailed.as_str(),
            Self::NotSupported(_) => "modality_not_supported",
            Self::NoKnownWords { .. } => "no_known_words",
            Self::TextTooLong { .. } => "text_too_long",
            Self::BadSamples => "bad_samples",
            Self::Overloaded { .. } => Deciding::Overloaded.as_str(),
        }
    }

    /// Refuses an address space in which the server starts but cannot work.
    ///
    /// # Errors
    /// [`ModelError::AddressSpace`].
    pub fn check_address_space(limit_bytes: Option<u64>) -> Result<(), Self> {
        let short = limit_bytes.map(|bytes| bytes >> 20).filter(|mib| *mib < UNUSABLE_ADDRESS_SPACE_MIB);
        short.map_or(Ok(()), |limit_mib| Err(Self::address_space(limit_mib)))
    }

    /// The limit on the address space in place of an error that it has probably caused.
    #[must_use]
    pub fn explained(self, limit_bytes: Option<u64>) -> Self {
        let tight = limit_bytes.map(|bytes| bytes >> 20).filter(|mib| *mib < ADDRESS_SPACE_MIB);
        match (&self, tight) {
            (
                Self::RuntimeMissing(_) | Self::TowerFailed { .. } | Self::FileMissing { .. },
                Some(limit_mib),
            ) => {
                tracing::warn!(error = %self, "probably caused by the limit on the address space");
                Self::address_space(limit_mib)
            }
            _ => self,
        }
    }

    const fn address_space(limit_mib: u64) -> Self {
        Self::AddressSpace { needed_mib: ADDRESS_SPACE_MIB, limit_mib }
    }

    pub(super) fn tower(tower: Modality, reason: impl ToString) -> Self {
        Self::TowerFailed { tower, reason: reason.to_string() }
    }

    /// A mismatch with a golden value: `one_minus_cosine` is NaN if the output has no direction.
    pub(super) fn golden(
        file: String,
        tower: &str,
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
