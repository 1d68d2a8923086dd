//! Hostile files: thousands of mutants through every call of a running server, and native parts removed while
//! it runs. `make test-hostile` runs the long form; `TRIPTYCH_MUTANTS` sets the number.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "hostile/mutate.rs"]
mod mutate;
#[path = "hostile/parts.rs"]
mod parts;
#[path = "hostile/seeds.rs"]
mod seeds;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Options, Server};
use mutate::Random;
use reqwest::blocking::{Response, multipart};
use seeds::{Kind, Seed};
use serde_json::{Value, json};

/// No request may take more for a file of less than 100 KB, seconds of CPU of server and children together.
const MAX_CPU_SECS: f64 = 30.0;
/// A request that took less time on the clock cannot have taken more CPU than this; others are measured alone.
const SUSPICIOUS: Duration = Duration::from_secs(8);
/// The bound is on CPU, not on the clock of a machine that may have other things to do.
const PATIENCE: Duration = Duration::from_secs(900);
/// Requests that warm the server up before its memory is looked at.
const WARM_UP: u64 = 60;

#[test]
fn some_mutants_do_no_harm() {
    let every_third: Vec<Seed> = seeds::all_but(|number| number % 3 == 0);
    attack(&every_third, 240, 1, 2);
}

#[test]
#[ignore = "long; see make test-hostile"]
fn many_mutants_do_no_harm() {
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
    };
    let by_the_clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let seed = number("TRIPTYCH_HOSTILE_SEED", by_the_clock);
    attack(&seeds::all_but(|_| true), number("TRIPTYCH_MUTANTS", 20_000), seed, 4);
}

/// What a run found.
#[derive(Default)]
struct Found {
    answers: BTreeMap<String, u64>,
    wrong: Vec<String>,
    slowest: (f64, String),
}

struct Attack<'a> {
    server: &'a Server,
    seeds: &'a [Seed],
    seed: u64,
    found: Mutex<Found>,
    keep: PathBuf,
}

/// Sends mutants from several threads and checks the server afterwards.
fn attack(seeds: &[Seed], mutants: u64, seed: u64, threads: usize) {
    eprintln!("TRIPTYCH_HOSTILE_SEED={seed}, {mutants} mutants of {} seeds", seeds.len());
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let server = Server::start(Options::default().log(&log));
    let keep = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("hostile");
    std::fs::create_dir_all(&keep).unwrap();
    let run = Attack { server: &server, seeds, seed, found: Mutex::default(), keep };
    let only: Option<u64> = std::env::var("TRIPTYCH_MUTANT").ok().map(|number| number.parse().unwrap());
    if let Some(number) = only {
        run.one(number);
    } else {
        run.all(0..WARM_UP.min(mutants), threads);
    }
    std::thread::sleep(Duration::from_secs(1));
    let (pid, began) = (server.pid(), Instant::now());
    let before = (resident_kib(pid), descriptors(pid));
    if only.is_none() {
        run.all(WARM_UP.min(mutants)..mutants, threads);
    }
    let took = began.elapsed().as_secs_f64();
    let after = settled(pid, before);
    let said = std::fs::read_to_string(&log).unwrap();
    let panics = said.lines().filter(|line| line.contains("panicked at")).count();
    let found = run.found.into_inner().unwrap();
    println!("answers: {:?}", found.answers);
    println!("dearest: {:.1} s, {}", found.slowest.0, found.slowest.1);
    println!(
        "{mutants} mutants in {took:.0} s; resident {} -> {} KiB, descriptors {} -> {}, {panics} panics, {} wrong",
        before.0,
        after.0,
        before.1,
        after.1,
        found.wrong.len()
    );
    assert!(found.wrong.is_empty(), "{:#?}", found.wrong);
    assert_eq!(panics, 0, "the server's log tells of panics:\n{said}");
    assert_eq!(server.get("/readyz").status(), 200);
    assert_eq!(children(pid), Vec::<String>::new(), "children are left");
    assert_eq!(server.get_json("/v1/assets")["data"], json!([]), "nothing is left of what was refused");
    assert!(after.1 <= before.1 + 8, "descriptors: {} -> {}", before.1, after.1);
    let allowed = before.0 + before.0 / 4 + (32 << 10);
    assert!(after.0 <= allowed, "resident: {} -> {} KiB", before.0, after.0);
    server.stop();
}

