//! The sessions of one worker; runs batches in them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ort::session::Session;

use super::ModelError;
use super::runtime::{Graph, SessionMaker};
use super::tower::{Input, RowResults, Scratch, run};
use crate::manifest::TowerSpec;

/// The sessions of one thread.
pub(super) struct Sessions {
    pub specs: Arc<[TowerSpec]>,
    sessions: Vec<Option<Session>>,
    scratch: Scratch,
}

impl Sessions {
    /// Creates the sessions of some of the towers.
    pub fn new(
        maker: &SessionMaker,
        specs: &[TowerSpec],
        graphs: &[Graph],
        towers: &[usize],
        threads: usize,
    ) -> Result<Self, ModelError> {
        let mut sessions: Vec<Option<Session>> = specs.iter().map(|_| None).collect();
        for &tower in towers {
            let spec = &specs[tower];
            sessions[tower] = Some(maker.session(spec, &graphs[tower], threads)?);
        }
        Ok(Self { specs: specs.into(), sessions, scratch: Scratch::default() })
    }

    /// Runs one batch; if memory did not suffice for several inputs, runs it again in two halves.
    ///
    /// # Errors
    /// [`ModelError::TowerFailed`] if the run as a whole failed.
    pub fn run(&mut self, tower: usize, inputs: &[&Input]) -> Result<RowResults, ModelError> {
        match self.run_once(tower, inputs) {
            Err(ModelError::TowerFailed { reason, .. }) if inputs.len() > 1 && is_out_of_memory(&reason) => {
                tracing::warn!(batch = inputs.len(), reason, "out of memory in a tower; trying halves");
                let (first, second) = inputs.split_at(inputs.len() / 2);
                let mut rows = self.run_once(tower, first)?;
                rows.extend(self.run_once(tower, second)?);
                Ok(rows)
            }
            outcome => outcome,
        }
    }

    fn run_once(&mut self, tower: usize, inputs: &[&Input]) -> Result<RowResults, ModelError> {
        let spec = &self.specs[tower];
        let session = self.sessions[tower].as_mut().ok_or(ModelError::NotSupported(spec.modality))?;
        let scratch = &mut self.scratch;
        // A panic must fail these callers, but not end the worker, which later ones need.
        let outcome = catch_unwind(AssertUnwindSafe(|| run(session, spec, inputs, scratch)));
        match outcome {
            Ok(rows) => rows.map_err(|error| ModelError::tower(spec.modality, error)),
            Err(_) => Err(ModelError::tower(spec.modality, "it panicked")),
        }
    }
}

fn is_out_of_memory(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["out of memory", "failed to allocate", "alloc_failed", "bad_alloc", "bfcarena"]
        .iter()
        .any(|sign| reason.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_about_memory_are_told_from_others() {
        for message in [
            "Non-zero status code: /bfc_arena.cc BFCArena::AllocateRawInternal Available memory of 0",
            "Failed to allocate memory for requested buffer of size 1073741824",
            "CUDNN failure 4002: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ALLOC_FAILED",
            "CUDA failure 2: out of memory",
        ] {
            assert!(is_out_of_memory(message), "{message}");
        }
        assert!(!is_out_of_memory("Got invalid dimensions for input: frames"));
    }
}
