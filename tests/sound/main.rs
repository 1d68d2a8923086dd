//! Sound through the real decode-worker: where each second of it lies, how channels are mixed, what is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::Command;

use triptych::media::{Decoder, DecoderConfig, Limits, WorkLimits};
use triptych::preprocess::spec::PictureSpec;
use triptych::preprocess::{AssetSummary, ClipReader, ClipSpec};
use triptych::types::TimeSpan;

const RATE: usize = 48_000;
/// A tenth of a second each: a clip says what is heard in it.
const SPEC: ClipSpec =
    ClipSpec::mmv(10.0, 1, PictureSpec::mmv(16, 16, true, false), (RATE as u32, RATE / 10), 0.1);

fn native() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = std::env::var_os("TRIPTYCH_NATIVE_DIR").map_or(root.join(".triptych/native"), PathBuf::from);
    std::env::var_os("TRIPTYCH_FFMPEG").map_or(dir.join("ffmpeg/ffmpeg"), PathBuf::from)
}

struct Bench {
    dir: tempfile::TempDir,
    decoder: Decoder,
}

impl Bench {
    /// `None`, with a word why, where there is no ffmpeg.
    fn new() -> Option<Self> {
        let ffmpeg = native();
        if !ffmpeg.is_file() {
            eprintln!("SKIPPED: no ffmpeg at {}; run `make native`", ffmpeg.display());
            return None;
        }
        let worker_exe = PathBuf::from(env!("CARGO_BIN_EXE_triptych"));
        // Clips this short are many.
        let work = WorkLimits { clips: 10_000, ..WorkLimits::default() };
        let limits = Limits { wall_clock_secs: 60, work, ..Limits::default() };
        let decoder = Decoder::new(DecoderConfig { worker_exe, ffmpeg, limits });
        Some(Self { dir: tempfile::tempdir().unwrap(), decoder })
    }

    fn make(&self, name: &str, args: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let mut command = Command::new(native());
        command.args(["-nostdin", "-v", "error", "-y"]).args(args.split_whitespace()).arg(&path);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        path
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// All samples of a file's sound, and what is known of it.
    async fn read(&self, path: &Path) -> (Vec<f32>, AssetSummary) {
        self.read_span(path, None).await
    }

    /// The code of the error that a span is refused with.
    async fn refused(&self, path: &Path, (start, end): (f64, f64)) -> &'static str {
        let span = Some(TimeSpan::new(start, end).unwrap());
        let mut reader = match ClipReader::open(&self.decoder, path, &SPEC, span).await {
            Ok(reader) => reader,
            Err(error) => return error.code(),
        };
        loop {
            match reader.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return "",
                Err(error) => return error.code(),
            }
        }
    }

    async fn read_span(&self, path: &Path, span: Option<(f64, f64)>) -> (Vec<f32>, AssetSummary) {
        let span = span.map(|(start, end)| TimeSpan::new(start, end).unwrap());
        let name = path.display();
        let mut reader = ClipReader::open(&self.decoder, path, &SPEC, span)
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let first = span.map_or(0.0, |span| span.start_secs);
        let mut samples: Vec<f32> = Vec::new();
        while let Some(clip) = reader.next().await.unwrap_or_else(|e| panic!("{name}: {e}")) {
            let at = ((clip.span.start_secs - first) * RATE as f64).round() as usize;
            let Some(pcm) = clip.pcm else { continue };
            samples.resize(samples.len().max(at + pcm.len() * clip.windows as usize), 0.0);
            for window in 0..clip.windows as usize {
                samples[at + window * pcm.len()..][..pcm.len()].copy_from_slice(&pcm);
            }
        }
        (samples, reader.summary())
    }
}

/// Second `n` of a tone clock is a tone of `400 + 100 n` Hz.
fn clock(secs: usize, rate: usize, channels: usize, first: usize) -> String {
    let tone = |n: usize| format!("sine=f={}:r={rate}:d=1[t{n}]", 400 + 100 * (n + first));
    let tones: Vec<_> = (0..secs).map(tone).collect();
    let inputs: String = (0..secs).map(|n| format!("[t{n}]")).collect();
    format!(
        "-filter_complex {};{inputs}concat=n={secs}:v=0:a=1,volume=4,pan={channels}c|{}[out] -map [out] -ar {rate}",
        tones.join(";"),
        (0..channels).map(|c| format!("c{c}=c0")).collect::<Vec<_>>().join("|")
    )
}

