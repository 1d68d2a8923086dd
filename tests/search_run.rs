//! Searches over a real store and real indexes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

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
        let new = NewAsset {
            given: None,
            sha256: format!("{a}"),
            model: model.clone(),
            segmentation: "w".into(),
            name: format!("asset {a}"),
            path: String::new(),
            owned: false,
            size_bytes: 1,
            metadata: json!({ "a": a }),
            choice: Default::default(),
        };
        let asset = store.begin_asset(new).await.unwrap().0.id;
        let clips: Vec<NewClip> = (0..5).map(|c| clip(a * 5 + c, c, assets * 5)).collect();
        for (id, clip) in store.add_clips(asset, &clips).await.unwrap().iter().zip(&clips) {
            index.upsert(*id, &clip.vectors).unwrap();
        }
        ids.push(asset);
    }
    let catalog = Catalog::load(&store).await.unwrap();
    let corpus = Corpus {
        catalog: Arc::new(catalog),
        index: Arc::new(index),
        comparable: Arc::new(comparable),
        backgrounds: Arc::default(),
    };
    Bench { _dir: dir, store, corpus, assets: ids }
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

/// A bench of two spaces, `look` for pictures and `sound` for sounds; a text has a vector in both.
mod apart {
    use triptych::search::{FusedBy, Least, Standing, Verdict, ask, timeline};

    use super::*;

