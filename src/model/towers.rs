//! The towers of one bundle, loaded, self-checked and ready for use.

use std::sync::Arc;

use tokio::sync::{OnceCell, oneshot};

use super::bundle::Bundle;
use super::golden::{GoldenResult, GoldenSet};
use super::graph::{check_memory, groups, read_graphs, sizes};
use super::queue::Answer;
use super::runtime::{Packing, Place, SessionMaker};
use super::timings::Timings;
use super::tokenizer::TextTokenizer;
use super::tower::{Input, Tensor, Values};
use super::worker::{Pool, Shared};
use super::{BankText, Device, ModelError, Pixels, Priority, Samples, SpaceVectors};
use crate::manifest::{Supply, TowerSpec};
use crate::native::{self, CudaLack, CudaProblem, NativeParts};
use crate::types::Modality;

mod start;
mod texts;

use start::{batching, explain_cuda, start};

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
    /// The tokenizers of the text towers, indexed by tower.
    tokenizers: Vec<Option<TextTokenizer>>,
    /// Texts for calibration, if the bundle has some, and what became of them.
    bank: Vec<String>,
    bank_cell: OnceCell<Arc<[BankText]>>,
    goldens: Vec<GoldenResult>,
    pools: Vec<Pool>,
    /// Index of each tower's pool.
    pool_of: Vec<usize>,
    clips_in_flight: usize,
}

/// An input on its way through its towers; dropping it removes it from their queues.
pub struct Pending {
    answers: Vec<oneshot::Receiver<Result<Answer, ModelError>>>,
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
        let mut vectors = SpaceVectors::new();
        let (mut queue_secs, mut inference_secs) = (0.0, 0.0);
        for answer in self.answers {
            let stopped = |_| ModelError::tower(self.modality, "the model is shutting down");
            let answer = answer.await.map_err(stopped)??;
            queue_secs += answer.queue_secs;
            inference_secs += answer.inference_secs;
            vectors.extend(answer.vectors);
        }
        tracing::Span::current().record("queue_secs", queue_secs).record("inference_secs", inference_secs);
        for timings in &self.towers.timings {
            timings.add(queue_secs, inference_secs);
        }
        let bundle = self.towers.bundle();
        // A picture goes through the video tower, which may serve spaces without pictures.
        vectors.retain(|space, _| bundle.has(self.modality, space));
        for (space, vector) in &mut vectors {
            // The first values of a longer vector; whoever makes an `Embedding` of it normalises it.
            vector.truncate(bundle.dim(space).unwrap_or(vector.len()));
        }
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
        let specs = bundle.manifest.towers.clone();
        let allowed = match place {
            Place::Cpu => bundle.manifest.goldens.max_one_minus_cosine,
            Place::Cuda(_) => bundle.manifest.goldens.max_one_minus_cosine.max(CUDA_ONE_MINUS_COSINE),
        };
        let goldens = GoldenSet::read(&bundle, &specs, allowed)?;
        let tokenizers = tokenizers(&bundle, &specs, &goldens)?;
        let bank = bundle.read_bank()?;
        let sizes = sizes(&bundle)?;
        let groups = groups(place, &sizes.whole, threads);
        let packing = match native::available_memory_bytes() {
            Some(available) => check_memory(bundle.name(), &sizes, &groups, available)?,
            None => Packing::Once,
        };
        let shared = Arc::new(Shared {
            batching: specs.iter().map(|spec| batching(place, spec)).collect(),
            sessions: SessionMaker::new(&native.onnxruntime, place, packing)?,
            goldens,
            graphs: read_graphs(&bundle, place)?,
            specs: specs.clone(),
        });
        let (pools, goldens) = start(&shared, &groups)?;
        let pool_of = (0..specs.len())
            .map(|tower| groups.iter().position(|group| group.towers.contains(&tower)).unwrap_or_default());
        let pool_of = pool_of.collect();
        let clips_in_flight = 1 + match place {
            Place::Cpu => threads,
            Place::Cuda(_) => shared.batching.iter().map(|batching| batching.max).max().unwrap_or(1),
        };
        let bank_cell = OnceCell::new();
        let inner = Inner {
            clips_in_flight,
            bundle,
            place,
            specs,
            tokenizers,
            bank,
            bank_cell,
            goldens,
            pools,
            pool_of,
        };
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

    /// Queues an input for every tower that computes vectors of its modality.
    async fn submit(
        &self,
        modality: Modality,
        input: impl Fn(&TowerSpec) -> Input,
        priority: Priority,
    ) -> Result<Pending, ModelError> {
        let inner = &self.inner;
        let towers = inner.bundle.towers_for(modality);
        if towers.is_empty() {
            return Err(ModelError::NotSupported(modality));
        }
        let mut inputs = Vec::with_capacity(towers.len());
        for tower in towers {
            let spec = &inner.specs[tower];
            let input = input(spec);
            input.check(spec)?;
            inputs.push((tower, input));
        }
        self.queue(modality, inputs, priority).await
    }

    async fn queue(
        &self,
        modality: Modality,
        inputs: Vec<(usize, Input)>,
        priority: Priority,
    ) -> Result<Pending, ModelError> {
        let inner = &self.inner;
        let mut answers = Vec::with_capacity(inputs.len());
        for (tower, input) in inputs {
            answers.push(inner.pools[inner.pool_of[tower]].queue.push(tower, input, priority).await?);
        }
        Ok(Pending { answers, modality, towers: self.clone() })
    }

