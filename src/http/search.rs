//! Finding moments.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{ApiError, ErrorBody};
use super::extract::{ApiJson, content_type, parse_json, unsupported};
use super::form::{self, FileRule};
use super::middleware::Timing;
use super::query::{self, Embedded, QueryInput};
use super::state::AppState;
use super::views::content_url;
use crate::catalog::Filter;
use crate::index::SearchParams;
use crate::library::LibraryError;
use crate::search::{Fuse, GroupBy, Hit, HubCorrection, MAX_LIMIT, MAX_OFFSET, SearchError, SearchRequest};
use crate::store::Damage;
use crate::types::{AssetId, AssetKind, Modality, Space, TimeSpan, Track};

/// Broadest graph search.
const MAX_EF: usize = 10_000;

/// A search.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchBody {
    /// What to look for; in a form, further parts beside the file.
    query: Option<QueryInput>,
    /// Tracks to look at.
    #[serde(default = "video_only")]
    #[schema(min_items = 1)]
    targets: Vec<Track>,
    /// How two tracks make one score.
    #[serde(default)]
    fuse: Fuse,
    /// Where to look.
    #[serde(default)]
    filter: Filter,
    /// What one hit stands for.
    #[serde(default)]
    group_by: GroupBy,
    /// Hits, 1 to 1000; default 10.
    #[schema(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Hits to skip, at most 1000; default 0.
    #[schema(maximum = 1000)]
    offset: Option<usize>,
    /// Space to compare in; default: the finest that both sides share.
    space: Option<String>,
    /// Leaves out hits that are less sure, 0 to 1; default: none.
    #[schema(minimum = 0, maximum = 1)]
    min_confidence: Option<f32>,
    /// How to search.
    #[serde(default)]
    params: ParamsBody,
    /// Name of the model that is expected to answer.
    model: Option<String>,
}

fn video_only() -> Vec<Track> {
    vec![Track::Video]
}

/// How to search.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ParamsBody {
    /// Breadth of the graph search; more finds more and takes longer.
    ef: Option<usize>,
    /// Compare with every clip.
    #[serde(default)]
    exact: bool,
    /// Share of the true neighbours a graph search must have found when it was measured, above 0 and
    /// at most 1; the breadth follows from it.
    recall_target: Option<f32>,
    /// `dis`: where the best hit is one that comes first for many queries, the first 200 are ranked by
    /// how much more this query says of them than others do (dynamic inverted softmax). Scores stay cosines.
    #[serde(default)]
    hub_correction: HubCorrection,
}

/// A search with a file.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the multipart form")]
pub struct SearchForm {
    /// A search as JSON; its `query` holds further parts, if any.
    request: Option<String>,
    /// What of the file counts: image, audio or video.
    #[schema(value_type = String)]
    modality: Modality,
    /// The bytes.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    file: String,
    /// First second that counts.
    start_secs: Option<f64>,
    /// Second after the last that counts.
    end_secs: Option<f64>,
    /// How much the file counts, beside other parts; default 1.
    weight: Option<f32>,
    /// Index of the file's picture track to read; default: the server chooses.
    video_track: Option<u16>,
    /// Index of the file's sound track to read.
    audio_track: Option<u16>,
}

/// One moment found.
#[derive(Debug, Serialize, ToSchema)]
pub struct HitView {
    /// From 1.
    rank: usize,
    /// Asset.
    asset_id: AssetId,
    /// Its name.
    asset_name: String,
    /// When.
    #[serde(flatten)]
    span: TimeSpan,
    /// Where it is clearest: the middle of the best clip.
    peak_secs: f64,
    /// Cosine, -1 to 1; of several parts or fused tracks their weighted mean.
    score: f32,
    /// Share of queries about something that is not in the library whose best answer scores less; null
    /// where it cannot be told (several parts, fused tracks, a small or just changed library).
    confidence: Option<f32>,
    /// Space the score was taken in.
    space: Space,
    /// Track that matched best.
    matched: Track,
    /// Cosine of the best clip's own sound and picture; null where it lacks one of them.
    agreement: Option<f32>,
    /// A picture of where it is clearest; null without one.
    thumbnail_url: Option<String>,
    /// The file.
    content_url: String,
    /// The asset's metadata.
    #[schema(value_type = Object)]
    metadata: Arc<serde_json::Value>,
    /// The file, indexed where it lies, is not what was indexed any more: it is `missing`, or has `changed`.
    damage: Option<Damage>,
}