    /// Angles of the picture and of the sound of each clip; `None` without that track.
    async fn bench(assets: &[&[(Option<f64>, Option<f64>)]]) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let model = ModelId("m".into());
        let store = SqliteStore::open(dir.path(), &model).await.unwrap();
        let (look, sound) = (Space::new("look"), Space::new("sound"));
        let members =
            [IndexSpec::new(Track::Video, look.clone(), 2), IndexSpec::new(Track::Audio, sound.clone(), 3)];
        let index = IndexSet::open(&dir.path().join("index"), &model, &members, &store).await.unwrap();
        let comparable = Comparable::new([&look, &sound], |modality, space| match modality {
            Modality::Text => true,
            Modality::Video | Modality::Image => *space == look,
            Modality::Audio => *space == sound,
        });
        let mut ids = Vec::new();
        for (a, clips) in assets.iter().enumerate() {
            let new = NewAsset {
                given: None,
                sha256: format!("{a}"),
                model: model.clone(),
                segmentation: "w".into(),
                name: format!("asset {a}"),
                path: String::new(),
                owned: false,
                size_bytes: 1,
                metadata: json!({}),
                choice: Default::default(),
            };
            let asset = store.begin_asset(new).await.unwrap().0.id;
            let clip = |(at, (seen, heard)): (usize, &(Option<f64>, Option<f64>))| NewClip {
                span: TimeSpan::new(at as f64, at as f64 + 1.0).unwrap(),
                vectors: [
                    seen.map(|angle| ClipVector::new(Track::Video, look.clone(), direction(angle, 2))),
                    heard.map(|angle| ClipVector::new(Track::Audio, sound.clone(), direction(angle, 3))),
                ]
                .into_iter()
                .flatten()
                .collect(),
                agreement: None,
            };
            let clips: Vec<NewClip> = clips.iter().enumerate().map(clip).collect();
            for (id, clip) in store.add_clips(asset, &clips).await.unwrap().iter().zip(&clips) {
                index.upsert(*id, &clip.vectors).unwrap();
            }
            ids.push(asset);
        }
        let corpus = Corpus {
            catalog: Arc::new(Catalog::load(&store).await.unwrap()),
            index: Arc::new(index),
            comparable: Arc::new(comparable),
            backgrounds: Arc::default(),
        };
        Bench { _dir: dir, store, corpus, assets: ids }
    }

    /// What absent things score: pictures 0.6 to 0.8, sounds 0.2 to 0.4. So a picture's 0.75 means less than a
    /// sound's 0.45.
    fn calibrate(bench: &Bench) {
        let scores = |from: f32| (0..40).map(|n| from + 0.2 * n as f32 / 39.0).collect::<Vec<_>>();
        let lane =
            |target, space: &str| Lane { query: Modality::Text, words: 1, space: Space::new(space), target };
        bench.corpus.backgrounds.replace(Distributions {
            clips: 1,
            lanes: BTreeMap::from([
                (lane(Track::Video, "look"), scores(0.6)),
                (lane(Track::Audio, "sound"), scores(0.2)),
            ]),
            banks: BTreeMap::new(),
        });
    }

    fn text(understood: &[(&str, f32)]) -> QueryPart {
        let vectors = BTreeMap::from([
            (Space::new("look"), direction(0.0, 2)),
            (Space::new("sound"), direction(0.0, 3)),
        ]);
        let understood = understood.iter().map(|(space, share)| (Space::new(space), *share)).collect();
        QueryPart { words: 1, understood, ..QueryPart::new(Modality::Text, vectors) }
    }

    fn both(fuse: Fuse) -> SearchRequest {
        SearchRequest { targets: Track::ALL.to_vec(), fuse, ..SearchRequest::new(vec![text(&[])]) }
    }

    fn of(score: f64) -> Option<f64> {
        Some(score.acos())
    }

    /// A picture that is almost surely right, a sound that is, and a clip of which both are likely.
    const SEEN: (f64, f64) = (0.82, 0.15);
    const HEARD: (f64, f64) = (0.55, 0.42);
    const LIKELY: (f64, f64) = (0.78, 0.38);

    async fn three() -> Bench {
        let clip = |(seen, heard): (f64, f64)| [(of(seen), of(heard))];
        let bench = bench(&[&clip(SEEN), &clip(HEARD), &clip(LIKELY)]).await;
        calibrate(&bench);
        bench
    }

    #[tokio::test]
    async fn the_mean_of_two_spaces_is_that_of_their_confidences() {
        let bench = three().await;
        for group_by in [GroupBy::Clip, GroupBy::Moment, GroupBy::Asset] {
            let found = bench.run(&SearchRequest { group_by, ..both(Fuse::Mean) }).unwrap();
            let numbers: Vec<usize> = found.hits.iter().map(|hit| bench.number(hit) / 5).collect();
            assert_eq!((numbers.len(), numbers[0]), (3, 2), "{group_by:?}: likely in both");
            assert_eq!(found.fused_by, Some(FusedBy::Confidence));
            let confidence = |n: usize| found.hits[n].confidence.unwrap();
            assert!(confidence(0) > 0.85 && confidence(1) < 0.7, "{} {}", confidence(0), confidence(1));
        }
        // By the better of the two it is one of the others.
        let best = bench.run(&both(Fuse::Best)).unwrap();
        assert_ne!(bench.number(&best.hits[0]) / 5, 2);
        let least = SearchRequest { min_confidence: Some(0.85), ..both(Fuse::Mean) };
        assert_eq!(bench.run(&least).unwrap().hits.len(), 1);
    }

    #[tokio::test]
    async fn sound_with_clips_of_its_own_counts_where_it_is_heard() {
        // Sounds that lie over the pictures of the same time, but in clips of their own.
        let apart = |(seen, heard): (f64, f64)| [(of(seen), None), (None, of(heard))];
        let bench = bench(&[&apart(SEEN), &apart(LIKELY)]).await;
        calibrate(&bench);
        let found = bench.run(&both(Fuse::Mean)).unwrap();
        assert!(found.hits.iter().all(|hit| hit.confidence.unwrap() < 0.6), "no two of them at one time");
    }

    #[tokio::test]
    async fn before_calibration_the_spaces_take_turns_and_nothing_reaches_a_minimum() {
        let bench = three().await;
        bench.corpus.backgrounds.replace(Distributions::default());
        for fuse in [Fuse::Best, Fuse::Mean] {
            let found = bench.run(&both(fuse)).unwrap();
            assert_eq!((found.fused_by, found.hits.len(), found.no_match), (Some(FusedBy::Rank), 3, false));
            let least = bench.run(&SearchRequest { min_confidence: Some(0.1), ..both(fuse) }).unwrap();
            assert!(least.hits.is_empty() && least.no_match);
        }
    }

    #[tokio::test]
    async fn what_was_not_understood_lowers_the_confidence_of_its_space() {
        let bench = three().await;
        let ask = |understood: &[(&str, f32)]| {
            let request = SearchRequest { query: vec![text(understood)], ..both(Fuse::Best) };
            let found = bench.run(&request).unwrap();
            let by = |track: Track| {
                let best =
                    found.hits.iter().filter(|hit| hit.matched == track).map(|hit| hit.confidence.unwrap());
                best.fold(0.0, f32::max)
            };
            (by(Track::Video), by(Track::Audio), found.no_match)
        };
        let (video, audio, no_match) = ask(&[]);
        assert!(video > 0.9 && audio > 0.9 && !no_match);
        let (half, same, _) = ask(&[("look", 0.5)]);
        // The clip of which both are likely is now found by its sound alone.
        assert!(half < 0.5 && (same - audio).abs() < 1e-6);
        assert!(ask(&[("look", 0.5), ("sound", 0.5)]).2);
    }

    #[tokio::test]
    async fn several_parts_are_as_sure_as_their_log_odds_are_on_average() {
        let bench = three().await;
        let one = SearchRequest::new(vec![text(&[])]);
        let twice = SearchRequest::new(vec![text(&[]), QueryPart { weight: 3.0, ..text(&[]) }]);
        let (once, twice) = (bench.run(&one).unwrap().hits, bench.run(&twice).unwrap().hits);
        assert_eq!(once.len(), twice.len());
        for (once, twice) in once.iter().zip(&twice) {
            assert!((once.confidence.unwrap() - twice.confidence.unwrap()).abs() < 1e-5);
        }
        // A part that says nothing about it takes confidence away; an unwanted one only where it is there.
        let aside = |angle: f64, weight: f32| {
            let vectors = BTreeMap::from([(Space::new("look"), direction(angle, 2))]);
            let part = QueryPart { weight, words: 1, ..QueryPart::new(Modality::Text, vectors) };
            bench.run(&SearchRequest::new(vec![text(&[]), part])).unwrap().hits[0].confidence.unwrap()
        };
        let alone = once[0].confidence.unwrap();
        assert!(aside(2.5, 1.0) < 0.6);
        assert!((aside(2.5, -0.5) - alone).abs() < 1e-5);
        assert!(aside(SEEN.0.acos(), -0.5) < alone - 0.05);
    }

    #[tokio::test]
    async fn a_timeline_takes_each_clip_where_it_is_surest() {
        let seen_then_heard = [(of(SEEN.0), of(SEEN.1)), (of(HEARD.0), of(HEARD.1))];
        let bench = bench(&[&seen_then_heard]).await;
        let spaces = |fuse| {
            let line = timeline(&bench.corpus, &both(fuse), bench.assets[0]).unwrap();
            assert_eq!((line.spaces.len(), line.clips.len()), (2, 2));
            let told = line.clips.iter().map(|clip| clip.confidence.is_some()).collect::<HashSet<_>>();
            (line.clips.iter().map(|clip| clip.space.as_str().to_owned()).collect::<Vec<_>>(), told)
        };
        assert_eq!(spaces(Fuse::Best), (vec!["look".to_owned(); 2], HashSet::from([false])));
        calibrate(&bench);
        for fuse in [Fuse::Best, Fuse::Mean] {
            assert_eq!(spaces(fuse), (vec!["look".to_owned(), "sound".to_owned()], HashSet::from([true])));
        }
    }

    #[tokio::test]
    async fn standing_queries_match_what_a_search_finds() {
        let bench = three().await;
        let standing = |fuse, least| Standing::new(&bench.corpus.comparable, both(fuse), least);
        let matched = |standing: &Standing| {
            let number = |n: &usize| {
                let asset = bench.corpus.catalog.asset(bench.assets[*n]).unwrap();
                let verdicts = ask(&bench.corpus, &asset, [standing]);
                matches!(&verdicts[..], [Verdict::Matches(moments)] if !moments.is_empty())
            };
            (0..3).filter(number).collect::<Vec<_>>()
        };
        let sure = Least::Confidence(0.85);
        assert_eq!(matched(&standing(Fuse::Mean, sure).unwrap()), [2]);
        for (fuse, least) in [(Fuse::Best, 0.9), (Fuse::Best, 0.5), (Fuse::Mean, 0.5), (Fuse::Mean, 0.05)] {
            let standing = standing(fuse, Least::Confidence(least)).unwrap();
            assert!(standing.is_tellable(&bench.corpus));
            let request =
                SearchRequest { group_by: GroupBy::Moment, min_confidence: Some(least), ..both(fuse) };
            let mut found: Vec<usize> =
                bench.run(&request).unwrap().hits.iter().map(|hit| bench.number(hit) / 5).collect();
            found.sort_unstable();
            assert_eq!(matched(&standing), found, "{fuse:?} {least}");
        }
        // Scores of two spaces have no common minimum.
        assert_eq!(standing(Fuse::Best, Least::Score(0.5)).unwrap_err().code(), "invalid_value");
        let untold = standing(Fuse::Mean, sure).unwrap();
        bench.corpus.backgrounds.replace(Distributions::default());
        let asset = bench.corpus.catalog.asset(bench.assets[2]).unwrap();
        assert_eq!(ask(&bench.corpus, &asset, [&untold]), [Verdict::Unknown]);
        assert!(!untold.is_tellable(&bench.corpus));
    }
}
