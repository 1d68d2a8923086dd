//! Whether the server lives, and whether it can answer.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http_intake::state::AppState;
use crate::http_kit::advice::advice_on_part;
use crate::http_kit::error::{ApiError, ErrorBody};
use crate::library::{PartHealth, PartState};

/// Checks that the process is alive.
#[derive(Debug, Serialize, ToSchema)]
pub struct Alive {
    /// Always `ok`.
    status: &'static str,
    /// Version of the server.
    version: &'static str,
}

/// One part of the server.
#[derive(Debug, Serialize, ToSchema)]
pub struct PartView {
    /// Health of the part.
    status: PartState,
    /// Human-readable details; null if there are none.
    detail: Option<String>,
}

/// The server's health.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`, or `degraded` if the server works but a part of it is impaired. If a part has failed, the answer is an
    /// error.
    status: PartState,
    /// Version of the server.
    version: &'static str,
    /// Health of `store`, `disk`, `towers` (the model), `decoder`, `index`, `webhooks` and `content` (the uploaded
    /// files).
    parts: BTreeMap<&'static str, PartView>,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Checks that the process is alive.
#[utoipa::path(get, path = "/livez", tag = "server", responses((status = 200, description = "The process is alive", body = Alive)))]
pub async fn livez() -> Json<Alive> {
    Json(Alive { status: "ok", version: VERSION })
}

/// Returns the health of each part of the server. If a part has failed, the answer also has an `error`.
#[utoipa::path(get, path = "/readyz", tag = "server",
    responses((status = 200, description = "Ready or degraded; see `status`", body = Health),
        (status = 503, description = "Not ready; see `parts`", body = ErrorBody)))]
pub async fn readyz(State(state): State<AppState>) -> Result<Json<Health>, ApiError> {
    let not_ready =
        |message: &str| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", message).retry_after(1);
    if state.stop.is_cancelled() {
        return Err(not_ready("the server is shutting down"));
    }
    let health = Health::of(state.library.upkeep().health().await);
    if health.status == PartState::Failed {
        let failed = health.parts.values().filter(|part| part.status == PartState::Failed);
        let reasons: Vec<&str> = failed.filter_map(|part| part.detail.as_deref()).collect();
        return Err(not_ready(&reasons.join("; ")).with_more(serde_json::json!(health)));
    }
    Ok(Json(health))
}

impl Health {
    fn of(found: Vec<PartHealth>) -> Self {
        let status = found.iter().map(|part| part.state).max().unwrap_or(PartState::Ok);
        let view = |part: PartHealth| {
            let advice = advice_on_part(part.part).filter(|_| part.state == PartState::Degraded);
            let detail = part.detail.map(|detail| detail + advice.unwrap_or_default());
            (part.part, PartView { status: part.state, detail })
        };
        Self { status, version: VERSION, parts: found.into_iter().map(view).collect() }
    }
}

/// Alias of `/readyz`.
#[utoipa::path(get, path = "/health", tag = "server",
    responses((status = 200, description = "Ready or degraded; see `status`", body = Health),
        (status = 503, description = "Not ready; see `parts`", body = ErrorBody)))]
pub async fn health(state: State<AppState>) -> Result<Json<Health>, ApiError> {
    readyz(state).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_part_tells_how_the_server_does() {
        let of = |states: &[PartState]| {
            let part = |state: &PartState| PartHealth { part: "disk", state: *state, detail: None };
            Health::of(states.iter().map(part).collect()).status
        };
        let (ok, degraded, failed) = (PartState::Ok, PartState::Degraded, PartState::Failed);
        assert_eq!(of(&[ok, ok]), ok);
        assert_eq!(of(&[ok, degraded]), degraded);
        assert_eq!(of(&[degraded, failed, ok]), failed);
    }
}
