//! Worker threads: each owns one session per tower, checks it against the goldens, then serves the queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use super::ModelError;
use super::golden::{GoldenResult, GoldenSet};
use super::queue::{Answer, Batching, Job, Queue};
use super::runtime::{Graph, SessionMaker};
use super::sessions::Sessions;
use super::tower::Input;
use crate::manifest::TowerSpec;

/// Interactive inputs that wait at a time: what can be served in a second or two. Beyond that, it is better to ask the
/// user to retry.
const MOST_INTERACTIVE: usize = 128;
/// Batches of bulk work per worker: one in it, and one waiting behind it.
const BATCHES_EACH: usize = 2;

/// Everything the workers share.
pub(super) struct Shared {
    pub specs: Vec<TowerSpec>,
    pub batching: Vec<Batching>,
    pub sessions: SessionMaker,
    pub goldens: GoldenSet,
    /// The ONNX files, indexed by tower.
    pub graphs: Vec<Graph>,
}

/// Runs one batch and answers its callers.
fn serve(towers: &mut Sessions, jobs: Vec<Job>, queue: &Queue) {
    let begun = Instant::now();
    let tower = jobs.first().map_or(0, |job| job.tower);
    let inputs: Vec<&Input> = jobs.iter().map(|job| &job.input).collect();
    let count = inputs.len();
    let outcome = towers.run(tower, &inputs);
    let took = begun.elapsed();
    queue.ran(tower, count, took);
    let inference_secs = took.as_secs_f64();
    let name = towers.specs[tower].name.clone();
    metrics::histogram!("triptych_tower_inference_seconds", "tower" => name.clone()).record(inference_secs);
    metrics::histogram!("triptych_tower_batch_size", "tower" => name.clone()).record(count as f64);
    let rows = outcome.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone())).collect());
    for (job, row) in jobs.into_iter().zip(rows) {
        let queue_secs = begun.duration_since(job.queued).as_secs_f64();
        metrics::histogram!("triptych_tower_queue_seconds", "tower" => name.clone()).record(queue_secs);
        let answer =
            row.map(|vectors| Answer { vectors, queue_secs, inference_secs: inference_secs / count as f64 });
        // The caller may have gone in the meantime; then nobody misses the answer.
        let _ = job.reply.send(answer);
    }
}

/// Towers that share workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub towers: Vec<usize>,
    /// Workers, each with a session per tower and so a copy of its weights.
    pub workers: usize,
    /// Threads of one session.
    pub threads: usize,
}

/// Workers with a common queue; dropping the pool ends them after their current batch.
pub(super) struct Pool {
    pub queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts workers for some of the towers. Each sends the results of its goldens once it is ready.
    pub fn start(
        shared: &Arc<Shared>,
        Group { towers, workers, threads }: &Group,
        ready: &mpsc::Sender<Result<Vec<GoldenResult>, ModelError>>,
    ) -> std::io::Result<Self> {
        let largest = towers.iter().map(|tower| shared.batching[*tower].max).max().unwrap_or(1);
        let queue = Arc::new(Queue::new(MOST_INTERACTIVE, workers * largest * BATCHES_EACH, *workers));
        let mut pool = Self { queue, threads: Vec::new() };
        for number in 0..*workers {
            let (shared, towers, ready) = (Arc::clone(shared), towers.clone(), ready.clone());
            let threads = *threads;
            let queue = Arc::clone(&pool.queue);
            let thread = std::thread::Builder::new().name(format!("tower-{number}"));
            pool.threads.push(thread.spawn(move || work(shared, &towers, threads, &queue, ready))?);
        }
        Ok(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // No session may run while the process unloads ONNX Runtime.
            let _ = thread.join();
        }
    }
}

fn work(
    shared: Arc<Shared>,
    towers: &[usize],
    threads: usize,
    queue: &Queue,
    ready: mpsc::Sender<Result<Vec<GoldenResult>, ModelError>>,
) {
    crate::native::work_in_background();
    let built = catch_unwind(AssertUnwindSafe(|| {
        let mut worker = Sessions::new(&shared.sessions, &shared.specs, &shared.graphs, towers, threads)?;
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
    // `Towers::load` waits until the last sender is dropped; the graphs' bytes are no longer needed.
    drop((ready, shared));
    while let Some(jobs) = queue.take(&batching) {
        serve(&mut worker, jobs, queue);
    }
}
