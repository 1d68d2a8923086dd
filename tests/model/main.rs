//! Bundles that are whole, bundles that are not, and the towers behind them: what a server must
//! refuse, and what it must answer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use futures::future::{join_all, try_join_all};
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use triptych::model::{Bundle, Device, ModelError, Priority, SpaceVectors, Timings, Towers};
use triptych::native::NativeParts;
use triptych::types::{Modality, Space};

fn small_world() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/small-world")
}

fn native() -> NativeParts {
    NativeParts::find().expect("the native parts; run `make native`")
}

fn load(dir: &Path) -> Result<Towers, ModelError> {
    Towers::load(Arc::new(Bundle::open(dir)?), &native(), Device::Cpu, 1)
}

/// One loaded copy for all tests that only ask it.
fn towers() -> &'static Towers {
    static TOWERS: OnceLock<Towers> = OnceLock::new();
    TOWERS.get_or_init(|| load(&small_world()).unwrap())
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A copy of the bundle to damage.
struct Copy {
    dir: tempfile::TempDir,
}

impl Copy {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let manifest: Value =
            serde_json::from_slice(&std::fs::read(small_world().join("manifest.json")).unwrap()).unwrap();
        for name in manifest["files"].as_object().unwrap().keys().chain([&"manifest.json".to_owned()]) {
            std::fs::copy(small_world().join(name), dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn edit_manifest(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.path("manifest.json");
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        edit(&mut json);
        std::fs::write(path, serde_json::to_vec(&json).unwrap()).unwrap();
    }

    fn edit_file(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(self.path(name)).unwrap();
        edit(&mut bytes);
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// Makes the manifest agree with a changed file, as one who tampers would.
    fn fix_hash(&self, name: &str) {
        let digest = hex::encode(Sha256::digest(std::fs::read(self.path(name)).unwrap()));
        self.edit_manifest(|json| json["files"][name] = json!(digest));
    }

    fn open(&self) -> Result<Bundle, ModelError> {
        Bundle::open(self.dir.path())
    }

    fn load(&self) -> Result<Towers, ModelError> {
        load(self.dir.path())
    }
}

fn code<T>(result: Result<T, ModelError>) -> (&'static str, String) {
    let error = result.err().expect("an error");
    (error.code(), error.to_string())
}

/// Values that look like data, from a seed.
fn bytes(seed: u64, len: usize) -> Arc<[u8]> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    // Patches rather than noise, so that inputs differ in what a tower sees.
    (0..len.div_ceil(64)).flat_map(|_| [next(); 64]).take(len).collect()
}

fn sound(seed: u64, len: usize) -> Arc<[f32]> {
    let step = 0.01 + (seed % 97) as f32 * 0.003;
    (0..len).map(|i| (i as f32 * step).sin() * 0.5).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn same(a: &SpaceVectors, b: &SpaceVectors) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (space, vector) in a {
        let cosine = cosine(vector, &b[space]);
        assert!(cosine >= 1.0 - 1e-6, "{space}: {cosine}");
    }
}

fn lengths(bundle: &Bundle) -> (usize, usize, usize) {
    let spec = bundle.clip_spec(None);
    (spec.frames() * spec.video.frame_bytes(), spec.image.frame_bytes(), spec.sound.samples)
}

#[test]
fn the_bundle_of_the_repository_proves_itself() {
    let towers = towers();
    assert_eq!(towers.device_name(), "cpu");
    let checked: Vec<_> = towers.goldens().iter().map(|g| (g.tower, g.space.to_string())).collect();
    for tower in [Modality::Video, Modality::Audio] {
        for space in ["fine", "coarse"] {
            assert!(checked.contains(&(tower, space.to_owned())), "{tower} {space} not in {checked:?}");
        }
    }
    assert!(checked.contains(&(Modality::Text, "coarse".to_owned())));
    let manifest = std::fs::read(small_world().join("manifest.json")).unwrap();
    assert_eq!(&*towers.bundle().id().0, hex::encode(Sha256::digest(manifest)));
}

#[test]
fn spaces_are_found_from_the_manifest() {
    let bundle = towers().bundle();
    assert_eq!(bundle.shared_space(Modality::Audio, Modality::Video), Some(Space::new("fine")));
    assert_eq!(bundle.shared_space(Modality::Text, Modality::Audio), Some(Space::new("coarse")));
    assert!(bundle.has(Modality::Image, &Space::new("fine")));
    assert!(!bundle.has(Modality::Text, &Space::new("fine")));
    assert!(!bundle.has(Modality::Text, &Space::new("none")));
    let spec = bundle.clip_spec(None);
    assert!((spec.stride_secs - spec.window_secs()).abs() < 1e-12);
    assert_eq!(bundle.clip_spec(Some(0.5)).stride_secs, 0.5);
}

#[test]
fn a_flipped_bit_in_any_file_is_named_with_both_hashes() {
    let copy = Copy::new();
    let names: Vec<String> = copy.open().unwrap().files().keys().cloned().collect();
    assert!(names.len() >= 5);
    for (index, name) in names.iter().enumerate() {
        let at = |bytes: &Vec<u8>| bytes.len() * (index + 1) / (names.len() + 1);
        copy.edit_file(name, |bytes| {
            let at = at(bytes);
            bytes[at] ^= 1 << (index % 8);
        });
        let (code, message) = code(copy.open());
        assert_eq!(code, "model_file_damaged");
        let actual = hex::encode(Sha256::digest(std::fs::read(copy.path(name)).unwrap()));
        assert!(message.contains(name.as_str()) && message.contains(&actual), "{message}");
        copy.edit_file(name, |bytes| {
            let at = at(bytes);
            bytes[at] ^= 1 << (index % 8);
        });
    }
    assert!(copy.open().is_ok());
}

#[test]
fn a_file_swapped_after_opening_is_not_loaded() {
    let copy = Copy::new();
    let bundle = Arc::new(copy.open().unwrap());
    copy.edit_file("video.onnx", |bytes| bytes[1000] ^= 1);
    let (code, message) = code(Towers::load(bundle, &native(), Device::Cpu, 1));
    assert_eq!(code, "model_file_damaged");
    assert!(message.contains("video.onnx"), "{message}");
}

#[test]
fn damage_with_the_hash_set_right_never_gives_wrong_vectors_in_silence() {
    let (frames_len, _, _) = lengths(towers().bundle());
    let frames = bytes(7, frames_len);
    let expected = block_on(towers().video(Arc::clone(&frames), Priority::Interactive)).unwrap();
    let original = std::fs::read(small_world().join("video.onnx")).unwrap();
    let copy = Copy::new();
    let mut refused = 0;
    for flip in 0..16_usize {
        let mut damaged = original.clone();
        // The top bits of floats first, then anywhere.
        let at = (original.len() / 17 * (flip + 1)) | if flip < 8 { 3 } else { 0 };
        damaged[at] ^= 1 << (6 - flip % 6);
        std::fs::write(copy.path("video.onnx"), damaged).unwrap();
        copy.fix_hash("video.onnx");
        match copy.load() {
            Err(error) => {
                assert!(
                    ["golden_mismatch", "tower_failed", "manifest_invalid"].contains(&error.code()),
                    "{error}"
                );
                assert!(error.to_string().contains("video"), "{error}");
                refused += 1;
            }
            Ok(damaged) => {
                let got = block_on(damaged.video(Arc::clone(&frames), Priority::Interactive)).unwrap();
                for (space, vector) in &expected {
                    let cosine = cosine(vector, &got[space]);
                    assert!(cosine > 0.999, "flip {flip} at {at}: cosine {cosine} in {space}, unnoticed");
                }
            }
        }
    }
    assert!(refused >= 2, "only {refused} of 16 flips were noticed: is the self-check alive?");
}

#[test]
fn other_golden_vectors_stop_the_model_naming_file_and_cosine() {
    let copy = Copy::new();
    copy.edit_file("goldens.safetensors", |bytes| {
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let json: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        let begin = json["audio.fine"]["data_offsets"][0].as_u64().unwrap() as usize + 8 + header;
        bytes[begin..begin + 512].reverse();
    });
    copy.fix_hash("goldens.safetensors");
    let (code, message) = code(copy.load());
    assert_eq!(code, "golden_mismatch");
    assert!(message.contains("audio.onnx") && message.contains("cosine"), "{message}");
}

#[test]
fn a_tokenizer_that_numbers_otherwise_is_stopped() {
    let copy = Copy::new();
    copy.edit_file("tokenizer.json", |bytes| {
        let mut json: Value = serde_json::from_slice(bytes).unwrap();
        let vocab = json["model"]["vocab"].as_object_mut().unwrap();
        let (red, circle) = (vocab["red"].clone(), vocab["circle"].clone());
        vocab.insert("red".into(), circle);
        vocab.insert("circle".into(), red);
        *bytes = serde_json::to_vec(&json).unwrap();
    });
    copy.fix_hash("tokenizer.json");
    let (code, message) = code(copy.load());
    assert_eq!(code, "golden_mismatch");
    assert!(message.contains("tokenizer.json"), "{message}");
}

#[test]
fn a_tensor_whose_data_lie_outside_is_refused() {
    let copy = Copy::new();
    // One more piece of the graph message; protobuf merges it into the graph.
    copy.edit_file("video.onnx", |bytes| bytes.extend([0x3a, 4, 0x2a, 2, 0x70, 1]));
    copy.fix_hash("video.onnx");
    let (code, message) = code(copy.load());
    assert_eq!(code, "manifest_invalid");
    assert!(message.contains("video.onnx") && message.contains("outside the file"), "{message}");
}

#[test]
fn a_manifest_that_is_not_as_documented_is_refused() {
    type Edit = fn(&mut Value);
    let cases: [(Edit, &str); 5] = [
        (|json| json["format_version"] = json!(3), "expected format_version 1 or 2, got 3"),
        (|json| json["colour"] = json!("red"), "colour"),
        (|json| json["towers"]["video"]["file"] = json!("../video.onnx"), "../video.onnx"),
        (|json| json["files"]["../../etc/passwd"] = json!("0".repeat(64)), "etc/passwd"),
        (
            |json| {
                json["files"].as_object_mut().unwrap().remove("text.onnx");
            },
            "not listed",
        ),
    ];
    for (edit, expected) in cases {
        let copy = Copy::new();
        copy.edit_manifest(edit);
        let (code, message) = code(copy.open());
        assert_eq!(code, "manifest_invalid", "{message}");
        assert!(message.contains("manifest.json") && message.contains(expected), "{message}");
    }
}

#[test]
fn missing_things_are_named() {
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(code(Bundle::open(empty.path())).0, "model_missing");
    let copy = Copy::new();
    std::fs::remove_file(copy.path("audio.onnx")).unwrap();
    let (missing, message) = code(copy.open());
    assert_eq!(missing, "model_file_missing");
    assert!(message.contains("audio.onnx"), "{message}");
    // A pipe would block a reader for ever.
    std::fs::create_dir(copy.path("audio.onnx")).unwrap();
    assert_eq!(code(copy.open()).0, "model_file_missing");
}

#[test]
fn an_output_the_graph_does_not_have_is_found_at_load() {
    let copy = Copy::new();
    copy.edit_manifest(|json| json["towers"]["text"]["outputs"]["coarse"] = json!("nonsense"));
    let (code, message) = code(copy.load());
    assert_eq!(code, "manifest_invalid");
    assert!(message.contains("text.onnx") && message.contains("nonsense"), "{message}");
}

#[test]
fn any_subset_of_towers_is_a_model() {
    let copy = Copy::new();
    copy.edit_manifest(|json| {
        json["spaces"] = json!([{"name": "coarse", "dim": 256, "members": ["text"]}]);
        for modality in ["video", "audio", "image"] {
            json["towers"].as_object_mut().unwrap().remove(modality);
            json["preprocessing"].as_object_mut().unwrap().remove(modality);
        }
    });
    let towers = copy.load().unwrap();
    assert_eq!(towers.bundle().clip_spec(None).frames(), 1, "nothing larger than needed");
    block_on(async {
        let vectors = towers.text("a red circle", Priority::Interactive).await.unwrap();
        assert_eq!(vectors[&Space::new("coarse")].len(), 256);
        let refused = [
            towers.video(bytes(1, 10), Priority::Interactive).await,
            towers.image(bytes(1, 10), Priority::Interactive).await,
            towers.audio(sound(1, 10), Priority::Bulk).await,
        ];
        for result in refused {
            assert_eq!(code(result).0, "modality_not_supported");
        }
    });
}

#[test]
fn inputs_a_tower_must_not_see_are_refused() {
    let towers = towers();
    let (_, _, samples) = lengths(towers.bundle());
    block_on(async {
        let interactive = Priority::Interactive;
        let mut pcm = sound(1, samples).to_vec();
        pcm[samples / 2] = f32::NAN;
        assert_eq!(code(towers.audio(Arc::<[f32]>::from(pcm), interactive).await).0, "bad_samples");
        assert_eq!(code(towers.audio(sound(1, samples - 1), interactive).await).0, "tower_failed");
        assert_eq!(code(towers.video(bytes(1, 12), interactive).await).0, "tower_failed");
        let (unknown, message) = code(towers.text("xylophone zebra", interactive).await);
        assert_eq!(unknown, "no_known_words");
        assert!(message.contains("xylophone") && message.contains("zebra"), "{message}");
        assert_eq!(code(towers.text(&"red ".repeat(9000), interactive).await).0, "text_too_long");
    });
}

#[test]
fn without_a_tower_of_its_own_a_picture_is_a_video_that_stands_still() {
    let copy = Copy::new();
    copy.edit_manifest(|json| json["towers"]["image"] = json!({"inflates": "video"}));
    let towers = copy.load().unwrap();
    let (frames_len, picture_len, _) = lengths(towers.bundle());
    let picture = bytes(3, picture_len);
    let frames: Arc<[u8]> = picture.repeat(frames_len / picture_len).into();
    block_on(async {
        let as_picture = towers.image(picture, Priority::Interactive).await.unwrap();
        same(&as_picture, &towers.video(frames, Priority::Bulk).await.unwrap());
    });
}

#[test]
fn a_picture_goes_through_the_tower_of_pictures() {
    let towers = towers();
    let (frames_len, picture_len, _) = lengths(towers.bundle());
    let picture = bytes(3, picture_len);
    let frames: Arc<[u8]> = picture.repeat(frames_len / picture_len).into();
    block_on(async {
        let as_picture = towers.image(picture, Priority::Interactive).await.unwrap();
        let as_video = towers.video(frames, Priority::Interactive).await.unwrap();
        assert_eq!(as_picture.keys().collect::<Vec<_>>(), as_video.keys().collect::<Vec<_>>());
        assert!(as_picture.iter().all(|(space, vector)| *vector != as_video[space]));
    });
}

#[test]
fn time_in_queue_and_tower_is_added_up_for_the_handle_that_asked() {
    let timings = Arc::new(Timings::default());
    let timed = towers().timed(Arc::clone(&timings));
    block_on(async {
        towers().text("red", Priority::Interactive).await.unwrap();
        assert_eq!(timings.inference_secs(), 0.0);
        timed.text("red", Priority::Interactive).await.unwrap();
    });
    assert!(timings.inference_secs() > 0.0 && timings.inference_secs() < 10.0);
    assert!(timings.queue_secs() > 0.0);
}

#[test]
fn a_full_queue_says_so_and_abandoned_work_makes_room() {
    // A copy of its own, so that no other test meets the full queue.
    let towers = load(&small_world()).unwrap();
    let (_, _, samples) = lengths(towers.bundle());
    block_on(async {
        let pcm = sound(5, samples);
        let mut pending = Vec::new();
        let refused = loop {
            match towers.submit_audio(Arc::clone(&pcm), Priority::Interactive).await {
                Ok(answer) => pending.push(answer),
                Err(error) => break error,
            }
            assert!(pending.len() < 10_000, "the queue has no end");
        };
        assert_eq!(refused.code(), "overloaded");
        drop(pending);
        // The worker drops what nobody waits for when it next looks; until then there is no room.
        let begun = std::time::Instant::now();
        while towers.text("red", Priority::Interactive).await.is_err() {
            assert!(begun.elapsed().as_secs() < 20);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn cuda_is_not_replaced_in_silence_when_it_was_asked_for() {
    let native = native();
    let bundle = Arc::new(Bundle::open(&small_world()).unwrap());
    match triptych::native::cuda_problem(&native.onnxruntime) {
        Some(_) => {
            let error = Towers::load(Arc::clone(&bundle), &native, Device::Cuda(0), 1).err().unwrap();
            assert_eq!(error.code(), "cuda_unavailable");
            assert_eq!(Towers::load(bundle, &native, Device::Auto, 1).unwrap().device_name(), "cpu");
        }
        None => {
            let towers = Towers::load(bundle, &native, Device::Auto, 1).unwrap();
            assert_eq!(towers.device_name(), "cuda:0");
        }
    }
}

#[test]
fn a_missing_or_foreign_runtime_is_an_error_not_a_hang() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = Arc::new(Bundle::open(&small_world()).unwrap());
    let mut native = native();
    native.onnxruntime = dir.path().join("libonnxruntime.so");
    let load = |native: &NativeParts| code(Towers::load(Arc::clone(&bundle), native, Device::Cpu, 1));
    assert_eq!(load(&native).0, "onnxruntime_missing");
    std::fs::write(&native.onnxruntime, b"\x7fELF nonsense").unwrap();
    let (code, message) = load(&native);
    assert_eq!(code, "onnxruntime_missing");
    assert!(message.contains(&native.onnxruntime.display().to_string()), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever company an input has in a batch, its vector is the same.
    #[test]
    fn batched_equals_single(seeds in prop::collection::vec(0_u64..1000, 9..=11)) {
        let towers = towers();
        let (frames, _, samples) = lengths(towers.bundle());
        let words = ["red", "blue", "circle", "square", "moving left", "a green circle"];
        block_on(async {
            let sounds: Vec<_> = seeds.iter().map(|seed| sound(*seed, samples)).collect();
            let texts: Vec<_> = seeds.iter().map(|seed| words[(*seed % 6) as usize]).collect();
            let together = try_join_all(sounds.iter().map(|pcm| towers.audio(Arc::clone(pcm), Priority::Bulk)));
            let texts_together = join_all(texts.iter().map(|text| towers.text(text, Priority::Bulk)));
            let (together, texts_together) = (together.await.unwrap(), texts_together.await);
            for (pcm, batched) in sounds.iter().zip(&together) {
                same(batched, &towers.audio(Arc::clone(pcm), Priority::Interactive).await.unwrap());
            }
            for (text, batched) in texts.iter().zip(texts_together) {
                match (batched, towers.text(text, Priority::Interactive).await) {
                    (Ok(batched), Ok(single)) => same(&batched, &single),
                    (batched, single) => assert_eq!(code(batched).0, code(single).0),
                }
            }
            let clips: Vec<_> = seeds.iter().take(3).map(|seed| bytes(*seed, frames)).collect();
            let together = try_join_all(clips.iter().map(|clip| towers.video(Arc::clone(clip), Priority::Bulk)));
            for (clip, batched) in clips.iter().zip(together.await.unwrap()) {
                same(&batched, &towers.video(Arc::clone(clip), Priority::Interactive).await.unwrap());
            }
        });
    }
}