impl Attack<'_> {
    fn all(&self, numbers: std::ops::Range<u64>, threads: usize) {
        let next = AtomicU64::new(numbers.start);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= numbers.end || self.found.lock().unwrap().wrong.len() > 20 {
                            return;
                        }
                        self.one(number);
                    }
                });
            }
        });
    }

    fn one(&self, number: u64) {
        let mut random = Random::new(self.seed, number);
        let (which, bytes, done) = mutate::mutant(self.seeds, &mut random);
        let (seed, door) = (&self.seeds[which], random.below(6));
        let began = Instant::now();
        let outcome = self.send(door, seed, &bytes);
        let mut secs = began.elapsed();
        let name = format!("mutant {number}: {} of {}, door {door}", done, seed.name);
        let mut wrong = outcome.as_ref().err().map(|why| format!("{name}: {why}"));
        if wrong.is_none() && secs > SUSPICIOUS {
            let cpu = self.cpu_of(|| drop(self.send(door, seed, &bytes)));
            secs = Duration::from_secs_f64(cpu);
            if cpu > MAX_CPU_SECS {
                wrong = Some(format!("{name}: {cpu:.1} s of CPU for {} bytes", bytes.len()));
            }
        }
        let mut found = self.found.lock().unwrap();
        if number > 0 && number.is_multiple_of(1000) {
            let (wrong, resident) = (found.wrong.len(), resident_kib(self.server.pid()) >> 10);
            println!("{number} sent, {wrong} answers of a wrong kind, {resident} MiB resident");
        }
        if let Ok(answer) = outcome {
            *found.answers.entry(answer).or_default() += 1;
        }
        if secs.as_secs_f64() > found.slowest.0 {
            found.slowest = (secs.as_secs_f64(), name);
        }
        if let Some(wrong) = wrong {
            let kept = self.keep.join(format!("{}-{number}-{}", self.seed, seed.name));
            std::fs::write(&kept, &bytes).unwrap();
            eprintln!("{wrong} ({})", kept.display());
            found.wrong.push(format!("{wrong} ({})", kept.display()));
        }
    }

    /// CPU of the server and its children while something runs and nothing else does.
    fn cpu_of(&self, work: impl FnOnce()) -> f64 {
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = cpu_secs(self.server.pid());
        work();
        cpu_secs(self.server.pid()) - before
    }

    /// Sends a file through one of the calls; returns the answer's code, or the violated guarantee.
    fn send(&self, door: usize, seed: &Seed, bytes: &[u8]) -> Result<String, String> {
        let server = self.server;
        let modality = seed.kind.modality();
        let file = |form: multipart::Form| {
            form.part("file", multipart::Part::bytes(bytes.to_vec()).file_name(seed.name.clone()))
        };
        match door {
            0 | 1 => self.upload(seed, bytes),
            2 => patiently(|| {
                let form = file(multipart::Form::new().text("modality", modality));
                server.request("POST", "/v1/search").multipart(form).timeout(PATIENCE).send()
            })
            .map(|(code, _)| code),
            3 => {
                let uri = data_uri(seed.kind, bytes);
                let query = json!({"query": {modality: uri}});
                patiently(|| server.request("POST", "/v1/search").json(&query).timeout(PATIENCE).send())
                    .map(|(code, _)| code)
            }
            4 => patiently(|| {
                let form = file(multipart::Form::new().text("modality", modality));
                server.request("POST", "/v1/embeddings").multipart(form).timeout(PATIENCE).send()
            })
            .map(|(code, _)| code),
            _ => {
                let body = json!({"modality": modality, "input": data_uri(seed.kind, bytes)});
                patiently(|| server.request("POST", "/v1/embeddings").json(&body).timeout(PATIENCE).send())
                    .map(|(code, _)| code)
            }
        }
    }

    /// An upload, its thumbnail and its content; then it goes.
    fn upload(&self, seed: &Seed, bytes: &[u8]) -> Result<String, String> {
        let server = self.server;
        let (code, body) = patiently(|| {
            let part = multipart::Part::bytes(bytes.to_vec()).file_name(seed.name.clone());
            let form = multipart::Form::new().part("file", part);
            server.request("POST", "/v1/assets?wait=true").multipart(form).timeout(PATIENCE).send()
        })?;
        let Some(id) = body["id"].as_str().filter(|_| code.starts_with('2')) else { return Ok(code) };
        for path in ["thumbnail?at=0.5", "content", "thumbnail?at=99999&size=16"] {
            let path = format!("/v1/assets/{id}/{path}");
            patiently(|| server.request("GET", &path).send()).map_err(|why| format!("{path}: {why}"))?;
        }
        let (gone, _) = patiently(|| server.request("DELETE", &format!("/v1/assets/{id}")).send())?;
        if gone == "204" || gone.ends_with("not_found") { Ok(code) } else { Err(format!("deleting: {gone}")) }
    }
}

/// Sends until the server has time; status and code of the answer.
fn patiently(send: impl Fn() -> reqwest::Result<Response>) -> Result<(String, Value), String> {
    for _ in 0..200 {
        let response = send().map_err(|error| format!("no answer: {error:?}"))?;
        let status = response.status();
        if status == 429 {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        let bytes = response.bytes().map_err(|error| format!("a broken answer: {error:?}"))?;
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let code = body["error"]["code"].as_str().unwrap_or("");
        if status.is_server_error() {
            return Err(format!("{status}: {body}"));
        }
        let told = body.to_string();
        for place in ["/tmp/", "/usr/", "/home/", ".triptych", "ffmpeg/ffmpeg"] {
            if status.is_client_error() && told.contains(place) {
                return Err(format!("an answer names a path of the server: {told}"));
            }
        }
        return Ok((format!("{} {code}", status.as_u16()).trim_end().to_owned(), body));
    }
    Err("busy for 20 s".to_owned())
}

fn data_uri(kind: Kind, bytes: &[u8]) -> String {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.encode(bytes);
    format!("data:{}/x;base64,{bytes}", kind.modality())
}

/// The server's memory and descriptors once they are back, or after a minute.
fn settled(pid: u32, before: (u64, usize)) -> (u64, usize) {
    let began = Instant::now();
    loop {
        let now = (resident_kib(pid), descriptors(pid));
        let back = now.0 <= before.0 + before.0 / 5 && now.1 <= before.1 && children(pid).is_empty();
        if back || began.elapsed() > Duration::from_secs(60) {
            return now;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn children(pid: u32) -> Vec<String> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let list = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().map(str::to_owned));
    }
    found
}

/// User and system time of a process and of its children that have ended.
fn cpu_secs(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // From the state on, which is field 3 of proc(5): utime, stime, cutime, cstime.
    let ticks: u64 = fields[11..15].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    ticks as f64 / 100.0
}
