//! The format of a file, by its name, its first bytes and the headers of pictures: whether it is media, and
//! which decoder may read it. Nothing here decodes.

pub mod headers;
mod kinds;
pub mod sniff;

pub use kinds::{HEAD_BYTES, NameSays, head_is_media, name_says};
