//! Detects the format of a file by its first bytes. File names are never trusted.

/// Which decoder reads the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniffed {
    /// A still picture for the `image` crate.
    Picture(image::ImageFormat),
    /// Sound without pictures, read by ffmpeg with these demuxers.
    Sound(&'static str),
    /// Any file for ffmpeg, which may only use these demuxers.
    Ffmpeg(&'static str),
    /// A picture inside a video container, read by ffmpeg.
    FfmpegPicture(&'static str),
    /// A known format that is not accepted, with the reason.
    Refused(&'static str),
}

/// Number of first bytes that [`sniff`] needs.
pub const SNIFF_BYTES: usize = 4096;

/// Every demuxer that ffmpeg may use if the first bytes show nothing: real containers and elementary streams.
/// None of them opens another file: no hls, dash, concat, image2, sdp or subtitle pairs.
pub(super) const ANY_CONTAINER: &str = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,ogg,mpegts,mpeg,mpegvideo,\
h264,hevc,m4v,mp3,aac,ac3,eac3,dts,flac,wav,w64,aiff,caf,au,amr,wv,ape,tta,dsf,mxf,gxf,dv,ivf,obu,gif,apng,\
webp_anim,yuv4mpegpipe,rm,voc,mjpeg";

/// Formats that may follow an ID3 tag.
const TAGGED_SOUND: &str = "mp3,aac,flac,wav,aiff,tta,ape,wv,ac3,eac3,dts";

const MOV: &str = "mov,mp4,m4a,3gp,3g2,mj2";

/// Examines the first bytes of a file, up to [`SNIFF_BYTES`]. The headers of a picture show whether it is
/// animated (`headers::look`).
pub fn sniff(head: &[u8]) -> Sniffed {
    unsupported(head)
        .or_else(|| picture(head))
        .or_else(|| sound(head))
        .or_else(|| container(head))
        .unwrap_or(Sniffed::Ffmpeg(ANY_CONTAINER))
}

fn at(head: &[u8], offset: usize, magic: &[u8]) -> bool {
    head.get(offset..offset + magic.len()).is_some_and(|bytes| bytes == magic)
}

fn contains(head: &[u8], needle: &[u8]) -> bool {
    head.windows(needle.len()).any(|window| window == needle)
}

/// Known formats that no decoder here reads, by their names.
fn unsupported(head: &[u8]) -> Option<Sniffed> {
    macro_rules! picture {
        ($name:literal) => {
            concat!($name, " pictures cannot be read; convert them to JPEG, PNG or AVIF")
        };
    }
    let table: [(usize, &[u8], &'static str); 18] = [
        (0, b"\xff\x0a", picture!("JPEG XL")),
        (0, b"\0\0\0\x0cJXL \r\n\x87\n", picture!("JPEG XL")),
        (0, b"\0\0\0\x0cjP  \r\n\x87\n", picture!("JPEG 2000")),
        (0, b"\xff\x4f\xff\x51", picture!("JPEG 2000")),
        (0, b"\xff\xd8\xff\xf7", picture!("JPEG-LS")),
        (0, b"8BPS", picture!("Photoshop")),
        (0, b"\x76\x2f\x31\x01", picture!("OpenEXR")),
        (0, b"qoif", picture!("QOI")),
        (0, b"#?RADIANCE", picture!("Radiance HDR")),
        (0, b"DDS ", picture!("DDS")),
        (0, b"\0\0\x01\0", picture!("ICO")),
        (0, b"SDPX", picture!("DPX")),
        (0, b"XPDS", picture!("DPX")),
        (0, b"\x59\xa6\x6a\x95", picture!("Sun raster")),
        (0, b"gimp xcf", picture!("XCF")),
        (0, b"II\xbc\x01", picture!("JPEG XR")),
        (0, b"AT&TFORM", picture!("DjVu")),
        (0, b"\xd7\xcd\xc6\x9a", picture!("WMF")),
    ];
    let netpbm = matches!(head, [b'P', b'1'..=b'7' | b'F' | b'f', b' ' | b'\n' | b'\r' | b'\t', ..]);
    let found = table.iter().find(|(offset, magic, _)| at(head, *offset, magic)).map(|(_, _, why)| *why);
    found.or(netpbm.then_some(picture!("PPM and PGM"))).map(Sniffed::Refused)
}

fn picture(head: &[u8]) -> Option<Sniffed> {
    use image::ImageFormat;
    if at(head, 0, b"\xff\xd8\xff") {
        return Some(Sniffed::Picture(ImageFormat::Jpeg));
    }
    if at(head, 0, b"\x89PNG\r\n\x1a\n") {
        return Some(Sniffed::Picture(ImageFormat::Png));
    }
    if at(head, 0, b"GIF87a") || at(head, 0, b"GIF89a") {
        return Some(Sniffed::Picture(ImageFormat::Gif));
    }
    if at(head, 0, b"RIFF") && at(head, 8, b"WEBP") {
        let animated = at(head, 12, b"VP8X") && head.get(20).is_some_and(|flags| flags & 2 != 0);
        return Some(if animated {
            Sniffed::Ffmpeg("webp_anim")
        } else {
            Sniffed::Picture(ImageFormat::WebP)
        });
    }
    if [&b"II*\0"[..], b"MM\0*", b"II+\0", b"MM\0+"].iter().any(|magic| at(head, 0, magic)) {
        return Some(Sniffed::Picture(ImageFormat::Tiff));
    }
    // "BM" alone is too weak a mark: the reserved words must be zero, too.
    (at(head, 0, b"BM") && at(head, 6, &[0; 4])).then_some(Sniffed::Picture(ImageFormat::Bmp))
}

fn sound(head: &[u8]) -> Option<Sniffed> {
    let riff = at(head, 0, b"RIFF") && at(head, 8, b"WAVE");
    let aiff = at(head, 0, b"FORM") && (at(head, 8, b"AIFF") || at(head, 8, b"AIFC"));
    if riff || aiff || at(head, 0, b"fLaC") {
        return Some(Sniffed::Sound("wav,aiff,flac"));
    }
    if at(head, 0, b"OggS") {
        let others: [&[u8]; 4] = [b"OpusHead", b"theora", b"Speex", b"fishead"];
        let vorbis = contains(head, b"\x01vorbis") && !others.iter().any(|codec| contains(head, codec));
        return Some(if vorbis { Sniffed::Sound("ogg") } else { Sniffed::Ffmpeg("ogg") });
    }
    if at(head, 0, b"ID3") {
        return Some(Sniffed::Sound(TAGGED_SOUND));
    }
    match head {
        // MPEG audio: sync, version not reserved, layer II or III, bit rate and sample rate not reserved.
        [0xff, b, c, ..] if b & 0xe0 == 0xe0 && b & 0x18 != 0x08 && matches!(b & 0x06, 2 | 4) => {
            (c & 0xf0 != 0xf0 && c & 0x0c != 0x0c).then_some(Sniffed::Sound("mp3"))
        }
        // AAC in ADTS frames.
        [0xff, b, ..] if b & 0xf6 == 0xf0 => Some(Sniffed::Sound("aac")),
        _ => None,
    }
}

fn container(head: &[u8]) -> Option<Sniffed> {
    if at(head, 4, b"ftyp") {
        let brand = head.get(8..12).unwrap_or_default();
        return Some(match brand {
            b"avif" | b"heic" | b"heix" | b"heim" | b"heis" | b"mif1" | b"mif2" | b"miaf" | b"MA1A"
            | b"MA1B" | b"MiHE" | b"MiHA" | b"MiHB" => Sniffed::FfmpegPicture(MOV),
            // Sequences of pictures (`avis`, `msf1`, `hevc`) have a track of them, as a film has.
            _ => Sniffed::Ffmpeg(MOV),
        });
    }
    let table: [(usize, &[u8], &'static str); 26] = [
        (4, b"moov", MOV),
        (4, b"mdat", MOV),
        (4, b"wide", MOV),
        (4, b"free", MOV),
        (4, b"skip", MOV),
        (0, b"\x1a\x45\xdf\xa3", "matroska,webm"),
        (0, b"FLV", "flv"),
        (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
        (0, b"\x00\x00\x01\xba", "mpeg"),
        (0, b"\x00\x00\x01\xb3", "mpegvideo"),
        (0, b"#!AMR", "amr"),
        (0, b"caff", "caf"),
        (0, b".snd", "au"),
        (0, b"wvpk", "wv"),
        (0, b"MAC ", "ape"),
        (0, b"TTA1", "tta"),
        (0, b"DSD ", "dsf"),
        (0, b"DKIF", "ivf"),
        (0, b"YUV4MPEG2", "yuv4mpegpipe"),
        (0, b"riff\x2e\x91\xcf\x11", "w64"),
        (0, b"RF64", "wav"),
        (0, b".RMF", "rm"),
        (0, b"Creative Voice File", "voc"),
        (0, b"\x06\x0e\x2b\x34", "mxf"),
        (0, b"\x0b\x77", "ac3,eac3"),
        (0, b"\x7f\xfe\x80\x01", "dts"),
    ];
    if let Some((_, _, demuxers)) = table.iter().find(|(offset, magic, _)| at(head, *offset, magic)) {
        return Some(Sniffed::Ffmpeg(demuxers));
    }
    if at(head, 0, b"RIFF") && (at(head, 8, b"AVI ") || at(head, 8, b"AMV ")) {
        return Some(Sniffed::Ffmpeg("avi"));
    }
    let transport_stream = at(head, 0, b"G") && (at(head, 188, b"G") && at(head, 376, b"G"));
    transport_stream.then_some(Sniffed::Ffmpeg("mpegts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_matter_and_bytes_do() {
        assert_eq!(sniff(b"\xff\xd8\xff\xe0"), Sniffed::Picture(image::ImageFormat::Jpeg));
        assert_eq!(sniff(b"RIFF\0\0\0\0WAVEfmt "), Sniffed::Sound("wav,aiff,flac"));
        assert_eq!(sniff(b"RIFF\0\0\0\0AVI LIST"), Sniffed::Ffmpeg("avi"));
        assert_eq!(sniff(b"\0\0\0\x20ftypisom"), Sniffed::Ffmpeg(MOV));
        assert_eq!(sniff(b"\0\0\0\x20ftypavif"), Sniffed::FfmpegPicture(MOV));
        assert_eq!(sniff(b"\0\0\0\x20ftypheic"), Sniffed::FfmpegPicture(MOV));
        assert_eq!(sniff(b"\0\0\0\x20ftypavis"), Sniffed::Ffmpeg(MOV), "an animated AVIF");
        assert_eq!(sniff(b"\0\0\0\x20ftypmif1"), Sniffed::FfmpegPicture(MOV));
        assert_eq!(sniff(b"OggS\0\x02...\x01vorbis"), Sniffed::Sound("ogg"));
        assert_eq!(sniff(b"OggS\0\x02...OpusHead"), Sniffed::Ffmpeg("ogg"));
        assert_eq!(sniff(&[0xff, 0xfb, 0x90, 0x64]), Sniffed::Sound("mp3"));
        assert_eq!(sniff(&[0xff, 0xf1, 0x50, 0x80]), Sniffed::Sound("aac"));
        let lossless = Sniffed::Refused("JPEG-LS pictures cannot be read; convert them to JPEG, PNG or AVIF");
        assert_eq!(sniff(b"\xff\xd8\xff\xf7\0\x0b"), lossless);
        assert!(matches!(sniff(b"\0\0\0\x0cJXL \r\n\x87\n"), Sniffed::Refused(_)));
        assert!(matches!(sniff(b"P6\n3 2\n255\n"), Sniffed::Refused(_)));
        assert_eq!(sniff(b"hello"), Sniffed::Ffmpeg(ANY_CONTAINER));
        assert_eq!(sniff(b""), Sniffed::Ffmpeg(ANY_CONTAINER));
    }

    #[test]
    fn no_demuxer_that_opens_other_files_is_allowed() {
        for name in ANY_CONTAINER.split(',') {
            let bad =
                ["hls", "dash", "concat", "image2", "imf", "sdp", "rtsp", "vobsub", "mpsub", "lavfi", "tee"];
            assert!(!bad.contains(&name), "{name}");
            assert_eq!(name, name.trim());
        }
    }
}
