//! Looking for damage.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{ApiError, ErrorBody};
use super::extract::ApiJson;
use super::state::AppState;
use crate::library::{CheckOptions, CheckReport};

/// What a check is to do.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckBody {
    /// Read the bytes of every upload and compare them with their hashes.
    #[serde(default = "yes")]
    bytes: bool,
    /// Make damaged vectors anew from the bytes, under the same ids.
    #[serde(default)]
    repair: bool,
}

const fn yes() -> bool {
    true
}

/// What a check found, as far as it has come.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckView {
    /// Always `check`.
    object: &'static str,
    /// Whether it has ended and nothing is damaged, or all was repaired.
    clean: bool,
    #[serde(flatten)]
    report: CheckReport,
}

impl From<CheckReport> for CheckView {
    fn from(report: CheckReport) -> Self {
        Self { object: "check", clean: report.is_clean(), report }
    }
}

/// Looks for damage in the background: in the database, in every row and vector, in the bytes of uploads.
#[utoipa::path(post, path = "/v1/checks", operation_id = "start_check", tag = "keeping", request_body = CheckBody,
    responses((status = 202, description = "It runs; see GET /v1/checks", body = CheckView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn start(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<CheckBody>,
) -> Result<(StatusCode, Json<CheckView>), ApiError> {
    let report = state.library.start_check(CheckOptions { bytes: body.bytes, repair: body.repair })?;
    Ok((StatusCode::ACCEPTED, Json(report.into())))
}

/// The check that runs, or the last one since the start.
#[utoipa::path(get, path = "/v1/checks", operation_id = "get_check", tag = "keeping",
    responses((status = 200, description = "What it found", body = CheckView)))]
pub async fn get(State(state): State<AppState>) -> Json<CheckView> {
    Json(state.library.check_report().into())
}
