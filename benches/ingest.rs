//! Seconds to index one video file: the library (one ffmpeg for the whole file, sandboxed, towers in a
//! pool, store and index included) against the script a user would write: two ffmpeg calls a clip, the
//! `image` crate's resize, one session per tower with as many threads as cores, vectors kept in memory.
//! Both in turns, A B A B; then where the library's CPU time went.
//!
//! `cargo bench --bench ingest [-- FILE]`; without a file one of 60 s is made.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use cpu_time::ProcessTime;
use image::imageops::FilterType;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;
use triptych::embed::Embedder;
use triptych::library::{IngestReport, IngestSource, Library, LibraryConfig, SourcesConfig};
use triptych::media::{Decoder, DecoderConfig, Limits};
use triptych::model::{Bundle, Device, Priority, Towers};
use triptych::native::NativeParts;
use triptych::preprocess::ClipSpec;
use triptych::preprocess::spec::Size;

const ROUNDS: usize = 3;

fn generated(ffmpeg: &Path) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench-640x360-60s.mp4");
    if !file.exists() {
        let picture = "testsrc2=size=640x360:rate=25:duration=60,noise=alls=12:allf=t";
        let sound = "sine=frequency=330:sample_rate=48000:duration=60";
        let made = Command::new(ffmpeg)
            .args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound])
            .args(["-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac"])
            .arg(&file)
            .status();
        assert!(made.unwrap().success());
    }
    file
}

/// A fresh library, one file in, everything committed and searchable.
async fn ours(embedder: &Embedder, file: &Path) -> (f64, f64, IngestReport) {
    let data = tempfile::tempdir().unwrap();
    let folder = file.parent().unwrap().to_owned();
    let config = LibraryConfig {
        data_dir: data.path().join("d"),
        allowed_roots: vec![folder],
        ingest_workers: 1,
        webhooks: None,
        rebuild_from_uploads: false,
        content_url: |_| String::new(),
        recall_probe_share: 0.0,
        graph: Default::default(),
        keep: Default::default(),
        sources: SourcesConfig::default(),
    };
    let library = Library::open(config, embedder.clone()).await.unwrap();
    let source = IngestSource {
        path: library.data().allowed_path(file).unwrap(),
        name: "bench".to_owned(),
        owned: false,
        content: None,
        metadata: serde_json::json!({}),
        choice: Default::default(),
    };
    let (begun, cpu) = (Instant::now(), ProcessTime::now());
    let report = library.ingest().ingest(source, Priority::Bulk).await.unwrap();
    let took = (begun.elapsed().as_secs_f64(), cpu.elapsed().as_secs_f64());
    library.shutdown().await.unwrap();
    (took.0, took.1, report)
}

/// What a user would write.
struct Script {
    ffmpeg: PathBuf,
    spec: ClipSpec,
    video: Session,
    audio: Session,
}

impl Script {
    fn session(bundle: &Bundle, native: &NativeParts, tower: &str) -> Session {
        let file = bundle.manifest_json()["towers"][tower]["file"].as_str().unwrap().to_owned();
        let environment = triptych::model::environment(&native.onnxruntime).unwrap();
        let builder = Session::builder(&environment).unwrap();
        let builder = builder.with_optimization_level(GraphOptimizationLevel::All).ok().unwrap();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut builder = builder.with_intra_threads(cores).ok().unwrap();
        builder.commit_from_file(bundle.dir().join(file)).unwrap()
    }

    fn decode(&self, file: &Path, start: f64, secs: f64, what: &[&str]) -> Vec<u8> {
        Command::new(&self.ffmpeg)
            .args(["-nostdin", "-v", "error", "-ss", &start.to_string(), "-t", &secs.to_string(), "-i"])
            .arg(file)
            .args(what)
            .output()
            .unwrap()
            .stdout
    }

