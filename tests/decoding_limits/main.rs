//! What decoding may cost: memory of many decodes at once, and work for files that unfold to much more than
//! their bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;

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

/// Runs something while it is measured what the server's children take, every few milliseconds.
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

/// Large pictures as queries, in some formats: the budget holds, and all are answered or told to come again.
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

/// A file that lasts for hours, or would cost minutes.
struct Bomb {
    name: &'static str,
    bytes: Vec<u8>,
    /// Most clips it may be stored as, and whether it must be whole.
    clips: usize,
    whole: bool,
}

/// Sets the duration of an animated WebP's first frame, milliseconds (24 bits).
fn webp_lasting(mut bytes: Vec<u8>, millis: u32) -> Vec<u8> {
    let at = bytes.windows(4).position(|window| window == b"ANMF").unwrap() + 8 + 12;
    bytes[at..at + 3].copy_from_slice(&millis.to_le_bytes()[..3]);
    bytes
}

/// Sets the delay of every frame of a GIF, hundredths of a second.
fn gif_lasting(mut bytes: Vec<u8>, hundredths: u16) -> Vec<u8> {
    let marks: Vec<usize> =
        (0..bytes.len() - 8).filter(|at| bytes[*at..].starts_with(b"\x21\xf9\x04")).collect();
    for at in marks {
        bytes[at + 4..at + 6].copy_from_slice(&hundredths.to_le_bytes());
    }
    bytes
}

fn bombs(dir: &Path) -> Vec<Bomb> {
    let read = |name: &str, args: &str| std::fs::read(make(dir, name, args)).unwrap();
    let two = "-f lavfi -i testsrc2=s=160x120:r=1:d=2";
    let apart = |secs: u32| format!("{two} -vf setpts=N*{secs}/TB -fps_mode passthrough");
    let six_hours = apart(21_600);
    let webp = read("two.webp", &format!("{two} -c:v libwebp_anim -loop 0"));
    let gif = read("two.gif", two);
    let bomb = |name, bytes, clips| Bomb { name, bytes, clips, whole: true };
    vec![
        bomb("frame-of-4.6-hours.webp", webp_lasting(webp, 16_777_000), 3),
        bomb("frames-of-11-minutes.gif", gif_lasting(gif, 65_535), 4),
        bomb(
            "six-hours.apng",
            read("a.apng", &format!("{two} -vf setpts=N*60000/TB -fps_mode passthrough -f apng")),
            4,
        ),
        bomb("six-hours-apart.mp4", read("b.mp4", &format!("{six_hours} -c:v libx264")), 4),
        bomb("six-hours-apart.webm", read("c.webm", &format!("{six_hours} -c:v libvpx")), 4),
        bomb("six-hours-apart.mkv", read("d.mkv", &format!("{six_hours} -c:v ffv1")), 4),
        bomb(
            "still-at-one-frame-a-second.mp4",
            read("e.mp4", "-f lavfi -i color=gray:s=64x48:r=1:d=3600 -c:v libx264 -g 9999 -preset veryfast"),
            2,
        ),
        bomb("silence-of-ten-minutes.flac", read("f.flac", "-f lavfi -i anullsrc=r=8000:cl=mono:d=600"), 2),
        bomb(
            "silence-of-twenty-minutes.opus",
            read(
                "g.opus",
                "-f lavfi -i anullsrc=r=48000:cl=mono:d=1200 -c:a libopus -b:a 6k -frame_duration 60",
            ),
            4,
        ),
        bomb(
            "silence-of-ten-minutes.ogg",
            read("h.ogg", "-f lavfi -i anullsrc=r=8000:cl=mono:d=600 -c:a libvorbis -q:a 0"),
            4,
        ),
        Bomb {
            name: "sound-with-a-gap-of-ten-hours.mkv",
            bytes: read(
                "i.mkv",
                "-f lavfi -i sine=440:d=0.2 -af asetpts=N/SR/TB+gt(N\\,4000)*36000/TB -c:a flac",
            ),
            clips: 8,
            whole: false,
        },
        Bomb {
            name: "many-tiny-pictures.mp4",
            bytes: read(
                "j.mp4",
                "-f lavfi -i testsrc2=s=16x16:r=2:d=3000 -c:v libx264 -crf 51 -preset veryfast",
            ),
            clips: 1000,
            whole: false,
        },
    ]
}

/// CPU seconds of the server, its ended children and those that run.
fn cpu_secs(server: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{server}/stat")).unwrap();
    let fields: Vec<f64> = text
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    let own: f64 = fields[11..15].iter().sum::<f64>() / 100.0;
    own + processes().iter().filter(|(_, parent, _)| *parent == server).map(|(.., cpu)| cpu).sum::<f64>()
}

