//! Searches over a real store and real indexes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod apart;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;
use triptych::catalog::{Catalog, Condition, Filter};
use triptych::index::{IndexSet, IndexSpec};
use triptych::search::{
    Bank, BankQuery, Comparable, Corpus, Distributions, Fuse, GroupBy, Hit, HubCorrection, Lane, QueryPart,
    SearchError, SearchRequest, SearchResponse, run,
};
use triptych::sqlite::SqliteStore;
use triptych::store::{AssetStore, ClipStore, ClipVector, NewAsset, NewClip};
use triptych::types::{AssetId, ClipId, Embedding, Modality, ModelId, Space, TimeSpan, Track};

struct Bench {
    _dir: TempDir,
    store: SqliteStore,
    corpus: Corpus,
    assets: Vec<AssetId>,
}

/// A vector whose cosine with `direction(0.0)` is the cosine of the angle.
fn direction(angle: f64, dim: usize) -> Embedding {
    let mut values = vec![0.0; dim];
    (values[0], values[1]) = (angle.cos() as f32, angle.sin() as f32);
    Embedding::new(values, dim).unwrap()
}

/// Accepts the `n`-th asset.
async fn asset(store: &SqliteStore, model: &ModelId, n: usize, metadata: serde_json::Value) -> AssetId {
    let new = NewAsset {
        given: None,
        sha256: format!("{n}"),
        model: model.clone(),
        segmentation: "w".into(),
        name: format!("asset {n}"),
        path: String::new(),
        owned: false,
        size_bytes: 1,
        metadata,
        choice: Default::default(),
    };
    store.begin_asset(new).await.unwrap().0.id
}

/// Stores and indexes clips.
async fn add(store: &SqliteStore, index: &IndexSet, asset: AssetId, clips: &[NewClip]) {
    for (id, clip) in store.add_clips(asset, clips).await.unwrap().iter().zip(clips) {
        index.upsert(*id, &clip.vectors).unwrap();
    }
}

impl Bench {
    async fn new(
        dir: TempDir,
        store: SqliteStore,
        index: IndexSet,
        comparable: Comparable,
        assets: Vec<AssetId>,
    ) -> Self {
        let corpus = Corpus {
            catalog: Arc::new(Catalog::load(&store).await.unwrap()),
            index: Arc::new(index),
            comparable: Arc::new(comparable),
            backgrounds: Arc::default(),
        };
        Self { _dir: dir, store, corpus, assets }
    }
}

/// `assets` assets of five clips. Video angles grow with the clip's number; the sound of every
/// seventh clip is nearer than any picture.
async fn bench(assets: usize) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let model = ModelId("m".into());
    let store = SqliteStore::open(dir.path(), &model).await.unwrap();
    let (fine, coarse) = (Space::new("fine"), Space::new("coarse"));
    let members = [
        IndexSpec::new(Track::Video, fine.clone(), 4),
        IndexSpec::new(Track::Video, coarse.clone(), 2),
        IndexSpec::new(Track::Audio, coarse.clone(), 2),
    ];
    let index = IndexSet::open(&dir.path().join("index"), &model, &members, &store).await.unwrap();
    let comparable = Comparable::new([&fine, &coarse], |modality, space| match space.as_str() {
        "fine" => matches!(modality, Modality::Video | Modality::Image),
        _ => true,
    });
    let mut ids = Vec::new();
    for a in 0..assets {
        let asset = asset(&store, &model, a, json!({ "a": a })).await;
        let clips: Vec<NewClip> = (0..5).map(|c| clip(a * 5 + c, c, assets * 5)).collect();
        add(&store, &index, asset, &clips).await;
        ids.push(asset);
    }
    Bench::new(dir, store, index, comparable, ids).await
}

fn clip(n: usize, at: usize, of: usize) -> NewClip {
    let angle = 0.5 + n as f64 / of as f64;
    let sound = if n.is_multiple_of(7) { n as f64 / of as f64 * 0.4 } else { 2.0 + angle / 2.0 };
    NewClip {
        span: TimeSpan::new(at as f64, at as f64 + 1.0).unwrap(),
        vectors: vec![
            ClipVector::new(Track::Video, Space::new("fine"), direction(2.5 - angle, 4)),
            ClipVector::new(Track::Video, Space::new("coarse"), direction(angle, 2)),
            ClipVector::new(Track::Audio, Space::new("coarse"), direction(sound, 2)),
        ],
        agreement: None,
    }
}

