//! Names and metadata of assets, changed after they came.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::bulk::chosen;
use crate::catalog::Filter;
use crate::http_intake::extract::{ApiJson, IdPath};
use crate::http_intake::form;
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::http_kit::etag::expected;
use crate::http_kit::page::first_ids;
use crate::http_kit::views::AssetView;
use crate::library::AssetPatch;
use crate::types::AssetId;

/// Changes to an asset.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssetChanges {
    /// New name.
    name: Option<String>,
    /// JSON merge patch (RFC 7396) for the metadata: objects are merged, other values are replaced, and null removes
    /// a key. A null in place of the object removes all metadata.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// Changes to several assets.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateBody {
    /// Filter as in a search, but without the keys of clips (`start_secs`, `end_secs`, `agreement`).
    #[serde(default)]
    filter: Filter,
    /// Required when the filter is empty, which changes every asset.
    #[serde(default)]
    all: bool,
    /// JSON merge patch (RFC 7396) for the metadata of each asset: objects are merged, other values are replaced, and
    /// null removes a key. A null in place of the object removes all metadata.
    #[schema(value_type = Option<Object>, required)]
    metadata: Value,
    /// Report which assets would change without changing them; default false.
    #[serde(default)]
    dry_run: bool,
}

/// What was changed or would be changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct UpdateView {
    /// Always `update`.
    object: &'static str,
    /// Whether this was a dry run that changed nothing.
    dry_run: bool,
    /// Assets.
    assets: u64,
    /// Ids of the first 100 of these assets.
    asset_ids: Vec<AssetId>,
}

/// An explicit null differs from an absent field.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Changes the name and metadata of an asset; filters use the new values at once.
#[utoipa::path(patch, path = "/v1/assets/{id}", operation_id = "change_asset",
    tag = "assets", params(("id" = AssetId, Path),
        ("if-match" = Option<String>, Header, description = "Answer 412 unless the asset has one of these ETags")),
    request_body = AssetChanges,
    responses((status = 200, description = "The updated asset", body = AssetView),
        ClientError))]
pub async fn change(
    State(state): State<AppState>,
    IdPath(id): IdPath<AssetId>,
    headers: HeaderMap,
    ApiJson(body): ApiJson<AssetChanges>,
) -> Result<Response, ApiError> {
    let patch = AssetPatch::new(body.name.map(|name| form::shown_name(&name)), body.metadata)?;
    let asset = state.library.ingest().patch_asset(id, &patch, &expected(&headers)).await?;
    let etag = format!("\"{}\"", asset.version());
    Ok(([(header::ETAG, etag)], Json(AssetView::from(asset))).into_response())
}

/// Changes the metadata of the assets that match a filter.
///
/// Assets are changed in small batches, so that searches and uploads continue; the answer comes when all are changed.
/// If the request is interrupted, repeat it to change the rest.
#[utoipa::path(post, path = "/v1/assets/update", operation_id = "update_assets",
    tag = "assets", request_body = UpdateBody,
    responses((status = 200, description = "What was changed, or would be changed", body = UpdateView),
        ClientError))]
pub async fn update(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<UpdateBody>,
) -> Result<Json<UpdateView>, ApiError> {
    let patch = AssetPatch::new(None, Some(body.metadata))?;
    let mut ids = chosen(&state, &body.filter, body.all)?;
    if !body.dry_run {
        ids = state.library.ingest().patch_assets(&ids, &patch).await?;
    }
    let (assets, asset_ids) = (ids.len() as u64, first_ids(&ids));
    Ok(Json(UpdateView { object: "update", dry_run: body.dry_run, assets, asset_ids }))
}
