//! Worker threads: each owns one session per tower, proves it against the goldens, then serves the queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use ort::session::Session;

use super::ModelError;
use super::golden::{GoldenResult, GoldenSet};
use super::manifest::TowerSpec;
use super::queue::{Answer, Batching, Job, Queue};
use super::runtime::SessionMaker;
use super::tower::{Input, RowResults, Scratch, run};

/// Everything the workers share.
pub(super) struct Shared {
    pub specs: Vec<TowerSpec>,
    pub batching: Vec<Batching>,
    pub sessions: SessionMaker,
    pub goldens: GoldenSet,
    /// The ONNX files, by tower.
    pub graphs: Vec<Vec<u8>>,
}

/// Sessions of one thread.
pub(super) struct Worker {
    specs: Arc<[TowerSpec]>,
    sessions: Vec<Option<Session>>,
    scratch: Scratch,
}

impl Worker {
    /// Builds the sessions of some of the towers.
    fn new(shared: &Shared, towers: &[usize]) -> Result<Self, ModelError> {
        let mut sessions: Vec<Option<Session>> = shared.specs.iter().map(|_| None).collect();
        for &tower in towers {
            let spec = &shared.specs[tower];
            sessions[tower] = Some(shared.sessions.session(spec, &shared.graphs[tower])?);
        }
        Ok(Self { specs: shared.specs.clone().into(), sessions, scratch: Scratch::default() })
    }

    /// Runs one batch; where memory did not suffice for several inputs, once more in two halves.
    ///
    /// # Errors
    /// [`ModelError::TowerFailed`] where the run as a whole failed.
    pub fn run(&mut self, tower: usize, inputs: &[&Input]) -> Result<RowResults, ModelError> {
        match self.run_once(tower, inputs) {
            Err(ModelError::TowerFailed { reason, .. }) if inputs.len() > 1 && is_out_of_memory(&reason) => {
                tracing::warn!(
                    batch = inputs.len(),
                    reason,
                    "a batch ran out of memory; splitting it in half"
                );
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
        // A panic must fail these callers, not take the worker away from all later ones.
        let outcome = catch_unwind(AssertUnwindSafe(|| run(session, spec, inputs, scratch)));
        match outcome {
            Ok(rows) => rows.map_err(|error| ModelError::tower(spec.modality, error)),
            Err(_) => Err(ModelError::tower(spec.modality, "it panicked")),
        }
    }

    fn serve(&mut self, jobs: Vec<Job>, queue: &Queue) {
        let begun = Instant::now();
        let tower = jobs.first().map_or(0, |job| job.tower);
        let inputs: Vec<&Input> = jobs.iter().map(|job| &job.input).collect();
        let count = inputs.len();
        let outcome = self.run(tower, &inputs);
        let took = begun.elapsed();
        queue.ran(tower, count, took);
        let inference_secs = took.as_secs_f64();
        let name = self.specs[tower].modality.as_str();
        metrics::histogram!("triptych_tower_inference_seconds", "tower" => name).record(inference_secs);
        metrics::histogram!("triptych_tower_batch_size", "tower" => name).record(count as f64);
        let rows = outcome.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone())).collect());
        for (job, row) in jobs.into_iter().zip(rows) {
            let queue_secs = begun.duration_since(job.queued).as_secs_f64();
            metrics::histogram!("triptych_tower_queue_seconds", "tower" => name).record(queue_secs);
            let answer = row.map(|vectors| Answer {
                vectors,
                queue_secs,
                inference_secs: inference_secs / count as f64,
            });
            // If the caller has given up, nobody needs the answer.
            let _ = job.reply.send(answer);
        }
    }
}

fn is_out_of_memory(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["out of memory", "failed to allocate", "alloc_failed", "bad_alloc", "bfcarena"]
        .iter()
        .any(|sign| reason.contains(sign))
}

/// Workers behind one queue; dropping it ends them after their current batch.
pub(super) struct Pool {
    pub queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts workers for some of the towers. Each sends what its goldens gave once it is ready.
    pub fn start(
        shared: &Arc<Shared>,
        towers: &[usize],
        workers: usize,
        ready: &mpsc::Sender<Result<Vec<GoldenResult>, ModelError>>,
    ) -> std::io::Result<Self> {
        let largest = towers.iter().map(|tower| shared.batching[*tower].max).max().unwrap_or(1);
        // Bulk: a batch in every worker and one behind it. Interactive: what is served in a second or
        // two; beyond that, a person is better told to come back.
        let queue = Arc::new(Queue::new(128, workers * largest * 2, workers));
        let mut pool = Self { queue, threads: Vec::new() };
        for number in 0..workers {
            let (shared, towers, ready) = (Arc::clone(shared), towers.to_vec(), ready.clone());
            let queue = Arc::clone(&pool.queue);
            let thread = std::thread::Builder::new().name(format!("tower-{number}"));
            pool.threads.push(thread.spawn(move || work(shared, &towers, &queue, ready))?);
        }
        Ok(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A session must not be running while the process unloads ONNX Runtime.
            let _ = thread.join();
        }
    }
}

fn work(
    shared: Arc<Shared>,
    towers: &[usize],
    queue: &Queue,
    ready: mpsc::Sender<Result<Vec<GoldenResult>, ModelError>>,
) {
    crate::native::work_in_background();
    let built = catch_unwind(AssertUnwindSafe(|| {
        let mut worker = Worker::new(&shared, towers)?;
        let results = shared.goldens.check(&mut worker, towers, &shared.specs, &shared.batching)?;
        Ok((worker, results))
    }));
    let mut worker = match built {
        Ok(Ok((worker, results))) => {
            let _ = ready.send(Ok(results));
            worker
        }
        Ok(Err(error)) => {
            let _ = ready.send(Err(error));
            return;
        }
        Err(_) => {
            let tower = towers.first().map_or(crate::types::Modality::Text, |t| shared.specs[*t].modality);
            let _ = ready.send(Err(ModelError::tower(tower, "loading it panicked")));
            return;
        }
    };
    let batching = shared.batching.clone();
    // Whoever loads the towers waits for the last sender to go; the graphs' bytes have served.
    drop((ready, shared));
    while let Some(jobs) = queue.take(&batching) {
        worker.serve(jobs, queue);
    }
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
