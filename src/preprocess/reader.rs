//! The asynchronous interface of a decode: one thread per asset reads the child's output and makes the clips.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::assemble::{Assembler, Cut, Message};
use super::spec::Sampling;
use super::{AssetSummary, ClipSpec, ClipTensors};
use crate::media::{Cancel, CancelGuard, Decoder, MediaError, Seat, decode, film, open_media};
use crate::types::{TimeSpan, TrackChoice};

/// Most finished clips that wait for the caller.
const QUEUE: usize = 2;

/// Streams an asset's clips. Memory use does not grow with the asset's length. Dropping the reader ends the
/// child.
pub struct ClipReader {
    messages: mpsc::Receiver<Message>,
    first: Option<ClipTensors>,
    done: bool,
    summary: Arc<Mutex<AssetSummary>>,
    _cancel: CancelGuard,
}

impl ClipReader {
    /// Opens a file and starts decoding. `span` limits the work to a part of the asset; frames then begin on
    /// the grid of the sampling rate, at or before the start of the span.
    ///
    /// # Errors
    /// [`MediaError`] if the file is refused before its first clip.
    pub async fn open(
        decoder: &Decoder,
        path: &Path,
        spec: &ClipSpec,
        span: Option<TimeSpan>,
    ) -> Result<Self, MediaError> {
        Self::open_tracks(decoder, path, spec, span, TrackChoice::default()).await
    }

    /// Like [`ClipReader::open`], for chosen file tracks.
    ///
    /// # Errors
    /// As [`ClipReader::open`]; [`MediaError::UnknownTrack`].
    pub async fn open_tracks(
        decoder: &Decoder,
        path: &Path,
        spec: &ClipSpec,
        span: Option<TimeSpan>,
        tracks: TrackChoice,
    ) -> Result<Self, MediaError> {
        let seat = decoder.seat().await?;
        let (cancel, guard) = Cancel::new().map_err(|e| MediaError::Worker(e.to_string()))?;
        let (sender, messages) = mpsc::channel(QUEUE);
        let summary = Arc::new(Mutex::new(AssetSummary::unknown()));
        let (spec, path, said) = (spec.clone(), path.to_owned(), summary.clone());
        let job =
            Job { decoder: decoder.clone(), seat, path, spec, span, tracks, sender: sender.clone(), said };
        spawn(move || {
            let last = match caught(|| job.run(&cancel)) {
                Ok(()) => Message::End,
                Err(error) => Message::Failed(error),
            };
            // The reader may have been dropped.
            let _ = sender.blocking_send(last);
        })?;
        let mut reader = Self { messages, first: None, done: false, summary, _cancel: guard };
        reader.first = reader.receive().await?;
        Ok(reader)
    }

    /// The next clip, or `None` at the end.
    ///
    /// # Errors
    /// [`MediaError`] if decoding fails and no more clips can follow.
    pub async fn next(&mut self) -> Result<Option<ClipTensors>, MediaError> {
        match self.first.take() {
            Some(clip) => Ok(Some(clip)),
            None => self.receive().await,
        }
    }

    async fn receive(&mut self) -> Result<Option<ClipTensors>, MediaError> {
        if self.done {
            return Ok(None);
        }
        match self.messages.recv().await {
            Some(Message::Clip(clip)) => Ok(Some(clip)),
            Some(Message::End) => {
                self.done = true;
                Ok(None)
            }
            Some(Message::Failed(error)) => {
                self.done = true;
                Err(error)
            }
            None => {
                self.done = true;
                Err(MediaError::Worker("its reader ended without an error".into()))
            }
        }
    }

    /// Facts about the asset so far.
    #[must_use]
    pub fn summary(&self) -> AssetSummary {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Job {
    decoder: Decoder,
    seat: Seat,
    path: PathBuf,
    spec: ClipSpec,
    span: Option<TimeSpan>,
    tracks: TrackChoice,
    sender: mpsc::Sender<Message>,
    said: Arc<Mutex<AssetSummary>>,
}

impl Job {
    fn run(self, cancel: &Cancel) -> Result<(), MediaError> {
        let Self { decoder, seat, path, spec, span, tracks, sender, said } = self;
        let media = open_media(&path)?;
        let bytes = media.metadata().map_err(MediaError::Open)?.len();
        let film = match spec.sampling {
            Sampling::Rate { .. } => None,
            Sampling::Spread { .. } => film(&decoder, &seat, &media, tracks)?,
        };
        let cut = Cut::new(&spec, film, span, tracks);
        let mut assembler = Assembler::new(spec, cut, sender, said);
        assembler.allow_for(decoder.config.limits.work, bytes);
        let request = cut.request();
        match decode(&decoder, &seat, &media, request, &mut assembler, Some(cancel)) {
            Ok(mut outcome) => {
                if let Some(mut last) = assembler.undecoded(&outcome) {
                    let again = decode(&decoder, &seat, &media, last.request(), &mut last, Some(cancel));
                    outcome.cpu_secs += again.map_or(0.0, |again| again.cpu_secs);
                    assembler.take_last(last);
                }
                assembler.finish(&outcome)
            }
            Err(error) => {
                // The clips before the error are valid.
                assembler.release()?;
                Err(cut.explain(error))
            }
        }
    }
}

/// Turns a panic over a file's contents into an error, so that other files are not affected.
fn caught<T>(work: impl FnOnce() -> Result<T, MediaError>) -> Result<T, MediaError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(MediaError::Worker("its thread panicked".to_owned())))
}

/// Uses a thread of its own rather than the runtime's pool: the kernel kills the child when the thread that
/// started it ends, and the runtime ends idle threads at any time.
fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), MediaError> {
    let builder = std::thread::Builder::new().name("triptych-media".into());
    let span = tracing::Span::current();
    let work = move || {
        crate::native::work_in_background();
        span.in_scope(work);
    };
    builder.spawn(work).map(drop).map_err(|e| MediaError::Worker(format!("no thread: {e}")))
}

/// Runs blocking media work on a thread of its own.
pub(super) async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MediaError> + Send + 'static,
) -> Result<T, MediaError> {
    let (sender, receiver) = oneshot::channel();
    spawn(move || {
        // The caller may be gone.
        let _ = sender.send(caught(work));
    })?;
    receiver.await.unwrap_or_else(|_| Err(MediaError::Worker("its thread ended without an error".into())))
}
