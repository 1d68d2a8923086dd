//! Puts frames and sound together to clips, holding back no more than it must.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc;

use super::clips::{FrameBlocks, Plan, SampleStore, Tail, looped};
use super::frames::Resizer;
use super::resample::Resampler;
use super::{AssetSummary, ClipSpec, ClipTensors};
use crate::media::{DecodeRequest, Flow, MediaError, MediaInfo, Outcome, Sink};
use crate::types::{AssetKind, TimeSpan};

/// Sound that may wait for its pictures, samples: 5.8 minutes at 48 kHz.
const MAX_WAITING_SAMPLES: usize = 16 << 20;
/// Pictures that may wait for their sound, bytes.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// From the reading thread to the caller.
pub(super) enum Message {
    Clip(ClipTensors),
    Failed(MediaError),
    End,
}

/// Which part of the asset is wanted, in frames and in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    fps: f64,
    sample_rate_hz: u32,
    /// First frame wanted.
    first_frame: u64,
    /// Frame after the last.
    end_frame: Option<u64>,
    /// Frames decoded before the first, so that a picture that began earlier is there.
    run_up: u64,
    span: Option<TimeSpan>,
}

impl Cut {
    pub fn new(spec: &ClipSpec, span: Option<TimeSpan>) -> Self {
        let fps = if spec.fps.is_finite() && spec.fps > 0.0 { spec.fps } else { 1.0 };
        // A span's ends may come from a clip's own seconds: what is a hair off the grid is on it.
        let first_frame = span.map_or(0, |s| (s.start_secs * fps + 1e-6).floor() as u64);
        let end_frame = span.map(|s| ((s.end_secs * fps - 1e-6).ceil() as u64).max(first_frame + 1));
        let run_up = (fps.ceil() as u64).min(first_frame);
        Self { fps, sample_rate_hz: spec.sample_rate_hz, first_frame, end_frame, run_up, span }
    }

    /// What to ask the decoder for.
    pub fn request(&self) -> DecodeRequest {
        let start_secs = self.decode_start_secs();
        // One frame more: the last one wanted is then never the decoder's rounded end.
        let duration_secs = self.end_frame.map(|end| (end + 1) as f64 / self.fps - start_secs);
        DecodeRequest { fps: self.fps, sample_rate_hz: self.sample_rate_hz, start_secs, duration_secs }
    }

    /// The decoder knows where it began, not where the span does.
    pub fn explain(&self, error: MediaError) -> MediaError {
        match (error, self.span) {
            (MediaError::SpanOutOfRange { .. }, Some(span)) => {
                MediaError::SpanOutOfRange { start_secs: span.start_secs }
            }
            (error, _) => error,
        }
    }

