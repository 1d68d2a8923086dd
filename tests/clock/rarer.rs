//! Containers and codecs that are met less often, and the same ones written in other ways.

use super::film::Truth;
use super::forms::{Form, WMA, X264, X264_B, X265, brief_pictures, form, late_pictures, late_sound, often};

/// All of them.
pub fn rarer() -> Vec<Form> {
    let mut all = Vec::new();
    all.extend(fragments());
    all.extend(films());
    all.extend(codecs());
    all.extend(late());
    all.extend(talks());
    all.extend(sounds());
    all
}

fn plain(name: &'static str, codecs: &str) -> Form {
    form(name, &format!("PICTURES SOUND {codecs}"), Truth::plain())
}

/// Without an edit list the time that pictures stored in another order wait for each other is a part of the film.
fn reordered() -> Truth {
    Truth::plain().pictures_later(0.08).sound_later(0.08)
}

/// MP4 written piece by piece: without edit lists a fragment says its delays by its time stamps alone.
fn fragments() -> Vec<Form> {
    let aac = |codec: &str, flags: &str| format!("{codec} -c:a aac -movflags {flags}");
    vec![
        often(
            "empty-moov.mp4",
            &format!("PICTURES SOUND {}", aac(X264_B, "frag_keyframe+empty_moov+default_base_moof")),
            reordered(),
        ),
        plain("empty-moov-plain.mp4", &aac(X264, "frag_keyframe+empty_moov")),
        form("hybrid.mp4", &format!("PICTURES SOUND {}", aac(X264_B, "hybrid_fragmented")), reordered()),
        form("dash.mp4", &format!("PICTURES SOUND {}", aac(X264_B, "dash+global_sidx")), reordered()),
        form("no-edit-list.mp4", &format!("PICTURES SOUND {X264_B} -c:a aac -use_editlist 0"), reordered()),
        plain("negative-offsets.mp4", &aac(X264_B, "negative_cts_offsets")),
    ]
}

