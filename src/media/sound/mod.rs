//! Sound: what ffmpeg is asked for, and where each of its samples belongs. The rule is in `docs/bundle.md`.

mod header;
mod ogg;
mod place;
mod plain;
mod scan;

use std::fs::File;

use serde::{Deserialize, Serialize};

use self::header::Length;
pub use self::place::{Piece, Place, Placer, Places};
use super::window::Window;

/// What a look at the bytes says that ffmpeg does not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Examined {
    /// Length by the header, or by the frames there are, seconds.
    pub declared_secs: Option<f64>,
    /// The header was written before the length was known: what ffmpeg makes of it is no length.
    pub open_ended: bool,
    /// Where frames are missing: seconds of the frames before, seconds that are missing.
    pub holes: Vec<(f64, f64)>,
    /// Places where something is missing.
    pub damaged: u64,
    /// Tags and the like between frames: they may fail to decode.
    pub strays: u64,
    /// The last frame is not whole.
    pub cut: bool,
    /// Frames have no time stamps, and those that ffmpeg makes up would be wrong (once the rate changes, or behind
    /// a hole): it is to count samples, and cannot look for a place in the file.
    pub untimed: bool,
    /// ffmpeg's time stamps are not to be looked at: those of a second Ogg stream are read as if it had the first
    /// one's sample rate.
    pub counted: bool,
    /// A WAV file of samples that are nothing else: no codec needs to be looked for in it.
    pub plain: bool,
}

/// Looks at a file that may be sound alone; `frames` for one that may be a bare stream of frames.
pub fn examine(file: &File, frames: bool) -> std::io::Result<Examined> {
    let mut window = Window::new(file)?;
    let mut found = Examined::default();
    match header::length(&mut window) {
        Some(Length::Secs(secs)) => found.declared_secs = Some(secs),
        Some(Length::Unknown) => found.open_ended = true,
        None => {}
    }
    if let Some(scan) = Some(()).filter(|()| frames).and_then(|()| scan::scan(&mut window)) {
        let missing: f64 = scan.holes.iter().map(|(_, missing)| missing).sum();
        found.declared_secs = Some(scan.secs + missing);
        // ffmpeg takes some of what is in a hole for frames, and counts them.
        found.untimed = scan.adts || !scan.holes.is_empty();
        (found.holes, found.damaged, found.strays) = (scan.holes, scan.damaged, scan.strays);
        found.cut = scan.cut;
    }
    found.plain = plain::is_plain(&mut window);
    let pages = ogg::pages(&mut window);
    found.cut |= pages.cut;
    (found.counted, found.untimed) = (pages.chained, found.untimed || pages.chained);
    Ok(found)
}

/// Most channels of a track that ffmpeg mixes.
const MAX_CHANNELS: usize = 64;

/// What a track becomes: the mean of its channels, at one rate, with a line in the log for each frame.
///
/// `c0<c0+c1+…` weighs the channels that there are equally, with weights whose sum is one, whatever their number
/// and whether their layout is known. Floats first: integers would be rounded to their own precision.
///
/// `print` says for each frame at which sample it begins and how many it has, see [`Places`]. A track that
/// changes its rate or channels gets a filter graph set up anew; a place told for each frame outlasts that.
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

/// The same of tracks that are the channels of one sound, as a graph whose output is `[mean]`.
///
/// `amix` counts samples and knows no time stamps: each track is filled up before, from 0 on and where it has gaps.
/// A track that has ended counts as silence.
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
