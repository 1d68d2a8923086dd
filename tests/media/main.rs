//! Files through the real decode-worker: the binary itself, its sandbox and ffmpeg.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use triptych::media::{Decoder, DecoderConfig, Limits, MediaError, WorkLimits};
use triptych::preprocess::spec::PictureSpec;
use triptych::preprocess::{AssetSummary, ClipReader, ClipSpec, ClipTensors, Preparer, probe, thumbnail};
use triptych::types::{AssetKind, TimeSpan};

/// The window of the published models.
fn large() -> ClipSpec {
    at_rate(10.0, 32, 224, 200)
}

fn at_rate(fps: f64, frames: usize, side: usize, crop: usize) -> ClipSpec {
    ClipSpec::mmv(fps, frames, PictureSpec::mmv(side, crop, true, false), (48_000, 153_600), 3.2)
}

/// The window of the small model.
fn small() -> ClipSpec {
    at_rate(2.5, 8, 64, 64)
}

/// ffmpeg, or a word on why the test does nothing.
fn ffmpeg() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = std::env::var_os("TRIPTYCH_FFMPEG").map(PathBuf::from);
    let native = std::env::var_os("TRIPTYCH_NATIVE_DIR").map(|dir| Path::new(&dir).join("ffmpeg/ffmpeg"));
    let found = named.or(native).unwrap_or_else(|| root.join(".triptych/native/ffmpeg/ffmpeg"));
    if found.is_file() {
        return Some(found);
    }
    eprintln!("SKIPPED: no ffmpeg at {}; run `make native`", found.display());
    None
}

fn shared_media() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let dir = std::env::var_os("TRIPTYCH_SHARED").map_or(beside, PathBuf::from).join("media");
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!("SKIPPED: no real media at {}; set TRIPTYCH_SHARED", dir.display());
    None
}

fn decoder_with(limits: Limits) -> Option<Decoder> {
    let worker_exe = PathBuf::from(env!("CARGO_BIN_EXE_triptych"));
    Some(Decoder::new(DecoderConfig { worker_exe, ffmpeg: ffmpeg()?, limits }))
}

fn decoder() -> Option<Decoder> {
    decoder_with(Limits { wall_clock_secs: 120, ..Limits::default() })
}

/// Generated files, made once a test run.
static MEDIA: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

/// Makes a file with ffmpeg; `args` go before the output's name.
fn make(name: &str, args: &str) -> PathBuf {
    make_with(name, args.split_whitespace())
}

fn make_with<'a>(name: &str, args: impl IntoIterator<Item = &'a str>) -> PathBuf {
    let path = MEDIA.path().join(name);
    let part = MEDIA.path().join(format!("part-{name}"));
    let mut command = Command::new(ffmpeg().unwrap());
    let done = command.args(["-nostdin", "-v", "error", "-y"]).args(args).arg(&part).output().unwrap();
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    std::fs::rename(part, &path).unwrap();
    path
}

const PICTURE: &str = "-f lavfi -i testsrc2=s=320x240:r=25:d=6";
const TONE: &str = "-f lavfi -i sine=440:d=6:r=44100";

/// Six seconds, with sound.
fn av(name: &str, codecs: &str) -> PathBuf {
    make(name, &format!("{PICTURE} {TONE} {codecs}"))
}

const H264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";

type Read = Result<(Vec<ClipTensors>, AssetSummary), MediaError>;

async fn read(decoder: &Decoder, path: &Path, spec: &ClipSpec, span: Option<(f64, f64)>) -> Read {
    let span = span.map(|(start, end)| TimeSpan::new(start, end).unwrap());
    let mut reader = ClipReader::open(decoder, path, spec, span).await?;
    let mut clips = Vec::new();
    while let Some(clip) = reader.next().await? {
        let frames = if reader.summary().kind == AssetKind::Image { 1 } else { spec.frames() };
        if let Some(bytes) = &clip.frames {
            assert_eq!(bytes.len(), frames * spec.video.frame_bytes());
        }
        if let Some(pcm) = &clip.pcm {
            assert_eq!(pcm.len(), spec.sound.samples);
            assert!(pcm.iter().all(|sample| sample.is_finite()));
        }
        assert!(TimeSpan::new(clip.span.start_secs, clip.span.end_secs).is_ok(), "{:?}", clip.span);
        clips.push(clip);
    }
    let summary = reader.summary();
    if summary.kind != AssetKind::Image {
        for clip in &clips {
            assert!(clip.span.end_secs <= summary.duration_secs + 1e-9, "{:?} {summary:?}", clip.span);
        }
    }
    Ok((clips, summary))
}

