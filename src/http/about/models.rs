//! Models: list, load, promote and unload.

use std::path::PathBuf;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http_intake::extract::{ApiJson, ApiQuery};
use crate::http_intake::state::AppState;
use crate::http_kit::advice::advice;
use crate::http_kit::error::{ApiError, ClientError, ErrorBody};
use crate::http_kit::views::List;
use crate::library::{LibraryError, ModelEntry, Progress, Role};
use crate::model::Source;
use crate::types::{Modality, ModelId, Space};

/// An embedding space of a model.
#[derive(Debug, Serialize, ToSchema)]
pub struct SpaceView {
    /// Name.
    name: Space,
    /// Number of dimensions of its vectors.
    dim: usize,
    /// Modalities with vectors in this space, which can be compared with each other.
    members: Vec<Modality>,
}

/// A part of a model that embeds one modality.
#[derive(Debug, Serialize, ToSchema)]
pub struct TowerView {
    /// Name.
    name: String,
    /// Modality that it embeds.
    modality: Modality,
    /// Number format of its weights: `f32`, `f16`, `bf16` or `int8`; null if it borrows the video tower.
    precision: Option<String>,
    /// Spaces in which it has vectors.
    spaces: Vec<Space>,
}

/// Where weights come from.
#[derive(Debug, Serialize, ToSchema)]
pub struct SourceView {
    /// Family of models, such as `clip`.
    family: String,
    /// Name of the published model; null if unknown.
    repository: Option<String>,
    /// Its revision; null if unknown.
    revision: Option<String>,
    /// Licence of the weights; null if unknown.
    license: Option<String>,
    /// What the model card says, in a few sentences.
    card: Option<String>,
    /// Languages that it was trained on.
    languages: Vec<String>,
}

impl From<&Source> for SourceView {
    fn from(source: &Source) -> Self {
        Self {
            family: source.family.clone(),
            repository: source.repository.clone(),
            revision: source.revision.clone(),
            license: source.license.clone(),
            card: source.card.clone(),
            languages: source.languages.clone(),
        }
    }
}

/// A loaded model.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelView {
    /// Always `model`.
    object: &'static str,
    /// Name, as used in the `model` field of requests.
    id: String,
    /// Digest of its manifest, which covers all files; the `model` field of requests accepts it too.
    digest: ModelId,
    /// Role of the model.
    role: Role,
    /// Progress.
    #[serde(flatten)]
    progress: Progress,
    /// Whether it becomes the serving model once it has embedded all assets.
    promote_when_ready: bool,
    /// Why it is stuck; null if it is not.
    error: Option<String>,
    /// Device: `cpu` or `cuda:N`.
    device: String,
    /// One sentence about the model; may be empty.
    description: String,
    /// Licence of the bundle.
    license: String,
    /// Where its weights come from; empty if they were trained for this bundle.
    sources: Vec<SourceView>,
    /// Languages of its texts; empty if unknown.
    languages: Vec<String>,
    /// Number of words that it knows; null if it takes any text.
    vocabulary_words: Option<usize>,
    /// Names of the sample clips that come with it.
    samples: Vec<String>,
    /// Its towers.
    towers: Vec<TowerView>,
    /// Embedding spaces, finest first.
    spaces: Vec<SpaceView>,
    /// Length of a clip in seconds.
    clip_secs: f64,
    /// Seconds from the start of one clip to the start of the next.
    stride_secs: f64,
    /// Its manifest.
    #[schema(value_type = Object)]
    manifest: serde_json::Value,
}

impl From<ModelEntry> for ModelView {
    fn from(entry: ModelEntry) -> Self {
        let embedder = entry.library.embedder();
        let bundle = embedder.bundle();
        let modalities = [Modality::Text, Modality::Image, Modality::Audio, Modality::Video];
        let spaces = bundle.spaces().iter().map(|(space, dim)| SpaceView {
            name: space.clone(),
            dim: *dim,
            members: modalities.into_iter().filter(|modality| bundle.has(*modality, space)).collect(),
        });
        let towers = bundle.towers().map(|tower| TowerView {
            name: tower.name.to_owned(),
            modality: tower.modality,
            precision: tower.precision.map(str::to_owned),
            spaces: tower.spaces,
        });
        let spec = bundle.clip_spec(embedder.stride_secs);
        Self {
            object: "model",
            id: bundle.name().to_owned(),
            digest: bundle.id().clone(),
            role: entry.role,
            progress: entry.progress,
            promote_when_ready: entry.promote,
            error: entry.error,
            device: embedder.towers.device_name(),
            description: bundle.description().to_owned(),
            license: bundle.license().to_owned(),
            sources: bundle.sources().iter().map(SourceView::from).collect(),
            languages: bundle.languages().into_iter().map(str::to_owned).collect(),
            vocabulary_words: embedder.towers.vocabulary_len(),
            samples: bundle.samples(),
            towers: towers.collect(),
            spaces: spaces.collect(),
            clip_secs: spec.window_secs(),
            stride_secs: spec.stride_secs,
            manifest: bundle.manifest_json().clone(),
        }
    }
}

