//! Bundles that are damaged or contradict their manifest.

use super::*;

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
