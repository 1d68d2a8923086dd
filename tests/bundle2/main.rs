//! Bundles of format version 2: several towers of a modality, graphs with several inputs, inputs of any length,
//! weights in files beside the graphs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::try_join_all;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use triptych::model::{
    Bundle, Cut, Device, ModelError, Pixels, Priority, Role, Samples, SpaceVectors, Towers,
};
use triptych::native::NativeParts;
use triptych::types::{Modality, Space};

const NOW: Priority = Priority::Interactive;

fn folder(name: &str) -> PathBuf {
    common::manifest_dir().join("tests/bundles").join(name)
}

fn native() -> NativeParts {
    NativeParts::find().expect("the native parts; run `make native`")
}

fn load(dir: &Path) -> Result<Towers, ModelError> {
    Towers::load(Arc::new(Bundle::open(dir)?), &native(), Device::Cpu, 1)
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A copy of a bundle to damage.
struct Copy {
    dir: tempfile::TempDir,
}

impl Copy {
    fn of(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        common::copy(&folder(name), dir.path());
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn edit_manifest(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.path("manifest.json");
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        edit(&mut json);
        std::fs::write(path, json.to_string()).unwrap();
    }

    fn edit_file(&self, name: &str, edit: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let bytes = edit(std::fs::read(self.path(name)).unwrap());
        std::fs::write(self.path(name), &bytes).unwrap();
        let digest = hex::encode(Sha256::digest(bytes));
        self.edit_manifest(|json| json["files"][name] = json!(digest));
    }

    fn refused(&self) -> (&'static str, String) {
        code(load(self.dir.path()))
    }
}

fn code<T>(result: Result<T, ModelError>) -> (&'static str, String) {
    let error = result.err().expect("an error");
    (error.code(), error.to_string())
}

/// Replaces every occurrence of a text by another one of the same length.
fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let mut found = 0;
    for at in 0..bytes.len().saturating_sub(from.len()) {
        if bytes[at..].starts_with(from.as_bytes()) {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            found += 1;
        }
    }
    assert!(found > 0, "{from} is not in the file");
    bytes
}

fn close(a: &SpaceVectors, b: &SpaceVectors) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (space, vector) in a {
        for (a, b) in vector.iter().zip(&b[space]) {
            assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{space}: {a} {b}");
        }
    }
}

#[test]
fn two_families_prove_themselves() {
    let towers = load(&folder("two-families")).unwrap();
    let checked: Vec<String> =
        towers.goldens().iter().map(|golden| format!("{} {}", golden.name, golden.space)).collect();
    let all = ["audio both", "audio sound", "text look", "text-sound sound", "video both", "video look"];
    assert!(all.iter().all(|one| checked.contains(&(*one).to_owned())), "{checked:?}");
    let bundle = towers.bundle();
    assert_eq!(bundle.sources().len(), 2);
    assert_eq!(bundle.languages(), ["en", "de"]);
    assert_eq!(towers.bank().len(), 32);
    let (look, sound) = (Space::new("look"), Space::new("sound"));
    block_on(async {
        // One text goes through both text towers.
        let text = towers.text("a dog barking", NOW).await.unwrap();
        assert_eq!(text.keys().collect::<Vec<_>>(), [&look, &sound]);
        // One output is the vector of two spaces; a picture has that of its own space only.
        let frames: Arc<[u8]> = (0..2 * 8 * 8 * 3).map(|n| (n % 251) as u8).collect();
        let video = towers.video(Arc::clone(&frames), NOW).await.unwrap();
        assert_eq!(video[&look], video[&Space::new("both")]);
        let picture: Arc<[u8]> = frames[..8 * 8 * 3].into();
        let still = towers.image(Arc::clone(&picture), NOW).await.unwrap();
        assert_eq!(still.keys().collect::<Vec<_>>(), [&look]);
        let moving = towers.video(Arc::<[u8]>::from(picture.repeat(2)), NOW).await.unwrap();
        assert_eq!(still[&look], moving[&look]);
        // A query and a document are told apart where the model does so.
        let query = towers.text_as("a dog", Role::Query, NOW).await.unwrap();
        let document = towers.text_as("a dog", Role::Document, NOW).await.unwrap();
        assert!(query[&look] == document[&look] && query[&sound] != document[&sound]);
    });
}

