//! Reads the versions of the native parts, without assuming that they are what they claim to be.

use std::ffi::CStr;
use std::io::Read;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{FFMPEG, NativeError, ONNXRUNTIME};

/// How long a question to ffmpeg may take, and how often to check whether it is answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Bytes read of its answer.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;

/// The oldest ONNX Runtime (1.N) with the API that this program was compiled for.
pub const OLDEST_ONNXRUNTIME_MINOR: u32 = ort::MINOR_VERSION;

/// Version of an ONNX Runtime library as the library reports it, such as `1.32.0`. The `ort` crate panics or
/// hangs on a library that is missing, foreign or too old, so this check comes first.
///
/// # Errors
/// [`NativeError`] if it is missing, not ONNX Runtime, or older than [`OLDEST_ONNXRUNTIME_MINOR`].
pub fn onnxruntime_version(path: &Path) -> Result<String, NativeError> {
    if !path.is_file() {
        return Err(NativeError::Missing {
            part: ONNXRUNTIME,
            looked: path.display().to_string(),
            variable: "ORT_DYLIB_PATH",
        });
    }
    super::verify_onnxruntime(path)?;
    let unusable = |reason: String| NativeError::Unusable {
        part: ONNXRUNTIME,
        path: path.display().to_string(),
        reason,
    };
    let (version, offers_api) = ask_library(path).map_err(unusable)?;
    let minor = version.strip_prefix("1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    match minor {
        Some(minor) if minor >= OLDEST_ONNXRUNTIME_MINOR && offers_api => Ok(version),
        Some(_) => Err(NativeError::TooOld {
            part: ONNXRUNTIME,
            path: path.display().to_string(),
            version,
            oldest: format!("1.{OLDEST_ONNXRUNTIME_MINOR}"),
        }),
        None => Err(unusable(format!("expected a version 1.N, got `{version}`"))),
    }
}

/// Returns the version string, and whether the library offers the API version that was compiled against.
#[allow(unsafe_code)]
fn ask_library(path: &Path) -> Result<(String, bool), String> {
    type GetApiBase = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: loading runs the library's initialisers; the path comes from the operator, who also chooses the
    // program to run. The library is never unloaded, since ONNX Runtime keeps thread-local state.
    let library = ManuallyDrop::new(unsafe { libloading::Library::new(path) }.map_err(|e| e.to_string())?);
    // SAFETY: the symbol has this type in every release of ONNX Runtime.
    let get_base = unsafe { library.get::<GetApiBase>(c"OrtGetApiBase") }
        .map_err(|_| "it does not export OrtGetApiBase, so it is not ONNX Runtime".to_owned())?;
    // SAFETY: takes nothing and returns a pointer to a static table, or null.
    let base = unsafe { get_base().as_ref() }.ok_or("it offers no API")?;
    // SAFETY: the table's functions are valid as long as the library is loaded, which is for ever.
    let version = unsafe { (base.GetVersionString)() };
    if version.is_null() {
        return Err("it does not report its version".to_owned());
    }
    // SAFETY: not null, and documented as a static null-terminated string.
    let version = unsafe { CStr::from_ptr(version) }.to_string_lossy().into_owned();
    // SAFETY: returns null for an API version it does not know.
    let api = unsafe { (base.GetApi)(ort::sys::ORT_API_VERSION) };
    Ok((version, !api.is_null()))
}

/// Version of an ffmpeg executable as the executable reports it, such as `9.0.2-static`.
///
/// # Errors
/// [`NativeError`] if it does not run, does not answer within 10 s, or lacks the `fd:` protocol, through
/// which the sandboxed decode worker gets its input.
pub fn ffmpeg_version(path: &Path) -> Result<String, NativeError> {
    let unusable =
        |reason: String| NativeError::Unusable { part: FFMPEG, path: path.display().to_string(), reason };
    super::verify_ffmpeg(path)?;
    let text = output_of(path, "-version").map_err(unusable)?;
    let version = text
        .strip_prefix("ffmpeg version ")
        .and_then(|rest| rest.split_whitespace().next())
        .ok_or_else(|| unusable("it does not answer `-version` as ffmpeg does".to_owned()))?
        .to_owned();
    let protocols = output_of(path, "-protocols").map_err(unusable)?;
    if protocols.split_whitespace().any(|word| word == "fd") {
        Ok(version)
    } else {
        let path = path.display().to_string();
        Err(NativeError::TooOld {
            part: FFMPEG,
            path,
            version,
            oldest: "6.0 (with the fd: protocol)".to_owned(),
        })
    }
}

/// Runs a command with little output; kills it if it does not finish in time.
fn output_of(path: &Path, argument: &str) -> Result<String, String> {
    let mut child = Command::new(path)
        .args(["-hide_banner", argument])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        // Invalid UTF-8 ends the reading. The text read so far is then not a valid answer of ffmpeg.
        stdout.map(|mut pipe| pipe.by_ref().take(MAX_OUTPUT_BYTES).read_to_string(&mut text));
        text
    });
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) if status.success() => {
                return reader.join().map_err(|_| "its output could not be read".to_owned());
            }
            Some(status) => return Err(format!("`{argument}` failed: {status}")),
            None if Instant::now() < deadline => std::thread::sleep(LOOK_EVERY),
            None => {
                child.kill().and_then(|()| child.wait()).map_err(|e| e.to_string())?;
                return Err(format!("`{argument}` did not finish within {} s", ANSWER_TIMEOUT.as_secs()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    fn script(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("ffmpeg");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("libonnxruntime.so.1.32.0");
        assert_eq!(onnxruntime_version(&path).unwrap_err().code(), "native_part_missing");
        std::fs::write(&path, b"not a library").unwrap();
        let error = onnxruntime_version(&path).unwrap_err();
        assert_eq!(error.code(), "native_part_damaged");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }

    #[test]
    fn another_library_is_not_taken_for_onnx_runtime() {
        let Some(libc) =
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6", "/lib64/libc.so.6"]
                .iter()
                .map(Path::new)
                .find(|path| path.is_file())
        else {
            eprintln!("SKIPPED: no libc.so.6 in the usual places");
            return;
        };
        let error = onnxruntime_version(libc).unwrap_err();
        assert!(error.to_string().contains("OrtGetApiBase"), "{error}");
    }

    #[test]
    fn an_ffmpeg_must_answer_and_know_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let old = script(dir.path(), "#!/bin/sh\necho 'ffmpeg version 4.4.2 Copyright'\n");
        let error = ffmpeg_version(&old).unwrap_err();
        assert_eq!(error.code(), "native_part_too_old", "{error}");
        let other = script(dir.path(), "#!/bin/sh\necho hello\n");
        assert_eq!(ffmpeg_version(&other).unwrap_err().code(), "native_part_unusable");
        let failing = script(dir.path(), "#!/bin/sh\nexit 3\n");
        assert_eq!(ffmpeg_version(&failing).unwrap_err().code(), "native_part_unusable");
    }
}
