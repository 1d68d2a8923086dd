//! The bounded queue before the towers: interactive work goes before bulk work (except for one batch per
//! second), and work whose caller has gone is dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::tower::Input;
use super::{ModelError, Priority, SpaceVectors};

/// A batch should not occupy its worker much longer than this: a user's query may be waiting behind it.
const LONGEST_RUN: Duration = Duration::from_millis(60);
/// Bulk work gets a batch this often, however many interactive queries come, so that jobs make progress. It
/// costs queries at most [`LONGEST_RUN`] per second.
const BULK_WAITS_AT_MOST: Duration = Duration::from_secs(1);

/// A tower's output for one input, and its times.
#[derive(Debug)]
pub(super) struct Answer {
    pub vectors: SpaceVectors,
    pub queue_secs: f64,
    pub inference_secs: f64,
}

/// One input on its way through a tower.
pub(super) struct Job {
    /// Index among the bundle's towers.
    pub tower: usize,
    pub input: Input,
    pub reply: oneshot::Sender<Result<Answer, ModelError>>,
    pub queued: Instant,
    /// Its permit for a place in the queue; released when the job is done or dropped.
    _place: OwnedSemaphorePermit,
}

/// How the inputs of one tower are batched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batching {
    /// Maximum number of inputs per run.
    pub max: usize,
    /// Only sizes 1, 2, 4, 8, …: CUDA plans a convolution again for each new batch size.
    pub powers_of_two: bool,
}

#[derive(Default)]
struct State {
    lanes: [VecDeque<Job>; 2],
    /// Time per input in the latest run, by tower; absent until a tower has run.
    per_input: HashMap<usize, Duration>,
    /// When a bulk batch was last taken.
    bulk_taken: Option<Instant>,
    closed: bool,
}

impl State {
    /// The lanes in the order in which work is taken.
    fn order(&self) -> [usize; 2] {
        let bulk = lane(Priority::Bulk);
        let since =
            self.lanes[bulk].front().map(|job| self.bulk_taken.map_or(job.queued, |t| t.max(job.queued)));
        let starves = since.is_some_and(|since| since.elapsed() >= BULK_WAITS_AT_MOST);
        if starves { [1, 0] } else { [0, 1] }
    }
}

pub(super) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    places: [Arc<Semaphore>; 2],
    workers: usize,
}

fn lane(priority: Priority) -> usize {
    match priority {
        Priority::Interactive => 0,
        Priority::Bulk => 1,
    }
}

