use std::io::Write;

use super::*;

fn of(bytes: &[u8]) -> Option<Length> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let mut window = Window::new(&file).unwrap();
    samples(&mut window)?.length(window.len)
}

fn wav(size: u32) -> Vec<u8> {
    let mut bytes = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0\x01\0\x01\0".to_vec();
    bytes.extend([8000_u32, 16_000].map(u32::to_le_bytes).concat());
    bytes.extend(b"\x02\0\x10\0data");
    bytes.extend(size.to_le_bytes());
    bytes.extend([0; 32_000]);
    bytes
}

#[test]
fn a_size_that_nobody_knew_is_no_length() {
    for size in [0, 0x7fff_ff00, 0x7fff_ffff, 0x7fff_f000, 0x8000_0000, u32::MAX, u32::MAX - 36] {
        assert_eq!(of(&wav(size)), Some(Length::Unknown), "{size:x}");
    }
    assert_eq!(of(&wav(32_000)), Some(Length::Secs(2.0)));
    assert_eq!(of(&wav(64_000)), Some(Length::Secs(4.0)), "cut");
    assert_eq!(of(&wav(0x7f00_0000)), Some(Length::Secs(2.0)), "37 hours that are not there");
    assert_eq!(of(b"RIFF"), None);
    assert_eq!(of(b"ID3"), None);
    let au = |size: u32| {
        [b".snd\0\0\0\x18".to_vec(), [size, 3, 8000, 1, 0].map(u32::to_be_bytes).concat()].concat()
    };
    assert_eq!((of(&au(u32::MAX)), of(&au(16_000))), (Some(Length::Unknown), Some(Length::Secs(1.0))));
}

fn end_of(bytes: &[u8]) -> End {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let mut window = Window::new(&file).unwrap();
    samples(&mut window).unwrap().end(&mut window)
}

/// Files of 1000 samples, mono, 16 bits, 8000 Hz, as AIFF, AU, CAF, W64 and RF64; and where their sizes are.
fn others() -> [(&'static str, Vec<u8>, usize, usize); 5] {
    let data = vec![7; 2000];
    let rate = [&[0x40, 0x0b, 0xfa][..], &[0; 7]].concat();
    let common = [&b"COMM\0\0\0\x12\0\x01\0\0\x03\xe8\0\x10"[..], &rate].concat();
    let sound = [&b"SSND\0\0\x07\xd8"[..], &[0; 8], &data].concat();
    let aiff = [&b"FORM\0\0\x07\xfeAIFF"[..], &common, &sound].concat();
    let au = [&b".snd\0\0\0\x18"[..], &[2000, 3, 8000, 1].map(u32::to_be_bytes).concat(), &data].concat();
    let described = [&8000_f64.to_be_bytes()[..], b"lpcm", &[0, 2, 1, 1, 16].map(u32::to_be_bytes).concat()];
    let described = [&b"caff\0\x01\0\0desc\0\0\0\0\0\0\0\x20"[..], &described.concat()].concat();
    let caf = [&described[..], b"data", &2004_u64.to_be_bytes(), &[0; 4], &data].concat();
    let guid = |id: &[u8], size: u64| {
        [id, b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a", &size.to_le_bytes()].concat()
    };
    let format = &wav(0)[32..48];
    let w64 = [
        b"riff\x2e\x91\xcf\x11".to_vec(),
        vec![0; 32],
        guid(b"fmt ", 40),
        format.to_vec(),
        guid(b"data", 2024),
        data.clone(),
    ];
    let rf64 =
        [b"RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0".to_vec(), vec![0; 8], 2000_u64.to_le_bytes().to_vec()];
    let rf64 = [
        rf64.concat(),
        vec![0; 12],
        b"fmt \x10\0\0\0".to_vec(),
        format.to_vec(),
        b"data\xff\xff\xff\xff".to_vec(),
        data,
    ];
    [
        ("aiff", aiff, 42, 4),
        ("au", au, 8, 4),
        ("caf", caf, 56, 8),
        ("w64", w64.concat(), 96, 8),
        ("rf64", rf64.concat(), 28, 8),
    ]
}

#[test]
fn lengths_and_ends_of_every_kind() {
    for (name, whole, size_at, size_bytes) in others() {
        assert_eq!((of(&whole), end_of(&whole)), (Some(Length::Secs(0.125)), End::Whole), "{name}");
        assert!(matches!(end_of(&whole[..whole.len() - 10]), End::Cut(_)), "{name}");
        for (tail, joined) in
            [(&[0; 5000][..], false), (&[b"TAG", &[b' '; 125][..]].concat(), false), (&whole, true)]
        {
            let end = if joined && name != "au" { End::Joined } else { End::Whole };
            assert_eq!(end_of(&[&whole[..], tail].concat()), end, "{name} {joined}");
        }
        let spliced = [&whole[..], &[9; 100]].concat();
        assert_eq!(matches!(end_of(&spliced), End::Cut(_)), name != "au", "{name}");
        for size in [0, u64::MAX, 1 << 40] {
            let mut open = whole.clone();
            let size = if size == 1 << 40 && size_bytes == 4 { 0xffff_ff00 } else { size };
            let bytes = if name.starts_with(['a', 'c']) {
                size.to_be_bytes()[8 - size_bytes..].to_vec()
            } else {
                size.to_le_bytes().to_vec()
            };
            open[size_at..size_at + size_bytes].copy_from_slice(&bytes);
            assert_eq!((of(&open), end_of(&open)), (Some(Length::Unknown), End::Whole), "{name} {size:x}");
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&open).unwrap();
            let mut window = Window::new(&file).unwrap();
            let raw = samples(&mut window).unwrap().raw(window.len);
            let found = raw.map(|raw| (raw.rate_hz, raw.channels, raw.at as usize));
            // ffmpeg reads these to their end itself.
            let itself = name == "caf" || (name == "au" && size > 0);
            assert_eq!(found, (!itself).then_some((8000, 1, whole.len() - 2000)), "{name} {size:x}");
        }
    }
}

#[test]
fn a_wav_ends_with_its_samples() {
    let whole = wav(32_000);
    assert_eq!(end_of(&whole), End::Whole, "whatever the size of the RIFF");
    assert_eq!(end_of(&[&whole[..], b"LIST\x04\0\0\0abcd"].concat()), End::Whole);
    assert_eq!(
        end_of(&[&whole[..], b"LIST\x40\0\0\0abcd"].concat()),
        End::Cut("a chunk at its end is cut off")
    );
    assert_eq!(end_of(&[&whole[..], &whole].concat()), End::Joined);
    assert!(matches!(end_of(&[&wav(16_000)[..], &[7; 90]].concat()), End::Cut(_)), "half");
    assert!(matches!(end_of(&wav(32_100)), End::Cut(_)));
    assert_eq!(end_of(&wav(0x8000_0000)), End::Whole);
}
