//! Files through the real decode-worker: the binary itself, its sandbox and ffmpeg.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod damage;
#[path = "../common/ffmpeg.rs"]
mod ffmpeg;
mod formats;
mod limits;
mod spans;

use ffmpeg::ffmpeg;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use triptych::media::{Decoder, DecoderConfig, Limits, MediaError, WorkLimits};
use triptych::preprocess::spec::PictureSpec;
use triptych::preprocess::{AssetSummary, ClipReader, ClipSpec, ClipTensors, Preparer, probe, thumbnail};
use triptych::types::{AssetKind, TimeSpan};

/// The window of the published models.
fn large() -> ClipSpec {
    at_rate(10.0, 32, 224, 200)
}

fn at_rate(fps: f64, frames: usize, side: usize, crop: usize) -> ClipSpec {
    ClipSpec::mmv(fps, frames, PictureSpec::mmv(side, crop, true, false), (48_000, 153_600), 3.2)
}

/// The window of the small model.
fn small() -> ClipSpec {
    at_rate(2.5, 8, 64, 64)
}

fn decoder_with(limits: Limits) -> Option<Decoder> {
    let worker_exe = PathBuf::from(env!("CARGO_BIN_EXE_triptych"));
    Some(Decoder::new(DecoderConfig { worker_exe, ffmpeg: ffmpeg()?, limits }))
}

fn decoder() -> Option<Decoder> {
    decoder_with(Limits { wall_clock_secs: 120, ..Limits::default() })
}

/// Generated files, made once a test run.
static MEDIA: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

/// Makes a file with ffmpeg; `args` go before the output's name.
fn make(name: &str, args: &str) -> PathBuf {
    make_with(name, args.split_whitespace())
}

fn make_with<'a>(name: &str, args: impl IntoIterator<Item = &'a str>) -> PathBuf {
    let path = MEDIA.path().join(name);
    let part = MEDIA.path().join(format!("part-{name}"));
    let mut command = Command::new(ffmpeg().unwrap());
    let done = command.args(["-nostdin", "-v", "error", "-y"]).args(args).arg(&part).output().unwrap();
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    std::fs::rename(part, &path).unwrap();
    path
}

const PICTURE: &str = "-f lavfi -i testsrc2=s=320x240:r=25:d=6";

const TONE: &str = "-f lavfi -i sine=440:d=6:r=44100";

/// Six seconds, with sound.
fn av(name: &str, codecs: &str) -> PathBuf {
    make(name, &format!("{PICTURE} {TONE} {codecs}"))
}

const H264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";

type Read = Result<(Vec<ClipTensors>, AssetSummary), MediaError>;

async fn read(decoder: &Decoder, path: &Path, spec: &ClipSpec, span: Option<(f64, f64)>) -> Read {
    let span = span.map(|(start, end)| TimeSpan::new(start, end).unwrap());
    let mut reader = ClipReader::open(decoder, path, spec, span).await?;
    let mut clips = Vec::new();
    while let Some(clip) = reader.next().await? {
        let frames = if reader.summary().kind == AssetKind::Image { 1 } else { spec.frames() };
        if let Some(bytes) = &clip.frames {
            assert_eq!(bytes.len(), frames * spec.video.frame_bytes());
        }
        if let Some(pcm) = &clip.pcm {
            assert_eq!(pcm.len(), spec.sound.samples);
            assert!(pcm.iter().all(|sample| sample.is_finite()));
        }
        assert!(TimeSpan::new(clip.span.start_secs, clip.span.end_secs).is_ok(), "{:?}", clip.span);
        clips.push(clip);
    }
    let summary = reader.summary();
    if summary.kind != AssetKind::Image {
        for clip in &clips {
            assert!(clip.span.end_secs <= summary.duration_secs + 1e-9, "{:?} {summary:?}", clip.span);
        }
    }
    Ok((clips, summary))
}

fn spans(clips: &[ClipTensors]) -> Vec<(f64, f64)> {
    let round = |secs: f64| (secs * 1000.0).round() / 1000.0;
    clips.iter().map(|clip| (round(clip.span.start_secs), round(clip.span.end_secs))).collect()
}

fn tracks(clips: &[ClipTensors]) -> Vec<(bool, bool)> {
    clips.iter().map(|clip| (clip.frames.is_some(), clip.pcm.is_some())).collect()
}

fn code(read: Read) -> &'static str {
    match read {
        Ok((clips, summary)) => panic!("{} clips, {summary:?}", clips.len()),
        Err(error) => {
            assert!(error.to_string().len() > 10 && error.to_string().len() < 400, "{error}");
            eprintln!("{error}");
            error.code()
        }
    }
}

fn raw(path: &Path, args: &str) -> Vec<u8> {
    let mut command = Command::new(ffmpeg().unwrap());
    let done = command.args(["-nostdin", "-v", "error", "-threads", "1", "-i"]).arg(path);
    let done = done.args(args.split_whitespace()).arg("-").output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = MEDIA.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn wav(samples: &[f32]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let mut wav =
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x03\0\x01\0\x80\xbb\0\0\0\xee\x02\0\x04\0\x20\0data".to_vec();
    wav.extend((data.len() as u32).to_le_bytes());
    wav.extend(data);
    let size = (wav.len() as u32 - 8).to_le_bytes();
    wav[4..8].copy_from_slice(&size);
    wav
}

/// Processes of this name, zombies too.
fn running(name: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let stats = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(&format!("({name})"))).count()
}
