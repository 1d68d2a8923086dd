//! Assembles frames and sound into clips, buffering no more than necessary.

mod after;
mod apart;
mod cut;
mod ends;
mod last;
mod merge;
mod pictures;
mod sink;
mod sounding;
mod spread;
mod still;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::mpsc;

use super::clips::{Plan, SampleStore, Tail};
use super::spec::Sampling;
use super::{AssetSummary, ClipSpec, ClipTensors};
use crate::media::{Flow, MediaError, Outcome, WorkLimits};
use crate::types::TimeSpan;

use self::after::After;
use self::apart::Apart;
pub(super) use self::cut::Cut;
pub(super) use self::last::LastWindow;
use self::merge::Merger;
use self::pictures::{Last, Pictures, Window};
use self::sounding::sound_plan;
use self::still::still;

/// Most samples that wait for their pictures: 5.8 minutes at 48 kHz.
const MAX_WAITING_SAMPLES: usize = 16 << 20;
/// Most bytes of pictures that wait for their sound.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// Declared and decoded lengths that differ by less than this, in seconds, mean the same end.
const SAME_END_SECS: f64 = 1.0;

/// Message from the reading thread to the caller.
pub(super) enum Message {
    Clip(ClipTensors),
    Failed(MediaError),
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Unknown,
    Video,
    Sound,
    Picture,
}

/// Sink of the decode of one asset.
pub(super) struct Assembler {
    spec: ClipSpec,
    cut: Cut,
    out: Merger,
    summary: Arc<Mutex<AssetSummary>>,
    mode: Mode,
    /// Whether the asset is a film, also where only its sound is read.
    is_film: bool,
    declared_secs: Option<f64>,
    /// Whether the declared length is an estimate.
    estimated: bool,
    /// Whether the stored picture is larger than the decoded frame.
    reduced: bool,
    /// Number of frames and samples before the span that are still to be dropped.
    skip_frames: u64,
    skip_samples: u64,
    pictures: Pictures,
    /// Windows of sound, if the asset is a sound.
    plan: Plan,
    waiting: VecDeque<Window>,
    /// Number of waiting windows that do not share memory with the one before.
    waiting_apart: usize,
    /// Only the clip anchored at the end is still to be sent.
    at_end: bool,
    /// End of the last clip, in seconds.
    last_end_secs: f64,
    /// A clip that was cut at the declared end, and its end if the film continues.
    held: Option<(ClipTensors, f64)>,
    /// Length of the pictures in periods, once it is known.
    periods: Option<u64>,
    /// The last window, if it was decoded once more.
    last: Option<Window>,
    sound: SampleStore,
    /// The sound after the last picture, once no more pictures are expected.
    after: Option<After>,
    /// Sound that is cut by itself beside pictures.
    apart: Option<Apart>,
    has_sound: bool,
    notes: Vec<String>,
    preprocess: std::time::Duration,
}

impl Assembler {
    pub fn new(
        spec: ClipSpec,
        cut: Cut,
        out: mpsc::Sender<Message>,
        summary: Arc<Mutex<AssetSummary>>,
    ) -> Self {
        Self {
            mode: Mode::Unknown,
            is_film: false,
            declared_secs: None,
            estimated: false,
            reduced: false,
            skip_frames: cut.run_up,
            skip_samples: 0,
            pictures: Pictures::new(&spec, cut.sampling),
            plan: sound_plan(&spec),
            waiting: VecDeque::new(),
            waiting_apart: 0,
            at_end: false,
            last_end_secs: 0.0,
            held: None,
            periods: None,
            last: None,
            sound: SampleStore::default(),
            after: None,
            apart: spec.sound_apart.then(|| Apart::new(&spec, out.clone())),
            has_sound: false,
            notes: Vec::new(),
            preprocess: std::time::Duration::ZERO,
            spec,
            cut,
            out: Merger::new(out),
            summary,
        }
    }

    /// Limits the clips to what a file of this size may expand to.
    pub fn allow_for(&mut self, work: WorkLimits, file_bytes: u64) {
        let window_secs = match self.spec.sampling {
            Sampling::Rate { frames, .. } => frames as f64 / self.cut.fps,
            Sampling::Spread { window_secs, .. } => window_secs,
        };
        self.out.allow(work, file_bytes, self.spec.stride_secs / window_secs);
        if let Some(apart) = &mut self.apart {
            apart.allow(work, file_bytes, &self.spec.sound);
        }
    }

