//! Model bundles, and their towers in ONNX Runtime. docs/model-runtime.md gives the reasons for the design.

mod bundle;
mod error;
mod golden;
mod manifest;
mod onnx;
mod queue;
mod runtime;
mod sessions;
mod timings;
mod tokenizer;
mod tower;
mod towers;
mod worker;

use std::collections::BTreeMap;
use std::str::FromStr;

pub use bundle::Bundle;
pub use error::ModelError;
pub use golden::GoldenResult;
pub use runtime::environment;
pub use timings::Timings;
pub use tokenizer::MAX_TEXT_CHARS;
pub use towers::{Pending, Towers};

use crate::types::Space;

/// Where the towers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// CUDA if it works, otherwise the CPU; the log says which.
    Auto,
    /// Always the CPU.
    Cpu,
    /// CUDA device N; an error if it does not work.
    Cuda(u32),
}

impl FromStr for Device {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            other => other
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("expected auto, cpu, cuda or cuda:N, got `{other}`")),
        }
    }
}

/// The two classes of work; interactive work goes before bulk work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A user waits for it.
    Interactive,
    /// Work in the background, such as jobs.
    Bulk,
}

/// A tower's raw (not normalised) output per space, for one input.
pub type SpaceVectors = BTreeMap<Space, Vec<f32>>;

/// See [`crate::fuzz`].
#[cfg(test)]
pub(crate) mod fuzzed {
    use std::path::Path;
    use std::sync::LazyLock;

    use super::manifest::Manifest;
    use super::tokenizer::TextTokenizer;

    fn bundle(file: &str) -> Vec<u8> {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/small-world").join(file)).unwrap()
    }

    pub(crate) fn manifest_seeds() -> Vec<Vec<u8>> {
        // Without the free-form part, which is most of the manifest: mutations should hit the fields that
        // count.
        let mut json: serde_json::Value = serde_json::from_slice(&bundle("manifest.json")).unwrap();
        for free in ["training", "evaluation"] {
            json.as_object_mut().unwrap().remove(free);
        }
        vec![serde_json::to_vec(&json).unwrap(), serde_json::to_vec_pretty(&json).unwrap()]
    }

    /// Accepted manifests describe towers of limited size.
    pub(crate) fn manifest(bytes: &[u8]) {
        let Ok((manifest, _)) = Manifest::parse(bytes) else { return };
        for spec in manifest.tower_specs().unwrap() {
            assert!(spec.row_len() > 0 && spec.row_len() < 1 << 36);
            assert!(spec.outputs.iter().all(|(_, _, dim)| (1..=1 << 16).contains(dim)));
        }
        let _ = manifest.picture();
    }

    static TOKENIZER: LazyLock<TextTokenizer> = LazyLock::new(|| {
        let (manifest, _) = Manifest::parse(&bundle("manifest.json")).unwrap();
        let text = manifest.preprocessing.text.unwrap();
        TextTokenizer::new(&bundle(&text.tokenizer), &text).unwrap()
    });

    pub(crate) fn text_seeds() -> Vec<Vec<u8>> {
        let texts = [
            "a red circle moves to the left",
            "RED, Circle! child's",
            "ｒｅｄ ①② ﬁ ǅ İ ß",
            "e\u{301}\u{301}\u{301} 한국어 \u{200d}\u{fe0f} \u{1f468}\u{200d}\u{1f469}",
        ];
        texts.map(|text| text.as_bytes().to_vec()).into_iter().chain([b"red ".repeat(3000)]).collect()
    }

    /// A text becomes ids of the fixed length, or is refused.
    pub(crate) fn tokenizer(bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        match TOKENIZER.encode(&text) {
            Ok((ids, words)) => assert!((1..=ids.len()).contains(&words)),
            Err(error) => assert!(["no_known_words", "text_too_long"].contains(&error.code()), "{error}"),
        }
    }
}
