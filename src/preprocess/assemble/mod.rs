//! Assembles frames and sound into clips, buffering no more than necessary.

mod after;
mod cut;
mod merge;
mod sink;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc;

use super::bars::{self, Held};
use super::clips::{FrameBlocks, Plan, SampleStore, Tail, looped};
use super::frames::Resizer;
use super::{AssetSummary, ClipSpec, ClipTensors};
use crate::media::{Flow, MediaError, Outcome, WorkLimits};
use crate::types::{AssetKind, TimeSpan};

use self::after::After;
pub(super) use self::cut::Cut;
use self::merge::Merger;

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
    declared_secs: Option<f64>,
    /// Whether the declared length is an estimate.
    estimated: bool,
    /// Whether the stored picture is larger than the decoded frame.
    reduced: bool,
    resizer: Option<Resizer>,
    /// Number of frames and samples before the span that are still to be dropped.
    skip_frames: u64,
    skip_samples: u64,
    blocks: FrameBlocks,
    /// Frames that may have bars, if bars are to be removed.
    held: Option<Held>,
    plan: Plan,
    waiting: VecDeque<(u64, Arc<[u8]>)>,
    /// Number of waiting windows that do not share memory with the one before.
    waiting_apart: usize,
    /// Only the clip anchored at the end is still to be sent.
    at_end: bool,
    /// End of the last clip, in seconds.
    last_end_secs: f64,
    sound: SampleStore,
    /// The sound after the last picture, once no more pictures are expected.
    after: Option<After>,
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
        let frame_bytes = spec.crop * spec.crop * 3;
        Self {
            mode: Mode::Unknown,
            declared_secs: None,
            estimated: false,
            reduced: false,
            resizer: None,
            skip_frames: cut.run_up,
            skip_samples: 0,
            blocks: FrameBlocks::new(spec.frames, frame_bytes),
            held: spec.unbarred.then(|| Held::new(spec.frames, spec.resize_shorter_side, spec.crop)),
            plan: Plan::new(spec.frames as u64, spec.stride_secs * cut.fps),
            waiting: VecDeque::new(),
            waiting_apart: 0,
            at_end: false,
            last_end_secs: 0.0,
            sound: SampleStore::default(),
            after: None,
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
        let window_secs = self.spec.frames as f64 / self.cut.fps;
        self.out.allow(work, file_bytes, self.spec.stride_secs / window_secs);
    }

    /// Sends the clip that was held back.
    pub fn release(&mut self) -> Result<(), MediaError> {
        self.out.release()
    }

    /// Called after the decode: sends the last clips and completes the summary.
    pub fn finish(&mut self, outcome: &Outcome) -> Result<(), MediaError> {
        self.end_sound()?;
        if self.mode == Mode::Video && self.blocks.count == 0 && self.cut.span.is_none() {
            self.become_sound();
        }
        match self.mode {
            Mode::Video => {
                self.leave_pictures()?;
                self.finish_after()?;
            }
            Mode::Sound => self.finish_sound()?,
            Mode::Picture | Mode::Unknown => {}
        }
        self.release()?;
        let empty = self.blocks.count == 0 && self.sound.total() == 0 && self.mode != Mode::Picture;
        if let Some(span) = self.cut.span.filter(|_| empty) {
            return Err(MediaError::SpanOutOfRange { start_secs: span.start_secs });
        }
        self.summarise(outcome);
        Ok(())
    }

    fn summarise(&mut self, outcome: &Outcome) {
        let decoded = self.start_secs()
            + match self.mode {
                Mode::Video => (self.blocks.count as f64 / self.cut.fps).max(self.sound_secs()),
                _ => self.sound_secs(),
            };
        let notes: Vec<_> = outcome.partial.iter().chain(&self.notes).map(String::as_str).collect();
        let declared = self.declared_secs.filter(|declared| match (self.mode, self.cut.span) {
            (_, Some(_)) => true,
            _ if self.estimated => false,
            // Counted samples are exact; a container declares the length of its longest track.
            (Mode::Sound, None) => false,
            (_, None) => notes.is_empty() && decoded < declared + SAME_END_SECS,
        });
        // The declared length can be that of another track.
        let declared = declared.map(|declared| declared.max(self.last_end_secs));
        let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
        summary.kind = match self.mode {
            Mode::Sound => AssetKind::Audio,
            Mode::Picture => AssetKind::Image,
            Mode::Video | Mode::Unknown => AssetKind::Video,
        };
        summary.duration_secs = if self.mode == Mode::Picture { 0.0 } else { declared.unwrap_or(decoded) };
        summary.has_video = self.mode != Mode::Sound;
        summary.has_audio = self.sound.total() > 0;
        summary.partial = (!notes.is_empty()).then(|| notes.join("; "));
        summary.tracks.clone_from(&outcome.info.tracks);
        summary.decode_cpu_secs = outcome.cpu_secs;
        summary.preprocess_secs = self.preprocess.as_secs_f64();
    }

    /// Position of the first wanted frame or sample in the asset, in seconds.
    fn start_secs(&self) -> f64 {
        match self.mode {
            Mode::Sound => self.cut.span.map_or(0.0, |span| span.start_secs),
            _ => self.cut.first_frame as f64 / self.cut.fps,
        }
    }

    fn sound_secs(&self) -> f64 {
        self.sound.total() as f64 / f64::from(self.spec.sample_rate_hz.max(1))
    }

    /// Index of the first sample of a frame.
    fn sample_of(&self, frame: u64) -> u64 {
        (frame as f64 / self.cut.fps * f64::from(self.spec.sample_rate_hz)).round() as u64
    }

    fn become_sound(&mut self) {
        self.mode = Mode::Sound;
        let rate = f64::from(self.spec.sample_rate_hz);
        self.plan = Plan::new(self.spec.samples as u64, self.spec.stride_secs * rate);
    }

    /// Takes a frame that lasts for `periods` sampling periods.
    fn take_frame(&mut self, width: u32, height: u32, rgb: &[u8], periods: u64) -> Result<Flow, MediaError> {
        let begun = Instant::now();
        let (width, height) = (width as usize, height as usize);
        let spec = &self.spec;
        let fresh = || Resizer::new(width, height, spec.resize_shorter_side, spec.crop);
        let resizer = match &mut self.resizer {
            Some(resizer) if resizer.fits(width, height) => resizer,
            slot => slot.insert(fresh()),
        };
        if self.mode == Mode::Picture {
            let unbarred =
                spec.unbarred.then(|| bars::still(rgb, width, height, spec.resize_shorter_side, spec.crop));
            let out = unbarred.flatten().unwrap_or_else(|| {
                let mut out = vec![0; spec.crop * spec.crop * 3];
                resizer.run(rgb, &mut out);
                out.into()
            });
            self.preprocess += begun.elapsed();
            let span = TimeSpan { start_secs: 0.0, end_secs: 1.0 / self.cut.fps };
            self.send(ClipTensors { span, frames: Some(out), pcm: None, windows: 1 })?;
            // Read on to the end, which shows whether the picture is complete.
            return Ok(Flow::More);
        }
        self.blocks.push(|out| {
            resizer.run(rgb, out);
        });
        if let Some(held) = &mut self.held {
            held.push(rgb, width, height);
        }
        self.preprocess += begun.elapsed();
        self.take_windows()?;
        self.repeat_frame(periods - 1)?;
        Ok(Flow::More)
    }

    /// Repeats the latest frame this many times.
    fn repeat_frame(&mut self, mut times: u64) -> Result<(), MediaError> {
        while times > 0 {
            let steady = self.held.as_ref().is_none_or(Held::steady);
            let taken = self.blocks.repeat(if steady { times } else { 1 });
            if let Some(held) = &mut self.held {
                held.repeat(taken);
            }
            times -= taken;
            self.take_windows()?;
        }
        Ok(())
    }

    /// The window of the latest frames, which begins at frame `start`; without bars, if they are to be
    /// removed.
    fn window(&mut self, start: u64) -> Arc<[u8]> {
        let begun = Instant::now();
        let unbarred = self.held.as_mut().and_then(|held| held.window(self.spec.frames));
        self.preprocess += begun.elapsed();
        unbarred.unwrap_or_else(|| self.blocks.window(start))
    }

    /// Queues the windows that have become complete.
    fn take_windows(&mut self) -> Result<(), MediaError> {
        while let Some(start) = self.plan.next(self.blocks.count) {
            let window = self.window(start);
            self.wait_for_sound(start, window);
        }
        self.emit()?;
        self.give_up_sound_if_late()
    }

    fn wait_for_sound(&mut self, start: u64, window: Arc<[u8]>) {
        let same = self.waiting.back().is_some_and(|(_, before)| Arc::ptr_eq(before, &window));
        self.waiting_apart += usize::from(!same);
        self.waiting.push_back((start, window));
    }

    /// Sends every waiting clip whose sound is complete.
    fn emit(&mut self) -> Result<(), MediaError> {
        while let Some((start, _)) = self.waiting.front() {
            let sample = self.sample_of(*start);
            if self.has_sound && !self.sound.ended && self.sound.total() < sample + self.spec.samples as u64 {
                break;
            }
            let Some((start, frames)) = self.waiting.pop_front() else { break };
            let same = self.waiting.front().is_some_and(|(_, next)| Arc::ptr_eq(next, &frames));
            self.waiting_apart -= usize::from(!same);
            let real = self.sound.real(sample, self.spec.samples);
            let heard = real * 10 >= self.spec.samples && real > 0;
            let pcm = heard.then(|| self.sound.slice(sample, self.spec.samples).0);
            let span = self.frame_span(start, self.spec.frames as u64);
            self.send(ClipTensors { span, frames: Some(frames), pcm, windows: 1 })?;
        }
        let needed = self.plan.needed_from(self.blocks.count);
        let needed = self.waiting.front().map_or(needed, |(start, _)| needed.min(*start));
        self.sound.forget_before(self.sample_of(needed));
        Ok(())
    }

    /// Pictures cannot wait for ever. If the sound of a file lies too far behind, the rest of the sound is
    /// dropped.
    fn give_up_sound_if_late(&mut self) -> Result<(), MediaError> {
        let bytes = self.waiting_apart * self.spec.frames * self.spec.crop * self.spec.crop * 3;
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
        let total = self.blocks.count;
        match self.plan.tail(total) {
            Tail::None => Ok(()),
            Tail::Anchored(start) => {
                self.at_end = true;
                let window = self.window(start);
                self.wait_for_sound(start, window);
                self.emit()
            }
            Tail::Looped(count) => {
                let unbarred = self.held.as_mut().and_then(|held| held.window(count as usize));
                let frames = match unbarred {
                    Some(frames) => looped(&frames, self.spec.frames * self.spec.crop * self.spec.crop * 3),
                    None => self.blocks.looped(count),
                };
                let unit = self.sample_of(count) as usize;
                let (sound, real) = self.sound.slice(0, unit);
                let pcm = (real * 10 >= unit && real > 0).then(|| looped(&sound, self.spec.samples));
                let span = self.frame_span(0, count);
                self.send(ClipTensors { span, frames: Some(frames), pcm, windows: 1 })
            }
        }
    }

    /// Sends the clips of a sound file that are complete.
    fn emit_sound(&mut self) -> Result<(), MediaError> {
        while let Some(start) = self.plan.next(self.sound.total()) {
            self.send_sound(start, self.spec.samples as u64)?;
        }
        self.sound.forget_before(self.plan.needed_from(self.sound.total()));
        Ok(())
    }

    fn finish_sound(&mut self) -> Result<(), MediaError> {
        self.emit_sound()?;
        match self.plan.tail(self.sound.total()) {
            Tail::None => Ok(()),
            Tail::Anchored(start) => {
                self.at_end = true;
                self.send_sound(start, self.spec.samples as u64)
            }
            Tail::Looped(count) => self.send_sound(0, count),
        }
    }

    fn send_sound(&mut self, start: u64, count: u64) -> Result<(), MediaError> {
        let (pcm, _) = self.sound.slice(start, count as usize);
        let pcm = if (count as usize) < self.spec.samples { looped(&pcm, self.spec.samples) } else { pcm };
        let secs = |sample: u64| self.start_secs() + sample as f64 / f64::from(self.spec.sample_rate_hz);
        let span = self.within(secs(start), secs(start + count));
        self.send(ClipTensors { span, frames: None, pcm: Some(pcm), windows: 1 })
    }

    fn frame_span(&self, start: u64, count: u64) -> TimeSpan {
        let secs = |frame: u64| (self.cut.first_frame + frame) as f64 / self.cut.fps;
        let (start_secs, end_secs) = (secs(start), secs(start + count));
        self.within(start_secs, end_secs)
    }

    /// A span of a video, cut at the declared end if it slightly exceeds that: sampling rounds the end of the
    /// last frame up, codecs pad their last block, and a container may give the last of uneven frames the
    /// duration of the one before.
    fn within(&self, start_secs: f64, end_secs: f64) -> TimeSpan {
        let end = |declared: &f64| *declared > start_secs && end_secs - declared < SAME_END_SECS;
        let declared = self.declared_secs.filter(end).filter(|_| self.mode == Mode::Video);
        TimeSpan { start_secs, end_secs: declared.map_or(end_secs, |declared| end_secs.min(declared)) }
    }

    fn send(&mut self, clip: ClipTensors) -> Result<(), MediaError> {
        self.last_end_secs = self.last_end_secs.max(clip.span.end_secs);
        self.out.send(clip, self.at_end)
    }

    fn take_sound(&mut self, samples: &[f32]) -> Result<(), MediaError> {
        let skip = self.skip_samples.min(samples.len() as u64);
        self.skip_samples -= skip;
        let mut samples = &samples[skip as usize..];
        if let Some(span) = self.cut.span.filter(|_| self.mode == Mode::Sound) {
            let wanted = (span.duration_secs() * f64::from(self.spec.sample_rate_hz)).round() as u64;
            let left = wanted.saturating_sub(self.sound.total());
            samples = &samples[..samples.len().min(left as usize)];
        }
        self.sound.push(samples);
        match (self.mode, &self.after) {
            (Mode::Sound, _) => return self.emit_sound(),
            (_, Some(_)) => return self.emit_after(),
            _ => self.emit()?,
        }
        if self.sound.kept() <= MAX_WAITING_SAMPLES {
            return Ok(());
        }
        if self.blocks.count == 0 {
            self.notes.push(
                "no picture was found in the first minutes of audio, so the file was read as audio only"
                    .into(),
            );
            self.become_sound();
            return self.emit_sound();
        }
        self.leave_pictures()?;
        self.emit_after()
    }

    fn end_sound(&mut self) -> Result<(), MediaError> {
        self.sound.ended = true;
        if self.mode == Mode::Video && self.after.is_none() { self.emit() } else { Ok(()) }
    }
}
