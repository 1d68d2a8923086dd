//! Searches over a real store and real indexes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;
use triptych::index::{IndexSet, SearchParams};
use triptych::search::{
    Comparable, GroupBy, Hit, QueryPart, SearchError, SearchRequest, SearchResponse, run,
};
use triptych::store::{NewAsset, NewClip, SqliteStore, Store};
use triptych::types::{AssetId, ClipId, Embedding, Modality, ModelId, Space, TimeSpan, Track};

struct Bench {
    _dir: TempDir,
    store: SqliteStore,
    index: Arc<IndexSet>,
    comparable: Comparable,
    assets: Vec<AssetId>,
}

/// A vector whose cosine with `direction(0.0)` is the cosine of the angle.
fn direction(angle: f64, dim: usize) -> Embedding {
    let mut values = vec![0.0; dim];
    (values[0], values[1]) = (angle.cos() as f32, angle.sin() as f32);
    Embedding::new(values, dim).unwrap()
}

/// `assets` assets of five clips. Video angles grow with the clip's number; the sound of every
/// seventh clip is nearer than any picture.
async fn bench(assets: usize) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let model = ModelId("m".into());
    let store = SqliteStore::open(dir.path(), &model).await.unwrap();
    let (fine, coarse) = (Space::new("fine"), Space::new("coarse"));
    let members = [
        (Track::Video, fine.clone(), 4),
        (Track::Video, coarse.clone(), 2),
        (Track::Audio, coarse.clone(), 2),
    ];
    let index = Arc::new(IndexSet::open(&dir.path().join("index"), &model, &members, &store).await.unwrap());
    let comparable = Comparable::new([&fine, &coarse], |modality, space| match space.as_str() {
        "fine" => matches!(modality, Modality::Video | Modality::Image),
        _ => true,
    });
    let mut ids = Vec::new();
    for a in 0..assets {
        let new = NewAsset {
            sha256: format!("{a}"),
            model: model.clone(),
            segmentation: "w".into(),
            name: format!("asset {a}"),
            path: String::new(),
            owned: false,
            size_bytes: 1,
            metadata: json!({ "a": a }),
        };
        let asset = store.begin_asset(new).await.unwrap().0.id;
        let clips: Vec<NewClip> = (0..5).map(|c| clip(a * 5 + c, c, assets * 5)).collect();
        for (id, clip) in store.add_clips(asset, &clips).await.unwrap().iter().zip(&clips) {
            index.upsert(*id, &clip.vectors).unwrap();
        }
        ids.push(asset);
    }
    Bench { _dir: dir, store, index, comparable, assets: ids }
}

fn clip(n: usize, at: usize, of: usize) -> NewClip {
    let angle = 0.5 + n as f64 / of as f64;
    let sound = if n.is_multiple_of(7) { n as f64 / of as f64 * 0.4 } else { 2.0 + angle / 2.0 };
    NewClip {
        span: TimeSpan::new(at as f64, at as f64 + 1.0).unwrap(),
        vectors: vec![
            (Track::Video, Space::new("fine"), direction(2.5 - angle, 4)),
            (Track::Video, Space::new("coarse"), direction(angle, 2)),
            (Track::Audio, Space::new("coarse"), direction(sound, 2)),
        ],
    }
}

fn request(modality: Modality) -> SearchRequest {
    let vectors =
        BTreeMap::from([(Space::new("coarse"), direction(0.0, 2)), (Space::new("fine"), direction(0.0, 4))]);
    SearchRequest {
        query: QueryPart { modality, vectors },
        targets: vec![Track::Video],
        assets: Vec::new(),
        exclude_asset: None,
        space: None,
        group_by: GroupBy::Clip,
        offset: 0,
        limit: 10,
        params: SearchParams::default(),
    }
}

impl Bench {
    async fn run(&self, request: &SearchRequest) -> Result<SearchResponse, SearchError> {
        run(&self.store, &self.index, &self.comparable, request).await
    }

    async fn hits(&self, request: &SearchRequest) -> Vec<Hit> {
        let hits = self.run(request).await.unwrap().hits;
        assert!(hits.is_sorted_by(|a, b| a.score >= b.score && a.rank + 1 == b.rank));
        hits
    }

    fn number(&self, hit: &Hit) -> usize {
        self.assets.iter().position(|id| *id == hit.asset_id).unwrap() * 5 + hit.span.start_secs as usize
    }
}

