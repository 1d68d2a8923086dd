//! Sound files inside the worker, through symphonia: one channel (the mean of two), the file's rate.

use std::fs::File;
use std::io::{BufWriter, Write};

use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, SeekMode, SeekTo, Track, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::units::{Time, TimeBase, Timestamp};

use super::protocol::{Engine, Failure, Started, Task};
use super::worker::{Decoded, Job, Refusal};
use crate::types::AssetKind;

/// Rates outside of this are damage, not sound.
const RATES_HZ: std::ops::RangeInclusive<u32> = 1000..=768_000;

/// Largest terms of the ratio of two rates that the server's resampler takes quickly: it works on blocks of
/// a multiple of these. Rates that anybody records with are far below; ffmpeg takes the others.
const MAX_RATIO_TERM: u32 = 8192;

/// Decoding restarts this long before a span, so that codecs with memory have settled.
const RUN_UP_SECS: f64 = 0.5;

/// Decodes the job's file to its sound pipe.
pub fn decode(job: &mut Job, head: &[u8]) -> Result<Decoded, Refusal> {
    let media = job.media.try_clone().map_err(|e| Refusal::new(Failure::Internal, e))?;
    let Some(mut source) = Source::open(media) else { return Ok(Decoded::TryFfmpeg("")) };
    if !RATES_HZ.contains(&source.rate) {
        return Err(Refusal::new(Failure::Corrupt, format!("a sample rate of {} Hz", source.rate)));
    }
    if let Task::Clips { sample_rate_hz, .. } = job.request.task
        && !resamples_quickly(source.rate, sample_rate_hz)
    {
        return Ok(Decoded::TryFfmpeg(""));
    }
    // A RIFF header written before its length was known.
    let open_ended =
        head.starts_with(b"RIFF") && matches!(head.get(4..8), Some(b"\xff\xff\xff\xff" | b"\0\0\0\0"));
    let declared_secs = source.frames.filter(|_| !open_ended).map(|n| n as f64 / f64::from(source.rate));
    if let Some(secs) =
        declared_secs.filter(|secs| !source.estimated && *secs > job.request.max_duration_secs)
    {
        return Err(Refusal::new(Failure::TooLong, format!("{secs:.1}")));
    }
    job.start(Started {
        engine: Engine::Sound,
        kind: Some(AssetKind::Audio),
        sample_rate_hz: source.rate,
        declared_secs,
        estimated: source.estimated,
        width: 0,
        height: 0,
        landlock: false,
        reduced: false,
    })?;
    let (start_secs, duration_secs) = match job.request.task {
        Task::Clips { start_secs, duration_secs, .. } => (start_secs, duration_secs),
        _ => return Ok(Decoded::Done { damaged: 0 }),
    };
    let Some(pipe) = job.sound.take() else { return Err(Refusal::new(Failure::Internal, "no sound pipe")) };
    let rate = f64::from(source.rate);
    let first = (start_secs * rate).round() as u64;
    let end = duration_secs.map_or(u64::MAX, |d| first.saturating_add((d * rate).round() as u64));
    let mut writer = MonoWriter { pipe: BufWriter::with_capacity(1 << 16, pipe), position: 0, first, end };
    let damaged = source.run(&mut writer, start_secs)?;
    Ok(Decoded::Done { damaged })
}

fn resamples_quickly(from_hz: u32, to_hz: u32) -> bool {
    const fn gcd(a: u32, b: u32) -> u32 {
        if b == 0 { a } else { gcd(b, a % b) }
    }
    let common = gcd(from_hz, to_hz).max(1);
    from_hz / common <= MAX_RATIO_TERM && to_hz / common <= MAX_RATIO_TERM
}

struct Source {
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    time_base: TimeBase,
    rate: u32,
    frames: Option<u64>,
    estimated: bool,
}

