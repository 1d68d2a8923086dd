//! The native parts of Triptych, ONNX Runtime and ffmpeg: where they are and which versions they have.

mod cuda;
mod integrity;
mod memory;
mod probe;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use cuda::{CudaLack, CudaProblem, cuda_problem};
pub use integrity::{installed_version, verify_cuda_providers, verify_ffmpeg, verify_onnxruntime};
pub use memory::{address_space_limit_bytes, available_memory_bytes};
pub use probe::{OLDEST_ONNXRUNTIME_MINOR, ffmpeg_version, onnxruntime_version};

/// Niceness of background work, which gets a smaller share of a contended processor.
const BACKGROUND_NICE: i32 = 5;

/// Gives the calling thread and its children lower priority than the threads that talk to clients, since a
/// refusal must not wait for a decoder or a tower. Best effort.
pub fn work_in_background() {
    if let Err(error) = rustix::process::setpriority_process(None, BACKGROUND_NICE) {
        tracing::debug!(%error, "could not set the priority of a thread");
    }
}

/// A native part that is missing or unusable.
#[derive(Debug, thiserror::Error)]
pub enum NativeError {
    /// Not found in any of the places searched.
    #[error("{part} was not found in {looked}; run `make native` or set {variable}")]
    Missing {
        /// Name of the part.
        part: &'static str,
        /// Places searched, comma-separated.
        looked: String,
        /// Environment variable that sets the path.
        variable: &'static str,
    },
    /// Found, but it cannot be used.
    #[error("{part} at {path} cannot be used: {reason}")]
    Unusable {
        /// Name of the part.
        part: &'static str,
        /// Path of the file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Found, but incomplete, or different from the bytes that were installed.
    #[error(
        "{part} at {path} is damaged: {reason}; run `make native` to fetch it again, or name another copy"
    )]
    Damaged {
        /// Name of the part.
        part: &'static str,
        /// Path of the file.
        path: String,
        /// How the file is damaged.
        reason: String,
    },
    /// Found, but older than Triptych requires.
    #[error("{part} at {path} is version {version}, but {oldest} or newer is required; run `make native`")]
    TooOld {
        /// Name of the part.
        part: &'static str,
        /// Path of the file.
        path: String,
        /// Version that the part reports.
        version: String,
        /// The oldest version that works.
        oldest: String,
    },
}

impl NativeError {
    /// Stable error code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "native_part_missing",
            Self::Unusable { .. } => "native_part_unusable",
            Self::Damaged { .. } => "native_part_damaged",
            Self::TooOld { .. } => "native_part_too_old",
        }
    }
}

const ONNXRUNTIME: &str = "ONNX Runtime";
const FFMPEG: &str = "ffmpeg";

/// Paths of the native parts.
#[derive(Debug, Clone)]
pub struct NativeParts {
    /// The library, `libonnxruntime.so.*`.
    pub onnxruntime: PathBuf,
    /// The ffmpeg executable.
    pub ffmpeg: PathBuf,
}

impl NativeParts {
    /// Finds both parts: first `ORT_DYLIB_PATH` and `TRIPTYCH_FFMPEG`, then `TRIPTYCH_NATIVE_DIR`, then
    /// `.triptych/native` in the working folder and beside the executable and its ancestors. The system's
    /// copies are used only with `TRIPTYCH_NATIVE=system`. A variable that is set is binding: if its path
    /// does not exist, that is an error, and no other copy is used instead.
    ///
    /// # Errors
    /// [`NativeError`].
    pub fn find() -> Result<Self, NativeError> {
        Ok(Self { onnxruntime: Self::find_onnxruntime()?, ffmpeg: Self::find_ffmpeg()? })
    }

    /// Finds only `libonnxruntime.so.*`.
    ///
    /// # Errors
    /// [`NativeError`].
    pub fn find_onnxruntime() -> Result<PathBuf, NativeError> {
        Surroundings::of_this_process().find(&ONNXRUNTIME_PART)
    }

    /// Finds only the ffmpeg executable.
    ///
    /// # Errors
    /// [`NativeError`].
    pub fn find_ffmpeg() -> Result<PathBuf, NativeError> {
        Surroundings::of_this_process().find(&FFMPEG_PART)
    }
}

/// How to search for one part.
struct Part {
    name: &'static str,
    variable: &'static str,
    /// The file in a native folder, if it exists.
    in_folder: fn(&Path) -> Option<PathBuf>,
    /// The system's own copy, if there is one. The argument is `PATH`.
    in_system: fn(Option<&OsString>) -> Option<PathBuf>,
}

const ONNXRUNTIME_PART: Part = Part {
    name: ONNXRUNTIME,
    variable: "ORT_DYLIB_PATH",
    in_folder: |folder| newest_library(&folder.join("onnxruntime")),
    in_system: |_| system_library_folders().iter().find_map(|folder| newest_library(folder)),
};

const FFMPEG_PART: Part = Part {
    name: FFMPEG,
    variable: "TRIPTYCH_FFMPEG",
    in_folder: |folder| Some(folder.join("ffmpeg").join("ffmpeg")).filter(|path| path.is_file()),
    in_system: |path| env::split_paths(path?).map(|dir| dir.join("ffmpeg")).find(|file| file.is_file()),
};

