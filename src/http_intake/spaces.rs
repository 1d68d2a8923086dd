//! Embedding spaces by their names.

use axum::http::StatusCode;

use super::state::AppState;
use crate::http_kit::error::ApiError;
use crate::types::Space;

/// The model's space of this name, if any.
pub fn known_space(state: &AppState, name: Option<&str>) -> Result<Option<Space>, ApiError> {
    let Some(name) = name else { return Ok(None) };
    let space = Space::new(name);
    if state.library.embedder().bundle().spaces().iter().any(|(known, _)| *known == space) {
        return Ok(Some(space));
    }
    let message = "this model has no space of this name; see /v1/models";
    Err(ApiError::new(StatusCode::BAD_REQUEST, "bad_space", message).with_param("space"))
}
