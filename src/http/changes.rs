//! Names and metadata of assets, changed after they came.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::deletions::{chosen, first_named};
use super::error::{ApiError, ErrorBody};
use super::extract::{ApiJson, IdPath};
use super::form;
use super::state::{AppState, detached};
use super::views::AssetView;
use crate::catalog::Filter;
use crate::library::AssetPatch;
use crate::types::AssetId;

/// What is to change of an asset.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssetChanges {
    /// Another name.
    name: Option<String>,
    /// Laid over the metadata (RFC 7396): what it names is set, objects are laid over each other, lists
    /// replaced; null takes a key away, and a null in place of the object everything.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// What is to change of many assets.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateBody {
    /// As in a search; keys of clips (`start_secs`, `end_secs`, `agreement`) cannot be asked for.
    #[serde(default)]
    filter: Filter,
    /// Has to be true where the filter asks nothing: then every asset is meant.
    #[serde(default)]
    all: bool,
    /// Laid over the metadata of each (RFC 7396): what it names is set, objects are laid over each other,
    /// lists replaced; null takes a key away, and a null in place of the object everything.
    #[schema(value_type = Option<Object>, required)]
    metadata: Value,
    /// Only tell which are meant.
    #[serde(default)]
    dry_run: bool,
}

/// What was changed, or would be.
#[derive(Debug, Serialize, ToSchema)]
pub struct UpdateView {
    /// Always `update`.
    object: &'static str,
    /// Whether nothing was changed.
    dry_run: bool,
    /// Assets.
    assets: u64,
    /// The first hundred of them.
    asset_ids: Vec<AssetId>,
}

/// A null that was given is not the same as nothing.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Changes an asset's name and metadata; filters go by them at once.
#[utoipa::path(patch, path = "/v1/assets/{id}", operation_id = "change_asset",
    tag = "assets", params(("id" = AssetId, Path)),
    request_body = AssetChanges,
    responses((status = 200, description = "The asset as it then is", body = AssetView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn change(
    State(state): State<AppState>,
    IdPath(id): IdPath<AssetId>,
    ApiJson(body): ApiJson<AssetChanges>,
) -> Result<Json<AssetView>, ApiError> {
    let patch = AssetPatch::new(body.name.map(|name| form::shown_name(&name)), body.metadata)?;
    let library = state.library.clone();
    let asset = detached(async move { Ok(library.patch_asset(id, &patch).await?) }).await?;
    Ok(Json(asset.into()))
}

/// Changes the metadata of the assets that a filter keeps.
///
/// They are changed a few at a time, so that searches and uploads go on; the answer comes when all are.
/// Where it is cut off, the same call changes the rest.
#[utoipa::path(post, path = "/v1/assets/update", operation_id = "update_assets",
    tag = "assets", request_body = UpdateBody,
    responses((status = 200, description = "What was changed, or would be", body = UpdateView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn update(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<UpdateBody>,
) -> Result<Json<UpdateView>, ApiError> {
    let patch = AssetPatch::new(None, Some(body.metadata))?;
    let mut ids = chosen(&state, &body.filter, body.all)?;
    if !body.dry_run {
        let library = state.library.clone();
        ids = detached(async move { Ok(library.patch_assets(&ids, &patch).await?) }).await?;
    }
    let (assets, asset_ids) = (ids.len() as u64, first_named(&ids));
    Ok(Json(UpdateView { object: "update", dry_run: body.dry_run, assets, asset_ids }))
}
