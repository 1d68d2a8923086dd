//! Keeps a running child within its memory and CPU time.

use std::time::{Duration, Instant};

use super::{Cancel, Pump};
use crate::decode_child::need;
use crate::decode_child::protocol::{Failure, Streams};
use crate::ffmpeg::said::VideoLine;
use crate::ffmpeg::tracks::{self, Decision};
use crate::media::MediaError;
use crate::media::process::Worker;
use crate::media::work::{process_cpu, process_data, thread_cpu};
use crate::types::TrackKind;

/// How often to check the CPU time of a decode, also of one that gives nothing for long.
pub(super) const LOOK_AT_CPU: Duration = Duration::from_millis(200);

impl Pump<'_> {
    /// Answers a child that has read its file's header, after reserving its memory.
    pub(super) fn give_memory(
        &mut self,
        worker: &Worker,
        cancel: Option<&Cancel>,
        need: u64,
    ) -> Result<(), MediaError> {
        let begun = Instant::now();
        let most = self.caps.address_space_bytes;
        if need > most {
            return Err(MediaError::DecodeLimit { limit_bytes: most });
        }
        self.memory = None;
        let memory = self.seat.reserve(need, &mut || cancel.is_some_and(Cancel::fired))?;
        self.ended.granted = memory.bytes;
        self.memory = Some(memory);
        self.deadline += begun.elapsed();
        worker.go()
    }

    /// Once ffmpeg has described its input, releases memory that it does not need, or ends it if it needs
    /// more.
    pub(super) fn fit_memory(&mut self, worker: &Worker) {
        if self.fitted || !self.ended.log.mapped {
            return;
        }
        self.fitted = true;
        if self.caps.survey.is_some() || !self.pick_tracks() {
            return;
        }
        let Some(memory) = &mut self.memory else { return };
        let picture = self.ended.is_picture();
        let video = self.ended.video();
        let (width, height) = video.and_then(VideoLine::shown_size).unwrap_or_default();
        let format = video.map_or("", |video| &video.pixel_format);
        let shape = self.ended.shape(self.caps.shown);
        let held = process_data(worker.pid()).unwrap_or(0);
        let need = need::ffmpeg((width, height), format, picture, self.caps.file_bytes, held)
            + shape.extra_bytes(width, height);
        let most = if picture { self.caps.max_picture_pixels } else { self.caps.max_pixels };
        if u64::from(width) * u64::from(height) > most {
            let detail = format!("{width} x {height}");
            self.ended.failed = Some((Failure::TooManyPixels, detail));
        }
        // A run for sound alone does not use the filters for pictures.
        let same = match self.caps.streams {
            Streams::Audio => shape.sound == self.caps.shape.sound,
            _ => shape == self.caps.shape,
        };
        self.ended.wants_shape = Some(shape).filter(|_| !same);
        if need > memory.bytes && memory.bytes < self.caps.address_space_bytes {
            self.ended.wants = Some(need);
        } else if need < memory.bytes {
            worker.limit_data(need, self.caps.address_space_bytes);
            memory.shrink(need);
        }
    }

    /// Decides which tracks are read. Returns false if that ends the child.
    fn pick_tracks(&mut self) -> bool {
        if self.ended.picks.is_some() || self.ended.is_picture() {
            return true;
        }
        // A single picture (a thumbnail) needs no sound.
        self.ended.wanted.sound = self.raw.is_none();
        match tracks::decide(&self.ended.log, self.ended.wanted, None) {
            Decision::Decided(picks) => self.ended.picks = Some(picks),
            Decision::Survey { pictures, sounds } => self.ended.wants_survey = Some((pictures, sounds)),
            Decision::NoSuch(kind, index) => {
                let kind = if kind == TrackKind::Video { "video" } else { "audio" };
                self.ended.unknown_track = Some((kind, index));
            }
        }
        self.ended.picks.is_some()
    }

    /// Whether a survey has found enough.
    pub(super) fn surveyed(&self) -> bool {
        let settled = |(pictures, sounds)| tracks::settled(&self.ended.log, pictures, sounds);
        self.ended.log.mapped && self.caps.survey.is_some_and(settled)
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
