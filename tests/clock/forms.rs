//! The clock in every container and codec that the pinned ffmpeg writes and the server reads.

use super::film::{SECS, Truth};

/// One way to store the clock.
#[derive(Debug, Clone)]
pub struct Form {
    /// Its file's name.
    pub name: &'static str,
    /// How it is made; see `Clock::make`.
    pub args: String,
    pub truth: Truth,
    /// Whether `cargo test` tries it; all are tried by `make test-clock`.
    pub often: bool,
}

pub const X264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";
/// With pictures that are stored in another order than they are shown in.
pub const X264_B: &str = "-c:v libx264 -preset veryfast -bf 3 -b_strategy 0 -pix_fmt yuv420p";
pub const X265: &str = "-c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p";
const VP8: &str = "-c:v libvpx -deadline realtime -cpu-used 8 -b:v 1M";
const VP9: &str = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 1M";
const AV1: &str = "-c:v libsvtav1 -preset 10 -crf 15 -svtav1-params log_level=0";
/// One picture each ten seconds, one after half a second and one at the end.
const SLIDES: &str = "-vf select='eq(n\\,0)+eq(n\\,13)+eq(n\\,238)+eq(n\\,299)' -fps_mode passthrough";
/// Two seconds as they are, then two pictures a second.
const VARIABLE: &str = "-vf select='lt(n\\,50)+not(mod(n\\,13))' -fps_mode passthrough";

/// ffmpeg's encoder begins with a block of 2,048 samples of which the file says nothing, seconds.
pub const WMA: f64 = 2048.0 / 48_000.0;

fn slide(number: u32) -> bool {
    [0, 13, 238, 299].contains(&number)
}

fn variable(number: u32) -> bool {
    number < 50 || number.is_multiple_of(13)
}

/// All of them.
pub fn forms() -> Vec<Form> {
    let mut all = Vec::new();
    all.extend(films());
    all.extend(times());
    all.extend(rates());
    all.extend(bare_pictures());
    all.extend(sounds());
    all.extend(super::rarer::rarer());
    all
}

pub fn form(name: &'static str, args: &str, truth: Truth) -> Form {
    Form { name, args: args.to_owned(), truth, often: false }
}

pub fn often(name: &'static str, args: &str, truth: Truth) -> Form {
    Form { often: true, ..form(name, args, truth) }
}