impl Queue {
    /// A queue with these capacities and this number of workers.
    pub fn new(interactive_places: usize, bulk_places: usize, workers: usize) -> Self {
        Self {
            state: Mutex::default(),
            ready: Condvar::new(),
            places: [interactive_places, bulk_places].map(|places| Arc::new(Semaphore::new(places))),
            workers,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues one input. If the queue is full, interactive work fails at once, and bulk work waits for a
    /// place.
    ///
    /// # Errors
    /// [`ModelError::Overloaded`].
    pub async fn push(
        &self,
        tower: usize,
        input: Input,
        priority: Priority,
    ) -> Result<oneshot::Receiver<Result<Answer, ModelError>>, ModelError> {
        let overloaded = ModelError::Overloaded { retry_after_secs: 1 };
        let queued = Instant::now();
        let places = Arc::clone(&self.places[lane(priority)]);
        let place = match priority {
            Priority::Interactive => places.try_acquire_owned().map_err(|_| overloaded)?,
            Priority::Bulk => places.acquire_owned().await.map_err(|_| overloaded)?,
        };
        let (reply, answer) = oneshot::channel();
        let mut state = self.lock();
        if !state.closed {
            state.lanes[lane(priority)].push_back(Job { tower, input, reply, queued, _place: place });
            self.ready.notify_one();
        }
        Ok(answer)
    }

    /// Waits for work and takes the next batch, all of one tower and one lane; `None` once the queue is
    /// closed.
    pub fn take(&self, batching: &[Batching]) -> Option<Vec<Job>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            state.lanes.iter_mut().for_each(|lane| lane.retain(|job| !job.reply.is_closed()));
            for index in state.order() {
                let State { lanes, per_input, .. } = &mut *state;
                let most = |tower: usize| most_inputs(batching[tower].max, per_input.get(&tower).copied());
                if let Some(batch) = next_batch(&mut lanes[index], batching, most, self.workers) {
                    if index == lane(Priority::Bulk) {
                        state.bulk_taken = Some(Instant::now());
                    }
                    return Some(batch);
                }
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Records the time of a run; it limits the next batches of this tower.
    pub fn ran(&self, tower: usize, inputs: usize, took: Duration) {
        let inputs = u32::try_from(inputs.max(1)).unwrap_or(u32::MAX);
        self.lock().per_input.insert(tower, took / inputs);
    }

    /// Ends every worker after its current batch; queued work is dropped.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.lanes.iter_mut().for_each(VecDeque::clear);
        self.ready.notify_all();
    }
}

/// As many inputs as fit into [`LONGEST_RUN`], at least one, at most the tower's batch.
fn most_inputs(max: usize, per_input: Option<Duration>) -> usize {
    let fit = |each: Duration| (LONGEST_RUN.as_nanos() / each.as_nanos().max(1)).max(1);
    per_input.map_or(max, |each| max.min(usize::try_from(fit(each)).unwrap_or(usize::MAX)))
}

/// The first job, and as many jobs of the same tower and shape as one worker should take: no more than its
/// share among all workers, and at most `most` of that tower.
fn next_batch(
    lane: &mut VecDeque<Job>,
    batching: &[Batching],
    most: impl Fn(usize) -> usize,
    workers: usize,
) -> Option<Vec<Job>> {
    let first = lane.pop_front()?;
    let tower = first.tower;
    let (max, powers_of_two) = (most(tower), batching[tower].powers_of_two);
    let mut batch = vec![first];
    if max > 1 {
        let alike = |first: &Job, job: &Job| job.tower == tower && job.input.same_shape(&first.input);
        let waiting = 1 + lane.iter().filter(|job| alike(&batch[0], job)).count();
        let mut size = waiting.div_ceil(workers).min(max);
        if powers_of_two {
            size = 1 << size.ilog2();
        }
        let mut index = 0;
        while batch.len() < size && index < lane.len() {
            if alike(&batch[0], &lane[index]) {
                batch.extend(lane.remove(index));
            } else {
                index += 1;
            }
        }
    }
    Some(batch)
}

#[cfg(test)]
mod tests {
    use super::super::tower::{Tensor, Values};
    use super::*;

    const SINGLE: Batching = Batching { max: 1, powers_of_two: false };
    const EIGHT: Batching = Batching { max: 8, powers_of_two: false };

    fn input(value: i64) -> Input {
        input_of(value, 1)
    }

    fn input_of(value: i64, length: usize) -> Input {
        Input(vec![Tensor::of(Values::I64(vec![value; length].into()), &[None])])
    }

    fn values(batch: &[Job]) -> Vec<i64> {
        let value = |job: &Job| if let Values::I64(ids) = &job.input.0[0].values { ids[0] } else { -1 };
        batch.iter().map(value).collect()
    }

    #[tokio::test]
    async fn only_inputs_of_one_length_share_a_batch() {
        let queue = Queue::new(8, 8, 1);
        let mut answers = Vec::new();
        for (value, length) in [(1, 5), (2, 7), (3, 5), (4, 7), (5, 5)] {
            answers.push(queue.push(0, input_of(value, length), Priority::Bulk).await.unwrap());
        }
        assert_eq!(values(&queue.take(&[EIGHT]).unwrap()), [1, 3, 5]);
        assert_eq!(values(&queue.take(&[EIGHT]).unwrap()), [2, 4]);
    }

    #[tokio::test]
    async fn bulk_work_gets_its_turn_under_endless_interactive_work() {
        let queue = Queue::new(8, 8, 1);
        let mut answers = Vec::new();
        for (value, priority) in
            [(1, Priority::Bulk), (2, Priority::Bulk), (3, Priority::Interactive), (4, Priority::Interactive)]
        {
            answers.push(queue.push(0, input(value), priority).await.unwrap());
        }
        let take = || values(&queue.take(&[SINGLE]).unwrap());
        std::thread::sleep(BULK_WAITS_AT_MOST);
        // Only one batch, although the second has waited as long.
        assert_eq!([take(), take()], [[1], [3]]);
        std::thread::sleep(BULK_WAITS_AT_MOST);
        assert_eq!([take(), take()], [[2], [4]]);
    }

    #[tokio::test]
    async fn interactive_work_goes_first_and_towers_are_not_mixed() {
        let queue = Queue::new(8, 8, 1);
        let mut answers = Vec::new();
        for (tower, value, priority) in [
            (0, 1, Priority::Bulk),
            (1, 2, Priority::Bulk),
            (0, 3, Priority::Bulk),
            (0, 4, Priority::Interactive),
        ] {
            answers.push(queue.push(tower, input(value), priority).await.unwrap());
        }
        let batching = [EIGHT, SINGLE];
        assert_eq!(values(&queue.take(&batching).unwrap()), [4]);
        assert_eq!(values(&queue.take(&batching).unwrap()), [1, 3]);
        assert_eq!(values(&queue.take(&batching).unwrap()), [2]);
    }

    #[tokio::test]
    async fn a_batch_leaves_work_for_the_other_workers() {
        let queue = Queue::new(8, 8, 4);
        let mut answers = Vec::new();
        for value in 0..6 {
            answers.push(queue.push(0, input(value), Priority::Bulk).await.unwrap());
        }
        let sizes: Vec<usize> = (0..4).map(|_| queue.take(&[EIGHT]).unwrap().len()).collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
        let pairs = Queue::new(8, 8, 1);
        for value in 0..7 {
            answers.push(pairs.push(0, input(value), Priority::Bulk).await.unwrap());
        }
        let powers = [Batching { max: 8, powers_of_two: true }];
        let sizes: Vec<usize> = (0..3).map(|_| pairs.take(&powers).unwrap().len()).collect();
        assert_eq!(sizes, [4, 2, 1]);
    }

    #[tokio::test]
    async fn a_slow_tower_gets_small_batches() {
        let queue = Queue::new(8, 16, 1);
        let mut answers = Vec::new();
        for value in 0..12 {
            answers.push(queue.push(0, input(value), Priority::Bulk).await.unwrap());
        }
        let next = || queue.take(&[EIGHT]).unwrap().len();
        assert_eq!(next(), 8);
        queue.ran(0, 8, Duration::from_millis(240));
        assert_eq!(next(), 2);
        queue.ran(0, 1, Duration::from_secs(3));
        assert_eq!(next(), 1);
        queue.ran(0, 1, Duration::ZERO);
        assert_eq!(next(), 1, "all that is left");
        assert_eq!(most_inputs(8, Some(Duration::ZERO)), 8);
    }

    #[tokio::test]
    async fn work_nobody_waits_for_is_dropped_and_frees_its_place() {
        let queue = Queue::new(1, 1, 1);
        drop(queue.push(0, input(1), Priority::Interactive).await.unwrap());
        let full = queue.push(0, input(2), Priority::Interactive).await.unwrap_err();
        assert_eq!(full.code(), "overloaded");
        let _bulk = queue.push(0, input(3), Priority::Bulk).await.unwrap();
        assert_eq!(values(&queue.take(&[SINGLE]).unwrap()), [3]);
        assert!(queue.push(0, input(4), Priority::Interactive).await.is_ok());
    }

    #[tokio::test]
    async fn bulk_work_waits_for_a_place() {
        let queue = Arc::new(Queue::new(1, 1, 1));
        let _first = queue.push(0, input(1), Priority::Bulk).await.unwrap();
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.push(0, input(2), Priority::Bulk).await.map(|_| ()) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(queue.take(&[SINGLE]));
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn closing_ends_the_workers_and_the_callers() {
        let queue = Arc::new(Queue::new(2, 2, 1));
        let worker = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || while queue.take(&[SINGLE]).is_some() {}
        });
        queue.close();
        worker.join().unwrap();
        assert!(queue.push(0, input(1), Priority::Interactive).await.unwrap().await.is_err());
    }
}
