//! The OpenAPI document: what the route table cannot say of itself.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{OpenApi, SecurityRequirement};
use utoipa::{Modify, OpenApi as _};

use super::state::AppState;

/// Title, tags, the key.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Triptych",
        description = "Search video by text, by sound, by image or by another clip. Times are seconds, sizes bytes, \
            dates RFC 3339 UTC. Unknown fields are refused. Every response carries `x-request-id`, every error has \
            one shape."
    ),
    tags(
        (name = "search", description = "Find moments"),
        (name = "embeddings", description = "Vectors"),
        (name = "assets", description = "Videos, sounds and pictures"),
        (name = "jobs", description = "Index folders, URLs and buckets; watch folders"),
        (name = "standing", description = "Queries that wait for what comes"),
        (name = "webhooks", description = "What others were told"),
        (name = "models", description = "What is loaded, and which of it serves"),
        (name = "keeping", description = "Snapshots, retention, compaction"),
        (name = "keys", description = "Who may ask for what"),
        (name = "server", description = "What runs, how it is")
    ),
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

/// The document without its paths.
pub fn base() -> OpenApi {
    Base::openapi()
}

/// The document.
#[utoipa::path(get, path = "/openapi.json", operation_id = "get_openapi", tag = "server",
    responses((status = 200, description = "This document", content_type = "application/json")))]
pub async fn document(State(state): State<AppState>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    (headers, state.openapi.clone()).into_response()
}