/// The whole clock, by container and codec.
fn films() -> Vec<Form> {
    let both = |codecs: &str| format!("PICTURES SOUND {codecs}");
    let plain = |name, codecs: &str| form(name, &both(codecs), Truth::plain());
    let pal = "-vf scale=720:576:flags=neighbor,setsar=1 -ac 2";
    vec![
        often("h264.mp4", &both(&format!("{X264_B} -c:a aac")), Truth::plain()),
        plain("h264-faststart.mp4", &format!("{X264} -c:a aac -movflags +faststart")),
        plain("hevc.mp4", &format!("{X265} -tag:v hvc1 -c:a aac")),
        plain("mpeg4.mp4", "-c:v mpeg4 -bf 2 -q:v 3 -c:a aac"),
        plain("av1.mp4", &format!("{AV1} -c:a libopus")),
        plain("vp9.mp4", &format!("{VP9} -c:a libopus")),
        plain("mjpeg.mp4", "-c:v mjpeg -pix_fmt yuvj420p -c:a libmp3lame"),
        plain("mp2v.mp4", "-c:v mpeg2video -bf 2 -q:v 3 -c:a mp2"),
        plain("h264.m4v", &format!("{X264} -c:a ac3")),
        plain("h264.f4v", &format!("{X264} -c:a aac")),
        plain("h264.3gp", &format!("{X264} -c:a aac")),
        form(
            "h263.3gp",
            "PICTURES SOUND -vf scale=176:144:flags=neighbor -c:v h263 -q:v 3 -c:a aac",
            Truth::plain(),
        ),
        plain("h264.mov", &format!("{X264_B} -c:a pcm_s16le")),
        plain("prores.mov", "-c:v prores_ks -profile:v 0 -c:a pcm_s24le"),
        plain("qtrle.mov", "-c:v qtrle -c:a alac"),
        plain(
            "dnxhr.mov",
            "-vf scale=320:240:flags=neighbor -c:v dnxhd -profile:v dnxhr_lb -pix_fmt yuv422p -c:a pcm_s16be",
        ),
        plain("cineform.mov", "-c:v cfhd -pix_fmt yuv422p10le -c:a pcm_s16le"),
        plain("png.mov", "-c:v png -c:a pcm_s16le"),
        plain("raw.mov", "-c:v rawvideo -pix_fmt yuyv422 -c:a pcm_f32le"),
        often("h264.mkv", &both(&format!("{X264_B} -c:a flac")), Truth::plain()),
        plain("hevc.mkv", &format!("{X265} -c:a ac3")),
        plain("vp8.mkv", &format!("{VP8} -c:a libvorbis")),
        plain("av1.mkv", &format!("{AV1} -c:a libopus")),
        plain("ffv1.mkv", "-c:v ffv1 -c:a pcm_s16le"),
        plain("mpeg2.mkv", "-c:v mpeg2video -bf 2 -q:v 3 -c:a mp2"),
        plain("mpeg4.mkv", "-c:v mpeg4 -bf 2 -q:v 3 -c:a libmp3lame"),
        plain("theora.mkv", "-c:v libtheora -q:v 8 -c:a libvorbis"),
        plain("mjpeg.mkv", "-c:v mjpeg -pix_fmt yuvj420p -c:a eac3"),
        plain("huffyuv.mkv", "-c:v ffvhuff -c:a wavpack"),
        plain("utvideo.mkv", "-c:v utvideo -c:a tta"),
        plain("wmv2.mkv", "-c:v wmv2 -q:v 3 -c:a wmav2"),
        often("vp8.webm", &both(&format!("{VP8} -c:a libvorbis")), Truth::plain()),
        plain("vp9.webm", &format!("{VP9} -c:a libopus")),
        plain("av1.webm", &format!("{AV1} -c:a libopus")),
        often("mpeg4.avi", &both("-c:v mpeg4 -bf 2 -q:v 3 -c:a libmp3lame"), Truth::plain()),
        plain("mjpeg.avi", "-c:v mjpeg -pix_fmt yuvj420p -c:a pcm_s16le"),
        plain("h264.avi", &format!("{X264} -c:a ac3")),
        plain("msmpeg4.avi", "-c:v msmpeg4 -q:v 3 -c:a libmp3lame"),
        plain("huffyuv.avi", "-c:v huffyuv -pix_fmt yuv422p -c:a pcm_s16le"),
        plain("raw.avi", "-c:v rawvideo -pix_fmt yuv420p -c:a pcm_s16le"),
        plain("zmbv.avi", "-c:v zmbv -pix_fmt bgr0 -c:a adpcm_ms"),
        often("h264.ts", &both(&format!("{X264_B} -c:a aac")), Truth::plain()),
        plain("hevc.ts", &format!("{X265} -c:a ac3")),
        plain("mpeg2.ts", "-c:v mpeg2video -bf 2 -q:v 3 -c:a mp2"),
        plain("h264.m2ts", &format!("{X264} -c:a ac3")),
        often("mpeg2.mpg", &both("-c:v mpeg2video -bf 2 -q:v 3 -c:a mp2"), Truth::plain()),
        plain("mpeg1.mpg", "-c:v mpeg1video -bf 2 -q:v 3 -c:a mp2"),
        // Frames larger than a pack, as on a DVD: of those that share one, only the first has a time stamp.
        plain("mpeg2.vob", "-vf scale=720:576:flags=neighbor -c:v mpeg2video -bf 2 -q:v 3 -c:a ac3 -f vob"),
        plain("h264.flv", &format!("{X264_B} -c:a aac")),
        plain("flv1.flv", "-c:v flv -q:v 3 -c:a libmp3lame -ar 44100"),
        plain("screen.flv", "-c:v flashsv -c:a libmp3lame -ar 44100"),
        form("wmv2.wmv", &both("-c:v wmv2 -q:v 3 -c:a wmav2"), Truth::plain().sound_later(WMA)),
        form("wmv1.asf", &both("-c:v wmv1 -q:v 3 -c:a wmav1"), Truth::plain().sound_later(WMA)),
        plain("theora.ogv", "-c:v libtheora -q:v 8 -c:a libvorbis"),
        plain("theora-opus.ogv", "-c:v libtheora -q:v 8 -c:a libopus"),
        plain(
            "mpeg2.mxf",
            "-vf scale=720:576:flags=neighbor -c:v mpeg2video -q:v 5 -c:a pcm_s16le -ar 48000",
        ),
        plain("h264.mxf", &format!("{X264} -g 60 -c:a pcm_s16le")),
        // Its sound is stored in blocks of 32,768 samples.
        form(
            "mpeg2.gxf",
            &both("-vf scale=720:576:flags=neighbor -c:v mpeg2video -q:v 5 -c:a pcm_s16le"),
            Truth { sound: Some((0.0, 18.0 * 32_768.0 / 48_000.0)), ..Truth::plain() },
        ),
        plain("pal.dv", &format!("{pal} -c:v dvvideo -pix_fmt yuv420p -c:a pcm_s16le")),
        plain("rv20.rm", "-c:v rv20 -q:v 3 -c:a ac3"),
    ]
}

