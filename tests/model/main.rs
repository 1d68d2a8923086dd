//! Intact and damaged bundles, and their towers: what a server must refuse, and what it must answer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod running;
mod verification;

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

/// One loaded copy for all tests that only read it.
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
