//! The one route table.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use super::about::{health, models, openapi, pages, stats};
use super::access::{keys, session};
use super::assets::{bulk, changes, content, thumbnail};
use super::jobs::watches;
use super::keeping::{checks, compactions, retention, snapshots};
use super::search::{embeddings, evaluations, export, timeline};
use super::standing::webhooks;
use super::{assets, jobs, search, standing};
use crate::http_intake::admission;
use crate::http_intake::guard;
use crate::http_intake::state::Server;
use crate::http_intake::{client, middleware};
use crate::http_kit::error::ApiError;

/// All documented routes, from which the OpenAPI document is made.
pub fn api() -> OpenApiRouter<Server> {
    OpenApiRouter::with_openapi(openapi::base())
        // An upload has a cap of its own, counted while it streams.
        .routes(routes!(assets::add, assets::list).layer(DefaultBodyLimit::disable()))
        .routes(routes!(assets::get, changes::change, assets::delete))
        .routes(routes!(bulk::delete))
        .routes(routes!(changes::update))
        .routes(routes!(content::content))
        .routes(routes!(thumbnail::thumbnail))
        .routes(routes!(search::search))
        .routes(routes!(timeline::by_text, timeline::by_query))
        .routes(routes!(embeddings::embeddings))
        .routes(routes!(evaluations::evaluate))
        .routes(routes!(export::of_asset))
        .routes(routes!(export::export))
        .routes(routes!(jobs::start, jobs::list))
        .routes(routes!(jobs::get, jobs::cancel))
        .routes(routes!(jobs::pause))
        .routes(routes!(jobs::resume))
        .routes(routes!(jobs::retry))
        .routes(routes!(jobs::items))
        .routes(routes!(jobs::events))
        .routes(routes!(models::list, models::load))
        .routes(routes!(models::unload))
        .routes(routes!(models::promote))
        .routes(routes!(standing::create, standing::list))
        .routes(routes!(standing::get, standing::change, standing::delete))
        .routes(routes!(standing::matches))
        .routes(routes!(webhooks::deliveries))
        .routes(routes!(webhooks::retry))
        .routes(routes!(snapshots::start, snapshots::list))
        .routes(routes!(snapshots::get, snapshots::delete))
        .routes(routes!(retention::get, retention::set))
        .routes(routes!(retention::apply))
        .routes(routes!(compactions::compact))
        .routes(routes!(checks::start, checks::get))
        .routes(routes!(watches::create, watches::list))
        .routes(routes!(watches::get, watches::delete))
        .routes(routes!(stats::stats))
        .routes(routes!(stats::prometheus))
        .routes(routes!(session::open))
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::revoke))
        .routes(routes!(health::health))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(openapi::document))
}

/// The application: all routes with the guard, admission and tracing around them.
pub fn app(server: Server) -> Router {
    let (router, _) = api().split_for_parts();
    let body_limit = DefaultBodyLimit::max(server.config().max_body_bytes);
    let router = router
        .route("/", get(pages::index))
        .route("/docs", get(pages::docs))
        .route("/ui/{*path}", get(pages::file))
        .fallback(|| async { ApiError::of_status(axum::http::StatusCode::NOT_FOUND) })
        .layer(body_limit)
        .layer(from_fn_with_state(server.clone(), admission::limit))
        .layer(from_fn_with_state(server.clone(), guard::authenticate))
        .layer(from_fn(middleware::outer))
        .layer(from_fn_with_state(server.clone(), client::identify));
    #[cfg(feature = "otlp")]
    let router = router.layer(axum::middleware::from_fn(crate::http_intake::trace::span));
    router.with_state(server)
}
