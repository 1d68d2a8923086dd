use std::io::Write;

use super::*;

fn of(bytes: &[u8]) -> Option<Lack> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    lack(&file)
}

#[test]
fn whole_files_are_whole_and_cut_ones_are_not() {
    let riff = [&b"RIFF\x0c\0\0\0AVI LIST\0\0\0\0"[..], b"RIFF\x04\0\0\0AVIX"].concat();
    let gif = b"GIF89a\x01\0\x01\0\0\0\0!\xf9\x01\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02\x4c\x01\0;\0\0".to_vec();
    let webp = b"RIFF\x10\0\0\0WEBPVP8 \x04\0\0\0abcd".to_vec();
    let flv = [&b"FLV\x01\x05\0\0\0\x09\0\0\0\0"[..], b"\x09\0\0\x02\0\0\0\0\0\0\0AB\0\0\0\x0d"].concat();
    let mp4 = [&b"\0\0\0\x0cftypisom"[..], b"\0\0\0\x10mdat12345678"].concat();
    let ts = [[0x47; 188]; 7].concat();
    let avi =
        [&b"RIFF\x2c\0\0\0AVI LIST\x16\0\0\0movi00dc\x01\0\0\0a\x0001wb"[..], b"\0\0\0\0idx1\x02\0\0\0ab"]
            .concat();
    let key =
        |last: u8, size: u8| [&b"\x06\x0e\x2b\x34"[..], &[last; 12], &[size], &vec![9; size.into()]].concat();
    let mxf = [key(1, 100), key(2, 0), key(3, 50)].concat();
    let frame = |first: &[u8]| [first, &[7; 143_996]].concat();
    let dv = [frame(b"\x1f\x07\x00\xbf"), frame(b"\x1f\x07\x00\xbf")].concat();
    let mkv = b"\x1a\x45\xdf\xa3\x82AB\x18\x53\x80\x67\x40\x03\xec\x81a".to_vec();
    let live = b"\x1a\x45\xdf\xa3\x82AB\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xffabc";
    assert_eq!(of(live), None);
    for (name, whole, left) in [
        ("riff", riff, 3),
        ("gif", gif, 4),
        ("webp", webp, 1),
        ("flv", flv, 5),
        ("mkv", mkv, 1),
        ("mp4", mp4, 1),
        ("ts", ts, 100),
        ("avi", avi, 3),
        ("mxf", mxf, 5),
        ("dv", dv, 7),
    ] {
        assert_eq!(of(&whole), None, "{name}");
        assert!(of(&whole[..whole.len() - left]).is_some(), "{name}");
        if ["avi", "mxf", "dv"].contains(&name) {
            // A few extra bytes in the middle.
            let more = [&whole[..whole.len() / 2], &[0; 3], &whole[whole.len() / 2..]].concat();
            assert!(of(&more).is_some(), "{name}");
        }
    }
    // Unfinished, to the end of the file, another format, empty.
    for whole in [&b"RIFF\0\0\0\0AVI "[..], b"\0\0\0\x0cftypisom\0\0\0\0mdat", b"any text", b""] {
        assert_eq!(of(whole), None);
    }
}

fn cut(bytes: &[u8]) -> bool {
    matches!(of(bytes), Some(Lack::Cut(_)))
}

/// A box of an MP4.
fn boxed(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes()[..], name, body].concat()
}

/// A fragment that begins at this time.
fn fragment(time: u32) -> Vec<u8> {
    let track = [
        boxed(b"tfhd", &[0, 0, 0, 0, 0, 0, 0, 1]),
        boxed(b"tfdt", &[&[0; 4][..], &time.to_be_bytes()].concat()),
    ];
    [boxed(b"moof", &boxed(b"traf", &track.concat())), boxed(b"mdat", &[7; 40])].concat()
}

/// A chunk of a PNG.
fn png_chunk(kind: &[u8], body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], kind, body, &[0; 4]].concat()
}

