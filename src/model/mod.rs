//! Model bundles, and their towers in ONNX Runtime. docs/model-runtime.md gives the reasons for the design.

mod bundle;
mod error;
mod golden;
mod graph;
mod onnx;
mod queue;
mod runtime;
mod sessions;
mod shared;
mod timings;
mod tokenizer;
mod tower;
mod towers;
mod worker;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

pub use crate::manifest::Source;
pub use bundle::{Bundle, Cut, TowerFacts};
pub use error::{ADDRESS_SPACE_MIB, ModelError};
pub use golden::GoldenResult;
pub use runtime::environment;
pub use timings::Timings;
pub use tokenizer::{MAX_TEXT_CHARS, Role};
pub use towers::{Pending, Towers};

use crate::types::{Embedding, Space};

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

/// The frames of a clip, or a picture, as a tower takes them.
#[derive(Debug, Clone)]
pub struct Pixels {
    /// u8 [T, H, W, 3] of a clip and [H, W, 3] of a picture; in patches, [T, P, p * p * 3] and
    /// [P, p * p * 3].
    pub values: Arc<[u8]>,
    /// Rows and columns of patches, if it is cut into patches.
    pub grid: Option<[usize; 2]>,
    /// How many frames of a clip are its own, before they are repeated to fill it; `None` for all.
    pub frame_count: Option<usize>,
}

impl From<Arc<[u8]>> for Pixels {
    fn from(values: Arc<[u8]>) -> Self {
        Self { values, grid: None, frame_count: None }
    }
}

/// Sound as a tower takes it.
#[derive(Debug, Clone)]
pub struct Samples {
    /// f32 [samples].
    pub pcm: Arc<[f32]>,
    /// How many of them are the sound's own, before padding.
    pub own: usize,
}

impl From<Arc<[f32]>> for Samples {
    fn from(pcm: Arc<[f32]>) -> Self {
        Self { own: pcm.len(), pcm }
    }
}

/// A text for calibration, embedded.
#[derive(Debug, Clone)]
pub struct BankText {
    /// Its words.
    pub words: usize,
    /// Its unit vectors.
    pub vectors: BTreeMap<Space, Embedding>,
}

/// What the text towers make of a text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextReading {
    /// Words that count for calibration; of a word list, those that it knows.
    pub words: usize,
    /// Ids that a tower sees, without padding.
    pub tokens: usize,
    /// Words with a meaning that no tower sees, shortened.
    pub ignored: Vec<String>,
    /// Share of the words with a meaning that the tower of a space sees, where that is not all of them.
    pub understood: BTreeMap<Space, f32>,
}

/// See [`crate::fuzz`].
#[cfg(test)]
pub(crate) mod fuzzed {
    use std::path::Path;
    use std::sync::LazyLock;

    use super::Role;
    use super::tokenizer::TextTokenizer;
    use crate::manifest::Manifest;

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
        for spec in &manifest.towers {
            assert!(spec.row_len() > 0 && spec.row_len() <= 1 << 37);
            assert!(spec.spaces().all(|(_, dim)| (1..=1 << 16).contains(&dim)));
        }
        let _ = manifest.picture();
    }

    static TOKENIZER: LazyLock<TextTokenizer> = LazyLock::new(|| {
        let (manifest, _) = Manifest::parse(&bundle("manifest.json")).unwrap();
        let text = manifest.towers.iter().find_map(|tower| tower.text()).unwrap();
        TextTokenizer::new(&bundle(text.tokenizer()), text).unwrap()
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
        match TOKENIZER.encode(&text, Role::Query) {
            Ok(encoded) => assert!((1..=encoded.ids.len()).contains(&encoded.words)),
            Err(error) => assert!(["no_known_words", "text_too_long"].contains(&error.code()), "{error}"),
        }
    }
}
