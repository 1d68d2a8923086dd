//! ffmpeg's description of one video stream, or of a group of tiles. Only words of fixed lists are taken from
//! it, never text from the file.

use crate::ffmpeg::picks::Source;
use crate::ffmpeg::sampling::Ratio;

/// A sample aspect ratio beyond this, in either direction, is considered a mistake.
pub const MOST_STRETCH: f64 = 8.0;

/// How frames were scanned, if the stream declares it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fields {
    #[default]
    Unsaid,
    Progressive,
    Interlaced,
}

/// ffmpeg's description of a video stream, or of a group of tiles.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VideoLine {
    pub source: Source,
    /// Whether the container prefers it.
    pub default: bool,
    pub codec: String,
    /// ffmpeg's name of the pixel format, such as `yuv420p`.
    pub pixel_format: String,
    pub full_range: bool,
    pub matrix: String,
    pub primaries: String,
    pub transfer: String,
    pub fields: Fields,
    /// Size as coded; the picture may still be rotated.
    pub size: Option<(u32, u32)>,
    sar: Option<(u32, u32)>,
    /// Frames per second.
    pub rate: Option<Ratio>,
    /// Whether its colours are those of Dolby Vision alone, which ffmpeg does not convert.
    pub dolby: bool,
}

impl VideoLine {
    /// Reads `  Stream #0:1[0x2](und): Video: h264 …` and `  Stream group #0:0[0x7]: Tile Grid: hevc …`.
    pub fn read(line: &str) -> Option<Self> {
        let (number, what, text) = line
            .split_once(": Video: ")
            .map(|(head, text)| (head.split_once("Stream #0:"), Source::Stream as fn(u16) -> Source, text))
            .or_else(|| {
                let (head, text) = line.split_once(": Tile Grid: ")?;
                Some((head.split_once("Stream group #0:"), Source::Tiles as fn(u16) -> Source, text))
            })?;
        let number = number?.1;
        let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        let source = what(number[..digits].parse().ok()?);
        let (codec, rest) = text.split_once(", ").unwrap_or((text, ""));
        let codec = codec.split(' ').next().unwrap_or_default();
        let mut found = Self {
            source,
            default: text.ends_with("(default)") || text.contains(" (default) "),
            codec: codec.to_owned(),
            size: text.split([',', ' ']).find_map(size),
            sar: text.rsplit("SAR ").next().filter(|_| text.contains("SAR ")).and_then(ratio),
            rate: stated_rate(text),
            ..Self::default()
        };
        let end = rest.find(['(', ',']).unwrap_or(rest.len());
        found.pixel_format = rest[..end].to_owned();
        if let Some(inside) = rest[end..].strip_prefix('(') {
            // The words end where the size begins: a field order may itself contain parentheses.
            let inside = inside.split("), ").next().unwrap_or_default();
            inside.trim_end_matches(')').split(", ").for_each(|word| found.take_word(word));
        }
        Some(found)
    }

    fn take_word(&mut self, word: &str) {
        match word {
            "tv" => {}
            "pc" => self.full_range = true,
            "progressive" => self.fields = Fields::Progressive,
            _ if word.contains(" first") => self.fields = Fields::Interlaced,
            _ => {
                // There is a single word if all three are the same.
                let mut parts = word.split('/');
                let matrix = parts.next().unwrap_or_default();
                self.matrix = matrix.to_owned();
                self.primaries = parts.next().unwrap_or(matrix).to_owned();
                self.transfer = parts.next().unwrap_or(matrix).to_owned();
            }
        }
    }

    /// Takes a line of side data. A base layer with a compatibility id is HDR or SDR by itself.
    pub fn take_side_data(&mut self, line: &str) {
        self.dolby |=
            line.starts_with("DOVI configuration record: ") && line.contains(", compatibility id: 0");
    }

    /// Width of a pixel divided by its height, if it is neither 1 nor a mistake.
    pub fn stretch(&self) -> Option<f64> {
        let (width, height) = self.sar.filter(|(width, height)| width != height)?;
        let ratio = f64::from(width) / f64::from(height);
        (1.0 / MOST_STRETCH..=MOST_STRETCH).contains(&ratio).then_some(ratio)
    }

    /// Size with square pixels. The side that is too short grows, as in browsers, so that nothing is lost.
    pub fn shown_size(&self) -> Option<(u32, u32)> {
        let (width, height) = self.size?;
        let longer = |side: u32, by: f64| (f64::from(side) * by).round() as u32;
        Some(match self.stretch() {
            Some(ratio) if ratio > 1.0 => (longer(width, ratio), height),
            Some(ratio) => (width, longer(height, 1.0 / ratio)),
            None => (width, height),
        })
    }
}

/// Parses `25 fps, 25 tbr`.
fn stated_rate(text: &str) -> Option<Ratio> {
    let of = |unit: &str| text.split(", ").find_map(|word| word.split(" (").next()?.strip_suffix(unit));
    Ratio::stated(of(" fps").unwrap_or_default(), of(" tbr").unwrap_or_default())
}

/// Parses `640x360`.
fn size(word: &str) -> Option<(u32, u32)> {
    pair(word, 'x')
}

/// Parses `64:51 DAR …`.
fn ratio(text: &str) -> Option<(u32, u32)> {
    pair(text.split([' ', ',', ']']).next()?, ':')
}

fn pair(word: &str, between: char) -> Option<(u32, u32)> {
    let (width, height) = word.split_once(between)?;
    let (width, height) = (width.parse().ok()?, height.parse().ok()?);
    (width > 0 && height > 0).then_some((width, height))
}
