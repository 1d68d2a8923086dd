//! Further runs over a file: without a track that it lacks, over the next stream of a chain, for a single frame.

use super::Run;
use crate::decode_child::protocol::Streams;
use crate::media::MediaError;
use crate::media::stream::Ended;
use crate::types::TrackKind;

/// Most streams of one file that are decoded one after another.
const MOST_STREAMS: usize = 4096;

impl Run<'_> {
    /// Called after an attempt without any output. Tries the existing tracks one by one.
    pub(super) fn retry(&mut self, first: Ended, notes: &mut Vec<String>) -> Result<Ended, MediaError> {
        let limits = &self.decoder.config.limits;
        let log = &first.log;
        let (video, audio) = match (log.video_streams > 0, log.audio_streams > 0) {
            found if first.is_picture() => found,
            (video, audio) => self.request.takes(video, audio),
        };
        let mut complaint = match (log.opened, video, audio) {
            (true, false, false) if first.is_picture() => {
                return Err(MediaError::Corrupt("its picture is missing, so the file was cut off".into()));
            }
            (true, false, false) => {
                return Err(MediaError::NoStreams(match self.request.without {
                    Some(TrackKind::Video) => "audio track",
                    Some(TrackKind::Audio) => "video track",
                    _ => "video or audio track",
                }));
            }
            (true, true, true) if first.exit.code == Some(0) => return Ok(first),
            (true, ..) => first.complaint(limits),
            (false, ..) => return Err(first.complaint(limits)),
        };
        if matches!(complaint, MediaError::TooManyPixels { .. } | MediaError::DecodeLimit { .. }) {
            return Err(complaint);
        }
        if video {
            let ended = self.attempt(Streams::Video)?;
            let quiet = ended.frames == 0 && ended.exit.code == Some(0) && !audio;
            if ended.frames > 0 || ended.stopped || quiet {
                if audio {
                    notes.push(format!("could not decode the audio ({})", first.why_not(TrackKind::Audio)));
                }
                return Ok(ended);
            }
            // With one kind of track, the first attempt only complained that the other is missing.
            if !audio {
                complaint = ended.complaint(&self.decoder.config.limits);
            }
        }
        if audio {
            let ended = self.attempt(Streams::Audio)?;
            if ended.samples > 0 || ended.stopped || ended.exit.code == Some(0) {
                if video {
                    notes.push(format!("could not decode the picture ({})", first.why_not(TrackKind::Video)));
                }
                return Ok(ended);
            }
            if !video {
                complaint = ended.complaint(&self.decoder.config.limits);
            }
        }
        Err(complaint)
    }

    /// Reads the streams of a file that ffmpeg cannot read on to, one after another. `ended` becomes the end of the
    /// last one; returns that of the first, which describes the file.
    pub(super) fn follow(
        &mut self,
        ended: &mut Ended,
        notes: &mut Vec<String>,
    ) -> Result<Option<Ended>, MediaError> {
        let rate = f64::from(self.request.sample_rate_hz);
        let wanted = self.request.duration_secs.map_or(f64::INFINITY, |secs| secs * rate);
        let mut first = None;
        for _ in 0..MOST_STREAMS {
            let next = ended.started.as_ref().and_then(|started| started.sound.next);
            let Some(next) = next.filter(|next| (self.from + 1..self.budget.file_bytes).contains(next))
            else {
                return Ok(first);
            };
            if ended.stopped || ended.placed.given as f64 >= wanted {
                return Ok(first);
            }
            let samples = ended.samples;
            notes.extend(ended.note(self.request, 0, samples));
            (self.from, self.after) = (next, Some(ended.placed));
            let mut now = self.attempt(Streams::Audio)?;
            if now.samples == 0 && now.exit.code != Some(0) {
                let (secs, why) = (samples as f64 / rate, now.last_words());
                notes.push(format!("damaged: the part after {secs:.1} s could not be decoded ({why})"));
            }
            now.samples = now.samples.max(samples);
            let before = std::mem::replace(ended, now);
            first = first.or(Some(before));
        }
        notes.push(format!("only the first {MOST_STREAMS} streams could be decoded"));
        Ok(first)
    }

    /// A video shorter than half a frame period gives no frame at the sampling rate, so take its first.
    pub(super) fn first_frame(
        &mut self,
        before: Ended,
        notes: &mut Vec<String>,
    ) -> Result<(Ended, u64), MediaError> {
        if self.request.start_secs > 0.0 || !notes.is_empty() {
            return Ok((before, 0));
        }
        let found = self.attempt(Streams::FirstFrame)?;
        if found.frames == 0 && before.samples == 0 {
            return Err(found.complaint(&self.decoder.config.limits));
        }
        if found.frames == 0 {
            notes.push(format!("could not decode the picture ({})", found.why_not(TrackKind::Video)));
        }
        let frames = found.frames;
        // If there is only sound, its end is in the log of the first run.
        Ok((if before.samples > 0 { before } else { found }, frames))
    }
}
