//! What somebody looks for, from JSON or a form, to vectors.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use utoipa::ToSchema;

use super::bodies::GivenMedia;
use super::data_uri;
use super::error::ApiError;
use super::middleware::Timing;
use super::state::AppState;
use crate::embed::Vectors;
use crate::library::Library;
use crate::model::{Priority, Timings};
use crate::search::QueryPart;
use crate::types::{AssetId, Modality, TimeSpan, Track, TrackChoice};

/// Most parts of a query.
pub const MAX_PARTS: usize = 16;
/// Largest weight, by its amount.
const MAX_WEIGHT: f32 = 1000.0;

/// What to search for: text, one query part, or several weighted parts.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub enum QueryInput {
    /// A text.
    Words(String),
    /// A single part.
    One(QueryBody),
    /// Several weighted parts.
    Several(Vec<QueryBody>),
}

/// By hand: an untagged enum would not say which field is wrong.
impl<'de> Deserialize<'de> for QueryInput {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = QueryInput;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text, a query or a list of its parts")
            }
            fn visit_str<E>(self, text: &str) -> Result<QueryInput, E> {
                Ok(QueryInput::Words(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<QueryInput, E> {
                Ok(QueryInput::Words(text))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<QueryInput, A::Error> {
                QueryBody::deserialize(MapAccessDeserializer::new(map)).map(QueryInput::One)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<QueryInput, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(QueryInput::Several)
            }
        }
        deserializer.deserialize_any(Parts)
    }
}

/// Exactly one of text, image, audio, video or asset.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryBody {
    /// Text.
    #[schema(example = "a red circle moving left")]
    pub text: Option<String>,
    /// A picture, as a `data:` URI.
    #[schema(value_type = Option<String>)]
    pub image: Option<GivenMedia>,
    /// A sound, as a `data:` URI.
    #[schema(value_type = Option<String>)]
    pub audio: Option<GivenMedia>,
    /// A video, as a `data:` URI.
    #[schema(value_type = Option<String>)]
    pub video: Option<GivenMedia>,
    /// A stored asset, or a part of it.
    pub asset: Option<AssetQuery>,
    /// Weight of this part relative to the others; a negative weight ranks similar clips last. Default 1.
    pub weight: Option<f32>,
}

impl QueryBody {
    /// A text alone.
    pub fn text(text: String) -> Self {
        Self { text: Some(text), ..Self::default() }
    }
}

/// A stored asset, or a part of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssetQuery {
    /// Id of the asset.
    pub id: AssetId,
    /// Start of the part, in seconds; default: the beginning of the asset.
    pub start_secs: Option<f64>,
    /// End of the part, in seconds; default: the end of the asset.
    pub end_secs: Option<f64>,
    /// Track to use, `video` or `audio`; default: video if the asset has it.
    pub track: Option<Track>,
}

/// An embedded query.
pub struct Embedded {
    /// For the search.
    pub parts: Vec<QueryPart>,
    /// Words of its texts that the model left out.
    pub ignored: Vec<String>,
    /// The stored assets it was made of: no answers to themselves.
    pub assets: Vec<AssetId>,
    /// Where the time went.
    pub timing: Timing,
}

/// Embeds a query with all its parts.
pub async fn embed(state: &AppState, input: QueryInput) -> Result<Embedded, ApiError> {
    let parts = match input {
        QueryInput::Words(text) => {
            let embedded = embed_part(state, QueryBody::text(text), "query").await;
            return embedded.map_err(|error| error.with_param("query"));
        }
        QueryInput::One(part) => return embed_part(state, part, "query").await,
        QueryInput::Several(parts) => parts,
    };
    if parts.is_empty() || parts.len() > MAX_PARTS {
        return Err(ApiError::invalid("query", format!("expected 1 to {MAX_PARTS} query parts")));
    }
    let mut whole =
        Embedded { parts: Vec::new(), ignored: Vec::new(), assets: Vec::new(), timing: Timing::default() };
    for (n, part) in parts.into_iter().enumerate() {
        whole.add(embed_part(state, part, &format!("query[{n}]")).await?);
    }
    Ok(whole)
}

impl Embedded {
    /// Takes further parts.
    pub fn add(&mut self, other: Self) {
        self.parts.extend(other.parts);
        self.assets.extend(other.assets);
        for word in other.ignored {
            if !self.ignored.contains(&word) {
                self.ignored.push(word);
            }
        }
        self.timing.queue_secs += other.timing.queue_secs;
        self.timing.inference_secs += other.timing.inference_secs;
    }

    /// Gives its one part a weight.
    pub fn weighted(mut self, weight: Option<f32>, param: &str) -> Result<Self, ApiError> {
        let Some(weight) = weight else { return Ok(self) };
        let weight = checked_weight(weight, param)?;
        self.parts.iter_mut().for_each(|part| part.weight = weight);
        Ok(self)
    }
}

/// A weight that means something.
pub fn checked_weight(weight: f32, param: &str) -> Result<f32, ApiError> {
    if !weight.is_finite() || weight == 0.0 || weight.abs() > MAX_WEIGHT {
        let message = format!("`weight` must be a number from -{MAX_WEIGHT} to {MAX_WEIGHT} other than 0");
        return Err(ApiError::invalid(param, message));
    }
    Ok(weight)
}

async fn embed_part(state: &AppState, body: QueryBody, param: &str) -> Result<Embedded, ApiError> {
    let weight = body.weight;
    embed_one(state, body, param).await?.weighted(weight, &format!("{param}.weight"))
}

