//! Files to vectors, through the library and through the command line.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use triptych::embed::{ClipVectors, EmbedError, Embedder, Vectors};
use triptych::media::{Decoder, DecoderConfig, Limits};
use triptych::model::{Bundle, Device, Priority, Timings, Towers};
use triptych::native::NativeParts;
use triptych::types::{Embedding, Modality, Space, TimeSpan};

const BINARY: &str = env!("CARGO_BIN_EXE_triptych");

fn native() -> NativeParts {
    NativeParts::find().expect("the native parts; run `make native`")
}

fn small_world() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/small-world")
}

fn embedder() -> Embedder {
    static TOWERS: OnceLock<Towers> = OnceLock::new();
    let native = native();
    let towers = TOWERS.get_or_init(|| {
        let bundle = Arc::new(Bundle::open(&small_world()).unwrap());
        Towers::load(bundle, &native, Device::Cpu, 2).unwrap()
    });
    let decoder = Decoder::new(DecoderConfig {
        worker_exe: PathBuf::from(BINARY),
        ffmpeg: native.ffmpeg,
        limits: Limits::default(),
    });
    Embedder { towers: towers.clone(), decoder, stride_secs: None }
}

/// Media made once for all tests: `scene.mp4` (11 s, picture and sound), `silent.mp4` (4 s, picture
/// alone), `tone.wav` (7 s), `still.png`.
fn media(name: &str) -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let picture = "testsrc=size=160x120:rate=10:duration";
        make(
            dir.path(),
            &[
                "-i",
                &format!("{picture}=11"),
                "-f",
                "lavfi",
                "-i",
                "sine=frequency=700:duration=11",
                "scene.mp4",
            ],
        );
        make(dir.path(), &["-i", &format!("{picture}=4"), "silent.mp4"]);
        make(dir.path(), &["-i", "sine=frequency=300:duration=7", "tone.wav"]);
        make(dir.path(), &["-i", &format!("{picture}=1"), "-frames:v", "1", "still.png"]);
        dir
    });
    folder.path().join(name)
}

fn make(dir: &Path, arguments: &[&str]) {
    let mut ffmpeg = Command::new(native().ffmpeg);
    let status = ffmpeg.args(["-v", "error", "-nostdin", "-f", "lavfi"]).args(arguments).current_dir(dir);
    assert!(status.status().unwrap().success(), "{arguments:?}");
}

async fn clips(name: &str) -> Vec<ClipVectors> {
    let mut stream = embedder().open(&media(name), None, Priority::Bulk).await.unwrap();
    let mut clips = Vec::new();
    while let Some(clip) = stream.next().await.unwrap() {
        clips.push(clip);
    }
    clips
}

fn cosine(a: &Vectors, b: &Vectors) -> f32 {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    a.iter().map(|(space, vector)| vector.cosine(&b[space])).fold(1.0, f32::min)
}

#[tokio::test]
async fn an_asset_streams_its_clips_in_order() {
    let mut stream = embedder().open(&media("scene.mp4"), None, Priority::Bulk).await.unwrap();
    let mut clips = Vec::new();
    while let Some(clip) = stream.next().await.unwrap() {
        clips.push(clip);
    }
    // Three windows of 3.2 s, and one anchored at the end.
    assert_eq!(clips.len(), 4);
    assert!(clips.is_sorted_by(|a, b| a.span.start_secs < b.span.start_secs));
    for clip in &clips {
        for track in clip.tracks.values() {
            let vectors = track.as_ref().unwrap();
            assert_eq!(vectors.keys().map(Space::as_str).collect::<Vec<_>>(), ["coarse", "fine"]);
            for vector in vectors.values() {
                let norm: f32 = vector.as_slice().iter().map(|v| v * v).sum();
                assert!((norm - 1.0).abs() < 1e-4, "{norm}");
            }
        }
    }
    let summary = stream.summary().unwrap();
    assert!((summary.duration_secs - 11.0).abs() < 0.2, "{}", summary.duration_secs);
    assert!(summary.has_video && summary.has_audio && summary.partial.is_none());
    assert!(stream.inference_secs() > 0.0);
}

#[tokio::test]
async fn a_query_clip_finds_its_stored_self_and_a_long_query_is_the_mean() {
    let embedder = embedder();
    let stored = clips("scene.mp4").await;
    let timings = Arc::new(Timings::default());
    let timed = embedder.timed(Arc::clone(&timings));
    for modality in [Modality::Video, Modality::Audio] {
        let track = stored[1].of(modality);
        let query = timed.query_media(&media("scene.mp4"), modality, Some(stored[1].span)).await.unwrap();
        let cosine = cosine(&query, track.unwrap());
        assert!(cosine > 1.0 - 1e-4, "{modality}: {cosine}");
    }
    assert!(timings.inference_secs() > 0.0);

    let whole = embedder.query_media(&media("scene.mp4"), Modality::Video, None).await.unwrap();
    let fine = Space::new("fine");
    let mut sum = vec![0.0; whole[&fine].dim()];
    for clip in &stored {
        let vector = clip.of(Modality::Video).unwrap()[&fine].as_slice();
        sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value);
    }
    let mean = Embedding::new(sum, whole[&fine].dim()).unwrap();
    assert!(mean.cosine(&whole[&fine]) > 1.0 - 1e-5);
}

