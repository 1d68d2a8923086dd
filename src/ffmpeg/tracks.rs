//! Chooses which tracks of a file are read: those that its container prefers, otherwise the best ones; but no
//! still picture before a film, and no silence before sound. The rule is in `docs/media.md`.
//!
//! ffmpeg's description of the streams mostly decides. If it leaves a choice, a survey of the file decides:
//! it counts packets of pictures without decoding them, and decodes sound until some is audible.

mod survey;

pub use self::survey::{settled, survey_words};

use super::picks::{Heard, Picks, Source, bit};
use super::said::{FfmpegLog, Seen, Stream, cleaned};
use crate::types::{TrackChoice, TrackInfo, TrackKind};

/// Most mono tracks that are mixed.
const MOST_MONO: usize = 16;
/// Containers of broadcasting and of cameras, in which one channel per track is common.
const CHANNELS_APART: [&str; 3] = ["mxf", "gxf", "mov,mp4,m4a,3gp,3g2,mj2"];

/// The file tracks, with a mark on those that were read.
pub fn list(picks: Picks, log: &FfmpegLog, frames: bool, samples: bool) -> Vec<TrackInfo> {
    let (picture, sound) = (picture_index(log, picks.picture), sound_mask(log, picks.sound));
    let used = |stream: &Stream| match stream.info.kind {
        TrackKind::Video => frames && picture == Some(stream.info.index),
        TrackKind::Audio => samples && sound & bit(stream.info.index) != 0,
        _ => false,
    };
    let mut tracks: Vec<_> =
        log.streams.iter().map(|stream| TrackInfo { used: used(stream), ..stream.info.clone() }).collect();
    tracks.sort_by_key(|track| track.index);
    tracks
}

/// A readable description of the track that was to be read but has no decoder.
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

fn mask_of<'a>(streams: impl Iterator<Item = &'a &'a Stream>) -> u64 {
    streams.fold(0, |mask, stream| mask | bit(stream.info.index))
}

/// Requirements for choosing tracks.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub choice: TrackChoice,
    /// Whether sound is wanted, too.
    pub sound: bool,
}

/// Result of choosing tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Decided(Picks),
    /// These streams, one bit each, must be surveyed first.
    Survey {
        pictures: u64,
        sounds: u64,
    },
    /// The chosen track does not exist.
    NoSuch(TrackKind, u16),
}

/// Chooses tracks by what is known so far.
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
        let mask = mask_of(streams.iter().filter(|stream| can_be_surveyed(stream)));
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
    Decision::Decided(Picks {
        picture: picture.map_or(Source::Film, Source::Stream),
        sound: mono.map(Heard::Mean).or(sound.map(Heard::Stream)).unwrap_or_default(),
    })
}

/// Like [`decide`], but never requests a survey.
pub fn guess(log: &FfmpegLog, wanted: Wanted) -> Picks {
    match decide(log, wanted, Some(&log.seen)) {
        Decision::Decided(picks) => picks,
        _ => Picks::default(),
    }
}

fn of_kind(log: &FfmpegLog, kind: TrackKind) -> impl Iterator<Item = &Stream> {
    log.streams.iter().filter(move |stream| stream.info.kind == kind)
}

/// How much the container's description favours a track.
fn preferred(stream: &Stream) -> (bool, bool, bool) {
    (can_be_surveyed(stream), !stream.lesser, stream.info.default)
}

/// Whether the description is complete. It is not if a stream had too few packets at the beginning: ffmpeg cannot
/// copy it, and it is hardly a film.
fn can_be_surveyed(stream: &Stream) -> bool {
    stream.has_codec() && (stream.info.kind != TrackKind::Video || stream.is_described())
}

/// Films rank before stills. Among them, the first track that the container prefers ranks highest; if it
/// prefers none, the one with the most pixels over all its frames; then the first one.
fn picture_rank(stream: &Stream, seen: &Seen) -> impl Ord + use<> {
    let packets = seen.packets(stream);
    let side = |side: Option<u32>| u64::from(side.unwrap_or(0));
    let pixels = side(stream.info.width) * side(stream.info.height);
    let size = if stream.info.default { 0 } else { pixels.saturating_mul(packets) };
    (packets > 1, preferred(stream), size, std::cmp::Reverse(stream.info.index))
}

/// Audible tracks rank before silent ones. Among them, the first track that the container prefers ranks
/// highest; if it prefers none, the one with the most channels, then the highest sample rate; then the first
/// one.
fn sound_rank(stream: &Stream, seen: &Seen) -> impl Ord + use<> {
    let heard = seen.heard & bit(stream.info.index) != 0;
    let best = !stream.info.default;
    let size = (stream.info.channels.filter(|_| best), stream.info.sample_rate_hz.filter(|_| best));
    (heard, preferred(stream), size, std::cmp::Reverse(stream.info.index))
}

/// The streams that are the channels of one sound, one bit each; `None` if they are not.
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
