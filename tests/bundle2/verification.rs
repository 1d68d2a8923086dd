//! Bundles that are checked before they serve.

use super::*;

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
        // A query and a document get different vectors if the model distinguishes them.
        let query = towers.text_as("a dog", Role::Query, NOW).await.unwrap();
        let document = towers.text_as("a dog", Role::Document, NOW).await.unwrap();
        assert!(query[&look] == document[&look] && query[&sound] != document[&sound]);
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