fn spans(clips: &[ClipTensors]) -> Vec<(f64, f64)> {
    let round = |secs: f64| (secs * 1000.0).round() / 1000.0;
    clips.iter().map(|clip| (round(clip.span.start_secs), round(clip.span.end_secs))).collect()
}

fn tracks(clips: &[ClipTensors]) -> Vec<(bool, bool)> {
    clips.iter().map(|clip| (clip.frames.is_some(), clip.pcm.is_some())).collect()
}

fn code(read: Read) -> &'static str {
    match read {
        Ok((clips, summary)) => panic!("{} clips, {summary:?}", clips.len()),
        Err(error) => {
            assert!(error.to_string().len() > 10 && error.to_string().len() < 400, "{error}");
            eprintln!("{error}");
            error.code()
        }
    }
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

/// A GIF of one frame that is 0 pixels wide.
const FLAT_GIF: &[u8] = b"GIF89a\0\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\0\0\x01\0\0\x02\x01\x44\0;";

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

fn raw(path: &Path, args: &str) -> Vec<u8> {
    let mut command = Command::new(ffmpeg().unwrap());
    let done = command.args(["-nostdin", "-v", "error", "-threads", "1", "-i"]).arg(path);
    let done = done.args(args.split_whitespace()).arg("-").output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done.stdout
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

#[tokio::test]
async fn spans_give_the_frames_of_the_whole() {
    let Some(decoder) = decoder() else { return };
    let args = format!(
        "-f lavfi -i testsrc2=s=64x64:r=25:d=20 -f lavfi -i sine=300:d=20:r=48000 {H264} -g 60 -c:a flac"
    );
    let spec = ClipSpec { stride_secs: 0.8, ..at_rate(10.0, 8, 64, 64) };
    let path = make("long.mp4", &args);
    let frame = 64 * 64 * 3;
    let whole = raw(&path, "-vf fps=fps=10:start_time=0,format=rgb24 -f rawvideo -pix_fmt rgb24");
    let mut resizer = Preparer::new(&spec.video, 64, 64, None);
    for (start, end, first, clips_wanted) in [(12.5, 16.0, 125, 5), (0.04, 0.9, 0, 2), (19.2, 25.0, 192, 1)] {
        let (clips, summary) = read(&decoder, &path, &spec, Some((start, end))).await.unwrap();
        assert_eq!(clips.len(), clips_wanted, "{:?}", spans(&clips));
        assert!((summary.duration_secs - 20.0).abs() < 0.1, "{summary:?}");
        assert!((clips[0].span.start_secs - f64::from(first) / 10.0).abs() < 1e-9);
        assert!(clips.last().unwrap().span.end_secs <= end.min(20.0) + 0.1);
        for clip in &clips {
            let at = (clip.span.start_secs * 10.0).round() as usize;
            let mut wanted = vec![0; frame];
            assert!(resizer.run(&whole[at * frame..][..frame], &mut wanted));
            assert!(clip.frames.as_ref().unwrap()[..frame] == wanted[..], "frame {at}");
            let pcm = clip.pcm.as_ref().unwrap();
            // 300 Hz at 48 kHz: 160 samples a period, so every frame begins at the same phase.
            assert!(pcm[0].abs() < 0.01 && pcm[40] > 0.1, "{} {}", pcm[0], pcm[40]);
        }
    }
    assert_eq!(code(read(&decoder, &path, &spec, Some((30.0, 31.0))).await), "span_out_of_range");

    for name in ["span.wav", "span.mp3", "span.opus"] {
        let path = make(name, "-f lavfi -i sine=300:d=20:r=48000");
        let (clips, summary) = read(&decoder, &path, &spec, Some((12.5, 16.0))).await.unwrap();
        assert_eq!(spans(&clips), [(12.5, 15.7), (12.8, 16.0)], "{name}");
        assert!((summary.duration_secs - 20.0).abs() < 0.2, "{name} {summary:?}");
        assert_eq!(
            code(read(&decoder, &path, &spec, Some((30.0, 31.0))).await),
            "span_out_of_range",
            "{name}"
        );
    }
    let exact = make("span.wav", "-f lavfi -i sine=300:d=20:r=48000");
    let (clips, _) = read(&decoder, &exact, &spec, Some((12.5, 16.0))).await.unwrap();
    let (whole, _) = read(&decoder, &exact, &ClipSpec { stride_secs: 12.5, ..spec }, None).await.unwrap();
    assert_eq!(whole[1].span.start_secs, 12.5);
    assert!(clips[0].pcm == whole[1].pcm);
}

#[tokio::test]
async fn thumbnails_and_probes() {
    let Some(decoder) = decoder() else { return };
    let video = av("thumb.mp4", &format!("{H264} -c:a aac"));
    let picture = make("thumb.png", "-f lavfi -i testsrc2=s=300x500 -frames:v 1");
    for (path, at, size) in [(&video, 3.0, (100, 75)), (&video, 99.0, (100, 75)), (&picture, 0.0, (60, 100))]
    {
        let jpeg = thumbnail(&decoder, path, at, 100).await.unwrap();
        let shown = image::load_from_memory(&jpeg).unwrap();
        assert_eq!((shown.width(), shown.height()), size);
    }
    let sound = make("thumb.wav", TONE);
    assert_eq!(thumbnail(&decoder, &sound, 0.0, 100).await.unwrap_err().code(), "no_media_streams");
    let m4a = make("thumb.m4a", &format!("{TONE} -c:a aac"));
    assert_eq!(thumbnail(&decoder, &m4a, 0.0, 100).await.unwrap_err().code(), "no_media_streams");

    let found = probe(&decoder, &video).await.unwrap();
    assert_eq!((found.kind, found.width, found.height), (AssetKind::Video, 320, 240));
    assert!(found.has_video && found.has_audio && (found.duration_secs.unwrap() - 6.0).abs() < 0.1);
    assert_eq!(probe(&decoder, &sound).await.unwrap().kind, AssetKind::Audio);
    assert_eq!(probe(&decoder, &picture).await.unwrap().kind, AssetKind::Image);
    let text = MEDIA.path().join("probe.mp4");
    std::fs::write(&text, "no media at all").unwrap();
    assert_eq!(probe(&decoder, &text).await.unwrap_err().code(), "unsupported_media");
}

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = MEDIA.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn wav(samples: &[f32]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let mut wav =
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x03\0\x01\0\x80\xbb\0\0\0\xee\x02\0\x04\0\x20\0data".to_vec();
    wav.extend((data.len() as u32).to_le_bytes());
    wav.extend(data);
    let size = (wav.len() as u32 - 8).to_le_bytes();
    wav[4..8].copy_from_slice(&size);
    wav
}

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

#[tokio::test]
async fn limits_hold() {
    let Some(normal) = decoder() else { return };
    let with = |change: fn(&mut Limits)| {
        let mut limits = normal.config.limits.clone();
        change(&mut limits);
        decoder_with(limits).unwrap()
    };
    let video = av("limits.mp4", &format!("{H264} -c:a aac"));
    let picture = make("limits.png", "-f lavfi -i testsrc2=s=320x240 -frames:v 1");
    let few_pixels = with(|limits| (limits.max_pixels, limits.max_picture_pixels) = (10_000, 10_000));
    assert_eq!(code(read(&few_pixels, &video, &small(), None).await), "too_many_pixels");
    assert_eq!(code(read(&few_pixels, &picture, &small(), None).await), "too_many_pixels");
    assert_eq!(thumbnail(&few_pixels, &video, 0.0, 100).await.unwrap_err().code(), "too_many_pixels");

    let brief = with(|limits| limits.max_duration_secs = 2.0);
    assert_eq!(code(read(&brief, &video, &small(), None).await), "too_long");
    assert_eq!(code(read(&brief, &make("limits.wav", TONE), &small(), None).await), "too_long");
    // Lengths the header does not tell.
    let open_ended = std::fs::read(make("open.wav", TONE)).unwrap();
    let mut open_ended = open_ended;
    open_ended[4..8].copy_from_slice(&[0xff; 4]);
    assert_eq!(code(read(&brief, &file("open.wav", &open_ended), &small(), None).await), "too_long");
    let live = make("live.mkv", &format!("{PICTURE} {H264} -live 1"));
    assert_eq!(code(read(&brief, &live, &small(), None).await), "too_long");

    let poor = with(|limits| limits.address_space_bytes = 260 << 20);
    let wide = make("wide.mp4", &format!("-f lavfi -i testsrc2=s=7680x4320:r=5:d=0.4 {H264}"));
    let refused = read(&poor, &wide, &small(), None).await.unwrap_err();
    assert_eq!(refused.code(), "decode_limit");
    let said = refused.to_string();
    assert!(said.contains("the limit of 260 MiB"), "{said}");
    let hurried = with(|limits| limits.wall_clock_secs = 0);
    let refused = read(&hurried, &video, &small(), None).await.unwrap_err();
    assert_eq!(refused.code(), "decode_timeout");
    assert!(refused.to_string().contains("longer than 0 s"), "{refused}");
}

/// A decoder whose worker is a shell script.
fn scripted(name: &str, script: &str) -> Decoder {
    use std::os::unix::fs::PermissionsExt;
    let worker_exe = file(name, format!("#!/bin/sh\n{script}\n").as_bytes());
    std::fs::set_permissions(&worker_exe, std::fs::Permissions::from_mode(0o755)).unwrap();
    let limits = Limits { wall_clock_secs: 1, ..Limits::default() };
    Decoder::new(DecoderConfig { worker_exe, ffmpeg: PathBuf::from("/nonexistent"), limits })
}

#[tokio::test]
async fn workers_that_misbehave() {
    let path = file("some.wav", &wav(&[0.0; 100]));
    let begun = Instant::now();
    for (name, script, wanted) in [
        ("hangs", "sleep 1000 & sleep 1000", "decode_timeout"),
        ("closes", "read request; exec <&- >&- 2>&-; sleep 1000", "decode_timeout"),
        ("killed", "read request; kill -9 $$", "decode_worker_killed"),
        ("crashes", "read request; kill -SEGV $$", "decode_worker_failed"),
        ("leaves", "read request; exit 3", "decode_worker_failed"),
        ("babbles", "yes '[error] nonsense' >&2", "decode_timeout"),
        ("floods", "cat /dev/zero", "decode_worker_failed"),
        ("forges", "printf 'P6\\n8 8\\n255\\n'; cat /dev/zero", "decode_worker_failed"),
        ("chatters", "cat /dev/zero >&0", "decode_worker_failed"),
    ] {
        assert_eq!(code(read(&scripted(name, script), &path, &small(), None).await), wanted, "{name}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
    // The kernel's cap on CPU time stands for the lesser of two caps of ours.
    let mut spent = scripted("spent", "read request; kill -XCPU $$");
    let refused = read(&spent, &path, &small(), None).await.unwrap_err();
    assert_eq!(refused.code(), "decode_timeout");
    assert!(refused.to_string().contains("longer than 1 s"), "{refused}");
    spent.config.limits.wall_clock_secs = 600;
    let refused = read(&spent, &path, &small(), None).await.unwrap_err();
    assert_eq!(refused.code(), "work_limit");
    assert!(refused.to_string().contains("s of CPU time"), "{refused}");
    let mut absent = scripted("absent", "");
    absent.config.worker_exe = PathBuf::from("/nonexistent/triptych");
    assert_eq!(code(read(&absent, &path, &small(), None).await), "decode_worker_failed");
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Twenty minutes are 230 MB of samples and 147 MB of frames.
#[tokio::test]
async fn memory_stays_flat() {
    let Some(decoder) = decoder_with(Limits { wall_clock_secs: 900, ..Limits::default() }) else { return };
    let sources = "-f lavfi -i testsrc=s=32x32:r=1:d=1200 -f lavfi -i anullsrc=r=48000:cl=mono:d=1200";
    let path = make("twenty.mkv", &format!("{sources} {H264} -c:a flac"));
    let spec = at_rate(10.0, 32, 64, 64);
    let mut reader = ClipReader::open(&decoder, &path, &spec, None).await.unwrap();
    let (before, mut most, mut clips) = (resident_bytes(), 0, 0);
    while let Some(clip) = reader.next().await.unwrap() {
        assert!(clip.frames.is_some() && clip.pcm.is_some());
        clips += 1;
        most = most.max(resident_bytes());
    }
    assert_eq!((clips, reader.summary().partial), (375, None));
    // Other tests of this process have their own clips.
    let grown = most.saturating_sub(before);
    eprintln!("resident memory grew by {} MB", grown >> 20);
    assert!(grown < 200 << 20, "{grown}");
}

/// Processes of this name, zombies too.
fn running(name: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let stats = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(&format!("({name})"))).count()
}

#[tokio::test]
async fn dropping_a_reader_ends_its_child() {
    let Some(mut decoder) = decoder() else { return };
    let link = MEDIA.path().join("ffmpeg-dropped");
    std::os::unix::fs::symlink(&decoder.config.ffmpeg, &link).unwrap();
    decoder.config.ffmpeg = link;
    let path = make("dropped.mp4", &format!("-f lavfi -i testsrc2=s=640x480:r=25:d=60 {H264}"));
    let mut reader = ClipReader::open(&decoder, &path, &large(), None).await.unwrap();
    assert!(reader.next().await.unwrap().is_some());
    assert_eq!(running("ffmpeg-dropped"), 1);
    drop(reader);
    let begun = Instant::now();
    while running("ffmpeg-dropped") > 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "the child outlives its reader");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn work_is_bounded_by_the_size_of_a_file() {
    let tight = |work| decoder_with(Limits { wall_clock_secs: 120, work, ..Limits::default() });
    let Some(little_cpu) =
        tight(WorkLimits { cpu_secs: 0.3, cpu_secs_per_mib: 0.0, ..WorkLimits::default() })
    else {
        return;
    };
    // All of it decoded takes seconds, and no clip is whole before them at this rate.
    let dear = make("dear.mp4", &format!("-f lavfi -i testsrc2=s=1920x1080:r=60:d=10 {H264}"));
    let slow = ClipSpec { stride_secs: 16.0, ..at_rate(0.5, 8, 64, 64) };
    assert_eq!(code(read(&little_cpu, &dear, &slow, None).await), "work_limit");

    let few = tight(WorkLimits { clips: 2, clips_per_mib: 0, ..WorkLimits::default() }).unwrap();
    let path = make("twenty.mp4", &format!("-f lavfi -i testsrc2=s=64x64:r=25:d=20 {H264}"));
    let mut reader = ClipReader::open(&few, &path, &small(), None).await.unwrap();
    let mut given = 0;
    let error = loop {
        match reader.next().await {
            Ok(Some(_)) => given += 1,
            Ok(None) => panic!("all of it was given"),
            Err(error) => break error,
        }
    };
    assert_eq!((given, error.code()), (2, "work_limit"));
    assert!(error.to_string().contains("distinct clips"), "{error}");
    // A picture that stays is one clip, with any number of windows.
    let still = make("still.mp4", &format!("-f lavfi -i color=red:s=64x64:r=5:d=60 {H264} -g 999"));
    let (clips, summary) = read(&few, &still, &small(), None).await.unwrap();
    assert_eq!((spans(&clips), summary.partial), (vec![(0.0, 60.0)], None));
    assert_eq!(clips[0].windows, 19);
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