#[test]
fn inputs_of_any_length_are_batched_by_length() {
    let towers = load(&folder("odd-inputs")).unwrap();
    let texts =
        ["a", "dog barking", "a red door", "old wooden doors near a guitar", "the dog", "rain rain rain"];
    let sounds: Vec<Samples> = [1600, 3200, 1600, 16_000, 3200, 1600]
        .iter()
        .enumerate()
        .map(|(n, length)| {
            let pcm: Arc<[f32]> = (0..*length).map(|at| ((at * (n + 3)) as f32 * 0.01).sin()).collect();
            Samples { pcm, own: length - n }
        })
        .collect();
    block_on(async {
        let together =
            try_join_all(texts.iter().map(|text| towers.text(text, Priority::Bulk))).await.unwrap();
        for (text, batched) in texts.iter().zip(&together) {
            close(batched, &towers.text(text, NOW).await.unwrap());
        }
        let asked = sounds.iter().map(|sound| towers.audio(sound.clone(), Priority::Bulk));
        for (sound, batched) in sounds.iter().zip(try_join_all(asked).await.unwrap()) {
            close(&batched, &towers.audio(sound.clone(), NOW).await.unwrap());
        }
        // How much of it is the sound's own reaches the graph.
        let shorter = Samples { own: 10, ..sounds[0].clone() };
        let (a, b) =
            (towers.audio(sounds[0].clone(), NOW).await.unwrap(), towers.audio(shorter, NOW).await.unwrap());
        assert_ne!(a, b);
        // A still picture is patches with their grid.
        let values: Arc<[u8]> = (0..6 * 48).map(|n| (n % 250) as u8).collect();
        let picture = |grid| Pixels { values: Arc::clone(&values), grid, frame_count: None };
        let wide = towers.image(picture(Some([1, 6])), NOW).await.unwrap();
        let small = towers.image(picture(Some([1, 3])), NOW).await.unwrap();
        let all = Space::new("all");
        assert!(wide[&all].iter().zip(&small[&all]).all(|(w, s)| (w * 2.0 - s).abs() <= 1e-2 * s.abs()));
        assert_eq!(code(towers.image(picture(None), NOW).await).0, "tower_failed");
        assert_eq!(code(towers.image(Arc::<[u8]>::from(vec![0; 48]), NOW).await).0, "tower_failed");
    });
}

#[test]
fn weights_beside_a_graph_are_verified_and_stay_inside() {
    let swapped = Copy::of("two-families");
    let bundle = Arc::new(Bundle::open(swapped.dir.path()).unwrap());
    let mut weights = std::fs::read(swapped.path("weights.bin")).unwrap();
    weights[100] ^= 1;
    std::fs::write(swapped.path("weights.bin"), weights).unwrap();
    let (swap, message) = code(Towers::load(bundle, &native(), Device::Cpu, 1));
    assert_eq!(swap, "model_file_damaged");
    assert!(message.contains("weights.bin"), "{message}");

    for (location, expected) in [
        ("weights.bix", "`files` in the manifest does not list"),
        ("../eights.b", "not a plain path"),
        ("/etc/passwd", "not a plain path"),
    ] {
        let copy = Copy::of("two-families");
        copy.edit_file("video.onnx", |bytes| replaced(&bytes, "weights.bin", location));
        let (code, message) = copy.refused();
        assert_eq!(code, "manifest_invalid", "{message}");
        assert!(
            message.contains("video.onnx") && message.contains(location) && message.contains(expected),
            "{message}"
        );
    }
    // Weights that end too early.
    let copy = Copy::of("two-families");
    copy.edit_file("weights.bin", |bytes| bytes[..bytes.len() / 2].to_vec());
    let (code, message) = copy.refused();
    assert_eq!(code, "tower_failed", "{message}");
}

#[test]
fn a_graph_that_contradicts_the_manifest_is_named() {
    type Edit = fn(&mut Value);
    let cases: [(Edit, &str); 8] = [
        (
            |json| json["towers"]["video"]["inputs"]["frames"] = json!("frames"),
            "the manifest names [\"frames\"]",
        ),
        (
            |json| json["towers"]["text"]["inputs"]["attention_mask"] = json!("mask"),
            "names the input `mask` for attention_mask",
        ),
        (
            |json| drop(json["towers"]["text"]["inputs"].as_object_mut().unwrap().remove("attention_mask")),
            "the graph's inputs are",
        ),
        (
            |json| json["towers"]["text"]["outputs"]["look"] = json!("vector"),
            "no output `vector` for space `look`",
        ),
        (
            |json| json["towers"]["audio"]["preprocessing"]["sound"]["samples"] = json!(8000),
            "expected `audio.pcm` of shape",
        ),
        (|json| json["spaces"][0]["dim"] = json!(7), "expected `text.look` to be f32 [2, 7]"),
        (
            |json| json["towers"]["text"]["preprocessing"]["text"]["padding"] = json!("none"),
            "tokenizer.json does not reproduce",
        ),
        (
            |json| json["towers"]["audio"]["preprocessing"]["sound"]["short"] = json!("as_is"),
            "has the shape [-1, 16000] in the graph, but the manifest makes it [any, any]",
        ),
    ];
    for (edit, expected) in cases {
        let copy = Copy::of("two-families");
        copy.edit_manifest(edit);
        let (_, message) = copy.refused();
        assert!(message.contains(expected), "{message}");
    }
    // Two inputs that are mistaken for each other.
    let copy = Copy::of("odd-inputs");
    copy.edit_manifest(|json| {
        json["towers"]["audio"]["inputs"] = json!({"pcm": "own", "pcm_samples": "pcm"})
    });
    let (_, message) = copy.refused();
    assert!(message.contains("audio.onnx") && message.contains("but the manifest makes them"), "{message}");
    // Golden texts without their ids.
    let copy = Copy::of("two-families");
    copy.edit_manifest(|json| json["goldens"]["texts"] = json!(["a dog barking"]));
    let (code, message) = copy.refused();
    assert_eq!(code, "manifest_invalid");
    assert!(message.contains("1 golden texts"), "{message}");
}

