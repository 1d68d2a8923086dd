//! The command line of ffmpeg. The rule is in `docs/bundle.md`.

use std::ffi::OsString;
use std::os::fd::RawFd;

use super::filters::{Shape, Source};
use super::protocol::{Request, Streams, Task};

/// Arguments for one request. `media` is the file's descriptor, `sound` the sound pipe's.
pub fn arguments(
    request: &Request,
    demuxers: &str,
    picture: bool,
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
    // What their headers say is known already, and ffmpeg would not look as far.
    if ["apng", "mjpeg", "tiff_pipe"].contains(&demuxers) {
        args.word("-f").word(demuxers);
    }
    let max_pixels = if picture { request.max_picture_pixels } else { request.max_pixels };
    args.word("-max_pixels").word(max_pixels.to_string());
    match request.task {
        Task::Probe | Task::Health => {
            args.input(media);
        }
        Task::Thumbnail { at_secs, max_side_px } => {
            // Some demuxers (animated WebP) cannot even seek to the beginning.
            if at_secs > 0.0 {
                args.word("-ss").word(secs(at_secs));
            }
            args.input(media);
            args.thumbnail(max_side_px, request.shape);
        }
        Task::Clips { fps, sample_rate_hz, start_secs, duration_secs, streams } => {
            if start_secs > 0.0 {
                args.word("-ss").word(secs(start_secs));
            }
            if let Some(duration) = duration_secs {
                args.word("-t").word(secs(duration));
            }
            args.input(media);
            match streams {
                Streams::Both => args.frames(fps, request.shape).sound(sample_rate_hz, sound),
                Streams::Video => args.frames(fps, request.shape),
                Streams::Audio => args.sound(sample_rate_hz, sound),
                Streams::FirstFrame => args.first_frame(request.shape),
            };
        }
    }
    args.0
}

/// The filter `fps=fps=FPS:start_time=0`, but that each frame leaves it once, however long it lasts.
///
/// `settb` rounds time stamps to sampling periods as `fps` does. `setpts` then numbers frames so that one
/// that begins no later period than any before it gets its predecessor's number, and any other the next:
/// `fps` drops and emits the same frames as ever, and has no gap to fill. Each time the number goes up,
/// `print` writes the period to the log: it is where the frame emitted for the number before ends (the
/// expression is evaluated for the end of the stream too). So the n-th period in the log is the end of
/// the n-th frame. A log line may begin with half a line of another thread: `ffmpeg_log::end_of_frame` knows a
/// number by its 1e15. A graph set up anew, for pictures of another size, counts from its own first frame.
fn sampling(fps: f64) -> String {
    format!(
        "settb=expr=1/{fps},setpts='if(N*gt(PTS,ld(1)),st(1,print(PTS+1e15,32)-1e15);st(0,ld(0)+1));ld(0)',\
         fps=fps={fps}:start_time=0"
    )
}

fn secs(value: f64) -> String {
    format!("{value:.6}")
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

    fn input(&mut self, media: RawFd) -> &mut Self {
        self.word("-fd").word(media.to_string()).words("-i fd:")
    }

    /// PPM rather than bare rgb24: every frame says its size.
    fn frames(&mut self, fps: f64, shape: Shape) -> &mut Self {
        self.filtered(shape, format!("{},format=rgb24", shape.chain(Some(&sampling(fps)))));
        self.words("-c:v ppm -pix_fmt rgb24 -threads 1 -thread_queue_size 1 -f image2pipe pipe:1")
    }

    fn first_frame(&mut self, shape: Shape) -> &mut Self {
        self.filtered(shape, format!("{},format=rgb24", shape.chain(None)));
        self.words("-frames:v 1 -c:v ppm -pix_fmt rgb24 -threads 1 -f image2pipe pipe:1")
    }

    /// The pictures of the one stream, or of the tiles, through a chain of filters.
    fn filtered(&mut self, shape: Shape, chain: String) -> &mut Self {
        match shape.source {
            Source::Film => self.words("-map 0:V:0 -vf").word(chain),
            Source::Stream(number) => self.word("-map").word(format!("0:{number}")).word("-vf").word(chain),
            Source::Tiles(group) => {
                self.word("-filter_complex").word(format!("[0:g:{group}]{chain}[v]")).words("-map [v]")
            }
        };
        self.words("-fps_mode passthrough")
    }

    fn sound(&mut self, sample_rate_hz: u32, pipe: RawFd) -> &mut Self {
        self.words("-map 0:a:0 -af aresample=async=1:first_pts=0 -ac 1 -ar").word(sample_rate_hz.to_string());
        self.words("-f f32le").word(format!("pipe:{pipe}"))
    }

    /// JPEG files have the matrix of BT.601 and the full range, whatever the film has.
    fn thumbnail(&mut self, max_side_px: u32, shape: Shape) -> &mut Self {
        let fit = format!(
            "scale=w=min({max_side_px}\\,iw):h=min({max_side_px}\\,ih):force_original_aspect_ratio=decrease:out_range=pc:out_color_matrix=bt601"
        );
        self.filtered(shape, format!("{},{fit},format=yuv420p", shape.chain(None)));
        self.words("-frames:v 1 -c:v mjpeg -q:v 3 -strict unofficial -threads 1 -f mjpeg pipe:1")
    }
}
