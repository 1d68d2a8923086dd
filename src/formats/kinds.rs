//! The files that count as media in folders, watches and buckets: one list for all of them. The name can
//! decide; if it does not, the first bytes do.

use crate::formats::sniff::{ANY_CONTAINER, SNIFF_BYTES, Sniffed, sniff};
use crate::structure::sound::holds_frames;

/// Number of first bytes that [`head_is_media`] needs: a few frames of a stream that begins with something else.
pub const HEAD_BYTES: usize = 4 * SNIFF_BYTES;

/// Extensions of supported files, lower-case.
const MEDIA: &[&str] = &[
    // Containers of film, and raw video streams.
    "mp4", "m4v", "amv", "mp4v", "f4v", "mov", "qt", "3gp", "3g2", "3gpp", "3gp2", "mj2", "mkv", "mk3d",
    "webm", "avi", "divx", "mpg", "mpeg", "mpe", "m1v", "m2v", "mpv", "vob", "ts", "m2ts", "m2t", "mts",
    "tp", "trp", "flv", "wmv", "asf", "wm", "ogv", "ogm", "ogx", "mxf", "gxf", "dv", "dif", "ivf", "obu",
    "y4m", "rm", "rmvb", "h264", "264", "avc", "h265", "265", "hevc", "mjpeg", "mjpg", "mod", "tod", "insv",
    "lrv", "ismv", "cmfv", // Sound.
    "wav", "wave", "bwf", "rf64", "w64", "mp3", "mp2", "mp1", "mpa", "mpga", "flac", "ogg", "oga", "opus",
    "spx", "m4a", "m4b", "m4r", "aac", "adts", "aif", "aiff", "aifc", "wma", "caf", "au", "snd", "amr",
    "awb", "3ga", "ac3", "eac3", "ec3", "dts", "ape", "wv", "tta", "dsf", "voc", "mka", "weba", "ra", "isma",
    "cmfa", // Pictures.
    "jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "dib", "avif", "avifs", "heic",
    "heif", "hif", "tif", "tiff",
];

/// Media extensions with other meanings, too: TypeScript, a Go module, a log. Such a file is not media if it
/// is text.
const ALSO_OTHERS: &[&str] = &["ts", "mts", "mod", "tod", "rm", "ra", "tp", "wm", "snd", "dif", "au"];

/// Extensions of files that are still being written.
const UNFINISHED: &[&str] = &[
    "part",
    "partial",
    "crdownload",
    "download",
    "opdownload",
    "filepart",
    "tmp",
    "temp",
    "unfinished",
    "aria2",
    "!ut",
    "!qb",
];

/// The kind of a file, judged by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameSays {
    /// The file is media.
    Media,
    /// The file is still being written.
    Unfinished,
    /// Nothing, so the first bytes decide.
    Nothing,
}

/// Classifies a file by its name, the last part of its path.
#[must_use]
pub fn name_says(name: &str) -> NameSays {
    let Some((_, extension)) = name.rsplit_once('.') else { return NameSays::Nothing };
    let extension = extension.to_ascii_lowercase();
    let listed = |list: &[&str]| list.contains(&extension.as_str());
    if listed(UNFINISHED) {
        NameSays::Unfinished
    } else if listed(MEDIA) && !listed(ALSO_OTHERS) {
        NameSays::Media
    } else {
        NameSays::Nothing
    }
}

/// Whether a file's first bytes, up to [`HEAD_BYTES`], are those of a supported format. The name is needed,
/// too, since some formats cannot be recognised by their first bytes alone.
#[must_use]
pub fn head_is_media(name: &str, head: &[u8]) -> bool {
    if head.is_empty() || is_text(head) {
        return false;
    }
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    extension.is_some_and(|extension| MEDIA.contains(&extension.as_str()))
        || !matches!(sniff(head), Sniffed::Ffmpeg(ANY_CONTAINER) | Sniffed::Refused(_))
        || is_stream(head)
}

/// Whether all of the head is readable text, unlike any media file: some format marks are words.
fn is_text(head: &[u8]) -> bool {
    let control = |byte: &u8| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b);
    if head.iter().any(control) {
        return false;
    }
    match std::str::from_utf8(head) {
        Ok(_) => true,
        // A character that was cut off at the end.
        Err(error) => error.error_len().is_none(),
    }
}

/// Formats that ffmpeg recognises by more than a mark; `sniff` leaves them to it.
fn is_stream(head: &[u8]) -> bool {
    let starts = |mark: &[u8]| head.starts_with(mark);
    let boxed = |name: &[u8; 4]| head.get(4..8) == Some(name.as_slice());
    starts(b"BW64")
        || (starts(b"RIFX") && head.get(8..12) == Some(b"WAVE"))
        || starts(b".ra\xfd")
        || starts(&[0, 0, 0, 0, 1, 0xbc])
        || matches!(head, [0x1f, 0x07, 0x00, ..])
        || matches!(head, [0x77, 0x0b, ..])
        || starts(&[0xfe, 0x7f, 0x01, 0x80])
        || starts(&[0x1f, 0xff, 0xe8, 0x00])
        || starts(&[0xff, 0x1f, 0x00, 0xe8])
        || starts(&[0x12, 0x00, 0x0a])
        || [b"moof", b"styp", b"sidx", b"pnot", b"udta", b"uuid"].into_iter().any(boxed)
        || is_mpeg_layer_two(head)
        || is_elementary_video(head)
        || is_transport_stream(head)
        || is_program_stream(head)
        || is_dolby(head)
        || holds_frames(head)
}

