//! The clips of every container and codec.

use super::*;

fn shared_media() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let dir = std::env::var_os("TRIPTYCH_SHARED").map_or(beside, PathBuf::from).join("media");
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!("SKIPPED: no real media at {}; set TRIPTYCH_SHARED", dir.display());
    None
}

/// One row of the table of real files: kind, seconds, size, then the clips' starts and the last end
/// for both specs.
struct Real {
    name: &'static str,
    kind: AssetKind,
    secs: f64,
    size: (u32, u32),
    sound: bool,
    large: (&'static [f64], f64),
    small: (&'static [f64], f64),
}

/// Frame counts (`-f framecrc` at both rates), sample counts and sizes were taken with the ffmpeg
/// command line by hand; the starts follow from `docs/bundle.md`.
#[rustfmt::skip]
const REAL: &[Real] = &[
    // 100 and 25 frames.
    Real { name: "arm_wrestling.mp4", kind: AssetKind::Video, secs: 10.0, size: (427, 256), sound: false,
           large: (&[0.0, 3.2, 6.4, 6.8], 10.0), small: (&[0.0, 3.2, 6.4, 6.8], 10.0) },
    // 50 and 13 frames; 13 / 2.5 lies behind the end.
    Real { name: "av1_video.mkv", kind: AssetKind::Video, secs: 5.0, size: (640, 360), sound: false,
           large: (&[0.0, 1.8], 5.0), small: (&[0.0, 2.0], 5.0) },
    // 300 and 75 frames.
    Real { name: "big_buck_bunny_0_30.webm", kind: AssetKind::Video, secs: 30.0, size: (1280, 720), sound: true,
           large: (&[0.0, 3.2, 6.4, 9.6, 12.8, 16.0, 19.2, 22.4, 25.6, 26.8], 30.0),
           small: (&[0.0, 3.2, 6.4, 9.6, 12.8, 16.0, 19.2, 22.4, 25.6, 26.8], 30.0) },
    Real { name: "car_audio.wav", kind: AssetKind::Audio, secs: 5.0, size: (0, 0), sound: true,
           large: (&[0.0, 1.8], 5.0), small: (&[0.0, 1.8], 5.0) },
    // 96 and 24 frames: exactly three windows.
    Real { name: "chaplin.mp4", kind: AssetKind::Video, secs: 9.64, size: (640, 360), sound: true,
           large: (&[0.0, 3.2, 6.4], 9.6), small: (&[0.0, 3.2, 6.4], 9.6) },
    Real { name: "dog_audio.wav", kind: AssetKind::Audio, secs: 2.610, size: (0, 0), sound: true,
           large: (&[0.0], 2.610), small: (&[0.0], 2.610) },
    Real { name: "dog_image.jpg", kind: AssetKind::Image, secs: 0.0, size: (640, 848), sound: false,
           large: (&[0.0], 0.1), small: (&[0.0], 0.4) },
    // Turned by 180 degrees; 24 and 6 frames.
    Real { name: "fire2.mp4", kind: AssetKind::Video, secs: 2.38, size: (1280, 720), sound: true,
           large: (&[0.0], 2.38), small: (&[0.0], 2.38) },
    // 103 and 26 frames, opus sound.
    Real { name: "flipping_a_pancake.mkv", kind: AssetKind::Video, secs: 10.38, size: (426, 240), sound: true,
           large: (&[0.0, 3.2, 6.4, 7.1], 10.3), small: (&[0.0, 3.2, 6.4, 7.2], 10.38) },
    // 10 and 3 frames.
    Real { name: "h265_10bits.mp4", kind: AssetKind::Video, secs: 1.0, size: (200, 200), sound: false,
           large: (&[0.0], 1.0), small: (&[0.0], 1.0) },
    // 130 and 33 frames of the first of two video tracks.
    Real { name: "nasa_13013.mp4", kind: AssetKind::Video, secs: 13.06, size: (320, 180), sound: true,
           large: (&[0.0, 3.2, 6.4, 9.6, 9.8], 13.0), small: (&[0.0, 3.2, 6.4, 9.6, 10.0], 13.06) },
    // No duration in the header: 49 and 12 frames, 234,000 samples (4.875 s).
    Real { name: "no_duration.webm", kind: AssetKind::Video, secs: 4.9, size: (1280, 720), sound: true,
           large: (&[0.0, 1.7], 4.9), small: (&[0.0, 1.6], 4.8) },
    Real { name: "rain.mp3", kind: AssetKind::Audio, secs: 60.46, size: (0, 0), sound: true,
           large: (&[], 60.46), small: (&[], 60.46) },
    // 0.1 s, turned by 90 degrees: one frame at 10 fps, none at 2.5, so its first.
    Real { name: "video_90.mov", kind: AssetKind::Video, secs: 0.1, size: (320, 568), sound: false,
           large: (&[0.0], 0.1), small: (&[0.0], 0.1) },
    // 112 and 28 frames. Its sound makes other decoders fail; ffmpeg 9 reads all of it.
    Real { name: "video_with_failing_audio.mp4", kind: AssetKind::Video, secs: 11.23, size: (640, 360), sound: true,
           large: (&[0.0, 3.2, 6.4, 8.0], 11.2), small: (&[0.0, 3.2, 6.4, 8.0], 11.2) },
];

#[tokio::test]
async fn real_files_give_the_right_clips() {
    let (Some(dir), Some(decoder)) = (shared_media(), decoder()) else { return };
    for real in REAL {
        for (spec, (starts, end)) in [(large(), real.large), (small(), real.small)] {
            let (clips, summary) = read(&decoder, &dir.join(real.name), &spec, None).await.unwrap();
            let name = format!(
                "{} at {} fps: {:?} {summary:?}",
                real.name,
                spec.frames() as f64 / spec.window_secs(),
                spans(&clips)
            );
            assert_eq!(summary.kind, real.kind, "{name}");
            assert!((summary.duration_secs - real.secs).abs() < 0.03, "{name}");
            assert_eq!((summary.width, summary.height), real.size, "{name}");
            assert_eq!(summary.has_audio, real.sound, "{name}");
            assert_eq!(summary.has_video, real.kind != AssetKind::Audio, "{name}");
            assert_eq!(summary.partial, None, "{name}");
            assert!(summary.decode_cpu_secs > 0.0, "{name}");
            assert!((clips.last().unwrap().span.end_secs - end).abs() < 0.006, "{name}");
            let got: Vec<f64> = spans(&clips).iter().map(|span| span.0).collect();
            if real.name == "rain.mp3" {
                // 18 whole windows, and one at the end.
                assert_eq!(got.len(), 19, "{name}");
                assert!((got[18] - 57.26).abs() < 0.006, "{name}");
            } else {
                assert_eq!(got, starts, "{name}");
            }
            let both = (real.kind != AssetKind::Audio, real.sound);
            assert!(tracks(&clips).iter().all(|tracks| *tracks == both), "{name}");
        }
    }
}

/// The clips hold what the documented ffmpeg commands and the resize rule give.
#[tokio::test]
async fn clips_equal_the_documented_commands() {
    let Some(decoder) = decoder() else { return };
    let path = av("documented.mp4", &format!("{H264} -c:a aac"));
    let frames = raw(&path, "-map 0:v:0 -vf fps=fps=10:start_time=0,format=rgb24 -f rawvideo -pix_fmt rgb24");
    let mean = "-map 0:a:0 -af aformat=sample_fmts=fltp,pan=mono|c0<c0+c1,aresample=48000 -f f32le";
    let pcm = raw(&path, mean);
    let pcm: Vec<f32> = pcm.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    let spec = large();
    let mut resizer = Preparer::new(&large().video, 320, 240, None);
    let (clips, _) = read(&decoder, &path, &spec, None).await.unwrap();
    assert_eq!(spans(&clips), [(0.0, 3.2), (2.8, 6.0)]);
    for (clip, first) in clips.iter().zip([0, 28]) {
        for (i, got) in clip.frames.as_ref().unwrap().chunks(200 * 200 * 3).enumerate() {
            let frame = &frames[(first + i) * 320 * 240 * 3..][..320 * 240 * 3];
            let mut wanted = vec![0; got.len()];
            assert!(resizer.run(frame, &mut wanted));
            assert!(got == wanted, "frame {}", first + i);
        }
        let from = first * 4800;
        let len = (pcm.len() - from).min(spec.sound.samples);
        let got = clip.pcm.as_ref().unwrap();
        assert_eq!(got[..len], pcm[from..from + len]);
        assert!(got[len..].iter().all(|sample| *sample == 0.0));
    }
}

#[tokio::test]
async fn containers_and_codecs() {
    let Some(decoder) = decoder() else { return };
    let all = [
        ("a.mp4", format!("{H264} -c:a aac"), true),
        ("b.webm", "-c:v libvpx -deadline realtime -cpu-used 8 -c:a libopus".into(), true),
        (
            "c.mkv",
            "-c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p10le -c:a flac"
                .into(),
            true,
        ),
        ("d.avi", "-c:v mpeg4 -c:a libmp3lame".into(), true),
        ("e.ts", format!("{H264} -c:a aac"), true),
        ("f.mov", "-c:v mjpeg -pix_fmt yuvj420p -c:a pcm_s16le".into(), true),
        ("g.ogv", "-c:v libtheora -c:a libvorbis".into(), true),
        ("h.flv", format!("{H264} -c:a aac"), true),
        ("i.mpg", "-c:v mpeg2video -c:a mp2".into(), true),
        ("j.wmv", "-c:v wmv2 -c:a wmav2".into(), true),
        ("silent.mp4", format!("{H264} -an"), false),
    ];
    for (name, codecs, sound) in all {
        let (clips, summary) = read(&decoder, &av(name, &codecs), &small(), None).await.expect(name);
        assert_eq!((summary.kind, summary.has_audio), (AssetKind::Video, sound), "{name}");
        assert_eq!((summary.width, summary.height), (320, 240), "{name}");
        assert!((summary.duration_secs - 6.0).abs() < 0.6, "{name} {summary:?}");
        assert_eq!(summary.partial, None, "{name}");
        assert_eq!(spans(&clips)[0], (0.0, 3.2), "{name}");
        assert_eq!(clips.len(), 2, "{name}: {:?}", spans(&clips));
        assert!(tracks(&clips).iter().all(|tracks| *tracks == (true, sound)), "{name}");
    }
}

#[tokio::test]
async fn sound_files() {
    let Some(decoder) = decoder() else { return };
    let cover =
        "-f lavfi -i color=red:s=64x64:r=25:d=0.04 -map 0:a -map 1:v -c:v mjpeg -disposition:v attached_pic";
    let all = [
        ("s.wav", "-c:a pcm_s24le".to_owned()),
        ("s32.wav", "-af pan=5.1|FL=c0|FR=c0|FC=c0|LFE=c0|BL=c0|BR=c0 -c:a pcm_f32le -ar 96000".into()),
        ("adpcm.wav", "-c:a adpcm_ms".into()),
        ("s.flac", String::new()),
        ("s.mp3", "-c:a libmp3lame -ar 22050".into()),
        ("s.ogg", "-c:a libvorbis".into()),
        ("s.opus", "-c:a libopus".into()),
        ("s.m4a", "-c:a aac".into()),
        ("s.aac", "-c:a aac".into()),
        ("s.aiff", String::new()),
        ("s.ac3", "-c:a ac3".into()),
        ("s.wma", "-c:a wmav2".into()),
        ("s.amr", "-ar 8000 -ac 1 -c:a libopencore_amrnb".into()),
        ("cover.mp3", format!("{cover} -c:a libmp3lame")),
        ("cover.m4a", format!("{cover} -c:a aac")),
    ];
    for (name, codec) in all {
        let path = make(name, &format!("{TONE} {codec}"));
        let (clips, summary) = read(&decoder, &path, &large(), None).await.expect(name);
        assert_eq!((summary.kind, summary.has_video), (AssetKind::Audio, false), "{name}");
        assert_eq!(summary.partial, None, "{name}");
        // Coders without a length of their own may add up to a block and their delay, in silence.
        assert!((summary.duration_secs - 6.0).abs() < 0.15, "{name}: {summary:?}");
        assert_eq!(tracks(&clips), [(false, true), (false, true)], "{name}");
        let pcm = clips[0].pcm.as_ref().unwrap();
        let (mut crossings, mut low) = (0, false);
        for sample in pcm.iter() {
            crossings += usize::from(low && *sample > 0.03);
            low = *sample < -0.03 || (low && *sample <= 0.03);
        }
        assert!((1360..=1415).contains(&crossings), "{name}: {crossings} periods of 440 Hz in 3.2 s");
        let loudest = pcm.iter().fold(0.0f32, |most, sample| most.max(sample.abs()));
        // ffmpeg's sine has an amplitude of 1/8.
        assert!((0.06..0.15).contains(&loudest), "{name}: {loudest}");
    }
}

#[tokio::test]
async fn short_assets_are_repeated() {
    let Some(decoder) = decoder() else { return };
    let spec = large();
    let args = format!("-f lavfi -i testsrc2=s=64x48:r=10:d=1 -f lavfi -i sine=440:d=0.5 {H264} -c:a flac");
    let (clips, summary) = read(&decoder, &make("short.mkv", &args), &spec, None).await.unwrap();
    assert_eq!(spans(&clips), [(0.0, 1.0)]);
    let frames: Vec<&[u8]> = clips[0].frames.as_ref().unwrap().chunks(200 * 200 * 3).collect();
    assert!((10..32).all(|i| frames[i] == frames[i - 10]) && frames[0] != frames[5], "{summary:?}");
    let pcm = clips[0].pcm.as_ref().unwrap();
    assert!((48_000..153_600).all(|i| pcm[i] == pcm[i - 48_000]));
    assert!(pcm[..23_000].iter().any(|s| *s != 0.0) && pcm[25_000..48_000].iter().all(|s| *s == 0.0));

    let path = make("short.wav", "-f lavfi -i sine=440:d=1:r=48000");
    let (clips, _) = read(&decoder, &path, &spec, None).await.unwrap();
    let pcm = clips[0].pcm.as_ref().unwrap();
    assert!(clips.len() == 1 && (48_000..153_600).all(|i| pcm[i] == pcm[i - 48_000]));
}

#[tokio::test]
async fn rotation_odd_sizes_and_variable_rate() {
    let Some(decoder) = decoder() else { return };
    let flat = make("flat.mp4", "-f lavfi -i testsrc=s=321x101:r=25:d=4 -c:v libx264 -pix_fmt yuv444p");
    let (clips, summary) = read(&decoder, &flat, &small(), None).await.unwrap();
    assert_eq!((summary.width, summary.height, clips.len()), (321, 101, 2));

    let turned = MEDIA.path().join("turned.mp4");
    let mut command = Command::new(ffmpeg().unwrap());
    let done = command.args(["-v", "error", "-y", "-display_rotation", "90", "-i"]).arg(&flat);
    assert!(done.args(["-c", "copy"]).arg(&turned).status().unwrap().success());
    let (turned, summary) = read(&decoder, &turned, &small(), None).await.unwrap();
    assert_eq!((summary.width, summary.height), (101, 321));
    assert!(turned[0].frames != clips[0].frames);

    // Two seconds at 30 fps, then two pictures a second.
    let select = "select='lt(t\\,2)+not(mod(n\\,15))'";
    let args = format!("-f lavfi -i testsrc2=s=64x64:r=30:d=6 -vf {select} -fps_mode vfr {H264}");
    let (clips, summary) = read(&decoder, &make("vfr.mkv", &args), &small(), None).await.unwrap();
    assert!((summary.duration_secs - 6.0).abs() < 0.6, "{summary:?}");
    assert_eq!(spans(&clips)[0], (0.0, 3.2));
}

#[tokio::test]
async fn pictures() {
    let Some(decoder) = decoder() else { return };
    let still = "-f lavfi -i testsrc2=s=80x40 -frames:v 1";
    for name in ["p.png", "p.jpg", "p.bmp", "p.gif", "p.webp"] {
        let (clips, summary) = read(&decoder, &make(name, still), &small(), None).await.expect(name);
        assert_eq!((summary.kind, summary.duration_secs), (AssetKind::Image, 0.0), "{name}");
        assert_eq!((summary.width, summary.height), (80, 40), "{name}");
        assert_eq!((spans(&clips), tracks(&clips)), (vec![(0.0, 0.4)], vec![(true, false)]), "{name}");
    }
    let avif = make("p.avif", &format!("{still} -c:v libaom-av1 -cpu-used 8 -still-picture 1"));
    let (clips, summary) = read(&decoder, &avif, &small(), None).await.unwrap();
    assert_eq!(
        (summary.kind, summary.width, clips.len()),
        (AssetKind::Image, 80, 1),
        "{summary:?} {:?}",
        probe(&decoder, &avif).await
    );

    let moving = make("moving.gif", "-f lavfi -i testsrc2=s=80x40:r=10:d=4");
    let (clips, summary) = read(&decoder, &moving, &small(), None).await.unwrap();
    assert_eq!((summary.kind, spans(&clips)), (AssetKind::Video, vec![(0.0, 3.2), (0.8, 4.0)]));

    // EXIF: turn by 90 degrees clockwise to see it upright.
    let jpeg = std::fs::read(make("p.jpg", still)).unwrap();
    let exif = b"\xff\xe1\0\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let turned = MEDIA.path().join("turned.jpg");
    std::fs::write(&turned, [&jpeg[..2], exif, &jpeg[2..]].concat()).unwrap();
    let (_, summary) = read(&decoder, &turned, &small(), None).await.unwrap();
    assert_eq!((summary.width, summary.height), (40, 80));
}
