//! The OpenAPI document, with what the route table does not contain.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{OpenApi, SecurityRequirement};
use utoipa::{Modify, OpenApi as _};

use crate::http_intake::state::AppState;
use crate::http_kit::error::{ErrorBody, ErrorDetail};

/// Title, tags, the key.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Triptych",
        description = "Search video by text, sound, image or another clip. Times are in seconds, sizes in bytes, dates in RFC 3339 (UTC). Unknown fields are rejected. Every response has an `x-request-id` header, and all errors have the same format."
    ),
    tags(
        (name = "search", description = "Find moments"),
        (name = "embeddings", description = "The vectors"),
        (name = "assets", description = "Video, audio and image files"),
        (name = "jobs", description = "Index folders, URLs and buckets; watch folders"),
        (name = "standing", description = "Saved queries that are matched against new assets"),
        (name = "webhooks", description = "Webhook deliveries"),
        (name = "models", description = "Loaded models and the serving model"),
        (name = "keeping", description = "Snapshots, retention, compaction"),
        (name = "keys", description = "API keys and roles"),
        (name = "server", description = "Version, health and statistics")
    ),
    components(schemas(ErrorBody, ErrorDetail)),
    modifiers(&Key)
)]
struct Base;

struct Key;

impl Modify for Key {
    fn modify(&self, openapi: &mut OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        // With a key or, where the server has none, with nothing.
        let scopes: [&str; 0] = [];
        openapi.security =
            Some(vec![SecurityRequirement::new("key", scopes), SecurityRequirement::default()]);
    }
}

/// The OpenAPI document without its paths.
pub fn base() -> OpenApi {
    Base::openapi()
}

/// Returns this OpenAPI document.
#[utoipa::path(get, path = "/openapi.json", operation_id = "get_openapi", tag = "server",
    responses((status = 200, description = "The OpenAPI document", content_type = "application/json")))]
pub async fn document(State(state): State<AppState>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    (headers, state.openapi.clone()).into_response()
}