/// Moments, best first.
#[derive(Debug, Serialize, ToSchema)]
pub struct SearchAnswer {
    /// Always `list`.
    object: &'static str,
    /// Space of the scores.
    space: Space,
    /// Name of the model.
    model: String,
    /// Whether nothing deserves an answer: no hit is sure enough (`min_confidence`, or 0.9).
    no_match: bool,
    /// Whether hub correction changed how the best hits are ranked.
    hub_corrected: bool,
    /// Best first.
    data: Vec<HitView>,
}

impl From<Hit> for HitView {
    fn from(hit: Hit) -> Self {
        let pictured = matches!(hit.asset_kind, Some(AssetKind::Video | AssetKind::Image));
        Self {
            rank: hit.rank,
            thumbnail_url: pictured.then(|| {
                let at = (hit.peak_secs * 100.0).round() / 100.0;
                format!("/v1/assets/{}/thumbnail?at={at}", hit.asset_id)
            }),
            content_url: content_url(hit.asset_id),
            asset_id: hit.asset_id,
            asset_name: hit.asset_name,
            span: hit.span,
            peak_secs: hit.peak_secs,
            agreement: hit.agreement,
            score: hit.score,
            confidence: hit.confidence,
            space: hit.space,
            matched: hit.matched,
            metadata: hit.metadata,
            damage: hit.damage,
        }
    }
}

