//! What decoding may cost: memory of many decodes at once, and work for files that unfold to much more than
//! their bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "../common/mod.rs"]
mod common;

mod work;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Options, Server};
use reqwest::blocking::multipart::{Form, Part};
use serde_json::Value;

const MIB: u64 = 1 << 20;

fn make(dir: &Path, name: &str, args: &str) -> PathBuf {
    let path = dir.join(name);
    let mut command = Command::new(common::native_dir().join("ffmpeg/ffmpeg"));
    command.args(["-nostdin", "-v", "error", "-y"]).args(args.split_whitespace()).arg(&path);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    path
}

/// `(pid, parent, CPU seconds)` of every process.
fn processes() -> Vec<(u32, u32, f64)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let stat = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields[11].parse::<f64>().ok()? + fields[12].parse::<f64>().ok()?;
        Some((pid, fields[1].parse().ok()?, ticks / 100.0))
    };
    pids.filter_map(stat).collect()
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// What the children of a server took while something ran.
#[derive(Debug, Default)]
struct Children {
    most_bytes: u64,
    most_at_once: usize,
}

/// Runs `work` and measures the memory of the server's children every few milliseconds.
fn watched<T>(server: u32, work: impl FnOnce() -> T) -> (T, Children) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = Children::default();
            while !done.load(Ordering::Relaxed) {
                // A child that has not executed anything yet still shows the server's memory.
                let started = |pid: u32| {
                    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                    !line.windows(8).any(|word| word == b"\0serve\0-")
                };
                let of_server =
                    processes().into_iter().filter(|(pid, parent, _)| *parent == server && started(*pid));
                let sizes: Vec<u64> = of_server.map(|(pid, ..)| status_kib(pid, "RssAnon:") * 1024).collect();
                seen.most_bytes = seen.most_bytes.max(sizes.iter().sum());
                seen.most_at_once = seen.most_at_once.max(sizes.len());
                std::thread::sleep(Duration::from_millis(3));
            }
            seen
        });
        let value = work();
        done.store(true, Ordering::Relaxed);
        (value, watcher.join().unwrap())
    })
}

fn query(server: &Server, modality: &str, bytes: Vec<u8>) -> reqwest::blocking::Response {
    let part = Part::bytes(bytes).file_name("query");
    server.post_form("/v1/search", Form::new().text("modality", modality.to_owned()).part("file", part))
}

/// So many queries at once; how many were answered with each status and code.
fn queries_at_once(server: &Server, count: usize, modality: &str, bytes: &[u8]) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn(|| {
                    let response = query(server, modality, bytes.to_vec());
                    if response.status().is_success() {
                        return "200".to_owned();
                    }
                    if response.status() == 429 {
                        assert!(response.headers().contains_key("retry-after"));
                    }
                    let status = response.status().as_u16();
                    let error = &response.json::<Value>().unwrap()["error"];
                    if error["code"] != "overloaded" {
                        eprintln!("{error}");
                    }
                    format!("{status} {}", error["code"].as_str().unwrap())
                })
            })
            .collect();
        for query in running {
            *tally.entry(query.join().unwrap()).or_insert(0) += 1;
        }
    });
    tally
}

