//! A browser's elements (`<img>`, `<video>`) cannot send a key; a cookie replaces it for the content that
//! they load.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::access::Caller;
use crate::http_intake::client::Client;
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ErrorBody};
use crate::http_kit::secret::COOKIE;
use crate::types::now_unix_ms;

/// Lifetime of the cookie in seconds; a restart of the server or the end of the key ends it sooner.
const MAX_AGE_SECS: i64 = 12 * 3600;

/// Sets a cookie that lets the browser load the content and thumbnails of assets (GET only). It is valid for twelve
/// hours, or until the key ends. The web page uses it; programs send the key instead. A server without keys sets no
/// cookie.
#[utoipa::path(post, path = "/v1/session", operation_id = "open_session", tag = "server",
    responses((status = 204, description = "Cookie set"),
        (status = 401, description = "Missing or invalid API key", body = ErrorBody)))]
pub async fn open(
    State(state): State<AppState>,
    Extension(client): Extension<Client>,
    caller: Option<Extension<Caller>>,
) -> Response {
    let Some(Extension(caller)) = caller else { return StatusCode::NO_CONTENT.into_response() };
    let now = now_unix_ms();
    let left_secs = caller.expires_unix_ms().map_or(MAX_AGE_SECS, |at| (at - now) / 1000);
    let age_secs = left_secs.clamp(0, MAX_AGE_SECS);
    let token = state.media_secret.sign(caller.holder(), now / 1000 + age_secs);
    let secure = if client.https || state.config.secure_cookie { "; Secure" } else { "" };
    // Strict: another site's page cannot make the browser send it along.
    let cookie =
        format!("{COOKIE}={token}; Path=/v1/assets; Max-Age={age_secs}; HttpOnly; SameSite=Strict{secure}");
    match HeaderValue::try_from(cookie) {
        Ok(cookie) => (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response(),
        Err(_) => ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response(),
    }
}
