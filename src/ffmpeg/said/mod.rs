//! ffmpeg's description of a file in its log.

mod log;
mod seen;
mod stream;
mod video;

pub use log::FfmpegLog;
pub use seen::{PICTURE_BASE, SOUND_BASE, STREAM_STEP, Seen};
pub use stream::{Stream, cleaned};
pub use video::{Fields, MOST_STRETCH, VideoLine};

/// Characters kept of a message. It may quote the file, and is stored.
pub const MOST_CHARS: usize = 200;
