//! The command line of ffmpeg. The rule is in `docs/bundle.md`.

use std::ffi::OsString;
use std::os::fd::RawFd;

use super::protocol::{Request, Streams, Task};
use super::{sound, timing};

/// Arguments for one request. `media` is the file's descriptor, `sound` the sound pipe's. Time stamps of a file
/// that is `untimed` are made of the samples that come out of it.
pub fn arguments(
    request: &Request,
    demuxers: &str,
    untimed: bool,
    media: RawFd,
    sound: RawFd,
) -> Vec<OsString> {
    let mut args = Args::default();
    if matches!(request.task, Task::Health) {
        args.words("-hide_banner -version");
        return args.0;
    }
    args.words("-nostdin -hide_banner -nostats -v repeat+level+info -filter_threads 1 -threads 1");
    args.words("-protocol_whitelist fd -format_whitelist").word(demuxers);
    args.word("-max_pixels").word(request.max_pixels.to_string());
    if untimed {
        args.words("-fflags +nofillin");
    }
    match request.task {
        Task::Probe | Task::Health => {
            args.input(media);
        }
        Task::Thumbnail { at_secs, seek_secs, max_side_px } => {
            args.words(&timing::seek(seek_secs)).input(media);
            args.thumbnail(at_secs, max_side_px);
        }
        Task::Clips { fps, sample_rate_hz, seek_secs, start_secs, duration_secs, streams } => {
            // Where samples must be counted, all are; the parent drops what comes before: see `Placer::new`.
            args.words(&timing::seek(if untimed { 0.0 } else { seek_secs })).input(media);
            // Parts begin and end on the grid of sampling periods.
            let first = (start_secs * fps).round() as u64;
            let end = duration_secs.map(|secs| first.saturating_add((secs * fps).round() as u64));
            let pictures = timing::sampling(fps, first, end);
            let samples = if untimed {
                timing::part_of_sound(0.0, duration_secs.map(|secs| start_secs + secs))
            } else {
                timing::part_of_sound(start_secs, duration_secs)
            };
            match streams {
                Streams::Both => args.frames(&pictures).sound(&samples, sample_rate_hz, sound),
                Streams::Video => args.frames(&pictures),
                Streams::Audio => args.sound(&samples, sample_rate_hz, sound),
                Streams::FirstFrame => args.first_frame(),
            };
        }
    }
    args.0
}

#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn word(&mut self, word: impl Into<OsString>) -> &mut Self {
        self.0.push(word.into());
        self
    }

    fn words(&mut self, words: &str) -> &mut Self {
        self.0.extend(words.split_ascii_whitespace().map(OsString::from));
        self
    }

    /// Filters that are set up anew, as for pictures of another size, would forget the frame that they hold and
    /// how far they are: they stay, and `scale`, which knows such changes, makes all pictures like the first.
    fn input(&mut self, media: RawFd) -> &mut Self {
        self.words("-reinit_filter:v 0 -fd").word(media.to_string()).words("-i fd:")
    }

    /// PPM rather than bare rgb24: every frame says its size.
    fn frames(&mut self, sampling: &str) -> &mut Self {
        self.words("-map 0:V:0 -fps_mode passthrough -vf").word(format!("{sampling},scale,format=rgb24"));
        self.words("-c:v ppm -pix_fmt rgb24 -threads 1 -thread_queue_size 1 -f image2pipe pipe:1")
    }

    fn first_frame(&mut self) -> &mut Self {
        self.words("-map 0:V:0 -frames:v 1 -fps_mode passthrough -vf format=rgb24 -c:v ppm -pix_fmt rgb24 -threads 1");
        self.words("-f image2pipe pipe:1")
    }

    fn sound(&mut self, part: &str, sample_rate_hz: u32, pipe: RawFd) -> &mut Self {
        self.words("-map 0:a:0 -af").word(format!("{part}{}", sound::filter(sample_rate_hz)));
        self.words("-c:a pcm_f32le -f f32le").word(format!("pipe:{pipe}"))
    }

    fn thumbnail(&mut self, at_secs: f64, max_side_px: u32) -> &mut Self {
        let fit = format!(
            "scale=w=min({max_side_px}\\,iw):h=min({max_side_px}\\,ih):force_original_aspect_ratio=decrease:out_range=pc"
        );
        let one = timing::on_screen(at_secs);
        self.words("-map 0:V:0 -frames:v 1 -fps_mode passthrough -vf")
            .word(format!("{one},{fit},format=yuv420p"));
        self.words("-c:v mjpeg -q:v 3 -strict unofficial -threads 1 -f mjpeg pipe:1")
    }
}
