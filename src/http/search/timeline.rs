//! How well every clip of one asset answers a query.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Received, SearchBody, SearchForm, receive};
use crate::collection::ask::{AskOptions, AskPart};
use crate::http_intake::extract::{ApiQuery, IdPath};
use crate::http_intake::middleware::Timing;
use crate::http_intake::query::{self, Parts};
use crate::http_intake::spaces::known_space;
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::search::{Fuse, SearchRequest, Timeline};
use crate::types::{AssetId, Space, TimeSpan, Track};

/// Query string of a timeline.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TimelineQuery {
    /// Text to search for.
    q: String,
    /// Tracks to score: `video` (the default), `audio` or `video,audio`.
    targets: Option<String>,
    /// How the scores of two tracks are combined.
    #[serde(default)]
    #[param(inline)]
    fuse: Fuse,
    /// Embedding space to compare in; default: the finest space that the query and the tracks share.
    space: Option<String>,
    /// Name or digest of a loaded model; default: the serving model.
    model: Option<String>,
}

/// A clip and its score.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScoredClip {
    /// Time span.
    #[serde(flatten)]
    span: TimeSpan,
    /// Cosine similarity from -1 to 1.
    score: f32,
    /// Confidence from 0 to 1: the share of unrelated queries whose best hit scores lower; null when unknown.
    confidence: Option<f32>,
    /// Track with the best score.
    matched: Track,
    /// Cosine similarity between the audio and video of the clip; null unless it has both.
    agreement: Option<f32>,
    /// Embedding space of the score.
    space: Space,
}

/// Neighbouring clips that match, merged into one moment.
#[derive(Debug, Serialize, ToSchema)]
pub struct MomentView {
    /// Time span.
    #[serde(flatten)]
    span: TimeSpan,
    /// Middle of its best clip, in seconds.
    peak_secs: f64,
    /// Score of its best clip.
    score: f32,
    /// Confidence of its best clip.
    confidence: Option<f32>,
    /// Embedding space of the score.
    space: Space,
}

/// Scores of all clips of an asset.
#[derive(Debug, Serialize, ToSchema)]
pub struct TimelineView {
    /// Always `timeline`.
    object: &'static str,
    /// Id of the asset.
    asset_id: AssetId,
    /// Embedding space of the scores; of several, that of the first target.
    space: Space,
    /// Embedding spaces of the scores; each clip and moment names its own.
    spaces: Vec<Space>,
    /// Name of the model.
    model: String,
    /// Median score in `space` of a sample of clips from the whole library for this query; null if the library is
    /// empty.
    usual_score: Option<f32>,
    /// Clips in time order.
    data: Vec<ScoredClip>,
    /// Moments, best first.
    moments: Vec<MomentView>,
}

fn view(state: &AppState, asset_id: AssetId, timeline: Timeline) -> TimelineView {
    let clip = |clip: crate::search::TimelineClip| ScoredClip {
        span: clip.span,
        score: clip.score,
        confidence: clip.confidence,
        matched: clip.matched,
        agreement: clip.agreement,
        space: clip.space,
    };
    let moment = |moment: crate::search::TimelineMoment| MomentView {
        span: moment.span,
        peak_secs: moment.peak_secs,
        score: moment.score,
        confidence: moment.confidence,
        space: moment.space,
    };
    TimelineView {
        object: "timeline",
        asset_id,
        space: timeline.space,
        spaces: timeline.spaces,
        model: state.library.embedder().bundle().name().to_owned(),
        usual_score: timeline.usual_score,
        data: timeline.clips.into_iter().map(clip).collect(),
        moments: timeline.moments.into_iter().map(moment).collect(),
    }
}

async fn answer(
    state: &AppState,
    asset: AssetId,
    request: SearchRequest,
    timing: Timing,
) -> Result<Response, ApiError> {
    let timeline = query::within(state, state.library.timeline(request, asset)).await??;
    let mut response = Json(view(state, asset, timeline)).into_response();
    response.extensions_mut().insert(timing);
    Ok(response)
}

fn targets_of(names: Option<&str>) -> Result<Vec<Track>, ApiError> {
    let wrong = |_| ApiError::invalid("targets", "`targets` must be video, audio or video,audio");
    let track = |name: &str| name.trim().parse::<Track>().map_err(wrong);
    names.unwrap_or("video").split(',').map(track).collect()
}

/// Scores each clip of an asset against a text.
#[utoipa::path(get, path = "/v1/assets/{id}/timeline", operation_id = "get_asset_timeline",
    tag = "search", params(("id" = AssetId, Path), TimelineQuery),
    responses((status = 200, description = "The score of each clip", body = TimelineView),
        ClientError))]
pub async fn by_text(
    State(state): State<AppState>,
    IdPath(id): IdPath<AssetId>,
    ApiQuery(params): ApiQuery<TimelineQuery>,
) -> Result<Response, ApiError> {
    let state = state.of_model(params.model.as_deref())?;
    state.library.collection().asset(id).await?;
    let targets = targets_of(params.targets.as_deref())?;
    let space = known_space(&state, params.space.as_deref())?;
    let mut parts = Parts::default();
    parts.parts.push(AskPart::text(params.q, "q"));
    let options = AskOptions { targets, fuse: params.fuse, space, ..AskOptions::default() };
    let (request, timing) = parts.embed(&state, options).await?;
    answer(&state, id, request, timing).await
}

/// Scores each clip of an asset against any query. Only `query`, `targets`, `fuse` and `space` of the search are
/// used.
#[utoipa::path(post, path = "/v1/assets/{id}/timeline", operation_id = "query_asset_timeline",
    tag = "search", params(("id" = AssetId, Path)),
    request_body(content((SearchBody = "application/json"), (SearchForm = "multipart/form-data"))),
    responses((status = 200, description = "The score of each clip", body = TimelineView),
        ClientError))]
pub async fn by_query(
    State(state): State<AppState>,
    IdPath(id): IdPath<AssetId>,
    request: Request,
) -> Result<Response, ApiError> {
    state.library.collection().asset(id).await?;
    let Received { state, request, timing } = receive(state, request).await?;
    answer(&state, id, request, timing).await
}
