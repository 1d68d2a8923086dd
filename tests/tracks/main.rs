//! Which tracks of a file are read, that an asset lists them, and that they can be chosen.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod http;
#[path = "../common/tone.rs"]
mod tone;

use std::path::{Path, PathBuf};

use common::media;
use tone::share;
use triptych::media::{Decoder, DecoderConfig, Lane, Limits, MediaError};
use triptych::preprocess::spec::PictureSpec;
use triptych::preprocess::{AssetSummary, ClipReader, ClipSpec, thumbnail_of};
use triptych::types::{AssetKind, TimeSpan, TrackChoice, TrackKind};

const RATE: usize = 48_000;
/// A tenth of a second each.
const SPEC: ClipSpec =
    ClipSpec::mmv(10.0, 1, PictureSpec::mmv(16, 16, true, false), (RATE as u32, RATE / 10), 0.1);

fn decoder() -> Decoder {
    let limits = Limits { wall_clock_secs: 60, ..Limits::default() };
    let ffmpeg = common::native_dir().join("ffmpeg/ffmpeg");
    let worker_exe = PathBuf::from(env!("CARGO_BIN_EXE_triptych"));
    Decoder::new(DecoderConfig { worker_exe, ffmpeg, limits }).on(Lane::Interactive)
}

/// What was read of a file.
#[derive(Debug)]
struct Read {
    /// Mean colour of the last frame.
    colour: Option<[u8; 3]>,
    frames: usize,
    pcm: Vec<f32>,
    summary: AssetSummary,
}

impl Read {
    fn used(&self) -> Vec<u16> {
        self.summary.tracks.iter().filter(|track| track.used).map(|track| track.index).collect()
    }
    fn hears(&self, hz: f64) -> bool {
        share(&self.pcm, RATE, hz) > 0.7
    }
}

async fn read(path: &Path, tracks: TrackChoice) -> Result<Read, MediaError> {
    read_span(path, tracks, None).await
}

async fn read_span(path: &Path, tracks: TrackChoice, span: Option<TimeSpan>) -> Result<Read, MediaError> {
    let mut reader = ClipReader::open_tracks(&decoder(), path, &SPEC, span, tracks).await?;
    let (mut colour, mut pcm, mut frames) = (None, Vec::new(), 0);
    while let Some(clip) = reader.next().await? {
        if let Some(rgb) = clip.frames {
            let mean = |of: usize| {
                let all: Vec<_> = rgb.iter().skip(of).step_by(3).map(|v| u32::from(*v)).collect();
                (all.iter().sum::<u32>() / all.len() as u32) as u8
            };
            colour = Some([mean(0), mean(1), mean(2)]);
            frames += clip.windows as usize;
        }
        if let Some(samples) = clip.pcm {
            (0..clip.windows).for_each(|_| pcm.extend_from_slice(&samples));
        }
    }
    Ok(Read { colour, frames, pcm, summary: reader.summary() })
}

