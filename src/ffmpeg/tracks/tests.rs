use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;
use crate::ffmpeg::picks::streams_of;
use crate::ffmpeg::said::{PICTURE_BASE, SOUND_BASE, STREAM_STEP};

#[derive(Deserialize)]
struct Row {
    name: String,
    format: String,
    lines: Vec<String>,
    #[serde(default)]
    choice: TrackChoice,
    seen: Option<Counts>,
    video: Option<u16>,
    sound: Option<Vec<u16>>,
    survey: Option<Survey>,
}

#[derive(Deserialize)]
struct Counts {
    packets: BTreeMap<u16, u64>,
    heard: Vec<u16>,
}

#[derive(Deserialize, PartialEq, Debug)]
struct Survey {
    pictures: Vec<u16>,
    sounds: Vec<u16>,
}

fn described(format: &str, lines: &[String]) -> FfmpegLog {
    let mut log = FfmpegLog::default();
    log.feed(format!("[info] Input #0, {format}, from 'fd:':\n").as_bytes());
    lines.iter().for_each(|line| log.feed(format!("[info] {line}\n").as_bytes()));
    log
}

#[test]
fn trainer_and_server_choose_the_same_tracks() {
    let rows: Vec<Row> = serde_json::from_str(include_str!("../../../tests/tracks/rule.json")).unwrap();
    assert!(rows.len() > 20);
    for row in rows {
        let log = described(&row.format, &row.lines);
        let seen = row.seen.map(|counts| Seen {
            packets: counts.packets,
            heard: counts.heard.into_iter().fold(0, |mask, index| mask | bit(index)),
        });
        match decide(&log, Wanted { choice: row.choice, sound: true }, seen.as_ref()) {
            Decision::Decided(picks) => {
                let video = picture_index(&log, picks.picture);
                let sound: Vec<_> = streams_of(sound_mask(&log, picks.sound)).collect();
                assert_eq!((video, Some(sound)), (row.video, row.sound), "{}", row.name);
            }
            Decision::Survey { pictures, sounds } => {
                let (pictures, sounds) = (streams_of(pictures).collect(), streams_of(sounds).collect());
                assert_eq!(Some(Survey { pictures, sounds }), row.survey, "{}", row.name);
            }
            other @ Decision::NoSuch(..) => panic!("{}: {other:?}", row.name),
        }
    }
}

#[test]
fn no_number_of_the_log_names_a_stream_that_cannot_be() {
    let mut seen = Seen::default();
    for number in [0, PICTURE_BASE - 1, PICTURE_BASE + 64 * STREAM_STEP, i64::MAX, i64::MIN] {
        assert!(!seen.take(number), "{number}");
    }
    assert!(seen.take(PICTURE_BASE + 3 * STREAM_STEP + 16) && seen.take(PICTURE_BASE + 3 * STREAM_STEP + 1));
    assert!(seen.take(SOUND_BASE + 63 * STREAM_STEP));
    assert_eq!((seen.packets[&3], seen.heard), (17, 1 << 63));
}

#[test]
fn a_survey_ends_as_soon_as_the_answer_is_known() {
    let lines = [
        "  Stream #0:0: Video: h264, yuv420p, 64x48",
        "  Stream #0:1: Video: h264, yuv420p, 64x48 (default)",
    ];
    let mut log = described("matroska,webm", &lines.map(str::to_owned));
    assert!(!settled(&log, 0b11, 0));
    log.seen.take(PICTURE_BASE + STREAM_STEP + 1);
    assert!(settled(&log, 0b11, 0), "the preferred one is a film");
    let mut log = described("matroska,webm", &lines.map(|line| line.replace(" (default)", "")));
    log.seen.take(PICTURE_BASE + STREAM_STEP + 1);
    log.seen.take(PICTURE_BASE + 1);
    assert!(!settled(&log, 0b11, 0), "the longer one is not known before the end");
    let lines = [
        "  Stream #0:0: Audio: aac, 48000 Hz, mono, fltp",
        "  Stream #0:1: Audio: aac, 48000 Hz, stereo, fltp",
    ];
    let mut log = described("matroska,webm", &lines.map(str::to_owned));
    log.seen.take(SOUND_BASE);
    assert!(!settled(&log, 0, 0b11), "the better one may still be heard");
    log.seen.take(SOUND_BASE + STREAM_STEP);
    assert!(settled(&log, 0, 0b11));
}