/// Everything that the search depends on, apart from the file system.
struct Surroundings {
    variable: fn(&str) -> Option<OsString>,
    working_dir: Option<PathBuf>,
    executable: Option<PathBuf>,
}

impl Surroundings {
    fn of_this_process() -> Self {
        Self {
            variable: |name| env::var_os(name).filter(|value| !value.is_empty()),
            working_dir: env::current_dir().ok(),
            executable: env::current_exe().ok(),
        }
    }

    fn find(&self, part: &Part) -> Result<PathBuf, NativeError> {
        let missing = |looked| NativeError::Missing { part: part.name, looked, variable: part.variable };
        if let Some(path) = (self.variable)(part.variable) {
            let path = PathBuf::from(path);
            return if path.is_file() {
                Ok(absolute(path))
            } else {
                Err(missing(format!("{} (from {})", path.display(), part.variable)))
            };
        }
        if (self.variable)("TRIPTYCH_NATIVE").is_some_and(|value| value == "system") {
            let path = (self.variable)("PATH");
            return (part.in_system)(path.as_ref())
                .ok_or_else(|| missing("the system's folders (TRIPTYCH_NATIVE=system)".to_owned()));
        }
        let folders = self.folders();
        folders.iter().find_map(|folder| (part.in_folder)(folder)).map(absolute).ok_or_else(|| {
            missing(folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", "))
        })
    }

    fn folders(&self) -> Vec<PathBuf> {
        if let Some(folder) = (self.variable)("TRIPTYCH_NATIVE_DIR") {
            return vec![PathBuf::from(folder)];
        }
        let beside_executable =
            self.executable.iter().flat_map(|exe| exe.ancestors().skip(1)).map(Path::to_owned);
        let mut folders = Vec::new();
        for base in self.working_dir.iter().cloned().chain(beside_executable) {
            let folder = base.join(".triptych").join("native");
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        folders
    }
}

/// `dlopen` treats a path without a slash as a name to search for, so paths are made absolute.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// The newest `libonnxruntime.so*` in a folder, ignoring provider libraries.
fn newest_library(folder: &Path) -> Option<PathBuf> {
    let version = |name: &str| -> Option<Vec<u32>> {
        let rest = name.strip_prefix("libonnxruntime.so")?;
        match rest.strip_prefix('.') {
            Some(numbers) => numbers.split('.').map(|n| n.parse().ok()).collect(),
            None => rest.is_empty().then(Vec::new),
        }
    };
    std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| Some((version(entry.file_name().to_str()?)?, entry.path())))
        .max()
        .map(|(_, path)| path)
}

fn system_library_folders() -> [PathBuf; 5] {
    [
        PathBuf::from("/usr/local/lib"),
        PathBuf::from(format!("/usr/lib/{}-linux-gnu", env::consts::ARCH)),
        PathBuf::from("/usr/lib64"),
        PathBuf::from("/usr/lib"),
        PathBuf::from("/opt/onnxruntime/lib"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native_folder(base: &Path) -> PathBuf {
        let folder = base.join(".triptych/native");
        std::fs::create_dir_all(folder.join("onnxruntime")).unwrap();
        std::fs::create_dir_all(folder.join("ffmpeg")).unwrap();
        for name in
            ["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.32.0", "libonnxruntime_providers_shared.so"]
        {
            std::fs::write(folder.join("onnxruntime").join(name), b"").unwrap();
        }
        std::fs::write(folder.join("ffmpeg/ffmpeg"), b"").unwrap();
        folder
    }

    #[test]
    fn parts_are_found_beside_an_ancestor_of_the_executable() {
        let base = tempfile::tempdir().unwrap();
        let folder = native_folder(base.path());
        let surroundings = Surroundings {
            variable: |_| None,
            working_dir: Some(base.path().join("elsewhere")),
            executable: Some(base.path().join("target/release/triptych")),
        };
        let library = surroundings.find(&ONNXRUNTIME_PART).unwrap();
        assert_eq!(library, folder.join("onnxruntime/libonnxruntime.so.1.32.0"), "the newest, by number");
        assert_eq!(surroundings.find(&FFMPEG_PART).unwrap(), folder.join("ffmpeg/ffmpeg"));
    }

    #[test]
    fn a_variable_that_points_at_nothing_is_an_error() {
        let base = tempfile::tempdir().unwrap();
        native_folder(base.path());
        let surroundings = Surroundings {
            variable: |name| (name == "ORT_DYLIB_PATH").then(|| OsString::from("/nowhere/libonnxruntime.so")),
            working_dir: Some(base.path().to_owned()),
            executable: None,
        };
        let error = surroundings.find(&ONNXRUNTIME_PART).unwrap_err();
        assert_eq!(error.code(), "native_part_missing");
        assert!(error.to_string().contains("/nowhere/libonnxruntime.so"), "{error}");
        assert!(surroundings.find(&FFMPEG_PART).is_ok());
    }

    #[test]
    fn every_place_looked_at_is_named() {
        let base = tempfile::tempdir().unwrap();
        let surroundings =
            Surroundings { variable: |_| None, working_dir: Some(base.path().to_owned()), executable: None };
        let message = surroundings.find(&FFMPEG_PART).unwrap_err().to_string();
        assert!(message.contains(&base.path().join(".triptych/native").display().to_string()), "{message}");
        assert!(message.contains("make native") && message.contains("TRIPTYCH_FFMPEG"), "{message}");
    }
}