    fn decode_start_secs(&self) -> f64 {
        (self.first_frame - self.run_up) as f64 / self.fps
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Unknown,
    Video,
    Sound,
    Picture,
}

/// The sink of one asset's decode.
pub(super) struct Assembler {
    spec: ClipSpec,
    cut: Cut,
    out: mpsc::Sender<Message>,
    summary: Arc<Mutex<AssetSummary>>,
    mode: Mode,
    declared_secs: Option<f64>,
    /// The declared length is a guess.
    estimated: bool,
    resizer: Option<Resizer>,
    resampler: Option<Resampler>,
    resampled: Vec<f32>,
    /// Frames and samples before the span that are still to be dropped.
    skip_frames: u64,
    skip_samples: u64,
    blocks: FrameBlocks,
    plan: Plan,
    waiting: VecDeque<(u64, Arc<[u8]>)>,
    sound: SampleStore,
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
            resizer: None,
            resampler: None,
            resampled: Vec::new(),
            skip_frames: cut.run_up,
            skip_samples: 0,
            blocks: FrameBlocks::new(spec.frames, frame_bytes),
            plan: Plan::new(spec.frames as u64, spec.stride_secs * cut.fps),
            waiting: VecDeque::new(),
            sound: SampleStore::default(),
            has_sound: false,
            notes: Vec::new(),
            preprocess: std::time::Duration::ZERO,
            spec,
            cut,
            out,
            summary,
        }
    }

    /// After the decode: the last clips, and the summary.
    pub fn finish(&mut self, outcome: &Outcome) -> Result<(), MediaError> {
        self.end_sound()?;
        if self.mode == Mode::Video && self.blocks.count == 0 {
            self.become_sound();
        }
        match self.mode {
            Mode::Video => self.finish_video()?,
            Mode::Sound => self.finish_sound()?,
            Mode::Picture | Mode::Unknown => {}
        }
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
            // Counted samples are exact; a container's length is that of its longest track.
            (Mode::Sound, None) => false,
            (_, None) => notes.is_empty() && decoded < declared + 1.0,
        });
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
        summary.decode_cpu_secs = outcome.cpu_secs;
        summary.preprocess_secs = self.preprocess.as_secs_f64();
    }

    /// Where the first wanted frame or sample lies in the asset.
    fn start_secs(&self) -> f64 {
        match self.mode {
            Mode::Sound => self.cut.span.map_or(0.0, |span| span.start_secs),
            _ => self.cut.first_frame as f64 / self.cut.fps,
        }
    }

    fn sound_secs(&self) -> f64 {
        self.sound.total() as f64 / f64::from(self.spec.sample_rate_hz.max(1))
    }

    /// The first sample of a frame.
    fn sample_of(&self, frame: u64) -> u64 {
        (frame as f64 / self.cut.fps * f64::from(self.spec.sample_rate_hz)).round() as u64
    }

    fn become_sound(&mut self) {
        self.mode = Mode::Sound;
        let rate = f64::from(self.spec.sample_rate_hz);
        self.plan = Plan::new(self.spec.samples as u64, self.spec.stride_secs * rate);
    }

    fn take_frame(&mut self, width: u32, height: u32, rgb: &[u8]) -> Result<Flow, MediaError> {
        let begun = Instant::now();
        let (width, height) = (width as usize, height as usize);
        let spec = &self.spec;
        let fresh = || Resizer::new(width, height, spec.resize_shorter_side, spec.crop);
        let resizer = match &mut self.resizer {
            Some(resizer) if resizer.fits(width, height) => resizer,
            slot => slot.insert(fresh()),
        };
        if self.mode == Mode::Picture {
            let mut out = vec![0; spec.crop * spec.crop * 3];
            resizer.run(rgb, &mut out);
            self.preprocess += begun.elapsed();
            let span = TimeSpan { start_secs: 0.0, end_secs: 1.0 / self.cut.fps };
            self.send(ClipTensors { span, frames: Some(out.into()), pcm: None })?;
            return Ok(Flow::Stop);
        }
        self.blocks.push(|out| {
            resizer.run(rgb, out);
        });
        self.preprocess += begun.elapsed();
        while let Some(start) = self.plan.next(self.blocks.count) {
            self.waiting.push_back((start, self.blocks.window(start)));
        }
        self.emit()?;
        self.give_up_sound_if_late()?;
        Ok(Flow::More)
    }

    /// Sends every waiting clip whose sound is complete.
    fn emit(&mut self) -> Result<(), MediaError> {
        while let Some((start, _)) = self.waiting.front() {
            let sample = self.sample_of(*start);
            if self.has_sound && !self.sound.ended && self.sound.total() < sample + self.spec.samples as u64 {
                break;
            }
            let Some((start, frames)) = self.waiting.pop_front() else { break };
            let (pcm, real) = self.sound.slice(sample, self.spec.samples);
            let pcm = (real * 10 >= self.spec.samples && real > 0).then_some(pcm);
            let span = self.frame_span(start, self.spec.frames as u64);
            self.send(ClipTensors { span, frames: Some(frames), pcm })?;
        }
        let needed = self.plan.needed_from(self.blocks.count);
        let needed = self.waiting.front().map_or(needed, |(start, _)| needed.min(*start));
        self.sound.forget_before(self.sample_of(needed));
        Ok(())
    }

    /// Pictures cannot wait for ever: a file whose sound lies far behind loses it from there on.
    fn give_up_sound_if_late(&mut self) -> Result<(), MediaError> {
        let bytes = self.waiting.len() * self.spec.frames * self.spec.crop * self.spec.crop * 3;
        if bytes <= MAX_WAITING_BYTES || self.waiting.len() <= 2 {
            return Ok(());
        }
        self.drop_sound("its sound is stored too far behind its pictures");
        self.emit()
    }

    fn drop_sound(&mut self, why: &str) {
        let at = self.sound_secs();
        self.notes.push(format!("sound was left out after {at:.1} s: {why}"));
        self.sound.ended = true;
    }

    fn finish_video(&mut self) -> Result<(), MediaError> {
        self.emit()?;
        let total = self.blocks.count;
        match self.plan.tail(total) {
            Tail::None => Ok(()),
            Tail::Anchored(start) => {
                self.waiting.push_back((start, self.blocks.window(start)));
                self.emit()
            }
            Tail::Looped(count) => {
                let frames = self.blocks.looped(count);
                let unit = self.sample_of(count) as usize;
                let (sound, real) = self.sound.slice(0, unit);
                let pcm = (real * 10 >= unit && real > 0).then(|| looped(&sound, self.spec.samples));
                let span = self.frame_span(0, count);
                self.send(ClipTensors { span, frames: Some(frames), pcm })
            }
        }
    }

    /// The clips of a sound file that are complete.
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
            Tail::Anchored(start) => self.send_sound(start, self.spec.samples as u64),
            Tail::Looped(count) => self.send_sound(0, count),
        }
    }

    fn send_sound(&self, start: u64, count: u64) -> Result<(), MediaError> {
        let (pcm, _) = self.sound.slice(start, count as usize);
        let pcm = if (count as usize) < self.spec.samples { looped(&pcm, self.spec.samples) } else { pcm };
        let secs = |sample: u64| self.start_secs() + sample as f64 / f64::from(self.spec.sample_rate_hz);
        let span = TimeSpan { start_secs: secs(start), end_secs: secs(start + count) };
        self.send(ClipTensors { span, frames: None, pcm: Some(pcm) })
    }

    fn frame_span(&self, start: u64, count: u64) -> TimeSpan {
        let secs = |frame: u64| (self.cut.first_frame + frame) as f64 / self.cut.fps;
        let (start_secs, end_secs) = (secs(start), secs(start + count));
        // Sampling may round the last frame's end up, by less than a frame.
        let declared = self.declared_secs.filter(|d| *d > start_secs && end_secs - d < 1.0 / self.cut.fps);
        TimeSpan { start_secs, end_secs: declared.map_or(end_secs, |d| end_secs.min(d)) }
    }

    fn send(&self, clip: ClipTensors) -> Result<(), MediaError> {
        self.out
            .blocking_send(Message::Clip(clip))
            .map_err(|_| MediaError::Worker("nobody waits for the clips any more".into()))
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
        match self.mode {
            Mode::Sound => return self.emit_sound(),
            _ => self.emit()?,
        }
        if self.sound.kept() <= MAX_WAITING_SAMPLES {
            return Ok(());
        }
        if self.blocks.count == 0 {
            self.notes.push("no picture came with the first minutes of sound: read as sound alone".into());
            self.become_sound();
            return self.emit_sound();
        }
        self.drop_sound("its pictures are stored too far behind");
        self.emit()
    }

    fn end_sound(&mut self) -> Result<(), MediaError> {
        if let Some(mut resampler) = self.resampler.take().filter(|_| !self.sound.ended) {
            let mut rest = Vec::new();
            resampler.finish(&mut rest).map_err(MediaError::Worker)?;
            self.take_sound(&rest)?;
        }
        self.sound.ended = true;
        if self.mode == Mode::Video { self.emit() } else { Ok(()) }
    }
}

