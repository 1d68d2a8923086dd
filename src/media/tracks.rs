//! Which of a file's tracks are read: those that its container prefers, else the best ones; and no still picture
//! before a film, no silence before sound. The rule is in `docs/media.md`.
//!
//! What ffmpeg says of a file's streams mostly decides. Where it leaves a choice, a survey of the file does: it counts
//! packets of pictures without decoding them, and decodes sound until some is heard.

mod survey;

use serde::{Deserialize, Serialize};

pub use self::survey::{Seen, settled, survey_words};

use super::ffmpeg_log::FfmpegLog;
use super::filters::Source;
use crate::types::{TrackChoice, TrackInfo, TrackKind};

/// Streams looked at, by their index: masks have as many bits.
pub const MAX_STREAMS: u16 = 64;
/// Mono tracks that are mixed, at most.
const MOST_MONO: usize = 16;
/// Containers of broadcast and of cameras, in which one channel a track is usual.
const CHANNELS_APART: [&str; 3] = ["mxf", "gxf", "mov,mp4,m4a,3gp,3g2,mj2"];

/// Which sound is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heard {
    /// The first sound track.
    #[default]
    First,
    /// This stream.
    Stream(u16),
    /// The mean of these streams, a bit for each.
    Mean(u64),
}

/// Where pictures and sound come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Picks {
    pub picture: Source,
    pub sound: Heard,
}

impl Picks {
    /// The asset's tracks, and which of them these are.
    pub fn list(self, log: &FfmpegLog, frames: bool, samples: bool) -> Vec<TrackInfo> {
        let (picture, sound) = (picture_index(log, self.picture), sound_mask(log, self.sound));
        let used = |stream: &Stream| match stream.info.kind {
            TrackKind::Video => frames && picture == Some(stream.info.index),
            TrackKind::Audio => samples && sound & bit(stream.info.index) != 0,
            _ => false,
        };
        let mut tracks: Vec<_> = log
            .streams
            .iter()
            .map(|stream| TrackInfo { used: used(stream), ..stream.info.clone() })
            .collect();
        tracks.sort_by_key(|track| track.index);
        tracks
    }
}

/// The track that was to be read and for whose codec there is no decoder, for a person.
pub fn undecodable(log: &FfmpegLog, picks: Picks, kind: TrackKind) -> Option<String> {
    let mask = match kind {
        TrackKind::Video => picture_index(log, picks.picture).map_or(0, bit),
        _ => sound_mask(log, picks.sound),
    };
    let lacks = |stream: &&Stream| {
        let named = || log.has_error(&format!("no decoder found for: {}", stream.info.codec));
        mask & bit(stream.info.index) != 0 && (!stream.has_codec() || named())
    };
    let stream = log.streams.iter().find(lacks)?;
    let called = match (&stream.tag, &log.unknown_codec) {
        (None, Some(codec)) if !stream.has_codec() => {
            format!("track {}, unknown codec \"{}\"", stream.info.index, cleaned(codec, 32))
        }
        _ => stream.called(),
    };
    Some(format!("no decoder for {called}"))
}

fn picture_index(log: &FfmpegLog, picture: Source) -> Option<u16> {
    match picture {
        Source::Film => of_kind(log, TrackKind::Video).map(|stream| stream.info.index).min(),
        Source::Stream(index) => Some(index),
        Source::Tiles(_) => None,
    }
}

fn sound_mask(log: &FfmpegLog, sound: Heard) -> u64 {
    match sound {
        Heard::First => of_kind(log, TrackKind::Audio).map(|stream| stream.info.index).min().map_or(0, bit),
        Heard::Stream(index) => bit(index),
        Heard::Mean(mask) => mask,
    }
}

const fn bit(index: u16) -> u64 {
    if index < MAX_STREAMS { 1 << index } else { 0 }
}

fn mask_of<'a>(streams: impl Iterator<Item = &'a &'a Stream>) -> u64 {
    streams.fold(0, |mask, stream| mask | bit(stream.info.index))
}

/// The streams of a mask, from the first on.
pub fn streams_of(mask: u64) -> impl Iterator<Item = u16> {
    (0..MAX_STREAMS).filter(move |index| mask & bit(*index) != 0)
}

/// What ffmpeg says of one stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    pub info: TrackInfo,
    /// Commentary, or made for people who do not see or hear: no choice of ours where there is another one.
    lesser: bool,
    /// What the container calls a codec that ffmpeg does not know.
    tag: Option<String>,
}

/// Marks of tracks that are `lesser`.
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
/// Marks of pictures that are no film.
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
            let size = super::filters::VideoLine::read(line).and_then(|video| video.shown_size());
            (info.width, info.height) = size.unzip();
        }
        Some(Self { info, lesser: marked(&LESSER), tag: tag(text) })
    }

    /// Takes a line of what the container says of the stream.
    pub fn take_word(&mut self, line: &str) {
        let Some(("title", value)) = line.split_once(':').map(|(name, value)| (name.trim(), value.trim()))
        else {
            return;
        };
        self.info.title =
            self.info.title.take().or_else(|| Some(cleaned(value, 100)).filter(|t| !t.is_empty()));
    }

    fn has_codec(&self) -> bool {
        !matches!(self.info.codec.as_str(), "none" | "unknown" | "")
    }

    /// For a person: `track 0, codec h264`, `track 1, unknown codec "XYZW"`.
    pub fn called(&self) -> String {
        let index = self.info.index;
        match (&self.tag, self.has_codec()) {
            (_, true) => format!("track {index}, codec {}", self.info.codec),
            (Some(tag), false) => format!("track {index}, unknown codec \"{tag}\""),
            (None, false) => format!("track {index}, unknown codec"),
        }
    }
}

