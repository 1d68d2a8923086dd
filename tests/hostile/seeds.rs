//! Sound files to begin with: every container and codec the pinned ffmpeg writes and the server reads.

use std::path::Path;

use crate::common;

/// Modality of a seed as a query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Video,
    Audio,
    Image,
}

impl Kind {
    pub fn modality(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Image => "image",
        }
    }
}

/// A file to be mutated.
pub struct Seed {
    pub name: String,
    pub kind: Kind,
    pub bytes: Vec<u8>,
}

/// Of larger files only the beginning is taken.
const MAX_BYTES: usize = 100_000;

const PICTURE: &str = "testsrc2=size=96x72:rate=10:duration=2";
const SOUND: &str = "aevalsrc=0.4*sin(2*PI*440*t)|0.3*sin(2*PI*660*t):s=44100:d=2";

/// File name, options of its picture encoder, options of its sound encoder.
const VIDEOS: &[(&str, &str, &str)] = &[
    ("h264.mp4", "-c:v libx264 -preset ultrafast -pix_fmt yuv420p", "-c:a aac"),
    ("fragmented.mp4", "-c:v libx264 -preset ultrafast -movflags frag_keyframe+empty_moov", "-c:a aac"),
    ("h265.mp4", "-c:v libx265 -preset ultrafast -x265-params log-level=none", "-c:a libmp3lame"),
    ("mjpeg.mov", "-c:v mjpeg", "-c:a pcm_s16le"),
    ("prores.mov", "-c:v prores -s 64x48", "-c:a alac"),
    ("png.mov", "-c:v png", "-c:a pcm_f32le"),
    ("h263.3gp", "-c:v h263 -s 176x144", "-c:a libopencore_amrnb -ar 8000 -ac 1"),
    ("mpeg4.mkv", "-c:v mpeg4", "-c:a flac"),
    ("ffv1.mkv", "-c:v ffv1", "-c:a pcm_f64le"),
    ("vp8.webm", "-c:v libvpx -deadline realtime", "-c:a libvorbis"),
    ("vp9.webm", "-c:v libvpx-vp9 -deadline realtime", "-c:a libopus"),
    ("av1.webm", "-c:v libsvtav1 -preset 12 -s 128x96", "-c:a libopus"),
    ("mpeg4.avi", "-c:v mpeg4", "-c:a libmp3lame"),
    ("huffyuv.avi", "-c:v huffyuv -s 48x36", "-c:a adpcm_ima_wav"),
    ("cinepak.avi", "-c:v cinepak -s 48x36", "-c:a pcm_u8"),
    ("zmbv.avi", "-c:v zmbv", "-c:a adpcm_ms"),
    ("flv1.flv", "-c:v flv", "-c:a adpcm_swf -ar 44100"),
    ("wmv2.wmv", "-c:v wmv2", "-c:a wmav2"),
    ("msmpeg4.asf", "-c:v msmpeg4", "-c:a wmav1"),
    ("mpeg2.ts", "-c:v mpeg2video -r 25", "-c:a mp2"),
    ("h264.ts", "-c:v libx264 -preset ultrafast", "-c:a ac3"),
    ("mpeg1.mpg", "-c:v mpeg1video -r 25", "-c:a mp2"),
    ("theora.ogv", "-c:v libtheora", "-c:a libvorbis"),
    ("mpeg2.mxf", "-c:v mpeg2video -r 25 -s 96x64", "-c:a pcm_s16le -ar 48000"),
    ("mpeg2.gxf", "-c:v mpeg2video -r 25 -s 720x576 -t 0.2", "-c:a pcm_s16le -ar 48000 -ac 1"),
    ("rv20.rm", "-c:v rv20 -s 128x96", "-c:a ac3"),
    ("still.ivf", "-c:v libvpx", "-an"),
    ("raw.y4m", "-s 32x24 -t 1", "-an"),
    ("still.gif", "", "-an"),
    ("still.apng", "-t 1", "-an"),
    ("still.webp", "-c:v libwebp_anim -t 1", "-an"),
    ("raw.h264", "-c:v libx264 -preset ultrafast", "-an"),
    ("raw.m4v", "-c:v mpeg4", "-an"),
    ("raw.mjpeg", "-c:v mjpeg", "-an"),
];

