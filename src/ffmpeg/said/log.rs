//! Extracts the tracks, the length and the errors from ffmpeg's standard error.
//!
//! The text is untrusted, since a file's metadata may look like anything. Everything is bounded, and a forged
//! line can at worst make its own file fail.

use std::collections::VecDeque;

use super::{MOST_CHARS, Seen, Stream, VideoLine};
use crate::ffmpeg::picks::{MAX_STREAMS, Source};
use crate::ffmpeg::sound::Places;

/// Longest line that is examined, in bytes. The rest of a line is dropped.
const MAX_LINE: usize = 2048;
/// Most video streams stored: pictures and thumbnails of one file.
const MAX_VIDEOS: usize = 64;
/// Most error lines stored, which are the first ones.
const MAX_ERRORS: usize = 12;
/// Most ends of frames that are stored before the frames are read: more than ffmpeg's queues hold.
const MAX_ENDS: usize = 4096;
/// Offset of these ends in the log.
const END_BASE: i64 = 1_000_000_000_000_000;
/// Offset of the first frame's time in the log.
const FIRST_BASE: i64 = 2_000_000_000_000_000;
/// Offset of the periods in which frames begin, and of the end of the last one.
const PERIOD_BASE: i64 = 8_000_000_000_000_000;
/// No time in the log is this large.
const FAR: i64 = 500_000_000_000_000;

/// Latest plausible start of a file, in seconds. FLV counts 2^31 milliseconds, and takes negative ones for those.
const LATEST_START_SECS: f64 = 2_000_000.0;

/// Messages of decoders and demuxers about damaged data.
const DAMAGE: [&str; 13] = [
    "Error submitting packet to decoder",
    "corrupt decoded frame",
    "as first byte of an EBML number",
    "indicated by an EBML number's first byte",
    "exceeds containing master element",
    "LZW decode failed",
    // H.264: pictures are missing.
    "Frame num gap",
    // HEVC: a picture is left out because one that it depends on is missing.
    "Skipping invalid undecodable NALU",
    "Error constructing the frame RPS",
    // AV1.
    "Unknown OBU type",
    // JPEG.
    "bad vlc",
    "] [error] error y=",
    // MPEG-TS.
    "max resync size reached",
];

/// Facts from the log so far.
#[derive(Debug, Default)]
pub struct FfmpegLog {
    line: Vec<u8>,
    /// Whether the current lines describe the input.
    in_input: bool,
    /// Whether the container was recognised.
    pub opened: bool,
    /// Length of the container, in seconds.
    pub duration_secs: Option<f64>,
    /// Whether its first time stamp is close to the largest one, so that those after it begin again at 0.
    pub wraps: bool,
    pub video_streams: usize,
    pub audio_streams: usize,
    /// The first video streams and groups of tiles, as described.
    pub videos: Vec<VideoLine>,
    /// All streams, as described; at most `MAX_STREAMS`.
    pub streams: Vec<Stream>,
    /// Findings of a survey.
    pub seen: Seen,
    /// Whether the whole input has been described.
    pub mapped: bool,
    /// End of each frame in sampling periods, in the order of the frames (see `timing::sampling`).
    pub ends: VecDeque<u64>,
    /// The latest period in the log: the end of the last frame, if all of them are logged.
    pub periods: Option<u64>,
    /// Start of the first frame, in sampling periods (for a thumbnail, in milliseconds) after the start of
    /// the wanted part; negative if it began earlier.
    pub first: Option<i64>,
    /// A Matroska file's name for the first codec that ffmpeg does not know.
    pub unknown_codec: Option<String>,
    /// Name of the container format, such as `matroska,webm`.
    pub format: String,
    /// Number of packets that were damaged or did not decode, without those of sound. If there are pictures,
    /// counted from the first one on, since a recording that joined a broadcast in the middle begins with
    /// packets that cannot be decoded.
    pub damaged: u64,
    /// Start of each frame of sound, in the order of the frames (see `sound::filter`).
    pub places: Places,
    /// Whether the container could not be read to its end.
    pub gave_up: bool,
    /// Like `damaged`, for sound.
    pub sound_errors: u64,
    /// Whether ffmpeg estimated the length from the bit rate.
    pub estimated: bool,
    /// Whether ffmpeg noticed that the file ends early.
    pub cut_short: bool,
    /// The signal that ended ffmpeg, if one did.
    pub ended_by_signal: Option<i32>,
    /// The first error and fatal messages, without addresses.
    pub errors: Vec<String>,
}

