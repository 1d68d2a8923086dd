//! ONNX Runtime: loads the library once, and creates sessions on a device.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::ModelError;
use super::manifest::TowerSpec;
use crate::native;
use crate::types::Modality;

/// The only environment of this process, and the library that it came from. It lives as long as the process.
static ENVIRONMENT: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// The only ONNX Runtime environment of this process, created from this library on the first call: no
/// telemetry; warnings and errors go to the log.
///
/// # Errors
/// [`ModelError`] `onnxruntime_missing` (also if another library was loaded before) and
/// `onnxruntime_too_old`.
pub fn environment(library: &Path) -> Result<Environment, ModelError> {
    let mut slot = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((loaded, environment)) = slot.as_ref() {
        if loaded == library {
            return Ok(environment.clone());
        }
        return Err(ModelError::RuntimeMissing(format!(
            "ONNX Runtime was loaded from {}; a process cannot load {} as well",
            loaded.display(),
            library.display()
        )));
    }
    // Check this before `ort` loads the library: `ort` panics or hangs on a wrong one.
    let version = native::onnxruntime_version(library)?;
    let environment = ort::init_from(library)
        .map_err(|error| ModelError::RuntimeMissing(error.to_string()))?
        .with_name("triptych")
        .with_telemetry(false)
        .build()
        .map_err(|error| ModelError::RuntimeMissing(error.to_string()))?;
    environment.set_log_level(LogLevel::Warning);
    tracing::debug!(version, path = %library.display(), "ONNX Runtime loaded");
    *slot = Some((library.to_owned(), environment.clone()));
    Ok(environment)
}

/// The device that sessions run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Cpu,
    Cuda(u32),
}

/// Creates sessions; shared by the workers.
pub(super) struct SessionMaker {
    environment: Environment,
    place: Place,
}

impl SessionMaker {
    pub fn new(library: &Path, place: Place) -> Result<Self, ModelError> {
        if matches!(place, Place::Cuda(_)) {
            native::verify_cuda_providers(library)?;
        }
        Ok(Self { environment: environment(library)?, place })
    }

    /// Creates the session of one tower, and compares its inputs and outputs with the manifest.
    pub fn session(&self, spec: &TowerSpec, bytes: &[u8]) -> Result<Session, ModelError> {
        let mut builder = self.builder(spec.modality)?;
        let session = builder.commit_from_memory(bytes).map_err(|e| ModelError::tower(spec.modality, e))?;
        check_signature(&session, spec)
            .map_err(|reason| ModelError::ManifestInvalid { file: spec.file.clone(), reason })?;
        Ok(session)
    }

    fn builder(&self, tower: Modality) -> Result<SessionBuilder, ModelError> {
        let failed = |error: &dyn ToString| ModelError::tower(tower, error.to_string());
        let builder = Session::builder(&self.environment).map_err(|e| failed(&e))?;
        let builder = builder.with_optimization_level(GraphOptimizationLevel::All).map_err(|e| failed(&e))?;
        let builder = builder.with_log_level(LogLevel::Warning).map_err(|e| failed(&e))?;
        let builder = builder.with_inter_threads(1).map_err(|e| failed(&e))?;
        // One thread per session: the workers provide the parallelism (benches/towers.rs has the ratio).
        let builder = builder.with_intra_threads(1).map_err(|e| failed(&e))?;
        match self.place {
            Place::Cpu => Ok(builder),
            Place::Cuda(device) => {
                // Heuristic: an exhaustive search would run again for every batch size. No TF32: its errors
                // exceed what the golden vectors allow.
                let provider = ort::ep::CUDA::default()
                    .with_device_id(i32::try_from(device).unwrap_or(i32::MAX))
                    .with_conv_algorithm_search(ort::ep::cuda::ConvAlgorithmSearch::Heuristic)
                    .with_tf32(false)
                    .build()
                    .error_on_failure();
                builder
                    .with_execution_providers([provider])
                    .map_err(|error| ModelError::CudaUnavailable(error.to_string()))
            }
        }
    }
}

/// Compares the graph with the manifest: names and, if the graph states it, the dimension of each output.
fn check_signature(session: &Session, spec: &TowerSpec) -> Result<(), String> {
    let names: Vec<&str> = session.inputs().iter().map(ort::value::Outlet::name).collect();
    if names != [spec.input.as_str()] {
        return Err(format!("the graph's inputs are {names:?}, but the manifest names `{}`", spec.input));
    }
    for (space, name, dim) in &spec.outputs {
        let output = session.outputs().iter().find(|output| output.name() == name);
        let output = output.ok_or_else(|| format!("the graph has no output `{name}` for space `{space}`"))?;
        let last = output.dtype().tensor_shape().and_then(|shape| shape.last().copied());
        if last.is_some_and(|last| last >= 0 && last != *dim as i64) {
            return Err(format!("output `{name}` has {last:?} values, but space `{space}` has {dim}"));
        }
    }
    Ok(())
}
