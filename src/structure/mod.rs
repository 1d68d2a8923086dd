//! What a file's own bytes say of it, which ffmpeg does not: its length, what is missing, and whether another file
//! follows. The decode child asks; nothing here decodes.

pub mod broadcast;
pub mod sound;
pub mod trailer;
pub mod whole;
pub mod window;
