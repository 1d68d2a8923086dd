//! Streams that change, gaps and damage.

use super::*;

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