impl FfmpegLog {
    /// Takes the next bytes of the log, which may end within a line.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' || byte == b'\r' {
                let line = std::mem::take(&mut self.line);
                self.take_line(&String::from_utf8_lossy(&line));
                self.line = line;
                self.line.clear();
            } else if self.line.len() < MAX_LINE {
                self.line.push(byte);
            }
        }
    }

    /// The description of the stream of pictures that is read.
    pub fn video(&self, source: Source) -> Option<&VideoLine> {
        match source {
            Source::Film => self.videos.iter().min_by_key(|video| video.source.number()),
            source => self.videos.iter().find(|video| video.source == source),
        }
    }

    /// The preferred picture in a container of pictures.
    pub fn picture(&self) -> Option<&VideoLine> {
        self.videos.iter().find(|video| video.default).or(self.videos.first())
    }

    /// Whether any error contains the text.
    pub fn has_error(&self, text: &str) -> bool {
        self.errors.iter().any(|error| error.contains(text))
    }

    /// The most informative error.
    pub fn main_error(&self) -> &str {
        let dull = ["Error opening", "Error parsing", "To ignore this"];
        let telling = self.errors.iter().find(|e| !dull.iter().any(|d| e.starts_with(d)));
        telling.or(self.errors.first()).map_or("nothing could be decoded", String::as_str)
    }

    fn take_line(&mut self, line: &str) {
        self.estimated |= line.contains("[warning] Estimating duration from bitrate");
        // GXF's demuxer always ends like this.
        self.gave_up |= self.format != "gxf" && line.contains("[error] Error during demuxing");
        if line.contains("partial file") || line.contains("File ended prematurely") {
            self.cut_short = true;
        }
        if self.first.is_some() || self.video_streams == 0 {
            self.take_damage(line);
        }
        if let Some(rest) = line.strip_prefix("[info] Exiting normally, received signal ") {
            self.ended_by_signal = rest.trim_end_matches('.').parse().ok();
            return;
        }
        if let Some(number) = printed_number(line).filter(|_| self.mapped) {
            self.take_time(number);
            return;
        }
        if let Some((_, codec)) = line.split_once("[info] Unknown/unsupported AVCodecID ") {
            self.unknown_codec.get_or_insert_with(|| codec.trim_end_matches('.').chars().take(64).collect());
            return;
        }
        if let Some(rest) = line.strip_prefix("[info] ") {
            self.take_info(rest);
            return;
        }
        for level in ["[error] ", "[fatal] "] {
            if let Some((_, message)) = line.split_once(level) {
                let message: String = message.chars().filter(|c| !c.is_control()).take(MOST_CHARS).collect();
                if self.errors.len() < MAX_ERRORS && !self.errors.contains(&message) {
                    self.errors.push(message);
                }
                return;
            }
        }
        // A worker's own panic or abort message has no level.
        if line.starts_with("memory allocation of") && self.errors.len() < MAX_ERRORS {
            self.errors.push(line.chars().take(MOST_CHARS).collect());
        }
    }

    fn take_damage(&mut self, line: &str) {
        let refused = ["[error] Error submitting packet to decoder", "[error] Decoding error"];
        let of_sound = line.starts_with("[aist#") && refused.iter().any(|text| line.contains(text));
        if of_sound || line.ends_with("CRC mismatch!") {
            self.sound_errors += 1;
        } else if DAMAGE.iter().any(|text| line.contains(text)) {
            self.damaged += 1;
        }
    }

    fn take_time(&mut self, number: i64) {
        if self.seen.take(number) {
            return;
        }
        if (number - PERIOD_BASE).abs() < FAR {
            self.periods = self.periods.max(u64::try_from(number - PERIOD_BASE).ok());
            return;
        }
        if (number - FIRST_BASE).abs() < FAR {
            self.first = self.first.or(Some(number - FIRST_BASE));
        } else if let Some(end) = u64::try_from(number - END_BASE).ok().filter(|end| *end < FAR as u64)
            // Ends beyond the bound are dropped; a frame without its end is refused.
            && self.ends.len() < MAX_ENDS
        {
            self.ends.push_back(end);
        } else if let Ok(number) = u64::try_from(number) {
            self.places.take(number);
        }
    }

    fn take_info(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("Input #0, ") {
            self.in_input = true;
            self.opened = true;
            self.format = rest.split(", from ").next().unwrap_or_default().to_owned();
        } else if !line.starts_with(' ') {
            self.in_input = false;
            self.mapped |= line.starts_with("Stream mapping:");
        }
        if !self.in_input {
            return;
        }
        if let Some(rest) = line.strip_prefix("  Duration: ") {
            self.duration_secs = rest.split(',').next().and_then(clock_secs);
            // Matroska declares when its last track ends, other formats how long they last.
            let start = rest.split(", start: ").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok());
            self.wraps = start.is_some_and(|start: f64| start > LATEST_START_SECS);
            if let Some(start) = start.filter(|start: &f64| self.format == "matroska,webm" && *start > 0.0) {
                self.duration_secs = self.duration_secs.map(|end| (end - start).max(0.0));
            }
        } else if line.starts_with("  Stream #0:") || line.starts_with("  Stream group #0:") {
            self.take_stream(line);
        } else if let (Some(word), Some(stream)) = (line.strip_prefix("      "), self.streams.last_mut()) {
            stream.take_word(word);
            let index = stream.info.index;
            let video = self.videos.last_mut().filter(|video| video.source == Source::Stream(index));
            if let Some(video) = video {
                video.take_side_data(word);
            }
        }
    }

    fn take_stream(&mut self, line: &str) {
        if let Some(stream) = Stream::read(line) {
            // A stream that belongs to several programs is described with each of them.
            if self.streams.iter().any(|known| known.info.index == stream.info.index) {
                return;
            }
            self.streams.extend(Some(stream).filter(|_| self.streams.len() < usize::from(MAX_STREAMS)));
        }
        if line.contains(": Video: ") || line.contains(": Tile Grid: ") {
            // Cover art and chapter pictures are not video; ffmpeg's specifier `V` excludes them, too.
            if ["(attached pic)", "(timed thumbnails)"].iter().any(|mark| line.contains(mark)) {
                return;
            }
            self.video_streams += 1;
            self.videos.extend(VideoLine::read(line).filter(|_| self.videos.len() < MAX_VIDEOS));
        } else if line.contains(": Audio: ") {
            self.audio_streams += 1;
        }
    }
}

