//! Assets: added, listed, looked at, deleted.

pub mod bulk;
pub mod changes;
pub mod content;
pub mod thumbnail;

use std::path::PathBuf;

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::files::{FileError, Upload};
use crate::http_intake::extract::{ApiJson, ApiQuery, IdPath};
use crate::http_intake::form::{self, FileRule};
use crate::http_intake::state::AppState;
use crate::http_kit::advice::advised;
use crate::http_kit::error::{ApiError, ClientError};
use crate::http_kit::etag::{check_if_match, expected};
use crate::http_kit::media_type::{content_type, unsupported};
use crate::http_kit::metadata::checked_metadata;
use crate::http_kit::page::{DEFAULT_ENTRIES, PageSize};
use crate::http_kit::views::{AssetView, ClipView, List};
use crate::jobs::Place;
use crate::library::{IngestSource, Library, LibraryError};
use crate::model::Priority;
use crate::store::{AssetRecord, AssetState, StoreError, WorkError};
use crate::types::{AssetId, TrackChoice};

/// Bytes of a form besides its file: fields and their heads.
const FORM_BYTES: u64 = 2 << 20;

/// A file on the server's disk or at a URL: exactly one of `path` and `url`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssetByPlace {
    /// Absolute path of a file in an allowed folder.
    path: Option<String>,
    /// `http://` or `https://` URL on an allowed host. The file is stored like an upload.
    url: Option<String>,
    /// Display name; default: the file's name.
    name: Option<String>,
    /// Any JSON object.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// Index of the video track to read, as listed in the asset's tracks; default: chosen by the server.
    video_track: Option<u16>,
    /// Index of the audio track to read, as listed in the asset's tracks; default: chosen by the server.
    audio_track: Option<u16>,
}

/// Form with a file.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the multipart form")]
pub struct AssetForm {
    /// The file's contents.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    file: String,
    /// Display name; default: the file's name.
    name: Option<String>,
    /// A JSON object.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// Index of the video track to read, as listed in the asset's tracks; default: chosen by the server.
    video_track: Option<u16>,
    /// Index of the audio track to read, as listed in the asset's tracks; default: chosen by the server.
    audio_track: Option<u16>,
}

/// Query string of adding.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AddQuery {
    /// Wait until the asset is searchable before answering; default false.
    #[serde(default)]
    wait: bool,
}

/// Adds a video, audio or image file.
///
/// Returns 202 at once; with `wait=true`, returns 201 once the asset is searchable. Returns 200 if the same bytes are
/// already indexed. With `wait=true`, a file that cannot be indexed is rejected and not kept. A `url` is fetched
/// before the answer; to add many or large files, start a job.
#[utoipa::path(post, path = "/v1/assets", operation_id = "add_asset", tag = "assets", params(AddQuery),
    request_body(content((AssetForm = "multipart/form-data"), (AssetByPlace = "application/json"))),
    responses(
        (status = 200, description = "The same bytes are already indexed", body = AssetView),
        (status = 201, description = "Searchable", body = AssetView),
        (status = 202, description = "Accepted; see the Location header", body = AssetView),
        ClientError))]
pub async fn add(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<AddQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    state.library.ingest().check_room()?;
    let (source, upload) = match content_type(request.headers()).as_str() {
        "multipart/form-data" => by_form(&state, request).await?,
        "application/json" => by_place(&state, request).await?,
        _ => return Err(unsupported("multipart/form-data or application/json")),
    };
    // The temporary file goes with the guard unless it was moved to its place.
    let _guard = upload;
    let library = &state.library;
    if query.wait { add_now(library, source).await } else { add_later(library, &source).await }
}

async fn by_form(state: &AppState, request: Request) -> Result<(IngestSource, Option<Upload>), ApiError> {
    let max_bytes = state.config.max_upload_bytes;
    // Refused before the bytes are sent, if the client declares their number; a form adds little to the file.
    let declared =
        request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > max_bytes.saturating_add(FORM_BYTES)) {
        return Err(LibraryError::File(FileError::TooLarge { max_bytes }).into());
    }
    state.library.data().check_disk(declared.unwrap_or(0))?;
    let rule = FileRule { max_bytes, durable: true };
    let mut form =
        form::receive(state, request, &["name", "metadata", "video_track", "audio_track"], rule).await?;
    let (upload, file_name) = form.require_file()?;
    if upload.content.size_bytes == 0 {
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "empty_file", "the file is empty")
            .with_param("file"));
    }
    let metadata = match form.take("metadata") {
        Some(text) => serde_json::from_str(&text).map_err(|error| {
            ApiError::invalid("metadata", format!("`metadata` is not valid JSON: {error}"))
        })?,
        None => Value::Null,
    };
    let source = IngestSource {
        path: upload.path.to_path_buf(),
        name: form.take("name").map_or(file_name, |name| form::shown_name(&name)),
        owned: true,
        content: Some(upload.content.clone()),
        metadata: checked_metadata(metadata)?,
        choice: form.choice()?,
    };
    Ok((source, Some(upload)))
}

