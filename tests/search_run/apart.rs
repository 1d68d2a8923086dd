//! A bench of two spaces, `look` for pictures and `sound` for sounds; a text has a vector in both.

use triptych::search::{FusedBy, Minimum, Standing, Verdict, ask, timeline};

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
        let asset = asset(&store, &model, a, json!({})).await;
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
        add(&store, &index, asset, &clips).await;
        ids.push(asset);
    }
    Bench::new(dir, store, index, comparable, ids).await
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
    let vectors =
        BTreeMap::from([(Space::new("look"), direction(0.0, 2)), (Space::new("sound"), direction(0.0, 3))]);
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
    let minimum = SearchRequest { min_confidence: Some(0.85), ..both(Fuse::Mean) };
    assert_eq!(bench.run(&minimum).unwrap().hits.len(), 1);
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
        let minimum = bench.run(&SearchRequest { min_confidence: Some(0.1), ..both(fuse) }).unwrap();
        assert!(minimum.hits.is_empty() && minimum.no_match);
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
    let standing = |fuse, minimum| Standing::new(&bench.corpus.comparable, both(fuse), minimum);
    let matched = |standing: &Standing| {
        let number = |n: &usize| {
            let asset = bench.corpus.catalog.asset(bench.assets[*n]).unwrap();
            let verdicts = ask(&bench.corpus, &asset, [standing]);
            matches!(&verdicts[..], [Verdict::Matches(moments)] if !moments.is_empty())
        };
        (0..3).filter(number).collect::<Vec<_>>()
    };
    let assessment = Minimum::Confidence(0.85);
    assert_eq!(matched(&standing(Fuse::Mean, assessment).unwrap()), [2]);
    for (fuse, minimum) in [(Fuse::Best, 0.9), (Fuse::Best, 0.5), (Fuse::Mean, 0.5), (Fuse::Mean, 0.05)] {
        let standing = standing(fuse, Minimum::Confidence(minimum)).unwrap();
        assert!(standing.is_calibrated(&bench.corpus));
        let request =
            SearchRequest { group_by: GroupBy::Moment, min_confidence: Some(minimum), ..both(fuse) };
        let mut found: Vec<usize> =
            bench.run(&request).unwrap().hits.iter().map(|hit| bench.number(hit) / 5).collect();
        found.sort_unstable();
        assert_eq!(matched(&standing), found, "{fuse:?} {minimum}");
    }
    // Scores of two spaces have no common minimum.
    assert_eq!(standing(Fuse::Best, Minimum::Score(0.5)).unwrap_err().code(), "invalid_value");
    let untold = standing(Fuse::Mean, assessment).unwrap();
    bench.corpus.backgrounds.replace(Distributions::default());
    let asset = bench.corpus.catalog.asset(bench.assets[2]).unwrap();
    assert_eq!(ask(&bench.corpus, &asset, [&untold]), [Verdict::Unknown]);
    assert!(!untold.is_calibrated(&bench.corpus));
}
