use serde_json::{Value, json};

use super::*;

fn valid_v1() -> Value {
    let sha = "0".repeat(64);
    json!({
        "format_version": 1, "name": "m", "license": "Apache-2.0",
        "spaces": [
            {"name": "fine", "dim": 8, "members": ["video", "image"]},
            {"name": "coarse", "dim": 4, "members": ["text", "video"]}
        ],
        "towers": {
            "video": {"file": "video.onnx", "precision": "f32",
                      "input": {"name": "frames", "dtype": "u8", "shape": [null, 2, 4, 4, 3]},
                      "outputs": {"fine": "fine", "coarse": "coarse"}},
            "text": {"file": "text.onnx", "precision": "f32",
                     "input": {"name": "token_ids", "dtype": "i64", "shape": [null, 5]},
                     "outputs": {"coarse": "coarse"}},
            "image": {"inflates": "video"}
        },
        "preprocessing": {
            "video": {"fps": 2.5, "frames": 2, "resize_shorter_side": 4, "crop": 4},
            "text": {"tokenizer": "tokenizer.json", "max_words": 5, "pad_id": 0, "unknown_id": 1}
        },
        "goldens": {"file": "g.safetensors", "max_one_minus_cosine": 1e-5, "texts": []},
        "files": {"video.onnx": sha, "text.onnx": sha, "tokenizer.json": sha, "g.safetensors": sha},
        "training": {"anything": ["goes"]}
    })
}

fn parse(json: &Value) -> Result<Manifest, String> {
    Manifest::parse(&serde_json::to_vec(json).unwrap()).map(|(manifest, _)| manifest)
}

#[test]
fn towers_follow_the_manifest_and_no_name_is_built_in() {
    let specs = parse(&valid_v1()).unwrap().towers;
    assert_eq!(specs.iter().map(|s| s.modality).collect::<Vec<_>>(), [Modality::Text, Modality::Video]);
    assert_eq!(specs[1].row_len(), 2 * 4 * 4 * 3);
    let spaces: Vec<_> = specs[1].spaces().map(|(space, dim)| (space.as_str(), dim)).collect();
    assert_eq!(spaces, [("fine", 8), ("coarse", 4)]);
}

#[test]
fn every_deviation_of_version_1_is_named() {
    let cases: &[(&str, Value, &str)] = &[
        ("/format_version", json!(3), "format_version 1 or 2, got 3"),
        ("/spaces/0/extra", json!(1), "unknown field"),
        ("/surprise", json!(1), "unknown field"),
        ("/towers/video/input/shape", json!([null, 3, 4, 4, 3]), "towers.video.input"),
        ("/towers/video/outputs", json!({"fine": "fine"}), "towers.video.outputs"),
        ("/towers/image", json!({"inflates": "text"}), "only an image"),
        ("/towers/image", json!({"inflates": "video", "file": "x.onnx"}), "must be the only field"),
        ("/towers/video/file", json!("../video.onnx"), "not a plain path"),
        ("/towers/video/file", json!("/etc/passwd"), "not a plain path"),
        ("/towers/video/file", json!("other.onnx"), "not listed in `files`"),
        ("/files/a~1..~1..~1b", json!("0".repeat(64)), "not a plain path"),
        ("/files/video.onnx", json!("xyz"), "no lower-case SHA-256"),
        ("/preprocessing/video/fps", json!(0.0), "fps"),
        ("/preprocessing/video/crop", json!(5), "crop 5"),
        ("/goldens/max_one_minus_cosine", json!(0.5), "max_one_minus_cosine"),
        ("/spaces/1/name", json!("fine"), "appears twice"),
        ("/spaces/0/dim", json!(0), "dim 0"),
        ("/spaces/1/members", json!(["text", "video", "audio"]), "no audio tower"),
    ];
    refuse(&valid_v1(), cases);
    assert!(parse(&valid_v1()).is_ok());
}

/// Replaces a value of a manifest; `null` removes it.
fn with(manifest: &Value, pointer: &str, value: &Value) -> Value {
    let mut json = manifest.clone();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let key = key.replace("~1", "/");
    let parent = json.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
    match (parent, value) {
        (Value::Object(map), Value::Null) => drop(map.remove(&key).unwrap_or_else(|| panic!("{pointer}"))),
        (Value::Array(list), value) => list[key.parse::<usize>().unwrap()] = value.clone(),
        (parent, value) => parent[key.as_str()] = value.clone(),
    }
    json
}