/// An ASF file of three packets, or a recorded broadcast.
fn asf(live: bool) -> Vec<u8> {
    let object =
        |id: &[u8; 16], body: &[u8]| [id, &(body.len() as u64 + 24).to_le_bytes()[..], body].concat();
    let mut about = [0; 80];
    about[64] = u8::from(live);
    about[68..72].copy_from_slice(&100_u32.to_le_bytes());
    let about = object(b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65", &about);
    let head = [&[1, 0, 0, 0, 1, 2][..], &about].concat();
    let head = object(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", &head);
    let packet = [&[0x82, 0, 0][..], &[7; 97]].concat();
    let count = if live { 0 } else { 3_u64 };
    let data = [&[0; 16][..], &count.to_le_bytes(), &[1, 1], &packet.repeat(3)].concat();
    let mut data = object(b"\x36\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", &data);
    if live {
        data[16..24].fill(0);
    }
    [head, data].concat()
}

/// Small files of many kinds.
fn kinds() -> Vec<(&'static str, Vec<u8>)> {
    let mp4 = [boxed(b"ftyp", b"isom"), boxed(b"moov", &[1; 60]), boxed(b"mdat", &[7; 60])].concat();
    let mov = [boxed(b"wide", b""), boxed(b"mdat", &[7; 60]), boxed(b"moov", &[1; 60])].concat();
    let fragments = [boxed(b"ftyp", b"iso5"), boxed(b"moov", &[1; 60]), fragment(0), fragment(90)].concat();
    let mkv = b"\x1a\x45\xdf\xa3\x82AB\x18\x53\x80\x67\x40\x03\xec\x81a".to_vec();
    let flv = [&b"FLV\x01\x05\0\0\0\x09\0\0\0\0"[..], b"\x09\0\0\x02\0\0\0\0\0\0\0AB\0\0\0\x0d"].concat();
    let webp = b"RIFF\x10\0\0\0WEBPVP8X\x04\0\0\0abcd".to_vec();
    let png = [png_chunk(b"acTL", &[0; 8]), png_chunk(b"IDAT", &[7; 50]), png_chunk(b"IEND", b"")].concat();
    let png = [&b"\x89PNG\r\n\x1a\n"[..], &png].concat();
    let rm_packet = [&[0, 0, 0, 60][..], &[7; 56]].concat();
    let rm = [
        &b".RMF\0\0\0\x12\0\0\0\0\0\0\0\0\0\0"[..],
        b"DATA\0\0\0\x8a\0\0\0\0\0\x02\0\0\0\0",
        &rm_packet,
        &rm_packet,
    ];
    let gxf = |kind: u8, size: u8| {
        [&[0, 0, 0, 0, 1, kind, 0, 0, 0, size, 0, 0, 0, 0, 0xe1, 0xe2][..], &vec![7; usize::from(size) - 16]]
            .concat()
    };
    let gxf = [gxf(0xbc, 40), gxf(0xbf, 30), gxf(0xbf, 30), gxf(0xbf, 30), gxf(0xfb, 16)].concat();
    let voc = [
        &b"Creative Voice File\x1a\x1a\0\x14\x01\x1f\x11"[..],
        b"\x01\x42\0\0",
        &[7; 66],
        b"\x02\x40\0\0",
        &[7; 64],
        b"\0",
    ]
    .concat();
    let y4m =
        [&b"YUV4MPEG2 W4 H6 F25:1 C420jpeg\n"[..], &[&b"FRAME\n"[..], &[7; 36]].concat().repeat(3)].concat();
    let ivf = [&b"DKIF\0\0\x20\0"[..], &[0; 24], &[&b"\x32\0\0\0"[..], &[0; 8], &[7; 50]].concat().repeat(2)]
        .concat();
    vec![
        ("mp4", mp4),
        ("mov", mov),
        ("fragments", fragments),
        ("mkv", mkv),
        ("flv", flv),
        ("webp", webp),
        ("apng", png),
        ("asf", asf(false)),
        ("rm", rm.concat()),
        ("gxf", gxf),
        ("voc", voc),
        ("y4m", y4m),
        ("ivf", ivf),
    ]
}

#[test]
fn another_file_behind_the_end_is_told() {
    for (name, whole) in kinds() {
        assert_eq!(of(&whole), None, "{name}");
        assert_eq!(of(&[&whole[..], &whole].concat()), Some(Lack::Joined), "{name}");
        assert_eq!(
            of(&[&whole[..], b"TAG", &[7; 125]].concat()).filter(|_| name != "flv" && name != "ivf"),
            None,
            "{name}"
        );
        if !["apng", "flv", "ivf"].contains(&name) {
            assert_eq!(of(&[&whole[..], &[0; 20]].concat()), None, "{name}");
        }
        if name != "apng" {
            assert!(cut(&whole[..whole.len() - 2]) || name == "voc", "{name}");
        }
    }
    assert_eq!(of(&[asf(true), asf(true)].concat()), Some(Lack::Joined));
    assert_eq!(of(&asf(true)), None);
    let size = b"\x01\xff\xff\xff\xff\xff\xff\xff";
    let live = [
        &b"\x1a\x45\xdf\xa3\x82AB\x18\x53\x80\x67"[..],
        size,
        b"\x1f\x43\xb6\x75",
        size,
        b"\xe7\x81\x05\xa3\x82ab",
    ]
    .concat();
    assert_eq!(of(&live), None);
    assert_eq!(of(&[&live[..], &live].concat()), Some(Lack::Joined));
}

#[test]
fn a_live_film_may_repeat_its_header() {
    let head = [boxed(b"ftyp", b"iso5"), boxed(b"moov", &[1; 60])].concat();
    let (first, next) = ([fragment(0), fragment(90)].concat(), [fragment(180), fragment(270)].concat());
    assert_eq!(of(&[&head[..], &first, &head, &next].concat()), None);
    assert_eq!(of(&[&head[..], &first, &head, &first].concat()), Some(Lack::Joined));
    let plain = [&head[..], &boxed(b"mdat", &[7; 60])].concat();
    assert_eq!(of(&[&head[..], &first, &plain].concat()), Some(Lack::Joined));
    assert_eq!(of(&[&plain[..], &head, &first].concat()), Some(Lack::Joined));
    // What cameras add.
    assert_eq!(of(&[&plain[..], b"xxxxxxxxxxxxxxxxxxxx"].concat()), None);
}

#[test]
fn holes_between_parts_are_told() {
    for (name, whole) in kinds() {
        if !["asf", "rm", "gxf", "voc", "y4m"].contains(&name) {
            continue;
        }
        let half = whole.len() / 2;
        let mut zeroed = whole.clone();
        zeroed[half..whole.len() - 20].fill(0);
        let spliced = [&whole[..half], &[9; 25], &whole[half..]].concat();
        let robbed = [&whole[..half], &whole[half + 25..]].concat();
        for (how, bytes) in [("zeroed", &zeroed), ("spliced", &spliced), ("robbed", &robbed)] {
            assert!(cut(bytes), "{name} {how}: {:?}", of(bytes));
        }
    }
}

#[test]
fn jpegs_in_a_row_are_whole() {
    let jpeg = [
        &[0xff, 0xd8, 0xff, 0xe0, 0, 4, 0xff, 0xd9, 0xff, 0xda, 0, 4, 1, 2][..],
        &[7; 90],
        &[0xff, 0, 0xff, 0xd1, 5, 0xff, 0xd9],
    ];
    let jpeg = jpeg.concat();
    let two = [&jpeg[..], &jpeg].concat();
    let padded =
        [&jpeg[..], &[0; 90], b"--next\r\nContent-Type: image/jpeg\r\n\r\n", &jpeg, &[0xff; 9]].concat();
    assert_eq!((of(&two), of(&padded)), (None, None));
    assert!(cut(&two[..two.len() - 1]) && cut(&[&jpeg[..60], &two[..]].concat()));
    assert!(cut(&[&jpeg[..], &[1; 90], &jpeg].concat()));
}

#[test]
fn an_amv_ends_with_its_mark() {
    let head = b"RIFF\0\0\0\0AMV LIST\0\0\0\0hdrlLIST\0\0\0\0movi";
    let amv = [&head[..], b"00dc\x03\0\0\0abc01wb\x02\0\0\0de00dc\x01\0\0\0f", b"AMV_END_"].concat();
    assert_eq!((of(&amv), of(&[&amv[..], &amv].concat())), (None, None), "ffmpeg reads both");
    assert!(cut(&amv[..amv.len() - 8]) && cut(&amv[..amv.len() - 3]));
    assert!(cut(&[&amv[..50], &amv[53..]].concat()));
}
