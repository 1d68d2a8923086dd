//! Builds the command line of ffmpeg. The rule is in `docs/bundle.md`.

use std::ffi::OsString;
use std::os::fd::RawFd;

use super::protocol::{Request, Streams, Task};
use crate::ffmpeg::filters::Shape;
use crate::ffmpeg::picks::{Heard, Source, streams_of};
use crate::ffmpeg::{sound, timing, tracks};
use crate::structure::sound::Raw;

/// Facts about a file before ffmpeg reads it.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Demuxers that may read it, comma-separated.
    pub demuxers: &'a str,
    /// Whether it is a picture inside a container.
    pub picture: bool,
    /// Whether its timestamps must be computed from the decoded samples.
    pub untimed: bool,
    /// Whether it is plain PCM, so that ffmpeg need not probe for codecs.
    pub plain: bool,
    /// Samples that it must read as raw PCM, regardless of their header.
    pub raw: Option<Raw>,
    /// Whether it is a broadcast stream whose clock never starts again.
    pub one_clock: bool,
    /// The bytes that it may read, if it must not read the whole file: see `Examined::linked`.
    pub part: Option<(u64, u64)>,
}

/// Arguments for one request. `media` is the descriptor of the file, `sound` that of the sound pipe.
pub fn arguments(request: &Request, known: Known<'_>, media: RawFd, sound: RawFd) -> Vec<OsString> {
    let Known { demuxers, picture, untimed, plain, raw, one_clock, part } = known;
    let demuxers = raw.map_or(demuxers, |raw| raw.format);
    let mut args = Args { part, ..Args::default() };
    if matches!(request.task, Task::Health) {
        args.words("-hide_banner -version");
        return args.list;
    }
    args.words("-nostdin -hide_banner -nostats -v repeat+level+info -filter_threads 1 -threads 1");
    // `subfile` reads a part of what another protocol of the list opens, and so of nothing but the descriptor.
    let protocols = if part.is_some() { "fd,subfile" } else { "fd" };
    args.word("-protocol_whitelist").word(protocols).word("-format_whitelist").word(demuxers);
    // Their headers have been read already, further than ffmpeg would probe.
    if ["apng", "mjpeg", "tiff_pipe"].contains(&demuxers) {
        args.word("-f").word(demuxers);
    }
    if let Some(Raw { format, rate_hz, channels, at }) = raw {
        args.words(&format!(
            "-f {format} -sample_rate {rate_hz} -ch_layout {channels}c -skip_initial_bytes {at}"
        ));
    }
    let max_pixels = if picture { request.max_picture_pixels } else { request.max_pixels };
    args.word("-max_pixels").word(max_pixels.to_string());
    if untimed {
        args.words("-fflags +nofillin");
    }
    if plain {
        args.words("-max_probe_packets 1");
    }
    match request.task {
        Task::Probe | Task::Health => {
            args.input(media);
        }
        Task::Survey { pictures, sounds } => {
            let words = tracks::survey_words(pictures, sounds).into_iter().map(OsString::from);
            args.input(media).list.extend(words);
        }
        Task::Thumbnail { max_side_px, .. } if picture => {
            args.input(media).thumbnail(None, max_side_px, request.shape);
        }
        Task::Thumbnail { at_secs, seek_secs, max_side_px, with_sound } => {
            args.words(&timing::seek(seek_secs, one_clock)).input(media);
            args.thumbnail(Some(&timing::on_screen(at_secs)), max_side_px, request.shape);
            if with_sound {
                args.unheard(demuxers, request.shape);
            }
        }
        Task::Clips { seek_secs, .. } => {
            // If samples must be counted, all are decoded; the parent drops those before the start: see
            // `Placer::new`.
            let all = untimed || part.is_some();
            let seek_secs = if all { 0.0 } else { seek_secs };
            args.words(&timing::seek(seek_secs, one_clock)).input(media);
            args.clips(request, all, seek_secs == 0.0, sound);
        }
    }
    args.list
}

#[derive(Default)]
struct Args {
    list: Vec<OsString>,
    part: Option<(u64, u64)>,
}

impl Args {
    /// Frames and samples of a part of the file.
    fn clips(&mut self, request: &Request, all: bool, whole: bool, sound: RawFd) {
        let Task::Clips { sampling, sample_rate_hz, start_secs, duration_secs, streams, .. } = request.task
        else {
            return;
        };
        // Parts begin and end on the grid of sampling periods.
        let fps = sampling.rate();
        let first = (start_secs * fps).round() as u64;
        let end = duration_secs.map(|secs| first.saturating_add((secs * fps).round() as u64));
        let pictures = timing::sampling(sampling, first, end, whole);
        let samples = if all {
            timing::part_of_sound(0.0, duration_secs.map(|secs| start_secs + secs))
        } else {
            timing::part_of_sound(start_secs, duration_secs)
        };
        match streams {
            Streams::Both => {
                let args = self.frames(&pictures, request.shape);
                args.sound(request.shape.sound, &samples, sample_rate_hz, sound)
            }
            Streams::Video => self.frames(&pictures, request.shape),
            Streams::Audio => self.sound(request.shape.sound, &samples, sample_rate_hz, sound),
            Streams::FirstFrame => self.first_frame(request.shape),
        };
    }

