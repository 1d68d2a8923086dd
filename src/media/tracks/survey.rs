//! A look at all candidates: which of them are films, and which are heard.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{FfmpegLog, MAX_STREAMS, Stream, TrackKind, bit, of_kind, preferred, sound_rank, streams_of};

/// One in this many video packets is logged.
const PACKETS_STEP: u64 = 16;
/// Peaks below this are silence, dB of full scale: codecs leave no zeros.
const SILENCE_DB: &str = "-80dB";
/// What is added in the log to the numbers that a survey prints, and how far apart streams are.
pub(super) const PICTURE_BASE: i64 = 6_000_000_000_000_000;
pub(super) const SOUND_BASE: i64 = 7_000_000_000_000_000;
pub(super) const STREAM_STEP: i64 = 1_000_000_000_000;

/// What a survey has found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Packets of each stream of pictures, one in so many told.
    pub(super) packets: BTreeMap<u16, u64>,
    /// Streams in which something can be heard.
    pub(super) heard: u64,
}

impl Seen {
    /// Takes a number of the log, if it is of a survey.
    pub fn take(&mut self, number: i64) -> bool {
        let (base, picture) = if number < SOUND_BASE { (PICTURE_BASE, true) } else { (SOUND_BASE, false) };
        let Some(offset) = number.checked_sub(base).filter(|offset| *offset >= 0) else { return false };
        let Some(index) = u16::try_from(offset / STREAM_STEP).ok().filter(|index| *index < MAX_STREAMS)
        else {
            return false;
        };
        if picture {
            let packets = (offset % STREAM_STEP).unsigned_abs() + 1;
            let most = self.packets.entry(index).or_default();
            *most = packets.max(*most);
        } else {
            self.heard |= bit(index);
        }
        true
    }

    pub(super) fn packets(&self, stream: &Stream) -> u64 {
        self.packets.get(&stream.info.index).copied().unwrap_or(0)
    }
}

/// ffmpeg's outputs in a survey, one for each stream.
pub fn survey_words(pictures: u64, sounds: u64) -> Vec<String> {
    let mut words = Vec::new();
    let mut output = |index: u16, rest: &[&str]| {
        words.extend(["-map".to_owned(), format!("0:{index}")]);
        words.extend(rest.iter().map(|word| (*word).to_owned()));
        words.extend(["-f", "null", "-"].map(str::to_owned));
    };
    for index in streams_of(pictures) {
        let base = PICTURE_BASE + i64::from(index) * STREAM_STEP;
        let told = format!("setts=pts='if(eq(N,1)+eq(mod(N,{PACKETS_STEP}),0),print({base}+N,32));PTS'");
        output(index, &["-c:v", "copy", "-bsf:v", &told]);
    }
    for index in streams_of(sounds) {
        // The expression is evaluated once more for the end of the stream, which has no samples.
        let number = SOUND_BASE + i64::from(index) * STREAM_STEP;
        let told = format!(
            "silenceremove=start_periods=1:start_threshold={SILENCE_DB}:detection=peak,asetpts='if(N+not(S),0,print({number},32));PTS'"
        );
        output(index, &["-af", &told, "-frames:a", "1"]);
    }
    words
}

/// Whether a survey need not go on: the tracks that come first are no stills, and are heard.
pub fn settled(log: &FfmpegLog, pictures: u64, sounds: u64) -> bool {
    let of = |kind, mask: u64| of_kind(log, kind).filter(move |stream| mask & bit(stream.info.index) != 0);
    let by_index = |stream: &&Stream| (preferred(stream), Reverse(stream.info.index));
    let first = of(TrackKind::Video, pictures).max_by_key(by_index);
    let film = first.is_none_or(|first| {
        let rivals = of(TrackKind::Video, pictures).filter(|other| preferred(other) == preferred(first));
        (first.info.default || rivals.count() == 1) && log.seen.packets(first) > 1
    });
    let first = of(TrackKind::Audio, sounds).max_by_key(|stream| sound_rank(stream, &Seen::default()));
    film && first.is_none_or(|first| log.seen.heard & bit(first.info.index) != 0)
}