#[test]
fn a_tokenizer_that_numbers_otherwise_is_stopped() {
    let copy = Copy::of("two-families");
    copy.edit_manifest(|json| {
        json["towers"]["text-sound"]["preprocessing"]["text"]["prompts"]["query"] = json!("find: {text}");
    });
    let (code, message) = copy.refused();
    assert_eq!(code, "golden_mismatch");
    assert!(message.contains("gemma/tokenizer.json"), "{message}");
}

#[test]
fn cut_vectors_are_those_of_another_model() {
    let whole = Bundle::open(&folder("two-families")).unwrap();
    let id = whole.id().clone();
    let look = Space::new("look");
    let cut = |text: &str| whole.clone().cut(&[text.parse::<Cut>().unwrap()]);
    assert_eq!(cut("look=8").unwrap().id(), &id);
    let short = cut("look=4").unwrap();
    assert_eq!((short.dim(&look), short.dim(&Space::new("sound"))), (Some(4), Some(6)));
    assert!(*short.id() != id && *short.id() == *cut("4").unwrap().id());
    for (asked, expected) in
        [("look=3", "look (8, 4)"), ("sound=4", "sound (6)"), ("nowhere=4", "nowhere=4"), ("100", "100")]
    {
        let (code, message) = code(cut(asked));
        assert_eq!(code, "bad_dim");
        assert!(message.contains(expected), "{message}");
    }
    assert!("look=".parse::<Cut>().is_err());
    let (whole, short) = (
        load(&folder("two-families")).unwrap(),
        Towers::load(Arc::new(short), &native(), Device::Cpu, 1).unwrap(),
    );
    block_on(async {
        let (whole, short) =
            (whole.text("a dog", NOW).await.unwrap(), short.text("a dog", NOW).await.unwrap());
        assert_eq!(whole[&look][..4], short[&look][..]);
        assert_eq!(whole[&Space::new("sound")], short[&Space::new("sound")]);
    });
}

#[test]
fn a_published_checkpoint_says_what_to_run() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), "{}").unwrap();
    let (code, message) = code(Bundle::open(dir.path()));
    assert_eq!(code, "model_not_imported");
    assert!(message.contains(&dir.path().display().to_string()), "{message}");
    let open = ["embed", "--model", dir.path().to_str().unwrap(), "a dog"];
    let said = String::from_utf8(common::run(&open).stderr).unwrap();
    let command = format!("triptych-trainer import-hf {} --out models/NAME", dir.path().display());
    assert!(said.contains(&command), "{said}");
}