async fn open(path: &Path) -> Read {
    read(path, TrackChoice::default()).await.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn audio(index: u16) -> TrackChoice {
    TrackChoice { audio: Some(index), video: None }
}

fn video(index: u16) -> TrackChoice {
    TrackChoice { video: Some(index), audio: None }
}

const RED: &str = "color=red:s=64x48:r=10:d=2";
const BLUE: &str = "color=blue:s=320x240:r=10:d=2";
/// Twenty frames' worth of time in one frame, as large as a poster.
const POSTER: &str = "color=lime:s=640x480:r=10:d=0.1";
const A: &str = "sine=400:r=48000:d=2";
const B: &str = "sine=600:r=48000:d=2";
const QUIET: &str = "anullsrc=r=48000:cl=mono:d=2";

/// A file of these generated inputs, one track each, in their order.
fn file(name: &str, inputs: &[&str], more: &str) -> PathBuf {
    let mut args: Vec<&str> = inputs.iter().flat_map(|input| ["-f", "lavfi", "-i", *input]).collect();
    let numbers: Vec<String> = (0..inputs.len()).map(|n| n.to_string()).collect();
    args.extend(numbers.iter().flat_map(|n| ["-map", n.as_str()]));
    args.extend(more.split_whitespace());
    media(name, &args)
}

const MPEG4: &str = "-c:v mpeg4 -q:v 2";

#[tokio::test]
async fn a_film_comes_before_stills_and_the_preferred_or_larger_one_before_others() {
    for (name, extension) in [("mkv", "mkv"), ("mp4", "mp4"), ("mov", "mov"), ("ts", "ts"), ("avi", "avi")] {
        let sound = if extension == "avi" { "-c:a pcm_s16le" } else { "-c:a aac" };
        let still =
            file(&format!("poster-first.{extension}"), &[POSTER, RED, A], &format!("{MPEG4} {sound}"));
        let got = open(&still).await;
        assert!(got.colour.unwrap()[0] > 200 && got.frames >= 19, "{name}: {got:?}");
        assert_eq!((got.used(), got.summary.width), (vec![1, 2], 64), "{name}");
        let two = file(
            &format!("two-films.{extension}"),
            &[RED, BLUE, A],
            &format!("{MPEG4} {sound} -disposition 0"),
        );
        // A container whose first track is preferred is believed.
        let first = ["mp4", "mov"].contains(&extension);
        let got = open(&two).await;
        assert_eq!(got.used(), if first { [0, 2] } else { [1, 2] }, "{name}: {:?}", got.summary.tracks);
        assert!(got.colour.unwrap()[if first { 0 } else { 2 }] > 200, "{name}: {:?}", got.colour);
    }
    let preferred = "-c:v mpeg4 -disposition:v:0 0 -disposition:v:1 default";
    let small = file("preferred-small.mkv", &[BLUE, RED], preferred);
    assert_eq!(open(&small).await.used(), [1]);
    let long = "color=red:s=64x48:r=10:d=60";
    let still = file(
        "poster-preferred.mkv",
        &[POSTER, long],
        "-c:v mpeg4 -disposition:v:0 default -disposition:v:1 0",
    );
    let got = open(&still).await;
    assert_eq!((got.used(), got.summary.duration_secs.round()), (vec![1], 60.0));
}

#[tokio::test]
async fn covers_are_no_films() {
    let cover = file(
        "cover.m4a",
        &[POSTER, A],
        "-c:v mjpeg -pix_fmt yuvj420p -c:a aac -disposition:v:0 attached_pic -f mp4",
    );
    let got = open(&cover).await;
    assert_eq!((got.summary.kind, got.frames, got.used()), (AssetKind::Audio, 0, vec![0]));
    let kinds: Vec<_> = got.summary.tracks.iter().map(|track| track.kind).collect();
    assert_eq!(kinds, [TrackKind::Audio, TrackKind::Cover]);
    let error = read(&cover, video(1)).await.unwrap_err();
    assert_eq!(error.code(), "unknown_track");
    let film = file(
        "cover.mp4",
        &[RED, A, POSTER],
        "-c:v:0 mpeg4 -c:v:1 mjpeg -pix_fmt:v:1 yuvj420p -c:a aac -disposition:v:1 attached_pic",
    );
    assert_eq!(open(&film).await.used(), [0, 1]);
}

#[tokio::test]
async fn sound_comes_before_silence_and_the_preferred_or_larger_before_others() {
    for (extension, codec) in [
        ("mkv", "aac"),
        ("mp4", "aac"),
        ("ts", "mp2"),
        ("mka", "flac"),
        ("avi", "pcm_s16le"),
        ("wmv", "wmav2"),
    ] {
        let codec = format!("-c:a {codec} -disposition:a default");
        let stereo = "anullsrc=r=48000:cl=stereo:d=2";
        let got = open(&file(&format!("quiet-first.{extension}"), &[stereo, B], &codec)).await;
        assert!(got.hears(600.0), "{extension}: {} {:?}", share(&got.pcm, RATE, 600.0), got.summary.tracks);
        assert_eq!(got.used(), [1], "{extension}");
    }
    let opus = "-c:a libopus";
    let many = file("many.mkv", &[A, B], &format!("{opus} -disposition:a:1 default"));
    assert!(open(&many).await.hears(600.0));
    let comment =
        file("comment.mkv", &[A, B], &format!("{opus} -disposition:a:0 comment -disposition:a:1 0"));
    assert!(open(&comment).await.hears(600.0));
    let blind = file(
        "blind.mkv",
        &[A, B],
        &format!("{opus} -disposition:a:0 default+visual_impaired -disposition:a:1 0"),
    );
    assert!(open(&blind).await.hears(600.0));
    let wide = "sine=600:r=48000:d=2,pan=stereo|c0=c0|c1=c0";
    let larger = file("larger.mkv", &[A, wide], "-c:a libopus -disposition:a 0");
    let got = open(&larger).await;
    assert!(got.hears(600.0));
    assert_eq!(got.summary.tracks[1].channels, Some(2));
    // Where no track is heard the first is read.
    let nothing = file("nothing.mkv", &[QUIET, QUIET], "-c:a flac");
    assert_eq!(open(&nothing).await.used(), [0]);
}

#[tokio::test]
async fn tracks_are_listed_with_what_their_container_says() {
    let told = "-c:v mpeg4 -c:a flac -metadata:s:a:0 language=ger -metadata:s:a:0 title=Ton -metadata:s:a:1 language=eng -metadata:s:a:1 title=a_b -disposition:a:0 0 -disposition:a:1 default";
    let got = open(&file("listed.mkv", &[RED, A, B], told)).await;
    let tracks = serde_json::to_value(&got.summary.tracks).unwrap();
    let wanted = serde_json::json!([
        {"index": 0, "kind": "video", "codec": "mpeg4", "language": null, "title": null, "width": 64, "height": 48,
         "default": false, "used": true},
        {"index": 1, "kind": "audio", "codec": "flac", "language": "ger", "title": "Ton", "channels": 1,
         "sample_rate_hz": 48000, "default": false, "used": false},
        {"index": 2, "kind": "audio", "codec": "flac", "language": "eng", "title": "a_b", "channels": 1,
         "sample_rate_hz": 48000, "default": true, "used": true},
    ]);
    assert_eq!(tracks, wanted);
}

#[tokio::test]
async fn what_is_chosen_is_read_in_spans_and_thumbnails_too() {
    let path = file("chosen.mkv", &[RED, BLUE, A, B, QUIET], &format!("{MPEG4} -c:a flac -disposition 0"));
    for (choice, used) in [
        (TrackChoice::default(), vec![1, 2]),
        (audio(3), vec![1, 3]),
        (audio(4), vec![1, 4]),
        (video(0), vec![0, 2]),
        (TrackChoice { video: Some(0), audio: Some(3) }, vec![0, 3]),
    ] {
        let got = read(&path, choice).await.unwrap();
        assert_eq!(got.used(), used, "{choice:?}");
        assert_eq!(got.colour.unwrap()[0] > 200, used[0] == 0);
        assert_eq!(got.hears(600.0), used[1] == 3);
        let span = Some(TimeSpan::new(0.5, 1.5).unwrap());
        let part = read_span(&path, choice, span).await.unwrap();
        assert_eq!((part.used(), part.frames), (used.clone(), 10), "{choice:?}");
        assert!(part.hears(600.0) == (used[1] == 3), "{choice:?}");
        let jpeg = thumbnail_of(&decoder(), &path, 1.0, 64, choice).await.unwrap().jpeg.unwrap();
        let picture = image::load_from_memory(&jpeg).unwrap().to_rgb8();
        assert_eq!(picture.get_pixel(20, 20)[0] > 200, used[0] == 0, "{choice:?}");
    }
    for choice in [audio(0), audio(9), video(2), video(5)] {
        let error = read(&path, choice).await.unwrap_err();
        assert_eq!(error.code(), "unknown_track", "{choice:?}");
    }
    let said = read(&path, audio(9)).await.unwrap_err().to_string();
    assert_eq!(said, "the file has no audio track 9: it has 2, 3, 4");
    let picture = common::picture("still.png");
    assert_eq!(read(&picture, video(0)).await.unwrap_err().code(), "unknown_track");
    let silent = file("silent.mp4", &[RED], MPEG4);
    assert_eq!(read(&silent, audio(1)).await.unwrap_err().code(), "unknown_track");
}

/// Mono tracks next to one track of as many channels: the same mean.
#[tokio::test]
async fn channels_in_tracks_of_their_own_are_mixed_as_channels_are() {
    let tone = |n: usize| format!("sine={}:r=48000:d=2,volume={}", 300 + 200 * n, 0.9 - 0.2 * n as f64);
    let film = "color=red:s=720x576:r=25:d=2";
    for (extension, count, codecs) in [
        ("mxf", 2, "-c:v mpeg2video -c:a pcm_s16le"),
        ("mxf", 4, "-c:v mpeg2video -c:a pcm_s24le"),
        ("mov", 2, "-c:v mpeg4 -c:a pcm_s16le"),
        ("mov", 8, "-c:v mpeg4 -c:a pcm_s16le"),
    ] {
        let tones: Vec<_> = (0..count).map(tone).collect();
        let inputs: Vec<_> = std::iter::once(film).chain(tones.iter().map(String::as_str)).collect();
        let apart =
            file(&format!("apart-{count}.{extension}"), &inputs, &format!("{codecs} -disposition:a default"));
        let got = open(&apart).await;
        assert_eq!(got.used().len(), 1 + count, "{extension}: {:?}", got.summary.tracks);
        let merged: String = (0..count).map(|n| format!("[{n}]")).collect();
        let graph = format!("{merged}amerge=inputs={count}");
        let mut args: Vec<&str> =
            tones.iter().flat_map(|tone| ["-f", "lavfi", "-i", tone.as_str()]).collect();
        let codec = if codecs.contains("s24") { "pcm_s24le" } else { "pcm_s16le" };
        args.extend(["-filter_complex", graph.as_str(), "-c:a", codec]);
        let together = open(&media(&format!("together-{count}.wav"), &args)).await;
        let length = together.pcm.len().min(got.pcm.len());
        assert!(length > RATE * 19 / 10, "{extension} {count}: {length}");
        let differ = |(a, b): (&f32, &f32)| (a - b).abs();
        let most = together.pcm[..length].iter().zip(&got.pcm).map(differ).fold(0.0, f32::max);
        assert!(most < 1e-6, "{extension} {count}: {most}");
        // One of them alone, where that is asked for; a part where that is.
        assert!(read(&apart, audio(2)).await.unwrap().hears(500.0), "{extension} {count}");
        let span = Some(TimeSpan::new(0.5, 1.5).unwrap());
        let part = read_span(&apart, TrackChoice::default(), span).await.unwrap();
        let differs = part.pcm.iter().zip(&together.pcm[RATE / 2..]).map(differ).fold(0.0, f32::max);
        assert!(differs < 1e-6, "{extension} {count}: {differs}");
    }
    // Languages of their own are sounds of their own.
    let told = "-c:v mpeg4 -c:a pcm_s16le -metadata:s:a:0 language=ger -metadata:s:a:1 language=eng -disposition:a default";
    let got = open(&file("languages.mov", &[RED, A, B], told)).await;
    assert!(got.hears(400.0) && got.used() == [0, 1], "{:?}", got.summary.tracks);
}

#[tokio::test]
async fn codecs_without_a_decoder_are_named() {
    let plain =
        [("avi", "pcm_s16le", &b"XVID"[..], "QZQZ"), ("mkv", "flac", b"V_MPEG4/ISO/ASP", "V_QZQZQ/ISO/ASP")];
    let dir = tempfile::tempdir().unwrap();
    for (extension, codec, from, to) in plain {
        let tag = if extension == "avi" { "-vtag XVID" } else { "" };
        let path = file(&format!("plain.{extension}"), &[RED, A], &format!("-c:v mpeg4 {tag} -c:a {codec}"));
        let bytes = std::fs::read(path).unwrap();
        let mut odd = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            if bytes[at..].starts_with(from) {
                odd.extend_from_slice(to.as_bytes());
                at += from.len();
            } else {
                odd.push(bytes[at]);
                at += 1;
            }
        }
        let path = dir.path().join(format!("odd.{extension}"));
        std::fs::write(&path, odd).unwrap();
        let got = open(&path).await;
        let said = got.summary.partial.clone().unwrap();
        let wanted = format!("could not decode the picture (no decoder for track 0, unknown codec \"{to}\")");
        assert_eq!(said, wanted);
        assert!(got.hears(400.0) && got.used() == [1], "{extension}: {:?}", got.summary.tracks);
    }
    let path = file("alone.avi", &[RED], "-c:v mpeg4 -vtag XVID");
    let bytes = std::fs::read(path).unwrap();
    let text: Vec<u8> = bytes.windows(4).map(|w| w[0]).collect();
    assert!(text.len() > 100);
    let mut odd = bytes.clone();
    let places: Vec<_> = (0..bytes.len() - 4).filter(|at| &bytes[*at..*at + 4] == b"XVID").collect();
    places.iter().for_each(|at| odd[*at..*at + 4].copy_from_slice(b"QZQZ"));
    let path = dir.path().join("alone.avi");
    std::fs::write(&path, odd).unwrap();
    let error = read(&path, TrackChoice::default()).await.unwrap_err();
    assert_eq!(error.code(), "unsupported_media");
    assert!(error.to_string().contains("no decoder for track 0, unknown codec \"QZQZ\""), "{error}");
}