#[tokio::test]
async fn sounds_and_pictures_are_assets_of_one_track() {
    let sounds = clips("tone.wav").await;
    assert_eq!(sounds.len(), 3);
    assert!(
        sounds.iter().all(|clip| clip.of(Modality::Video).is_none() && clip.of(Modality::Audio).is_some())
    );
    let still = clips("still.png").await;
    assert_eq!(still.len(), 1);
    assert!(still[0].of(Modality::Image).is_some() && still[0].of(Modality::Audio).is_none());
    let query = embedder().query_media(&media("still.png"), Modality::Image, None).await.unwrap();
    assert!(cosine(&query, still[0].of(Modality::Image).unwrap()) > 1.0 - 1e-6);
}

#[tokio::test]
async fn a_file_of_another_kind_is_refused_with_a_reason() {
    let embedder = embedder();
    let ask = async |name, modality| {
        let error = embedder.query_media(&media(name), modality, None).await.unwrap_err();
        (error.code(), error.to_string())
    };
    assert_eq!(ask("still.png", Modality::Video).await.0, "wrong_media_kind");
    assert_eq!(ask("scene.mp4", Modality::Image).await.0, "wrong_media_kind");
    assert_eq!(ask("still.png", Modality::Audio).await.0, "wrong_media_kind");
    assert_eq!(ask("tone.wav", Modality::Video).await.0, "wrong_media_kind");
    let (code, message) = ask("silent.mp4", Modality::Audio).await;
    assert_eq!(code, "no_usable_track");
    assert!(message.contains("sound"), "{message}");
    assert!(matches!(
        embedder.query_media(&media("tone.wav"), Modality::Text, None).await,
        Err(EmbedError::NoTower(Modality::Text))
    ));
}

#[tokio::test]
async fn an_abandoned_stream_leaves_the_towers_to_others() {
    let embedder = embedder();
    for _ in 0..20 {
        let mut stream = embedder.open(&media("scene.mp4"), None, Priority::Bulk).await.unwrap();
        stream.next().await.unwrap();
    }
    let span = TimeSpan::new(0.0, 3.2).unwrap();
    let begun = std::time::Instant::now();
    embedder.query_media(&media("tone.wav"), Modality::Audio, Some(span)).await.unwrap();
    assert!(begun.elapsed().as_secs() < 30);
}

fn triptych(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let native = native();
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("ORT_DYLIB_PATH", native.onnxruntime)
        .env("TRIPTYCH_FFMPEG", native.ffmpeg)
        .env("TRIPTYCH_MODEL", small_world())
        .envs(variables.iter().copied());
    command.output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn doctor_says_what_is_there_and_what_is_not() {
    let output = triptych(&["doctor", "--json"], &[]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["ok"], true);
    assert!(report["onnxruntime"]["version"].as_str().unwrap().starts_with("1."));
    assert!(report["ffmpeg"]["version"].is_string());
    assert_eq!(report["model"]["name"], "small-world");

    let output = triptych(&["doctor", "--json"], &[("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so")]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(json(&output)["onnxruntime"]["error"]["code"], "native_part_missing");

    let output = triptych(&["doctor"], &[("TRIPTYCH_FFMPEG", "/bin/sh"), ("TRIPTYCH_MODEL", "/nowhere")]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    for code in ["native_part_unusable", "model_missing"] {
        assert!(text.contains(code), "{text}");
    }
}

#[test]
fn a_model_is_verified_and_shown() {
    let bundle = small_world();
    let bundle = bundle.to_str().unwrap();
    let output = triptych(&["model", "verify", bundle], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("audio") && text.contains("worst 1 - cosine"), "{text}");

    let shown = json(&triptych(&["model", "show", bundle, "--json"], &[]));
    assert_eq!(shown["manifest"]["name"], "small-world");
    assert_eq!(shown["id"].as_str().unwrap().len(), 64);
    assert!(shown["files"]["video.onnx"].as_u64().unwrap() > 0);
    let text = triptych(&["model", "show", bundle], &[]);
    assert!(String::from_utf8(text.stdout).unwrap().contains("Apache-2.0"));

    let output = triptych(&["model", "verify", "/nowhere"], &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("error[model_missing]"));
}

#[test]
fn embed_prints_one_vector_a_clip() {
    let entries = |arguments: &[&str]| {
        let answer = json(&triptych(arguments, &[]));
        answer["data"].as_array().unwrap().clone()
    };
    let text = entries(&["embed", "a red circle", "--json"]);
    assert_eq!((text.len(), &text[0]["space"]), (1, &Value::from("coarse")));
    assert_eq!(text[0]["embedding"].as_array().unwrap().len(), 256);
    assert!(text[0].get("start_secs").is_none());
    let scene = media("scene.mp4");
    let part = format!("{}@3.2-6.4", scene.display());
    let clips = entries(&["embed", "--video", &part, "--json"]);
    assert_eq!((clips.len(), &clips[0]["space"]), (1, &Value::from("fine")));
    assert_eq!(clips[0]["start_secs"], 3.2);
    let sounds =
        entries(&["embed", "--audio", media("tone.wav").to_str().unwrap(), "--space", "coarse", "--json"]);
    assert_eq!((sounds.len(), &sounds[2]["space"]), (3, &Value::from("coarse")));

    let failed = triptych(&["embed", "xylophone"], &[]);
    assert_eq!(failed.status.code(), Some(2));
    assert!(String::from_utf8(failed.stderr).unwrap().contains("error[no_known_words]"));
    let failed = triptych(&["embed", "red", "--space", "fine"], &[]);
    assert_eq!(failed.status.code(), Some(2));
    assert!(String::from_utf8(failed.stderr).unwrap().contains("coarse"));
}