fn gauge(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").text().unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

const FORMATS: [&str; 5] = ["rgba.png", "rgb48.png", "picture.jpg", "picture.webp", "lossless.webp"];

/// Large pictures as queries, in several formats: they stay within the budget, and each gets an answer or
/// 429.
fn pictures_at_once(count: usize, budget: u64, size: &str, formats: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let pixels = format!("-f lavfi -i gradients=s={size}:d=1:r=1:n=2 -frames:v 1");
    let pictures = [
        ("rgba.png", format!("{pixels} -pix_fmt rgba -compression_level 1")),
        ("rgb48.png", format!("{pixels} -pix_fmt rgb48be -compression_level 1")),
        ("picture.jpg", format!("{pixels} -pix_fmt yuvj420p")),
        ("picture.webp", format!("{pixels} -c:v libwebp -lossless 0 -compression_level 0")),
        ("lossless.webp", format!("{pixels} -c:v libwebp -lossless 1 -compression_level 0")),
    ];
    let server = Server::start(Options::default().args(&["--decode-memory-bytes", &budget.to_string()]));
    let pid = server.pid();
    for (name, args) in pictures.iter().filter(|(name, _)| formats.contains(name)) {
        let bytes = std::fs::read(make(dir.path(), name, args)).unwrap();
        let began = Instant::now();
        let (tally, children) = watched(pid, || queries_at_once(&server, count, "image", &bytes));
        eprintln!(
            "{count} x {name} {size} ({} KB): {tally:?} in {:.1} s, children at most {} MiB in {} processes",
            bytes.len() / 1000,
            began.elapsed().as_secs_f64(),
            children.most_bytes / MIB,
            children.most_at_once,
        );
        assert!(children.most_bytes <= budget, "{name}: {children:?}");
        assert!(
            tally.keys().all(|answer| answer == "200" || answer == "429 overloaded"),
            "{name}: {tally:?}"
        );
        assert!(tally.contains_key("200"), "{name}: {tally:?}");
    }
    assert_eq!(gauge(&server, "triptych_decode_memory_reserved_bytes"), 0.0);
    assert_eq!(gauge(&server, "triptych_decodes_running{lane=\"interactive\"}"), 0.0);
}

#[test]
fn large_pictures_as_queries_stay_within_the_memory_budget() {
    pictures_at_once(6, 160 * MIB, "3000x2000", &FORMATS);
}

#[test]
fn uploads_at_once_leave_room_for_a_query_and_decoders_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Options::default().args(&["--decode-workers", "3", "--ingest-workers", "2"]));
    let film = "-f lavfi -i testsrc2=s=320x240:r=25:d=12 -c:v libx264 -preset ultrafast";
    let film = std::fs::read(make(dir.path(), "film.mp4", film)).unwrap();
    let picture =
        std::fs::read(make(dir.path(), "p.png", "-f lavfi -i testsrc2=s=64x64 -frames:v 1")).unwrap();
    let upload = |n: usize| {
        // The same film with another end: no two are the same bytes.
        let bytes =
            [&film[..], &[0, 0, 0, 8], b"free", &[0, 0, 0, 12], b"free", &(n as u32).to_be_bytes()].concat();
        server.upload_bytes(&format!("{n}.mp4"), bytes, "?wait=true").status().as_u16()
    };
    let ((), children) = watched(server.pid(), || {
        std::thread::scope(|scope| {
            let uploads: Vec<_> = (0..12).map(|n| scope.spawn(move || upload(n))).collect();
            std::thread::sleep(Duration::from_millis(500));
            let began = Instant::now();
            assert!(query(&server, "image", picture.clone()).status().is_success());
            eprintln!("a query beside 12 uploads: {:.2} s", began.elapsed().as_secs_f64());
            assert!(uploads.into_iter().all(|upload| upload.join().unwrap() == 201));
        });
    });
    // A child that has just been reaped may be seen beside its successor.
    assert!(children.most_at_once <= 4, "{children:?}");
}

#[test]
fn who_waits_too_long_for_a_decoder_is_told_to_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--decode-workers", "1", "--decode-wait-secs", "0.05"];
    let server = Server::start(Options::default().args(&args));
    let film = "-f lavfi -i testsrc2=s=640x480:r=25:d=20 -c:v libx264 -preset ultrafast";
    let film = std::fs::read(make(dir.path(), "film.mp4", film)).unwrap();
    let tally = queries_at_once(&server, 4, "video", &film);
    assert!(tally.contains_key("200") && tally.contains_key("429 overloaded"), "{tally:?}");
    assert!(gauge(&server, "triptych_decodes_refused_total{reason=\"no_worker\"}") >= 1.0);
    assert!(query(&server, "video", film).status().is_success(), "and then there is room again");
}

/// The long form: the sizes of the attack, and videos of 4K and 8K.
#[test]
#[ignore = "minutes, and a gigabyte of memory: make test-decoding"]
fn pictures_and_videos_of_full_size_stay_within_the_memory_budget() {
    pictures_at_once(12, 1024 * MIB, "8000x4300", &FORMATS);
    pictures_at_once(64, 1024 * MIB, "8000x4300", &["rgba.png", "picture.jpg"]);
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Options::default());
    for (name, size, budget) in [("4k.mp4", "3840x2160", 1024), ("8k.mp4", "7680x4320", 1400)] {
        let args = format!("-f lavfi -i testsrc2=s={size}:r=10:d=1 -c:v libx264 -preset ultrafast");
        let bytes = std::fs::read(make(dir.path(), name, &args)).unwrap();
        let (tally, children) = watched(server.pid(), || queries_at_once(&server, 6, "video", &bytes));
        eprintln!("6 x {name}: {tally:?}, {} MiB in {}", children.most_bytes / MIB, children.most_at_once);
        assert!(children.most_bytes <= budget * MIB, "{name}: {children:?}");
        assert!(
            tally.keys().all(|answer| answer == "200" || answer == "429 overloaded"),
            "{name}: {tally:?}"
        );
    }
}