fn request(modality: Modality) -> SearchRequest {
    let vectors =
        BTreeMap::from([(Space::new("coarse"), direction(0.0, 2)), (Space::new("fine"), direction(0.0, 4))]);
    SearchRequest::new(vec![QueryPart::new(modality, vectors)])
}

fn only(assets: &[AssetId]) -> Filter {
    Filter { asset_ids: assets.to_vec(), ..Filter::default() }
}

impl Bench {
    fn run(&self, request: &SearchRequest) -> Result<SearchResponse, SearchError> {
        run(&self.corpus, request)
    }

    fn hits(&self, request: &SearchRequest) -> Vec<Hit> {
        let hits = self.run(request).unwrap().hits;
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
    let hits = bench.hits(&request(Modality::Text));
    assert_eq!(hits.iter().map(|h| bench.number(h)).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert_eq!((hits[7].asset_name.as_str(), &*hits[7].metadata), ("asset 1", &json!({"a": 1})));
    assert_eq!((hits[7].rank, hits[7].matched, hits[7].space.as_str()), (8, Track::Video, "coarse"));
    assert!((f64::from(hits[0].score) - 0.5_f64.cos()).abs() < 1e-6);
    // The finest shared space ranks the other way round.
    let fine = bench.hits(&request(Modality::Image));
    assert_eq!((bench.number(&fine[0]), fine[0].space.as_str()), (99, "fine"));

    let page = bench.hits(&SearchRequest { offset: 95, ..request(Modality::Text) });
    assert_eq!(
        page.iter().map(|h| (h.rank, bench.number(h))).collect::<Vec<_>>(),
        (95..100).map(|n| (n + 1, n)).collect::<Vec<_>>()
    );
    assert!(bench.hits(&SearchRequest { offset: 100, ..request(Modality::Text) }).is_empty());
}

#[tokio::test]
async fn the_better_track_of_a_clip_counts() {
    let bench = bench(20).await;
    let both = SearchRequest { targets: Track::ALL.to_vec(), limit: 100, ..request(Modality::Text) };
    let hits = bench.hits(&both);
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
    let hits = bench.hits(&grouped);
    // The best clip of an asset is its first.
    assert_eq!(
        hits.iter().map(|h| bench.number(h)).collect::<Vec<_>>(),
        (0..50).map(|a| a * 5).collect::<Vec<_>>()
    );
    let rest = bench.hits(&SearchRequest { offset: 50, ..grouped.clone() });
    assert_eq!(rest.iter().map(|h| bench.number(h) / 5).collect::<Vec<_>>(), (50..60).collect::<Vec<_>>());
}

#[tokio::test]
async fn filters_and_exclusion_hold() {
    let bench = bench(20).await;
    let some = vec![bench.assets[3], bench.assets[11]];
    let named = SearchRequest { filter: only(&some), limit: 100, ..request(Modality::Text) };
    let numbers: Vec<_> = bench.hits(&named).iter().map(|h| bench.number(h)).collect();
    assert_eq!(numbers, (15..20).chain(55..60).collect::<Vec<_>>());
    let but = SearchRequest { exclude_assets: vec![some[0]], ..named.clone() };
    assert_eq!(bench.hits(&but).len(), 5);
    let none = SearchRequest { filter: only(&some[..1]), exclude_assets: vec![some[0]], ..named.clone() };
    assert!(bench.hits(&none).is_empty());
    let unknown = SearchRequest { filter: only(&[AssetId::generate()]), ..named };
    assert!(bench.hits(&unknown).is_empty());
    let without = SearchRequest { exclude_assets: vec![bench.assets[0]], ..request(Modality::Text) };
    assert_eq!(bench.number(&bench.hits(&without)[0]), 5);

    // Gone from the catalog, not yet from the index: left out, and the page is still full.
    bench.corpus.catalog.remove_asset(bench.assets[0]);
    let hits = bench.hits(&request(Modality::Text));
    assert_eq!(hits.iter().map(|h| bench.number(h)).collect::<Vec<_>>(), (5..15).collect::<Vec<_>>());
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_code() {
    let bench = bench(1).await;
    let text = || request(Modality::Text);
    for (request, code) in [
        (SearchRequest { space: Some(Space::new("fine")), ..text() }, "bad_space"),
        (SearchRequest { space: Some(Space::new("x")), ..text() }, "bad_space"),
        (SearchRequest { targets: Vec::new(), ..text() }, "invalid_value"),
        (SearchRequest { limit: 0, ..text() }, "invalid_value"),
        (SearchRequest { limit: 1001, ..text() }, "invalid_value"),
        (SearchRequest { offset: 1001, ..text() }, "invalid_value"),
    ] {
        assert_eq!(bench.run(&request).unwrap_err().code(), code);
    }
    let hits = bench.run(&SearchRequest { limit: 1000, offset: 1000, ..text() }).unwrap();
    assert!(hits.hits.is_empty() && hits.space.as_str() == "coarse");
    assert!(bench.store.clips(&[ClipId(1), ClipId(-4)]).await.unwrap().len() == 1);
}

/// A query of two numbers in the coarse space.
fn aimed(angle: f64, weight: f32) -> QueryPart {
    let vectors = BTreeMap::from([(Space::new("coarse"), direction(angle, 2))]);
    QueryPart { weight, ..QueryPart::new(Modality::Text, vectors) }
}

#[tokio::test]
async fn parts_and_negatives_are_ranked_by_their_weighted_mean() {
    let bench = bench(20).await;
    let parts = vec![aimed(0.2, 2.0), aimed(1.0, 1.0), aimed(1.4, -0.5)];
    let hits = bench.hits(&SearchRequest { limit: 100, ..SearchRequest::new(parts) });
    assert_eq!(hits.len(), 100);
    for hit in &hits {
        let angle = 0.5 + bench.number(hit) as f64 / 100.0;
        let cosine = |aim: f64| (angle - aim).cos();
        let want = (2.0 * cosine(0.2) + cosine(1.0) - 0.5 * cosine(1.4)) / 3.5;
        assert!((f64::from(hit.score) - want).abs() < 1e-5, "{} {want}", hit.score);
    }
    // What is like the second part comes last.
    let away = bench
        .hits(&SearchRequest { limit: 100, ..SearchRequest::new(vec![aimed(0.6, 1.0), aimed(0.5, -1.0)]) });
    assert_eq!((bench.number(&away[0]), bench.number(&away[99])), (99, 0));
}

#[tokio::test]
async fn fused_tracks_are_ranked_as_comparing_everything_would() {
    let bench = bench(40).await;
    let fused =
        SearchRequest { targets: Track::ALL.to_vec(), fuse: Fuse::Mean, limit: 1, ..request(Modality::Text) };
    let score = |n: usize| {
        let NewClip { vectors, .. } = clip(n, 0, 200);
        let of = |track| {
            let found = vectors.iter().find(|one| one.track == track && one.space.as_str() == "coarse");
            found.unwrap().vector.cosine(&direction(0.0, 2))
        };
        f32::midpoint(of(Track::Video), of(Track::Audio))
    };
    let mut want: Vec<usize> = (0..200).collect();
    want.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
    for (limit, offset) in [(1, 0), (7, 3), (200, 0)] {
        let hits = bench.hits(&SearchRequest { limit, offset, ..fused.clone() });
        let found: Vec<usize> = hits.iter().map(|hit| bench.number(hit)).collect();
        assert_eq!(found, want[offset..offset + limit]);
        assert!(hits.iter().all(|hit| (hit.score - score(bench.number(hit))).abs() < 1e-5));
    }
}

#[tokio::test]
async fn filters_by_metadata_and_time_keep_the_rest() {
    let bench = bench(20).await;
    let condition = |json| serde_json::from_value::<Condition>(json).unwrap();
    let filter = Filter {
        must: vec![condition(json!({"key": "metadata.a", "gte": 5, "lt": 8}))],
        must_not: vec![condition(json!({"key": "start_secs", "in": [0, 4]}))],
        ..Filter::default()
    };
    for group_by in [GroupBy::Clip, GroupBy::Moment, GroupBy::Asset] {
        let hits = bench.hits(&SearchRequest {
            filter: filter.clone(),
            group_by,
            limit: 100,
            ..request(Modality::Text)
        });
        let numbers: HashSet<usize> = hits.iter().map(|hit| bench.number(hit)).collect();
        let allowed: HashSet<usize> = (5..8).flat_map(|a| (1..4).map(move |c| a * 5 + c)).collect();
        assert!(numbers.is_subset(&allowed) && !numbers.is_empty(), "{group_by:?} {numbers:?}");
        if group_by == GroupBy::Clip {
            assert_eq!(numbers, allowed);
        }
    }
}

#[tokio::test]
async fn moments_page_without_a_gap() {
    let bench = bench(60).await;
    let all = SearchRequest { group_by: GroupBy::Moment, limit: 300, ..request(Modality::Text) };
    let whole: Vec<_> = bench.hits(&all).iter().map(|hit| (hit.rank, hit.asset_id, hit.peak_secs)).collect();
    let mut paged = Vec::new();
    for offset in (0..whole.len()).step_by(17) {
        let page = bench.hits(&SearchRequest { offset, limit: 17, ..all.clone() });
        paged.extend(page.iter().map(|hit| (hit.rank, hit.asset_id, hit.peak_secs)));
    }
    assert_eq!(paged, whole);
}

/// A bank of queries in one direction, one clip of which is a hub.
fn note_bank(bench: &Bench, own: Option<AssetId>, hub: ClipId) {
    let lane = Lane { query: Modality::Text, words: 0, space: Space::new("coarse"), target: Track::Video };
    let query = BankQuery { vector: direction(-0.5, 2), own };
    let bank = Bank { queries: vec![query; 12], hubs: HashSet::from([hub]) };
    bench.corpus.backgrounds.replace(Distributions {
        clips: 1,
        lanes: BTreeMap::from([(lane.clone(), vec![-1.0; 20])]),
        banks: BTreeMap::from([(lane, Arc::new(bank))]),
    });
}

#[tokio::test]
async fn a_hub_is_held_back_and_nothing_but_the_order_changes() {
    let bench = bench(60).await;
    let plain = SearchRequest { limit: 300, ..request(Modality::Text) };
    let corrected = SearchRequest { hub_correction: HubCorrection::Dis, ..plain.clone() };
    let before = bench.hits(&plain);
    let first = bench.corpus.catalog.asset(bench.assets[0]).unwrap().clips[0].id;

    // Without a bank, and where the best clip is no hub, nothing changes.
    let same = |hits: &[Hit]| {
        assert_eq!(
            hits.iter().map(|h| bench.number(h)).collect::<Vec<_>>(),
            before.iter().map(|h| bench.number(h)).collect::<Vec<_>>()
        );
    };
    let found = bench.run(&corrected).unwrap();
    assert!(!found.hub_corrected);
    same(&found.hits);
    note_bank(&bench, None, ClipId(first.0 + 1));
    same(&bench.run(&corrected).unwrap().hits);
    // A bank that was taken from the clip itself says nothing of it.
    note_bank(&bench, Some(bench.assets[0]), first);
    same(&bench.run(&corrected).unwrap().hits);

    // The queries of the bank say most of the first clips: the farther ones, less asked for, pass them.
    note_bank(&bench, None, first);
    let uncorrected = bench.hits(&plain);
    let found = bench.run(&corrected).unwrap();
    let numbers: Vec<usize> = found.hits.iter().map(|h| bench.number(h)).collect();
    assert!(found.hub_corrected && !found.no_match);
    assert_eq!(numbers, (0..200).rev().chain(200..300).collect::<Vec<_>>());
    for hit in &found.hits {
        let plain = uncorrected.iter().find(|other| bench.number(other) == bench.number(hit)).unwrap();
        assert_eq!((hit.score, hit.confidence), (plain.score, plain.confidence));
    }
    assert!(found.hits.iter().enumerate().all(|(n, hit)| hit.rank == n + 1));
    // Pages join, whatever they are of.
    for group_by in [GroupBy::Clip, GroupBy::Moment, GroupBy::Asset] {
        let all = SearchRequest { group_by, ..corrected.clone() };
        let key = |hit: &Hit| (hit.rank, hit.asset_id, hit.peak_secs.to_bits());
        let whole: Vec<_> = bench.run(&all).unwrap().hits.iter().map(key).collect();
        let mut paged = Vec::new();
        for offset in (0..whole.len()).step_by(50) {
            let page = SearchRequest { offset, limit: 50, ..all.clone() };
            paged.extend(bench.run(&page).unwrap().hits.iter().map(key));
        }
        assert_eq!(paged, whole, "{group_by:?}");
    }
    let [part] = &corrected.query[..] else { unreachable!() };
    for refused in [
        SearchRequest { query: vec![part.clone(), part.clone()], ..corrected.clone() },
        SearchRequest { targets: Track::ALL.to_vec(), fuse: Fuse::Mean, ..corrected.clone() },
    ] {
        assert_eq!(bench.run(&refused).unwrap_err().code(), "invalid_value");
    }
}