    fn frames(&self, file: &Path, start: f64, secs: f64, size: (u32, u32)) -> Vec<u8> {
        let rate = format!("fps={}", self.spec.frames() as f64 / self.spec.window_secs());
        let raw = self.decode(file, start, secs, &["-vf", &rate, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]);
        let picture = Size { height: size.1 as usize, width: size.0 as usize };
        let (Size { height, width }, kept) = self.spec.video.sizes(picture);
        let mut clip = Vec::new();
        for frame in raw.chunks_exact(size.0 as usize * size.1 as usize * 3).take(self.spec.frames()) {
            let picture = image::RgbImage::from_raw(size.0, size.1, frame.to_vec()).unwrap();
            let small = image::imageops::resize(&picture, width as u32, height as u32, FilterType::Triangle);
            let crop = kept.width as u32;
            let (x, y) = ((width as u32 - crop) / 2, (height as u32 - crop) / 2);
            clip.extend(image::imageops::crop_imm(&small, x, y, crop, crop).to_image().into_raw());
        }
        clip
    }

    /// Every clip of the file; the number of them.
    fn run(&mut self, file: &Path, size: (u32, u32), duration_secs: f64) -> usize {
        let window = self.spec.window_secs();
        let rate = self.spec.sound.sample_rate_hz.to_string();
        let mut clips = 0;
        while (clips + 1) as f64 * window <= duration_secs + 0.01 {
            let start = clips as f64 * window;
            let frames = self.frames(file, start, window, size);
            let crop = self.spec.video.crop.unwrap().width as i64;
            let shape = vec![1, self.spec.frames() as i64, crop, crop, 3];
            let tensor = TensorRef::from_array_view((shape, &frames[..])).unwrap();
            self.video.run(ort::inputs![tensor]).unwrap();
            let pcm = self.decode(file, start, window, &["-ac", "1", "-ar", &rate, "-f", "f32le", "-"]);
            let mut pcm: Vec<f32> =
                pcm.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            pcm.resize(self.spec.sound.samples, 0.0);
            let tensor = TensorRef::from_array_view((vec![1, pcm.len() as i64], &pcm[..])).unwrap();
            self.audio.run(ort::inputs![tensor]).unwrap();
            clips += 1;
        }
        clips
    }
}

fn main() {
    let native = NativeParts::find().unwrap();
    let file = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let file = file.map_or_else(|| generated(&native.ffmpeg), PathBuf::from).canonicalize().unwrap();
    let bundle = Arc::new(Bundle::open(Path::new("models/small-world")).unwrap());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let decoder = Decoder::new(DecoderConfig {
        worker_exe: env!("CARGO_BIN_EXE_triptych").into(),
        ffmpeg: native.ffmpeg.clone(),
        limits: Limits::default(),
    });
    let towers = Towers::load(Arc::clone(&bundle), &native, Device::Cpu, cores).unwrap();
    let embedder = Embedder { towers, decoder, stride_secs: None };
    let mut script = Script {
        ffmpeg: native.ffmpeg.clone(),
        spec: bundle.clip_spec(None),
        video: Script::session(&bundle, &native, "video"),
        audio: Script::session(&bundle, &native, "audio"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let (wall, cpu, report) = runtime.block_on(ours(&embedder, &file));
        let asset = &report.asset;
        let begun = Instant::now();
        let clips = script.run(&file, (asset.width, asset.height), asset.duration_secs);
        let theirs = begun.elapsed().as_secs_f64();
        ratios.push(theirs / wall);
        println!(
            "{round}: library {wall:.2} s for {} clips, script {theirs:.2} s for {clips} clips, ratio {:.2}x",
            asset.clips,
            theirs / wall
        );
        if round + 1 == ROUNDS {
            let stages = report.stages;
            let whole = cpu + stages.decode;
            println!("\nCPU of one ingest, {whole:.2} s:");
            for (name, secs) in [
                ("decode child", stages.decode),
                ("towers (wall)", stages.inference),
                ("resize, windows", stages.preprocess),
                ("store (wall)", stages.store),
                ("index (wall)", stages.index),
            ] {
                println!("  {name:<16} {secs:>7.3} s {:>5.1} %", 100.0 * secs / whole);
            }
            let share = (stages.decode + stages.inference) / whole;
            println!("  decode and towers together {:.1} %", 100.0 * share);
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}x", ratios[ratios.len() / 2]);
}
