//! Frames are those that a bundle's sampling names, counted in the film itself: each shows its number.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "clock/film.rs"]
mod film;

use std::path::{Path, PathBuf};
use std::process::Command;

use triptych::media::{Decoder, DecoderConfig, Limits, MediaError};
use triptych::preprocess::spec::{
    Edge, PictureSpec, Resample, ResizeRule, Sampling, ShortSound, Size, SoundSpec, Take,
};
use triptych::preprocess::{AssetSummary, ClipReader, ClipSpec, ClipTensors};
use triptych::types::TimeSpan;

use film::{number_on, write_film};

const SIDE: usize = 48;
const RATE: u32 = 48_000;

/// Makes films, and reads them.
struct Bench {
    ffmpeg: PathBuf,
    folder: tempfile::TempDir,
    decoder: Decoder,
}

impl Bench {
    fn new() -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let native = std::env::var_os("TRIPTYCH_NATIVE_DIR").map(PathBuf::from);
        let ffmpeg = native.unwrap_or_else(|| root.join(".triptych/native")).join("ffmpeg/ffmpeg");
        if !ffmpeg.is_file() {
            eprintln!("SKIPPED: no ffmpeg at {}; run `make native`", ffmpeg.display());
            return None;
        }
        let worker_exe = PathBuf::from(env!("CARGO_BIN_EXE_triptych"));
        let limits = Limits { wall_clock_secs: 120, ..Limits::default() };
        let decoder = Decoder::new(DecoderConfig { worker_exe, ffmpeg: ffmpeg.clone(), limits });
        Some(Self { ffmpeg, folder: tempfile::tempdir().unwrap(), decoder })
    }

    /// A film of so many frames at this rate, made with these words of ffmpeg's after the input.
    fn film(&self, name: &str, rate: (u32, u32), frames: u32, words: &str) -> PathBuf {
        let (raw, path) = (self.folder.path().join("raw.y4m"), self.folder.path().join(name));
        write_film(&raw, rate, frames);
        let mut command = Command::new(&self.ffmpeg);
        command.args(["-nostdin", "-v", "error", "-y", "-i"]).arg(&raw);
        let done = command.args(words.split_whitespace()).arg(&path).output().unwrap();
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        path
    }

    async fn read(
        &self,
        path: &Path,
        spec: &ClipSpec,
        span: Option<TimeSpan>,
    ) -> Result<(Vec<ClipTensors>, AssetSummary), MediaError> {
        let mut reader = ClipReader::open(&self.decoder, path, spec, span).await?;
        let mut clips = Vec::new();
        while let Some(clip) = reader.next().await? {
            clips.push(clip);
        }
        Ok((clips, reader.summary()))
    }
}

fn spec(sampling: Sampling, stride_secs: f64) -> ClipSpec {
    let size = Size { height: SIDE, width: SIDE };
    let picture = PictureSpec {
        resize: ResizeRule::ShorterSide { size: SIDE },
        resample: Resample::Bilinear,
        crop: Some(size),
        shown: true,
        unbarred: false,
    };
    let short = ShortSound::AsIs { multiple: 1920, edge: Edge::Reflect };
    let samples = (sampling_secs(sampling) * f64::from(RATE)).round() as usize;
    let sound = SoundSpec { sample_rate_hz: RATE, samples, stride_secs, short, loudness: None };
    ClipSpec {
        sampling,
        stride_secs,
        video: picture,
        image: picture,
        sound,
        sound_apart: false,
        without: None,
    }
}

fn sampling_secs(sampling: Sampling) -> f64 {
    match sampling {
        Sampling::Rate { fps, frames, .. } => frames as f64 / fps,
        Sampling::Spread { window_secs, .. } => window_secs,
    }
}

fn numbers(clip: &ClipTensors) -> Vec<Option<u32>> {
    let frames = clip.frames.as_ref().unwrap().chunks_exact(SIDE * SIDE * 3);
    frames.map(|frame| number_on(frame, SIDE, SIDE)).collect()
}

/// The rule of `docs/bundle.md`: first period and length of each window of a film of `len` periods.
fn windows(len: u64, rate: (u64, u64), window_secs: f64, stride_secs: f64) -> Vec<(u64, u64)> {
    let periods = |secs: f64, times: u64| {
        let micros = (secs * 1e6).round() as u64 * times;
        (2 * micros * rate.0 + 1_000_000 * rate.1) / (2 * 1_000_000 * rate.1)
    };
    let window = periods(window_secs, 1).max(1);
    let mut all = Vec::new();
    for k in 0.. {
        let start = periods(stride_secs, k);
        let covered = all.last().map_or(0, |(start, len)| start + len);
        if start + window <= len {
            all.push((start, window));
        } else {
            if start < len && covered < len {
                all.push((start, len - start));
            }
            break;
        }
    }
    all
}

