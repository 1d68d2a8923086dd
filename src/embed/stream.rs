//! Embeds an asset's clips as a stream: decoding runs ahead of the towers, the towers ahead of the caller.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{ClipVectors, EmbedError, Vectors, no_track, unit_vectors};
use crate::model::{Pending, Pixels, Priority, Samples, Timings, Towers};
use crate::preprocess::{AssetSummary, ClipReader, ClipTensors, PatchGrid};
use crate::types::{AssetKind, Modality, PerTrack, TimeSpan, Track};

/// Streams an asset's clips as embeddings, in order. Decoding, towers and the caller work in parallel.
/// Dropping the stream ends the decoder and removes its work from the towers' queue.
pub struct AssetStream {
    clips: mpsc::Receiver<Result<InFlight, EmbedError>>,
    reader: JoinHandle<()>,
    summary: Arc<Mutex<Option<AssetSummary>>>,
    timings: Arc<Timings>,
    towers: Towers,
    /// Vectors of the latest clip that had each track.
    latest: PerTrack<Option<Vectors>>,
}

/// A clip whose tensors are queued for the towers or already processed.
struct InFlight {
    span: TimeSpan,
    windows: u64,
    tracks: PerTrack<Queued>,
}

/// One track of a clip.
#[derive(Default)]
enum Queued {
    #[default]
    Absent,
    /// The tensors equal those of the latest clip with this track, so the vectors do, too.
    AsBefore,
    Asked(Modality, Pending),
}

impl AssetStream {
    /// Starts reading. With `only`, other tracks are skipped and files of another kind are refused.
    pub(super) fn start(
        towers: Towers,
        reader: ClipReader,
        priority: Priority,
        only: Option<Modality>,
    ) -> Self {
        let timings = Arc::new(Timings::default());
        let towers = towers.timed(Arc::clone(&timings));
        // Enough clips to keep every worker busy while the next one is decoded, and no more, since a clip's
        // tensors take megabytes.
        let (sender, clips) = mpsc::channel(towers.clips_in_flight());
        let summary = Arc::new(Mutex::new(Some(reader.summary())));
        let feeder = Feeder {
            towers: towers.clone(),
            reader,
            priority,
            only,
            summary: Arc::clone(&summary),
            frames: None,
            patch_grid: None,
            pcm: None,
            pcm_samples: 0,
        };
        let reader = tokio::spawn(feeder.run(sender));
        Self { clips, reader, summary, timings, towers, latest: PerTrack::default() }
    }

    /// The next clip, or `None` at the end.
    ///
    /// # Errors
    /// [`EmbedError`]; `no_usable_track` if no clip of the asset had input for a tower.
    pub async fn next(&mut self) -> Result<Option<ClipVectors>, EmbedError> {
        let Some(clip) = self.clips.recv().await else { return Ok(None) };
        let InFlight { span, windows, tracks: queued } = clip?;
        let mut tracks = PerTrack::default();
        for (track, queued) in queued {
            tracks[track] = finish(&self.towers, queued, &mut self.latest[track]).await?;
        }
        Ok(Some(ClipVectors { span, windows, tracks }))
    }

    /// Properties of the asset so far; complete after the end.
    #[must_use]
    pub fn summary(&self) -> Option<AssetSummary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Seconds that the towers have spent on this asset so far.
    #[must_use]
    pub fn inference_secs(&self) -> f64 {
        self.timings.inference_secs()
    }
}

impl InFlight {
    fn is_empty(&self) -> bool {
        self.tracks.values().all(|track| matches!(track, Queued::Absent))
    }
}

async fn finish(
    towers: &Towers,
    track: Queued,
    latest: &mut Option<Vectors>,
) -> Result<Option<Vectors>, EmbedError> {
    match track {
        Queued::Absent => return Ok(None),
        Queued::AsBefore => {}
        Queued::Asked(modality, pending) => {
            *latest = Some(unit_vectors(towers.bundle(), modality, pending.vectors().await?)?);
        }
    }
    Ok(latest.clone())
}

