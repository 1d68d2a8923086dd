//! The native parts Triptych runs on: ONNX Runtime and ffmpeg, where they are, which version.

use std::path::PathBuf;

/// Where the native parts were found.
#[derive(Debug, Clone)]
pub struct NativeParts {
    /// `libonnxruntime.so.*`
    pub onnxruntime: PathBuf,
    /// The ffmpeg executable.
    pub ffmpeg: PathBuf,
}