fn picks(frames: u64, (start, len): (u64, u64)) -> Vec<u64> {
    let pick = |i: u64| if frames == 1 { 0 } else { i * (len - 1) / (frames - 1) };
    (0..frames).map(|i| start + pick(i)).collect()
}

/// What the clips of a film show, and what they should: the frames of these windows.
fn compare(clips: &[ClipTensors], wanted: &[(u64, u64)], frames: usize) -> Result<(), String> {
    let seen: Vec<_> = clips.iter().flat_map(numbers).collect();
    let right = wanted.iter().flat_map(|window| picks(frames as u64, *window));
    let right: Vec<_> = right.map(|number| Some(number as u32)).collect();
    if seen == right { Ok(()) } else { Err(format!("\n  {seen:?}\n  {right:?}")) }
}

const RATES: [(u32, u32); 5] = [(24_000, 1001), (25, 1), (30_000, 1001), (30, 1), (60, 1)];
const FORMS: [(&str, &str); 5] = [
    ("mp4", "-c:v mpeg4 -q:v 2 -g 12"),
    ("mkv", "-c:v libx264 -preset ultrafast -g 30 -bf 2"),
    ("avi", "-c:v mjpeg -q:v 3"),
    ("mov", "-c:v libx264 -preset veryfast -g 250 -bf 3"),
    ("ts", "-c:v mpeg2video -q:v 2 -g 10 -bf 2 -muxpreload 0 -muxdelay 0"),
];

fn spread(frames: usize, window_secs: f64) -> Sampling {
    Sampling::Spread { frames, window_secs }
}