fn films() -> Vec<Form> {
    let pal = "-vf scale=720:576:flags=neighbor,setsar=1";
    let small = "-vf scale=176:144:flags=neighbor";
    vec![
        plain(
            "h263-amr.3gp",
            &format!(
                "{small} -c:v h263 -q:v 3 -af volume=3 -c:a libopencore_amrnb -b:a 12.2k -ar 8000 -ac 1"
            ),
        ),
        plain(
            "h264-amr.3g2",
            &format!("{X264} -af volume=3 -c:a libopencore_amrnb -b:a 12.2k -ar 8000 -ac 1"),
        ),
        // Without B-frames: of small ones, many share a pack and only the first of them has a time stamp.
        plain("small.vob", "-c:v mpeg2video -q:v 3 -c:a ac3 -f vob"),
        plain("dvd.vob", &format!("{pal} -c:v mpeg2video -bf 2 -q:v 3 -c:a pcm_dvd -f dvd")),
        plain("svcd.mpg", &format!("{pal} -c:v mpeg2video -bf 2 -q:v 3 -c:a mp2 -f svcd")),
        plain(
            "vcd.mpg",
            "-vf scale=352:288:flags=neighbor -c:v mpeg1video -b:v 1150k -maxrate 1150k \
              -bufsize 327680 -c:a mp2 -b:a 224k -ar 44100 -ac 2 -f vcd",
        ),
        form("film.mjpeg", "PICTURES -c:v mjpeg -pix_fmt yuvj420p -f mjpeg", Truth::plain().silent()),
        plain(
            "imx.mxf",
            "-vf scale=720:576:flags=neighbor -c:v mpeg2video -pix_fmt yuv422p -g 1 -b:v 30M \
              -minrate 30M -maxrate 30M -bufsize 1200k -rc_init_occupancy 1200k -qmin 1 -qmax 12 \
              -c:a pcm_s16le -ar 48000 -ac 2 -f mxf_d10",
        ),
        form(
            "atom.mxf",
            "PICTURES -vf scale=320:240:flags=neighbor -c:v dnxhd -profile:v dnxhr_lb \
              -pix_fmt yuv422p -f mxf_opatom",
            Truth::plain().silent(),
        ),
        form("atom-sound.mxf", "SOUND -c:a pcm_s16le -f mxf_opatom", Truth::plain().unseen()),
        plain("jpeg2000.mxf", "-c:v jpeg2000 -pix_fmt yuv422p -c:a pcm_s24le"),
        plain("prores.mxf", "-c:v prores_ks -profile:v 0 -c:a pcm_s24le"),
        plain("hevc.flv", &format!("{X265} -c:a aac")),
        plain("flac.mp4", &format!("{X264_B} -c:a flac -strict -2")),
        plain("alac.mp4", &format!("{X264_B} -c:a alac")),
        plain("mp3.mp4", &format!("{X264_B} -c:a libmp3lame")),
        plain("eac3.mp4", &format!("{X264_B} -c:a eac3")),
        plain("dts.mp4", &format!("{X264_B} -c:a dca -strict -2 -ac 2")),
        plain("pcm.mp4", &format!("{X264_B} -c:a pcm_s16le")),
        plain("opus.mp4", &format!("{X264_B} -c:a libopus")),
        plain("mp3.mov", &format!("{X264_B} -c:a libmp3lame")),
        plain("adpcm.mov", &format!("{X264_B} -c:a adpcm_ima_qt")),
        plain("mulaw.mov", &format!("{X264} -c:a pcm_mulaw -ar 8000")),
        plain("u8.avi", "-c:v mpeg4 -q:v 3 -c:a pcm_u8"),
        plain("s24.avi", "-c:v mpeg4 -q:v 3 -c:a pcm_s24le"),
        plain("alaw.avi", "-c:v mpeg4 -q:v 3 -c:a pcm_alaw -ar 8000"),
        plain("mulaw.avi", "-c:v mpeg4 -q:v 3 -c:a pcm_mulaw"),
        plain("ima.avi", "-c:v mpeg4 -q:v 3 -c:a adpcm_ima_wav"),
        plain("aac.avi", "-c:v mpeg4 -q:v 3 -c:a aac"),
        plain("mp2.avi", "-c:v mpeg4 -q:v 3 -c:a mp2"),
        // The writer puts two empty frames behind the first.
        form(
            "wma.avi",
            "PICTURES SOUND -c:v mpeg4 -q:v 3 -c:a wmav2",
            Truth::plain().pictures_later(0.08).sound_later(WMA),
        ),
        plain("adpcm.flv", "-c:v flv -q:v 3 -c:a adpcm_swf -ar 44100"),
        plain("pcm.flv", "-c:v flv -q:v 3 -c:a pcm_s16le -ar 44100"),
        plain("nelly.flv", "-c:v flv -q:v 3 -c:a nellymoser -ar 44100"),
        plain("flac.ogv", "-c:v libtheora -q:v 8 -c:a flac"),
        plain("mp3.mkv", &format!("{X264_B} -c:a libmp3lame")),
        plain("aac.mkv", &format!("{X264_B} -c:a aac")),
        plain("alac.mkv", &format!("{X264_B} -c:a alac")),
        plain("dts.mkv", &format!("{X264_B} -c:a dca -strict -2 -ac 2")),
        plain("truehd.mkv", &format!("{X264_B} -c:a truehd -strict -2 -ac 2")),
        plain("pcm-f32.mkv", &format!("{X264_B} -c:a pcm_f32le")),
        plain("opus.ts", &format!("{X264_B} -c:a libopus")),
        plain("latm.ts", &format!("{X264_B} -c:a aac -mpegts_flags latm")),
        plain("eac3.ts", &format!("{X264_B} -c:a eac3")),
        // ffmpeg holds most of its memory already when it has described these.
        Form {
            often: true,
            ..plain(
                "s302m.ts",
                "-c:v mpeg2video -q:v 3 -af asetnsamples=1024:p=0 -ar 48000 -ac 8 -c:a s302m -strict -2",
            )
        },
        plain(
            "s302m-24.ts",
            &format!(
                "{X264_B} -af asetnsamples=1024:p=0 -ar 48000 -ac 6 -sample_fmt:a s32 -c:a s302m -strict -2"
            ),
        ),
        plain("bluray.m2ts", &format!("{X264_B} -c:a pcm_bluray -ac 2")),
    ]
}