/// A bundle to load.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadBody {
    /// Absolute path of a bundle in an allowed model folder (--model-root).
    #[schema(value_type = String)]
    path: PathBuf,
    /// Make it the serving model once it has embedded all assets; default false.
    #[serde(default)]
    promote_when_ready: bool,
}

/// Query string of unloading.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UnloadQuery {
    /// Keep the model's vectors on disk for the next time it is loaded; default false.
    #[serde(default)]
    keep_vectors: bool,
}

/// The name or digest in the path.
pub struct ModelPath(String);

impl<S: Send + Sync> FromRequestParts<S> for ModelPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(model)| Self(model))
            .map_err(|_| ApiError::invalid("id", "the name in the path is not valid UTF-8"))
    }
}

/// Lists the loaded models, the serving model first.
#[utoipa::path(get, path = "/v1/models", operation_id = "list_models", tag = "models",
    responses((status = 200, description = "The loaded models", body = List<ModelView>)))]
pub async fn list(State(state): State<AppState>) -> Json<List<ModelView>> {
    Json(List::new(state.models.list().into_iter().map(ModelView::from).collect(), None))
}

/// Loads an additional model.
///
/// The model embeds all assets from their stored files and keeps up with additions and deletions. Requests select it
/// by name. With `promote_when_ready`, it becomes the serving model once it has embedded all assets.
#[utoipa::path(post, path = "/v1/models", operation_id = "load_model",
    tag = "models", request_body = LoadBody,
    responses((status = 202, description = "Loaded and embedding assets; see the Location header", body = ModelView),
        ClientError))]
pub async fn load(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<LoadBody>,
) -> Result<Response, ApiError> {
    let loaded = state.models.load(&body.path, body.promote_when_ready).await;
    let loaded = loaded.map_err(|error| match error {
        // An invalid bundle is the client's fault; the code gives the reason.
        LibraryError::Embed(_) => {
            let message = format!("{error}{}", advice(&error));
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error.code(), message).with_param("path")
        }
        error => error.into(),
    })?;
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, "/v1/models")], Json(ModelView::from(loaded)))
        .into_response())
}

/// Makes an additional model the serving model.
///
/// Searches continue, each with the model it started with. Requests that change something get status 503 during the
/// switch. The previous model is unloaded; its vectors stay on disk.
#[utoipa::path(post, path = "/v1/models/{id}/promote", operation_id = "promote_model",
    tag = "models", params(("id" = String, Path)),
    responses((status = 200, description = "The model is serving", body = ModelView),
        (status = 409, description = "The model has not embedded all assets yet", body = ErrorBody),
        ClientError))]
pub async fn promote(
    State(state): State<AppState>,
    ModelPath(model): ModelPath,
) -> Result<Json<ModelView>, ApiError> {
    state.models.promote(&model).await?;
    let serving = state.models.list().into_iter().next();
    let gone = || ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR);
    serving.map(|entry| Json(ModelView::from(entry))).ok_or_else(gone)
}

/// Unloads an additional model and deletes its vectors.
#[utoipa::path(delete, path = "/v1/models/{id}", operation_id = "unload_model",
    tag = "models", params(("id" = String, Path), UnloadQuery),
    responses((status = 204, description = "Unloaded"), (status = 409, description = "The model is serving", body = ErrorBody),
        ClientError))]
pub async fn unload(
    State(state): State<AppState>,
    ModelPath(model): ModelPath,
    ApiQuery(query): ApiQuery<UnloadQuery>,
) -> Result<StatusCode, ApiError> {
    state.models.unload(&model, query.keep_vectors).await?;
    Ok(StatusCode::NO_CONTENT)
}
