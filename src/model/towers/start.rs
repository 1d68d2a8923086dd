//! Starts the workers of all towers.

use std::sync::{Arc, mpsc};

use crate::manifest::TowerSpec;
use crate::model::ModelError;
use crate::model::golden::GoldenResult;
use crate::model::queue::Batching;
use crate::model::runtime::Place;
use crate::model::worker::{Group, Pool, Shared};
use crate::native::{self, NativeParts};
use crate::types::Modality;

/// Inputs that a GPU takes at a time: at most this many bytes, and this many rows.
const CUDA_BATCH_BYTES: usize = 128 << 20;
const CUDA_BATCH_ROWS: usize = 64;

/// Adds the likely cause to an error of ONNX Runtime about CUDA.
pub(super) fn explain_cuda(error: ModelError, native: &NativeParts) -> ModelError {
    match error {
        ModelError::CudaUnavailable(message) => {
            let problem = native::cuda_problem(&native.onnxruntime);
            ModelError::CudaUnavailable(problem.map_or(message, |problem| problem.reason))
        }
        other => other,
    }
}

/// Maximum number of inputs per run, unless they take too long (`Queue::ran`). On the CPU, batches do not
/// speed up video, but they do speed up sound and text (benches/towers.rs). On CUDA they speed up everything:
/// eight clips of the paper's size, which are 128 MiB, reach 85 % of the rate of 32
/// (docs/measurements/gpu.md).
pub(super) fn batching(place: Place, spec: &TowerSpec) -> Batching {
    match place {
        Place::Cpu => {
            let max = match spec.modality {
                Modality::Video | Modality::Image => 1,
                Modality::Audio => 8,
                Modality::Text => 32,
            };
            Batching { max, powers_of_two: false }
        }
        Place::Cuda(_) => {
            let row_bytes = spec.row_len() * 4;
            Batching {
                max: (CUDA_BATCH_BYTES / row_bytes.max(1)).clamp(1, CUDA_BATCH_ROWS),
                powers_of_two: true,
            }
        }
    }
}

pub(super) type Started = (Vec<Pool>, Vec<GoldenResult>);

/// Starts the workers and waits until all have passed the goldens.
pub(super) fn start(shared: &Arc<Shared>, groups: &[Group]) -> Result<Started, ModelError> {
    let (ready, results) = mpsc::channel();
    let mut pools = Vec::new();
    for group in groups {
        let pool = Pool::start(shared, group, &ready);
        pools.push(pool.map_err(|error| {
            let tower = group.towers.first().map_or(Modality::Text, |tower| shared.specs[*tower].modality);
            ModelError::tower(tower, format!("could not start its thread: {error}"))
        })?);
    }
    drop(ready);
    let mut goldens: Vec<GoldenResult> = Vec::new();
    for result in results {
        for new in result? {
            match goldens.iter_mut().find(|old| (&old.name, &old.space) == (&new.name, &new.space)) {
                Some(old) => {
                    old.worst_one_minus_cosine = old.worst_one_minus_cosine.max(new.worst_one_minus_cosine);
                }
                None => goldens.push(new),
            }
        }
    }
    Ok((pools, goldens))
}