#[test]
fn small_files_that_unfold_to_hours_cost_little_and_are_a_few_clips() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Options::default());
    let pid = server.pid();
    let mut dearest = (0.0, "");
    for Bomb { name, bytes, clips: most, whole } in bombs(dir.path()) {
        let (kb, before, began) = (bytes.len() as f64 / 1e3, cpu_secs(pid), Instant::now());
        let response = server.upload_bytes(name, bytes, "?wait=true");
        let status = response.status();
        let body: Value = response.json().unwrap();
        let (cpu, wall) = (cpu_secs(pid) - before, began.elapsed().as_secs_f64());
        let clips = body["clips"].as_array().map_or(0, Vec::len);
        let error = body["error"]["code"].as_str().unwrap_or_default();
        let (state, secs) =
            (body["state"].as_str().unwrap_or("-"), body["duration_secs"].as_f64().unwrap_or(0.0));
        eprintln!(
            "{name}: {kb:.1} KB, {secs:.0} s -> {status} {state} {error}, {clips} clips, {cpu:.1} s CPU, {wall:.1} s"
        );
        if whole {
            assert!(status.is_success() && state == "ready", "{name}: {body}");
        } else {
            assert!(status.is_success() || error == "work_limit", "{name}: {body}");
        }
        assert!(clips <= most, "{name}: {clips} clips");
        // Every second is covered.
        if state == "ready" && clips > 0 {
            let spans: Vec<(f64, f64)> = body["clips"]
                .as_array()
                .unwrap()
                .iter()
                .map(|clip| (clip["start_secs"].as_f64().unwrap(), clip["end_secs"].as_f64().unwrap()))
                .collect();
            assert!(
                spans[0].0 == 0.0 && (spans[clips - 1].1 - secs).abs() < 1.0,
                "{name}: {spans:?} of {secs} s"
            );
            assert!(spans.windows(2).all(|pair| pair[1].0 <= pair[0].1 + 1e-6), "{name}: {spans:?}");
        }
        dearest = if cpu > dearest.0 { (cpu, name) } else { dearest };
        if kb < 100.0 {
            assert!(cpu < 30.0, "{name}: {cpu} s of CPU");
        }
    }
    eprintln!("dearest: {dearest:?}");
    // Long and short clips side by side, through everything that shows them.
    let hits = server.post_json("/v1/search", &serde_json::json!({"query": "a red circle", "limit": 50}));
    let mut assets = HashMap::new();
    for hit in hits["data"].as_array().unwrap() {
        assert!(hit["start_secs"].as_f64().unwrap() < hit["end_secs"].as_f64().unwrap(), "{hit}");
        assets.insert(hit["asset_id"].as_str().unwrap_or_default().to_owned(), ());
    }
    let list = server.get_json("/v1/assets?limit=100");
    for asset in list["data"].as_array().unwrap() {
        let id = asset["id"].as_str().unwrap();
        if asset["kind"] == "video" && asset["state"] == "ready" {
            let timeline = server.get_json(&format!("/v1/assets/{id}/timeline?q=a+red+circle"));
            assert!(!timeline["moments"].as_array().unwrap().is_empty(), "{timeline}");
            let middle = asset["duration_secs"].as_f64().unwrap() / 2.0;
            let picture = server.get(&format!("/v1/assets/{id}/thumbnail?at={middle}"));
            assert!(picture.status().is_success(), "{}: {}", asset["name"], picture.text().unwrap());
        }
    }
}

#[test]
fn sparse_but_real_sound_is_indexed_whole() {
    let dir = tempfile::tempdir().unwrap();
    // Five minutes of what is never the same, at 6 kbit/s.
    let args = "-f lavfi -i anoisesrc=d=300:c=pink:r=48000:a=0.3 -c:a libopus -b:a 6k -application voip";
    let file = make(dir.path(), "speech.opus", args);
    let bytes = std::fs::metadata(&file).unwrap().len();
    let server = Server::start(Options::default());
    let asset = server.add(&file);
    let clips = asset["clips"].as_array().unwrap().len();
    eprintln!("{bytes} bytes, {clips} clips");
    assert_eq!((asset["state"].as_str(), clips), (Some("ready"), 94), "{asset}");
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

/// A film of many frames that cost much and hold nothing: 29 bytes for a frame of 9 million pixels.
fn dear_gif(frames: u16) -> Vec<u8> {
    let (width, height) = (4096_u16, 2160_u16);
    let mut gif = [&b"GIF89a"[..], &width.to_le_bytes(), &height.to_le_bytes(), &[0xf7, 0, 0]].concat();
    gif.extend((0..=255_u8).flat_map(|i| [i, i.wrapping_mul(7), i.wrapping_mul(31)]));
    for n in 0..frames {
        let (x, y) = (n.wrapping_mul(37) % width, n.wrapping_mul(91) % height);
        gif.extend(b"\x21\xf9\x04\x04\x04\0\0\0\x2c");
        gif.extend([x, y, 1, 1].iter().flat_map(|value| value.to_le_bytes()));
        gif.extend([0, 7, 3, 128, (n % 128) as u8, 129, 0]);
    }
    gif.push(0x3b);
    gif
}

/// A thumbnail ends at its share of the work that the file may cause, however many attempts it takes, and tells what
/// it took.
#[test]
fn a_thumbnail_of_a_film_that_costs_much_ends_at_its_share() {
    let ffmpeg = common::native_dir().join("ffmpeg/ffmpeg");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dear.gif");
    std::fs::write(&path, dear_gif(6000)).unwrap();
    let limits = triptych::media::Limits::default();
    let work = limits.work.share(0.1);
    let allowed = work.cpu(std::fs::metadata(&path).unwrap().len()).as_secs_f64();
    let worker_exe = common::binary();
    let config = triptych::media::DecoderConfig {
        worker_exe,
        ffmpeg,
        limits: triptych::media::Limits { work, ..limits },
    };
    let decoder = triptych::media::Decoder::new(config);
    let shown = |at_secs: f64| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let thumbnail = triptych::preprocess::thumbnail_of(&decoder, &path, at_secs, 64, Default::default());
        runtime.block_on(thumbnail).unwrap()
    };
    let early = shown(0.0);
    assert!(early.jpeg.is_ok(), "{early:?}");
    assert!(early.cpu.as_secs_f64() < allowed, "{early:?}");
    let late = shown(239.9);
    assert_eq!(late.jpeg.map(|_| ()).map_err(|error| error.code()), Err("work_limit"));
    let cpu = late.cpu.as_secs_f64();
    assert!(cpu > allowed * 0.5 && cpu < allowed + 1.0, "{cpu} s of {allowed} s");
}
