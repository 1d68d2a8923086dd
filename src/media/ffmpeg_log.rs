//! What ffmpeg says on standard error, as far as it matters: the tracks, the length, the errors.
//!
//! The text is untrusted (a file's metadata may look like anything): everything is bounded, and a
//! forged line can at worst make its own file fail.

use std::collections::VecDeque;

use super::filters::VideoLine;

/// Longest line looked at, bytes; the rest of a line is dropped.
const MAX_LINE: usize = 2048;
/// Video streams looked at: pictures and thumbnails of one file.
const MAX_VIDEOS: usize = 64;
/// Error lines kept, the first ones.
const MAX_ERRORS: usize = 12;
/// Ends of frames that may be known before the frames have been read: more than ffmpeg's queues hold.
const MAX_ENDS: usize = 4096;
/// What is added to them in the log.
const END_BASE: u64 = 1_000_000_000_000_000;

/// What was said so far.
#[derive(Debug, Default)]
pub struct FfmpegLog {
    line: Vec<u8>,
    /// Inside the description of the input.
    in_input: bool,
    /// The container was recognised.
    pub opened: bool,
    /// Length of the container, seconds.
    pub duration_secs: Option<f64>,
    pub video_streams: usize,
    pub audio_streams: usize,
    /// The video streams and groups of tiles as described, the first ones.
    pub videos: Vec<VideoLine>,
    /// The whole input has been described.
    pub mapped: bool,
    /// Where each frame ends, in sampling periods, in the order of the frames (see `video::sampling`).
    pub ends: VecDeque<u64>,
    /// ffmpeg noticed the file ends early.
    pub cut_short: bool,
    /// ffmpeg was asked to end by this signal, and did.
    pub ended_by_signal: Option<i32>,
    /// The first error and fatal lines, without addresses.
    pub errors: Vec<String>,
}

impl FfmpegLog {
    /// Takes more bytes.
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

    /// The stream that is read: a film's first, a container of pictures' preferred one.
    pub fn video(&self, picture: bool) -> Option<&VideoLine> {
        let preferred = self.videos.iter().find(|video| picture && video.default);
        preferred.or(self.videos.first())
    }

    /// Whether any error holds the text.
    pub fn has_error(&self, text: &str) -> bool {
        self.errors.iter().any(|error| error.contains(text))
    }

    /// The error that says most.
    pub fn main_error(&self) -> &str {
        let dull = ["Error opening", "Error parsing", "To ignore this"];
        let telling = self.errors.iter().find(|e| !dull.iter().any(|d| e.starts_with(d)));
        telling.or(self.errors.first()).map_or("nothing could be decoded", String::as_str)
    }

    fn take_line(&mut self, line: &str) {
        if line.contains("partial file") || line.contains("File ended prematurely") {
            self.cut_short = true;
        }
        if let Some(rest) = line.strip_prefix("[info] Exiting normally, received signal ") {
            self.ended_by_signal = rest.trim_end_matches('.').parse().ok();
            return;
        }
        if let Some(end) = end_of_frame(line).filter(|_| self.mapped) {
            // Past the bound nobody reads frames, and a frame without its end is refused.
            if self.ends.len() < MAX_ENDS {
                self.ends.push_back(end);
            }
            return;
        }
        if let Some(rest) = line.strip_prefix("[info] ") {
            self.take_info(rest);
            return;
        }
        for level in ["[error] ", "[fatal] "] {
            if let Some((_, message)) = line.split_once(level) {
                let message: String = message.chars().filter(|c| !c.is_control()).take(200).collect();
                if self.errors.len() < MAX_ERRORS && !self.errors.contains(&message) {
                    self.errors.push(message);
                }
                return;
            }
        }
        // A worker's own panic or abort message has no level.
        if line.starts_with("memory allocation of") && self.errors.len() < MAX_ERRORS {
            self.errors.push(line.chars().take(200).collect());
        }
    }

    fn take_info(&mut self, line: &str) {
        if line.starts_with("Input #0") {
            self.in_input = true;
            self.opened = true;
        } else if !line.starts_with(' ') {
            self.in_input = false;
            self.mapped |= line.starts_with("Stream mapping:");
        }
        if !self.in_input {
            return;
        }
        if let Some(rest) = line.strip_prefix("  Duration: ") {
            self.duration_secs = rest.split(',').next().and_then(clock_secs);
        } else if line.starts_with("  Stream #0:") || line.starts_with("  Stream group #0:") {
            self.take_stream(line);
        }
    }

    fn take_stream(&mut self, line: &str) {
        if line.contains(": Video: ") || line.contains(": Tile Grid: ") {
            // Cover art and chapter pictures are no video: ffmpeg's specifier `V` leaves them out.
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

/// The end of a frame, as `video::sampling` has it printed: 1e15 more, at the end of a line.
fn end_of_frame(line: &str) -> Option<u64> {
    let whole = line.strip_suffix(".000000")?;
    let digits = whole.get(whole.len().checked_sub(16)?..)?;
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok())??;
    number.checked_sub(END_BASE).filter(|end| *end < END_BASE)
}

/// `00:01:02.50` to 62.5.
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
[Eval @ 0x7f] [info] 1000000000000004.000000
[info]   Stream #0:01000000000054000.000000
[info] (und): Video: ppm, rgb24, 320x240
[Eval @ 0x7f] [info] nan
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
            assert_eq!(log.ends, [4, 54_000]);
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