/// How much of a tone there is in some samples: 1 where there is nothing else.
fn share(samples: &[f32], hz: f64) -> f64 {
    let (mut re, mut im, mut all) = (0.0, 0.0, 0.0);
    for (i, sample) in samples.iter().enumerate() {
        let angle = std::f64::consts::TAU * hz * i as f64 / RATE as f64;
        re += f64::from(*sample) * angle.cos();
        im += f64::from(*sample) * angle.sin();
        all += f64::from(*sample) * f64::from(*sample);
    }
    if all == 0.0 { 0.0 } else { (re * re + im * im) / all / samples.len() as f64 * 2.0 }
}

/// Whether second `n` of the sound, but for 30 ms on either side, is the clock's tone `tone`.
fn is_second(samples: &[f32], n: f64, tone: usize) -> bool {
    let margin = RATE * 30 / 1000;
    let from = (n * RATE as f64) as usize + margin;
    let heard = samples.get(from..from + RATE - 2 * margin).unwrap_or_default();
    !heard.is_empty() && share(heard, (400 + 100 * tone) as f64) > 0.9
}

fn heard(samples: &[f32], secs: usize) -> Vec<bool> {
    (0..secs).map(|n| is_second(samples, n as f64, n)).collect()
}

/// As ffmpeg names them; seven and eight channels are 6.1 and 7.1.
const LAYOUTS: [&str; 8] = ["mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1"];

#[tokio::test]
async fn every_container_mixes_every_layout_alike() {
    let Some(bench) = Bench::new() else { return };
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for rate in [48_000, 44_100] {
        for (i, layout) in LAYOUTS.iter().enumerate() {
            let channels = i + 1;
            // No channel is like another.
            let frames = rate * 2;
            let samples: Vec<i16> = std::iter::repeat_with(|| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                (random >> 50) as i16
            })
            .take(frames * channels)
            .collect();
            let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            let raw = bench.file("raw", &bytes);
            let input = format!("-f s16le -ar {rate} -ch_layout {layout} -i {}", raw.display());
            let mut first: Option<Vec<f32>> = None;
            let files = [
                ("wav", ""),
                ("flac", ""),
                ("mov", "-c:a pcm_s16le"),
                ("mkv", "-c:a pcm_s16le"),
                ("mka", "-c:a flac"),
                ("caf", ""),
                ("w64", ""),
                ("aiff", ""),
                ("au", ""),
                ("wv", ""),
                ("f32.wav", "-c:a pcm_f32le"),
                ("s24.wav", "-c:a pcm_s24le"),
                ("m4a", "-c:a alac"),
            ];
            for (suffix, codec) in files {
                // ffmpeg writes other layouts of more channels, and mixes to these.
                let cannot = suffix == "m4a" && channels > 2;
                if cannot {
                    continue;
                }
                let path = bench.make(&format!("{rate}-{channels}.{suffix}"), &format!("{input} {codec}"));
                let (got, summary) = bench.read(&path).await;
                assert_eq!((summary.partial, got.len()), (None, RATE * 2), "{}", path.display());
                if rate == RATE {
                    let worst = got.iter().zip(samples.chunks(channels)).map(|(got, frame)| {
                        let sum: f64 = frame.iter().map(|sample| f64::from(*sample) / 32_768.0).sum();
                        (f64::from(*got) - sum / channels as f64).abs()
                    });
                    let worst = worst.fold(0.0, f64::max);
                    assert!(worst < 1e-6, "{}: {worst}", path.display());
                }
                let first = first.get_or_insert_with(|| got.clone());
                let off = got.iter().zip(&*first).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off < 1e-6, "{}: {off}", path.display());
            }
        }
    }
}