#[test]
fn a_text_reaches_both_tracks_each_in_its_own_space() {
    let server = common::Server::start(common::Options {
        args: vec!["--model".to_owned(), folder("two-families").display().to_string()],
        ..common::Options::default()
    });
    for n in 0..3_u32 {
        server.add(&common::video(&format!("two-{n}.mp4"), 8.0, 300 + 100 * n));
    }
    let model = server.get_json("/v1/models")["data"][0].clone();
    assert_eq!(model["license"], "Apache-2.0");
    assert_eq!(model["sources"][0]["repository"], "example/pictures");
    assert_eq!(model["languages"], json!(["en", "de"]));
    assert_eq!(model["towers"].as_array().unwrap().len(), 5);
    let ask = |targets: Value| {
        server.post_json("/v1/search", &json!({"query": "a dog barking", "targets": targets, "limit": 20}))
    };
    let one = ask(json!(["video"]));
    assert_eq!(
        (&one["space"], &one["spaces"], &one["fused_by"]),
        (&json!("look"), &json!(["look"]), &Value::Null)
    );
    let both = ask(json!(["video", "audio"]));
    assert_eq!(both["spaces"], json!(["look", "sound"]));
    assert!(["confidence", "rank"].contains(&both["fused_by"].as_str().unwrap()), "{both}");
    let hits = both["data"].as_array().unwrap();
    let spaces: std::collections::BTreeSet<(&str, &str)> =
        hits.iter().map(|hit| (hit["matched"].as_str().unwrap(), hit["space"].as_str().unwrap())).collect();
    assert!(spaces.is_subset(&[("video", "look"), ("audio", "sound")].into()), "{spaces:?}");
    let clips: Vec<(&str, String)> =
        hits.iter().map(|hit| (hit["asset_id"].as_str().unwrap(), hit["start_secs"].to_string())).collect();
    let distinct: std::collections::BTreeSet<_> = clips.iter().collect();
    assert_eq!(distinct.len(), clips.len(), "each clip once");
    // A sound can be compared with both in one space.
    let sound = ask(json!(["audio"]));
    assert_eq!(sound["space"], "sound");
    // What both mean together, what each clip of a file says, and what will come: all over two spaces.
    let mean = json!({"query": "a dog", "targets": ["video", "audio"], "fuse": "mean"});
    let mean = server.post_json("/v1/search", &mean);
    assert_eq!(mean["spaces"], json!(["look", "sound"]));
    assert!(!mean["data"].as_array().unwrap().is_empty());
    let asset = hits[0]["asset_id"].as_str().unwrap();
    for fuse in ["best", "mean"] {
        let line = server.get_json(&format!(
            "/v1/assets/{asset}/timeline?q=a+dog+barking&targets=video,audio&fuse={fuse}"
        ));
        assert_eq!(line["spaces"], json!(["look", "sound"]));
        let clips = line["data"].as_array().unwrap();
        assert!(!clips.is_empty() && !line["moments"].as_array().unwrap().is_empty());
        let names_its_space =
            |clip: &Value| clip["space"] == if clip["matched"] == "video" { "look" } else { "sound" };
        assert!(clips.iter().all(names_its_space), "{line}");
    }
    let standing = json!({"query": "a dog", "targets": ["video", "audio"]});
    assert_eq!(server.post("/v1/standing-queries", &standing).status().as_u16(), 201);
    let by_score = json!({"query": "a dog", "targets": ["video", "audio"], "min_score": 0.1});
    assert_eq!(
        common::error_of(server.post("/v1/standing-queries", &by_score)),
        (400, "invalid_value".to_owned())
    );
    // What a document is told apart by reaches the tower.
    let embed = |role: &str| {
        let body = json!({"modality": "text", "input": "a dog", "space": "sound", "role": role});
        server.post_json("/v1/embeddings", &body)
    };
    assert_ne!(embed("query")["data"][0]["embedding"], embed("document")["data"][0]["embedding"]);
    assert!(embed("query")["usage"]["prompt_tokens"].as_u64().unwrap() > 2);
    let modality = Modality::Text.as_str();
    let wrong = json!({"modality": modality, "input": "a dog", "role": "answer"});
    assert_eq!(server.post("/v1/embeddings", &wrong).status().as_u16(), 400);
    server.stop();
}

#[test]
fn patches_and_sounds_of_any_length_go_the_whole_way() {
    let server = common::Server::start(common::Options {
        args: vec![
            "--model".to_owned(),
            folder("odd-inputs").display().to_string(),
            "--dim".to_owned(),
            "4".to_owned(),
        ],
        ..common::Options::default()
    });
    let picture = server.add(&common::picture("odd.png"));
    let sound = server.upload_bytes("odd.wav", common::wav(3, 0.33), "?wait=true");
    let sound = common::ok_json(sound);
    let answer =
        server.post_json("/v1/search", &json!({"query": "a red door", "targets": ["video", "audio"]}));
    let found: Vec<&Value> = answer["data"].as_array().unwrap().iter().map(|hit| &hit["asset_id"]).collect();
    assert!(found.contains(&&picture["id"]) && found.contains(&&sound["id"]), "{answer}");
    // Each finds itself.
    let own = json!({"query": {"asset": {"id": sound["id"]}}, "targets": ["audio"], "filter": {"asset_ids": [sound["id"]]}});
    assert!(server.search(&own)[0]["score"].as_f64().unwrap() > 0.9999);
    assert_eq!(server.get_json("/v1/models")["data"][0]["spaces"][0]["dim"], 4);
    server.stop();
}

#[test]
fn dropped_words_are_named_in_the_answer() {
    let server = common::Server::start(common::Options::default());
    server.add(&common::video("ignored.mp4", 4.0, 440));
    let answer = server.post_json("/v1/search", &json!({"query": "a red zebra", "limit": 1}));
    let ignored = answer["ignored_words"].as_array().unwrap();
    assert!(ignored.contains(&json!("zebra")) && !ignored.contains(&json!("red")), "{answer}");
    server.stop();
}
