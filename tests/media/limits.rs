//! Limits of time, memory and work, and decode workers that misbehave.

use super::*;

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