#[tokio::test]
async fn what_changes_in_mid_stream_stays_in_its_place() {
    let Some(bench) = Bench::new() else { return };
    let halves = [(48_000, 2, "a"), (22_050, 1, "b"), (44_100, 6, "c"), (48_000, 1, "d")];
    for (suffix, codec) in [
        ("aac", "-c:a aac"),
        ("mp3", "-c:a libmp3lame"),
        ("ac3", "-c:a ac3"),
        ("ogg", "-c:a libvorbis"),
        ("ogg", "-c:a libopus"),
        ("flac.ogg", "-c:a flac -f ogg"),
    ] {
        for (first, second) in [(0, 1), (1, 0), (0, 2), (3, 0), (0, 0)] {
            let part = |which: usize, from: usize| {
                let (rate, channels, name) = halves[which];
                let (rate, channels) = match suffix {
                    "mp3" => (rate, channels.min(2)),
                    "ac3" if rate < 32_000 => (32_000, channels),
                    _ if codec.contains("opus") => (48_000, channels),
                    _ => (rate, channels),
                };
                std::fs::read(bench.make(
                    &format!("{name}{from}.{suffix}"),
                    &format!("{} {codec}", clock(6, rate, channels, from)),
                ))
                .unwrap()
            };
            let joined = [part(first, 0), part(second, 6)].concat();
            let path = bench.file(&format!("joined.{suffix}"), &joined);
            let (samples, summary) = bench.read(&path).await;
            let name = format!("{suffix} {codec} {first} {second}: {summary:?}");
            assert!((summary.duration_secs - 12.0).abs() < 0.2, "{name}");
            assert_eq!(summary.partial, None, "{name}");
            // Each encoder's delay and last block are silence in between.
            let late = summary.duration_secs - 12.0;
            for n in 0..12 {
                let at = if n < 6 { n as f64 } else { n as f64 + late / 2.0 };
                assert!(is_second(&samples, at, n), "{name}: second {n}");
            }
        }
    }
}