    /// Sends the buffered clips.
    pub fn release(&mut self) -> Result<(), MediaError> {
        if let Some((clip, _)) = self.held.take() {
            self.pass_on(clip)?;
        }
        self.out.release()?;
        self.apart.as_mut().map_or(Ok(()), Apart::release)
    }

    /// The last window, if it must be decoded once more because its length is known only now.
    pub fn undecoded(&mut self, outcome: &Outcome) -> Option<LastWindow> {
        if self.mode != Mode::Video || self.pictures.count() == 0 || outcome.stopped {
            return None;
        }
        let most = self.cut.end_frame.map_or(u64::MAX, |end| end - self.cut.first_frame);
        let counted = outcome.periods.map_or(0, |periods| periods.saturating_sub(self.cut.run_up));
        let len = counted.max(self.pictures.count()).min(most);
        self.periods = Some(len);
        match self.pictures.last_window(len) {
            Last::Inexact(window) => {
                Some(LastWindow::new(&self.spec, &self.cut, window.start, window.periods))
            }
            Last::Nothing | Last::Anchored(_) | Last::Short(_) => None,
        }
    }

    /// Takes the last window, which was decoded once more. Without it, frames close to its own must do.
    pub fn take_last(&mut self, last: LastWindow) {
        self.last = last.finish();
        if self.last.is_none() {
            self.notes.push("the frames of its last clip could not be decoded a second time".into());
        }
    }

    /// Called after the decode: sends the last clips and completes the summary.
    pub fn finish(&mut self, outcome: &Outcome) -> Result<(), MediaError> {
        self.end_sound()?;
        if self.mode == Mode::Video && self.pictures.count() == 0 && self.cut.span.is_none() {
            self.become_sound();
        }
        match self.mode {
            Mode::Video => {
                self.leave_pictures()?;
                self.finish_after()?;
                self.finish_apart()?;
            }
            Mode::Sound => self.finish_sound()?,
            Mode::Picture | Mode::Unknown => {}
        }
        self.release()?;
        let empty = self.pictures.count() == 0 && self.sound.total() == 0 && self.mode != Mode::Picture;
        if let Some(span) = self.cut.span.filter(|_| empty) {
            return Err(MediaError::SpanOutOfRange { start_secs: span.start_secs });
        }
        self.summarise(outcome);
        Ok(())
    }

    /// Position of the first wanted frame or sample in the asset, in seconds.
    fn start_secs(&self) -> f64 {
        match self.mode {
            Mode::Sound => self.cut.span.map_or(0.0, |span| span.start_secs),
            _ => self.cut.first_frame as f64 / self.cut.fps,
        }
    }

    /// Position of the first wanted sample in the asset, in seconds.
    fn sound_start_secs(&self) -> f64 {
        match (self.cut.span, &self.apart) {
            (Some(span), Some(_)) => span.start_secs,
            _ => self.start_secs(),
        }
    }

    fn sound_secs(&self) -> f64 {
        self.sound.total() as f64 / f64::from(self.spec.sound.sample_rate_hz.max(1))
    }

    /// Index of the first sample of a frame.
    fn sample_of(&self, frame: u64) -> u64 {
        (frame as f64 / self.cut.fps * f64::from(self.spec.sound.sample_rate_hz)).round() as u64
    }

    /// Takes a frame that lasts for `periods` sampling periods.
    fn take_frame(&mut self, width: u32, height: u32, rgb: &[u8], periods: u64) -> Result<Flow, MediaError> {
        let begun = Instant::now();
        let (width, height) = (width as usize, height as usize);
        if self.mode == Mode::Picture {
            let (frames, patch_grid) = still(&self.spec.image, rgb, width, height);
            self.preprocess += begun.elapsed();
            let secs = match self.spec.sampling {
                Sampling::Rate { .. } => 1.0 / self.cut.fps,
                Sampling::Spread { frames, window_secs } => window_secs / frames.max(1) as f64,
            };
            let span = TimeSpan { start_secs: 0.0, end_secs: secs };
            let frames = Some(frames);
            self.send(ClipTensors {
                span,
                frames,
                patch_grid,
                frame_count: None,
                pcm: None,
                pcm_samples: 0,
                windows: 1,
            })?;
            // Read on to the end, which shows whether the picture is complete.
            return Ok(Flow::More);
        }
        self.pictures.push(rgb, width, height);
        self.preprocess += begun.elapsed();
        self.take_windows()?;
        let mut left = periods - 1;
        while left > 0 {
            left -= self.pictures.repeat(left);
            self.take_windows()?;
        }
        Ok(Flow::More)
    }

