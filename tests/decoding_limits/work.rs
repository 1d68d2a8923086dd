//! Small files that expand to hours, and costly thumbnails.

use super::*;

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
    // Five minutes of sound that never repeats, at 6 kbit/s.
    let args = "-f lavfi -i anoisesrc=d=300:c=pink:r=48000:a=0.3 -c:a libopus -b:a 6k -application voip";
    let file = make(dir.path(), "speech.opus", args);
    let bytes = std::fs::metadata(&file).unwrap().len();
    let server = Server::start(Options::default());
    let asset = server.add(&file);
    let clips = asset["clips"].as_array().unwrap().len();
    eprintln!("{bytes} bytes, {clips} clips");
    assert_eq!((asset["state"].as_str(), clips), (Some("ready"), 94), "{asset}");
}

/// A film of many expensive, empty frames: 29 bytes for a frame of 9 million pixels.
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

/// A thumbnail ends at its share of the work that the file may cause, regardless of the number of attempts,
/// and reports its CPU time.
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