/// Finds the moments that are nearest to a text, a picture, a sound, a video or a stored clip.
#[utoipa::path(post, path = "/v1/search", operation_id = "search", tag = "search",
    request_body(content((SearchBody = "application/json"), (SearchForm = "multipart/form-data"))),
    responses((status = 200, description = "Moments, best first", body = SearchAnswer),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn search(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    let (state, request, timing) = receive(state, request).await?;
    let response = query::within(&state, state.library.search(request)).await??;
    let answer = SearchAnswer {
        object: "list",
        space: response.space,
        model: state.library.embedder().bundle().name().to_owned(),
        no_match: response.no_match,
        hub_corrected: response.hub_corrected,
        data: response.hits.into_iter().map(HitView::from).collect(),
    };
    let mut response = Json(answer).into_response();
    response.extensions_mut().insert(timing);
    Ok(response)
}

/// A search as it comes in, its query embedded by the model that it names.
pub async fn receive(
    state: AppState,
    request: Request,
) -> Result<(AppState, SearchRequest, Timing), ApiError> {
    let (state, body, embedded) = match content_type(request.headers()).as_str() {
        "application/json" => {
            let ApiJson(mut body) = ApiJson::<SearchBody>::from_request(request, &state).await?;
            let state = state.of_model(body.model.as_deref())?;
            check(&body)?;
            let query = body.query.take().ok_or_else(|| {
                let code = axum::http::StatusCode::BAD_REQUEST;
                ApiError::new(code, "missing_field", "missing field `query`").with_param("query")
            })?;
            let embedded = query::embed(&state, query).await?;
            (state, body, embedded)
        }
        "multipart/form-data" => by_form(state, request).await?,
        _ => return Err(unsupported("application/json or multipart/form-data")),
    };
    let timing = embedded.timing;
    let request = to_request(&state, body, embedded)?;
    Ok((state, request, timing))
}

async fn by_form(state: AppState, request: Request) -> Result<(AppState, SearchBody, Embedded), ApiError> {
    let rule = FileRule { max_bytes: state.config.max_body_bytes as u64, durable: false };
    let known = ["request", "modality", "start_secs", "end_secs", "weight", "video_track", "audio_track"];
    let mut form = form::receive(&state, request, &known, rule).await?;
    let mut body: SearchBody =
        parse_json(form.take("request").unwrap_or_else(|| "{}".to_owned()).as_bytes())?;
    let state = state.of_model(body.model.as_deref())?;
    check(&body)?;
    let modality = media_modality(&form.require("modality")?)?;
    let span = query::span_of(form.number("start_secs")?, form.number("end_secs")?, "start_secs")?;
    let weight = form.number("weight")?.map(|weight| weight as f32);
    let tracks = form.choice()?;
    let (upload, _) = form.require_file()?;
    let embedded = query::embed_file(&state, &upload.path, modality, span, tracks).await;
    let mut embedded = embedded.map_err(|error| error.with_param("file"))?.weighted(weight, "weight")?;
    if let Some(query) = body.query.take() {
        embedded.add(query::embed(&state, query).await?);
    }
    Ok((state, body, embedded))
}

/// image, audio or video.
pub fn media_modality(text: &str) -> Result<Modality, ApiError> {
    match text.trim().parse() {
        Ok(Modality::Text) | Err(_) => {
            Err(ApiError::invalid("modality", "`modality` must be image, audio or video"))
        }
        Ok(modality) => Ok(modality),
    }
}

/// Looks at everything cheap before anything is embedded.
fn check(body: &SearchBody) -> Result<(), ApiError> {
    if body.targets.is_empty() {
        return Err(ApiError::invalid("targets", "`targets` must name video, audio or both"));
    }
    if !(1..=MAX_LIMIT).contains(&body.limit.unwrap_or(10)) {
        return Err(ApiError::invalid("limit", format!("`limit` must be from 1 to {MAX_LIMIT}")));
    }
    if body.offset.unwrap_or(0) > MAX_OFFSET {
        return Err(ApiError::invalid("offset", format!("`offset` must be at most {MAX_OFFSET}")));
    }
    if body.params.ef.is_some_and(|ef| !(1..=MAX_EF).contains(&ef)) {
        return Err(ApiError::invalid("params.ef", format!("`ef` must be from 1 to {MAX_EF}")));
    }
    if body.min_confidence.is_some_and(|least| !(0.0..=1.0).contains(&least)) {
        return Err(ApiError::invalid("min_confidence", "`min_confidence` must be from 0 to 1"));
    }
    if body.params.recall_target.is_some_and(|target| !(target > 0.0 && target <= 1.0)) {
        return Err(ApiError::invalid(
            "params.recall_target",
            "`recall_target` must be above 0 and at most 1",
        ));
    }
    body.filter.check().map_err(|error| LibraryError::from(SearchError::from(error)))?;
    Ok(())
}

/// The space of a name, where the model has it.
pub fn known_space(state: &AppState, name: Option<&str>) -> Result<Option<Space>, ApiError> {
    let Some(name) = name else { return Ok(None) };
    let space = Space::new(name);
    if state.library.embedder().bundle().spaces().iter().any(|(known, _)| *known == space) {
        return Ok(Some(space));
    }
    let message = "this model has no space of this name; see /v1/models";
    Err(ApiError::new(axum::http::StatusCode::BAD_REQUEST, "bad_space", message).with_param("space"))
}

fn to_request(state: &AppState, body: SearchBody, embedded: Embedded) -> Result<SearchRequest, ApiError> {
    let space = known_space(state, body.space.as_deref())?;
    // Who asks for an asset by name in the filter wants it, even as an answer to itself.
    let mut exclude_assets = embedded.assets;
    exclude_assets.retain(|id| !body.filter.asset_ids.contains(id));
    Ok(SearchRequest {
        query: embedded.parts,
        targets: body.targets,
        fuse: body.fuse,
        filter: body.filter,
        exclude_assets,
        space,
        group_by: body.group_by,
        offset: body.offset.unwrap_or(0),
        limit: body.limit.unwrap_or(10),
        min_confidence: body.min_confidence,
        hub_correction: body.params.hub_correction,
        params: SearchParams {
            ef: body.params.ef,
            exact: body.params.exact,
            recall_target: body.params.recall_target,
        },
    })
}
