//! A running child held to memory and CPU time.

use std::time::{Duration, Instant};

use super::{Cancel, Pump};
use crate::media::MediaError;
use crate::media::filters::VideoLine;
use crate::media::need;
use crate::media::process::Worker;
use crate::media::protocol::{Failure, Streams};
use crate::media::work::{process_cpu, thread_cpu};

/// How often to check how much CPU time a decode has taken.
const LOOK_AT_CPU: Duration = Duration::from_millis(200);

impl Pump<'_> {
    /// Answers a child that has read its file's header: memory first.
    pub(super) fn give_memory(
        &mut self,
        worker: &Worker,
        cancel: Option<&Cancel>,
        need: u64,
    ) -> Result<(), MediaError> {
        let begun = Instant::now();
        let most = self.caps.address_space_bytes;
        if need > most {
            return Err(MediaError::DecodeLimit("memory"));
        }
        self.memory = None;
        let memory = self.seat.reserve(need, &mut || cancel.is_some_and(Cancel::fired))?;
        self.ended.granted = memory.bytes;
        self.memory = Some(memory);
        self.deadline += begun.elapsed();
        worker.go()
    }

    /// Once ffmpeg has described its input: gives back what it does not need, or ends it if it needs more.
    pub(super) fn fit_memory(&mut self, worker: &Worker) {
        let log = &self.ended.log;
        if self.fitted || !log.mapped {
            return;
        }
        self.fitted = true;
        let Some(memory) = &mut self.memory else { return };
        let picture = self.ended.is_picture();
        let video = log.video(picture);
        let (width, height) = video.and_then(VideoLine::shown_size).unwrap_or_default();
        let most = if picture { self.caps.max_picture_pixels } else { self.caps.max_pixels };
        if u64::from(width) * u64::from(height) > most {
            let detail = format!("{width} x {height}");
            self.ended.failed = Some((Failure::TooManyPixels, detail));
        }
        let shape = self.ended.shape(self.caps.shown);
        if self.caps.streams != Streams::Audio && shape != self.caps.shape {
            self.ended.wants_shape = Some(shape);
        }
        let format = video.map_or("", |video| &video.pixel_format);
        let need = need::ffmpeg(width, height, format, picture, self.caps.file_bytes)
            + shape.extra_bytes(width, height);
        if need > memory.bytes && memory.bytes < self.caps.address_space_bytes {
            self.ended.wants = Some(need);
        } else if need < memory.bytes {
            worker.limit_data(need, self.caps.address_space_bytes);
            memory.shrink(need);
        }
    }

    pub(super) fn look_at_cpu(&mut self, worker: &Worker) {
        if self.cpu_looked_at.elapsed() < LOOK_AT_CPU {
            return;
        }
        self.cpu_looked_at = Instant::now();
        let here = thread_cpu().saturating_sub(self.caps.thread_began);
        let child = process_cpu(worker.pid()).unwrap_or_default();
        self.ended.spent = here + child > self.caps.cpu;
    }
}