    fn word(&mut self, word: impl Into<OsString>) -> &mut Self {
        self.list.push(word.into());
        self
    }

    fn words(&mut self, words: &str) -> &mut Self {
        self.list.extend(words.split_ascii_whitespace().map(OsString::from));
        self
    }

    /// Filters that are re-initialised, for example for pictures of another size, would lose the frame that
    /// they hold and their position. So they are not, and `scale`, which handles such changes, makes all
    /// pictures like the first.
    fn input(&mut self, media: RawFd) -> &mut Self {
        self.words("-reinit_filter:v 0 -fd").word(media.to_string()).word("-i");
        match self.part {
            Some((start, end)) => self.word(format!("subfile,,start,{start},end,{end},,:fd:")),
            None => self.word("fd:"),
        }
    }

    /// PPM rather than bare rgb24, since every frame then states its size.
    fn frames(&mut self, sampling: &str, shape: Shape) -> &mut Self {
        // After the filters all pictures are like the first. Filters that compare neighbours need that before
        // them.
        let alike = if shape.leaves_frames() { "" } else { "scale," };
        self.filtered(shape, format!("{alike}{},scale,format=rgb24", shape.chain(Some(sampling))));
        self.words("-c:v ppm -pix_fmt rgb24 -threads 1 -thread_queue_size 1 -f image2pipe pipe:1")
    }

    fn first_frame(&mut self, shape: Shape) -> &mut Self {
        self.filtered(shape, format!("{},format=rgb24", shape.chain(None)));
        self.words("-frames:v 1 -c:v ppm -pix_fmt rgb24 -threads 1 -f image2pipe pipe:1")
    }

    /// Passes the pictures of the one stream, or of the tiles, through a chain of filters.
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

    fn sound(&mut self, heard: Heard, part: &str, sample_rate_hz: u32, pipe: RawFd) -> &mut Self {
        let chain = || format!("{part}{}", sound::filter(sample_rate_hz));
        match heard {
            Heard::First => self.words("-map 0:a:0 -af").word(chain()),
            Heard::Stream(index) => self.word("-map").word(format!("0:{index}")).word("-af").word(chain()),
            Heard::Mean(mask) => {
                let streams: Vec<_> = streams_of(mask).collect();
                let graph = sound::mean_of_streams(&streams, part, sample_rate_hz);
                self.word("-filter_complex").word(graph).words("-map [mean]")
            }
        };
        self.words("-c:a pcm_f32le -f f32le").word(format!("pipe:{pipe}"))
    }

    /// Also reads the first packet of the sound. Without it, ffmpeg would take the first picture for the
    /// beginning of the file: in these formats it considers only the tracks that it reads.
    fn unheard(&mut self, demuxers: &str, shape: Shape) -> &mut Self {
        let by_tracks = demuxers.split(',').any(|name| ["mpegts", "mpeg", "ogg"].contains(&name));
        if !by_tracks {
            return self;
        }
        let seen = match shape.source {
            Source::Stream(number) => format!("0:{number}"),
            Source::Film | Source::Tiles(_) => "0:V:0".to_owned(),
        };
        let heard = match shape.sound {
            Heard::First => Some("0:a:0?".to_owned()),
            Heard::Stream(index) => Some(format!("0:{index}?")),
            Heard::Mean(mask) => streams_of(mask).next().map(|index| format!("0:{index}?")),
        };
        for track in [Some(seen), heard].into_iter().flatten() {
            self.word("-map").word(track);
        }
        self.words("-c copy -t 0 -f null -")
    }

    /// JPEG files use the BT.601 matrix and the full range, regardless of the film. `choice` selects the
    /// frame; without it, the first one is taken.
    fn thumbnail(&mut self, choice: Option<&str>, max_side_px: u32, shape: Shape) -> &mut Self {
        let fit = format!(
            "scale=w=min({max_side_px}\\,iw):h=min({max_side_px}\\,ih):force_original_aspect_ratio=decrease:out_range=pc:out_color_matrix=bt601"
        );
        let alike = if shape.leaves_frames() { "" } else { "scale," };
        self.filtered(shape, format!("{alike}{},{fit},format=yuv420p", shape.chain(choice)));
        self.words("-frames:v 1 -c:v mjpeg -q:v 3 -strict unofficial -threads 1 -f mjpeg pipe:1")
    }
}
