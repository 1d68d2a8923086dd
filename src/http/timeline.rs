//! How well every clip of one asset answers a query.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{ApiError, ErrorBody};
use super::extract::{ApiQuery, IdPath};
use super::middleware::Timing;
use super::query::{self, QueryInput};
use super::search::{SearchBody, SearchForm, known_space, receive};
use super::state::AppState;
use crate::search::{Fuse, SearchRequest, Timeline};
use crate::types::{AssetId, Space, TimeSpan, Track};

/// Query string of a timeline.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TimelineQuery {
    /// Words to look for.
    q: String,
    /// Tracks to look at: video (default), audio, or both with a comma between.
    targets: Option<String>,
    /// How two tracks make one score.
    #[serde(default)]
    #[param(inline)]
    fuse: Fuse,
    /// Space to compare in; default: the finest that all sides share.
    space: Option<String>,
    /// Name or digest of a model; default: the one that serves.
    model: Option<String>,
}

/// One clip, scored.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScoredClip {
    /// When.
    #[serde(flatten)]
    span: TimeSpan,
    /// Cosine, -1 to 1.
    score: f32,
    /// Share of queries about something that is not in the library whose best answer scores less.
    confidence: Option<f32>,
    /// Track that matched best.
    matched: Track,
    /// Cosine of its own sound and picture; null where it lacks one of them.
    agreement: Option<f32>,
}

/// Neighbouring clips that answer together.
#[derive(Debug, Serialize, ToSchema)]
pub struct MomentView {
    /// From when to when.
    #[serde(flatten)]
    span: TimeSpan,
    /// Middle of its best clip.
    peak_secs: f64,
    /// Score of its best clip.
    score: f32,
    /// Confidence of its best clip.
    confidence: Option<f32>,
}

/// Every clip of an asset, scored.
#[derive(Debug, Serialize, ToSchema)]
pub struct TimelineView {
    /// Always `timeline`.
    object: &'static str,
    /// Asset.
    asset_id: AssetId,
    /// Space of the scores.
    space: Space,
    /// Name of the model.
    model: String,
    /// What clips from all over the library score for this query, their median; null for an empty library.
    usual_score: Option<f32>,
    /// Clips in the order of time.
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
    };
    let moment = |moment: crate::search::TimelineMoment| MomentView {
        span: moment.span,
        peak_secs: moment.peak_secs,
        score: moment.score,
        confidence: moment.confidence,
    };
    TimelineView {
        object: "timeline",
        asset_id,
        space: timeline.space,
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
    let track = |name: &str| match name.trim() {
        "video" => Ok(Track::Video),
        "audio" => Ok(Track::Audio),
        _ => Err(ApiError::invalid("targets", "`targets` must be video, audio or video,audio")),
    };
    names.unwrap_or("video").split(',').map(track).collect()
}

/// Scores every clip of an asset for a text.
#[utoipa::path(get, path = "/v1/assets/{id}/timeline", operation_id = "get_asset_timeline",
    tag = "search", params(("id" = AssetId, Path), TimelineQuery),
    responses((status = 200, description = "Every clip, scored", body = TimelineView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn by_text(
    State(state): State<AppState>,
    IdPath(id): IdPath<AssetId>,
    ApiQuery(asked): ApiQuery<TimelineQuery>,
) -> Result<Response, ApiError> {
    let state = state.of_model(asked.model.as_deref())?;
    state.library.store().asset(id).await?;
    let targets = targets_of(asked.targets.as_deref())?;
    let space = known_space(&state, asked.space.as_deref())?;
    let embedded =
        query::embed(&state, QueryInput::Words(asked.q)).await.map_err(|error| error.with_param("q"))?;
    let request = SearchRequest { targets, fuse: asked.fuse, space, ..SearchRequest::new(embedded.parts) };
    answer(&state, id, request, embedded.timing).await
}

/// Scores every clip of an asset for any query; of the search, `query`, `targets`, `fuse` and `space` count.
#[utoipa::path(post, path = "/v1/assets/{id}/timeline", operation_id = "query_asset_timeline",
    tag = "search", params(("id" = AssetId, Path)),
    request_body(content((SearchBody = "application/json"), (SearchForm = "multipart/form-data"))),
    responses((status = 200, description = "Every clip, scored", body = TimelineView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn by_query(
    State(state): State<AppState>,
    IdPath(id): IdPath<AssetId>,
    request: Request,
) -> Result<Response, ApiError> {
    state.library.store().asset(id).await?;
    let (state, request, timing) = receive(state, request).await?;
    answer(&state, id, request, timing).await
}
