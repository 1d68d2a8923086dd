//! The vocabulary every layer shares: identifiers, modalities, spaces, time spans, embeddings.

mod code;
mod ids;
mod tracks;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use utoipa::ToSchema;

pub use code::{Deciding, ErrorCode};
pub use ids::{AssetId, DeliveryId, JobId, KeyId, MatchId, SnapshotId, StandingId, WatchId};
pub use tracks::{PerTrack, Track, TrackChoice, TrackInfo, TrackKind};

/// A malformed identifier, span or vector.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TypeError {
    /// The text is not an identifier of the expected kind.
    #[error("expected a valid {1} id, got `{0}`")]
    BadId(String, &'static str),
    /// A span that is negative, reversed or not finite.
    #[error("expected a time span with 0 <= start < end in seconds, got {0} - {1}")]
    BadSpan(f64, f64),
    /// The vector's length differs from the dimension of its space.
    #[error("expected a vector of {want} values, got {got}")]
    BadLength {
        /// Number of values found.
        got: usize,
        /// Dimension of the space.
        want: usize,
    },
    /// A NaN or an infinity in a vector.
    #[error("the vector contains a value that is not finite")]
    NotFinite,
    /// A vector without a direction.
    #[error("the vector has length 0, so it has no direction")]
    ZeroNorm,
    /// An unknown modality, track or device name.
    #[error("expected one of {1}, got `{0}`")]
    BadName(String, &'static str),
}

/// Characters that an error quotes of a client's word.
const MOST_QUOTED_CHARS: usize = 80;

/// The beginning of a client's word, for an error.
pub(crate) fn quoted(word: &str) -> String {
    word.chars().take(MOST_QUOTED_CHARS).collect()
}

/// Row id of one clip (one time window of one asset) in the store; stable for the clip's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClipId(pub i64);

/// Digest of a bundle's manifest and files (lower-case hex SHA-256); stamped on every vector.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct ModelId(pub Arc<str>);

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Modality of a query or an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Modality {
    /// A text, such as a query.
    Text,
    /// A still picture.
    Image,
    /// Sound.
    Audio,
    /// Moving pictures (a video's sound is `Audio`).
    Video,
}

impl Modality {
    /// The name used in manifests and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Modality {
    type Err = TypeError;
    fn from_str(text: &str) -> Result<Self, TypeError> {
        match text {
            "text" => Ok(Self::Text),
            "image" => Ok(Self::Image),
            "audio" => Ok(Self::Audio),
            "video" => Ok(Self::Video),
            other => Err(TypeError::BadName(other.chars().take(80).collect(), "text, image, audio, video")),
        }
    }
}

/// Kind of file of an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AssetKind {
    /// Has moving pictures, with or without sound.
    Video,
    /// A file with sound but no pictures.
    Audio,
    /// One still picture.
    Image,
}

impl AssetKind {
    /// The name used in JSON and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Image => "image",
        }
    }
}

impl FromStr for AssetKind {
    type Err = TypeError;
    fn from_str(text: &str) -> Result<Self, TypeError> {
        match text {
            "video" => Ok(Self::Video),
            "audio" => Ok(Self::Audio),
            "image" => Ok(Self::Image),
            other => Err(TypeError::BadName(other.chars().take(80).collect(), "video, audio, image")),
        }
    }
}

/// Name of an embedding space, such as `fine` or `coarse`, as defined in the model's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Space(pub Arc<str>);

impl Space {
    /// The space of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }
    /// Name of the space, as in the manifest.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A time span of an asset in seconds from its start: `0 <= start < end`, both finite.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct TimeSpan {
    /// Start, in seconds.
    pub start_secs: f64,
    /// End, in seconds.
    pub end_secs: f64,
}

impl TimeSpan {
    /// Checks and builds a span.
    ///
    /// # Errors
    /// [`TypeError::BadSpan`] unless `0 <= start < end` and both are finite.
    pub fn new(start_secs: f64, end_secs: f64) -> Result<Self, TypeError> {
        if start_secs.is_finite() && end_secs.is_finite() && start_secs >= 0.0 && start_secs < end_secs {
            Ok(Self { start_secs, end_secs })
        } else {
            Err(TypeError::BadSpan(start_secs, end_secs))
        }
    }

