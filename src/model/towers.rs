//! The towers of one bundle, loaded, self-checked and ready for use.

use std::sync::{Arc, mpsc};

use tokio::sync::oneshot;

use super::bundle::Bundle;
use super::golden::{GoldenResult, GoldenSet};
use super::manifest::TowerSpec;
use super::queue::{Answer, Batching};
use super::runtime::{Place, SessionMaker};
use super::timings::Timings;
use super::tokenizer::TextTokenizer;
use super::tower::Input;
use super::worker::{Pool, Shared};
use super::{Device, ModelError, Priority, SpaceVectors, onnx};
use crate::native::{self, CudaLack, CudaProblem, NativeParts};
use crate::types::Modality;

/// Tolerance on CUDA, where convolutions may sum in another order than on the CPU.
const CUDA_ONE_MINUS_COSINE: f64 = 1e-4;

/// The towers of one bundle, loaded and self-checked. Cheap to clone, and safe to share. The worker threads
/// end with the last clone.
#[derive(Clone)]
pub struct Towers {
    inner: Arc<Inner>,
    timings: Vec<Arc<Timings>>,
}

struct Inner {
    bundle: Arc<Bundle>,
    place: Place,
    specs: Vec<TowerSpec>,
    tokenizer: Option<TextTokenizer>,
    goldens: Vec<GoldenResult>,
    pools: Vec<Pool>,
    /// Index of each tower's pool.
    pool_of: Vec<usize>,
    clips_in_flight: usize,
}

/// An input on its way through its tower; dropping it removes it from the queue.
pub struct Pending {
    answer: oneshot::Receiver<Result<Answer, ModelError>>,
    modality: Modality,
    towers: Towers,
}

impl Pending {
    /// Waits for the vectors.
    ///
    /// # Errors
    /// [`ModelError`].
    #[tracing::instrument(level = "debug", name = "infer", skip_all, fields(modality = %self.modality, queue_secs, inference_secs))]
    pub async fn vectors(self) -> Result<SpaceVectors, ModelError> {
        let stopped = |_| ModelError::tower(self.modality, "the model is shutting down");
        let answer = self.answer.await.map_err(stopped)??;
        let span = tracing::Span::current();
        span.record("queue_secs", answer.queue_secs).record("inference_secs", answer.inference_secs);
        for timings in &self.towers.timings {
            timings.add(answer.queue_secs, answer.inference_secs);
        }
        let mut vectors = answer.vectors;
        // A picture goes through the video tower, which may serve spaces without pictures.
        vectors.retain(|space, _| self.towers.bundle().has(self.modality, space));
        Ok(vectors)
    }
}

impl Towers {
    /// Loads every tower, checks the goldens, and warms up; blocks meanwhile. `threads` is the number of
    /// inputs computed in parallel on the CPU; on CUDA, each tower has one worker.
    ///
    /// # Errors
    /// [`ModelError`]: runtime library missing or too old, CUDA missing under `cuda`, goldens differ.
    pub fn load(
        bundle: Arc<Bundle>,
        native: &NativeParts,
        device: Device,
        threads: usize,
    ) -> Result<Self, ModelError> {
        let on = |place| Self::load_on(Arc::clone(&bundle), native, place, threads.max(1));
        match device {
            Device::Cpu => on(Place::Cpu),
            Device::Cuda(number) => match native::cuda_problem(&native.onnxruntime) {
                Some(problem) if problem.lack != CudaLack::Libraries => {
                    Err(ModelError::CudaUnavailable(problem.reason))
                }
                _ => on(Place::Cuda(number)).map_err(|error| explain_cuda(error, native)),
            },
            Device::Auto => {
                match native::cuda_problem(&native.onnxruntime) {
                    Some(CudaProblem { lack: CudaLack::Build, reason }) => {
                        tracing::info!("the model runs on the CPU: {reason}");
                        return on(Place::Cpu);
                    }
                    Some(CudaProblem { lack: CudaLack::Device, reason }) => {
                        tracing::warn!("the model runs on the CPU: {reason}");
                        return on(Place::Cpu);
                    }
                    _ => {}
                }
                match on(Place::Cuda(0)).map_err(|error| explain_cuda(error, native)) {
                    Err(ModelError::CudaUnavailable(reason)) => {
                        tracing::warn!("the model runs on the CPU: {reason}");
                        on(Place::Cpu)
                    }
                    outcome => outcome,
                }
            }
        }
    }