impl Drop for AssetStream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Reads clips and queues their tensors.
struct Feeder {
    towers: Towers,
    reader: ClipReader,
    priority: Priority,
    only: Option<Modality>,
    summary: Arc<Mutex<Option<AssetSummary>>>,
    /// The last tensors submitted to the towers, for detecting repeats.
    frames: Option<Arc<[u8]>>,
    patch_grid: Option<PatchGrid>,
    pcm: Option<Arc<[f32]>>,
    pcm_samples: usize,
}

impl Feeder {
    async fn run(mut self, clips: mpsc::Sender<Result<InFlight, EmbedError>>) {
        let mut sent = 0_usize;
        loop {
            let next = self.next().await;
            let report = match next {
                Ok(Some(clip)) if clip.is_empty() => continue,
                Ok(Some(clip)) => Ok(clip),
                Ok(None) if sent == 0 => Err(self.nothing_usable()),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let last = report.is_err();
            sent += 1;
            if clips.send(report).await.is_err() || last {
                return;
            }
        }
    }

    async fn next(&mut self) -> Result<Option<InFlight>, EmbedError> {
        let clip = self.reader.next().await;
        let summary = self.reader.summary();
        let kind = summary.kind;
        *self.summary.lock().unwrap_or_else(PoisonError::into_inner) = Some(summary);
        let Some(clip) = clip? else { return Ok(None) };
        self.refuse_other_kinds(kind)?;
        self.queue(clip, kind).await.map(Some)
    }

    fn refuse_other_kinds(&self, got: AssetKind) -> Result<(), EmbedError> {
        match (self.only, got) {
            (Some(wanted @ Modality::Video), AssetKind::Image | AssetKind::Audio)
            | (Some(wanted @ Modality::Image), AssetKind::Video | AssetKind::Audio)
            | (Some(wanted @ Modality::Audio), AssetKind::Image) => {
                Err(EmbedError::WrongKind { wanted, got })
            }
            _ => Ok(()),
        }
    }

    async fn queue(&mut self, clip: ClipTensors, kind: AssetKind) -> Result<InFlight, EmbedError> {
        let same_frames = clip.same_frames(self.frames.as_ref(), self.patch_grid);
        let same_pcm = clip.same_pcm(self.pcm.as_ref(), self.pcm_samples);
        let picture = if kind == AssetKind::Image { Modality::Image } else { Modality::Video };
        let mut tracks = PerTrack::default();
        tracks[Track::Video] = match clip.frames.filter(|_| self.wanted(picture)) {
            None => Queued::Absent,
            Some(_) if same_frames => Queued::AsBefore,
            Some(frames) => {
                (self.frames, self.patch_grid) = (Some(frames.clone()), clip.patch_grid);
                let grid = clip.patch_grid.map(|grid| [grid.rows, grid.columns]);
                let pixels = Pixels { values: frames, grid, frame_count: clip.frame_count };
                let pending = match picture {
                    Modality::Image => self.towers.submit_image(pixels, self.priority).await,
                    _ => self.towers.submit_video(pixels, self.priority).await,
                };
                Queued::Asked(picture, pending?)
            }
        };
        tracks[Track::Audio] = match clip.pcm.filter(|_| self.wanted(Modality::Audio)) {
            None => Queued::Absent,
            Some(_) if same_pcm => Queued::AsBefore,
            Some(pcm) => {
                (self.pcm, self.pcm_samples) = (Some(pcm.clone()), clip.pcm_samples);
                let samples = Samples { pcm, own: clip.pcm_samples };
                Queued::Asked(Modality::Audio, self.towers.submit_audio(samples, self.priority).await?)
            }
        };
        Ok(InFlight { span: clip.span, windows: clip.windows, tracks })
    }

    fn wanted(&self, modality: Modality) -> bool {
        self.towers.bundle().has_tower(modality) && self.only.is_none_or(|only| only == modality)
    }

    fn nothing_usable(&self) -> EmbedError {
        let modality = self.only.unwrap_or(match self.reader.summary().kind {
            AssetKind::Video => Modality::Video,
            AssetKind::Audio => Modality::Audio,
            AssetKind::Image => Modality::Image,
        });
        if self.towers.bundle().has_tower(modality) {
            no_track(modality)
        } else {
            EmbedError::NoTower(modality)
        }
    }
}
