//! Sound through the real decode worker: the position of each second, the mix of channels, lost parts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod changes;
mod layouts;
#[path = "../common/tone.rs"]
mod tone;

use std::path::{Path, PathBuf};
use std::process::Command;

use tone::share;
use triptych::media::{Decoder, DecoderConfig, Limits, WorkLimits};
use triptych::preprocess::spec::PictureSpec;
use triptych::preprocess::{AssetSummary, ClipReader, ClipSpec};
use triptych::types::TimeSpan;

const RATE: usize = 48_000;

/// A tenth of a second each: a clip says what is heard in it.
const SPEC: ClipSpec =
    ClipSpec::mmv(10.0, 1, PictureSpec::mmv(16, 16, true, false), (RATE as u32, RATE / 10), 0.1);

fn native() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = std::env::var_os("TRIPTYCH_NATIVE_DIR").map_or(root.join(".triptych/native"), PathBuf::from);
    std::env::var_os("TRIPTYCH_FFMPEG").map_or(dir.join("ffmpeg/ffmpeg"), PathBuf::from)
}

struct Bench {
    dir: tempfile::TempDir,
    decoder: Decoder,
}

impl Bench {
    /// `None`, with a printed reason, if there is no ffmpeg.
    fn new() -> Option<Self> {
        let ffmpeg = native();
        if !ffmpeg.is_file() {
            eprintln!("SKIPPED: no ffmpeg at {}; run `make native`", ffmpeg.display());
            return None;
        }
        let worker_exe = PathBuf::from(env!("CARGO_BIN_EXE_triptych"));
        // Clips this short are many.
        let work = WorkLimits { clips: 10_000, ..WorkLimits::default() };
        let limits = Limits { wall_clock_secs: 60, work, ..Limits::default() };
        let decoder = Decoder::new(DecoderConfig { worker_exe, ffmpeg, limits });
        Some(Self { dir: tempfile::tempdir().unwrap(), decoder })
    }

    fn make(&self, name: &str, args: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let mut command = Command::new(native());
        command.args(["-nostdin", "-v", "error", "-y"]).args(args.split_whitespace()).arg(&path);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        path
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// All samples of a file's sound, and its summary.
    async fn read(&self, path: &Path) -> (Vec<f32>, AssetSummary) {
        self.read_span(path, None).await
    }

    /// The code of the error that a span is refused with.
    async fn refused(&self, path: &Path, (start, end): (f64, f64)) -> &'static str {
        let span = Some(TimeSpan::new(start, end).unwrap());
        let mut reader = match ClipReader::open(&self.decoder, path, &SPEC, span).await {
            Ok(reader) => reader,
            Err(error) => return error.code(),
        };
        loop {
            match reader.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return "",
                Err(error) => return error.code(),
            }
        }
    }

    async fn read_span(&self, path: &Path, span: Option<(f64, f64)>) -> (Vec<f32>, AssetSummary) {
        let span = span.map(|(start, end)| TimeSpan::new(start, end).unwrap());
        let name = path.display();
        let mut reader = ClipReader::open(&self.decoder, path, &SPEC, span)
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let first = span.map_or(0.0, |span| span.start_secs);
        let mut samples: Vec<f32> = Vec::new();
        while let Some(clip) = reader.next().await.unwrap_or_else(|e| panic!("{name}: {e}")) {
            let at = ((clip.span.start_secs - first) * RATE as f64).round() as usize;
            let Some(pcm) = clip.pcm else { continue };
            samples.resize(samples.len().max(at + pcm.len() * clip.windows as usize), 0.0);
            for window in 0..clip.windows as usize {
                samples[at + window * pcm.len()..][..pcm.len()].copy_from_slice(&pcm);
            }
        }
        (samples, reader.summary())
    }
}

/// Second `n` of a tone clock is a tone of `400 + 100 n` Hz.
fn clock(secs: usize, rate: usize, channels: usize, first: usize) -> String {
    let tone = |n: usize| format!("sine=f={}:r={rate}:d=1[t{n}]", 400 + 100 * (n + first));
    let tones: Vec<_> = (0..secs).map(tone).collect();
    let inputs: String = (0..secs).map(|n| format!("[t{n}]")).collect();
    format!(
        "-filter_complex {};{inputs}concat=n={secs}:v=0:a=1,volume=4,pan={channels}c|{}[out] -map [out] -ar {rate}",
        tones.join(";"),
        (0..channels).map(|c| format!("c{c}=c0")).collect::<Vec<_>>().join("|")
    )
}

/// Whether second `n` of the sound, but for 30 ms on either side, is the clock's tone `tone`.
fn is_second(samples: &[f32], n: f64, tone: usize) -> bool {
    let margin = RATE * 30 / 1000;
    let from = (n * RATE as f64) as usize + margin;
    let heard = samples.get(from..from + RATE - 2 * margin).unwrap_or_default();
    !heard.is_empty() && share(heard, RATE, (400 + 100 * tone) as f64) > 0.9
}

fn heard(samples: &[f32], secs: usize) -> Vec<bool> {
    (0..secs).map(|n| is_second(samples, n as f64, n)).collect()
}
