//! A job of 2,000 files on a server that is killed ten times. `make test-kill`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Options, Server, media, ok_json, wav};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

const FILES: usize = 2000;
const KILLS: usize = 10;
const SEED: u64 = 20;
/// Every so many files a short video, and every so many a picture; the rest are sounds.
const VIDEO_EVERY: usize = 50;
const PICTURE_EVERY: usize = 3;
const BASE_VIDEOS: usize = 8;
/// A window of the model.
const WINDOW_SECS: f64 = 3.2;
/// For the whole job, kills and starts included.
const PATIENCE: Duration = Duration::from_secs(3600);

fn png(n: usize) -> Vec<u8> {
    let colour = |x: u32, y: u32| {
        image::Rgb([(n % 256) as u8, (n / 256) as u8 ^ (x * 5) as u8, (y * 7) as u8 ^ (n * 3) as u8])
    };
    let mut bytes = Vec::new();
    let picture = image::RgbImage::from_fn(40, 30, colour);
    picture.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

/// A short video; those of one base differ in their metadata, so in their bytes.
fn mp4(n: usize) -> PathBuf {
    let base = n % BASE_VIDEOS;
    let hue = (base * 40).to_string();
    let picture = format!("testsrc2=size=64x48:rate=5:duration=1,hue=h={hue}");
    let sound = format!("sine=frequency={}:duration=1", 300 + 40 * base);
    let mut args = vec!["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &sound];
    let comment = format!("comment=number {n}");
    args.extend(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"]);
    args.extend(["-metadata", &comment]);
    media(&format!("kill-{n}.mp4"), &args)
}

/// What a file must become: its clips on each track.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Wanted {
    clips: u64,
    video: u64,
    audio: u64,
}

fn fill(root: &Path, rng: &mut StdRng) -> HashMap<String, Wanted> {
    let mut wanted = HashMap::new();
    for n in 0..FILES {
        let folder = root.join(format!("{:02}", n % 37));
        std::fs::create_dir_all(&folder).unwrap();
        let (name, of) = if n.is_multiple_of(VIDEO_EVERY) {
            let name = format!("{n:04}.mp4");
            std::fs::copy(mp4(n), folder.join(&name)).unwrap();
            (name, Wanted { clips: 1, video: 1, audio: 1 })
        } else if n.is_multiple_of(PICTURE_EVERY) {
            let name = format!("{n:04}.png");
            std::fs::write(folder.join(&name), png(n)).unwrap();
            (name, Wanted { clips: 1, video: 1, audio: 0 })
        } else {
            let windows: u64 = rng.random_range(1..4);
            let secs = windows as f64 * WINDOW_SECS - 0.5;
            let name = format!("{n:04}.wav");
            std::fs::write(folder.join(&name), wav(n, secs)).unwrap();
            (name, Wanted { clips: windows, video: 0, audio: windows })
        };
        wanted.insert(name, of);
    }
    wanted
}

fn over(job: &Value) -> usize {
    (job["items_done"].as_u64().unwrap() + job["items_failed"].as_u64().unwrap()) as usize
}

/// Waits until so many items of a job have ended.
fn reach(server: &Server, url: &str, items: usize, deadline: Instant) -> Value {
    loop {
        let job = server.get_json(url);
        if over(&job) >= items {
            return job;
        }
        assert!(Instant::now() < deadline, "{items} items are not done in time: {job}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn pages(server: &Server, path: &str) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = server.get_json(&format!("{path}?limit=500{after}"));
        all.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

fn vectors(stats: &Value, track: &str) -> Vec<u64> {
    let indexes = stats["indexes"].as_array().unwrap();
    let of = indexes.iter().filter(|index| index["track"] == track);
    of.map(|index| index["vectors"].as_u64().unwrap()).collect()
}

fn check(server: &Server, url: &str, wanted: &HashMap<String, Wanted>) {
    let job = server.get_json(url);
    assert_eq!((&job["state"], &job["items_total"]), (&json!("done"), &json!(FILES)), "{job}");
    assert_eq!((&job["items_done"], &job["items_failed"]), (&json!(FILES), &json!(0)), "{job}");

    let assets = pages(server, "/v1/assets");
    assert_eq!(assets.len(), FILES);
    let mut by_id = HashMap::new();
    for asset in &assets {
        let name = asset["name"].as_str().unwrap();
        assert_eq!(asset["state"], "ready", "{asset}");
        assert_eq!(asset["clip_count"], json!(wanted[name].clips), "{asset}");
        assert!(by_id.insert(asset["id"].as_str().unwrap(), name).is_none());
    }
    assert_eq!(by_id.values().collect::<HashSet<_>>().len(), FILES, "a file has two assets");

    let items = pages(server, &format!("{url}/items"));
    assert_eq!(items.len(), FILES);
    let (mut paths, mut owners) = (HashSet::new(), HashSet::new());
    for item in &items {
        let path = Path::new(item["path"].as_str().unwrap());
        let asset = item["asset_id"].as_str().unwrap();
        assert_eq!(item["state"], "done", "{item}");
        assert_eq!(by_id[asset], path.file_name().unwrap().to_str().unwrap(), "{item}");
        assert!(paths.insert(path.to_owned()) && owners.insert(asset), "twice: {item}");
    }

    let sum = |of: fn(&Wanted) -> u64| wanted.values().map(of).sum::<u64>();
    let stats = server.get_json("/v1/stats");
    assert_eq!(stats["clips"], json!(sum(|w| w.clips)));
    assert_eq!(job["clips"], json!(sum(|w| w.clips)), "{job}");
    for (track, count) in [("video", sum(|w| w.video)), ("audio", sum(|w| w.audio))] {
        let found = vectors(&stats, track);
        assert!(!found.is_empty() && found.iter().all(|held| *held == count), "{track} {found:?} {count}");
    }
}

#[test]
#[ignore = "minutes: `make test-kill`"]
fn two_thousand_files_over_ten_kills() {
    let mut rng = StdRng::seed_from_u64(SEED);
    let dir = tempfile::tempdir().unwrap();
    let (data, root) = (dir.path().join("data"), dir.path().canonicalize().unwrap().join("media"));
    std::fs::create_dir_all(&root).unwrap();
    let began = Instant::now();
    let wanted = fill(&root, &mut rng);
    eprintln!("{FILES} files made in {:.1} s", began.elapsed().as_secs_f64());

    let options = || Options::default().data(&data).root(&root);
    let (began, deadline) = (Instant::now(), Instant::now() + PATIENCE);
    let mut server = Server::start(options());
    let body = json!({"type": "index", "path": root.to_str().unwrap()});
    let job = ok_json(server.post("/v1/jobs", &body));
    let url = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    for kill in 0..KILLS {
        // Spread over the job, anywhere within its part.
        let part = FILES / (KILLS + 1);
        let items = (kill * part + rng.random_range(1..part)).max(1);
        let job = reach(&server, &url, items, deadline);
        assert_eq!(job["state"], "running", "kill {kill} comes too late: {job}");
        std::thread::sleep(Duration::from_millis(rng.random_range(0..200)));
        server.kill9();
        let down = Instant::now();
        server = Server::start(options());
        let found = server.get_json(&url);
        assert!(over(&found) >= over(&job), "done items are not done any more: {job} {found}");
        eprintln!(
            "kill {kill} at {} items; up again after {:.1} s with {} of them",
            over(&job),
            down.elapsed().as_secs_f64(),
            over(&found)
        );
    }
    reach(&server, &url, FILES, deadline);
    eprintln!("all {FILES} files after {:.0} s", began.elapsed().as_secs_f64());
    check(&server, &url, &wanted);
    // Once more: everything is known.
    let again = ok_json(server.post("/v1/jobs", &body));
    let again_url = format!("/v1/jobs/{}", again["id"].as_str().unwrap());
    let again = reach(&server, &again_url, FILES, deadline);
    assert_eq!((&again["items_done"], &again["clips"]), (&json!(FILES), &json!(0)), "{again}");
    check(&server, &url, &wanted);
    // Also after a restart from the data on disk.
    server.stop();
    check(&Server::start(options()), &url, &wanted);
}

#[test]
#[ignore = "minutes: `make test-kill`"]
fn a_cancelled_job_stops_within_two_seconds() {
    const BEFORE: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("media");
    std::fs::create_dir_all(&root).unwrap();
    for n in 0..BEFORE {
        std::fs::write(root.join(format!("a{n:02}.wav")), wav(n, 1.0)).unwrap();
    }
    // So long that it is being indexed when the job is cancelled, and some more behind it.
    std::fs::write(root.join("b.wav"), wav(5000, 4000.0)).unwrap();
    for n in 0..BEFORE {
        std::fs::write(root.join(format!("c{n:02}.wav")), wav(100 + n, 1.0)).unwrap();
    }
    let server = Server::start(Options::default().root(&root).args(&["--ingest-workers", "1"]));
    let job = ok_json(server.post("/v1/jobs", &json!({"type": "index", "path": root.to_str().unwrap()})));
    let url = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    reach(&server, &url, BEFORE, Instant::now() + PATIENCE);
    common::eventually("clips of the long file are searchable", || {
        (server.get_json("/v1/stats")["clips"].as_u64().unwrap() > BEFORE as u64).then_some(())
    });
    let cancelled = Instant::now();
    let job = ok_json(server.delete(&url));
    let items = loop {
        let items = pages(&server, &format!("{url}/items"));
        if items.iter().all(|item| item["state"] != "running" && item["state"] != "queued") {
            break items;
        }
        assert!(cancelled.elapsed() < Duration::from_secs(2), "it goes on: {job}");
    };
    eprintln!("cancelled in {:.3} s", cancelled.elapsed().as_secs_f64());
    assert!(cancelled.elapsed() < Duration::from_secs(2));
    let of = |state: &str| items.iter().filter(|item| item["state"] == state).count();
    assert_eq!((of("done"), of("cancelled")), (BEFORE, BEFORE + 1));
    // Finished items stay, unfinished ones leave nothing behind.
    let stats = server.get_json("/v1/stats");
    assert_eq!((&stats["clips"], &stats["assets"]), (&json!(BEFORE), &json!(BEFORE)));
    assert!(vectors(&stats, "audio").iter().all(|held| *held == BEFORE as u64), "{stats}");
    assert!(pages(&server, "/v1/assets").iter().all(|asset| asset["state"] == "ready"));
}