/// Pictures by codecs of many ages.
fn codecs() -> Vec<Form> {
    vec![
        plain("v210.mov", "-c:v v210 -c:a pcm_s16le"),
        plain("r210.mov", "-c:v r210 -c:a pcm_s16le"),
        plain("hap.mov", "-c:v hap -c:a pcm_s16le"),
        plain("svq1.mov", "-c:v svq1 -q:v 3 -c:a pcm_s16le"),
        plain("jpeg2000.mov", "-c:v jpeg2000 -c:a pcm_s16le"),
        plain(
            "dv.mov",
            "-vf scale=720:576:flags=neighbor,setsar=1 -c:v dvvideo -pix_fmt yuv420p -c:a pcm_s16le",
        ),
        plain("cinepak.avi", "-c:v cinepak -c:a pcm_s16le"),
        plain("msvideo1.avi", "-c:v msvideo1 -c:a pcm_s16le"),
        plain("msrle.avi", "-pix_fmt pal8 -c:v msrle -c:a pcm_s16le"),
        plain("magicyuv.avi", "-c:v magicyuv -pix_fmt yuv420p -c:a pcm_s16le"),
        plain("h263p.avi", "-c:v h263p -q:v 3 -c:a libmp3lame"),
        plain("flv1.avi", "-c:v flv -q:v 3 -c:a libmp3lame"),
        plain(
            "dv.avi",
            "-vf scale=720:576:flags=neighbor,setsar=1 -c:v dvvideo -pix_fmt yuv420p -c:a pcm_s16le",
        ),
        plain("vc2.mkv", "-c:v vc2 -pix_fmt yuv422p -c:a flac"),
        plain("snow.mkv", "-c:v snow -q:v 3 -strict -2 -c:a flac"),
        plain("prores.mkv", "-c:v prores_ks -profile:v 0 -c:a pcm_s24le"),
        plain("openh264.mp4", "-c:v libopenh264 -c:a aac"),
        plain("rv10.rm", "-vf scale=176:144:flags=neighbor -c:v rv10 -q:v 3 -c:a ac3"),
        plain("msmpeg4v2.asf", "-c:v msmpeg4v2 -q:v 3 -c:a libmp3lame"),
        plain("h264.asf", &format!("{X264_B} -c:a aac")),
        plain("screen2.flv", "-c:v flashsv2 -c:a libmp3lame -ar 44100"),
        form("rate-60.mp4", &format!("PICTURES SOUND -vf fps=60 {X264_B} -c:a aac"), Truth::plain()),
        form(
            "rate-1001.mkv",
            &format!("PICTURES SOUND -vf fps=60000/1001 {X264_B} -c:a aac"),
            Truth::plain(),
        ),
    ]
}

/// Tracks that begin at different times.
fn late() -> Vec<Form> {
    let late_sound_in =
        |name, codecs: &str| form(name, &format!("PICTURES -itsoffset 3 SOUND {codecs} -t 12"), late_sound());
    let late_pictures_in =
        |name, codecs: &str| form(name, &format!("-itsoffset 2 PICTURES SOUND {codecs}"), late_pictures());
    vec![
        late_sound_in("late-sound.mov", &format!("{X264_B} -c:a pcm_s16le")),
        late_sound_in("late-sound.flv", &format!("{X264} -c:a aac")),
        late_sound_in("late-sound.webm", "-c:v libvpx -deadline realtime -cpu-used 8 -b:v 1M -c:a libopus"),
        late_sound_in("late-sound.mpg", "-c:v mpeg2video -q:v 3 -c:a mp2"),
        late_sound_in("late-sound.ogv", "-c:v libtheora -q:v 8 -c:a libvorbis"),
        late_sound_in(
            "late-sound-fragments.mp4",
            &format!("{X264} -c:a aac -movflags frag_keyframe+empty_moov"),
        ),
        late_pictures_in("late-pictures.mov", &format!("{X264_B} -c:a pcm_s16le")),
        late_pictures_in("late-pictures.ts", &format!("{X264_B} -c:a aac")),
        late_pictures_in("late-pictures.flv", &format!("{X264} -c:a aac")),
        late_pictures_in("late-pictures.mpg", "-c:v mpeg2video -q:v 3 -c:a mp2"),
        late_pictures_in(
            "late-pictures.webm",
            "-c:v libvpx -deadline realtime -cpu-used 8 -b:v 1M -c:a libopus",
        ),
        form("sound-goes-on.mov", &format!("-t 3 PICTURES SOUND {X264} -c:a pcm_s16le"), brief_pictures()),
        form("sound-goes-on.avi", "-t 3 PICTURES SOUND -c:v mpeg4 -q:v 3 -c:a libmp3lame", brief_pictures()),
        form("sound-goes-on.flv", &format!("-t 3 PICTURES SOUND {X264} -c:a aac"), brief_pictures()),
        form("sound-goes-on.mpg", "-t 3 PICTURES SOUND -c:v mpeg2video -q:v 3 -c:a mp2", brief_pictures()),
        // Pictures are missing in the middle.
        form(
            "gap.mp4",
            &format!(
                "PICTURES SOUND -vf select='not(between(n\\,75\\,149))' -fps_mode passthrough {X264_B} -c:a aac"
            ),
            Truth::plain().only(|number| !(75..150).contains(&number)),
        ),
        form(
            "gap.ts",
            &format!(
                "PICTURES SOUND -vf select='not(between(n\\,75\\,149))' -fps_mode passthrough {X264_B} -c:a aac"
            ),
            Truth::plain().only(|number| !(75..150).contains(&number)),
        ),
        form(
            "gap.avi",
            "PICTURES SOUND -vf select='not(between(n\\,75\\,149))' -fps_mode passthrough -c:v mpeg4 -q:v 3 -c:a libmp3lame",
            Truth::plain().only(|number| !(75..150).contains(&number)),
        ),
    ]
}

