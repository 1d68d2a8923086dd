//! Rules of retention.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::deletions::first_named;
use super::error::{ApiError, ErrorBody};
use super::extract::ApiJson;
use super::state::{AppState, detached};
use crate::library::{Library, RetentionReport, Rule, RuleCount};
use crate::store::RetentionRun;
use crate::types::{AssetId, rfc3339_millis};

/// Runs that are shown.
const RUNS_SHOWN: u32 = 20;

/// The rules, all of them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionBody {
    /// In the order in which they are applied; none: nothing is deleted by itself.
    rules: Vec<Rule>,
}

/// One time that rules deleted something.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunView {
    /// RFC 3339, UTC.
    started_at: String,
    /// RFC 3339, UTC; null while it runs, and where it was cut off.
    ended_at: Option<String>,
    /// Assets deleted.
    assets: u64,
    /// Clips deleted with them.
    clips: u64,
    /// Assets deleted by each rule.
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

/// The rules in force and what they do.
#[derive(Debug, Serialize, ToSchema)]
pub struct RetentionView {
    /// Always `retention`.
    object: &'static str,
    /// In the order in which they are applied.
    rules: Vec<Rule>,
    /// What each would delete now.
    due: Vec<RuleCount>,
    /// The last times that something was deleted, newest first.
    runs: Vec<RunView>,
}

async fn view(library: &Library) -> Result<Json<RetentionView>, ApiError> {
    let rules = library.retention().await?;
    let due = library.retention_due().await?.rules;
    let runs = library.retention_runs(RUNS_SHOWN).await?.into_iter().map(RunView::from).collect();
    Ok(Json(RetentionView { object: "retention", rules, due, runs }))
}

/// The rules in force, what each would delete now, and what they deleted lately.
#[utoipa::path(get, path = "/v1/retention", operation_id = "get_retention", tag = "keeping",
    responses((status = 200, description = "The rules", body = RetentionView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn get(State(state): State<AppState>) -> Result<Json<RetentionView>, ApiError> {
    view(&state.library).await
}

/// Puts rules in the place of all others. They are applied in the background from then on.
#[utoipa::path(put, path = "/v1/retention", operation_id = "set_retention",
    tag = "keeping", request_body = RetentionBody,
    responses((status = 200, description = "The rules as they are now", body = RetentionView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn set(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<RetentionBody>,
) -> Result<Json<RetentionView>, ApiError> {
    state.library.set_retention(&body.rules).await?;
    view(&state.library).await
}

/// How to apply the rules.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyBody {
    /// Only tell what would go.
    #[serde(default)]
    dry_run: bool,
}

/// What applying the rules deleted, or would delete.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppliedView {
    /// Always `retention_run`.
    object: &'static str,
    /// Whether nothing was deleted.
    dry_run: bool,
    /// Assets.
    assets: u64,
    /// Their clips.
    clips: u64,
    /// By rule; an asset that several rules choose counts for the first.
    rules: Vec<RuleCount>,
    /// The first hundred assets.
    asset_ids: Vec<AssetId>,
}

impl AppliedView {
    fn new(dry_run: bool, report: RetentionReport) -> Self {
        let assets = report.assets.len() as u64;
        let asset_ids = first_named(&report.assets);
        Self { object: "retention_run", dry_run, assets, clips: report.clips, rules: report.rules, asset_ids }
    }
}

/// Applies the rules now, a few assets at a time; the answer comes when all are gone.
#[utoipa::path(post, path = "/v1/retention/apply", operation_id = "apply_retention",
    tag = "keeping", request_body = ApplyBody,
    responses((status = 200, description = "What went, or would go", body = AppliedView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn apply(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<ApplyBody>,
) -> Result<Json<AppliedView>, ApiError> {
    if body.dry_run {
        return Ok(Json(AppliedView::new(true, state.library.retention_due().await?)));
    }
    let library = state.library.clone();
    let report = detached(async move { Ok(library.apply_retention().await?) }).await?;
    report.assets.iter().for_each(|id| state.thumbnails.forget(*id));
    Ok(Json(AppliedView::new(false, report)))
}