/// MPEG audio, layer II, with a valid bit rate and sample rate.
fn is_mpeg_layer_two(head: &[u8]) -> bool {
    matches!(head, [0xff, b, c, ..] if b & 0xe0 == 0xe0 && b & 0x18 != 0x08 && b & 0x06 == 0x04
        && c & 0xf0 != 0xf0 && c & 0x0c != 0x0c)
}

/// A start code, followed by a unit that begins an H.264, H.265 or MPEG-4 part 2 stream.
fn is_elementary_video(head: &[u8]) -> bool {
    let rest = head.strip_prefix(&[0]).filter(|rest| rest.starts_with(&[0, 0, 1])).unwrap_or(head);
    match rest {
        // MPEG-4: a sequence, an object, a layer.
        [0, 0, 1, 0xb0 | 0xb5 | 0x00 | 0x20..=0x2f, ..] => true,
        // H.265: parameter sets, an access unit delimiter.
        [0, 0, 1, 0x40 | 0x42 | 0x44 | 0x46, 0x01, ..] => true,
        // H.264: supplemental information, parameter sets, an access unit delimiter.
        [0, 0, 1, unit, ..] => unit & 0x80 == 0 && matches!(unit & 0x1f, 6..=9),
        _ => false,
    }
}

/// MPEG-TS with packets of 188, 192 or 204 bytes, at any position of the first one.
fn is_transport_stream(head: &[u8]) -> bool {
    const PACKETS: usize = 5;
    [188, 192, 204].into_iter().any(|packet| {
        (0..packet).any(|first| (0..PACKETS).all(|n| head.get(first + n * packet) == Some(&b'G')))
    })
}

/// MPEG-PS that begins within a pack: a later pack contains a packet of pictures or sound.
fn is_program_stream(head: &[u8]) -> bool {
    let code = |window: &[u8]| if let [0, 0, 1, code] = *window { Some(code) } else { None };
    let packs = head.windows(4).filter_map(code).skip_while(|code| *code != 0xba);
    packs.filter(|code| matches!(code, 0xbd | 0xc0..=0xef)).count() > 1
}

/// AC-3 or E-AC-3 of constant bit rate that begins within a frame: three frames at the same distance.
fn is_dolby(head: &[u8]) -> bool {
    let sync = |at: usize| head.get(at..at + 2) == Some(&[0x0b, 0x77]);
    let syncs: Vec<usize> = (0..head.len()).filter(|at| sync(*at)).collect();
    syncs.iter().zip(syncs.iter().skip(1)).any(|(first, second)| {
        let bytes = second - first;
        (64..=4096).contains(&bytes) && (1..3).all(|n| sync(second + n * bytes))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_media_or_unfinished_or_nothing() {
        for media in ["a.mp4", "B.MXF", "x.y.vob", "a.m2t", "a.ac3", "a.w64", "a.h264", "a.HEIC", ".mp4"] {
            assert_eq!(name_says(media), NameSays::Media, "{media}");
        }
        for unfinished in ["a.mp4.part", "film.crdownload", "x.TMP"] {
            assert_eq!(name_says(unfinished), NameSays::Unfinished, "{unfinished}");
        }
        for nothing in ["a", "mp4", "notes.txt", "app.ts", "go.mod", "a.", ""] {
            assert_eq!(name_says(nothing), NameSays::Nothing, "{nothing}");
        }
    }

    #[test]
    fn first_bytes_decide_where_the_name_does_not() {
        let mut transport = vec![7_u8; HEAD_BYTES];
        (3..HEAD_BYTES).step_by(188).for_each(|at| transport[at] = b'G');
        assert!(head_is_media("a", &transport));
        let mut cut_dolby = vec![9_u8; HEAD_BYTES];
        (100..HEAD_BYTES).step_by(1536).for_each(|at| cut_dolby[at..at + 2].copy_from_slice(&[0x0b, 0x77]));
        assert!(head_is_media("a", &cut_dolby));
        let chance = [&cut_dolby[..3000], &[9; 13_000]].concat();
        assert!(!head_is_media("a", &chance), "two syncs may be chance");
        let pack = [&[0, 0, 1, 0xba][..], &[9; 10], &[0, 0, 1, 0xe0], &[9; 2030]].concat();
        assert!(head_is_media("a", &[&[9; 700][..], &pack, &pack].concat()));
        for (head, name) in [
            (&b"\0\0\0\x18ftypisom"[..], "mp4"),
            (&[0, 0, 0, 1, 0x67, 0x64, 0, 0x1e], "h264"),
            (&[0, 0, 0, 1, 0x40, 1, 0x0c], "hevc"),
            (&[0, 0, 1, 0xb0, 1], "m4v"),
            (&[0xff, 0xfd, 0x94, 0x04], "mp2"),
            (&[0x1f, 0x07, 0, 0xbf], "dv"),
            (b"\0\0\0\x20ftypheic", "what is known and refused fails and says why"),
        ] {
            assert!(head_is_media("a", head), "{name}");
        }
        for (name, head) in [
            ("a", &b""[..]),
            ("a", b"The free software"),
            ("app.ts", b"export const a = 1;\n"),
            ("a.pdf", b"%PDF-1.7\n\x80\x81\0"),
            ("a.zip", b"PK\x03\x04\0\0"),
            ("a.gz", &[0x1f, 0x8b, 8, 0]),
            ("utf16.txt", b"\xff\xfeh\0i\0"),
        ] {
            assert!(!head_is_media(name, head), "{name}");
        }
        assert!(head_is_media("tape.ts", b"\0\x01 whatever"), "a name of media and no text");
        assert!(is_text("grün".as_bytes().split_last().unwrap().1) && is_text(&"ü".as_bytes()[..1]));
    }
}
