//! Sound: ffmpeg's filters for it, and where each of its samples belongs. The rule is in `docs/bundle.md`.

mod chunks;
mod flac;
mod header;
mod index;
mod ogg;
mod place;
mod plain;
mod raw;
mod scan;
mod tta;

use std::fs::File;

use serde::{Deserialize, Serialize};

use self::header::{End, Length};
pub use self::place::{Piece, Place, Placer, Places};
pub use self::raw::Raw;
use super::window::Window;

/// What the bytes of a file show that ffmpeg does not report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Examined {
    /// Length by the header, or by the existing frames, in seconds.
    pub declared_secs: Option<f64>,
    /// Whether the header was written before the length was known. ffmpeg's length is then not valid.
    pub open_ended: bool,
    /// Where frames are missing: seconds of the frames before, seconds missing.
    pub holes: Vec<(f64, f64)>,
    /// Number of places where something is missing.
    pub damaged: u64,
    /// Number of tags and the like between frames, which may fail to decode.
    pub strays: u64,
    /// Whether the last frame is incomplete.
    pub cut: bool,
    /// What it lacks by its own header: half a sentence.
    pub lacks: Option<String>,
    /// Whether another file is joined to its end, which is not read.
    pub followed: bool,
    /// Whether frames lack timestamps and those that ffmpeg makes up would be wrong (after a change of rate,
    /// or after a hole). ffmpeg must then count samples, and cannot seek.
    pub untimed: bool,
    /// Whether ffmpeg's timestamps must be ignored: it reads those of a second Ogg stream as if it had the
    /// first one's sample rate.
    pub counted: bool,
    /// Whether it is a WAV file of samples and nothing else, so that ffmpeg need not probe for codecs.
    pub plain: bool,
}

/// Examines a file that may be sound alone; `frames` if it may be a bare stream of frames.
pub fn examine(file: &File, frames: bool) -> std::io::Result<Examined> {
    let mut window = Window::new(file)?;
    let mut found = Examined::default();
    if let Some(samples) = header::samples(&mut window) {
        match samples.length(window.len) {
            Some(Length::Secs(secs)) => found.declared_secs = Some(secs),
            Some(Length::Unknown) => found.open_ended = true,
            None => {}
        }
        match samples.end(&mut window) {
            End::Whole => {}
            End::Cut(why) => found.lacks = Some(why.to_owned()),
            End::Joined => found.followed = true,
        }
    }
    if let Some(scan) = Some(()).filter(|()| frames).and_then(|()| scan::scan(&mut window)) {
        let missing: f64 = scan.holes.iter().map(|(_, missing)| missing).sum();
        found.declared_secs = Some(scan.secs + missing);
        // ffmpeg takes some of the bytes in a hole for frames, and counts them.
        found.untimed = scan.adts || !scan.holes.is_empty();
        (found.holes, found.damaged, found.strays) = (scan.holes, scan.damaged, scan.strays);
        found.cut = scan.cut;
        let lacks = scan.lacks;
        found.lacks = (lacks > 0).then(|| format!("{lacks} frames that its header counts are missing"));
    }
    if let Some(frames) = tta::frames(&mut window) {
        (found.cut, found.followed, found.damaged) = (frames.cut, frames.joined, frames.damaged);
    }
    found.plain = plain::is_plain(&mut window);
    let pages = ogg::pages(&mut window);
    found.cut |= pages.cut;
    // The times of a second FLAC stream begin at 0 again, and its header is no frame.
    let flac = flac::streams(&mut window);
    found.strays += flac.more * flac::STRAYS;
    found.followed |= flac.differ;
    found.counted = pages.chained || flac.more > 0 && !flac.differ;
    found.untimed |= found.counted;
    Ok(found)
}

/// The samples of a file that ffmpeg must read as raw PCM, because its header has no usable length.
pub fn raw(file: &File) -> Option<Raw> {
    let mut window = Window::new(file).ok()?;
    header::samples(&mut window)?.raw(window.len)
}

/// Most channels of a track that ffmpeg mixes.
const MAX_CHANNELS: usize = 64;

/// Filters for a track: the mean of its channels, at one rate, with a log line per frame.
///
/// `c0<c0+c1+…` weights the existing channels equally, with weights that sum to one, whatever their number
/// and whether or not their layout is known. Floats come first: integers would be rounded to their own
/// precision.
///
/// `print` logs for each frame the sample at which it begins and its number of samples, see [`Places`]. A
/// track that changes its rate or channels gets a new filter graph; a place logged for each frame stays valid
/// across that.
pub fn filter(sample_rate_hz: u32) -> String {
    format!("{},{}", mean_of_channels(), placed(sample_rate_hz))
}

fn mean_of_channels() -> String {
    let channels: Vec<_> = (0..MAX_CHANNELS).map(|channel| format!("c{channel}")).collect();
    format!("aformat=sample_fmts=fltp,pan=mono|c0<{}", channels.join("+"))
}

fn placed(sample_rate_hz: u32) -> String {
    format!("aresample={sample_rate_hz},asetpts='{}'", place::EXPRESSION)
}

/// Like [`filter`], for tracks that are the channels of one sound, as a graph whose output is `[mean]`.
///
/// `amix` counts samples and ignores timestamps, so each track is first filled with silence, from 0 on and in
/// its gaps. A track that has ended counts as silence.
pub fn mean_of_streams(streams: &[u16], part: &str, sample_rate_hz: u32) -> String {
    let mut graph = String::new();
    for index in streams {
        let mean = mean_of_channels();
        let filled = "aresample=async=1:min_hard_comp=0.02:first_pts=0";
        graph += &format!("[0:{index}]{part}{mean},{filled}[s{index}];");
    }
    let inputs: String = streams.iter().map(|index| format!("[s{index}]")).collect();
    let count = streams.len();
    let last = placed(sample_rate_hz);
    graph
        + &format!(
            "{inputs}amix=inputs={count}:duration=longest:normalize=0,volume=1/{count}:precision=double,{last}[mean]"
        )
}