/// Offsets, edit lists, missing indexes, late tracks.
fn times() -> Vec<Form> {
    let cut_by_copy =
        "PICTURES SOUND -c:v libx264 -preset ultrafast -g 100 -pix_fmt yuv420p -c:a pcm_s16le TO.mkv";
    let live = format!("PICTURES SOUND {VP9} -c:a libopus -live 1");
    vec![
        often(
            "fragments.mp4",
            &format!("PICTURES SOUND {X264_B} -c:a aac -movflags frag_keyframe+delay_moov"),
            Truth::plain(),
        ),
        form(
            "cmaf.mp4",
            &format!("PICTURES SOUND {X264} -c:a aac -movflags cmaf+frag_keyframe+delay_moov"),
            Truth::plain(),
        ),
        form("ismv.ismv", &format!("PICTURES SOUND {X264} -c:a aac"), Truth::plain()),
        form(
            "timescale.mp4",
            &format!("PICTURES SOUND {X264} -video_track_timescale 1000 -c:a aac"),
            Truth::plain(),
        ),
        form("offset.mp4", &format!("PICTURES SOUND {X264_B} -c:a aac -output_ts_offset 5"), Truth::plain()),
        form("offset.mkv", &format!("PICTURES SOUND {X264_B} -c:a flac -output_ts_offset 5"), Truth::plain()),
        often(
            "offset-long-gop.ts",
            &format!(
                "PICTURES SOUND {X264_B} -g 250 -keyint_min 250 -sc_threshold 0 -c:a aac -output_ts_offset 4000"
            ),
            Truth::plain(),
        ),
        form(
            "long-gop.ts",
            "PICTURES SOUND -c:v mpeg2video -g 250 -q:v 3 -sc_threshold 1000000000 -c:a mp2",
            Truth::plain(),
        ),
        form(
            "long-gop.mpg",
            "PICTURES SOUND -c:v mpeg2video -g 250 -q:v 3 -sc_threshold 1000000000 -c:a mp2",
            Truth::plain(),
        ),
        form(
            "long-gop.mp4",
            &format!("PICTURES SOUND {X264_B} -g 999 -sc_threshold 0 -c:a aac"),
            Truth::plain(),
        ),
        form(
            "long-gop.mkv",
            &format!("PICTURES SOUND {X264_B} -g 999 -sc_threshold 0 -c:a flac"),
            Truth::plain(),
        ),
        form("long-gop.avi", "PICTURES SOUND -c:v mpeg4 -g 300 -q:v 3 -c:a libmp3lame", Truth::plain()),
        form(
            "long-gop.flv",
            &format!("PICTURES SOUND {X264} -g 999 -sc_threshold 0 -c:a aac"),
            Truth::plain(),
        ),
        // A copy that begins between two key frames: an edit list hides what comes before.
        often(
            "edit-list.mp4",
            &format!("{cut_by_copy};-ss 2.8 LAST -c copy -c:a aac"),
            Truth::plain().from(2.8),
        ),
        form("edit-list.mov", &format!("{cut_by_copy};-ss 2.8 LAST -c copy"), Truth::plain().from(2.8)),
        often("late-sound.mp4", &format!("PICTURES -itsoffset 3 SOUND {X264} -c:a aac -t 12"), late_sound()),
        form("late-sound.mkv", &format!("PICTURES -itsoffset 3 SOUND {X264} -c:a flac -t 12"), late_sound()),
        form("late-sound.ts", &format!("PICTURES -itsoffset 3 SOUND {X264} -c:a aac -t 12"), late_sound()),
        form("late-pictures.mkv", &format!("-itsoffset 2 PICTURES SOUND {X264} -c:a flac"), late_pictures()),
        form("late-pictures.mp4", &format!("-itsoffset 2 PICTURES SOUND {X264} -c:a aac"), late_pictures()),
        often("no-index.webm", &live, Truth::plain()),
        form("no-index.mkv", &format!("PICTURES SOUND {X264_B} -c:a flac -live 1"), Truth::plain()),
        form("silent.mp4", &format!("PICTURES {X264_B}"), Truth::plain().silent()),
        form("sound-goes-on.mkv", &format!("-t 3 PICTURES SOUND {X264} -c:a flac"), brief_pictures()),
        often("sound-goes-on.mp4", &format!("-t 3 PICTURES SOUND {X264_B} -c:a aac"), brief_pictures()),
        form("sound-goes-on.ts", &format!("-t 3 PICTURES SOUND {X264} -c:a mp2"), brief_pictures()),
        form("pictures-go-on.mp4", &format!("PICTURES -t 5 SOUND {X264} -c:a aac"), brief_sound()),
        // The picture changes its size in the middle.
        often(
            "changes-size.ts",
            &format!(
                "-t 6 PICTURES -t 6 SOUND {X264} -c:a mp2 TO.ts;-ss 6 PICTURES -ss 6 SOUND -vf scale=320:240:flags=neighbor {X264} \
                 -c:a mp2 -output_ts_offset 6 TO.ts;JOIN"
            ),
            Truth::plain(),
        ),
    ]
}

