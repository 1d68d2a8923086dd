//! The spaces of a bundle, applied to the tracks of a library.

use crate::embed::Embedder;
use crate::model::Bundle;
use crate::store::ClipVector;
use crate::types::{Space, Track};

/// The spaces (with their dimensions) in which a track has vectors.
pub(crate) fn members_of(bundle: &Bundle, track: Track) -> Vec<(Space, usize)> {
    let serves = |space: &Space| track.modalities().iter().any(|modality| bundle.has(*modality, space));
    bundle.spaces().iter().filter(|(space, _)| serves(space)).cloned().collect()
}

/// The finest space that audio and video share, used to compare a clip's own two tracks.
pub(crate) fn agreement_space(bundle: &Bundle) -> Option<Space> {
    let serves = |space: &Space| Track::AGREEING.iter().all(|track| bundle.has(track.modality(), space));
    bundle.spaces().iter().map(|(space, _)| space).find(|space| serves(space)).cloned()
}

/// Cosine of a clip's own sound and picture.
pub(crate) fn agreement(vectors: &[ClipVector], space: &Space) -> Option<f32> {
    let of =
        |track| vectors.iter().find(|one| one.track == track && one.space == *space).map(|one| &one.vector);
    let [picture, sound] = Track::AGREEING.map(of);
    Some(picture?.cosine(sound?))
}

/// How assets are cut into clips, as text; it is part of their identity.
pub(crate) fn segmentation(embedder: &Embedder) -> String {
    let spec = embedder.bundle().clip_spec(embedder.stride_secs);
    format!("w{}/s{}", spec.window_secs(), spec.stride_secs)
}