    fn load_on(
        bundle: Arc<Bundle>,
        native: &NativeParts,
        place: Place,
        threads: usize,
    ) -> Result<Self, ModelError> {
        let specs = bundle.tower_specs()?;
        let allowed = match place {
            Place::Cpu => bundle.manifest.goldens.max_one_minus_cosine,
            Place::Cuda(_) => bundle.manifest.goldens.max_one_minus_cosine.max(CUDA_ONE_MINUS_COSINE),
        };
        let goldens = GoldenSet::read(&bundle, &specs, allowed)?;
        let tokenizer = match &bundle.manifest.preprocessing.text {
            Some(text) if bundle.has_tower(Modality::Text) => {
                let bytes = bundle.read(&text.tokenizer)?;
                let made = TextTokenizer::new(&bytes, text);
                Some(made.map_err(|reason| bundle.invalid(&text.tokenizer, reason))?)
            }
            _ => None,
        };
        if let Some(tokenizer) = &tokenizer {
            goldens.check_tokenizer(&bundle, &specs, tokenizer)?;
        }
        let graphs: Vec<Vec<u8>> =
            specs.iter().map(|spec| read_graph(&bundle, spec)).collect::<Result<_, _>>()?;
        let shared = Arc::new(Shared {
            batching: specs.iter().map(|spec| batching(place, spec)).collect(),
            sessions: SessionMaker::new(&native.onnxruntime, place)?,
            goldens,
            graphs,
            specs: specs.clone(),
        });
        let (pools, pool_of, goldens) = start(&shared, place, threads)?;
        let clips_in_flight = 1 + match place {
            Place::Cpu => threads,
            Place::Cuda(_) => shared.batching.iter().map(|batching| batching.max).max().unwrap_or(1),
        };
        let inner = Inner { clips_in_flight, bundle, place, specs, tokenizer, goldens, pools, pool_of };
        Ok(Self { inner: Arc::new(inner), timings: Vec::new() })
    }

    /// The same towers, but the times of work through this handle are also added to `timings`.
    #[must_use]
    pub fn timed(&self, timings: Arc<Timings>) -> Self {
        let mut timed = self.clone();
        timed.timings.push(timings);
        timed
    }

    /// The bundle of these towers.
    #[must_use]
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.inner.bundle
    }

    /// Name of the device: `cpu` or `cuda:N`.
    #[must_use]
    pub fn device_name(&self) -> String {
        match self.inner.place {
            Place::Cpu => "cpu".to_owned(),
            Place::Cuda(number) => format!("cuda:{number}"),
        }
    }

    /// The agreement with the golden vectors at load time: the worst of all workers.
    #[must_use]
    pub fn goldens(&self) -> &[GoldenResult] {
        &self.inner.goldens
    }

    /// How many clips a reader should have in flight to keep all workers busy.
    #[must_use]
    pub fn clips_in_flight(&self) -> usize {
        self.inner.clips_in_flight
    }

    async fn submit(
        &self,
        modality: Modality,
        input: Input,
        priority: Priority,
    ) -> Result<Pending, ModelError> {
        let inner = &self.inner;
        let own = |wanted| inner.specs.iter().position(|spec| spec.modality == wanted);
        let tower = own(modality).or_else(|| {
            let inflates = modality == Modality::Image && inner.bundle.has_tower(Modality::Image);
            inflates.then(|| own(Modality::Video)).flatten()
        });
        let tower = tower.ok_or(ModelError::NotSupported(modality))?;
        let spec = &inner.specs[tower];
        let input = match input {
            Input::U8(pixels) if spec.modality != modality => Input::U8(inflate(&pixels, spec.row[0])),
            other => other,
        };
        input.check(spec)?;
        let answer = inner.pools[inner.pool_of[tower]].queue.push(tower, input, priority).await?;
        Ok(Pending { answer, modality, towers: self.clone() })
    }

    /// Queues frames u8 [T, H, W, 3] of one clip, without waiting for the vectors. Bulk work waits for a
    /// place in the queue.
    ///
    /// # Errors
    /// [`ModelError`] `modality_not_supported`, `tower_failed` for a wrong length, `overloaded`.
    pub async fn submit_video(&self, frames: Arc<[u8]>, priority: Priority) -> Result<Pending, ModelError> {
        self.submit(Modality::Video, Input::U8(frames), priority).await
    }

    /// Queues one picture u8 [H, W, 3], like [`Towers::submit_video`].
    ///
    /// # Errors
    /// As [`Towers::submit_video`].
    pub async fn submit_image(&self, pixels: Arc<[u8]>, priority: Priority) -> Result<Pending, ModelError> {
        self.submit(Modality::Image, Input::U8(pixels), priority).await
    }

    /// Queues PCM f32 [samples], like [`Towers::submit_video`].
    ///
    /// # Errors
    /// As [`Towers::submit_video`], and `bad_samples` for a sample that is not finite.
    pub async fn submit_audio(&self, pcm: Arc<[f32]>, priority: Priority) -> Result<Pending, ModelError> {
        self.submit(Modality::Audio, Input::F32(pcm), priority).await
    }

    /// Embeds frames u8 [T, H, W, 3] of one clip.
    ///
    /// # Errors
    /// As [`Towers::submit_video`].
    pub async fn video(&self, frames: Arc<[u8]>, priority: Priority) -> Result<SpaceVectors, ModelError> {
        self.submit_video(frames, priority).await?.vectors().await
    }

    /// Embeds one picture u8 [H, W, 3].
    ///
    /// # Errors
    /// As [`Towers::submit_video`].
    pub async fn image(&self, pixels: Arc<[u8]>, priority: Priority) -> Result<SpaceVectors, ModelError> {
        self.submit_image(pixels, priority).await?.vectors().await
    }

    /// Embeds PCM f32 [samples].
    ///
    /// # Errors
    /// As [`Towers::submit_audio`].
    pub async fn audio(&self, pcm: Arc<[f32]>, priority: Priority) -> Result<SpaceVectors, ModelError> {
        self.submit_audio(pcm, priority).await?.vectors().await
    }

    /// Embeds a text, including its tokenization.
    ///
    /// # Errors
    /// [`ModelError`] `no_known_words`, `text_too_long`, `overloaded`, `modality_not_supported`.
    pub async fn text(&self, text: &str, priority: Priority) -> Result<SpaceVectors, ModelError> {
        let tokenizer = self.inner.tokenizer.as_ref().ok_or(ModelError::NotSupported(Modality::Text))?;
        let (ids, _) = tokenizer.encode(text)?;
        self.submit(Modality::Text, Input::I64(ids), priority).await?.vectors().await
    }

    /// The words that a text tower knows, in the order of their ids; empty without a text tower.
    #[must_use]
    pub fn vocabulary(&self) -> Vec<String> {
        self.inner.tokenizer.as_ref().map_or_else(Vec::new, TextTokenizer::vocabulary)
    }

    /// Number of words of a text that reach the tower.
    ///
    /// # Errors
    /// As [`Towers::text`].
    pub fn count_words(&self, text: &str) -> Result<usize, ModelError> {
        let tokenizer = self.inner.tokenizer.as_ref().ok_or(ModelError::NotSupported(Modality::Text))?;
        tokenizer.encode(text).map(|(_, words)| words)
    }
}

