//! The ffmpeg of tests that need no server.

use std::path::{Path, PathBuf};

/// ffmpeg; `None` if it is missing, which is printed.
pub fn ffmpeg() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = std::env::var_os("TRIPTYCH_FFMPEG").map(PathBuf::from);
    let native = std::env::var_os("TRIPTYCH_NATIVE_DIR").map(|dir| Path::new(&dir).join("ffmpeg/ffmpeg"));
    let found = named.or(native).unwrap_or_else(|| root.join(".triptych/native/ffmpeg/ffmpeg"));
    if found.is_file() {
        return Some(found);
    }
    eprintln!("SKIPPED: no ffmpeg at {}; run `make native`", found.display());
    None
}
