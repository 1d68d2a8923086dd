//! Embeddings in OpenAI's format.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::vectors::{Encoding, VectorView};
use crate::collection::ask::check_text;
use crate::embed::{Embedder, Vectors};
use crate::http_intake::bodies::MediaField;
use crate::http_intake::extract::ApiJson;
use crate::http_intake::form::{self, FileRule};
use crate::http_intake::query::{scratch_of, timing, within};
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::http_kit::media_type::{content_type, unsupported};
use crate::library::LibraryError;
use crate::model::{Priority, Role, Timings};
use crate::search::SearchError;
use crate::types::{Modality, Space, TimeSpan, TrackChoice};

/// Most inputs a request.
const MAX_INPUTS: usize = 256;
/// Most clips a request: about nine hours of video.
const MAX_CLIPS: usize = 10_000;
/// Maximum number of texts embedded in parallel, so that they can share a batch.
const TEXTS_AT_ONCE: usize = 16;

/// Inputs to embed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingsBody {
    /// Name or digest of a loaded model; default: the serving model.
    model: Option<String>,
    /// Modality of the inputs.
    modality: Modality,
    /// Text, a `data:` URI or a path in an allowed folder; or a list of these.
    #[schema(value_type = InputTexts)]
    input: Input,
    /// Embedding space; default: the finest space of the modality.
    space: Option<String>,
    /// Encoding of vectors: `float` (the default) or `base64`.
    #[serde(default)]
    encoding_format: Encoding,
    /// What texts are for; some models prepare queries and documents in different ways. Default: `query`.
    #[serde(default)]
    role: TextRole,
}

/// What texts are for.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextRole {
    /// They are searched with.
    #[default]
    Query,
    /// They are what is found.
    Document,
}

impl From<TextRole> for Role {
    fn from(role: TextRole) -> Self {
        match role {
            TextRole::Query => Self::Query,
            TextRole::Document => Self::Document,
        }
    }
}

/// One or several inputs.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Input {
    /// A single input.
    One(MediaField),
    /// A list of inputs.
    Many(Vec<MediaField>),
}

/// One or several inputs.
#[derive(Debug, ToSchema)]
#[schema(as = Input)]
#[serde(untagged)]
#[allow(dead_code, reason = "documents `Input`")]
pub enum InputTexts {
    /// A single input.
    One(String),
    /// A list of inputs.
    Many(Vec<String>),
}

/// Form with a file to embed.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the multipart form")]
pub struct EmbeddingsForm {
    /// The file's contents.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    file: String,
    /// How to read the file: `image`, `audio` or `video`.
    #[schema(value_type = String)]
    modality: Modality,
    /// Embedding space.
    space: Option<String>,
    /// `float` (the default) or `base64`.
    encoding_format: Option<String>,
    /// Name or digest of a loaded model; default: the serving model.
    model: Option<String>,
    /// Index of the file's video track to read; default: chosen by the server.
    video_track: Option<u16>,
    /// Index of the file's audio track to read; default: chosen by the server.
    audio_track: Option<u16>,
}

/// One vector, of unit length.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingView {
    /// Always `embedding`.
    object: &'static str,
    /// Index of the input it belongs to; the clips of an audio or video input follow each other.
    index: usize,
    /// The vector.
    embedding: VectorView,
    /// Embedding space.
    space: Space,
    /// Start of the clip in seconds; only for video and audio.
    #[serde(skip_serializing_if = "Option::is_none")]
    start_secs: Option<f64>,
    /// End of the clip in seconds; only for video and audio.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_secs: Option<f64>,
}

/// Token counts of the request.
#[derive(Debug, Serialize, ToSchema)]
pub struct Usage {
    /// Number of tokens of the texts that the model reads: words, if it has a word list.
    prompt_tokens: usize,
    /// Same as `prompt_tokens`.
    total_tokens: usize,
}

/// Vectors.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingsAnswer {
    /// Always `list`.
    object: &'static str,
    /// Name of the model.
    model: String,
    /// In the order of the inputs, clips in time order.
    data: Vec<EmbeddingView>,
    /// Token counts of the request.
    usage: Usage,
}

/// Options shared by all inputs of a request.
struct Options {
    modality: Modality,
    space: Space,
    encoding: Encoding,
}

