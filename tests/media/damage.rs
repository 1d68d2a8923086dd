//! Damaged, joined and foreign files.

use super::*;

/// A GIF of one frame that is 0 pixels wide.
const FLAT_GIF: &[u8] = b"GIF89a\0\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\0\0\x01\0\0\x02\x01\x44\0;";

#[tokio::test]
async fn what_is_not_media_is_refused() {
    let Some(decoder) = decoder() else { return };
    let victim = av("victim.mp4", H264);
    let victim = victim.to_str().unwrap();
    let hls = format!("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{victim}\n#EXT-X-ENDLIST\n");
    let dash = format!(
        "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\"><BaseURL>{victim}</BaseURL></MPD>"
    );
    let cases = [
        (file("empty.mp4", b""), "empty_file"),
        (file("text.mp4", b"It was a bright cold day in April."), "unsupported_media"),
        (file("zeros.mp4", &[0; 5000]), "unsupported_media"),
        (
            file("concat.mp4", format!("ffconcat version 1.0\nfile '{victim}'\n").as_bytes()),
            "unsupported_media",
        ),
        (file("hls.mp4", hls.as_bytes()), "unsupported_media"),
        (file("hls.m3u8", hls.as_bytes()), "unsupported_media"),
        (file("dash.mp4", dash.as_bytes()), "unsupported_media"),
        (
            file("sdp.mp4", b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"),
            "unsupported_media",
        ),
        (file("script.sh", b"#!/bin/sh\necho\n"), "unsupported_media"),
        (file("cut.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), "corrupt_media"),
        (MEDIA.path().to_owned(), "not_a_file"),
        (PathBuf::from("/dev/zero"), "not_a_file"),
        (MEDIA.path().join("absent.mp4"), "cannot_open"),
        (file("nan.wav", &wav(&[0.0, f32::NAN, 0.5, 0.0])), "bad_samples"),
        (file("inf.wav", &wav(&[0.0, f32::INFINITY, 0.5, 0.0])), "bad_samples"),
        (file("flat.gif", FLAT_GIF), "corrupt_media"),
        // So late that its number in the log would be taken for another one.
        (
            make("late.mkv", "-f lavfi -i testsrc=d=1:s=64x64 -itsoffset 671000 -f lavfi -i sine=d=1"),
            "too_long",
        ),
        (file("cut.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), "corrupt_media"),
        (file("cut.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF"), "corrupt_media"),
        (file("subtitles.srt", b"1\n00:00:00,000 --> 00:00:10,000\nHello\n\n"), "unsupported_media"),
    ];
    for (path, wanted) in cases {
        assert_eq!(code(read(&decoder, &path, &small(), None).await), wanted, "{}", path.display());
    }
    let fifo = MEDIA.path().join("fifo.mp4");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert_eq!(code(read(&decoder, &fifo, &small(), None).await), "not_a_file");
    let subtitles = make_with(
        "only.mkv",
        ["-i", file("s.srt", b"1\n00:00:00,000 --> 00:00:10,000\nHello\n\n").to_str().unwrap()],
    );
    assert_eq!(code(read(&decoder, &subtitles, &small(), None).await), "no_media_streams");
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let places: Vec<usize> = (0..out.len() - from.len()).filter(|i| out[*i..].starts_with(from)).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|i| out[*i..*i + to.len()].copy_from_slice(to));
    out
}

#[tokio::test]
async fn damage_gives_a_part_or_a_clear_error() {
    let Some(decoder) = decoder() else { return };
    let noisy = "-f lavfi -i nullsrc=s=320x240:r=25:d=6,geq=random(1)*255:128:128";
    let whole =
        std::fs::read(make("fs.mp4", &format!("{noisy} {TONE} {H264} -c:a aac -movflags +faststart")))
            .unwrap();
    let spec = small();

    let half = file("half.mp4", &whole[..whole.len() / 2]);
    let (clips, summary) = read(&decoder, &half, &spec, None).await.unwrap();
    let note = summary.partial.expect("truncated");
    assert!(
        note.starts_with("truncated: ") && summary.duration_secs < 4.5 && !clips.is_empty(),
        "{note} {}",
        summary.duration_secs
    );

    let late_index = std::fs::read(make("li.mp4", &format!("{noisy} {H264}"))).unwrap();
    let cut = file("cut.mp4", &late_index[..late_index.len() / 2]);
    assert_eq!(code(read(&decoder, &cut, &spec, None).await), "corrupt_media");

    let mkv = std::fs::read(make("whole.mkv", &format!("{noisy} {TONE} {H264} -c:a aac"))).unwrap();
    let (_, summary) = read(&decoder, &file("half.mkv", &mkv[..mkv.len() / 2]), &spec, None).await.unwrap();
    assert!(summary.partial.expect("mkv").starts_with("truncated: "));

    // A sound track of an unknown codec, a picture track of an unknown codec, both.
    let whole = std::fs::read(make("w.mov", &format!("{noisy} {TONE} {H264} -c:a ac3"))).unwrap();
    let deaf = replace(&whole, b"ac-3", b"zzzz");
    let (clips, summary) = read(&decoder, &file("deaf.mp4", &deaf), &spec, None).await.unwrap();
    assert!(summary.partial.as_ref().expect("deaf").starts_with("could not decode the audio"), "{summary:?}");
    assert_eq!((tracks(&clips), summary.has_audio), (vec![(true, false); 2], false));
    let blind = replace(&whole, b"avc1", b"zzzz");
    let (clips, summary) = read(&decoder, &file("blind.mp4", &blind), &spec, None).await.unwrap();
    assert!(
        summary.partial.as_ref().expect("blind").starts_with("could not decode the picture"),
        "{summary:?}"
    );
    assert_eq!((tracks(&clips), summary.kind), (vec![(false, true); 2], AssetKind::Audio));
    let neither = file("neither.mp4", &replace(&deaf, b"avc1", b"zzzz"));
    assert_eq!(code(read(&decoder, &neither, &spec, None).await), "unsupported_media");

    for name in ["broken.flac", "broken.wav", "broken.ogg", "broken.mp3"] {
        let whole = std::fs::read(make(name, "-f lavfi -i anoisesrc=d=20:r=44100:a=0.3")).unwrap();
        let (_, summary) =
            read(&decoder, &file(name, &whole[..whole.len() / 3]), &spec, None).await.expect(name);
        // Vorbis in Ogg tells its length on its last page only: what is left is a whole, shorter file.
        let noticed = summary.partial.as_ref().is_some_and(|note| note.starts_with("truncated: "));
        assert!(noticed || name == "broken.ogg", "{name}: {summary:?}");
        assert!(summary.duration_secs < 8.0, "{name}: {summary:?}");
    }
}

/// `cat a a`: ffmpeg reads both files of some formats and the first one of others.
#[tokio::test]
async fn joined_files_are_read_or_told() {
    let Some(decoder) = decoder() else { return };
    let film = |codecs: &str| format!("{PICTURE} {TONE} {codecs}");
    let told = [
        ("joined.wav", TONE.to_owned()),
        ("joined.w64", TONE.to_owned()),
        ("joined.aiff", TONE.to_owned()),
        ("joined.caf", format!("{TONE} -c:a pcm_s16le")),
        ("joined.tta", TONE.to_owned()),
        ("joined.voc", format!("{TONE} -c:a pcm_u8")),
        ("joined.mp4", film(&format!("{H264} -c:a aac"))),
        ("joined.mov", film(&format!("{H264} -c:a aac -movflags faststart"))),
        ("joined.mkv", film(&format!("{H264} -c:a flac"))),
        ("joined.wmv", film("-c:v wmv2 -c:a wmav2")),
        ("joined.rm", film("-s 352x288 -c:v rv20 -c:a ac3")),
        ("joined.y4m", format!("{PICTURE} -pix_fmt yuv420p")),
    ];
    for (name, arguments) in &told {
        let whole = std::fs::read(make(&format!("one-{name}"), arguments)).unwrap();
        let (_, summary) = read(&decoder, &file(name, &whole), &small(), None).await.expect(name);
        assert_eq!(summary.partial, None, "{name}");
        let tagged = [&whole[..], b"TAG", &[b' '; 125]].concat();
        let (_, summary) = read(&decoder, &file(name, &tagged), &small(), None).await.expect(name);
        // ffmpeg takes it for a frame.
        assert_eq!(summary.partial.filter(|_| *name != "joined.y4m"), None, "{name} with a tag");
        let (_, summary) = read(&decoder, &file(name, &whole.repeat(2)), &small(), None).await.expect(name);
        let note = summary.partial.expect(name);
        assert!(note.starts_with("another file is joined to its end"), "{name}: {note}");
        assert!(summary.duration_secs < 7.0, "{name}: {}", summary.duration_secs);
    }
    for name in ["joined.flac", "joined.mp3", "joined.aac", "joined.opus"] {
        let whole = std::fs::read(make(&format!("one-{name}"), TONE)).unwrap();
        let (clips, summary) =
            read(&decoder, &file(name, &whole.repeat(2)), &small(), None).await.expect(name);
        // Equal windows side by side are one clip.
        let end_secs = clips.last().map_or(0.0, |clip| clip.span.end_secs);
        let told = format!("{name}: to {end_secs} of {} clips, {summary:?}", clips.len());
        assert!((summary.duration_secs - 12.0).abs() < 0.2 && (end_secs - 12.0).abs() < 0.2, "{told}");
        assert_eq!(summary.partial, None, "{name}");
    }
}

/// Files whose header states no length, or one that is not there.
#[tokio::test]
async fn what_the_header_promises_is_there_or_told() {
    let Some(decoder) = decoder() else { return };
    let with = |bytes: &[u8], mark: &[u8], at: usize, number: &[u8]| {
        let found = bytes.windows(mark.len()).position(|part| part == mark).unwrap() + at;
        let mut changed = bytes.to_vec();
        changed[found..found + number.len()].copy_from_slice(number);
        changed
    };
    let whole = |name: &str, codec: &str| std::fs::read(make(name, &format!("{TONE} {codec}"))).unwrap();
    let (wav, w64, au) = (whole("says.wav", ""), whole("says.w64", ""), whole("says.au", ""));
    let (aiff, caf) = (whole("says.aiff", ""), whole("says.caf", "-c:a pcm_s16le"));
    let riff = (wav.len() as u32).to_le_bytes();
    for (name, bytes) in [
        ("pipe.wav", with(&wav, b"data", 4, &0x8000_0000_u32.to_le_bytes())),
        ("riff.wav", with(&wav, b"RIFF", 4, &riff)),
        ("pipe.w64", with(&w64, b"data", 16, &(1_u64 << 40).to_le_bytes())),
        ("pipe.au", with(&au, b".snd", 8, &[0; 4])),
        ("pipe.aiff", with(&aiff, b"SSND", 4, &[0; 4])),
        ("form.aiff", with(&aiff, b"FORM", 4, &[0; 4])),
        ("pipe.caf", with(&caf, b"data", 4, &(1_u64 << 40).to_be_bytes())),
    ] {
        let (_, summary) = read(&decoder, &file(name, &bytes), &small(), None).await.expect(name);
        assert!((summary.duration_secs - 6.0).abs() < 0.01, "{name}: {summary:?}");
        assert_eq!(summary.partial, None, "{name}");
    }
    let wma = whole("says.wma", "-c:a wmav2");
    let mp3 = whole("says.mp3", "-c:a libmp3lame");
    let robbed = [&mp3[..mp3.len() / 2], &mp3[mp3.len() / 2 + mp3.len() / 12..]].concat();
    for (name, bytes) in [
        ("half.wav", with(&wav, b"data", 4, &[0, 16, 0, 0])),
        ("half.w64", with(&w64, b"data", 16, &4096_u64.to_le_bytes())),
        ("half.caf", with(&caf, b"data", 4, &4096_u64.to_be_bytes())),
        ("brief.au", au[..au.len() - au.len() / 200].to_vec()),
        ("brief.aiff", aiff[..aiff.len() - aiff.len() / 200].to_vec()),
        ("tenth.wma", wma[..wma.len() / 10].to_vec()),
        ("most.wma", wma[..wma.len() * 9 / 10].to_vec()),
        ("robbed.mp3", robbed),
    ] {
        let (_, summary) = read(&decoder, &file(name, &bytes), &small(), None).await.expect(name);
        assert!(summary.partial.is_some(), "{name}: {summary:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutated_files_never_hang_or_crash_the_parent() {
    let Some(decoder) = decoder_with(Limits { wall_clock_secs: 30, ..Limits::default() }) else { return };
    let picture = "-f lavfi -i testsrc2=s=64x48:r=10:d=1";
    let tone = "-f lavfi -i sine=440:d=1";
    let seeds = [
        make("m.mp4", &format!("{picture} {tone} {H264} -c:a aac")),
        make("m.webm", &format!("{picture} {tone} -c:v libvpx -c:a libopus")),
        make("m.avi", &format!("{picture} {tone} -c:v mpeg4 -c:a libmp3lame")),
        make("m.mp3", &format!("{tone} -c:a libmp3lame")),
        make("m.flac", tone),
        make("m.ogg", &format!("{tone} -c:a libvorbis")),
        make("m.wav", tone),
        make("m.jpg", &format!("{picture} -frames:v 1")),
        make("m.png", &format!("{picture} -frames:v 1")),
        make("m.gif", &format!("{picture} -frames:v 3")),
    ];
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let decoder = Arc::new(decoder);
    let mut tally = std::collections::BTreeMap::new();
    for round in 0..10 {
        let mut running = Vec::new();
        for (i, seed) in seeds.iter().enumerate() {
            let mut bytes = std::fs::read(seed).unwrap();
            for _ in 0..1 + next(40) {
                // Headers are where the harm is done: half of the hits go there.
                let range = if next(2) == 0 { bytes.len().min(600) } else { bytes.len() };
                bytes[next(range)] = next(256) as u8;
            }
            if next(4) == 0 {
                bytes.truncate(next(bytes.len()).max(1));
            }
            let path = file(&format!("mutated-{round}-{i}"), &bytes);
            let decoder = decoder.clone();
            running.push(tokio::spawn(async move {
                let outcome = read(&decoder, &path, &small(), None).await;
                outcome.map_or_else(
                    |error| {
                        if error.code() == "decode_worker_failed" {
                            eprintln!("{}: {error}", path.display());
                        }
                        error.code()
                    },
                    |(_, summary)| if summary.partial.is_some() { "partial" } else { "ok" },
                )
            }));
        }
        for task in running {
            *tally.entry(task.await.expect("no panic")).or_insert(0) += 1;
        }
    }
    eprintln!("100 mutated files: {tally:?}");
    assert!(
        !tally.contains_key("decode_worker_failed") && !tally.contains_key("decode_timeout"),
        "{tally:?}"
    );
}
