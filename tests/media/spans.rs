//! Spans, thumbnails and probes.

use super::*;

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
