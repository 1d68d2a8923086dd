//! ONNX Runtime: loads the library once, and creates sessions on a device.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, PrepackedWeights, SessionBuilder};
use ort::value::{DynValue, Outlet, TensorElementType};

use super::ModelError;
use crate::manifest::{Dtype, TowerSpec};
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

/// A tower's verified graph, with the files that its weights lie in.
pub(super) struct Graph {
    pub bytes: Vec<u8>,
    /// By the name that the graph gives them.
    pub weights: Vec<(String, Arc<[u8]>)>,
    /// Weights that other graphs name, too, by the names of the initializers.
    pub shared: Vec<(String, Arc<DynValue>)>,
}

/// Creates sessions; shared by the workers.
pub(super) struct SessionMaker {
    environment: Environment,
    place: Place,
    packing: Packing,
    packed: PrepackedWeights,
}

/// What happens to weights that several graphs name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// They are packed for the kernels, once for all sessions, beside the weights themselves.
    Once,
    /// They are used as they are, by slower kernels: memory does not suffice for more.
    Never,
}

impl SessionMaker {
    pub fn new(library: &Path, place: Place, packing: Packing) -> Result<Self, ModelError> {
        if matches!(place, Place::Cuda(_)) {
            native::verify_cuda_providers(library)?;
        }
        // Before anything else of ONNX Runtime, which this loads.
        let environment = environment(library)?;
        Ok(Self { environment, place, packing, packed: PrepackedWeights::new() })
    }

    /// Creates the session of one tower, and compares its inputs and outputs with the manifest. Weights in
    /// other files are taken from memory: the bytes that were verified, whatever the files hold by now.
    pub fn session(&self, spec: &TowerSpec, graph: &Graph, threads: usize) -> Result<Session, ModelError> {
        let mut builder = self.builder(spec.modality, threads)?;
        for (name, bytes) in &graph.weights {
            builder = builder
                .with_external_initializer_file_in_memory(name, Arc::clone(bytes))
                .map_err(|error| ModelError::tower(spec.modality, error.to_string()))?;
        }
        if !graph.shared.is_empty() {
            let failed = |error: &dyn ToString| ModelError::tower(spec.modality, error.to_string());
            builder = match self.packing {
                Packing::Once => builder.with_prepacked_weights(&self.packed).map_err(|e| failed(&e))?,
                Packing::Never => builder.with_prepacking(false).map_err(|e| failed(&e))?,
            };
            for (name, value) in &graph.shared {
                builder = builder.with_initializer(name, Arc::clone(value)).map_err(|e| failed(&e))?;
            }
        }
        let session =
            builder.commit_from_memory(&graph.bytes).map_err(|e| ModelError::tower(spec.modality, e))?;
        check_signature(&session, spec)
            .map_err(|reason| ModelError::ManifestInvalid { file: spec.file.clone(), reason })?;
        Ok(session)
    }

    fn builder(&self, tower: Modality, threads: usize) -> Result<SessionBuilder, ModelError> {
        let failed = |error: &dyn ToString| ModelError::tower(tower, error.to_string());
        let builder = Session::builder(&self.environment).map_err(|e| failed(&e))?;
        let builder = builder.with_optimization_level(GraphOptimizationLevel::All).map_err(|e| failed(&e))?;
        let builder = builder.with_log_level(LogLevel::Warning).map_err(|e| failed(&e))?;
        let builder = builder.with_inter_threads(1).map_err(|e| failed(&e))?;
        // One thread per session where weights are small: the workers provide the parallelism
        // (benches/towers.rs has the ratio).
        let builder = builder.with_intra_threads(threads).map_err(|e| failed(&e))?;
        match self.place {
            // An arena of ONNX Runtime keeps the memory of its largest batch for ever.
            Place::Cpu => builder
                .with_execution_providers([ort::ep::CPU::default().with_arena_allocator(false).build()])
                .map_err(|e| failed(&e)),
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

/// Compares the graph with the manifest: names, types and, as far as the graph states them, lengths.
fn check_signature(session: &Session, spec: &TowerSpec) -> Result<(), String> {
    let names: Vec<&str> = session.inputs().iter().map(Outlet::name).collect();
    let missing = spec.inputs.iter().find(|input| !names.contains(&input.name.as_str()));
    if let Some(missing) = missing.filter(|_| spec.inputs.len() > 1 || names.len() > 1) {
        return Err(format!(
            "the manifest names the input `{}` for {}, but the graph's inputs are {names:?}",
            missing.name,
            missing.supply.as_str()
        ));
    }
    if names.len() != spec.inputs.len() || missing.is_some() {
        let ours: Vec<&str> = spec.inputs.iter().map(|input| input.name.as_str()).collect();
        return Err(format!("the graph's inputs are {names:?}, but the manifest names {ours:?}"));
    }
    for outlet in session.inputs() {
        let Some(input) = spec.inputs.iter().find(|input| input.name == outlet.name()) else { continue };
        let expected = match input.dtype() {
            Dtype::U8 => TensorElementType::Uint8,
            Dtype::F32 => TensorElementType::Float32,
            Dtype::I64 => TensorElementType::Int64,
        };
        let lengths: Vec<Option<usize>> = std::iter::once(None).chain(input.row.iter().copied()).collect();
        check_outlet(outlet, "input", expected, &lengths)?;
    }
    for output in &spec.outputs {
        let name = &output.name;
        let space = output.spaces.first().map_or("", |space| space.as_str());
        let outlet = session.outputs().iter().find(|outlet| outlet.name() == name);
        let outlet = outlet.ok_or_else(|| format!("the graph has no output `{name}` for space `{space}`"))?;
        check_outlet(outlet, "output", TensorElementType::Float32, &[None, Some(output.dim)])?;
    }
    Ok(())
}

/// Compares one input or output; `None` accepts any length, and so does the graph where it states none.
fn check_outlet(
    outlet: &Outlet,
    what: &str,
    expected: TensorElementType,
    lengths: &[Option<usize>],
) -> Result<(), String> {
    let name = outlet.name();
    let got = outlet.dtype().tensor_type().ok_or_else(|| format!("{what} `{name}` is not a tensor"))?;
    if got != expected {
        return Err(format!(
            "{what} `{name}` has values of {got:?} in the graph, but the manifest makes them {expected:?}"
        ));
    }
    let Some(shape) = outlet.dtype().tensor_shape() else { return Ok(()) };
    let fits = shape.len() == lengths.len()
        && shape.iter().zip(lengths).all(|(stated, wanted)| {
            // The batch, and a length that differs between inputs, must be open in the graph.
            *stated < 0 || wanted.is_some_and(|wanted| *stated == wanted as i64)
        });
    // A graph that states no shape at all has an empty one here.
    if fits || shape.is_empty() {
        return Ok(());
    }
    let said = |length: &Option<usize>| length.map_or_else(|| "any".to_owned(), |length| length.to_string());
    let wanted: Vec<String> = lengths.iter().map(said).collect();
    let stated: Vec<i64> = shape.iter().copied().collect();
    Err(format!(
        "{what} `{name}` has the shape {stated:?} in the graph, but the manifest makes it [{}]",
        wanted.join(", ")
    ))
}