fn refuse(manifest: &Value, cases: &[(&str, Value, &str)]) {
    let mut wrong = Vec::new();
    for (pointer, value, expected) in cases {
        match parse(&with(manifest, pointer, value)) {
            Ok(_) => wrong.push(format!("{pointer} = {value} was accepted")),
            Err(message) if message.contains(expected) => {}
            Err(message) => wrong.push(format!("{pointer} = {value}: {message}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn accept(manifest: &Value, cases: &[(&str, Value)]) {
    for (pointer, value) in cases {
        if let Err(message) = parse(&with(manifest, pointer, value)) {
            panic!("{pointer} = {value}: {message}");
        }
    }
}

/// Two families in one bundle: pictures with text, and sound with text.
fn valid_v2() -> Value {
    let sha = "0".repeat(64);
    let picture = json!({"resize": {"rule": "patches", "patch": 16, "max_patches": 256, "multiple": 16, "fit": "siglip2"},
                         "resample": "bilinear", "picture": "shown", "bars": "keep"});
    json!({
        "format_version": 2, "name": "both", "description": "two families", "license": "Apache-2.0",
        "sources": [{"family": "siglip2", "repository": "google/siglip2", "revision": null, "license": "Apache-2.0",
                     "license_file": "LICENSE", "card": "what it is", "languages": ["en"],
                     "files": {"model.safetensors": sha}}],
        "spaces": [
            {"name": "siglip2", "dim": 768, "members": ["text", "image", "video"]},
            {"name": "clap", "dim": 512, "dims": [256, 128], "members": ["text", "audio"]}
        ],
        "towers": {
            "video": {"modality": "video", "file": "video.onnx", "precision": "f32", "precisions": ["f32", "bf16"],
                      "inputs": {"frames": "pixels", "patch_grid": "grid"}, "outputs": {"siglip2": "embedding"},
                      "preprocessing": {"picture": picture, "sampling": {"rule": "spread", "frames": 4, "window_secs": 10.0}}},
            "image": {"modality": "image", "inflates": "video"},
            "audio": {"modality": "audio", "file": "audio.onnx", "precision": "f32",
                      "inputs": {"pcm": "input", "pcm_samples": "n"}, "outputs": {"clap": "embedding"},
                      "preprocessing": {"sound": {"sample_rate_hz": 48000, "samples": 480_000, "short": "repeat_zeros"}}},
            "text": {"modality": "text", "file": "text.onnx", "precision": "f32",
                     "inputs": {"token_ids": "input_ids"}, "outputs": {"siglip2": "embedding"},
                     "preprocessing": {"text": {"kind": "tokens", "tokenizer": "text/tokenizer.json", "max_tokens": 64,
                                                "special_tokens": true, "padding": "max", "pad_id": 0, "lowercase": true}}},
            "text-clap": {"modality": "text", "file": "text-clap.onnx", "precision": "f32",
                          "inputs": {"token_ids": "input_ids", "attention_mask": "mask"}, "outputs": {"clap": "embedding"},
                          "preprocessing": {"text": {"kind": "tokens", "tokenizer": "text-clap/tokenizer.json", "max_tokens": 77,
                                                     "special_tokens": true, "padding": "none",
                                                     "prompts": {"query": "q: {text}", "document": "d: {text}"},
                                                     "languages": ["en"]}}}
        },
        "bank": {"file": "bank.json", "source": "made up"},
        "goldens": {"file": "g.safetensors", "max_one_minus_cosine": 1e-5, "texts": ["a dog"]},
        "files": {"video.onnx": sha, "audio.onnx": sha, "text.onnx": sha, "text-clap.onnx": sha, "weights.bin": sha,
                  "text/tokenizer.json": sha, "text-clap/tokenizer.json": sha, "bank.json": sha, "g.safetensors": sha},
        "training": {}, "evaluation": {}
    })
}

#[test]
fn a_bundle_of_two_families_is_understood() {
    let manifest = parse(&valid_v2()).unwrap();
    let names: Vec<&str> = manifest.towers.iter().map(|tower| tower.name.as_str()).collect();
    assert_eq!(names, ["audio", "text", "text-clap", "video"]);
    let rows = |tower: usize| -> Vec<Vec<Option<usize>>> {
        manifest.towers[tower].inputs.iter().map(|input| input.row.clone()).collect()
    };
    assert_eq!(rows(0), [vec![Some(480_000)], vec![]]);
    assert_eq!(rows(1), [[Some(64)]]);
    assert_eq!(rows(2), [[None], [None]]);
    assert_eq!(rows(3), [vec![Some(4), Some(256), Some(768)], vec![Some(2)]]);
    assert_eq!(manifest.towers[3].inputs[1].golden, "video.patch_grid");
    assert!(manifest.takes(Modality::Image) && manifest.picture().is_some());
    assert_eq!(manifest.sources[0].languages, ["en"]);
    assert_eq!(manifest.spaces[1].dims, [256, 128]);
}

#[test]
fn one_output_may_serve_two_spaces() {
    let mut json = valid_v2();
    json["spaces"][0] = json!({"name": "siglip2", "dim": 512, "members": ["text", "image", "video"]});
    json["spaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "av", "dim": 512, "members": ["video", "audio"]}));
    json["towers"]["video"]["outputs"]["av"] = json!("embedding");
    json["towers"]["audio"]["outputs"]["av"] = json!("embedding");
    let manifest = parse(&json).unwrap();
    assert_eq!(manifest.towers[3].outputs.len(), 1);
    assert_eq!(manifest.towers[3].spaces().count(), 2);
    // The same name for vectors of two lengths cannot be.
    json["spaces"][2]["dim"] = json!(16);
    json["towers"]["audio"]["outputs"]["av"] = json!("other");
    let manifest = parse(&json).unwrap();
    assert_eq!(manifest.towers[3].outputs.len(), 2, "the graph tells which of them is wrong");
}

#[test]
fn every_choice_of_version_2_is_understood() {
    let frames = "/towers/video/inputs";
    let mut square = with(&valid_v2(), frames, &json!({"frames": "pixels"}));
    square["towers"]["video"]["preprocessing"]["picture"] = json!({
        "resize": {"rule": "shorter_side", "size": 224}, "resample": "bicubic", "crop": {"height": 224, "width": 160},
        "picture": "stored", "bars": "crop"});
    let picture = "/towers/video/preprocessing/picture";
    accept(
        &square,
        &[
            (
                picture,
                json!({"resize": {"rule": "exact", "height": 384, "width": 256}, "resample": "lanczos", "picture": "shown", "bars": "keep"}),
            ),
            (
                picture,
                json!({"resize": {"rule": "shorter_side", "size": 64}, "resample": "mmv", "crop": {"height": 64, "width": 64}, "picture": "shown", "bars": "keep"}),
            ),
            ("/towers/video/preprocessing/picture/resample", json!("nearest")),
            (
                "/towers/video/preprocessing/sampling",
                json!({"rule": "rate", "fps": 2.5, "frames": 8, "take": "nearest", "short": "loop"}),
            ),
            (
                "/towers/video/preprocessing/sampling",
                json!({"rule": "rate", "fps": 1.0, "frames": 10, "take": "on_screen", "stride_secs": 5.0}),
            ),
        ],
    );
    let sound = "/towers/audio/preprocessing/sound";
    accept(
        &valid_v2(),
        &[
            (sound, json!({"sample_rate_hz": 16000, "samples": 16000, "stride_secs": 0.5, "short": "loop"})),
            (
                sound,
                json!({"sample_rate_hz": 16000, "samples": 16000, "short": "zeros",
                       "loudness": {"rule": "rms", "target_dbfs": -20.0, "max_gain_db": 30.0}}),
            ),
            (
                sound,
                json!({"sample_rate_hz": 48000, "samples": 480_000, "short": "as_is", "multiple": 1920, "edge": "reflect"}),
            ),
            (
                "/towers/video/preprocessing/picture/resize",
                json!({"rule": "patches", "patch": 16, "max_patches": 2520, "multiple": 48, "fit": "gemma"}),
            ),
            (
                "/towers/text/preprocessing/text",
                json!({"kind": "words", "tokenizer": "text/tokenizer.json", "max_tokens": 16, "pad_id": 0, "unknown_id": 1}),
            ),
            ("/towers/text/preprocessing/text/side", json!("left")),
            ("/towers/text/preprocessing/text/truncate", json!("left")),
            ("/bank", Value::Null),
            ("/sources", Value::Null),
        ],
    );
}

#[test]
fn every_deviation_of_version_2_is_named() {
    let cases: &[(&str, Value, &str)] = &[
        ("/surprise", json!(1), "unknown field"),
        ("/preprocessing", json!({}), "unknown field"),
        ("/spaces/0/extra", json!(1), "unknown field"),
        ("/towers/video/input", json!({}), "towers.video.input: unknown field `input`"),
        ("/towers/video/modality", json!("smell"), "towers.video.modality"),
        ("/towers/video/modality", Value::Null, "missing field `modality`"),
        ("/towers/vi deo", json!({"modality": "image", "inflates": "video"}), "towers: the name"),
        ("/towers/video/file", Value::Null, "towers.video has no `file`"),
        ("/towers/video/file", json!("../video.onnx"), "not a plain path"),
        ("/towers/video/file", json!("other.onnx"), "not listed in `files`"),
        ("/towers/video/precision", Value::Null, "towers.video has no `precision`"),
        ("/towers/video/precision", json!("f8"), "towers.video.precision"),
        ("/towers/video/precision", json!("f16"), "precision must be one of its `precisions`, got f16"),
        ("/towers/video/inputs", Value::Null, "towers.video has no `inputs`"),
        ("/towers/video/inputs", json!({"frames": "f"}), "patch_grid"),
        ("/towers/video/inputs", json!({"patch_grid": "g"}), "towers.video.inputs must name `frames`"),
        ("/towers/video/inputs", json!({"frames": "f", "patch_grid": "f"}), "two inputs have the name `f`"),
        ("/towers/video/inputs", json!({"frames": "", "patch_grid": "g"}), "empty input or output name"),
        ("/towers/video/inputs/pcm", json!("pcm"), "towers.video.inputs names `pcm`"),
        ("/towers/text/inputs/frames", json!("f"), "towers.text.inputs names `frames`"),
        ("/towers/audio/inputs", json!({"pcm_samples": "n"}), "towers.audio.inputs must name `pcm`"),
        ("/towers/video/outputs", Value::Null, "towers.video has no `outputs`"),
        ("/towers/video/outputs", json!({}), "towers.video.outputs must name"),
        (
            "/towers/video/outputs/clap",
            json!("o"),
            "towers.video.outputs names the space `clap`, but video is not a member of it",
        ),
        ("/towers/video/outputs/nowhere", json!("o"), "towers.video.outputs names the space `nowhere`"),
        (
            "/towers/text-clap/outputs",
            json!({"siglip2": "o"}),
            "both compute vectors of text in space `siglip2`",
        ),
        ("/spaces/1/members", json!(["text", "audio", "video"]), "`clap` is missing"),
        ("/spaces/1/members", json!(["text", "audio", "smell"]), "spaces[1].members"),
        ("/spaces/1/dims", json!([512]), "space `clap`: dims"),
        ("/spaces/1/name", json!("siglip2"), "appears twice"),
        ("/spaces/0/dim", json!(0), "dim 0"),
        ("/spaces", json!([]), "`clap`, which is not in `spaces`"),
        (
            "/towers/image",
            json!({"modality": "image", "inflates": "text"}),
            "only an image can inflate the video tower",
        ),
        ("/towers/image", json!({"modality": "image", "inflates": "film"}), "does not exist"),
        (
            "/towers/image",
            json!({"modality": "image", "inflates": "video", "file": "x.onnx"}),
            "must be the only field",
        ),
        ("/towers/video/preprocessing", Value::Null, "towers.video has no `preprocessing`"),
        ("/towers/video/preprocessing/sampling", Value::Null, "has no `sampling`, which video needs"),
        (
            "/towers/video/preprocessing/sound",
            json!({"sample_rate_hz": 8000, "samples": 1, "short": "loop"}),
            "towers.video.preprocessing.sound does not belong to a tower of video",
        ),
        ("/towers/video/preprocessing/sampling/frames", json!(0), "0 frames"),
        ("/towers/video/preprocessing/sampling/window_secs", json!(0.0), "sampling.window_secs"),
        ("/towers/video/preprocessing/sampling/stride_secs", json!(-1.0), "sampling.stride_secs"),
        ("/towers/video/preprocessing/sampling/rule", json!("some"), "towers.video.preprocessing.sampling"),
        ("/towers/video/preprocessing/sampling/fps", json!(1.0), "unknown field `fps`"),
        (
            "/towers/video/preprocessing/sampling",
            json!({"rule": "rate", "fps": 0.0, "frames": 8, "take": "nearest"}),
            "0 fps",
        ),
        ("/towers/video/preprocessing/picture/resample", json!("box"), "picture.resample"),
        (
            "/towers/video/preprocessing/picture/crop",
            json!({"height": 8, "width": 8}),
            "`crop` is only for the rule shorter_side",
        ),
        ("/towers/video/preprocessing/picture/resize/patch", json!(0), "resize.patch"),
        ("/towers/video/preprocessing/picture/resize/max_patches", json!(0), "resize.max_patches"),
        ("/towers/video/preprocessing/picture/resize/multiple", json!(24), "resize.multiple"),
        (
            "/towers/video/preprocessing/picture/resize",
            json!({"rule": "shorter_side", "size": 8}),
            "needs a `crop`",
        ),
        (
            "/towers/video/preprocessing/picture/resize",
            json!({"rule": "exact", "height": 0, "width": 8}),
            "height and width",
        ),
        ("/towers/video/preprocessing/picture/resize", json!({"rule": "stretch"}), "picture.resize"),
        ("/towers/audio/preprocessing/sound/samples", json!(0), "0 samples"),
        ("/towers/audio/preprocessing/sound/sample_rate_hz", json!(1), "1 Hz"),
        ("/towers/audio/preprocessing/sound/short", json!("cut"), "sound.short"),
        ("/towers/audio/preprocessing/sound/multiple", json!(2), "only for the rule as_is"),
        (
            "/towers/audio/preprocessing/sound/loudness",
            json!({"rule": "lufs", "target_dbfs": -20.0, "max_gain_db": 1.0}),
            "sound.loudness",
        ),
        (
            "/towers/audio/preprocessing/sound/loudness",
            json!({"rule": "rms", "target_dbfs": 3.0, "max_gain_db": 1.0}),
            "loudness: target_dbfs",
        ),
        ("/towers/text/preprocessing/text/kind", json!("bytes"), "preprocessing.text"),
        ("/towers/text/preprocessing/text/max_tokens", json!(0), "max_tokens 0"),
        ("/towers/text/preprocessing/text/pad_id", Value::Null, "needs `pad_id`"),
        (
            "/towers/text/preprocessing/text/prompts",
            json!({"query": "no place"}),
            "prompts.query must contain {text} once",
        ),
        ("/towers/text/preprocessing/text/prompts", json!({"answer": "{text}"}), "unknown field `answer`"),
        (
            "/towers/text/preprocessing/text",
            json!({"kind": "words", "tokenizer": "text/tokenizer.json", "max_tokens": 16, "pad_id": 1, "unknown_id": 1}),
            "pad_id equals unknown_id",
        ),
        ("/bank/file", json!("texts.json"), "not listed in `files`"),
        ("/files/a~1..~1..~1b", json!("0".repeat(64)), "not a plain path"),
        ("/files/video.onnx", json!("xyz"), "no lower-case SHA-256"),
        ("/goldens/max_one_minus_cosine", json!(0.5), "max_one_minus_cosine"),
        ("/format_version", json!("2"), "no format_version"),
    ];
    refuse(&valid_v2(), cases);
    assert!(parse(&valid_v2()).is_ok());
}

#[test]
fn towers_of_one_modality_take_the_same() {
    let mut json = valid_v2();
    json["spaces"].as_array_mut().unwrap().push(json!({"name": "other", "dim": 8, "members": ["video"]}));
    let mut second = json["towers"]["video"].clone();
    second["outputs"] = json!({"other": "o"});
    json["towers"]["video-2"] = second;
    assert!(parse(&json).is_ok());
    json["towers"]["video-2"]["preprocessing"]["sampling"]["frames"] = json!(5);
    let message = parse(&json).unwrap_err();
    assert!(message.contains("towers.video and towers.video-2"), "{message}");
}
