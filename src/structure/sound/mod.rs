//! Examines files of sound: their length, missing parts, and the options that ffmpeg needs to read them.

mod chunks;
mod flac;
mod header;
mod index;
mod ogg;
mod plain;
mod raw;
mod scan;
mod tta;

use std::fs::File;

use serde::{Deserialize, Serialize};

use self::header::{End, Length};
pub use self::raw::Raw;
pub use self::scan::holds_frames;
use super::window::Window;

/// Facts in the bytes of a file that ffmpeg does not report.
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
    /// Missing part according to its own header, as half a sentence.
    pub lacks: Option<String>,
    /// Whether another file is joined to its end, which is not read.
    pub followed: bool,
    /// Whether frames lack timestamps and those that ffmpeg makes up would be wrong (after a change of rate,
    /// or after a hole). ffmpeg must then count samples, and cannot seek.
    pub untimed: bool,
    /// Whether ffmpeg's timestamps must be ignored: it reads those of a second Ogg stream as if it had the
    /// first one's sample rate.
    pub counted: bool,
    /// Whether it consists of streams of several formats, one after another, each of which needs a new run of
    /// ffmpeg.
    pub linked: bool,
    /// Where the next of them begins.
    pub next: Option<u64>,
    /// Whether it is a WAV file of samples and nothing else, so that ffmpeg need not probe for codecs.
    pub plain: bool,
}

impl Examined {
    /// Whether all of it must be decoded to find a part of it.
    #[must_use]
    pub const fn starts_over(&self) -> bool {
        self.untimed || self.linked
    }
}

/// Examines a file that may be sound alone; `frames` if it may be a bare stream of frames. `from`: where one of its
/// streams begins, if it is [`Examined::linked`]; else 0.
pub fn examine(file: &File, frames: bool, from: u64) -> std::io::Result<Examined> {
    let mut window = Window::new(file)?;
    let mut found = if from == 0 { of_file(&mut window, frames) } else { Examined::default() };
    let pages = ogg::pages(&mut window, from);
    found.cut |= pages.cut;
    (found.linked, found.next) = (from > 0 || pages.next.is_some(), pages.next);
    found.counted |= pages.chained;
    found.untimed |= found.counted;
    Ok(found)
}

/// Facts in the bytes of a whole file, without Ogg's pages.
fn of_file(window: &mut Window<'_>, frames: bool) -> Examined {
    let mut found = Examined::default();
    if let Some(samples) = header::samples(window) {
        match samples.length(window.len) {
            Some(Length::Secs(secs)) => found.declared_secs = Some(secs),
            Some(Length::Unknown) => found.open_ended = true,
            None => {}
        }
        match samples.end(window) {
            End::Whole => {}
            End::Cut(why) => found.lacks = Some(why.to_owned()),
            End::Joined => found.followed = true,
        }
    }
    if let Some(scan) = Some(()).filter(|()| frames).and_then(|()| scan::scan(window)) {
        let missing: f64 = scan.holes.iter().map(|(_, missing)| missing).sum();
        found.declared_secs = Some(scan.secs + missing);
        // ffmpeg takes some of the bytes in a hole for frames, and counts them.
        found.untimed = scan.adts || !scan.holes.is_empty();
        (found.holes, found.damaged, found.strays) = (scan.holes, scan.damaged, scan.strays);
        found.cut = scan.cut;
        let lacks = scan.lacks;
        found.lacks = (lacks > 0).then(|| format!("{lacks} frames that its header declares are missing"));
    }
    if let Some(frames) = tta::frames(window) {
        (found.cut, found.followed, found.damaged) = (frames.cut, frames.joined, frames.damaged);
    }
    found.plain = plain::is_plain(window);
    // The times of a second FLAC stream begin at 0 again, and its header is no frame.
    let flac = flac::streams(window);
    found.strays += flac.more * flac::STRAYS;
    found.followed |= flac.differ;
    found.counted = flac.more > 0 && !flac.differ;
    found
}

/// The samples of a file that ffmpeg must read as raw PCM, because its header has no usable length.
pub fn raw(file: &File) -> Option<Raw> {
    let mut window = Window::new(file).ok()?;
    header::samples(&mut window)?.raw(window.len)
}