/// Embeds text, images, audio or video. Audio and video give one vector per clip.
#[utoipa::path(post, path = "/v1/embeddings", operation_id = "create_embeddings", tag = "embeddings",
    request_body(content((EmbeddingsBody = "application/json"), (EmbeddingsForm = "multipart/form-data"))),
    responses((status = 200, description = "The vectors", body = EmbeddingsAnswer),
        ClientError))]
pub async fn embeddings(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    let timings = Arc::new(Timings::default());
    let Embedded { state, data, words } = match content_type(request.headers()).as_str() {
        "application/json" => by_json(state, request, &timings).await?,
        "multipart/form-data" => by_form(state, request, &timings).await?,
        _ => return Err(unsupported("application/json or multipart/form-data")),
    };
    let model = state.library.embedder().bundle().name().to_owned();
    let usage = Usage { prompt_tokens: words, total_tokens: words };
    let mut response = Json(EmbeddingsAnswer { object: "list", model, data, usage }).into_response();
    response.extensions_mut().insert(timing(&timings));
    Ok(response)
}

/// The vectors of a request's inputs.
struct Embedded {
    /// The state with the library of the model that the request names.
    state: AppState,
    data: Vec<EmbeddingView>,
    /// Number of tokens of the texts.
    words: usize,
}

async fn by_json(state: AppState, request: Request, timings: &Arc<Timings>) -> Result<Embedded, ApiError> {
    let ApiJson(body) = ApiJson::<EmbeddingsBody>::from_request(request, &state).await?;
    let state = state.of_model(body.model.as_deref())?;
    let embedder = state.library.embedder().timed(Arc::clone(timings));
    let options = options(&state, body.modality, body.space, body.encoding_format)?;
    let inputs = match body.input {
        Input::One(input) => vec![input],
        Input::Many(inputs) => inputs,
    };
    if inputs.is_empty() || inputs.len() > MAX_INPUTS {
        return Err(ApiError::invalid("input", format!("expected 1 to {MAX_INPUTS} inputs per request")));
    }
    let mut words = 0;
    let data = if options.modality == Modality::Text {
        let inputs = words_of(&inputs)?;
        let data = within(&state, texts(&embedder, &options, body.role.into(), &inputs)).await??;
        let readings = inputs.iter().filter_map(|text| embedder.towers.read_text(text).ok());
        words = readings.map(|reading| reading.tokens).sum();
        data
    } else {
        within(&state, media(&state, &embedder, &options, inputs)).await??
    };
    Ok(Embedded { state, data, words })
}

async fn by_form(state: AppState, request: Request, timings: &Arc<Timings>) -> Result<Embedded, ApiError> {
    let rule = FileRule { max_bytes: state.config.max_body_bytes as u64, durable: false };
    let known = ["modality", "space", "encoding_format", "model", "video_track", "audio_track"];
    let mut form = form::receive(&state, request, &known, rule).await?;
    let modality = super::media_modality(&form.require("modality")?)?;
    let encoding = match form.take("encoding_format").as_deref() {
        None | Some("float") => Encoding::Float,
        Some("base64") => Encoding::Base64,
        Some(_) => {
            return Err(ApiError::invalid("encoding_format", "`encoding_format` must be float or base64"));
        }
    };
    let state = state.of_model(form.take("model").as_deref())?;
    let embedder = state.library.embedder().timed(Arc::clone(timings));
    let options = options(&state, modality, form.take("space"), encoding)?;
    let tracks = form.choice()?;
    let (upload, _) = form.require_file()?;
    let mut data = Vec::new();
    let embedded = within(&state, of_file(&embedder, &options, (0, tracks), &upload.path, &mut data)).await?;
    embedded.map_err(|error| error.with_param("file"))?;
    Ok(Embedded { state, data, words: 0 })
}

fn options(
    state: &AppState,
    modality: Modality,
    space: Option<String>,
    encoding: Encoding,
) -> Result<Options, ApiError> {
    let bundle = state.library.embedder().bundle();
    let member = |space: &Space| bundle.has(modality, space);
    let space = match space {
        Some(name) => Some(Space::new(&name)).filter(member).ok_or_else(|| {
            let message = format!("this model has no {modality} vectors in space `{name}`; see /v1/models");
            ApiError::new(StatusCode::BAD_REQUEST, "bad_space", message).with_param("space")
        })?,
        None => {
            bundle.spaces().iter().map(|(space, _)| space.clone()).find(|space| member(space)).ok_or_else(
                || {
                    let message = format!("this model cannot embed {modality}; see /v1/models");
                    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "modality_not_supported", message)
                        .with_param("modality")
                },
            )?
        }
    };
    Ok(Options { modality, space, encoding })
}

