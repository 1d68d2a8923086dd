//! Fuzzes the readers of untrusted bytes. One table of targets: a new one is one line. `cargo test` runs each
//! for a moment, `make test-fuzz` for `FUZZ_SECS` seconds.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

/// Something that reads bytes.
struct Target {
    name: &'static str,
    /// Valid inputs; edits of these get further than noise.
    seeds: fn() -> Vec<Vec<u8>>,
    /// Reads the bytes; panics if the reader breaks its contract.
    run: fn(&[u8]),
}

const TARGETS: &[Target] = &[
    Target {
        name: "bundle_manifest",
        seeds: crate::model::fuzzed::manifest_seeds,
        run: crate::model::fuzzed::manifest,
    },
    Target {
        name: "tokenizer",
        seeds: crate::model::fuzzed::text_seeds,
        run: crate::model::fuzzed::tokenizer,
    },
    Target {
        name: "worker_request",
        seeds: crate::media::fuzzed::request_seeds,
        run: crate::media::fuzzed::request,
    },
    Target {
        name: "worker_reply",
        seeds: crate::media::fuzzed::reply_seeds,
        run: crate::media::fuzzed::reply,
    },
    Target { name: "ffmpeg_log", seeds: crate::media::fuzzed::log_seeds, run: crate::media::fuzzed::log },
    Target {
        name: "worker_pipes",
        seeds: crate::media::fuzzed::pipe_seeds,
        run: crate::media::fuzzed::pipes,
    },
    Target { name: "filter", seeds: crate::catalog::fuzzed::seeds, run: crate::catalog::fuzzed::run },
    Target {
        name: "index_snapshot",
        seeds: crate::index::snapshot::fuzzed::seeds,
        run: crate::index::snapshot::fuzzed::run,
    },
    Target { name: "ledger", seeds: crate::ledger::fuzzed::seeds, run: crate::ledger::fuzzed::run },
    Target {
        name: "backup_manifest",
        seeds: crate::backup::fuzzed::manifest_seeds,
        run: crate::backup::fuzzed::manifest,
    },
    Target {
        name: "backup_media_list",
        seeds: crate::backup::fuzzed::media_seeds,
        run: crate::backup::fuzzed::media,
    },
];

/// Numbers and marks that readers stumble over.
const WORDS: &[&str] = &[
    "0",
    "-1",
    "1e999",
    "-1e308",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775807",
    "4294967296",
    "0.1",
    "null",
    "true",
    "{}",
    "[]",
    "\"\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\u0000",
    "\\ud800",
    "\n",
    "..",
    "/",
    "\u{feff}",
    "ß",
    "é",
    "\u{202e}",
    "a\u{0301}",
    "P6\n1 1\n255\n",
    "[error] ",
    "[info] ",
];
const RAW: &[&[u8]] = &[
    &[0],
    &[0xff],
    &[0x80],
    &[0xff; 4],
    &[0xff; 8],
    &[0; 8],
    &[0xff, 0xff, 0xff, 0x7f],
    &[0, 0, 0, 0x80],
    &[0, 0, 0xc0, 0x7f],
    &[0, 0, 0x80, 0x7f],
];

/// One change; shares are of the length.
#[derive(Debug, Clone)]
enum Edit {
    Flip(f64, u8),
    Cut(f64),
    Delete(f64, usize),
    Word(f64, usize),
    Raw(f64, usize),
    /// Overwrites bytes with a word.
    Over(f64, usize),
    Repeat(f64, usize, u8),
    /// The end of another seed.
    Splice(f64, usize, f64),
    Noise(f64, Vec<u8>),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = || 0.0..1.0f64;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        1 => at().prop_map(Edit::Cut),
        2 => (at(), 1..40usize).prop_map(|(at, len)| Edit::Delete(at, len)),
        4 => (at(), 0..WORDS.len()).prop_map(|(at, word)| Edit::Word(at, word)),
        2 => (at(), 0..RAW.len()).prop_map(|(at, word)| Edit::Raw(at, word)),
        4 => (at(), 0..WORDS.len()).prop_map(|(at, word)| Edit::Over(at, word)),
        1 => (at(), 1..200usize, 1..100u8).prop_map(|(at, len, times)| Edit::Repeat(at, len, times)),
        1 => (at(), any::<usize>(), at()).prop_map(|(at, seed, from)| Edit::Splice(at, seed, from)),
        1 => (at(), proptest::collection::vec(any::<u8>(), 0..64)).prop_map(|(at, bytes)| Edit::Noise(at, bytes)),
    ]
}

