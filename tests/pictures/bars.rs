//! Films and pictures with black bars around them, where a bundle wants them without.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use triptych::preprocess::ClipTensors;
use triptych::preprocess::bars::Lit;
use triptych::preprocess::frames::Part;
use triptych::types::TimeSpan;

use super::*;

/// Lossless, as RGB.
const EXACT: &str = "-c:v ffv1 -pix_fmt bgr0";

fn unbarred() -> ClipSpec {
    let spec = spec();
    ClipSpec {
        video: PictureSpec { unbarred: true, ..spec.video },
        image: PictureSpec { unbarred: true, ..spec.image },
        ..spec
    }
}

async fn clips(path: &Path, spec: &ClipSpec, span: Option<TimeSpan>) -> Vec<ClipTensors> {
    let mut reader = ClipReader::open(&decoder(), path, spec, span).await.unwrap();
    let mut clips = Vec::new();
    while let Some(clip) = reader.next().await.unwrap() {
        clips.push(clip);
    }
    clips
}

#[tokio::test]
async fn a_boxed_film_gives_the_tensors_of_the_film() {
    let folder = folder("boxed");
    let pattern = Pattern::new(320, 180);
    let bare = ffmpeg_to(&folder, "bare.mkv", Some(&pattern), EXACT);
    let wanted = clips(&bare, &unbarred(), None).await;
    for (name, pad) in [
        ("above", "320:240:0:30"),
        ("beside", "480:180:80:0"),
        ("round", "480:240:80:30"),
        ("not quite in the middle", "320:240:0:32"),
    ] {
        let path =
            ffmpeg_to(&folder, &format!("{name}.mkv"), Some(&pattern), &format!("-vf pad={pad} {EXACT}"));
        let got = clips(&path, &unbarred(), None).await;
        assert_eq!(got.len(), wanted.len(), "{name}");
        for (got, wanted) in got.iter().zip(&wanted) {
            assert_eq!((got.span, got.windows), (wanted.span, wanted.windows), "{name}");
            assert!(got.same_frames(wanted.frames.as_ref(), None), "{name}");
        }
        let kept = clips(&path, &spec(), None).await;
        assert!(name == "beside" || !kept[0].same_frames(wanted[0].frames.as_ref(), None), "{name}");

        // Lossy: what compression leaves in the bars is no picture.
        let lossy = ffmpeg_to(
            &folder,
            &format!("{name}.mp4"),
            Some(&pattern),
            &format!("-vf pad={pad} -c:v libx264 -crf 20 -pix_fmt yuv420p"),
        );
        let (got, _) = seen_by(&decoder(), &lossy, &unbarred()).await.unwrap();
        let first = &wanted[0].frames.as_ref().unwrap()[..got.len()];
        assert!(apart(&got, first) < 4.0, "{name}: {}", apart(&got, first));

        // A still, and its thumbnail, which is as a viewer sees it.
        let still = ffmpeg_to(&folder, &format!("{name}.png"), Some(&pattern), &format!("-vf pad={pad}"));
        let (got, summary) = seen_by(&decoder(), &still, &unbarred()).await.unwrap();
        assert_eq!(got, first, "{name}");
        let (width, height, thumb) = thumbnail_of(&still).await;
        assert_eq!(width * summary.height, height * summary.width, "{name}");
        assert!(thumb[..3].iter().all(|value| *value < 10), "{name}");
    }
}

