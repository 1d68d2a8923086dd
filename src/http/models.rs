//! What is loaded.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::state::AppState;
use super::views::List;
use crate::types::{Modality, ModelId, Space};

/// One space of a model.
#[derive(Debug, Serialize, ToSchema)]
pub struct SpaceView {
    /// Its name.
    name: Space,
    /// Length of its vectors.
    dim: usize,
    /// Modalities that have vectors in it: those can be compared in it.
    members: Vec<Modality>,
}

/// A loaded model.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelView {
    /// Always `model`.
    object: &'static str,
    /// Its name, as the `model` field of requests takes it.
    id: String,
    /// Digest of its manifest, which holds the digest of every file.
    digest: ModelId,
    /// Where it runs: `cpu` or `cuda:N`.
    device: String,
    /// Its spaces, the finest first.
    spaces: Vec<SpaceView>,
    /// Seconds of one clip.
    clip_secs: f64,
    /// Seconds from one clip's start to the next one's.
    stride_secs: f64,
    /// Its manifest.
    #[schema(value_type = Object)]
    manifest: serde_json::Value,
}

/// The loaded model.
#[utoipa::path(get, path = "/v1/models", tag = "server",
    responses((status = 200, description = "One model", body = List<ModelView>)))]
pub async fn list(State(state): State<AppState>) -> Json<List<ModelView>> {
    let embedder = state.library.embedder();
    let bundle = embedder.bundle();
    let modalities = [Modality::Text, Modality::Image, Modality::Audio, Modality::Video];
    let spaces = bundle.spaces().iter().map(|(space, dim)| SpaceView {
        name: space.clone(),
        dim: *dim,
        members: modalities.into_iter().filter(|modality| bundle.has(*modality, space)).collect(),
    });
    let spec = bundle.clip_spec(embedder.stride_secs);
    let model = ModelView {
        object: "model",
        id: bundle.name().to_owned(),
        digest: bundle.id().clone(),
        device: embedder.towers.device_name(),
        spaces: spaces.collect(),
        clip_secs: if spec.fps > 0.0 { spec.frames as f64 / spec.fps } else { 0.0 },
        stride_secs: spec.stride_secs,
        manifest: bundle.manifest_json().clone(),
    };
    Json(List::new(vec![model], None))
}