pub fn late_sound() -> Truth {
    let mut truth = Truth::plain().sound_later(3.0);
    truth.sound = Some((3.0, f64::from(SECS)));
    truth
}

pub fn late_pictures() -> Truth {
    Truth::plain().pictures_later(2.0)
}

pub fn brief_pictures() -> Truth {
    Truth { pictures_end: 3.0, ..Truth::plain().only(|number| number < 75) }
}

fn brief_sound() -> Truth {
    Truth { sound: Some((0.0, 5.0)), ..Truth::plain() }
}

/// Pictures at irregular times. ffmpeg's muxers decide how long the last one lasts.
fn rates() -> Vec<Form> {
    let slides = || Truth::plain().only(slide);
    let variable = || Truth::plain().only(variable);
    let ends = |truth: Truth, end| Truth { pictures_end: end, ..truth.silent() };
    vec![
        often("variable.mkv", &format!("PICTURES SOUND {VARIABLE} {X264_B} -c:a flac"), variable()),
        form("variable.mp4", &format!("PICTURES SOUND {VARIABLE} {X264_B} -c:a aac"), variable()),
        form("variable.ts", &format!("PICTURES SOUND {VARIABLE} {X264} -c:a mp2"), variable()),
        form("variable.webm", &format!("PICTURES SOUND {VARIABLE} {VP8} -c:a libopus"), variable()),
        often("slides.mp4", &format!("PICTURES SOUND {SLIDES} {X264_B} -c:a aac"), slides()),
        form("slides.webm", &format!("PICTURES SOUND {SLIDES} {VP9} -c:a libopus"), slides()),
        form("slides.mkv", &format!("PICTURES {SLIDES} -c:v mjpeg -pix_fmt yuvj420p"), ends(slides(), 11.96)),
        often("slides.gif", &format!("PICTURES {SLIDES}"), ends(slides(), 11.96)),
        form("slides.apng", &format!("PICTURES {SLIDES} -f apng"), ends(slides(), 14.4)),
        often(
            "slides.webp",
            &format!("PICTURES {SLIDES} -c:v libwebp_anim -lossless 1 -loop 0"),
            ends(slides(), 15.9),
        ),
    ]
}