/// Bars come and go in the middle of a film; each clip is judged for itself, and as a span of its own.
#[tokio::test]
async fn each_clip_has_its_own_bars() {
    let folder = folder("changing");
    let pattern = Pattern::new(320, 240);
    let boxes = "loop=5:50:0,setpts=N/25/TB,drawbox=0:0:320:30:black:fill:enable='lt(mod(t,3.2),1.6)',drawbox=0:210:320:30:black:fill:enable='lt(mod(t,3.2),1.6)',drawbox=0:30:320:180:black:fill:enable='between(t,4,4.3)'";
    let path = ffmpeg_to(&folder, "film.mkv", Some(&pattern), &format!("-vf {boxes} {EXACT}"));
    let bare = ffmpeg_to(&folder, "bare.png", Some(&pattern.part(0, 30, 320, 180)), "");
    let whole = ffmpeg_to(&folder, "whole.png", Some(&pattern), "");
    let ((bare, _), (whole, _)) = (seen(&bare).await, seen(&whole).await);
    for stride_secs in [0.8, 0.4] {
        let spec = ClipSpec { stride_secs, ..unbarred() };
        let all = clips(&path, &spec, None).await;
        let mut kinds = [0, 0];
        for clip in &all {
            let first = &clip.frames.as_ref().unwrap()[..bare.len()];
            kinds[0] += u32::from(first == bare);
            kinds[1] += u32::from(first == whole);
            let span = TimeSpan { end_secs: clip.span.start_secs + 0.8, ..clip.span };
            let alone = clips(&path, &spec, Some(span)).await;
            assert_eq!(alone.len(), 1);
            assert!(alone[0].same_frames(clip.frames.as_ref(), None), "{span:?} at {stride_secs}");
        }
        assert!(kinds.iter().all(|count| *count >= 2), "{kinds:?} of {} at {stride_secs}", all.len());
    }
}

/// What the rule says of each clip of 32 frames at 10 a second, the frames as ffmpeg gives them.
fn judged(path: &Path) -> Vec<Option<Part>> {
    let mut ffmpeg = Command::new(native())
        .args(["-nostdin", "-v", "error", "-i"])
        .arg(path)
        .args("-map 0:V:0 -vf fps=10:start_time=0,format=rgb24 -c:v ppm -f image2pipe -".split(' '))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut frames = BufReader::new(ffmpeg.stdout.take().unwrap());
    let (mut clips, mut clip) = (Vec::new(), Vec::new());
    while let Some((width, height, rgb)) = ppm(&mut frames) {
        clip.push(Lit::of(&rgb, width, height));
        if clip.len() == 32 {
            clips.push(std::mem::take(&mut clip));
        }
    }
    assert!(ffmpeg.wait().unwrap().success());
    if clips.is_empty() {
        clips.push(clip);
    }
    let judge = |clip: Vec<Option<Lit>>| {
        let lit: Option<Vec<Lit>> = clip.into_iter().collect();
        let joined = |mut all: Lit, next: Lit| {
            assert!(all.join(&next));
            all
        };
        lit.and_then(|lit| lit.into_iter().reduce(joined)).and_then(|lit| lit.picture())
    };
    clips.into_iter().map(judge).collect()
}

fn ppm(frames: &mut impl BufRead) -> Option<(usize, usize, Vec<u8>)> {
    let mut header = String::new();
    for _ in 0..3 {
        frames.read_line(&mut header).unwrap();
    }
    let mut words = header.split_whitespace().skip(1).map(|word| word.parse::<usize>().unwrap());
    let (width, height) = (words.next()?, words.next()?);
    let mut rgb = vec![0; width * height * 3];
    frames.read_exact(&mut rgb).unwrap();
    Some((width, height, rgb))
}

/// What the rule says of real films: one of them has bars, and has them throughout.
#[test]
fn real_films_with_and_without_bars() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = std::env::var_os("TRIPTYCH_SHARED").map_or(beside, PathBuf::from).join("media");
    if !folder.is_dir() {
        eprintln!("SKIPPED: no real media at {}; set TRIPTYCH_SHARED", folder.display());
        return;
    }
    let mut films = 0;
    for name in [
        "arm_wrestling.mp4",
        "av1_video.mkv",
        "big_buck_bunny_0_30.webm",
        "chaplin.mp4",
        "dog_image.jpg",
        "fire2.mp4",
        "flipping_a_pancake.mkv",
        "h265_10bits.mp4",
        "nasa_13013.mp4",
        "no_duration.webm",
        "video_90.mov",
        "video_with_failing_audio.mp4",
    ] {
        let path = folder.join(name);
        if !path.is_file() {
            eprintln!("SKIPPED: no {}", path.display());
            continue;
        }
        let clips = judged(&path);
        // 4:3 in a frame of 16:9.
        let bars = Part { left: 72, top: 0, width: 496, height: 360 };
        let wanted = (name == "chaplin.mp4").then_some(bars);
        eprintln!("{name}: {} of {} clips have bars", clips.iter().flatten().count(), clips.len());
        assert!(clips.iter().all(|clip| *clip == wanted), "{name}: {clips:?}");
        films += 1;
    }
    assert!(films > 0);
}
