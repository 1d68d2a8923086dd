//! Standing queries: create, show, change, delete; their matches.

pub mod webhooks;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::catalog::Filter;
use crate::collection::ask::{AskOptions, check_minimum};
use crate::http_intake::extract::{ApiJson, ApiQuery, IdPath};
use crate::http_intake::form;
use crate::http_intake::query::stored;
use crate::http_intake::query::{self, QueryInput};
use crate::http_intake::spaces::known_space;
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::http_kit::finish;
use crate::http_kit::metadata::checked_metadata;
use crate::http_kit::page::{DEFAULT_ENTRIES, PageSize};
use crate::http_kit::views::{AssetError, List, content_url};
use crate::http_kit::webhook::WebhookBody;
use crate::http_kit::webhook::WebhookView;
use crate::library::{NewStandingQuery, StandingPatch, StandingQuery, Webhook};
use crate::search::{Fuse, MATCHES_FROM, Minimum};
use crate::store::{MatchRecord, MatchedMoment};
use crate::types::{AssetId, MatchId, Space, StandingId, Track, rfc3339_millis};

/// A standing query to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StandingBody {
    /// Display name.
    name: Option<String>,
    /// What to search for, as in a search.
    query: QueryInput,
    /// Tracks to search; default: video.
    #[serde(default = "video_only")]
    #[schema(min_items = 1)]
    targets: Vec<Track>,
    /// How the scores of two tracks are combined.
    #[serde(default)]
    fuse: Fuse,
    /// Which assets and clips can match.
    #[serde(default)]
    filter: Filter,
    /// Embedding space to compare in; default: the finest space that the query and the tracks share.
    space: Option<String>,
    /// Minimum confidence of a match, 0 to 1; default 0.9.
    /// Nothing matches while the library is too small to compute a confidence.
    #[schema(minimum = 0, maximum = 1)]
    min_confidence: Option<f32>,
    /// Minimum score of a match, -1 to 1, instead of a minimum confidence. Needs one space for all targets.
    #[schema(minimum = -1, maximum = 1)]
    min_score: Option<f32>,
    /// Webhook for matches: `query.matched`.
    webhook: Option<WebhookBody>,
    /// Any JSON object, sent with each match.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// Whether it is enabled; default true.
    enabled: Option<bool>,
    /// Also match the assets already in the library; default false.
    #[serde(default)]
    backfill: bool,
}

fn video_only() -> Vec<Track> {
    vec![Track::Video]
}

/// Changes to a standing query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StandingChanges {
    /// New name.
    name: Option<String>,
    /// False pauses the query: it never matches assets that become searchable while it is paused.
    enabled: Option<bool>,
    /// Minimum confidence of a match, 0 to 1, instead of a minimum score.
    #[schema(minimum = 0, maximum = 1)]
    min_confidence: Option<f32>,
    /// Minimum score of a match, -1 to 1, instead of a minimum confidence.
    #[schema(minimum = -1, maximum = 1)]
    min_score: Option<f32>,
    /// Also match the assets already in the library; earlier matches are kept.
    #[serde(default)]
    backfill: bool,
}

/// A standing query.
#[derive(Serialize, ToSchema)]
pub struct StandingView {
    /// Always `standing_query`.
    object: &'static str,
    /// Id.
    id: StandingId,
    /// Display name.
    name: Option<String>,
    /// Parts of the query; for media, their type and size.
    #[schema(value_type = Vec<Object>)]
    query: Value,
    /// Tracks to match.
    targets: Vec<Track>,
    /// How the scores of two tracks are combined.
    fuse: Fuse,
    /// Which assets and clips can match.
    filter: Filter,
    /// Embedding space of its scores; of several, that of the first target; null if the serving model cannot run it.
    space: Option<Space>,
    /// Minimum confidence of a match; null if `min_score` is used.
    #[schema(minimum = 0, maximum = 1)]
    min_confidence: Option<f32>,
    /// Minimum score of a match; null if `min_confidence` is used.
    #[schema(minimum = -1, maximum = 1)]
    min_score: Option<f32>,
    /// False while the query needs a confidence but the library is too small to compute one; it then matches nothing.
    can_match: bool,
    /// Whether it is enabled.
    enabled: bool,
    /// Why the serving model cannot run it; null if it can.
    error: Option<AssetError>,
    /// Webhook for matches.
    webhook: Option<WebhookView>,
    /// Your JSON object.
    #[schema(value_type = Object)]
    metadata: Value,
    /// Number of matched assets that still exist.
    match_count: u64,
    /// RFC 3339, UTC.
    created_at: String,
    /// RFC 3339, UTC.
    updated_at: String,
}

