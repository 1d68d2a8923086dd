//! What assets and lists look like from outside.

use serde::Serialize;
use utoipa::ToSchema;

use crate::store::{AssetRecord, AssetState, Damage};
use crate::types::{AssetId, AssetKind, TimeSpan, Track, TrackInfo, rfc3339_millis};

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    /// Always `list`.
    pub object: &'static str,
    /// This page.
    pub data: Vec<T>,
    /// Give it as `after` for the next page; null at the end.
    pub next: Option<String>,
}

impl<T> List<T> {
    /// A page that `next` follows.
    pub fn new(data: Vec<T>, next: Option<String>) -> Self {
        Self { object: "list", data, next }
    }
}

/// Why an asset failed, or why only a part of it could be read.
#[derive(Debug, Serialize, ToSchema)]
pub struct AssetError {
    /// Stable snake_case code.
    pub code: String,
    /// A sentence.
    pub message: String,
}

/// One time window of an asset.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClipView {
    /// When.
    #[serde(flatten)]
    pub span: TimeSpan,
    /// Tracks that have vectors there.
    pub tracks: Vec<Track>,
}

/// One video, sound or picture file.
#[derive(Debug, Serialize, ToSchema)]
pub struct AssetView {
    /// Always `asset`.
    pub object: &'static str,
    /// Its id.
    pub id: AssetId,
    /// Name shown to people.
    pub name: String,
    /// What it is; null until known.
    pub kind: Option<AssetKind>,
    /// State.
    pub state: AssetState,
    /// Why it failed, or why only a part of it could be read.
    pub error: Option<AssetError>,
    /// Seconds; 0 for a picture, and until known.
    pub duration_secs: f64,
    /// Pixels; 0 without a picture.
    pub width: u32,
    /// Pixels; 0 without a picture.
    pub height: u32,
    /// Bytes.
    pub size_bytes: u64,
    /// SHA-256 of the bytes, lower-case hex.
    pub sha256: String,
    /// Number of clips.
    pub clip_count: u64,
    /// What is known to be wrong with it: its file is `missing` or `changed`, or its `metadata` cannot be read.
    pub damage: Option<Damage>,
    /// The tracks of its file, and which of them were used; empty until known, and of a picture.
    pub tracks: Vec<TrackInfo>,
    /// The picture track that was chosen when it was added; null where the server chose.
    pub video_track: Option<u16>,
    /// The sound track that was chosen.
    pub audio_track: Option<u16>,
    /// The user's JSON object.
    #[schema(value_type = Object)]
    pub metadata: serde_json::Value,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// RFC 3339, UTC.
    pub updated_at: String,
    /// Where the file itself is.
    pub content_url: String,
    /// Where a picture of it is; null without one.
    pub thumbnail_url: Option<String>,
    /// Its clips in time order, when asked for.
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
            error: asset.error.map(|(code, message)| AssetError { code, message }),
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
