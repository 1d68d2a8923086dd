//! Passes pictures from a child's pipe to the sink.

use std::time::Instant;

use super::{Cancel, Flow, MAX_PICTURE, Pump, Sink, read};
use crate::decode_child::protocol::{Engine, Streams};
use crate::media::MediaError;
use crate::media::process::Worker;

impl Pump<'_> {
    pub(super) fn read_raw(&mut self, worker: &Worker) -> Result<(), MediaError> {
        let mut bytes = [0u8; 1 << 14];
        let Some(raw) = &mut self.raw else { return Ok(()) };
        match read(&worker.frames, &mut bytes)? {
            None => {}
            Some(0) => self.frames_open = false,
            Some(n) if raw.len() + n <= MAX_PICTURE => {
                raw.extend_from_slice(&bytes[..n]);
                self.pictured = true;
            }
            Some(_) => return Err(MediaError::Nonsense("its picture is too large".into())),
        }
        Ok(())
    }

    /// Number of sampling periods that the frame just read lasts. ffmpeg writes the end of a frame to the log
    /// before it sends the frame.
    fn periods(&mut self, worker: &Worker, cancel: Option<&Cancel>) -> Result<u64, MediaError> {
        let ffmpeg = self.ended.started.as_ref().is_some_and(|started| started.engine == Engine::Ffmpeg);
        if !ffmpeg || self.caps.streams == Streams::FirstFrame || self.ended.is_picture() {
            return Ok(1);
        }
        if self.ended.log.ends.is_empty() {
            self.drain_talk(worker, cancel)?;
        }
        let end = self.ended.log.ends.pop_front();
        let end = end.ok_or_else(|| MediaError::Nonsense("it sent a frame without its end".into()))?;
        Ok(end.saturating_sub(self.ended.frames))
    }

    pub(super) fn read_frames(
        &mut self,
        worker: &Worker,
        sink: &mut dyn Sink,
        cancel: Option<&Cancel>,
    ) -> Result<Flow, MediaError> {
        // One frame per turn, so that the sound is not left waiting.
        loop {
            match read(&worker.frames, self.frame.space())? {
                None => return Ok(Flow::More),
                Some(0) => {
                    self.frames_open = false;
                    return Ok(Flow::More);
                }
                Some(n) => self.frame.filled(n),
            }
            if !self.frame.complete()? {
                continue;
            }
            self.pictured = true;
            self.announce(sink)?;
            let periods = self.periods(worker, cancel)?;
            if periods == 0 {
                // A frame from a re-initialised filter graph, which begins before the end of the last one.
                self.frame.next();
                return Ok(Flow::More);
            }
            self.ended.frames += periods;
            let secs = self.ended.frames as f64 / self.caps.fps;
            if secs > self.caps.max_duration_secs + 1.0 {
                return Err(self.too_long(secs));
            }
            let begun = Instant::now();
            let flow = sink.frame(self.frame.width, self.frame.height, self.frame.pixels(), periods)?;
            self.deadline += begun.elapsed();
            self.frame.next();
            return Ok(flow);
        }
    }
}
