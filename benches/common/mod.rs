//! A library of made-up films in memory, filled the same way for every benchmark that searches one.

use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::Value;
use triptych::catalog::{Catalog, ClipEntry};
use triptych::index::{IndexSet, IndexSpec};
use triptych::search::{Backgrounds, Comparable, Corpus};
use triptych::sqlite::SqliteStore;
use triptych::store::{AssetRecord, AssetState, ClipVector};
use triptych::types::{AssetId, AssetKind, ClipId, Embedding, ModelId, Space, TimeSpan, Track};

/// Values of a vector.
pub const DIM: usize = 256;

/// The one space of the library.
pub fn space() -> Space {
    Space::new("coarse")
}

/// A random direction.
pub fn vector(rng: &mut StdRng) -> Embedding {
    let values = (0..DIM).map(|_| (0..4).map(|_| rng.random_range(-1.0_f32..1.0)).sum()).collect();
    Embedding::new(values, DIM).unwrap()
}

/// Film n, of no clips yet.
#[allow(dead_code)]
pub fn film(n: usize, metadata: Value) -> AssetRecord {
    AssetRecord {
        choice: Default::default(),
        tracks: Vec::new(),
        id: AssetId::generate(),
        sha256: String::new(),
        name: format!("film-{n}.mp4"),
        path: String::new(),
        owned: false,
        size_bytes: 1,
        kind: Some(AssetKind::Video),
        duration_secs: n as f64,
        width: 64,
        height: 64,
        state: AssetState::Ready,
        error: None,
        metadata,
        clips: 0,
        created_unix_ms: n as i64 * 60_000,
        updated_unix_ms: 0,
        file_mtime_ns: None,
        damage: None,
    }
}

/// `clips` clips of films of `clips_per_asset` each, film n with `metadata(n)`; the films, and the folder
/// that must outlive the library.
pub fn library(
    clips: usize,
    clips_per_asset: usize,
    metadata: impl Fn(usize) -> Value,
    backgrounds: Backgrounds,
    rng: &mut StdRng,
) -> (Corpus, Vec<AssetId>, tempfile::TempDir) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let model = ModelId("bench".into());
    let index = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = SqliteStore::open(dir.path(), &model).await.unwrap();
        IndexSet::open(
            &dir.path().join("index"),
            &model,
            &[IndexSpec::new(Track::Video, space(), DIM)],
            &store,
        )
        .await
    });
    let (index, catalog, mut assets) = (index.unwrap(), Catalog::default(), Vec::new());
    for n in 0..clips / clips_per_asset {
        let film = film(n, metadata(n));
        catalog.put_asset(&film);
        assets.push(film.id);
        let clip = |at: usize| ClipEntry {
            id: ClipId((n * clips_per_asset + at) as i64 + 1),
            span: TimeSpan::new(at as f64 * 3.2, at as f64 * 3.2 + 3.2).unwrap(),
            agreement: None,
        };
        let clips: Vec<ClipEntry> = (0..clips_per_asset).map(clip).collect();
        catalog.add_clips(film.id, &clips);
        for clip in clips {
            index.upsert(clip.id, &[ClipVector::new(Track::Video, space(), vector(rng))]).unwrap();
        }
    }
    let corpus = Corpus {
        catalog: Arc::new(catalog),
        index: Arc::new(index),
        comparable: Arc::new(Comparable::new([&space()], |_, _| true)),
        backgrounds: Arc::new(backgrounds),
    };
    (corpus, assets, dir)
}
