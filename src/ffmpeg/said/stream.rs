//! ffmpeg's description of one stream.

use crate::ffmpeg::picks::MAX_STREAMS;
use crate::types::{TrackInfo, TrackKind};

/// ffmpeg's description of one stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    pub info: TrackInfo,
    /// Whether it is commentary, made for people with impaired sight or hearing, or the like. Such a track is
    /// chosen only if there is no other.
    pub lesser: bool,
    /// The container's name for a codec that ffmpeg does not know.
    pub tag: Option<String>,
    /// Its number in the container, if the container has such numbers.
    pub id: Option<u16>,
    /// Its first time stamp, in seconds, if it is not 0.
    pub start_secs: f64,
}

/// Marks of `lesser` tracks.
const LESSER: [&str; 8] = [
    "(comment)",
    "(hearing impaired)",
    "(visual impaired)",
    "(descriptions)",
    "(karaoke)",
    "(lyrics)",
    "(clean effects)",
    "(still image)",
];
/// Marks of pictures that are not films.
const COVERS: [&str; 2] = ["(attached pic)", "(timed thumbnails)"];

impl Stream {
    /// Reads `  Stream #0:1[0x2](eng): Audio: aac (LC) (mp4a / 0x6134706D), 48000 Hz, stereo, fltp (default)`.
    pub fn read(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("  Stream #0:")?;
        let kinds = [
            (": Video: ", TrackKind::Video),
            (": Audio: ", TrackKind::Audio),
            (": Subtitle: ", TrackKind::Subtitle),
            (": Data: ", TrackKind::Data),
            (": Attachment: ", TrackKind::Data),
            (": Unknown: ", TrackKind::Data),
        ];
        let found = kinds.iter().filter_map(|(mark, kind)| Some((rest.find(mark)?, *mark, *kind)));
        let (at, mark, kind) = found.min_by_key(|(at, ..)| *at)?;
        let (head, text) = (&rest[..at], &rest[at + mark.len()..]);
        let digits = head.find(|c: char| !c.is_ascii_digit()).unwrap_or(head.len());
        let index = head[..digits].parse().ok().filter(|index| *index < MAX_STREAMS)?;
        let id = head.split_once("[0x").and_then(|(_, rest)| rest.split(']').next());
        let id = id.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let start = text.rsplit_once(", start ").and_then(|(_, rest)| rest.split([' ', ',']).next());
        let start_secs = start.and_then(|secs| secs.parse().ok()).filter(|secs: &f64| secs.is_finite());
        let language = head.rsplit_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        let marked = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
        let kind = if kind == TrackKind::Video && marked(&COVERS) { TrackKind::Cover } else { kind };
        let codec = text.split([' ', ',']).next().unwrap_or_default();
        let mut info = TrackInfo {
            index,
            kind,
            codec: cleaned(codec, 32),
            language: language.map(|text| cleaned(text, 16)).filter(|text| !text.is_empty() && text != "und"),
            title: None,
            channels: None,
            sample_rate_hz: None,
            width: None,
            height: None,
            default: text.contains("(default)"),
            used: false,
        };
        if kind == TrackKind::Audio {
            let mut parts = text.split(", ");
            info.sample_rate_hz = parts.find_map(|part| part.strip_suffix(" Hz")?.parse().ok());
            info.channels = parts.next().and_then(channels);
        } else if matches!(kind, TrackKind::Video | TrackKind::Cover) {
            let size = super::VideoLine::read(line).and_then(|video| video.shown_size());
            (info.width, info.height) = size.unzip();
        }
        let start_secs = start_secs.unwrap_or(0.0);
        Some(Self { info, lesser: marked(&LESSER), tag: tag(text), id, start_secs })
    }

    /// Takes a line of the stream's metadata.
    pub fn take_word(&mut self, line: &str) {
        let Some(("title", value)) = line.split_once(':').map(|(name, value)| (name.trim(), value.trim()))
        else {
            return;
        };
        self.info.title =
            self.info.title.take().or_else(|| Some(cleaned(value, 100)).filter(|t| !t.is_empty()));
    }