/// A picture, or two seconds of film, and a minute of talk; tracks of sound in which there is none.
fn talks() -> Vec<Form> {
    let still = || Truth { pictures_end: 0.04, ..Truth::plain().only(|number| number == 0) }.talk(60.0);
    let brief = || Truth { pictures_end: 2.0, ..Truth::plain().only(|number| number < 50) }.talk(60.0);
    let a_still =
        |name, codecs: &str| form(name, &format!("-t 0.04 PICTURES -stream_loop 4 SOUND {codecs}"), still());
    let a_film =
        |name, codecs: &str| form(name, &format!("-t 2 PICTURES -stream_loop 4 SOUND {codecs}"), brief());
    let none = |name, codecs: &str| {
        form(name, &format!("PICTURES SOUND -af aselect=0 {codecs}"), Truth::plain().silent())
    };
    vec![
        Form { often: true, ..a_still("still-and-talk.mp4", &format!("{X264} -c:a aac")) },
        a_still("still-and-talk.mkv", &format!("{X264} -c:a flac")),
        a_still("still-and-talk.mov", "-c:v mjpeg -pix_fmt yuvj420p -c:a pcm_s16le"),
        a_still("still-and-talk.ts", &format!("{X264} -c:a mp2")),
        a_still("still-and-talk.webm", "-c:v libvpx -c:a libopus"),
        a_still("still-and-talk.avi", "-c:v mpeg4 -q:v 3 -c:a libmp3lame"),
        a_film("film-and-talk.mp4", &format!("{X264_B} -c:a aac")),
        Form { often: true, ..a_film("film-and-talk.mkv", &format!("{X264_B} -c:a flac")) },
        a_film("film-and-talk.mov", &format!("{X264_B} -c:a pcm_s16le")),
        a_film("film-and-talk.ts", &format!("{X264_B} -c:a aac")),
        a_film("film-and-talk.webm", "-c:v libvpx -c:a libvorbis"),
        a_film("film-and-talk.avi", "-c:v mpeg4 -q:v 3 -c:a pcm_s16le"),
        a_film("film-and-talk.flv", &format!("{X264} -c:a aac")),
        a_film("film-and-talk.mpg", "-c:v mpeg2video -q:v 3 -c:a mp2"),
        Form { often: true, ..none("no-sound-after-all.mp4", &format!("{X264} -c:a aac")) },
        none("no-sound-after-all.mov", &format!("{X264} -c:a pcm_s16le")),
        none("no-sound-after-all.mkv", &format!("{X264} -c:a flac")),
        none("no-sound-after-all.webm", "-c:v libvpx -c:a libopus"),
        none("no-sound-after-all.avi", "-c:v mpeg4 -q:v 3 -c:a pcm_s16le"),
        none("no-sound-after-all.ts", &format!("{X264} -c:a mp2")),
        none("no-sound-after-all.flv", &format!("{X264} -c:a aac")),
    ]
}

