//! Surveys all candidate streams: which of them are films, and which are audible.

use std::cmp::Reverse;

use super::{of_kind, preferred, sound_rank};
use crate::ffmpeg::picks::{bit, streams_of};
use crate::ffmpeg::said::{FfmpegLog, PICTURE_BASE, SOUND_BASE, STREAM_STEP, Seen, Stream};
use crate::types::TrackKind;

/// One in this many video packets is logged.
const PACKETS_STEP: u64 = 16;
/// Peaks below this level, in dB of full scale, are silence: decoders do not output exact zeros.
const SILENCE_DB: &str = "-80dB";
/// ffmpeg's arguments for a survey: one output per stream.
pub fn survey_words(pictures: u64, sounds: u64) -> Vec<String> {
    let mut words = Vec::new();
    let mut output = |index: u16, rest: &[&str]| {
        words.extend(["-map".to_owned(), format!("0:{index}")]);
        words.extend(rest.iter().map(|word| (*word).to_owned()));
        words.extend(["-f", "null", "-"].map(str::to_owned));
    };
    for index in streams_of(pictures) {
        let base = PICTURE_BASE + i64::from(index) * STREAM_STEP;
        let filter = format!("setts=pts='if(eq(N,1)+eq(mod(N,{PACKETS_STEP}),0),print({base}+N,32));PTS'");
        output(index, &["-c:v", "copy", "-bsf:v", &filter]);
    }
    for index in streams_of(sounds) {
        // The expression is evaluated for the end of the stream, too, which has no samples.
        let number = SOUND_BASE + i64::from(index) * STREAM_STEP;
        let filter = format!(
            "silenceremove=start_periods=1:start_threshold={SILENCE_DB}:detection=peak,asetpts='if(N+not(S),0,print({number},32));PTS'"
        );
        output(index, &["-af", &filter, "-frames:a", "1"]);
    }
    words
}

/// Whether a survey can stop: the tracks that rank first are not stills, and are audible.
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