impl Sink for Assembler {
    fn started(&mut self, info: &MediaInfo) -> Result<(), MediaError> {
        let first = self.mode == Mode::Unknown;
        if first {
            self.mode = match info.kind {
                Some(AssetKind::Image) => Mode::Picture,
                _ if info.has_video => Mode::Video,
                _ => Mode::Sound,
            };
            (self.declared_secs, self.estimated) = (info.declared_secs, info.estimated);
            // Some demuxers answer a seek behind the end with the last packet.
            let end = info.declared_secs.filter(|_| !info.estimated).unwrap_or(f64::INFINITY);
            if let Some(span) = self.cut.span.filter(|span| span.start_secs >= end) {
                return Err(MediaError::SpanOutOfRange { start_secs: span.start_secs });
            }
            self.has_sound = info.has_audio;
            if self.mode == Mode::Sound {
                self.become_sound();
            }
            let rate = f64::from(self.spec.sample_rate_hz);
            let skip_secs = self.start_secs() - self.cut.decode_start_secs();
            self.skip_samples = (skip_secs * rate).round() as u64;
            if info.has_audio {
                let resampler = Resampler::new(info.sample_rate_hz, self.spec.sample_rate_hz);
                self.resampler = Some(resampler.map_err(MediaError::Worker)?);
            }
        }
        let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
        summary.kind = match self.mode {
            Mode::Picture => AssetKind::Image,
            Mode::Sound => AssetKind::Audio,
            _ => AssetKind::Video,
        };
        summary.has_video |= info.has_video;
        summary.has_audio |= info.has_audio;
        summary.duration_secs = self.declared_secs.unwrap_or(0.0);
        (summary.width, summary.height) = (info.width, info.height);
        Ok(())
    }

    fn frame(&mut self, width: u32, height: u32, rgb: &[u8]) -> Result<Flow, MediaError> {
        if self.skip_frames > 0 {
            self.skip_frames -= 1;
            return Ok(Flow::More);
        }
        let wanted = self.cut.end_frame.map(|end| end - self.cut.first_frame);
        if self.mode == Mode::Sound || wanted.is_some_and(|wanted| self.blocks.count >= wanted) {
            return Ok(Flow::More);
        }
        if self.blocks.count == 0 {
            let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
            (summary.width, summary.height) = (width, height);
        }
        self.take_frame(width, height, rgb)
    }