impl StandingView {
    fn new(query: StandingQuery, made: Option<Webhook>) -> Self {
        let StandingQuery { record, spec, space, is_calibrated } = query;
        let kept = record.webhook_url.map(|url| WebhookView { url, secret: None });
        Self {
            object: "standing_query",
            id: record.id,
            name: record.name,
            query: spec.query,
            targets: spec.targets,
            fuse: spec.fuse,
            filter: spec.filter,
            space,
            min_confidence: spec.min_confidence,
            min_score: spec.min_score,
            can_match: is_calibrated,
            enabled: record.enabled,
            error: record.error.map(AssetError::from),
            webhook: made.map(WebhookView::from).or(kept),
            metadata: spec.metadata,
            match_count: record.matches,
            created_at: rfc3339_millis(record.created_unix_ms),
            updated_at: rfc3339_millis(record.updated_unix_ms),
        }
    }
}

/// An asset that matched.
#[derive(Debug, Serialize, ToSchema)]
pub struct MatchView {
    /// Always `match`.
    object: &'static str,
    /// Id, also sent to the webhook.
    id: MatchId,
    /// Id of the asset.
    asset_id: AssetId,
    /// Name.
    asset_name: String,
    /// The best moment.
    #[serde(flatten)]
    best: Option<MatchedMoment>,
    /// Embedding space of the scores.
    space: Space,
    /// All matching moments, best first.
    moments: Vec<MatchedMoment>,
    /// The file.
    content_url: String,
    /// Time of the match: RFC 3339, UTC.
    matched_at: String,
}

impl From<MatchRecord> for MatchView {
    fn from(record: MatchRecord) -> Self {
        Self {
            object: "match",
            id: record.id,
            asset_id: record.asset,
            asset_name: record.asset_name,
            best: record.moments.first().cloned(),
            space: record.space,
            moments: record.moments,
            content_url: content_url(record.asset),
            matched_at: rfc3339_millis(record.matched_unix_ms),
        }
    }
}

/// Threshold of a match; `None` if the request sets none.
fn minimum_of(confidence: Option<f32>, score: Option<f32>) -> Result<Option<Minimum>, ApiError> {
    let minimum = match (confidence, score) {
        (Some(_), Some(_)) => {
            let message = "send either `min_confidence` or `min_score`, not both";
            return Err(ApiError::invalid("min_score", message));
        }
        (confidence, score) => confidence.map(Minimum::Confidence).or(score.map(Minimum::Score)),
    };
    minimum.map_or(Ok(()), check_minimum)?;
    Ok(minimum)
}

/// Creates a standing query. Each asset that becomes searchable from now on is compared with it.
#[utoipa::path(post, path = "/v1/standing-queries", operation_id = "create_standing_query",
    tag = "standing", request_body = StandingBody,
    responses((status = 201, description = "Created, with the webhook's secret if the server generated one", body = StandingView),
        ClientError))]
pub async fn create(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<StandingBody>,
) -> Result<Response, ApiError> {
    let minimum =
        minimum_of(body.min_confidence, body.min_score)?.unwrap_or(Minimum::Confidence(MATCHES_FROM));
    let options = AskOptions {
        targets: body.targets,
        fuse: body.fuse,
        space: known_space(&state, body.space.as_deref())?,
        filter: body.filter,
        minimum: Some(minimum),
        ..AskOptions::default()
    };
    let metadata = checked_metadata(body.metadata.unwrap_or(Value::Null))?;
    let parts = query::parts_of(body.query)?;
    let options = options.checked(&query::weights(&parts))?;
    let parts = stored::stored_parts(parts).await?;
    let new = NewStandingQuery {
        name: body.name.map(|name| form::shown_name(&name)),
        parts,
        options,
        webhook: body.webhook.map(Into::into),
        metadata,
        enabled: body.enabled.unwrap_or(true),
        backfill: body.backfill,
    };
    let library = state.library.clone();
    // The time limit ends the wait, not a change in progress.
    let created = finish::to_the_end(async move { library.standing().create(new).await });
    let (query, made) = query::within(&state, created).await???;
    let location = format!("/v1/standing-queries/{}", query.record.id);
    let view = StandingView::new(query, made);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// Query string of the list of standing queries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StandingPage {
    /// Maximum number of standing queries per page, 1 to 1000; default 50.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Return entries after this id: the `next` of the previous page.
    after: Option<StandingId>,
}