    async fn submit_pixels(
        &self,
        modality: Modality,
        pixels: Pixels,
        priority: Priority,
    ) -> Result<Pending, ModelError> {
        let input = |spec: &TowerSpec| {
            let inflates = modality == Modality::Image && spec.modality == Modality::Video;
            let frames = if inflates {
                pixels.values.repeat(spec.frames()).into()
            } else {
                Arc::clone(&pixels.values)
            };
            let side = |side: usize| i64::try_from(side).unwrap_or(i64::MAX);
            let grid: Box<[i64]> = pixels.grid.map_or_else(Box::default, |grid| grid.map(side).into());
            let tensor = |supply: Supply, row: &[Option<usize>]| match supply {
                Supply::PatchGrid => Tensor::of(Values::I64(grid.clone()), row),
                Supply::FrameCount => {
                    let own = pixels.frame_count.unwrap_or_else(|| spec.frames());
                    Tensor::of(Values::I64(vec![side(own)].into()), row)
                }
                _ => Tensor::of(Values::U8(Arc::clone(&frames)), row),
            };
            Input(spec.inputs.iter().map(|input| tensor(input.supply, &input.row)).collect())
        };
        self.submit(modality, input, priority).await
    }

    /// Queues the frames of one clip, u8 [T, H, W, 3] or patches with their grid, without waiting for the
    /// vectors. Bulk work waits for a place in the queue.
    ///
    /// # Errors
    /// [`ModelError`] `modality_not_supported`, `tower_failed` for a wrong length, `overloaded`.
    pub async fn submit_video(
        &self,
        frames: impl Into<Pixels>,
        priority: Priority,
    ) -> Result<Pending, ModelError> {
        self.submit_pixels(Modality::Video, frames.into(), priority).await
    }

    /// Queues one picture, u8 [H, W, 3] or patches with their grid, like [`Towers::submit_video`].
    ///
    /// # Errors
    /// As [`Towers::submit_video`].
    pub async fn submit_image(
        &self,
        pixels: impl Into<Pixels>,
        priority: Priority,
    ) -> Result<Pending, ModelError> {
        self.submit_pixels(Modality::Image, pixels.into(), priority).await
    }

    /// Queues PCM f32 [samples], like [`Towers::submit_video`].
    ///
    /// # Errors
    /// As [`Towers::submit_video`], and `bad_samples` for a sample that is not finite.
    pub async fn submit_audio(
        &self,
        pcm: impl Into<Samples>,
        priority: Priority,
    ) -> Result<Pending, ModelError> {
        let Samples { pcm, own } = pcm.into();
        let input = |spec: &TowerSpec| {
            let tensor = |supply: Supply, row: &[Option<usize>]| match supply {
                Supply::PcmSamples => {
                    let own = i64::try_from(own).unwrap_or(i64::MAX);
                    Tensor::of(Values::I64(vec![own].into()), row)
                }
                _ => Tensor::of(Values::F32(Arc::clone(&pcm)), row),
            };
            Input(spec.inputs.iter().map(|input| tensor(input.supply, &input.row)).collect())
        };
        self.submit(Modality::Audio, input, priority).await
    }

    /// Embeds the frames of one clip.
    ///
    /// # Errors
    /// As [`Towers::submit_video`].
    pub async fn video(
        &self,
        frames: impl Into<Pixels>,
        priority: Priority,
    ) -> Result<SpaceVectors, ModelError> {
        self.submit_video(frames, priority).await?.vectors().await
    }

    /// Embeds one picture.
    ///
    /// # Errors
    /// As [`Towers::submit_video`].
    pub async fn image(
        &self,
        pixels: impl Into<Pixels>,
        priority: Priority,
    ) -> Result<SpaceVectors, ModelError> {
        self.submit_image(pixels, priority).await?.vectors().await
    }

    /// Embeds PCM f32 [samples].
    ///
    /// # Errors
    /// As [`Towers::submit_audio`].
    pub async fn audio(
        &self,
        pcm: impl Into<Samples>,
        priority: Priority,
    ) -> Result<SpaceVectors, ModelError> {
        self.submit_audio(pcm, priority).await?.vectors().await
    }
}

/// The tokenizers of the towers for texts, each checked against its golden texts.
fn tokenizers(
    bundle: &Bundle,
    specs: &[TowerSpec],
    goldens: &GoldenSet,
) -> Result<Vec<Option<TextTokenizer>>, ModelError> {
    let mut tokenizers = Vec::with_capacity(specs.len());
    for (tower, spec) in specs.iter().enumerate() {
        let tokenizer = spec.text().map(|text| {
            let made = TextTokenizer::new(&bundle.read(text.tokenizer())?, text);
            made.map_err(|reason| bundle.invalid(text.tokenizer(), reason))
        });
        let tokenizer = tokenizer.transpose()?;
        if let Some(tokenizer) = &tokenizer {
            goldens.check_tokenizer(bundle, specs, tower, tokenizer)?;
        }
        tokenizers.push(tokenizer);
    }
    Ok(tokenizers)
}