async fn by_place(state: &AppState, request: Request) -> Result<(IngestSource, Option<Upload>), ApiError> {
    let ApiJson(body) = ApiJson::<AssetByPlace>::from_request(request, state).await?;
    let metadata = checked_metadata(body.metadata.unwrap_or(Value::Null))?;
    let choice = TrackChoice { video: body.video_track, audio: body.audio_track };
    let named = |place: &str| form::shown_name(&body.name.clone().unwrap_or_else(|| Place::of(place).name()));
    match (body.path.as_deref(), body.url.as_deref()) {
        (Some(given), None) => {
            let path = state.library.data().allowed_path(&PathBuf::from(given))?;
            Ok((
                IngestSource { path, name: named(given), owned: false, content: None, metadata, choice },
                None,
            ))
        }
        (None, Some(url)) => {
            let upload = state.library.data().fetch_url(url).await?;
            Ok((upload.source(named(url), metadata, choice), Some(upload)))
        }
        (None, None) => {
            let message = "missing field: send `path` or `url`";
            Err(ApiError::new(StatusCode::BAD_REQUEST, "missing_field", message).with_param("path"))
        }
        (Some(_), Some(_)) => Err(ApiError::invalid("url", "send only one of `path` and `url`")),
    }
}

async fn add_later(library: &std::sync::Arc<Library>, source: &IngestSource) -> Result<Response, ApiError> {
    let (record, new) = library.submit(source).await?;
    let indexed = !new && record.state != AssetState::Indexing;
    Ok(answer(if indexed { StatusCode::OK } else { StatusCode::ACCEPTED }, record.into()))
}

async fn add_now(library: &std::sync::Arc<Library>, source: IngestSource) -> Result<Response, ApiError> {
    let report = library.ingest().ingest(source, Priority::Interactive).await?;
    let asset = report.asset;
    if asset.state == AssetState::Failed {
        let WorkError { code, message } = advised(asset.error.unwrap_or_default());
        match library.ingest().delete_asset(asset.id).await {
            // Another client sent the same bytes at the same time and gets the same answer.
            Ok(()) | Err(LibraryError::Store(StoreError::NotFound(_))) => {}
            Err(error) => return Err(error.into()),
        }
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, message).with_param("file"));
    }
    let view = with_clips(library, asset).await?;
    Ok(answer(if report.new { StatusCode::CREATED } else { StatusCode::OK }, view))
}

fn answer(status: StatusCode, view: AssetView) -> Response {
    let location = format!("/v1/assets/{}", view.id);
    (status, [(header::LOCATION, location)], Json(view)).into_response()
}

async fn with_clips(library: &Library, asset: AssetRecord) -> Result<AssetView, ApiError> {
    let clips = library.collection().clips_with_tracks(asset.id).await?.into_iter();
    let clips = clips.map(|(clip, tracks)| ClipView { span: clip.span, tracks }).collect();
    let mut view = AssetView::from(asset);
    view.clips = Some(clips);
    Ok(view)
}

/// Query string of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Maximum number of assets per page, 1 to 1000; default 50.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Return entries after this id: the `next` of the previous page.
    after: Option<AssetId>,
}

/// Lists assets, newest first.
#[utoipa::path(get, path = "/v1/assets", operation_id = "list_assets", tag = "assets", params(ListQuery),
    responses((status = 200, description = "One page of results", body = List<AssetView>),
        ClientError))]
pub async fn list(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<List<AssetView>>, ApiError> {
    let size = PageSize::of(query.limit, DEFAULT_ENTRIES)?;
    let read = state.library.collection().assets(query.after, size.to_read()).await?;
    let mut page = size.cut(read, |asset| asset.id);
    looked_at(&state.library, &mut page.entries).await;
    Ok(Json(page.show(AssetView::from)))
}

/// Sets the current damage of files indexed by path.
async fn looked_at(library: &Library, assets: &mut [AssetRecord]) {
    let damaged = library.collection().damage_now(assets).await;
    for asset in assets {
        asset.damage = damaged.get(&asset.id).copied();
    }
}

/// Query string of one asset.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GetQuery {
    /// Include the asset's clips; default false.
    #[serde(default)]
    clips: bool,
}

/// Returns an asset, with an `ETag` that changes with it.
#[utoipa::path(get, path = "/v1/assets/{id}", operation_id = "get_asset",
    tag = "assets", params(("id" = AssetId, Path), GetQuery),
    responses((status = 200, description = "The asset", body = AssetView),
        ClientError))]
pub async fn get(
    State(state): State<AppState>,
    IdPath(id): IdPath<AssetId>,
    ApiQuery(query): ApiQuery<GetQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut asset = [state.library.collection().asset(id).await?];
    looked_at(&state.library, &mut asset).await;
    let [asset] = asset;
    let etag = format!("\"{}\"", asset.version());
    check_if_match(&headers, &etag)?;
    let view = if query.clips { with_clips(&state.library, asset).await? } else { asset.into() };
    Ok(([(header::ETAG, etag)], Json(view)).into_response())
}

/// Deletes an asset with its clips and, if it was uploaded, its file.
#[utoipa::path(delete, path = "/v1/assets/{id}", operation_id = "delete_asset",
    tag = "assets", params(("id" = AssetId, Path),
        ("if-match" = Option<String>, Header, description = "Answer 412 unless the asset has one of these ETags")),
    responses((status = 204, description = "Deleted"), ClientError))]
pub async fn delete(
    State(state): State<AppState>,
    IdPath(id): IdPath<AssetId>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    state.library.ingest().delete_expected(id, &expected(&headers)).await?;
    Ok(StatusCode::NO_CONTENT)
}
