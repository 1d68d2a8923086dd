//! The definition of a standing query, as stored.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::catalog::Filter;
use crate::embed::Vectors;
use crate::model::Bundle;
use crate::search::{Fuse, Minimum, QueryPart, SearchRequest};
use crate::types::{AssetId, Embedding, Modality, Space, TimeSpan, Track};

/// Options of a standing query, without the query itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StandingSpec {
    /// Tracks to search.
    pub targets: Vec<Track>,
    /// How the targets' scores make one score.
    pub fuse: Fuse,
    /// Requested space; `None`: the finest that all sides share.
    pub space: Option<Space>,
    /// Which clips may match.
    pub filter: Filter,
    /// Minimum confidence of a match.
    pub min_confidence: Option<f32>,
    /// Minimum score of a match.
    pub min_score: Option<f32>,
    /// The user's JSON object, sent with every match.
    pub metadata: serde_json::Value,
    /// The query for display: for media, their type and size.
    pub query: serde_json::Value,
    /// Assets that the query consists of; they do not match it.
    pub(crate) exclude_assets: Vec<AssetId>,
}

impl StandingSpec {
    pub(crate) fn minimum(&self) -> Minimum {
        match (self.min_score, self.min_confidence) {
            (Some(score), _) => Minimum::Score(score),
            (None, confidence) => Minimum::Confidence(confidence.unwrap_or(crate::search::MATCHES_FROM)),
        }
    }

    pub(crate) fn set_least(&mut self, minimum: Minimum) {
        (self.min_confidence, self.min_score) = match minimum {
            Minimum::Confidence(confidence) => (Some(confidence), None),
            Minimum::Score(score) => (None, Some(score)),
        };
    }

    pub(crate) fn request(&self, parts: Vec<QueryPart>) -> SearchRequest {
        SearchRequest {
            targets: self.targets.clone(),
            fuse: self.fuse,
            filter: self.filter.clone(),
            exclude_assets: self.exclude_assets.clone(),
            space: self.space.clone(),
            ..SearchRequest::new(parts)
        }
    }
}

/// One part as the user gave it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandingInput {
    /// A text.
    Text(String),
    /// A file.
    Media {
        /// The modality to embed it as.
        modality: Modality,
        /// Media type that the user declared.
        media_type: String,
        /// Contents of the file.
        #[serde(with = "as_base64")]
        bytes: Vec<u8>,
    },
    /// A stored asset, or a part of it.
    Asset {
        /// Id of the asset.
        id: AssetId,
        /// Start of the span in seconds; `None`: from the beginning.
        start_secs: Option<f64>,
        /// End of the span in seconds; `None`: to the end.
        end_secs: Option<f64>,
        /// Its picture or its sound; `None`: the picture if there is one.
        track: Option<Track>,
    },
}

/// One part of a standing query.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StandingPart {
    /// The text, file or asset.
    pub given: StandingInput,
    /// Weight of the part in the query.
    pub weight: f32,
    /// The field that it came from, for errors, such as `query[0].text`.
    #[serde(skip)]
    pub at: String,
}

impl StandingPart {
    /// The part for display: for media, type and size.
    pub(crate) fn shown(&self) -> serde_json::Value {
        let mut shown = serde_json::Map::new();
        let (key, value) = match &self.given {
            StandingInput::Text(text) => ("text", serde_json::json!(text)),
            StandingInput::Media { modality, media_type, bytes } => {
                let about = serde_json::json!({ "media_type": media_type, "size_bytes": bytes.len() });
                (modality.as_str(), about)
            }
            StandingInput::Asset { id, start_secs, end_secs, track } => {
                let about = serde_json::json!(
                    { "id": id, "start_secs": start_secs, "end_secs": end_secs, "track": track });
                ("asset", about)
            }
        };
        shown.insert(key.to_owned(), value);
        shown.insert("weight".to_owned(), serde_json::json!(self.weight));
        serde_json::Value::Object(shown)
    }
}

/// The span between two optional ends; `None` if both are missing or they do not form a span.
pub(crate) fn span_of(start_secs: Option<f64>, end_secs: Option<f64>) -> Option<TimeSpan> {
    if start_secs.is_none() && end_secs.is_none() {
        return None;
    }
    TimeSpan::new(start_secs.unwrap_or(0.0), end_secs.unwrap_or(f64::MAX)).ok()
}

mod as_base64 {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// An embedded part, as stored.
#[derive(Serialize, Deserialize)]
struct StoredPart {
    modality: Modality,
    weight: f32,
    words: usize,
    /// Share of the words with a meaning that the model knows, by space.
    #[serde(default)]
    understood: BTreeMap<Space, f32>,
    /// Vector per space: f32, little-endian, in base64.
    vectors: BTreeMap<Space, String>,
}

/// Encodes embedded parts, in the stored form.
pub(crate) fn pack(parts: &[QueryPart]) -> Vec<u8> {
    let encode = |vector: &Embedding| {
        STANDARD.encode(vector.as_slice().iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
    };
    let stored = |part: &QueryPart| StoredPart {
        modality: part.modality,
        weight: part.weight,
        words: part.words,
        understood: part.understood.clone(),
        vectors: part.vectors.iter().map(|(space, vector)| (space.clone(), encode(vector))).collect(),
    };
    // Serialization cannot fail; if the result were empty, the vectors would be recomputed.
    serde_json::to_vec(&parts.iter().map(stored).collect::<Vec<_>>()).unwrap_or_default()
}

/// Decodes embedded parts; `None` if they do not fit this model.
pub(crate) fn unpack(bytes: &[u8], bundle: &Bundle) -> Option<Vec<QueryPart>> {
    let decode = |(space, text): (&Space, &String)| {
        let bytes = STANDARD.decode(text).ok()?;
        let (values, rest) = bytes.as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
        let dim = bundle.dim(space).filter(|_| rest.is_empty())?;
        Some((space.clone(), Embedding::new(values, dim).ok()?))
    };
    let stored: Vec<StoredPart> = serde_json::from_slice(bytes).ok()?;
    let part = |part: StoredPart| {
        let vectors = part.vectors.iter().map(decode).collect::<Option<Vectors>>()?;
        let StoredPart { modality, weight, words, understood, .. } = part;
        Some(QueryPart { weight, words, understood, ..QueryPart::new(modality, vectors) })
    };
    stored.into_iter().map(part).collect()
}