/// The verified bytes of a graph, which has no external data.
fn read_graph(bundle: &Bundle, spec: &TowerSpec) -> Result<Vec<u8>, ModelError> {
    let bytes = bundle.read(&spec.file)?;
    onnx::refuse_external_data(&bytes).map_err(|reason| bundle.invalid(&spec.file, reason))?;
    Ok(bytes)
}

/// Adds the likely cause to an error of ONNX Runtime about CUDA.
fn explain_cuda(error: ModelError, native: &NativeParts) -> ModelError {
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
fn batching(place: Place, spec: &TowerSpec) -> Batching {
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
            Batching { max: ((128 << 20) / row_bytes.max(1)).clamp(1, 64), powers_of_two: true }
        }
    }
}

fn inflate(pixels: &[u8], frames: usize) -> Arc<[u8]> {
    pixels.repeat(frames).into()
}

type Started = (Vec<Pool>, Vec<usize>, Vec<GoldenResult>);

/// Starts the workers and waits until all have passed the goldens.
fn start(shared: &Arc<Shared>, place: Place, threads: usize) -> Result<Started, ModelError> {
    let towers: Vec<usize> = (0..shared.specs.len()).collect();
    // On the CPU, each worker serves every tower, so that all cores work whatever the mix; on CUDA, each
    // tower has one thread that feeds the device.
    let (groups, workers, pool_of) = match place {
        Place::Cpu => (vec![towers.clone()], threads, vec![0; towers.len()]),
        Place::Cuda(_) => (towers.iter().map(|tower| vec![*tower]).collect(), 1, towers.clone()),
    };
    let (ready, results) = mpsc::channel();
    let mut pools = Vec::new();
    for group in &groups {
        let pool = Pool::start(shared, group, workers, &ready);
        pools.push(pool.map_err(|error| {
            let tower = group.first().map_or(Modality::Text, |tower| shared.specs[*tower].modality);
            ModelError::tower(tower, format!("could not start its thread: {error}"))
        })?);
    }
    drop(ready);
    let mut goldens: Vec<GoldenResult> = Vec::new();
    for result in results {
        for new in result? {
            match goldens.iter_mut().find(|old| (old.tower, &old.space) == (new.tower, &new.space)) {
                Some(old) => {
                    old.worst_one_minus_cosine = old.worst_one_minus_cosine.max(new.worst_one_minus_cosine);
                }
                None => goldens.push(new),
            }
        }
    }
    Ok((pools, pool_of, goldens))
}