#[tokio::test]
async fn frames_are_spread_by_their_own_numbers() {
    let Some(bench) = Bench::new() else { return };
    let lengths = [1, 2, 3, 7, 50, 74, 75, 76, 150, 190];
    let plans = [(4, 2.5, 2.5), (16, 2.5, 2.5), (16, 2.0, 0.7), (5, 1.0, 2.2), (1, 1.5, 1.5), (3, 0.02, 0.5)];
    let mut wrong = Vec::new();
    for (at, rate) in RATES.into_iter().enumerate() {
        for (i, len) in lengths.into_iter().enumerate() {
            let (extension, words) = FORMS[(at + i) % FORMS.len()];
            // A transport stream of one picture has no length.
            if extension == "ts" && len < 3 {
                continue;
            }
            let name = format!("{}-{}-{len}.{extension}", rate.0, rate.1);
            let path = bench.film(&name, rate, len, words);
            for (k, (frames, window_secs, stride_secs)) in plans.into_iter().enumerate() {
                if (i + k) % 2 == 1 && len > 10 {
                    continue;
                }
                let spec = spec(spread(frames, window_secs), stride_secs);
                let what = format!("{name} {frames} {window_secs} {stride_secs}");
                let (clips, summary) = bench.read(&path, &spec, None).await.expect(&what);
                let of = (u64::from(rate.0), u64::from(rate.1));
                let wanted = windows(u64::from(len), of, window_secs, stride_secs);
                wrong.extend(compare(&clips, &wanted, frames).err().map(|error| format!("{what}{error}")));
                let secs = |period: u64| period as f64 * of.1 as f64 / of.0 as f64;
                for (clip, (start, len)) in clips.iter().zip(wanted) {
                    assert!((clip.span.start_secs - secs(start)).abs() < 1e-6, "{what}");
                    assert!((clip.span.end_secs - secs(start + len)).abs() < 1e-6, "{what}");
                }
                assert_eq!(summary.partial, None, "{what}");
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

/// What a file says of its length is only a hint.
#[tokio::test]
async fn the_last_window_is_exact_whatever_the_file_declares() {
    let Some(bench) = Bench::new() else { return };
    let wanted = windows(110, (25, 1), 2.0, 2.0);
    let film = "-c:v libx264 -preset ultrafast -g 30 -bf 2";
    for (name, words) in [
        ("long-sound.mp4", format!("-f lavfi -t 7 -i sine {film} -c:a aac")),
        ("short-sound.mp4", format!("-f lavfi -t 1 -i sine {film} -c:a aac")),
        // Neither says how long it is.
        ("live.mkv", format!("{film} -f matroska -live 1")),
        ("bare.h264", format!("{film} -f h264")),
    ] {
        let path = bench.film(name, (25, 1), 110, &words);
        let (clips, summary) = bench.read(&path, &spec(spread(16, 2.0), 2.0), None).await.expect(name);
        let clips: Vec<_> = clips.into_iter().filter(|clip| clip.frames.is_some()).collect();
        compare(&clips, &wanted, 16).unwrap_or_else(|error| panic!("{name}{error}"));
        assert_eq!(summary.partial, None, "{name}");
    }
}

#[tokio::test]
async fn a_span_has_the_frames_of_the_same_clip() {
    let Some(bench) = Bench::new() else { return };
    let mut compared = 0;
    for (at, rate) in RATES.into_iter().enumerate() {
        let (extension, words) = FORMS[at];
        let words = format!("-f lavfi -t 5 -i sine=frequency=300 {words} -c:a mp2");
        let path = bench.film(&format!("span-{}.{extension}", rate.0), rate, 4 * rate.0 / rate.1, &words);
        for (sampling, stride_secs) in [
            (spread(6, 1.5), 1.5),
            (spread(16, 1.3), 0.9),
            (Sampling::Rate { fps: 2.0, frames: 3, take: Take::OnScreen }, 1.0),
        ] {
            let spec = spec(sampling, stride_secs);
            let (whole, _) = bench.read(&path, &spec, None).await.unwrap();
            for clip in whole.iter().filter(|clip| clip.frames.is_some()) {
                let (alone, _) = bench.read(&path, &spec, Some(clip.span)).await.unwrap();
                let what = format!("{rate:?} {sampling:?} {:?}", clip.span);
                assert_eq!(alone.len(), 1, "{what}");
                assert_eq!(numbers(&alone[0]), numbers(clip), "{what}");
                assert!(alone[0].same_frames(clip.frames.as_ref(), clip.patch_grid), "{what}");
                assert_eq!(alone[0].pcm_samples, clip.pcm_samples, "{what}");
                assert_eq!(alone[0].span.start_secs, clip.span.start_secs, "{what}");
                compared += 1;
            }
        }
    }
    assert!(compared > 50, "{compared}");
}

/// Every fifth frame is missing: about 20 frames a second, where 25 would fit. The container says how many
/// exactly, and a frame may come a quarter of that period late.
#[tokio::test]
async fn of_uneven_frames_the_one_on_the_screen_counts() {
    let Some(bench) = Bench::new() else { return };
    let words =
        "-vf select=not(eq(mod(n\\,5)\\,3)) -fps_mode passthrough -c:v libx264 -preset ultrafast -bf 2";
    for name in ["uneven.mp4", "uneven.mkv"] {
        let path = bench.film(name, (25, 1), 200, words);
        let said = Command::new(&bench.ffmpeg).arg("-i").arg(&path).output().unwrap().stderr;
        let said = String::from_utf8(said).unwrap();
        let stated = said.split(" fps").next().and_then(|text| text.rsplit(", ").next()).unwrap();
        let hundredths = (stated.parse::<f64>().unwrap() * 100.0).round() as u64;
        let rate = (hundredths, 100);
        // The last frame lasts until 8 s.
        let len = (8.0 * hundredths as f64 / 100.0 - 0.25).ceil() as u64;
        let (clips, _) = bench.read(&path, &spec(spread(7, 3.0), 3.0), None).await.unwrap();
        let on_screen = |period: u64, late: f64| {
            let at = (period as f64 + late) * 100.0 / hundredths as f64;
            (0..200_u32).rev().find(|number| number % 5 != 3 && f64::from(*number) / 25.0 <= at).unwrap()
        };
        let seen: Vec<_> = clips.iter().flat_map(numbers).collect();
        let picks = windows(len, rate, 3.0, 3.0).into_iter().flat_map(|window| picks(7, window));
        let picks: Vec<_> = picks.collect();
        assert_eq!(seen.len(), picks.len(), "{name}");
        for (seen, period) in seen.iter().zip(picks) {
            let right = [0.25, 0.3125].map(|late| Some(on_screen(period, late)));
            assert!(right.contains(seen), "{name} at {stated} fps, period {period}: {seen:?}, not {right:?}");
        }
    }
}

/// Frame i is the one on the screen at i / fps, not the one that is nearest to it.
#[tokio::test]
async fn at_a_rate_the_frame_on_the_screen_is_taken() {
    let Some(bench) = Bench::new() else { return };
    for (at, rate) in RATES.into_iter().enumerate() {
        let (extension, words) = FORMS[at];
        let path = bench.film(&format!("rate-{}.{extension}", rate.0), rate, 5 * rate.0 / rate.1, words);
        for (fps, period) in [(1.0, (1, 1)), (2.5, (2, 5)), (4.0, (1, 4))] {
            let sampling = Sampling::Rate { fps, frames: 2, take: Take::OnScreen };
            let (clips, _) = bench.read(&path, &spec(sampling, 2.0 / fps), None).await.unwrap();
            for clip in &clips {
                let first = (clip.span.start_secs * fps).round() as u32;
                for (i, number) in (first..).zip(numbers(clip)) {
                    let exact = i * period.0 * rate.0 / (period.1 * rate.1);
                    assert_eq!(number, Some(exact), "{rate:?} at {fps} fps, frame {i}");
                }
            }
            assert!(clips.len() >= 2);
        }
    }
}

#[tokio::test]
async fn a_picture_that_stays_is_one_clip() {
    let Some(bench) = Bench::new() else { return };
    let words = "-vf tpad=stop_mode=clone:stop_duration=20 -c:v libx264 -preset ultrafast -qp 0";
    let path = bench.film("stays.mp4", (25, 1), 1, words);
    let (clips, summary) = bench.read(&path, &spec(spread(8, 2.0), 2.0), None).await.unwrap();
    let windows: Vec<_> = clips.iter().map(|clip| (clip.windows, clip.span.end_secs)).collect();
    assert_eq!(windows.len(), 1, "{windows:?}");
    assert!((summary.duration_secs - 20.04).abs() < 0.01 && windows[0].0 == 11, "{windows:?}");
}

/// Clips of sound have their own window beside those of pictures, and are those of the sound alone.
#[tokio::test]
async fn sound_with_a_window_of_its_own_is_cut_like_a_sound_file() {
    let Some(bench) = Bench::new() else { return };
    let sweep = "-f lavfi -t 7.3 -i aevalsrc=sin(900*t*t):s=48000";
    let film = format!("{sweep} -c:v mpeg4 -c:a pcm_s16le");
    let path = bench.film("apart.mov", (25, 1), 130, &film);
    let alone = bench.film("alone.wav", (25, 1), 130, &format!("{sweep} -map 1:a"));
    let mut spec = spec(spread(4, 3.0), 3.0);
    spec.sound_apart = true;
    spec.sound.samples = 2 * RATE as usize;
    spec.sound.stride_secs = 1.5;
    let (clips, summary) = bench.read(&path, &spec, None).await.unwrap();
    let (seen, heard): (Vec<_>, Vec<_>) = clips.iter().partition(|clip| clip.frames.is_some());
    assert!(summary.has_audio && summary.has_video);
    assert!(seen.iter().all(|clip| clip.pcm.is_none()));
    assert_eq!(seen.iter().map(|clip| clip.span.start_secs).collect::<Vec<_>>(), [0.0, 3.0]);
    let (wanted, _) = bench.read(&alone, &spec, None).await.unwrap();
    assert_eq!(wanted.len(), 5, "0, 1.5, 3, 4.5 and the end");
    assert_eq!(heard.len(), wanted.len());
    for (got, wanted) in heard.iter().zip(&wanted) {
        assert_eq!(got.span, wanted.span);
        assert!(got.same_pcm(wanted.pcm.as_ref(), wanted.pcm_samples), "{:?}", got.span);
        let (span, _) = bench.read(&path, &spec, Some(got.span)).await.unwrap();
        let span: Vec<_> = span.iter().filter(|clip| clip.pcm.is_some()).collect();
        assert_eq!(span.len(), 1, "{:?}", got.span);
        assert!(span[0].same_pcm(wanted.pcm.as_ref(), wanted.pcm_samples), "{:?}", got.span);
    }
}

/// Sound of a window belongs to its seconds; the last one has as much as its pictures last.
#[tokio::test]
async fn sound_goes_with_its_window() {
    let Some(bench) = Bench::new() else { return };
    let words = "-f lavfi -t 4.4 -i sine=frequency=300:sample_rate=48000 -c:v mpeg4 -c:a pcm_s16le";
    let path = bench.film("both.mov", (25, 1), 110, words);
    let (clips, _) = bench.read(&path, &spec(spread(4, 2.0), 2.0), None).await.unwrap();
    let sizes: Vec<_> =
        clips.iter().map(|clip| (clip.pcm_samples, clip.pcm.as_ref().unwrap().len())).collect();
    // 0.4 s are ten units of 1,920 samples.
    assert_eq!(sizes, [(96_000, 96_000), (96_000, 96_000), (19_200, 19_200)]);
}