/// The four characters of `h264 (High) (avc1 / 0x31637661), yuv420p`.
fn tag(text: &str) -> Option<String> {
    let (before, _) = text.split_once(" / 0x")?;
    Some(cleaned(before.rsplit_once('(')?.1, 16)).filter(|tag| !tag.is_empty())
}

/// A file's text as far as it may be shown.
fn cleaned(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect::<String>().trim().to_owned()
}

/// How many channels a layout of this name has.
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

/// What is wanted of a file.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub choice: TrackChoice,
    /// Sound too.
    pub sound: bool,
}

/// What is known of the tracks to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Sure(Picks),
    /// These streams, a bit for each, must be looked at.
    Survey {
        pictures: u64,
        sounds: u64,
    },
    /// There is no such track.
    NoSuch(TrackKind, u16),
}

/// Chooses tracks by what is known.
pub fn decide(log: &FfmpegLog, wanted: Wanted, seen: Option<&Seen>) -> Decision {
    let pictures: Vec<_> = of_kind(log, TrackKind::Video).collect();
    let sounds: Vec<_> = of_kind(log, TrackKind::Audio).filter(|_| wanted.sound).collect();
    let (video, audio) = (wanted.choice.video, wanted.choice.audio.filter(|_| wanted.sound));
    for (kind, chosen, streams) in [(TrackKind::Video, video, &pictures), (TrackKind::Audio, audio, &sounds)]
    {
        if let Some(index) = chosen.filter(|index| streams.iter().all(|stream| stream.info.index != *index)) {
            return Decision::NoSuch(kind, index);
        }
    }
    let mono = channels_apart(log, &sounds).filter(|_| audio.is_none());
    let ask = |streams: &[&Stream], open: bool| {
        let mask = mask_of(streams.iter().filter(|stream| stream.has_codec()));
        if open && seen.is_none() && mask.count_ones() > 1 { mask } else { 0 }
    };
    let asked_pictures = ask(&pictures, video.is_none());
    let asked_sounds = ask(&sounds, audio.is_none() && mono.is_none());
    if asked_pictures | asked_sounds != 0 {
        return Decision::Survey { pictures: asked_pictures, sounds: asked_sounds };
    }
    let nothing = Seen::default();
    let seen = seen.unwrap_or(&nothing);
    let first = |streams: &[&Stream]| streams.iter().map(|stream| stream.info.index).min();
    let best_picture = pictures.iter().max_by_key(|stream| picture_rank(stream, seen)).map(|s| s.info.index);
    let best_sound = sounds.iter().max_by_key(|stream| sound_rank(stream, seen)).map(|s| s.info.index);
    let picture = video.or(best_picture).filter(|index| Some(*index) != first(&pictures));
    let sound = audio.or(best_sound).filter(|index| Some(*index) != first(&sounds));
    Decision::Sure(Picks {
        picture: picture.map_or(Source::Film, Source::Stream),
        sound: mono.map(Heard::Mean).or(sound.map(Heard::Stream)).unwrap_or_default(),
    })
}

/// The same without a survey.
pub fn guess(log: &FfmpegLog, wanted: Wanted) -> Picks {
    match decide(log, wanted, Some(&log.seen)) {
        Decision::Sure(picks) => picks,
        _ => Picks::default(),
    }
}

fn of_kind(log: &FfmpegLog, kind: TrackKind) -> impl Iterator<Item = &Stream> {
    log.streams.iter().filter(move |stream| stream.info.kind == kind)
}

/// What a container says for a track.
fn preferred(stream: &Stream) -> (bool, bool, bool) {
    (stream.has_codec(), !stream.lesser, stream.info.default)
}

/// Films before stills; the first that the container prefers; if it prefers none, the one with most pixels in all its
/// frames; the first.
fn picture_rank(stream: &Stream, seen: &Seen) -> impl Ord + use<> {
    let packets = seen.packets(stream);
    let side = |side: Option<u32>| u64::from(side.unwrap_or(0));
    let pixels = side(stream.info.width) * side(stream.info.height);
    let size = if stream.info.default { 0 } else { pixels.saturating_mul(packets) };
    (packets > 1, preferred(stream), size, std::cmp::Reverse(stream.info.index))
}

/// What is heard before silence; the first that the container prefers; if it prefers none, the one with most channels,
/// then the highest sample rate; the first.
fn sound_rank(stream: &Stream, seen: &Seen) -> impl Ord + use<> {
    let heard = seen.heard & bit(stream.info.index) != 0;
    let best = !stream.info.default;
    let size = (stream.info.channels.filter(|_| best), stream.info.sample_rate_hz.filter(|_| best));
    (heard, preferred(stream), size, std::cmp::Reverse(stream.info.index))
}

/// The streams that are the channels of one sound, where they are.
fn channels_apart(log: &FfmpegLog, sounds: &[&Stream]) -> Option<u64> {
    let (first, others) = sounds.split_first()?;
    let alike = |stream: &&Stream| {
        let (a, b) = (&first.info, &stream.info);
        let said = (&a.language, &a.title, a.default) == (&b.language, &b.title, b.default);
        said && (&a.codec, a.channels, a.sample_rate_hz) == (&b.codec, b.channels, b.sample_rate_hz)
    };
    let usual = CHANNELS_APART.contains(&log.format.as_str()) && first.info.channels == Some(1);
    let so_many = (2..=MOST_MONO).contains(&sounds.len());
    let one = usual && so_many && others.iter().all(alike) && sounds.iter().all(|stream| !stream.lesser);
    one.then(|| mask_of(sounds.iter()))
}

#[cfg(test)]
mod tests;