impl Source {
    fn open(media: File) -> Option<Self> {
        let stream = MediaSourceStream::new(Box::new(media), Default::default());
        let probe = symphonia::default::get_probe();
        let options = FormatOptions::default();
        let format = probe.probe(&Hint::new(), stream, options, MetadataOptions::default()).ok()?;
        let track: &Track = format.default_track(TrackType::Audio)?;
        let parameters = track.codec_params.as_ref()?.audio()?;
        let rate = parameters.sample_rate?;
        // Surround is mixed down by ffmpeg's rule, as it is in a video.
        if parameters.channels.as_ref().is_some_and(|channels| channels.count() > 2) {
            return None;
        }
        let codecs = symphonia::default::get_codecs();
        let decoder = codecs.make_audio_decoder(parameters, &AudioDecoderOptions::default()).ok()?;
        let time_base = track.time_base.or_else(|| TimeBase::try_new(1, rate))?;
        let (track, frames) = (track.id, track.num_frames);
        // Without an index tag the length of an MPEG stream is guessed from its first frames.
        let estimated = format.format_info().short_name.starts_with("mp");
        Some(Self { format, decoder, track, time_base, rate, frames, estimated })
    }

    /// Decodes to the end of file or span; gives the number of packets that did not decode.
    fn run(&mut self, writer: &mut MonoWriter, start_secs: f64) -> Result<u64, Refusal> {
        let mut seeked = start_secs > RUN_UP_SECS && self.seek(start_secs - RUN_UP_SECS);
        let (mut damaged, mut samples) = (0, Vec::new());
        while writer.position < writer.end {
            let packet = match self.format.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                Err(Error::IoError(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => break,
                Err(_) => {
                    damaged += 1;
                    break;
                }
            };
            if packet.track_id != self.track {
                continue;
            }
            if std::mem::take(&mut seeked) {
                let begin = packet.pts.get().saturating_add_unsigned(packet.trim_start.get());
                writer.position = self.sample_of(begin);
            }
            let Ok(buffer) = self.decoder.decode(&packet) else {
                damaged += 1;
                continue;
            };
            if buffer.spec().rate() != self.rate {
                damaged += 1;
                break;
            }
            let channels = buffer.num_planes();
            buffer.copy_to_vec_interleaved(&mut samples);
            writer.write(&samples, channels)?;
        }
        writer.finish()?;
        Ok(damaged)
    }

    fn seek(&mut self, secs: f64) -> bool {
        let Some(time) = Time::try_from_secs_f64(secs) else { return false };
        let to = SeekTo::Time { time, track_id: Some(self.track) };
        let done = self.format.seek(SeekMode::Accurate, to).is_ok();
        if done {
            self.decoder.reset();
        }
        done
    }

    fn sample_of(&self, timestamp: i64) -> u64 {
        let secs = self.time_base.calc_time(Timestamp::new(timestamp)).map_or(0.0, |time| time.as_secs_f64());
        (secs * f64::from(self.rate)).round().max(0.0) as u64
    }
}

/// Mixes down and writes the samples `first..end` of the stream.
struct MonoWriter {
    pipe: BufWriter<File>,
    position: u64,
    first: u64,
    end: u64,
}

impl MonoWriter {
    fn write(&mut self, interleaved: &[f32], channels: usize) -> Result<(), Refusal> {
        if channels == 0 {
            return Ok(());
        }
        let scale = 1.0 / channels as f32;
        for frame in interleaved.chunks_exact(channels) {
            if self.position >= self.first && self.position < self.end {
                let mean = if channels == 1 { frame[0] } else { frame.iter().sum::<f32>() * scale };
                self.pipe.write_all(&mean.to_le_bytes()).map_err(|e| Refusal::new(Failure::Internal, e))?;
            }
            self.position += 1;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Refusal> {
        self.pipe.flush().map_err(|e| Refusal::new(Failure::Internal, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_that_people_record_with_are_resampled_here() {
        let rates = [
            8000, 11_025, 12_000, 16_000, 18_900, 22_050, 24_000, 32_000, 37_800, 44_056, 44_100, 47_952,
            48_000, 50_000, 64_000, 88_200, 96_000, 176_400, 192_000, 352_800, 384_000, 705_600, 768_000,
        ];
        for rate in rates {
            assert!(resamples_quickly(rate, 48_000), "{rate}");
        }
        for rate in [1001, 11_026, 44_101, 130_003, 262_147, 767_999] {
            assert!(!resamples_quickly(rate, 48_000), "{rate}");
        }
    }
}