#[tokio::test]
async fn hits_come_ranked_named_and_paged() {
    let bench = bench(20).await;
    let hits = bench.hits(&request(Modality::Text)).await;
    assert_eq!(hits.iter().map(|h| bench.number(h)).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert_eq!((hits[7].asset_name.as_str(), &hits[7].metadata), ("asset 1", &json!({"a": 1})));
    assert_eq!((hits[7].rank, hits[7].matched, hits[7].space.as_str()), (8, Track::Video, "coarse"));
    assert!((f64::from(hits[0].score) - 0.5_f64.cos()).abs() < 1e-6);
    // The finest shared space ranks the other way round.
    let fine = bench.hits(&request(Modality::Image)).await;
    assert_eq!((bench.number(&fine[0]), fine[0].space.as_str()), (99, "fine"));

    let page = bench.hits(&SearchRequest { offset: 95, ..request(Modality::Text) }).await;
    assert_eq!(
        page.iter().map(|h| (h.rank, bench.number(h))).collect::<Vec<_>>(),
        (95..100).map(|n| (n + 1, n)).collect::<Vec<_>>()
    );
    assert!(bench.hits(&SearchRequest { offset: 100, ..request(Modality::Text) }).await.is_empty());
}

#[tokio::test]
async fn the_better_track_of_a_clip_counts() {
    let bench = bench(20).await;
    let both = SearchRequest { targets: Track::ALL.to_vec(), limit: 100, ..request(Modality::Text) };
    let hits = bench.hits(&both).await;
    assert_eq!(hits.len(), 100, "a clip came twice or went missing");
    let distinct: HashSet<usize> = hits.iter().map(|h| bench.number(h)).collect();
    assert_eq!(distinct.len(), 100);
    assert_eq!(hits.iter().take(3).map(|h| bench.number(h)).collect::<Vec<_>>(), [0, 7, 14]);
    for hit in &hits {
        let expected = if bench.number(hit).is_multiple_of(7) { Track::Audio } else { Track::Video };
        assert_eq!(hit.matched, expected, "clip {}", bench.number(hit));
    }
}

#[tokio::test]
async fn grouping_fetches_until_there_are_assets_enough() {
    let bench = bench(60).await;
    let grouped = SearchRequest { group_by: GroupBy::Asset, limit: 50, ..request(Modality::Text) };
    let hits = bench.hits(&grouped).await;
    // The best clip of an asset is its first.
    assert_eq!(
        hits.iter().map(|h| bench.number(h)).collect::<Vec<_>>(),
        (0..50).map(|a| a * 5).collect::<Vec<_>>()
    );
    let rest = bench.hits(&SearchRequest { offset: 50, ..grouped.clone() }).await;
    assert_eq!(rest.iter().map(|h| bench.number(h) / 5).collect::<Vec<_>>(), (50..60).collect::<Vec<_>>());
}

#[tokio::test]
async fn filters_and_exclusion_hold() {
    let bench = bench(20).await;
    let some = vec![bench.assets[3], bench.assets[11]];
    let only = SearchRequest { assets: some.clone(), limit: 100, ..request(Modality::Text) };
    let numbers: Vec<_> = bench.hits(&only).await.iter().map(|h| bench.number(h)).collect();
    assert_eq!(numbers, (15..20).chain(55..60).collect::<Vec<_>>());
    let but = SearchRequest { exclude_asset: Some(some[0]), ..only.clone() };
    assert_eq!(bench.hits(&but).await.len(), 5);
    let none = SearchRequest { assets: vec![some[0]], exclude_asset: Some(some[0]), ..only.clone() };
    assert!(bench.hits(&none).await.is_empty());
    let unknown = SearchRequest { assets: vec![AssetId::generate()], ..only };
    assert!(bench.hits(&unknown).await.is_empty());
    let without = SearchRequest { exclude_asset: Some(bench.assets[0]), ..request(Modality::Text) };
    assert_eq!(bench.number(&bench.hits(&without).await[0]), 5);

    // Deleted from the store, not yet from the index: left out, and the page is still full.
    bench.store.delete_asset(bench.assets[0]).await.unwrap();
    let hits = bench.hits(&request(Modality::Text)).await;
    assert_eq!(hits.iter().map(|h| bench.number(h)).collect::<Vec<_>>(), (5..15).collect::<Vec<_>>());
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_code() {
    let bench = bench(1).await;
    let text = || request(Modality::Text);
    for (request, code) in [
        (SearchRequest { space: Some(Space::new("fine")), ..text() }, "bad_space"),
        (SearchRequest { space: Some(Space::new("x")), ..text() }, "bad_space"),
        (SearchRequest { targets: Vec::new(), ..text() }, "bad_search"),
        (SearchRequest { limit: 0, ..text() }, "bad_search"),
        (SearchRequest { limit: 1001, ..text() }, "bad_search"),
        (SearchRequest { offset: 1001, ..text() }, "bad_search"),
    ] {
        assert_eq!(bench.run(&request).await.unwrap_err().code(), code);
    }
    let hits = bench.run(&SearchRequest { limit: 1000, offset: 1000, ..text() }).await.unwrap();
    assert!(hits.hits.is_empty() && hits.space.as_str() == "coarse");
    assert!(bench.store.clips(&[ClipId(1), ClipId(-4)]).await.unwrap().len() == 1);
}
