//! What the pinned ffmpeg is asked for and what its log says: which tracks, at which times, through which filters. Nothing
//! here starts it.

pub mod filters;
pub mod picks;
pub mod said;
pub mod sampling;
pub mod scale;
pub mod sound;
pub mod timing;
pub mod tracks;
