//! Whether the server lives, and whether it can answer.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, ErrorBody};
use super::state::AppState;

/// How long the store may take before the server counts as not ready.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// The server's health.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`; otherwise the answer is an error.
    status: &'static str,
    /// Version of the server.
    version: &'static str,
}

const OK: Health = Health { status: "ok", version: env!("CARGO_PKG_VERSION") };

/// The process answers.
#[utoipa::path(get, path = "/livez", tag = "server", responses((status = 200, description = "Alive", body = Health)))]
pub async fn livez() -> Json<Health> {
    Json(OK)
}

/// The model is loaded and checked, the store answers, work is taken.
#[utoipa::path(get, path = "/readyz", tag = "server",
    responses((status = 200, description = "Ready", body = Health),
        (status = 503, description = "Not ready", body = ErrorBody)))]
pub async fn readyz(State(state): State<AppState>) -> Result<Json<Health>, ApiError> {
    let not_ready =
        |message| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", message).retry_after(1);
    if state.stop.is_cancelled() {
        return Err(not_ready("the server is shutting down"));
    }
    match tokio::time::timeout(STORE_TIMEOUT, state.library.store().sequence()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            tracing::error!(%error, "the store does not answer");
            return Err(not_ready("the store does not answer"));
        }
        Err(_) => return Err(not_ready("the store does not answer in time")),
    }
    // The reason is in the log: it may name paths.
    if state.library.decoder_health().await.ok {
        Ok(Json(OK))
    } else {
        Err(not_ready("files cannot be decoded: ffmpeg or the decode-worker does not start"))
    }
}

/// The same as `/readyz`.
#[utoipa::path(get, path = "/health", tag = "server",
    responses((status = 200, description = "Ready", body = Health),
        (status = 503, description = "Not ready", body = ErrorBody)))]
pub async fn health(state: State<AppState>) -> Result<Json<Health>, ApiError> {
    readyz(state).await
}
