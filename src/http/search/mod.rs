//! Finding moments.

pub mod embeddings;
pub mod evaluations;
pub mod export;
pub mod timeline;
mod vectors;

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::catalog::Filter;
use crate::collection::ask::{self, AskOptions, AskPart, Source};
use crate::http_intake::extract::ApiJson;
use crate::http_intake::form::{self, FileRule};
use crate::http_intake::middleware::Timing;
use crate::http_intake::query::{self, Parts, QueryInput};
use crate::http_intake::spaces::known_space;
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::http_kit::json::parse_json;
use crate::http_kit::media_type::{content_type, unsupported};
use crate::http_kit::views::content_url;
use crate::index::SearchParams;
use crate::search::{Fuse, FusedBy, GroupBy, Hit, HubCorrection, Minimum, SearchRequest, SearchResponse};
use crate::store::Damage;
use crate::types::{AssetId, AssetKind, Modality, Space, TimeSpan, Track};

/// A search.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchBody {
    /// What to search for; in a form, additional parts besides the file.
    query: Option<QueryInput>,
    /// Tracks to search; default: video.
    #[serde(default = "video_only")]
    #[schema(min_items = 1)]
    targets: Vec<Track>,
    /// How the scores of two tracks are combined.
    #[serde(default)]
    fuse: Fuse,
    /// Which assets and clips to search.
    #[serde(default)]
    filter: Filter,
    /// What each hit represents.
    #[serde(default)]
    group_by: GroupBy,
    /// Maximum number of hits, 1 to 1000; default 10.
    #[schema(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Number of hits to skip, at most 1000; default 0.
    #[schema(maximum = 1000)]
    offset: Option<usize>,
    /// Embedding space to compare in; default: the finest space that the query and the tracks share.
    space: Option<String>,
    /// Minimum confidence of a hit, 0 to 1; default: no minimum. Several parts, and tracks with `fuse: mean`, have the
    /// weighted mean of their confidences by log odds. Nothing reaches it before confidence is calibrated.
    #[schema(minimum = 0, maximum = 1)]
    min_confidence: Option<f32>,
    /// Search options.
    #[serde(default)]
    params: ParamsBody,
    /// Name or digest of a loaded model; default: the serving model.
    model: Option<String>,
}

fn video_only() -> Vec<Track> {
    vec![Track::Video]
}

/// Search options.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ParamsBody {
    /// Breadth of the graph search, at least 1; higher values find more and take longer.
    ef: Option<usize>,
    /// Compare with every clip instead of using the approximate index; default false.
    #[serde(default)]
    exact: bool,
    /// Target recall of the graph search, above 0 and at most 1; sets the breadth from measured recall.
    recall_target: Option<f32>,
    /// `dis` applies dynamic inverted softmax: if the best hit ranks first for many queries, the first 200 hits are
    /// ranked by how much better this query matches them than other queries do. Scores stay cosine similarities.
    #[serde(default)]
    hub_correction: HubCorrection,
}

/// Form for a search with a file.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the multipart form")]
pub struct SearchForm {
    /// Search as JSON; its `query` may hold additional parts.
    request: Option<String>,
    /// How to read the file: `image`, `audio` or `video`.
    #[schema(value_type = String)]
    modality: Modality,
    /// The file's contents.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    file: String,
    /// Start of the part of the file to use, in seconds; default: the beginning.
    start_secs: Option<f64>,
    /// End of the part of the file to use, in seconds; default: the end.
    end_secs: Option<f64>,
    /// Weight of the file relative to the other parts; default 1.
    weight: Option<f32>,
    /// Index of the file's video track to read; default: chosen by the server.
    video_track: Option<u16>,
    /// Index of the file's audio track to read; default: chosen by the server.
    audio_track: Option<u16>,
}

/// One moment found.
#[derive(Debug, Serialize, ToSchema)]
pub struct HitView {
    /// Rank, counted from 1.
    rank: usize,
    /// Id of the asset.
    asset_id: AssetId,
    /// Name.
    asset_name: String,
    /// Time span.
    #[serde(flatten)]
    span: TimeSpan,
    /// Middle of the best clip, in seconds.
    peak_secs: f64,
    /// Cosine similarity from -1 to 1; with several query parts or fused tracks, their weighted mean.
    score: f32,
    /// Confidence from 0 to 1: the share of unrelated queries whose best hit scores lower. Null while unknown, for
    /// example because the library is small or has just changed.
    confidence: Option<f32>,
    /// Embedding space of the score.
    space: Space,
    /// Track with the best score.
    matched: Track,
    /// Cosine similarity between the audio and video of the best clip; null unless it has both.
    agreement: Option<f32>,
    /// Path of a thumbnail at `peak_secs`; null if the asset has no picture.
    thumbnail_url: Option<String>,
    /// The file.
    content_url: String,
    /// The asset's metadata.
    #[schema(value_type = Object)]
    metadata: Arc<serde_json::Value>,
    /// Set if the file, which was indexed by path, is `missing` or has `changed` since; otherwise null.
    damage: Option<Damage>,
}

