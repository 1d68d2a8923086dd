//! Checks whether ONNX Runtime can use CUDA on this machine and, if not, what is missing.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::mem::ManuallyDrop;
use std::path::Path;

use libloading::Library;

/// Why CUDA cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaProblem {
    /// The missing part of the installation.
    pub lack: CudaLack,
    /// Human-readable message.
    pub reason: String,
}

/// The part of a CUDA installation that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CudaLack {
    /// ONNX Runtime is a build for CPU only.
    Build,
    /// There is no driver, it does not start, or it finds no device.
    Device,
    /// CUDA or cuDNN libraries that do not load by name. ONNX Runtime may find them elsewhere.
    Libraries,
}

pub(super) const PROVIDERS: [&str; 2] =
    ["libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"];

/// Looks for the CUDA provider beside an ONNX Runtime library, initialises the driver, and loads the CUDA and
/// cuDNN libraries that the pinned build needs. `None` if all are present. Nothing runs on a device.
#[must_use]
pub fn cuda_problem(onnxruntime: &Path) -> Option<CudaProblem> {
    let folder = onnxruntime.parent().unwrap_or(Path::new("."));
    if let Some(absent) = PROVIDERS.iter().find(|name| !folder.join(name).is_file()) {
        let reason = format!(
            "this ONNX Runtime is built for CPU only ({absent} is missing beside it); see `make native-cuda`"
        );
        return Some(CudaProblem { lack: CudaLack::Build, reason });
    }
    if let Some(reason) = driver_problem("libcuda.so.1") {
        return Some(CudaProblem { lack: CudaLack::Device, reason });
    }
    let wanted = ort::ep::cuda::CUDA_DYLIBS.iter().chain(ort::ep::cuda::CUDNN_DYLIBS);
    let absent: Vec<&str> = wanted.copied().filter(|name| load(name).is_none()).collect();
    (!absent.is_empty()).then(|| CudaProblem {
        lack: CudaLack::Libraries,
        reason: format!("cannot load these CUDA libraries (see LD_LIBRARY_PATH): {}", absent.join(", ")),
    })
}

#[allow(unsafe_code)]
fn load(name: &str) -> Option<ManuallyDrop<Library>> {
    // SAFETY: these are NVIDIA's own libraries, which ONNX Runtime would load in the same way. They stay
    // loaded: they keep process-wide state that does not survive unloading.
    unsafe { Library::new(name) }.ok().map(ManuallyDrop::new)
}

type Init = unsafe extern "C" fn(flags: c_uint) -> c_int;
type DeviceGetCount = unsafe extern "C" fn(count: *mut c_int) -> c_int;
type GetErrorString = unsafe extern "C" fn(error: c_int, text: *mut *const c_char) -> c_int;

/// Why the driver does not serve a device, in one line: ONNX Runtime's own message takes half a page.
#[allow(unsafe_code)]
fn driver_problem(library: &str) -> Option<String> {
    let Some(driver) = load(library) else {
        return Some(format!("no NVIDIA driver: cannot load {library}"));
    };
    let mut count: c_int = 0;
    // SAFETY: the types match cuda.h, whose driver API is stable; `cuInit` may be called repeatedly.
    let status = unsafe {
        let (Ok(init), Ok(device_count)) =
            (driver.get::<Init>(b"cuInit\0"), driver.get::<DeviceGetCount>(b"cuDeviceGetCount\0"))
        else {
            return Some(format!("{library} is not a CUDA driver"));
        };
        match init(0) {
            0 => device_count(&raw mut count),
            failed => failed,
        }
    };
    match (status, count) {
        (0, 1..) => None,
        (0, _) => Some("the NVIDIA driver finds no device".to_owned()),
        (failed, _) => {
            let said = error_text(&driver, failed).map(|text| format!("{text}, ")).unwrap_or_default();
            Some(format!("the NVIDIA driver does not start: {said}CUDA error {failed}"))
        }
    }
}

#[allow(unsafe_code)]
fn error_text(driver: &Library, error: c_int) -> Option<String> {
    let mut text: *const c_char = std::ptr::null();
    // SAFETY: the type matches cuda.h; the text it returns is static and ends with a NUL.
    unsafe {
        let error_string = driver.get::<GetErrorString>(b"cuGetErrorString\0").ok()?;
        let known = error_string(error, &raw mut text) == 0 && !text.is_null();
        known.then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_build_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let problem = cuda_problem(&dir.path().join("libonnxruntime.so.1.32.0")).unwrap();
        assert_eq!(problem.lack, CudaLack::Build);
        assert!(problem.reason.contains("built for CPU only"), "{}", problem.reason);
    }

    /// Builds a driver with given return values, and the text of one error.
    fn driver(folder: &Path, init: i32, devices: i32) -> String {
        let (source, library) = (folder.join("driver.c"), folder.join(format!("driver-{init}-{devices}.so")));
        let code = format!(
            "int cuInit(unsigned flags) {{ return {init}; }}\n\
             int cuDeviceGetCount(int *count) {{ *count = {devices}; return 0; }}\n\
             int cuGetErrorString(int error, const char **text) {{\n\
             if (error != 803) return 1;\n\
             *text = \"unsupported display driver\"; return 0; }}\n"
        );
        std::fs::write(&source, code).unwrap();
        let mut compiler = std::process::Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
        assert!(compiler.status().unwrap().success());
        library.display().to_string()
    }

    #[test]
    fn a_driver_that_serves_no_device_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let of = |init, devices| driver_problem(&driver(dir.path(), init, devices));
        assert_eq!(of(0, 1), None);
        assert_eq!(of(0, 0).unwrap(), "the NVIDIA driver finds no device");
        let told = "the NVIDIA driver does not start: unsupported display driver, CUDA error 803";
        assert_eq!(of(803, 1).unwrap(), told);
        assert_eq!(of(100, 1).unwrap(), "the NVIDIA driver does not start: CUDA error 100");
        assert!(driver_problem("libnothing-of-the-kind.so").unwrap().contains("no NVIDIA driver"));
        let foreign = dir.path().join("foreign.so");
        std::fs::write(&foreign, b"\x7fELF nonsense").unwrap();
        assert!(driver_problem(&foreign.display().to_string()).unwrap().contains("cannot load"));
    }
}