async fn embed_one(state: &AppState, body: QueryBody, param: &str) -> Result<Embedded, ApiError> {
    let media = [(Modality::Image, body.image), (Modality::Audio, body.audio), (Modality::Video, body.video)];
    let mut media: Vec<_> = media.into_iter().filter_map(|(m, uri)| uri.map(|uri| (m, uri))).collect();
    let given = usize::from(body.text.is_some()) + media.len() + usize::from(body.asset.is_some());
    if given != 1 {
        let message = format!(
            "expected exactly one of text, image, audio, video or asset in a query part, got {given}"
        );
        return Err(ApiError::invalid(param, message));
    }
    if let Some(text) = body.text {
        return embed_text(state, &text, &format!("{param}.text")).await;
    }
    if let Some(query) = body.asset {
        return of_asset(&state.library, &query, &format!("{param}.asset")).await;
    }
    let Some((modality, uri)) = media.pop() else {
        return Err(ApiError::invalid(param, "the query is empty; send at least one part"));
    };
    let param = format!("{param}.{modality}");
    let path = scratch_of(state, uri, modality, &param).await?;
    embed_file(state, &path, modality, None, TrackChoice::default())
        .await
        .map_err(|error| error.with_param(param))
}

/// The bytes of a `data:` URI in a temporary file.
pub async fn scratch_of(
    state: &AppState,
    media: GivenMedia,
    modality: Modality,
    param: &str,
) -> Result<tempfile::TempPath, ApiError> {
    let uri = match media {
        GivenMedia::Written(uri) => uri,
        GivenMedia::Large(large) => {
            data_uri::check(&large.head, modality, param)?;
            let upload = large.bytes.map_err(|problem| data_uri::not_base64(&problem, param))?;
            return Ok(upload.path);
        }
    };
    let bytes = data_uri::decode(&uri, modality, param)?;
    let mut writer = state.library.data().begin_upload(u64::MAX);
    writer.write(&bytes).await?;
    Ok(writer.finish_scratch().await?.path)
}

/// Refuses a text without a word; what the model makes of the words it says itself.
pub fn check_text(text: &str, param: &str) -> Result<(), ApiError> {
    if text.trim().is_empty() {
        return Err(ApiError::invalid(param, "the text is empty; send at least one word"));
    }
    Ok(())
}

async fn embed_text(state: &AppState, text: &str, param: &str) -> Result<Embedded, ApiError> {
    check_text(text, param)?;
    let timings = Arc::new(Timings::default());
    let embedder = state.library.embedder().timed(Arc::clone(&timings));
    let vectors = within(state, embedder.text(text, Priority::Interactive)).await?;
    let vectors = vectors.map_err(|error| ApiError::from(error).with_param(param))?;
    let mut embedded = embedded(Modality::Text, vectors, &timings);
    let reading = state.library.embedder().towers.read_text(text).unwrap_or_default();
    embedded.parts.iter_mut().for_each(|part| part.words = reading.words);
    embedded.ignored = reading.ignored;
    Ok(embedded)
}

/// Embeds a query that is a file.
pub async fn embed_file(
    state: &AppState,
    path: &Path,
    modality: Modality,
    span: Option<TimeSpan>,
    tracks: TrackChoice,
) -> Result<Embedded, ApiError> {
    let timings = Arc::new(Timings::default());
    let embedder = state.library.embedder().timed(Arc::clone(&timings));
    let vectors = within(state, embedder.query_tracks(path, modality, span, tracks)).await??;
    Ok(embedded(modality, vectors, &timings))
}

fn embedded(modality: Modality, vectors: Vectors, timings: &Timings) -> Embedded {
    let part = QueryPart { modality, vectors, weight: 1.0, words: 0 };
    Embedded { parts: vec![part], ignored: Vec::new(), assets: Vec::new(), timing: timing(timings) }
}

/// What the towers took, for the response's headers and for Prometheus.
pub fn timing(timings: &Timings) -> Timing {
    let timing = Timing { queue_secs: timings.queue_secs(), inference_secs: timings.inference_secs() };
    metrics::histogram!("triptych_query_stage_seconds", "stage" => "queue").record(timing.queue_secs);
    metrics::histogram!("triptych_query_stage_seconds", "stage" => "infer").record(timing.inference_secs);
    timing
}

/// Gives up on what takes too long.
pub async fn within<T>(state: &AppState, work: impl Future<Output = T>) -> Result<T, ApiError> {
    tokio::time::timeout(state.config.query_timeout, work).await.map_err(|_| {
        let message =
            "the query took too long; send a shorter file, or try again when the server is less busy";
        ApiError::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "deadline_exceeded", message)
            .retry_after(5)
    })
}

/// A span from two optional ends.
pub fn span_of(start: Option<f64>, end: Option<f64>, param: &str) -> Result<Option<TimeSpan>, ApiError> {
    if start.is_none() && end.is_none() {
        return Ok(None);
    }
    let span = TimeSpan::new(start.unwrap_or(0.0), end.unwrap_or(f64::MAX));
    span.map(Some).map_err(|error| ApiError::invalid(param, error.to_string()))
}

/// A stored asset, or a part of it.
async fn of_asset(library: &Library, query: &AssetQuery, param: &str) -> Result<Embedded, ApiError> {
    let span = span_of(query.start_secs, query.end_secs, &format!("{param}.start_secs"))?;
    // Unknown ids answer 404 and say which field.
    let not_found = |error| ApiError::from(error).with_param(format!("{param}.id"));
    library.collection().asset(query.id).await.map_err(not_found)?;
    let part = library.collection().query_of_asset(query.id, span, query.track).await;
    let part = part.map_err(|error| ApiError::from(error).with_param(param))?;
    Ok(Embedded { parts: vec![part], ignored: Vec::new(), assets: vec![query.id], timing: Timing::default() })
}
