//! Requests to the pinned ffmpeg (tracks, times, filters) and the meaning of its log. Nothing here starts it.

pub mod filters;
pub mod picks;
pub mod said;
pub mod sampling;
pub mod scale;
pub mod sound;
pub mod timing;
pub mod tracks;
