//! Retrieval measured on the serving path.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http_intake::extract::ApiJson;
use crate::http_intake::query;
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::library::{Evaluation, MAX_PAIRS};
use crate::search::HubCorrection;
use crate::types::Track;

/// A text and the asset it describes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PairBody {
    /// Text of the query.
    text: String,
    /// The correct asset: its id, or its name with or without the extension.
    asset: String,
}

/// Texts with known answers.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluationBody {
    /// Pairs of text and asset, 1 to 20000. Only the assets named here are searched.
    #[schema(min_items = 1, max_items = 20000)]
    pairs: Vec<PairBody>,
    /// Tracks to search, one after another; default: video.
    #[serde(default = "video_only")]
    #[schema(min_items = 1)]
    targets: Vec<Track>,
    /// Name or digest of a loaded model; default: the serving model.
    model: Option<String>,
    /// `dis` also measures with hub correction; default: only without.
    #[serde(default)]
    hub_correction: HubCorrection,
}

fn video_only() -> Vec<Track> {
    vec![Track::Video]
}

/// Results of an evaluation.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvaluationAnswer {
    /// Always `evaluation`.
    object: &'static str,
    /// Name of the model.
    model: String,
    /// The results.
    #[serde(flatten)]
    evaluation: Evaluation,
}

/// Searches for each text and reports how its asset ranks: R@1, R@5, R@10, median rank and MRR.
#[utoipa::path(post, path = "/v1/evaluations", operation_id = "evaluate",
    tag = "search", request_body = EvaluationBody,
    responses((status = 200, description = "The results", body = EvaluationAnswer),
        ClientError))]
pub async fn evaluate(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<EvaluationBody>,
) -> Result<Json<EvaluationAnswer>, ApiError> {
    let state = state.of_model(body.model.as_deref())?;
    if !(1..=MAX_PAIRS).contains(&body.pairs.len()) {
        return Err(ApiError::invalid("pairs", format!("`pairs` must contain 1 to {MAX_PAIRS} pairs")));
    }
    let mut targets = body.targets;
    targets.sort_unstable();
    targets.dedup();
    if targets.is_empty() {
        return Err(ApiError::invalid("targets", "`targets` must name video, audio or both"));
    }
    let named: Vec<(String, String)> = body.pairs.into_iter().map(|pair| (pair.text, pair.asset)).collect();
    let pairs = state.library.collection().resolve_pairs(&named)?;
    let evaluation =
        query::within(&state, state.library.collection().evaluate(&pairs, &targets, body.hub_correction))
            .await??;
    let model = state.library.embedder().bundle().name().to_owned();
    Ok(Json(EvaluationAnswer { object: "evaluation", model, evaluation }))
}
