//! Facts in a file's own bytes that ffmpeg does not report: its length, missing parts, and another file after
//! its end. The decode child calls it; nothing here decodes.

pub mod broadcast;
pub mod sound;
pub mod trailer;
pub mod whole;
pub mod window;