    /// Length in seconds, above 0.
    #[must_use]
    pub fn duration_secs(&self) -> f64 {
        self.end_secs - self.start_secs
    }
}

/// A unit-length vector of one space. The one constructor normalises, so every `Embedding` has
/// the right length, finite values and norm 1; cosine similarity is then a dot product.
#[derive(Clone, PartialEq)]
pub struct Embedding(Arc<[f32]>);

impl Embedding {
    /// Normalises `values` (a tower's raw output, or a stored vector) to unit length.
    ///
    /// # Errors
    /// [`TypeError::BadLength`], [`TypeError::NotFinite`] or [`TypeError::ZeroNorm`].
    pub fn new(mut values: Vec<f32>, dim: usize) -> Result<Self, TypeError> {
        if values.len() != dim {
            return Err(TypeError::BadLength { got: values.len(), want: dim });
        }
        if values.iter().any(|v| !v.is_finite()) {
            return Err(TypeError::NotFinite);
        }
        // Sum in f64: the raw output of a tower can be so large that its squares overflow f32.
        let norm = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
        if norm < 1e-12 {
            return Err(TypeError::ZeroNorm);
        }
        // A stored vector already has unit length; dividing again would change its last bits.
        if (norm - 1.0).abs() > 1e-6 {
            for v in &mut values {
                *v = (f64::from(*v) / norm) as f32;
            }
        }
        Ok(Self(values.into()))
    }

    /// The values, with norm 1.
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// Number of values, the dimension of its space.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.0.len()
    }

    /// Cosine similarity, -1 to 1. Vectors of different spaces give 0.
    #[must_use]
    pub fn cosine(&self, other: &Self) -> f32 {
        if self.dim() != other.dim() {
            return 0.0;
        }
        self.0.iter().zip(other.0.iter()).map(|(a, b)| a * b).sum()
    }
}

impl fmt::Debug for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedding({} values)", self.0.len())
    }
}

/// Converts a text to Unicode's composed form (NFC), in which names and metadata are compared. File systems
/// store `ü` as one character or as two; to readers, the two are the same.
#[must_use]
pub fn nfc(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || unicode_normalization::is_nfc(text) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.nfc().collect())
}

/// The current time in milliseconds since 1970.
#[must_use]
pub fn now_unix_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// Formats Unix milliseconds as RFC 3339 in UTC, the form of every date in the API.
#[must_use]
pub fn rfc3339_millis(unix_ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(unix_ms)
        .unwrap_or_default()
        .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embedding_is_normalised_once_and_refuses_nonsense() {
        let e = Embedding::new(vec![3.0, 4.0], 2).unwrap();
        assert_eq!(e.as_slice(), &[0.6, 0.8]);
        let again = Embedding::new(e.as_slice().to_vec(), 2).unwrap();
        assert_eq!(e, again);
        assert_eq!(Embedding::new(vec![1.0], 2), Err(TypeError::BadLength { got: 1, want: 2 }));
        assert_eq!(Embedding::new(vec![f32::NAN, 1.0], 2), Err(TypeError::NotFinite));
        assert_eq!(Embedding::new(vec![0.0, 0.0], 2), Err(TypeError::ZeroNorm));
        assert!(Embedding::new(vec![3e38, 3e38], 2).is_ok());
    }

    #[test]
    fn ids_round_trip_and_refuse_others() {
        let id = AssetId::generate();
        assert_eq!(id.to_string().parse::<AssetId>().unwrap(), id);
        assert!(id.to_string().parse::<JobId>().is_err());
        assert!("ast_../../etc/passwd".parse::<AssetId>().is_err());
    }

    #[test]
    fn spans_are_ordered_and_finite() {
        assert!(TimeSpan::new(0.0, 3.2).is_ok());
        for (a, b) in [(1.0, 1.0), (-0.1, 1.0), (2.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
            assert!(TimeSpan::new(a, b).is_err());
        }
    }
}