/// Streams of any codec, rate and channels, one after another in an Ogg file, are one sound; a span of it is the same
/// as in the whole.
#[tokio::test]
async fn chained_ogg_is_read_to_its_end() {
    let Some(bench) = Bench::new() else { return };
    let part = |name: &str, rate, channels, from: usize, codec: &str| {
        let args = format!("{} -c:a {codec} -f ogg", clock(2, rate, channels, from));
        std::fs::read(bench.make(name, &args)).unwrap()
    };
    let parts = [
        part("a", 48_000, 1, 0, "libopus"),
        part("b", 48_000, 2, 2, "libopus"),
        part("c", 22_050, 2, 4, "libvorbis"),
        part("d", 44_100, 1, 6, "libvorbis"),
        part("e", 32_000, 1, 8, "flac"),
        part("f", 48_000, 2, 10, "flac"),
        part("g", 48_000, 1, 12, "libopus"),
        part("h", 48_000, 1, 14, "libopus"),
    ];
    let path = bench.file("chain.ogg", &parts.concat());
    let (samples, summary) = bench.read(&path).await;
    assert_eq!((summary.partial.as_deref(), summary.tracks.len()), (None, 1));
    assert!((summary.duration_secs - 16.0).abs() < 0.2, "{summary:?}");
    let late = (summary.duration_secs - 16.0) / 8.0;
    for n in 0..16 {
        assert!(is_second(&samples, n as f64 + late * (n / 2) as f64, n), "second {n}");
    }
    for (from, to) in [(0.5, 1.5), (1.0, 3.0), (4.5, 5.0), (5.5, 8.5), (12.5, 15.5)] {
        let (part, _) = bench.read_span(&path, Some((from, to))).await;
        let at = (from * RATE as f64) as usize;
        let off = part.iter().zip(&samples[at..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(part.len() > RATE * 2 / 5 && off < 1e-6, "{from} to {to}: {} {off}", part.len());
    }
    let refused = bench.refused(&path, (20.0, 21.0)).await;
    assert_eq!(refused, "span_out_of_range");

    // What cannot be read is told, wherever it is; what follows is read all the same.
    let mut damaged = parts.clone();
    let middle = damaged[3].len() / 2;
    damaged[3][middle..middle + 900].fill(0);
    let (samples, summary) = bench.read(&bench.file("damaged.ogg", &damaged.concat())).await;
    assert!(summary.partial.is_some(), "{summary:?}");
    assert!(summary.duration_secs > 14.0 && is_second(&samples, 1.0, 1), "{summary:?}");
    let whole = parts.concat();
    let (_, summary) = bench.read(&bench.file("cut.ogg", &whole[..whole.len() - 700])).await;
    assert!(summary.partial.as_deref().is_some_and(|why| why.contains("within a packet")), "{summary:?}");
}

/// A later table that gives the PID of the pictures to the sound, and the other way round.
#[tokio::test]
async fn tracks_that_change_places_in_mid_stream_are_told() {
    let Some(bench) = Bench::new() else { return };
    let part = |name: &str, (picture, sound): (u16, u16), from: usize| {
        let args = format!(
            "-f lavfi -i testsrc2=s=160x90:r=25:d=6 -f lavfi -i sine=f={}:d=6 -map 0 -map 1 -c:v libx264 -g 25 -c:a mp2 \
             -streamid 0:{picture} -streamid 1:{sound} -output_ts_offset {from}",
            400 + from
        );
        std::fs::read(bench.make(name, &args)).unwrap()
    };
    let first = part("first.ts", (256, 257), 0);
    for (name, pids, told) in [("same.ts", (256, 257), false), ("swap.ts", (257, 256), true)] {
        let joined = [first.clone(), part(name, pids, 6)].concat();
        let (_, summary) = bench.read(&bench.file(&format!("joined-{name}"), &joined)).await;
        assert_eq!(summary.partial.is_some(), told, "{name}: {summary:?}");
    }
}

#[tokio::test]
async fn a_gap_stays_a_gap_and_late_sound_is_late() {
    let Some(bench) = Bench::new() else { return };
    let gap = "aselect='not(between(t,2,4.999))'";
    for suffix in ["mkv", "mp4", "mov", "ts"] {
        let args = clock(8, 48_000, 1, 0)
            .replace("pan=1c|c0=c0[out]", &format!("pan=1c|c0=c0,asetnsamples=480,{gap}[out]"));
        let path = bench.make(&format!("gap.{suffix}"), &format!("{args} -c:a aac"));
        let (samples, summary) = bench.read(&path).await;
        let wanted = [true, true, false, false, false, true, true, true];
        assert_eq!(heard(&samples, 8), wanted, "{suffix}: {summary:?}");
        let silent = &samples[RATE * 22 / 10..RATE * 48 / 10];
        assert!(silent.iter().all(|sample| sample.abs() < 1e-3), "{suffix}");
        let (part, _) = bench.read_span(&path, Some((5.0, 7.0))).await;
        assert!(is_second(&part, 0.0, 5) && is_second(&part, 1.0, 6), "{suffix}");
    }
    let input = bench.make("clock.wav", &clock(4, 48_000, 1, 0));
    let picture = "-f lavfi -i testsrc2=s=64x64:r=10:d=6";
    for suffix in ["mkv", "mp4", "mov", "ts"] {
        let args =
            format!("{picture} -itsoffset 2 -i {} -map 0:v -map 1:a -c:v libx264 -c:a aac", input.display());
        let (samples, summary) = bench.read(&bench.make(&format!("late.{suffix}"), &args)).await;
        for n in 0..4 {
            assert!(is_second(&samples, n as f64 + 2.0, n), "{suffix} {n}: {summary:?}");
        }
        assert!(samples[..RATE * 19 / 10].iter().all(|sample| sample.abs() < 1e-3), "{suffix}");
    }
}

#[tokio::test]
async fn damage_is_told_and_shifts_nothing() {
    let Some(bench) = Bench::new() else { return };
    let files = [
        ("mp3", "-c:a libmp3lame -b:a 128k"),
        ("aac", "-c:a aac"),
        ("flac", ""),
        ("ogg", "-c:a libvorbis"),
        ("opus", "-c:a libopus"),
        ("mp2", "-c:a mp2"),
    ];
    for (suffix, codec) in files {
        let whole = std::fs::read(
            bench.make(&format!("w.{suffix}"), &format!("{} {codec}", clock(10, 48_000, 2, 0))),
        )
        .unwrap();
        let (samples, summary) = bench.read(&bench.file(&format!("whole.{suffix}"), &whole)).await;
        assert_eq!((summary.partial, heard(&samples, 10)), (None, vec![true; 10]), "{suffix}");
        for at in [10, 50, 85] {
            // The headers of a short Ogg file are there, and where its first page is lost nobody knows of it.
            if at == 10 && matches!(suffix, "ogg" | "opus") {
                continue;
            }
            let mut zeroed = whole.clone();
            let from = whole.len() * at / 100;
            zeroed[from..from + whole.len() / 10].fill(0);
            let path = bench.file(&format!("zeroed.{suffix}"), &zeroed);
            let (samples, summary) = bench.read(&path).await;
            assert!(summary.partial.is_some(), "{suffix} {at}: {summary:?}");
            let got = heard(&samples, 10);
            // No more than the two seconds around are touched.
            let lost = got.iter().filter(|heard| !**heard).count();
            assert!(lost <= 2, "{suffix} zeroed at {at} %: {got:?} {summary:?}");
            if at == 50 {
                let (part, _) = bench.read_span(&path, Some((7.0, 9.0))).await;
                let got = [is_second(&part, 0.0, 7), is_second(&part, 1.0, 8)];
                assert_eq!(got, [true; 2], "{suffix}: {} samples", part.len());
            }
        }
        // Ogg tells its length on its last page only; a stream of frames may be cut between two.
        let cut = bench.file(&format!("cut.{suffix}"), &whole[..whole.len() / 2 + 7]);
        let (samples, summary) = bench.read(&cut).await;
        assert!(summary.partial.is_some(), "{suffix}: {summary:?}");
        assert_eq!(heard(&samples, 4), [true; 4], "{suffix}");
    }
}

#[tokio::test]
async fn ordinary_files_are_whole() {
    let Some(bench) = Bench::new() else { return };
    let mp3 = |args: &str| {
        std::fs::read(bench.make("o.mp3", &format!("{} -c:a libmp3lame {args}", clock(5, 44_100, 2, 0))))
            .unwrap()
    };
    let id3v1 = [&b"TAG"[..], &[b' '; 125]].concat();
    let ape = [
        b"APETAGEX\xd0\x07\0\0".to_vec(),
        43_u32.to_le_bytes().to_vec(),
        vec![1, 0, 0, 0, 0, 0, 0, 0xa0],
        vec![0; 8],
        b"\x02\0\0\0\0\0\0\0Abc\0hi".to_vec(),
    ]
    .concat();
    let footer = [
        b"APETAGEX\xd0\x07\0\0".to_vec(),
        43_u32.to_le_bytes().to_vec(),
        vec![1, 0, 0, 0, 0, 0, 0, 0x80],
        vec![0; 8],
    ]
    .concat();
    let ape = [ape, footer].concat();
    let cbr = mp3("-b:a 128k");
    let cases = [
        ("id3v1", [cbr.clone(), id3v1.clone()].concat()),
        ("ape", [cbr.clone(), ape.clone(), id3v1].concat()),
        ("garbage", [cbr.clone(), b"some bytes".to_vec()].concat()),
        ("zeros", [cbr.clone(), vec![0; 500]].concat()),
        ("vbr", mp3("-q:a 4")),
        ("no index", mp3("-write_xing 0 -b:a 96k")),
        ("no tag", mp3("-id3v2_version 0 -b:a 64k -ar 22050 -ac 1")),
        ("leading", [vec![0; 300], mp3("-id3v2_version 0")].concat()),
    ];
    for (name, bytes) in cases {
        let (samples, summary) = bench.read(&bench.file("ordinary.mp3", &bytes)).await;
        assert_eq!((summary.partial, heard(&samples, 5)), (None, vec![true; 5]), "{name}");
        assert!((summary.duration_secs - 5.0).abs() < 0.08, "{name} {}", summary.duration_secs);
    }
}

#[tokio::test]
async fn lengths_are_those_of_the_bytes() {
    let Some(bench) = Bench::new() else { return };
    for rate in [8000, 16_000, 22_050, 44_100, 48_000, 96_000] {
        let whole = std::fs::read(bench.make("l.wav", &clock(5, rate, 1, 0))).unwrap();
        let data = whole.windows(4).position(|four| four == b"data").unwrap();
        for size in [0, 0x7fff_f000, 0x7fff_ff00, 0x7fff_ffff, u32::MAX - 36, u32::MAX] {
            let mut bytes = whole.clone();
            bytes[data + 4..data + 8].copy_from_slice(&u32::to_le_bytes(size));
            let (samples, summary) = bench.read(&bench.file("lies.wav", &bytes)).await;
            let name = format!("{rate} Hz, {size:x}: {summary:?}");
            assert!(summary.partial.is_none() && (summary.duration_secs - 5.0).abs() < 0.01, "{name}");
            assert_eq!(heard(&samples, 5), [true; 5], "{name}");
        }
        let (_, summary) = bench.read(&bench.file("cut.wav", &whole[..whole.len() / 2])).await;
        assert!(summary.partial.is_some_and(|note| note.starts_with("truncated: only 2.5 s of 5.0 s")));
    }
    let whole = |name: &str, args: &str| {
        std::fs::read(bench.make(name, &format!("{} {args}", clock(5, 16_000, 2, 0)))).unwrap()
    };
    let at = |bytes: &[u8], name: &[u8]| bytes.windows(name.len()).position(|part| part == name).unwrap();
    let mut w64 = whole("l.w64", "");
    let data_of_w64 = at(&w64, b"data");
    w64[data_of_w64 + 16..data_of_w64 + 24].copy_from_slice(&(i64::MAX - 0xfff).to_le_bytes());
    let mut au = whole("l.au", "");
    au[8..12].fill(0xff);
    let mut caf = whole("l.caf", "");
    let data = at(&caf, b"data");
    caf[data + 4..data + 12].fill(0xff);
    let mut openers = vec![("x.w64", w64), ("x.au", au), ("x.caf", caf)];
    // In these ffmpeg finds no samples by itself.
    for size in [0, 24, i64::MAX, -1] {
        let mut w64 = openers[0].1.clone();
        w64[data_of_w64 + 16..data_of_w64 + 24].copy_from_slice(&size.to_le_bytes());
        openers.push(("y.w64", w64));
    }
    for codec in
        ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_alaw", "pcm_mulaw"]
    {
        for size in [0, -1_i64, i64::MAX] {
            let mut rf64 = whole("l.rf64.wav", &format!("-rf64 always -c:a {codec}"));
            let long = at(&rf64, b"ds64");
            rf64[long + 16..long + 24].copy_from_slice(&size.to_le_bytes());
            openers.push((codec, rf64.clone()));
            rf64[..4].copy_from_slice(b"BW64");
            openers.push((codec, rf64));
        }
    }
    for (name, bytes) in openers {
        let (samples, summary) = bench.read(&bench.file(name, &bytes)).await;
        assert!(summary.partial.is_none(), "{name}: {summary:?}");
        assert!((summary.duration_secs - 5.0).abs() < 0.01, "{name}: {summary:?}");
        assert_eq!(heard(&samples, 5), [true; 5], "{name}");
    }
}

#[tokio::test]
async fn encrypted_files_are_called_so() {
    let Some(bench) = Bench::new() else { return };
    let key = "-encryption_scheme cenc-aes-ctr -encryption_key 76a6c65c5ea762046bd749a2e632ccbb \
               -encryption_kid a7e61c373e219033c21091fa607bf3b8";
    for (name, sources) in [
        ("film.mp4", "-f lavfi -i testsrc2=s=64x64:r=10:d=2 -f lavfi -i sine=d=2 -c:v libx264 -c:a aac"),
        ("sound.m4a", "-f lavfi -i sine=d=2 -c:a aac -f mp4"),
        ("late.mov", "-f lavfi -i testsrc2=s=64x64:r=10:d=2 -c:v libx264 -f mp4 -movflags +frag_keyframe"),
    ] {
        let path = bench.make(name, &format!("{sources} {key}"));
        let error = ClipReader::open(&bench.decoder, &path, &SPEC, None).await.err().expect(name);
        assert_eq!(error.code(), "encrypted_media", "{name}: {error}");
    }
}