fn place(bytes: &[u8], share: f64) -> usize {
    ((bytes.len() as f64 * share) as usize).min(bytes.len())
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit, seeds: &[Vec<u8>]) {
    let insert = |bytes: &mut Vec<u8>, at: f64, new: &[u8]| {
        let at = place(bytes, at);
        bytes.splice(at..at, new.iter().copied());
    };
    match edit {
        Edit::Flip(at, bit) => {
            let at = place(bytes, *at);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            }
        }
        Edit::Cut(at) => bytes.truncate(place(bytes, *at)),
        Edit::Delete(at, len) => {
            let at = place(bytes, *at);
            bytes.drain(at..(at + len).min(bytes.len()));
        }
        Edit::Word(at, word) => insert(bytes, *at, WORDS[*word].as_bytes()),
        Edit::Raw(at, word) => insert(bytes, *at, RAW[*word]),
        Edit::Over(at, word) => {
            let (at, word) = (place(bytes, *at), WORDS[*word].as_bytes());
            let end = (at + word.len()).min(bytes.len());
            bytes.splice(at..end, word.iter().copied());
        }
        Edit::Repeat(at, len, times) => {
            let at = place(bytes, *at);
            let part = bytes[at..(at + len).min(bytes.len())].repeat(usize::from(*times));
            bytes.splice(at..at, part);
        }
        Edit::Splice(at, seed, from) => {
            let other = &seeds[seed % seeds.len()];
            bytes.truncate(place(bytes, *at));
            bytes.extend_from_slice(&other[place(other, *from)..]);
        }
        Edit::Noise(at, noise) => insert(bytes, *at, noise),
    }
}

fn inputs(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (0..seeds.len(), proptest::collection::vec(edit(), 0..8)).prop_map(move |(seed, edits)| {
        let mut bytes = seeds[seed].clone();
        edits.iter().for_each(|edit| apply(&mut bytes, edit, &seeds));
        bytes
    })
}

/// Runs a target until the cases or the time are used up; how many cases.
fn run(target: &Target, cases: u32, secs: u64) -> u64 {
    let seeds = (target.seeds)();
    let began = Instant::now();
    let mut done = 0;
    while done == 0 || began.elapsed() < Duration::from_secs(secs) {
        let config = Config { cases, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new(config);
        let outcome = runner.run(&inputs(seeds.clone()), |bytes| {
            let held = std::panic::catch_unwind(|| (target.run)(&bytes));
            held.map_err(|_| TestCaseError::fail("it panicked"))
        });
        if let Err(TestError::Fail(why, bytes)) = outcome {
            panic!("{}: {why} on {:?}\n{bytes:?}", target.name, String::from_utf8_lossy(&bytes));
        }
        done += u64::from(cases);
    }
    done
}

#[test]
fn every_reader_bears_what_comes() {
    for target in TARGETS {
        for seed in (target.seeds)() {
            (target.run)(&seed);
        }
        run(target, 300, 0);
    }
}

#[test]
#[ignore = "long; see make test-fuzz"]
fn every_reader_bears_what_comes_for_long() {
    let secs = std::env::var("FUZZ_SECS").map_or(60, |text| text.parse().unwrap());
    let only = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let chosen: Vec<_> = TARGETS.iter().filter(|target| only.is_empty() || target.name == only).collect();
    assert!(!chosen.is_empty(), "there is no target {only}");
    std::thread::scope(|scope| {
        for target in chosen {
            scope.spawn(move || {
                let cases = run(target, 10_000, secs);
                println!("{}: {cases} cases in {secs} s", target.name);
            });
        }
    });
}
