//! Rules of retention.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http_intake::extract::ApiJson;
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::http_kit::page::first_ids;
use crate::library::{Library, RetentionReport, Rule, RuleCount};
use crate::store::RetentionRun;
use crate::types::{AssetId, rfc3339_millis};

/// Runs that are shown.
const RUNS_SHOWN: u32 = 20;

/// The complete list of rules.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionBody {
    /// Rules in the order in which they are applied; an empty list turns retention off.
    rules: Vec<Rule>,
}

/// A run of the retention rules that deleted something.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunView {
    /// RFC 3339, UTC.
    started_at: String,
    /// RFC 3339, UTC; null while it runs, or if it was interrupted.
    ended_at: Option<String>,
    /// Number of assets deleted.
    assets: u64,
    /// Number of clips deleted with them.
    clips: u64,
    /// Number of assets deleted per rule.
    #[schema(value_type = Object)]
    by_rule: serde_json::Value,
}

impl From<RetentionRun> for RunView {
    fn from(run: RetentionRun) -> Self {
        Self {
            started_at: rfc3339_millis(run.started_unix_ms),
            ended_at: (run.ended_unix_ms > 0).then(|| rfc3339_millis(run.ended_unix_ms)),
            assets: run.assets,
            clips: run.clips,
            by_rule: run.by_rule,
        }
    }
}

/// The retention rules and their effect.
#[derive(Debug, Serialize, ToSchema)]
pub struct RetentionView {
    /// Always `retention`.
    object: &'static str,
    /// Rules in the order in which they are applied.
    rules: Vec<Rule>,
    /// What each rule would delete now.
    due: Vec<RuleCount>,
    /// The last runs that deleted something, newest first.
    runs: Vec<RunView>,
}

async fn view(library: &Library) -> Result<Json<RetentionView>, ApiError> {
    let rules = library.upkeep().retention().await?;
    let due = library.upkeep().retention_due().await?.rules;
    let runs = library.upkeep().retention_runs(RUNS_SHOWN).await?.into_iter().map(RunView::from).collect();
    Ok(Json(RetentionView { object: "retention", rules, due, runs }))
}

/// Returns the retention rules, what each would delete now, and recent deletions.
#[utoipa::path(get, path = "/v1/retention", operation_id = "get_retention", tag = "keeping",
    responses((status = 200, description = "The rules", body = RetentionView),
        ClientError))]
pub async fn get(State(state): State<AppState>) -> Result<Json<RetentionView>, ApiError> {
    view(&state.library).await
}

/// Replaces all retention rules. From then on, the new rules are applied in the background.
#[utoipa::path(put, path = "/v1/retention", operation_id = "set_retention",
    tag = "keeping", request_body = RetentionBody,
    responses((status = 200, description = "The new rules", body = RetentionView),
        ClientError))]
pub async fn set(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<RetentionBody>,
) -> Result<Json<RetentionView>, ApiError> {
    state.library.upkeep().set_retention(&body.rules).await?;
    view(&state.library).await
}

/// Options for applying the retention rules.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyBody {
    /// Report what would be deleted without deleting it; default false.
    #[serde(default)]
    dry_run: bool,
}

/// What the rules deleted or would delete.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppliedView {
    /// Always `retention_run`.
    object: &'static str,
    /// Whether this was a dry run that deleted nothing.
    dry_run: bool,
    /// Assets.
    assets: u64,
    /// Their clips.
    clips: u64,
    /// Counts per rule; an asset that matches several rules counts for the first.
    rules: Vec<RuleCount>,
    /// Ids of the first 100 assets.
    asset_ids: Vec<AssetId>,
}

impl AppliedView {
    fn new(dry_run: bool, report: RetentionReport) -> Self {
        let assets = report.assets.len() as u64;
        let asset_ids = first_ids(&report.assets);
        Self { object: "retention_run", dry_run, assets, clips: report.clips, rules: report.rules, asset_ids }
    }
}

/// Applies the retention rules now, in small batches; the answer comes when all assets are deleted.
#[utoipa::path(post, path = "/v1/retention/apply", operation_id = "apply_retention",
    tag = "keeping", request_body = ApplyBody,
    responses((status = 200, description = "What was deleted, or would be deleted", body = AppliedView),
        ClientError))]
pub async fn apply(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<ApplyBody>,
) -> Result<Json<AppliedView>, ApiError> {
    if body.dry_run {
        return Ok(Json(AppliedView::new(true, state.library.upkeep().retention_due().await?)));
    }
    let report = state.library.upkeep().apply_retention().await?;
    Ok(Json(AppliedView::new(false, report)))
}
