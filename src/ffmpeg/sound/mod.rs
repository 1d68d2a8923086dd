//! Sound: ffmpeg's filters for it, and where each of its samples belongs. The rule is in `docs/bundle.md`.

mod place;

pub use self::place::{Piece, Place, Placed, Placer, Places};

/// Most channels of a track that ffmpeg mixes.
const MAX_CHANNELS: usize = 64;

/// Floats reach 2 to this power.
const MAX_BITS: u32 = 128;
/// The least power of two, as its exponent, that makes a sample infinite: one more than that of [`MAX_SAMPLE`].
///
/// [`MAX_SAMPLE`]: super::MAX_SAMPLE
const HEADROOM_BITS: u32 = 17;

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
    let loud = MAX_BITS - HEADROOM_BITS;
    format!(
        "aformat=sample_fmts=fltp,volume=2^{loud}:precision=float,pan=mono|c0<{},volume=2^-{loud}:precision=float",
        channels.join("+")
    )
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