/// File name and encoder options.
const SOUNDS: &[(&str, &str)] = &[
    ("s16.wav", "-c:a pcm_s16le"),
    ("s24.wav", "-c:a pcm_s24le -ac 1"),
    ("u8.wav", "-c:a pcm_u8 -ar 8000"),
    ("f32.wav", "-c:a pcm_f32le -ar 16000"),
    ("f64.wav", "-c:a pcm_f64le -ar 16000 -ac 1"),
    ("alaw.wav", "-c:a pcm_alaw -ar 8000"),
    ("ima.wav", "-c:a adpcm_ima_wav -ar 22050"),
    ("ms.wav", "-c:a adpcm_ms -ar 22050"),
    ("six.wav", "-c:a pcm_s16le -ac 6 -ar 8000"),
    ("s16.rf64.wav", "-c:a pcm_s16le -ar 8000 -rf64 always"),
    ("s16.aiff", "-c:a pcm_s16be -ar 22050"),
    ("f32.aiff", "-c:a pcm_f32be -ar 16000"),
    ("f32.caf", "-c:a pcm_f32le -ar 16000"),
    ("alac.caf", "-c:a alac"),
    ("f32.w64", "-c:a pcm_f32le -ar 16000"),
    ("s16.flac", "-c:a flac -sample_fmt s16"),
    ("s24.flac", "-c:a flac -sample_fmt s32"),
    ("cbr.mp3", "-c:a libmp3lame -b:a 64k"),
    ("vbr.mp3", "-c:a libmp3lame -q:a 5"),
    ("layer2.mp2", "-c:a mp2"),
    ("vorbis.ogg", "-c:a libvorbis"),
    ("opus.ogg", "-c:a libopus"),
    ("flac.ogg", "-c:a flac"),
    ("aac.m4a", "-c:a aac"),
    ("alac.m4a", "-c:a alac"),
    ("adts.aac", "-c:a aac -f adts"),
    ("ac3.ac3", "-c:a ac3"),
    ("eac3.eac3", "-c:a eac3"),
    ("dts.dts", "-c:a dca -strict -2 -ac 2 -ar 48000"),
    ("wavpack.wv", "-c:a wavpack"),
    ("tta.tta", "-c:a tta"),
    ("mulaw.au", "-c:a pcm_mulaw -ar 8000"),
    ("u8.voc", "-c:a pcm_u8 -ar 8000"),
    ("amr.amr", "-c:a libopencore_amrnb -ar 8000 -ac 1"),
    ("wma.wma", "-c:a wmav2"),
    ("opus.webm", "-c:a libopus"),
    ("mp3.mka", "-c:a libmp3lame"),
];

/// File name, size and encoder options.
const PICTURES: &[(&str, &str, &str)] = &[
    ("rgb.jpg", "96x72", ""),
    ("gray.jpg", "96x72", "-pix_fmt gray"),
    ("444.jpg", "33x17", "-pix_fmt yuvj444p"),
    ("rgb.png", "96x72", "-pix_fmt rgb24"),
    ("deep.png", "40x30", "-pix_fmt rgba64be"),
    ("palette.png", "40x30", "-pix_fmt pal8"),
    ("bits.png", "40x30", "-pix_fmt monob"),
    ("one.png", "1x1", "-pix_fmt rgb24"),
    ("tall.png", "1x900", "-pix_fmt rgb24"),
    ("wide.png", "900x1", "-pix_fmt gray"),
    ("lossy.webp", "96x72", "-c:v libwebp"),
    ("lossless.webp", "96x72", "-c:v libwebp -lossless 1"),
    ("one.gif", "96x72", ""),
    ("rgb.bmp", "40x30", "-pix_fmt bgr24"),
    ("bits.bmp", "40x30", "-pix_fmt monob"),
    ("av1.avif", "96x72", "-c:v libaom-av1 -cpu-used 8 -still-picture 1"),
];

/// The seeds whose number is wanted. What this build of ffmpeg cannot write is named and left out.
pub fn all_but(wanted: impl Fn(usize) -> bool) -> Vec<Seed> {
    let video = |(name, picture, sound): &(&'static str, &str, &str)| {
        let inputs = format!("-f lavfi -i {PICTURE} -f lavfi -i {SOUND} -shortest {picture} {sound}");
        (*name, Kind::Video, inputs)
    };
    let sound = |(name, encoder): &(&'static str, &str)| {
        (*name, Kind::Audio, format!("-f lavfi -i {SOUND} {encoder}"))
    };
    let picture = |(name, size, encoder): &(&'static str, &str, &str)| {
        let (width, height) = size.split_once('x').unwrap();
        let input =
            format!("-f lavfi -i testsrc2=size=96x72,scale={width}:{height} -frames:v 1 -update 1 {encoder}");
        (*name, Kind::Image, input)
    };
    let recipes =
        VIDEOS.iter().map(video).chain(SOUNDS.iter().map(sound)).chain(PICTURES.iter().map(picture));
    let mut seeds = Vec::new();
    for (_, (name, kind, recipe)) in recipes.enumerate().filter(|(number, _)| wanted(*number)) {
        add(&mut seeds, name, kind, &recipe);
    }
    let samples = common::manifest_dir().join("models/small-world/samples/clips");
    add_folder(&mut seeds, &samples);
    let shared = common::manifest_dir().join("../shared/media");
    if shared.is_dir() {
        add_folder(&mut seeds, &shared);
    } else {
        eprintln!("SKIPPED: no real files in {}", shared.display());
    }
    seeds
}

fn add(seeds: &mut Vec<Seed>, name: &str, kind: Kind, recipe: &str) {
    let args: Vec<&str> = recipe.split_whitespace().collect();
    match std::panic::catch_unwind(|| common::media(name, &args)) {
        Ok(path) => push(seeds, name, kind, std::fs::read(path).unwrap()),
        Err(_) => eprintln!("SKIPPED: this ffmpeg does not write {name}"),
    }
}

fn add_folder(seeds: &mut Vec<Seed>, folder: &Path) {
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.is_file()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let kind = match path.extension().and_then(|extension| extension.to_str()) {
            Some("wav" | "mp3") => Kind::Audio,
            Some("jpg" | "png") => Kind::Image,
            Some("mp4" | "webm" | "mkv" | "mov") => Kind::Video,
            _ => continue,
        };
        push(seeds, &name, kind, std::fs::read(path).unwrap());
    }
}

fn push(seeds: &mut Vec<Seed>, name: &str, kind: Kind, mut bytes: Vec<u8>) {
    bytes.truncate(MAX_BYTES);
    seeds.push(Seed { name: name.to_owned(), kind, bytes });
}