/// Pictures without sound, and streams without a container.
fn bare_pictures() -> Vec<Form> {
    let silent = || Truth::plain().silent();
    vec![
        form("film.gif", "PICTURES", silent()),
        form("film.apng", "PICTURES -f apng", silent()),
        form("film.avif", &format!("PICTURES {AV1} -f avif"), silent()),
        form("film.webp", "PICTURES -c:v libwebp_anim -lossless 1 -loop 0", silent()),
        form("film.y4m", "PICTURES -pix_fmt yuv420p", silent()),
        form("vp8.ivf", &format!("PICTURES {VP8}"), silent()),
        form("av1.ivf", &format!("PICTURES {AV1}"), silent()),
        form("av1.obu", &format!("PICTURES {AV1}"), silent()),
        often("bare.h264", &format!("PICTURES {X264} -g 50"), silent()),
        form("bare-b.h264", &format!("PICTURES {X264_B}"), silent()),
        form("bare.hevc", &format!("PICTURES {X265}"), silent()),
        form("bare.m4v", "PICTURES -c:v mpeg4 -q:v 3 -f m4v", silent()),
        form("bare.m2v", "PICTURES -c:v mpeg2video -q:v 3", silent()),
    ]
}

/// Sound alone.
fn sounds() -> Vec<Form> {
    let sound = |name, codec: &str| form(name, &format!("SOUND {codec}"), Truth::plain().unseen());
    vec![
        sound("sound.wav", ""),
        sound("sound.flac", ""),
        sound("sound.mp3", "-c:a libmp3lame"),
        sound("sound.ogg", "-c:a libvorbis"),
        sound("sound.opus", "-c:a libopus"),
        sound("sound.m4a", "-c:a aac"),
        sound("alac.m4a", "-c:a alac"),
        sound("sound.aac", "-c:a aac"),
        sound("sound.ac3", "-c:a ac3"),
        sound("sound.eac3", "-c:a eac3"),
        sound("sound.mka", "-c:a libopus"),
        sound("sound.aiff", ""),
        sound("sound.caf", "-c:a pcm_s16le"),
        sound("sound.au", ""),
        sound("sound.w64", ""),
        sound("sound.wv", ""),
        sound("sound.tta", ""),
        form("sound.wma", "SOUND -c:a wmav2", Truth::plain().unseen().sound_later(WMA)),
        sound("sound.mp2", "-c:a mp2"),
        sound("sound.voc", "-c:a pcm_s16le"),
        sound("sound.dts", "-c:a dca -strict -2 -ac 2"),
        form("offset-sound.ts", "SOUND -c:a mp2 -output_ts_offset 700", Truth::plain().unseen()),
    ]
}