/// Lists standing queries, newest first.
#[utoipa::path(get, path = "/v1/standing-queries", operation_id = "list_standing_queries",
    tag = "standing", params(StandingPage),
    responses((status = 200, description = "One page of results", body = List<StandingView>),
        ClientError))]
pub async fn list(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<StandingPage>,
) -> Result<Json<List<StandingView>>, ApiError> {
    let size = PageSize::of(query.limit, DEFAULT_ENTRIES)?;
    let read = state.library.standing().list(query.after, size.to_read()).await?;
    Ok(Json(size.cut(read, |query| query.record.id).show(|query| StandingView::new(query, None))))
}

/// Returns a standing query.
#[utoipa::path(get, path = "/v1/standing-queries/{id}", operation_id = "get_standing_query",
    tag = "standing", params(("id" = StandingId, Path)),
    responses((status = 200, description = "The standing query", body = StandingView),
        ClientError))]
pub async fn get(
    State(state): State<AppState>,
    IdPath(id): IdPath<StandingId>,
) -> Result<Json<StandingView>, ApiError> {
    Ok(Json(StandingView::new(state.library.standing().find(id).await?, None)))
}

/// Pauses or enables a standing query, or changes its name or threshold.
#[utoipa::path(patch, path = "/v1/standing-queries/{id}", operation_id = "change_standing_query",
    tag = "standing", params(("id" = StandingId, Path)),
    request_body = StandingChanges,
    responses((status = 200, description = "The updated standing query", body = StandingView),
        ClientError))]
pub async fn change(
    State(state): State<AppState>,
    IdPath(id): IdPath<StandingId>,
    ApiJson(body): ApiJson<StandingChanges>,
) -> Result<Json<StandingView>, ApiError> {
    let patch = StandingPatch {
        name: body.name.map(|name| form::shown_name(&name)),
        enabled: body.enabled,
        minimum: minimum_of(body.min_confidence, body.min_score)?,
        backfill: body.backfill,
    };
    let query = state.library.standing().update(id, patch).await?;
    Ok(Json(StandingView::new(query, None)))
}

/// Deletes a standing query, its matches and their pending webhooks.
#[utoipa::path(delete, path = "/v1/standing-queries/{id}", operation_id = "delete_standing_query",
    tag = "standing", params(("id" = StandingId, Path)),
    responses((status = 204, description = "Deleted"), ClientError))]
pub async fn delete(
    State(state): State<AppState>,
    IdPath(id): IdPath<StandingId>,
) -> Result<StatusCode, ApiError> {
    state.library.standing().delete(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Query string of the matches of a standing query.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MatchPage {
    /// Maximum number of matches per page, 1 to 1000; default 50.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Return entries after this id: the `next` of the previous page.
    after: Option<MatchId>,
}

/// Lists the assets that a standing query matched, newest first.
#[utoipa::path(get, path = "/v1/standing-queries/{id}/matches", operation_id = "list_standing_query_matches",
    tag = "standing",
    params(("id" = StandingId, Path), MatchPage),
    responses((status = 200, description = "One page of results", body = List<MatchView>),
        ClientError))]
pub async fn matches(
    State(state): State<AppState>,
    IdPath(id): IdPath<StandingId>,
    ApiQuery(query): ApiQuery<MatchPage>,
) -> Result<Json<List<MatchView>>, ApiError> {
    let size = PageSize::of(query.limit, DEFAULT_ENTRIES)?;
    let read = state.library.standing().matches(id, query.after, size.to_read()).await?;
    Ok(Json(size.cut(read, |found| found.id).show(MatchView::from)))
}