/// A number printed by `timing` or `sound::filter`: 16 digits at the end of a line.
fn printed_number(line: &str) -> Option<i64> {
    let whole = line.strip_suffix(".000000")?;
    let digits = whole.get(whole.len().checked_sub(16)?..)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Parses `00:01:02.50` to 62.5.
fn clock_secs(text: &str) -> Option<f64> {
    let mut parts = text.trim().split(':');
    let (hours, minutes, secs) = (parts.next()?, parts.next()?, parts.next()?);
    let total = hours.parse::<f64>().ok()? * 3600.0
        + minutes.parse::<f64>().ok()? * 60.0
        + secs.parse::<f64>().ok()?;
    (total.is_finite() && total > 0.0).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffmpeg::sound::Place;

    const CHAPLIN: &str = "\
[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'fd:':
[info]   Metadata:
[info]     title           : Stream #0:9: Audio: forged
[info]                     : Duration: 99:00:00.00
[info]     comment         : [Eval @ 0x1] [info] 1000000000000009.000000
[info]   Duration: 00:01:09.64, start: 0.000000, bitrate: 631 kb/s
[info]   Stream #0:0[0x1](und): Video: h264 (High) (avc1 / 0x31637661), yuv420p(progressive), 640x360, 495 kb/s
[info]   Stream #0:1[0x2](und): Audio: mp3 (mp3float) (mp4a / 0x6134706D), 44100 Hz, stereo, fltp, 127 kb/s
[info]   Stream #0:2: Video: mjpeg, yuvj420p, 300x300 (attached pic)
[info] Stream mapping:
[info]   Stream #0:0 -> #0:0 (h264 (native) -> ppm (native))
[Eval @ 0x7f] [info] 1999999999999980.000000
[Eval @ 0x7f] [info] 1000000000000004.000000
[info]   Stream #0:01000000000054000.000000
[info] (und): Video: ppm, rgb24, 320x240
[Eval @ 0x7f] [info] nan
[Eval @ 0x7f] [info] 3000000003146752.000000
[Eval @ 0x7f] [info] 2999999999935512.000000
[Eval @ 0x7f] [info] 3000000003211263.000000
[Eval @ 0x7f] [info] 5000000000123456.000000
[Eval @ 0x7f] [info] 4500000000000021.000000
[h264 @ 0x55] [IMGUTILS @ 0x7ff] [error] Picture size 8192x8192 exceeds specified max pixel count 100
[in#0/mov @ 0x55] [error] stream 0, offset 0xaa71: partial file
";

    #[test]
    fn reads_the_description_in_pieces_of_any_size() {
        for step in [1, 7, 4096] {
            let mut log = FfmpegLog::default();
            CHAPLIN.as_bytes().chunks(step).for_each(|chunk| log.feed(chunk));
            assert_eq!(log.duration_secs, Some(69.64));
            assert_eq!((log.video_streams, log.audio_streams), (1, 1));
            assert_eq!((log.videos.len(), log.videos[0].size), (1, Some((640, 360))));
            assert_eq!((log.videos[0].pixel_format.as_str(), log.mapped), ("yuv420p", true));
            assert_eq!((&log.ends, log.first), (&[4, 54_000].into(), Some(-20)));
            assert_eq!(log.format, "mov,mp4,m4a,3gp,3g2,mj2");
            let places = [(Some(48), 1024), (Some(-1), 1048), (Some(48), 123_456), (None, 21)];
            for (first, count) in places {
                assert_eq!(log.places.next(), Some(Place::new(first, count)));
            }
            assert!(log.opened && log.cut_short && log.has_error("max pixel count"));
            assert_eq!(log.errors.len(), 2);
        }
    }

    #[test]
    fn junk_stays_bounded() {
        let mut log = FfmpegLog::default();
        for i in 0..100_000u32 {
            log.feed(format!("[error] {i} \u{7}\n").as_bytes());
        }
        log.feed(&vec![b'x'; 1 << 20]);
        assert_eq!(log.errors.len(), MAX_ERRORS);
        assert!(log.line.len() <= MAX_LINE);
        assert_eq!(log.duration_secs, None);
        assert_eq!(clock_secs("N/A"), None);
    }
}
