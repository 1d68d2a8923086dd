use std::collections::BTreeMap;

use serde::Deserialize;

use super::survey::{PICTURE_BASE, SOUND_BASE, STREAM_STEP};
use super::*;

#[derive(Deserialize)]
struct Row {
    name: String,
    format: String,
    lines: Vec<String>,
    #[serde(default)]
    choice: TrackChoice,
    seen: Option<Told>,
    video: Option<u16>,
    sound: Option<Vec<u16>>,
    survey: Option<Survey>,
}

#[derive(Deserialize)]
struct Told {
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
        let seen = row.seen.map(|told| Seen {
            packets: told.packets,
            heard: told.heard.into_iter().fold(0, |mask, index| mask | bit(index)),
        });
        match decide(&log, Wanted { choice: row.choice, sound: true }, seen.as_ref()) {
            Decision::Sure(picks) => {
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
fn streams_are_read_whatever_a_file_writes_there() {
    let line = "  Stream #0:12[0x2](a\u{1b}[2Jb): Audio: opus, 48000 Hz, 5.1(side), fltp (default) (comment)";
    let stream = Stream::read(line).unwrap();
    let info = &stream.info;
    assert_eq!((info.index, info.channels, info.sample_rate_hz), (12, Some(6), Some(48_000)));
    assert_eq!((info.language.as_deref(), info.default, stream.lesser), (Some("a[2Jb"), true, true));
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
