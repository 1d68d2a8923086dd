//! Whether ONNX Runtime could use CUDA here, and if not, what is missing.

use std::mem::ManuallyDrop;
use std::path::Path;

/// Why CUDA cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaProblem {
    /// Whether a CUDA build of ONNX Runtime is installed at all.
    pub build_installed: bool,
    /// A sentence.
    pub reason: String,
}

const PROVIDERS: [&str; 2] = ["libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"];

/// Looks for the CUDA provider beside an ONNX Runtime library, the driver, and the CUDA and cuDNN
/// libraries the pinned build needs; `None` where all load. It loads libraries but touches no device.
#[must_use]
pub fn cuda_problem(onnxruntime: &Path) -> Option<CudaProblem> {
    let folder = onnxruntime.parent().unwrap_or(Path::new("."));
    if let Some(absent) = PROVIDERS.iter().find(|name| !folder.join(name).is_file()) {
        return Some(CudaProblem {
            build_installed: false,
            reason: format!(
                "this ONNX Runtime is a CPU build ({absent} is not beside it); see `make native-cuda`"
            ),
        });
    }
    let installed = |reason| Some(CudaProblem { build_installed: true, reason });
    if !loads("libcuda.so.1") {
        return installed("no NVIDIA driver: libcuda.so.1 cannot be loaded".to_owned());
    }
    let wanted = ort::ep::cuda::CUDA_DYLIBS.iter().chain(ort::ep::cuda::CUDNN_DYLIBS);
    let absent: Vec<&str> = wanted.copied().filter(|name| !loads(name)).collect();
    if absent.is_empty() {
        None
    } else {
        installed(format!(
            "these CUDA libraries cannot be loaded (see LD_LIBRARY_PATH): {}",
            absent.join(", ")
        ))
    }
}

#[allow(unsafe_code)]
fn loads(name: &str) -> bool {
    // SAFETY: these are NVIDIA's own libraries, which ONNX Runtime would load just so. They stay
    // loaded: they keep process-wide state that does not survive unloading.
    unsafe { libloading::Library::new(name) }.map(ManuallyDrop::new).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_build_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let problem = cuda_problem(&dir.path().join("libonnxruntime.so.1.32.0")).unwrap();
        assert!(!problem.build_installed);
        assert!(problem.reason.contains("CPU build"), "{}", problem.reason);
    }
}