/// Moments, best first.
#[derive(Debug, Serialize, ToSchema)]
pub struct SearchAnswer {
    /// Always `list`.
    object: &'static str,
    /// Embedding space of the scores; of several, that of the first target.
    space: Space,
    /// Name of the model.
    model: String,
    /// True if no hit reaches `min_confidence`, or 0.9 by default: the library probably has no match.
    no_match: bool,
    /// Spaces that were searched. More than one if no single space serves all targets; each hit names its own.
    spaces: Vec<Space>,
    /// How hits of several spaces were ranked together; null if there was one space.
    fused_by: Option<FusedBy>,
    /// Words of the query that the model does not know and left out; the hits answer the rest.
    ignored_words: Vec<String>,
    /// Whether hub correction changed the ranking of the best hits.
    hub_corrected: bool,
    /// Hits, best first.
    data: Vec<HitView>,
}

impl SearchAnswer {
    /// The answer of a model.
    pub fn new(response: SearchResponse, model: &str) -> Self {
        Self {
            object: "list",
            space: response.space,
            model: model.to_owned(),
            no_match: response.no_match,
            spaces: response.spaces,
            fused_by: response.fused_by,
            ignored_words: response.ignored_words,
            hub_corrected: response.hub_corrected,
            data: response.hits.into_iter().map(HitView::from).collect(),
        }
    }
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

/// Finds the moments most similar to a text, image, sound, video or stored clip.
#[utoipa::path(post, path = "/v1/search", operation_id = "search", tag = "search",
    request_body(content((SearchBody = "application/json"), (SearchForm = "multipart/form-data"))),
    responses((status = 200, description = "The moments found, best first", body = SearchAnswer),
        ClientError))]
pub async fn search(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    let Received { state, request, timing } = receive(state, request).await?;
    let response = query::within(&state, state.library.search(request)).await??;
    let answer = SearchAnswer::new(response, state.library.embedder().bundle().name());
    let mut response = Json(answer).into_response();
    response.extensions_mut().insert(timing);
    Ok(response)
}

/// A search that was received, its query embedded.
pub struct Received {
    /// The state with the library of the model that it names.
    pub state: AppState,
    /// What to search for.
    pub request: SearchRequest,
    /// Where the time went so far.
    pub timing: Timing,
}

/// The search as the client sent it, before anything is embedded.
struct Written {
    state: AppState,
    body: SearchBody,
    parts: Parts,
}

/// Receives a search, and embeds its query with the model that it names.
pub async fn receive(state: AppState, request: Request) -> Result<Received, ApiError> {
    let Written { state, body, parts } = match content_type(request.headers()).as_str() {
        "application/json" => {
            let ApiJson(mut body) = ApiJson::<SearchBody>::from_request(request, &state).await?;
            let state = state.of_model(body.model.as_deref())?;
            let query = body.query.take().ok_or_else(|| {
                let code = axum::http::StatusCode::BAD_REQUEST;
                ApiError::new(code, "missing_field", "missing field `query`").with_param("query")
            })?;
            let query = query::parts_of(query)?;
            body.options(&state)?.checked(&query::weights(&query))?;
            let mut parts = Parts::default();
            parts.add(&state, query).await?;
            Written { state, body, parts }
        }
        "multipart/form-data" => by_form(state, request).await?,
        _ => return Err(unsupported("application/json or multipart/form-data")),
    };
    let options = body.options(&state)?;
    let (request, timing) = parts.embed(&state, options).await?;
    Ok(Received { state, request, timing })
}

async fn by_form(state: AppState, request: Request) -> Result<Written, ApiError> {
    let rule = FileRule { max_bytes: state.config.max_body_bytes as u64, durable: false };
    let known = ["request", "modality", "start_secs", "end_secs", "weight", "video_track", "audio_track"];
    let mut form = form::receive(&state, request, &known, rule).await?;
    let mut body: SearchBody =
        parse_json(form.take("request").unwrap_or_else(|| "{}".to_owned()).as_bytes())?;
    let state = state.of_model(body.model.as_deref())?;
    let more = body.query.take().map(query::parts_of).transpose()?.unwrap_or_default();
    let modality = media_modality(&form.require("modality")?)?;
    let span = query::span_of(form.number("start_secs")?, form.number("end_secs")?, "start_secs")?;
    let weight = form.number("weight")?.map_or(1.0, |weight| weight as f32);
    let weight = ask::checked_weight(weight, "weight")?;
    body.options(&state)?.checked(&[&[weight], &query::weights(&more)[..]].concat())?;
    let tracks = form.choice()?;
    let (upload, _) = form.require_file()?;
    let source = Source::File { path: upload.path.to_path_buf(), modality, span, tracks };
    let mut parts = Parts::default();
    parts.parts.push(AskPart { source, weight, at: "file".to_owned() });
    parts.files.push(upload.path);
    parts.add(&state, more).await?;
    Ok(Written { state, body, parts })
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

impl SearchBody {
    /// How to search.
    fn options(&self, state: &AppState) -> Result<AskOptions, ApiError> {
        Ok(AskOptions {
            targets: self.targets.clone(),
            fuse: self.fuse,
            space: known_space(state, self.space.as_deref())?,
            filter: self.filter.clone(),
            group_by: self.group_by,
            offset: self.offset.unwrap_or(0),
            limit: self.limit.unwrap_or(10),
            params: SearchParams {
                ef: self.params.ef,
                exact: self.params.exact,
                recall_target: self.params.recall_target,
            },
            minimum: self.min_confidence.map(Minimum::Confidence),
            hub_correction: self.params.hub_correction,
        })
    }
}