/// Sound alone.
fn sounds() -> Vec<Form> {
    let sound = |name, codec: &str| form(name, &format!("SOUND {codec}"), Truth::plain().unseen());
    vec![
        sound("sound.amr", "-af volume=3 -c:a libopencore_amrnb -b:a 12.2k -ar 8000 -ac 1"),
        sound("u8.wav", "-c:a pcm_u8"),
        sound("s24.wav", "-c:a pcm_s24le"),
        sound("s32.wav", "-c:a pcm_s32le"),
        sound("f64.wav", "-c:a pcm_f64le"),
        sound("alaw.wav", "-c:a pcm_alaw -ar 8000"),
        sound("mulaw.wav", "-c:a pcm_mulaw -ar 8000"),
        sound("ms.wav", "-c:a adpcm_ms"),
        sound("ima.wav", "-c:a adpcm_ima_wav"),
        sound("mp3.wav", "-c:a libmp3lame"),
        sound("ac3.wav", "-c:a ac3"),
        sound("g726.wav", "-c:a g726 -ar 8000 -b:a 32k"),
        sound("rf64.wav", "-rf64 always"),
        sound("low.wav", "-ar 8000"),
        sound("high.wav", "-ar 192000"),
        sound("alac.caf", "-c:a alac"),
        sound("ima.caf", "-c:a adpcm_ima_qt"),
        sound("mp3.caf", "-c:a libmp3lame"),
        sound("f32.caf", "-c:a pcm_f32be"),
        sound("flac.oga", "-c:a flac"),
        sound("vorbis.oga", "-c:a libvorbis"),
        sound("vorbis.mka", "-c:a libvorbis"),
        sound("flac.mka", "-c:a flac"),
        sound("pcm.mka", "-c:a pcm_s16le"),
        sound("aac.mka", "-c:a aac"),
        sound("opus.webm", "-c:a libopus"),
        sound("vbr.mp3", "-c:a libmp3lame -q:a 5"),
        sound("no-index.mp3", "-c:a libmp3lame -write_xing 0"),
        sound("low.mp3", "-c:a libmp3lame -ar 16000"),
        // ADTS says nothing of the block of 1,024 samples with which an encoder begins.
        form("low.aac", "SOUND -c:a aac -ar 22050", Truth::plain().unseen().sound_later(1024.0 / 22_050.0)),
        sound("opus.m4a", "-c:a libopus -f mp4"),
        sound("flac.m4a", "-c:a flac -strict -2 -f mp4"),
        sound("ac3.m4a", "-c:a ac3 -f mp4"),
        sound("fragments.m4a", "-c:a aac -movflags frag_keyframe+empty_moov -f mp4"),
        sound("sound.aifc", "-c:a pcm_f32be -f aiff"),
        sound("mulaw.au", "-c:a pcm_mulaw -ar 8000"),
        sound("f32.w64", "-c:a pcm_f32le"),
        sound("u8.voc", "-c:a pcm_u8 -ar 8000"),
        sound("mp3.flv", "-c:a libmp3lame -ar 44100"),
        sound("sound.avi", "-c:a pcm_s16le"),
        form("wmav1.wma", "SOUND -c:a wmav1", Truth::plain().unseen().sound_later(WMA)),
        sound("sound.ts", "-c:a ac3"),
        sound("aac.ts", "-c:a aac"),
        sound("s302m-sound.ts", "-af asetnsamples=1024:p=0 -ar 48000 -ac 2 -c:a s302m -strict -2"),
        sound("sound.mpg", "-c:a mp2 -f mpeg"),
        sound("sound.rm", "-c:a ac3 -f rm"),
        form("offset.mka", "SOUND -c:a flac -output_ts_offset 5", Truth::plain().unseen()),
        form("offset.m4a", "SOUND -c:a aac -output_ts_offset 5", Truth::plain().unseen()),
        form("brief.wav", "-t 0.5 SOUND", Truth { sound: Some((0.0, 0.5)), ..Truth::plain().unseen() }),
    ]
}
