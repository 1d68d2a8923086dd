//! Passes on the samples of a running child, each at its time.

use std::time::Instant;

use super::{Cancel, Flow, Pump, Sink};
use crate::ffmpeg::sound::{Piece, Place};
use crate::media::MediaError;
use crate::media::pipe::SoundReader;
use crate::media::process::Worker;

/// Block of silence, of the size that is passed on at once.
static SILENCE: [f32; 1 << 14] = [0.0; 1 << 14];

impl Pump<'_> {
    pub(super) fn read_sound(
        &mut self,
        worker: &Worker,
        sink: &mut dyn Sink,
        cancel: Option<&Cancel>,
    ) -> Result<Flow, MediaError> {
        match self.sound_bytes(worker)? {
            None => Ok(Flow::More),
            Some(0) => {
                self.sound_open = false;
                self.end_sound(sink)
            }
            Some(bytes) => {
                self.announce(sink)?;
                let mut reader = std::mem::take(&mut self.sound);
                let flow = self.place_sound(worker, sink, cancel, &mut reader, bytes);
                self.sound = reader;
                flow
            }
        }
    }

    /// Tells the sink that the sound has ended, unless that of another stream follows. Before the announcement the sink
    /// knows of no sound; `announce` reports the end then.
    pub(super) fn end_sound(&mut self, sink: &mut dyn Sink) -> Result<Flow, MediaError> {
        let follows = self.ended.started.as_ref().is_some_and(|started| started.sound.next.is_some());
        if self.ended.info.is_none() || follows { Ok(Flow::More) } else { sink.sound_ended() }
    }

    fn place_sound(
        &mut self,
        worker: &Worker,
        sink: &mut dyn Sink,
        cancel: Option<&Cancel>,
        reader: &mut SoundReader,
        bytes: usize,
    ) -> Result<Flow, MediaError> {
        let mut samples = reader.take(bytes).map_err(|bad| {
            let at = self.placer.given() as f64 + bad.at as f64;
            MediaError::BadSamples { at_secs: at / self.sound_rate(), value: bad.value }
        })?;
        while !samples.is_empty() {
            if self.placer.needs_place() {
                let place = self.next_place(worker, cancel)?;
                let silence = self.placer.enter(place, self.sound_rate() as u32);
                self.ended.early = self.placer.early();
                if self.give_silence(worker, sink, cancel, silence)? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
                continue;
            }
            let (count, wanted) = match self.placer.next(samples.len()) {
                Piece::Dropped(count) => (count, false),
                Piece::Samples(count) => (count, true),
            };
            let (piece, rest) = samples.split_at(count.min(samples.len()));
            samples = rest;
            if wanted && self.give_sound(sink, piece)? == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        Ok(Flow::More)
    }

    fn sound_rate(&self) -> f64 {
        f64::from(self.ended.info.as_ref().map_or(1, |info| info.sample_rate_hz.max(1)))
    }

    /// Place of the next frame. ffmpeg logs it before it sends the samples.
    fn next_place(&mut self, worker: &Worker, cancel: Option<&Cancel>) -> Result<Place, MediaError> {
        let mut place = self.ended.log.places.next();
        if place.is_none() {
            self.drain_talk(worker, cancel)?;
            place = self.ended.log.places.next();
        }
        place.ok_or_else(|| MediaError::Nonsense("it sent audio without its position".into()))
    }

    /// Fills a gap in the file with silence.
    fn give_silence(
        &mut self,
        worker: &Worker,
        sink: &mut dyn Sink,
        cancel: Option<&Cancel>,
        samples: u64,
    ) -> Result<Flow, MediaError> {
        let mut left = samples;
        while left > 0 {
            self.look_at_cpu(worker);
            if self.ended.spent || cancel.is_some_and(Cancel::fired) {
                return Ok(Flow::Stop);
            }
            let count = SILENCE.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= count as u64;
            self.placer.was_silent(count as u64);
            if self.give_sound(sink, SILENCE.get(..count).unwrap_or_default())? == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        Ok(Flow::More)
    }

    fn give_sound(&mut self, sink: &mut dyn Sink, samples: &[f32]) -> Result<Flow, MediaError> {
        self.ended.samples = self.placer.given();
        self.ended.overlapping = self.placer.overlapping();
        let secs = self.ended.samples as f64 / self.sound_rate();
        if secs > self.caps.max_duration_secs + 1.0 {
            return Err(self.too_long(secs));
        }
        let begun = Instant::now();
        let flow = sink.sound(samples)?;
        self.deadline += begun.elapsed();
        Ok(flow)
    }
}
