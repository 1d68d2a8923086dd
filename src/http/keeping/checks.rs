//! Looking for damage.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http_intake::extract::ApiJson;
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::library::{CheckOptions, CheckReport};

/// Options for a check.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckBody {
    /// Read each upload and compare it with its SHA-256; default true.
    #[serde(default = "yes")]
    bytes: bool,
    /// Recompute damaged vectors from the files, keeping their ids; default false.
    #[serde(default)]
    repair: bool,
}

const fn yes() -> bool {
    true
}

/// Findings of a check so far.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckView {
    /// Always `check`.
    object: &'static str,
    /// True if the check has finished and all damage, if any, was repaired.
    clean: bool,
    #[serde(flatten)]
    report: CheckReport,
}

impl From<CheckReport> for CheckView {
    fn from(report: CheckReport) -> Self {
        Self { object: "check", clean: report.is_clean(), report }
    }
}

/// Starts a background check of the database, of each row and vector, and of the uploaded files.
#[utoipa::path(post, path = "/v1/checks", operation_id = "start_check", tag = "keeping", request_body = CheckBody,
    responses((status = 202, description = "Check started; see GET /v1/checks", body = CheckView),
        ClientError))]
pub async fn start(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<CheckBody>,
) -> Result<(StatusCode, Json<CheckView>), ApiError> {
    let report =
        state.library.upkeep().start_check(CheckOptions { bytes: body.bytes, repair: body.repair })?;
    Ok((StatusCode::ACCEPTED, Json(report.into())))
}

/// Returns the running check, or the last one since the server started.
#[utoipa::path(get, path = "/v1/checks", operation_id = "get_check", tag = "keeping",
    responses((status = 200, description = "The check and its findings", body = CheckView)))]
pub async fn get(State(state): State<AppState>) -> Json<CheckView> {
    Json(state.library.upkeep().check_report().into())
}