    /// Queues the windows that have become complete.
    fn take_windows(&mut self) -> Result<(), MediaError> {
        loop {
            let begun = Instant::now();
            let window = self.pictures.next_window();
            self.preprocess += begun.elapsed();
            let Some(window) = window else { break };
            self.wait_for_sound(window);
        }
        self.emit()?;
        self.give_up_sound_if_late()
    }

    fn wait_for_sound(&mut self, window: Window) {
        let same = self.waiting.back().is_some_and(|before| Arc::ptr_eq(&before.frames, &window.frames));
        self.waiting_apart += usize::from(!same);
        self.waiting.push_back(window);
    }

    /// Sends every waiting clip whose sound is complete.
    fn emit(&mut self) -> Result<(), MediaError> {
        while let Some(window) = self.waiting.front() {
            let end = self.sample_of(window.start) + self.samples_of(window);
            let awaited = self.has_sound && self.apart.is_none();
            if awaited && !self.sound.ended && self.sound.total() < end {
                break;
            }
            let Some(window) = self.waiting.pop_front() else { break };
            let same = self.waiting.front().is_some_and(|next| Arc::ptr_eq(&next.frames, &window.frames));
            self.waiting_apart -= usize::from(!same);
            self.send_window(window)?;
        }
        if self.apart.is_none() {
            let needed = self.pictures.needed_from();
            let needed = self.waiting.front().map_or(needed, |window| needed.min(window.start));
            self.sound.forget_before(self.sample_of(needed));
        }
        Ok(())
    }

    /// Sends a clip of pictures with the sound of its seconds.
    fn send_window(&mut self, window: Window) -> Result<(), MediaError> {
        let (pcm, pcm_samples) = match self.sound_of_window(&window) {
            Some((pcm, own)) => (Some(pcm), own),
            None => (None, 0),
        };
        let Window { start, periods, frames, grid: patch_grid, whole } = window;
        let span = self.frame_span(start, periods);
        let frame_count = (!whole).then(|| self.own_frames(span, periods));
        let frames = Some(frames);
        self.send(ClipTensors { span, frames, patch_grid, frame_count, pcm, pcm_samples, windows: 1 })
    }

    /// Number of frames of a film shorter than a window: one per whole period, at least one.
    fn own_frames(&self, span: TimeSpan, periods: u64) -> usize {
        // The last frame's period is counted even if the film ends within it.
        let end_secs = self.declared_near(span).unwrap_or(span.end_secs);
        let whole = ((end_secs - span.start_secs) * self.cut.fps + 1e-6).floor() as u64;
        usize::try_from(whole.min(periods).max(1)).unwrap_or(usize::MAX)
    }

    /// Pictures cannot wait for ever. If the sound is stored too far behind them, the rest of the sound is
    /// dropped.
    fn give_up_sound_if_late(&mut self) -> Result<(), MediaError> {
        let bytes = self.waiting_apart * self.pictures.window_bytes();
        if bytes <= MAX_WAITING_BYTES || self.waiting_apart <= 2 {
            return Ok(());
        }
        self.drop_sound("its audio is stored too far behind its pictures");
        self.emit()
    }

    fn drop_sound(&mut self, why: &str) {
        let at = self.sound_secs();
        self.notes.push(format!("audio after {at:.1} s was left out: {why}"));
        self.sound.ended = true;
    }

    fn finish_video(&mut self) -> Result<(), MediaError> {
        self.emit()?;
        let len = self.periods.unwrap_or_else(|| self.pictures.count());
        let begun = Instant::now();
        let last = match self.last.take() {
            Some(window) => Last::Short(window),
            None => self.pictures.last_window(len),
        };
        self.preprocess += begun.elapsed();
        match last {
            Last::Nothing => Ok(()),
            Last::Anchored(window) => {
                self.at_end = true;
                self.wait_for_sound(window);
                self.emit()
            }
            Last::Short(window) | Last::Inexact(window) => self.send_window(window),
        }
    }

    fn frame_span(&self, start: u64, count: u64) -> TimeSpan {
        let secs = |frame: u64| (self.cut.first_frame + frame) as f64 / self.cut.fps;
        TimeSpan { start_secs: secs(start), end_secs: secs(start + count) }
    }
}
