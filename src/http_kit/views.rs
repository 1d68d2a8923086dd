//! What assets and lists look like from outside.

use serde::Serialize;
use utoipa::ToSchema;

use super::advice::advised;
use crate::store::{AssetRecord, AssetState, Damage, WorkError};
use crate::types::{AssetId, AssetKind, ErrorCode, TimeSpan, Track, TrackInfo, rfc3339_millis};

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    /// Always `list`.
    pub object: &'static str,
    /// The entries of this page.
    pub data: Vec<T>,
    /// Value of `after` for the next page; null on the last page.
    pub next: Option<String>,
}

impl<T> List<T> {
    /// A page that `next` follows.
    pub fn new(data: Vec<T>, next: Option<String>) -> Self {
        Self { object: "list", data, next }
    }
}

/// Why an asset failed, or why only part of it could be read.
#[derive(Debug, Serialize, ToSchema)]
pub struct AssetError {
    /// Stable error code in snake_case.
    #[schema(value_type = String)]
    pub code: ErrorCode,
    /// Human-readable message.
    pub message: String,
}

impl From<WorkError> for AssetError {
    fn from(stored: WorkError) -> Self {
        let WorkError { code, message } = advised(stored);
        Self { code, message }
    }
}

/// One time window of an asset.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClipView {
    /// Time span.
    #[serde(flatten)]
    pub span: TimeSpan,
    /// Tracks with vectors in this clip.
    pub tracks: Vec<Track>,
}

/// A video, audio or image file in the library.
#[derive(Debug, Serialize, ToSchema)]
pub struct AssetView {
    /// Always `asset`.
    pub object: &'static str,
    /// Id.
    pub id: AssetId,
    /// Display name.
    pub name: String,
    /// Kind of file; null while unknown.
    pub kind: Option<AssetKind>,
    /// State.
    pub state: AssetState,
    /// Why it failed, or why only part of it could be read; null otherwise.
    pub error: Option<AssetError>,
    /// Duration in seconds; 0 for a picture, or while unknown.
    pub duration_secs: f64,
    /// In pixels; 0 without a video track.
    pub width: u32,
    /// In pixels; 0 without a video track.
    pub height: u32,
    /// Bytes.
    pub size_bytes: u64,
    /// SHA-256 of the bytes, lower-case hex.
    pub sha256: String,
    /// Number of clips.
    pub clip_count: u64,
    /// Known damage: the file is `missing` or has `changed`, or the `metadata` cannot be read; null if none is known.
    pub damage: Option<Damage>,
    /// Tracks of the file and whether they are used; empty for a picture, or while unknown.
    pub tracks: Vec<TrackInfo>,
    /// Index of the video track chosen when the asset was added; null if the server chose.
    pub video_track: Option<u16>,
    /// Index of the audio track chosen when the asset was added; null if the server chose.
    pub audio_track: Option<u16>,
    /// Your JSON object.
    #[schema(value_type = Object)]
    pub metadata: serde_json::Value,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// RFC 3339, UTC.
    pub updated_at: String,
    /// Path of the file's contents in this API.
    pub content_url: String,
    /// Path of its thumbnail in this API; null if it has no picture.
    pub thumbnail_url: Option<String>,
    /// Clips in time order; only with `clips=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clips: Option<Vec<ClipView>>,
}

impl From<AssetRecord> for AssetView {
    fn from(asset: AssetRecord) -> Self {
        Self {
            object: "asset",
            id: asset.id,
            content_url: content_url(asset.id),
            thumbnail_url: has_picture(&asset).then(|| format!("/v1/assets/{}/thumbnail", asset.id)),
            name: asset.name,
            kind: asset.kind,
            state: asset.state,
            error: asset.error.map(AssetError::from),
            duration_secs: asset.duration_secs,
            width: asset.width,
            height: asset.height,
            size_bytes: asset.size_bytes,
            sha256: asset.sha256,
            clip_count: asset.clips,
            damage: asset.damage,
            tracks: asset.tracks,
            video_track: asset.choice.video,
            audio_track: asset.choice.audio,
            metadata: asset.metadata,
            created_at: rfc3339_millis(asset.created_unix_ms),
            updated_at: rfc3339_millis(asset.updated_unix_ms),
            clips: None,
        }
    }
}

/// Whether a thumbnail can be made.
pub fn has_picture(asset: &AssetRecord) -> bool {
    asset.width > 0 && matches!(asset.kind, Some(AssetKind::Video | AssetKind::Image))
}

/// Where an asset's file is.
pub fn content_url(id: AssetId) -> String {
    format!("/v1/assets/{id}/content")
}
