//! Retrieval measured on the serving path.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{ApiError, ErrorBody};
use super::extract::ApiJson;
use super::query;
use super::state::AppState;
use crate::library::{Evaluation, MAX_PAIRS};
use crate::search::HubCorrection;
use crate::types::Track;

/// A text and the asset it is about.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PairBody {
    /// What is asked.
    text: String,
    /// The right answer: an asset's id, its name, or its name without the ending.
    asset: String,
}

/// Queries whose answers are known.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluationBody {
    /// Pairs, 1 to 20000. The assets they name are what is searched.
    #[schema(min_items = 1, max_items = 20000)]
    pairs: Vec<PairBody>,
    /// Tracks to look at, one after another; default: video.
    #[serde(default = "video_only")]
    #[schema(min_items = 1)]
    targets: Vec<Track>,
    /// Name or digest of a model; default: the one that serves.
    model: Option<String>,
    /// `dis`: measures also with hub correction, beside the figures without it.
    #[serde(default)]
    hub_correction: HubCorrection,
}

fn video_only() -> Vec<Track> {
    vec![Track::Video]
}

/// What was measured.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvaluationAnswer {
    /// Always `evaluation`.
    object: &'static str,
    /// Name of the model.
    model: String,
    /// The figures.
    #[serde(flatten)]
    evaluation: Evaluation,
}

/// Asks for every text and tells where its asset came: R@1, R@5, R@10, median rank, MRR.
#[utoipa::path(post, path = "/v1/evaluations", operation_id = "evaluate",
    tag = "search", request_body = EvaluationBody,
    responses((status = 200, description = "What was measured", body = EvaluationAnswer),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn evaluate(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<EvaluationBody>,
) -> Result<Json<EvaluationAnswer>, ApiError> {
    let state = state.of_model(body.model.as_deref())?;
    if !(1..=MAX_PAIRS).contains(&body.pairs.len()) {
        return Err(ApiError::invalid("pairs", format!("`pairs` must hold 1 to {MAX_PAIRS} pairs")));
    }
    let mut targets = body.targets;
    targets.sort_unstable();
    targets.dedup();
    if targets.is_empty() {
        return Err(ApiError::invalid("targets", "`targets` must name video, audio or both"));
    }
    let named: Vec<(String, String)> = body.pairs.into_iter().map(|pair| (pair.text, pair.asset)).collect();
    let pairs = state.library.resolve_pairs(&named)?;
    let evaluation =
        query::within(&state, state.library.evaluate(&pairs, &targets, body.hub_correction)).await??;
    let model = state.library.embedder().bundle().name().to_owned();
    Ok(Json(EvaluationAnswer { object: "evaluation", model, evaluation }))
}