    fn sound(&mut self, samples: &[f32]) -> Result<Flow, MediaError> {
        if self.sound.ended {
            return Ok(Flow::More);
        }
        let begun = Instant::now();
        let mut resampled = std::mem::take(&mut self.resampled);
        resampled.clear();
        if let Some(resampler) = &mut self.resampler {
            resampler.push(samples, &mut resampled).map_err(MediaError::Worker)?;
        }
        self.preprocess += begun.elapsed();
        let taken = self.take_sound(&resampled);
        self.resampled = resampled;
        taken.map(|()| Flow::More)
    }

    fn sound_ended(&mut self) -> Result<Flow, MediaError> {
        self.end_sound().map(|()| Flow::More)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn assembler(spec: &ClipSpec) -> (Assembler, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(1000);
        let summary = AssetSummary::unknown();
        let cut = Cut::new(spec, None);
        let mut assembler = Assembler::new(spec.clone(), cut, sender, Arc::new(Mutex::new(summary)));
        let info = MediaInfo {
            kind: None,
            sample_rate_hz: spec.sample_rate_hz,
            declared_secs: None,
            estimated: false,
            width: 8,
            height: 8,
            has_video: true,
            has_audio: true,
        };
        assembler.started(&info).unwrap();
        (assembler, receiver)
    }

    fn clips(mut receiver: mpsc::Receiver<Message>) -> Vec<ClipTensors> {
        receiver.close();
        let next = std::iter::from_fn(|| receiver.try_recv().ok());
        next.filter_map(|message| if let Message::Clip(clip) = message { Some(clip) } else { None }).collect()
    }

    fn spec(crop: usize) -> ClipSpec {
        ClipSpec {
            fps: 10.0,
            frames: 32,
            resize_shorter_side: crop,
            crop,
            sample_rate_hz: 48_000,
            samples: 153_600,
            stride_secs: 3.2,
        }
    }

    #[test]
    fn sound_and_pictures_meet_in_any_order_within_the_bounds() {
        let spec = spec(8);
        let sound: Vec<f32> = (0..48_000 * 13).map(|i| (i % 1000) as f32 / 1000.0).collect();
        for sound_first in [true, false] {
            let (mut assembler, receiver) = assembler(&spec);
            let mut give = |frames: bool| {
                if frames {
                    for i in 0..128 {
                        assembler.frame(8, 8, &[i; 192]).unwrap();
                    }
                } else {
                    for chunk in sound.chunks(5000) {
                        assembler.sound(chunk).unwrap();
                    }
                    assembler.sound_ended().unwrap();
                }
            };
            give(!sound_first);
            give(sound_first);
            assembler.finish_video().unwrap();
            let clips = clips(receiver);
            assert_eq!(clips.len(), 4);
            for (k, clip) in clips.iter().enumerate() {
                assert_eq!(clip.frames.as_ref().unwrap()[0], 32 * k as u8);
                assert_eq!(clip.pcm.as_ref().unwrap()[..], sound[153_600 * k..][..153_600]);
            }
        }
    }

    #[test]
    fn pictures_do_not_wait_for_ever_for_their_sound() {
        let (mut assembler, receiver) = assembler(&spec(200));
        let mut most = 0;
        for _ in 0..32 * 20 {
            assembler.frame(8, 8, &[7; 192]).unwrap();
            most = most.max(assembler.waiting.len());
        }
        assert!(most * 32 * 200 * 200 * 3 <= MAX_WAITING_BYTES + 32 * 200 * 200 * 3 && most > 10);
        assert_eq!(assembler.notes.len(), 1);
        assembler.sound(&[0.5; 1000]).unwrap();
        assert_eq!(assembler.sound.total(), 0);
        assert!(clips(receiver).iter().all(|clip| clip.pcm.is_none()));
    }

    #[test]
    fn sound_does_not_wait_for_ever_for_its_pictures() {
        let (mut assembler, receiver) = assembler(&spec(8));
        let second = vec![0.25; 48_000];
        for _ in 0..400 {
            assembler.sound(&second).unwrap();
            assert!(assembler.sound.kept() <= MAX_WAITING_SAMPLES + second.len());
        }
        assert_eq!((assembler.mode, assembler.notes.len()), (Mode::Sound, 1));
        assert!(clips(receiver).iter().all(|clip| clip.frames.is_none() && clip.pcm.is_some()));
    }
}
