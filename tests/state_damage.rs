//! Every file of a data folder and of a bundle, damaged in every way: the server refuses to start, rebuilds
//! what it can, or moves files that it does not recognise to quarantine. It never gives a wrong answer and
//! deletes nothing.
//!
//! The short form runs with the other tests; `make test-damage` tries every file and every way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::Instant;

use common::{Options, Server, copy, eventually, manifest_dir, ok_json, picture, video, wav};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

type Change = fn(&Path, &mut StdRng);

/// Ways to damage a file. What they do to one that is shorter than they need is nothing.
const DAMAGES: [(&str, Change); 11] = [
    ("removed", |file, _| fs::remove_file(file).unwrap()),
    ("emptied", |file, _| cut(file, |_| 0)),
    ("cut to half", |file, _| cut(file, |len| len / 2)),
    ("cut by ten bytes", |file, _| cut(file, |len| len.saturating_sub(10))),
    ("first byte flipped", |file, _| change(file, |bytes| bytes[0] ^= 0x10)),
    ("last byte flipped", |file, _| change(file, |bytes| *bytes.last_mut().unwrap() ^= 0x04)),
    ("a bit flipped", |file, rng| {
        let at: f64 = rng.random();
        change(file, |bytes| {
            let at = (bytes.len() as f64 * at) as usize;
            bytes[at] ^= 1 << (at % 8);
        });
    }),
    ("another bit flipped", |file, rng| {
        let at: f64 = rng.random();
        change(file, |bytes| {
            let at = (bytes.len() as f64 * at) as usize;
            bytes[at] ^= 1 << ((at / 8) % 8);
        });
    }),
    ("a block zeroed", |file, rng| {
        let at: f64 = rng.random();
        change(file, |bytes| {
            let at = (bytes.len() as f64 * at) as usize;
            let end = (at + 4096).min(bytes.len());
            bytes[at..end].fill(0);
        });
    }),
    ("junk appended", |file, _| {
        let mut bytes = fs::read(file).unwrap();
        bytes.extend(b"junk\0\xff\n".repeat(20));
        fs::write(file, bytes).unwrap();
    }),
    ("replaced by a folder", |file, _| {
        fs::remove_file(file).unwrap();
        fs::create_dir_all(file.join("inside")).unwrap();
    }),
];

fn cut(file: &Path, to: impl Fn(u64) -> u64) {
    let len = fs::metadata(file).unwrap().len();
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(to(len)).unwrap();
}

fn change(file: &Path, with: impl FnOnce(&mut [u8])) {
    let mut bytes = fs::read(file).unwrap();
    if !bytes.is_empty() {
        with(&mut bytes);
        fs::write(file, bytes).unwrap();
    }
}

