//! Channel layouts, lengths and files without a fault.

use super::*;

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