    pub fn has_codec(&self) -> bool {
        !matches!(self.info.codec.as_str(), "none" | "unknown" | "")
    }

    /// Whether ffmpeg met enough packets to describe it: a picture has a size, and sound a rate.
    pub fn is_described(&self) -> bool {
        match self.info.kind {
            TrackKind::Video => self.info.width.is_some(),
            TrackKind::Audio => self.info.sample_rate_hz.is_some(),
            _ => true,
        }
    }

    /// Readable description: `track 0, codec h264`, `track 1, unknown codec "XYZW"`.
    pub fn called(&self) -> String {
        let index = self.info.index;
        match (&self.tag, self.has_codec()) {
            (_, true) => format!("track {index}, codec {}", self.info.codec),
            (Some(tag), false) => format!("track {index}, unknown codec \"{tag}\""),
            (None, false) => format!("track {index}, unknown codec"),
        }
    }
}

/// The four characters `avc1` in `h264 (High) (avc1 / 0x31637661), yuv420p`.
fn tag(text: &str) -> Option<String> {
    let (before, _) = text.split_once(" / 0x")?;
    Some(cleaned(before.rsplit_once('(')?.1, 16)).filter(|tag| !tag.is_empty())
}

/// Text from a file, made safe to show: without control characters, and at most `most` characters long.
pub fn cleaned(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect::<String>().trim().to_owned()
}

/// Number of channels of a layout with this name.
fn channels(layout: &str) -> Option<u16> {
    let word = layout.split([' ', '(', ',']).next().unwrap_or_default();
    match word {
        "mono" => Some(1),
        "stereo" | "downmix" | "binaural" => Some(2),
        "quad" => Some(4),
        "hexagonal" => Some(6),
        "octagonal" | "cube" => Some(8),
        "hexadecagonal" => Some(16),
        _ if word.contains('.') => word.split('.').map(|part| part.parse::<u8>().ok().map(u16::from)).sum(),
        _ => word.parse().ok().filter(|_| layout.contains("channels")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_read_whatever_a_file_writes_there() {
        let line =
            "  Stream #0:12[0x2](a\u{1b}[2Jb): Audio: opus, 48000 Hz, 5.1(side), fltp (default) (comment)";
        let stream = Stream::read(line).unwrap();
        let info = &stream.info;
        assert_eq!((info.index, info.channels, info.sample_rate_hz), (12, Some(6), Some(48_000)));
        assert_eq!((info.language.as_deref(), info.default, stream.lesser), (Some("a[2Jb"), true, true));
        let late = Stream::read("  Stream #0:1[0x80]: Audio: ac3, 0 channels, start 0.529978").unwrap();
        assert_eq!((late.id, late.start_secs, late.is_described()), (Some(0x80), 0.529978, false));
        assert!(stream.is_described() && stream.id == Some(2));
        for (layout, count) in [
            ("mono", Some(1)),
            ("7.1.4", Some(12)),
            ("quad(side)", Some(4)),
            ("24 channels (FL+FR)", Some(24)),
            ("hexadecagonal", Some(16)),
            ("fltp", None),
            ("9.9.999", None),
        ] {
            assert_eq!(channels(layout), count, "{layout}");
        }
        for junk in
            ["  Stream #0:: Audio: ", "  Stream #0:64: Audio: aac", "  Stream #0:1", "Stream #0:1: Audio: a"]
        {
            assert_eq!(Stream::read(junk), None, "{junk}");
        }
        let long = format!("  Stream #0:1({}): Data: {}", "x".repeat(999), "y".repeat(999));
        let info = Stream::read(&long).unwrap().info;
        assert_eq!((info.language.unwrap().len(), info.codec.len()), (16, 32));
    }
}