fn words_of(inputs: &[MediaField]) -> Result<Vec<&str>, ApiError> {
    fn text((index, input): (usize, &MediaField)) -> Result<&str, ApiError> {
        match input {
            MediaField::Written(text) => Ok(text),
            MediaField::Large(_) => {
                let message = "expected text, got a data: URI; set `modality` to the type of the media";
                Err(ApiError::invalid(format!("input[{index}]"), message))
            }
        }
    }
    inputs.iter().enumerate().map(text).collect()
}

async fn texts(
    embedder: &Embedder,
    options: &Options,
    role: Role,
    inputs: &[&str],
) -> Result<Vec<EmbeddingView>, ApiError> {
    let one = async |(index, text): (usize, &&str)| {
        let param = format!("input[{index}]");
        check_text(text, &param)?;
        let vectors = embedder.text_as(text, role, Priority::Interactive).await;
        let vectors = vectors.map_err(|error| ApiError::from(error).with_param(param))?;
        view(options, index, None, &vectors)
    };
    stream::iter(inputs.iter().enumerate()).map(one).buffered(TEXTS_AT_ONCE).try_collect().await
}

async fn media(
    state: &AppState,
    embedder: &Embedder,
    options: &Options,
    inputs: Vec<MediaField>,
) -> Result<Vec<EmbeddingView>, ApiError> {
    let mut data = Vec::new();
    for (index, input) in inputs.into_iter().enumerate() {
        let param = format!("input[{index}]");
        let named = |error: ApiError| error.with_param(param.clone());
        if let MediaField::Written(path) = &input
            && path.starts_with('/')
        {
            let path =
                state.library.data().allowed_path(&PathBuf::from(path)).map_err(|e| named(e.into()))?;
            of_file(embedder, options, (index, TrackChoice::default()), &path, &mut data)
                .await
                .map_err(named)?;
        } else {
            let path = scratch_of(state, input, options.modality, &param).await?;
            of_file(embedder, options, (index, TrackChoice::default()), &path, &mut data)
                .await
                .map_err(named)?;
        }
    }
    Ok(data)
}

/// A picture gives one vector, a video or a sound one for each clip.
async fn of_file(
    embedder: &Embedder,
    options: &Options,
    (index, tracks): (usize, TrackChoice),
    path: &Path,
    data: &mut Vec<EmbeddingView>,
) -> Result<(), ApiError> {
    if options.modality == Modality::Image {
        let vectors = embedder.query_tracks(path, Modality::Image, None, tracks).await?;
        data.push(view(options, index, None, &vectors)?);
        return Ok(());
    }
    let mut stream = embedder.open_tracks(path, None, tracks, Priority::Interactive).await?;
    let before = data.len();
    while let Some(clip) = stream.next().await? {
        if let Some(vectors) = clip.of(options.modality) {
            data.push(view(options, index, Some(clip.span), vectors)?);
        }
        if data.len() > MAX_CLIPS {
            let message = format!("the inputs have more than {MAX_CLIPS} clips in total; index them instead");
            return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "too_many_clips", message));
        }
    }
    if data.len() == before {
        let message = format!("the file has no {} track", options.modality);
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "no_such_track", message));
    }
    Ok(())
}

fn view(
    options: &Options,
    index: usize,
    span: Option<TimeSpan>,
    vectors: &Vectors,
) -> Result<EmbeddingView, ApiError> {
    let vector = vectors
        .get(&options.space)
        .ok_or_else(|| LibraryError::from(SearchError::BadSpace(options.space.clone())))?;
    Ok(EmbeddingView {
        object: "embedding",
        index,
        embedding: VectorView::of(vector, options.encoding),
        space: options.space.clone(),
        start_secs: span.map(|span| span.start_secs),
        end_secs: span.map(|span| span.end_secs),
    })
}
