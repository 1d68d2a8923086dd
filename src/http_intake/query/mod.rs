//! Queries: from JSON or a form to vectors.

pub mod stored;

use std::sync::Arc;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use utoipa::ToSchema;

use crate::collection::ask::{self, Ask, AskOptions, AskPart, Source};
use crate::http_intake::bodies::MediaField;
use crate::http_intake::middleware::Timing;
use crate::http_intake::state::AppState;
use crate::http_kit::data_uri;
use crate::http_kit::error::ApiError;
use crate::model::{Priority, Timings};
use crate::search::SearchRequest;
use crate::types::{AssetId, Modality, TimeSpan, Track, TrackChoice};

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

/// Written by hand: the error of an untagged enum would not name the wrong field.
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
    pub image: Option<MediaField>,
    /// A sound, as a `data:` URI.
    #[schema(value_type = Option<String>)]
    pub audio: Option<MediaField>,
    /// A video, as a `data:` URI.
    #[schema(value_type = Option<String>)]
    pub video: Option<MediaField>,
    /// A stored asset, or a part of it.
    pub asset: Option<AssetQuery>,
    /// Weight of this part relative to the others; a negative weight ranks similar clips last. Default 1.
    pub weight: Option<f32>,
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

/// The content of a query part.
pub enum Input {
    Text(String),
    /// Media in a `data:` URI.
    Media(Modality, MediaField),
    /// A stored asset, or a part of it.
    Asset(AssetQuery),
}

/// A query part as the request has it.
pub struct Part {
    /// The text, media or asset.
    pub input: Input,
    pub weight: f32,
    /// The field that it came from, for errors.
    pub at: String,
}

/// The parts of a query.
pub fn parts_of(input: QueryInput) -> Result<Vec<Part>, ApiError> {
    match input {
        QueryInput::Words(text) => {
            Ok(vec![Part { input: Input::Text(text), weight: 1.0, at: "query".to_owned() }])
        }
        QueryInput::One(body) => Ok(vec![part_of(body, "query")?]),
        QueryInput::Several(bodies) => {
            let part = |(n, body)| part_of(body, &format!("query[{n}]"));
            bodies.into_iter().enumerate().map(part).collect()
        }
    }
}

fn part_of(body: QueryBody, at: &str) -> Result<Part, ApiError> {
    let media = [(Modality::Image, body.image), (Modality::Audio, body.audio), (Modality::Video, body.video)];
    let media = media.into_iter().filter_map(|(modality, uri)| Some(Input::Media(modality, uri?)));
    let mut all: Vec<Input> = media.collect();
    all.extend(body.text.map(Input::Text));
    all.extend(body.asset.map(Input::Asset));
    let count = all.len();
    let Some(input) = all.pop().filter(|_| count == 1) else {
        let message = format!(
            "expected exactly one of text, image, audio, video or asset in a query part, got {count}"
        );
        return Err(ApiError::invalid(at, message));
    };
    let weight = ask::checked_weight(body.weight.unwrap_or(1.0), &format!("{at}.weight"))?;
    let at = match &input {
        Input::Text(_) => format!("{at}.text"),
        Input::Media(modality, _) => format!("{at}.{modality}"),
        Input::Asset(_) => format!("{at}.asset"),
    };
    Ok(Part { input, weight, at })
}

/// The weights of these parts.
pub fn weights(parts: &[Part]) -> Vec<f32> {
    parts.iter().map(|part| part.weight).collect()
}

/// Parts of a query, with their temporary files.
#[derive(Default)]
pub struct Parts {
    /// Parts of the query, in the order given.
    pub parts: Vec<AskPart>,
    /// Removed when these go.
    pub files: Vec<tempfile::TempPath>,
}

impl Parts {
    /// Appends further parts, such as the file of a form.
    pub async fn add(&mut self, state: &AppState, parts: Vec<Part>) -> Result<(), ApiError> {
        for Part { input, weight, at } in parts {
            let source = match input {
                Input::Text(text) => Source::Text(text),
                Input::Media(modality, uri) => {
                    let file = scratch_of(state, uri, modality, &at).await?;
                    let path = file.to_path_buf();
                    self.files.push(file);
                    Source::File { path, modality, span: None, tracks: TrackChoice::default() }
                }
                Input::Asset(asset) => {
                    let span = span_of(asset.start_secs, asset.end_secs, &format!("{at}.start_secs"))?;
                    Source::Asset { id: asset.id, span, track: asset.track }
                }
            };
            self.parts.push(AskPart { source, weight, at });
        }
        Ok(())
    }

    /// Checks the question as a whole, then embeds it.
    pub async fn embed(
        self,
        state: &AppState,
        options: AskOptions,
    ) -> Result<(SearchRequest, Timing), ApiError> {
        let ask = Ask::new(self.parts, options)?;
        let timings = Arc::new(Timings::default());
        let embedding = state.library.collection().embed(&ask, Priority::Interactive, &timings);
        let request = within(state, embedding).await??;
        Ok((request, timing(&timings)))
    }
}

/// The bytes of a `data:` URI in a temporary file.
pub async fn scratch_of(
    state: &AppState,
    media: MediaField,
    modality: Modality,
    param: &str,
) -> Result<tempfile::TempPath, ApiError> {
    let uri = match media {
        MediaField::Written(uri) => uri,
        MediaField::Large(large) => {
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

/// Time in the towers, for the response's headers and for Prometheus.
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