/// Every file beneath a folder, relative to it.
fn files(folder: &Path) -> Vec<PathBuf> {
    fn collect(folder: &Path, root: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, root, into);
            } else {
                into.push(path.strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    collect(folder, folder, &mut found);
    found.sort();
    found
}

/// Digests of all uploaded bytes that a data folder holds, wherever they are.
fn contents(data: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["uploads", "quarantine"] {
        let folder = data.join(folder);
        for file in files(&folder) {
            found.insert(hex::encode(Sha256::digest(fs::read(folder.join(file)).unwrap())));
        }
    }
    found
}

/// What a library answers.
#[derive(Debug, Clone, PartialEq)]
struct Answers {
    /// By id: name, metadata, content, duration.
    assets: BTreeMap<String, Value>,
    /// Of several queries: asset, seconds, score in thousandths.
    hits: Vec<BTreeSet<(String, String, String, i64)>>,
    jobs: BTreeSet<String>,
    standing: BTreeSet<String>,
}

fn listed(server: &Server, path: &str) -> Vec<Value> {
    server.get_json(path)["data"].as_array().unwrap().clone()
}

fn ids(all: &[Value]) -> BTreeSet<String> {
    all.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

fn answers(server: &Server) -> Answers {
    let queries = [
        json!({"query": "a red circle moving left", "targets": ["video"], "limit": 50}),
        json!({"query": "a small blue square", "targets": ["audio"], "limit": 50}),
        json!({"query": "a green triangle", "targets": ["video", "audio"], "limit": 50}),
    ];
    let hit = |hit: &Value| {
        let score = (hit["score"].as_f64().unwrap() * 1000.0).round() as i64;
        let id = hit["asset_id"].as_str().unwrap().to_owned();
        (id, hit["start_secs"].to_string(), hit["end_secs"].to_string(), score)
    };
    let asset = |asset: &Value| {
        let kept =
            json!([asset["name"], asset["metadata"], asset["sha256"], asset["duration_secs"], asset["kind"]]);
        (asset["id"].as_str().unwrap().to_owned(), kept)
    };
    Answers {
        assets: listed(server, "/v1/assets?limit=1000").iter().map(asset).collect(),
        hits: queries.iter().map(|query| server.search(query).iter().map(hit).collect()).collect(),
        jobs: ids(&listed(server, "/v1/jobs")),
        standing: ids(&listed(server, "/v1/standing-queries")),
    }
}

/// A library with all kinds of records, and its answers.
struct Base {
    dir: tempfile::TempDir,
    answers: Answers,
    contents: BTreeSet<String>,
}

impl Base {
    /// `killed`: the server was killed, so its last changes are in the write-ahead log alone.
    fn new(killed: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (data, bundle) = (dir.path().join("data"), dir.path().join("bundle"));
        copy(&manifest_dir().join("models/small-world"), &bundle);
        fs::remove_dir_all(bundle.join("samples")).unwrap();
        let media = dir.path().canonicalize().unwrap().join("media");
        fs::create_dir_all(&media).unwrap();
        fs::write(media.join("by-path.wav"), wav(77, 4.0)).unwrap();
        let server = Server::start(Self::options_of(&data, &bundle, &media));
        server.add(&video("damage.mp4", 6.4, 300));
        server.add(&picture("damage.png"));
        for n in 0..3 {
            ok_json(server.upload_bytes(&format!("{n}.wav"), wav(n, 3.5), "?wait=true"));
        }
        let job = ok_json(server.post("/v1/jobs", &json!({"type": "index", "path": media})));
        server.finished_job(job["id"].as_str().unwrap());
        ok_json(server.post("/v1/standing-queries", &json!({"query": "a red circle"})));
        server.stop();
        let server = Server::start(Self::options_of(&data, &bundle, &media));
        ok_json(server.upload_bytes("last.wav", wav(9, 1.0), "?wait=true"));
        let answers = answers(&server);
        if killed {
            server.kill9()
        } else {
            server.stop()
        }
        let contents = contents(&data);
        Self { dir, answers, contents }
    }

    fn options_of(data: &Path, bundle: &Path, media: &Path) -> Options {
        Options::default().data(data).root(media).args(&["--model", bundle.to_str().unwrap()])
    }

    fn part(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }
}

/// Outcome of a startup with a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Refused,
    Same,
    /// It reported what is missing.
    Degraded,
}

/// Damages one file of a copy and checks the server's reaction.
fn try_one(base: &Base, part: &str, file: &Path, what: &str, damage: Change, rng: &mut StdRng) -> Outcome {
    let shown = format!("{part}/{}: {what}", file.display());
    let scratch = tempfile::tempdir().unwrap();
    let (data, bundle) = (scratch.path().join("data"), scratch.path().join("bundle"));
    copy(&base.part("data"), &data);
    copy(&base.part("bundle"), &bundle);
    damage(&scratch.path().join(part).join(file), rng);
    let whole: BTreeSet<String> = contents(&data).intersection(&base.contents).cloned().collect();

    let options = Base::options_of(&data, &bundle, &base.part("media"));
    let outcome = match Server::start_or_said(options) {
        Err(said) => {
            assert!(said.contains("error["), "{shown}: it ended without a word: {said}");
            assert!(!said.contains("panicked"), "{shown}: {said}");
            Outcome::Refused
        }
        Ok(server) => {
            eventually("what is indexed again is there", || {
                let assets = listed(&server, "/v1/assets?limit=1000");
                assets.iter().all(|asset| asset["state"] != "indexing").then_some(())
            });
            let outcome = compared(&server, base, &shown);
            // How it ends is not asked: a damaged store may refuse what a clean stop writes.
            server.kill9();
            outcome
        }
    };
    let left = contents(&data);
    assert!(whole.is_subset(&left), "{shown}: uploaded bytes are gone");
    outcome
}

/// No answer may be wrong; whatever is missing must be said.
fn compared(server: &Server, base: &Base, shown: &str) -> Outcome {
    let found = answers(server);
    let says_so = || {
        let ready = server.get("/readyz").text().unwrap();
        let stats = server.get_json("/v1/stats");
        ready.contains("degraded") || stats["damaged"].as_object().is_some_and(|damaged| !damaged.is_empty())
    };
    for (id, asset) in &found.assets {
        assert_eq!(Some(asset), base.answers.assets.get(id), "{shown}: a wrong asset {id}");
    }
    for (found, wanted) in found.hits.iter().zip(&base.answers.hits) {
        let wrong: Vec<_> = found.difference(wanted).collect();
        assert!(wrong.is_empty(), "{shown}: wrong hits {wrong:?} beside {wanted:?}");
    }
    if found == base.answers {
        return Outcome::Same;
    }
    assert!(says_so(), "{shown}: something is missing, and nothing says so: {found:?}");
    Outcome::Degraded
}

/// Tries every way on every file, or `most` of them at random.
fn damage_all(base: &Base, seed: u64, most: usize) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cases = Vec::new();
    for part in ["data", "bundle"] {
        for file in files(&base.part(part)) {
            // What only tells who holds the folder.
            if file == Path::new("lock") {
                continue;
            }
            cases.extend(DAMAGES.map(|(what, damage)| (part, file.clone(), what, damage)));
        }
    }
    cases.shuffle(&mut rng);
    let began = Instant::now();
    let mut outcomes: BTreeMap<(&str, Outcome), usize> = BTreeMap::new();
    let all = cases.len().min(most);
    let mut wrong = Vec::new();
    for (part, file, what, damage) in cases.into_iter().take(most) {
        let tried = AssertUnwindSafe(|| try_one(base, part, &file, what, damage, &mut rng));
        match std::panic::catch_unwind(tried) {
            Ok(outcome) => *outcomes.entry((part, outcome)).or_default() += 1,
            // All of them are wanted, not the first alone.
            Err(why) => wrong.push((part, file, what, why.downcast_ref::<String>().cloned())),
        }
    }
    assert!(wrong.is_empty(), "{} of {all} damages: {wrong:#?}; the others: {outcomes:?}", wrong.len());
    eprintln!(
        "{all} damages in {:.0} s: {outcomes:?}; 0 wrong answers, 0 files deleted",
        began.elapsed().as_secs_f64()
    );
}

#[test]
fn a_few_damages_are_never_answered_wrongly() {
    damage_all(&Base::new(true), 5, 16);
}

#[test]
#[ignore = "half an hour: `make test-damage`"]
fn every_damage_of_every_file_is_never_answered_wrongly() {
    let rounds = std::env::var("TRIPTYCH_ROUNDS").ok().map_or(2, |text| text.parse().unwrap());
    for seed in 0..rounds {
        damage_all(&Base::new(seed % 2 == 1), seed, usize::MAX);
    }
}
