//! Films whose frames are not stored as they are shown.

use super::*;

const X264: &str = "-c:v libx264 -preset ultrafast -crf 4";

#[tokio::test]
async fn pixels_become_square() {
    let folder = folder("square");
    // Stored at 4:3 of what is shown; the picture shown is 320 x 180.
    let shown = Pattern::new(320, 180);
    let (wanted, _) = seen(&shown.png(&folder, "shown.png")).await;
    let (_, _, thumb) = thumbnail_of(&folder.join("shown.png")).await;
    let cases = [
        ("wide.mp4", "scale=240:180:flags=area,setsar=4/3,format=yuv420p", (320, 180)),
        ("tall.mp4", "scale=320:144:flags=area,setsar=4/5,format=yuv420p", (320, 180)),
        ("wide.mkv", "scale=240:180:flags=area,setsar=4/3,format=yuv420p", (320, 180)),
        ("wide.ts", "scale=240:180:flags=area,setsar=4/3,format=yuv420p", (320, 180)),
    ];
    for (name, filter, size) in cases {
        let path = ffmpeg_to(&folder, name, Some(&shown), &format!("-vf {filter} {X264}"));
        let (got, summary) = seen(&path).await;
        assert_eq!((summary.width, summary.height), size, "{name}");
        assert!(apart(&got, &wanted) < 3.0, "{name}: {}", apart(&got, &wanted));
        let (width, height, small) = thumbnail_of(&path).await;
        assert_eq!((width, height), (256, 144), "{name}");
        assert!(apart(&small, &thumb) < 4.0, "{name}: {}", apart(&small, &thumb));
        let stored = stored(spec());
        let (_, summary) = seen_by(&decoder(), &path, &stored).await.unwrap();
        assert_ne!((summary.width, summary.height), size, "a bundle of before: {name}");
    }
    let turned = ffmpeg_to(&folder, "flat.mp4", Some(&shown), &format!("-vf {} {X264}", cases[0].1));
    let input = format!("-display_rotation 90 -i {} -c copy", turned.display());
    let turned = ffmpeg_to(&folder, "turned.mp4", None, &input);
    let (_, summary) = seen(&turned).await;
    assert_eq!((summary.width, summary.height), (180, 320), "turned after it was stretched");
}

#[tokio::test]
async fn colours_are_those_the_film_says() {
    let folder = folder("colours");
    let shown = Pattern::new(320, 180);
    let (wanted, _) = seen(&shown.png(&folder, "shown.png")).await;
    let (_, _, thumb) = thumbnail_of(&folder.join("shown.png")).await;
    for (matrix, tag) in [("bt601", "smpte170m"), ("bt709", "bt709"), ("bt2020", "bt2020nc")] {
        for (range, flag) in [("tv", "tv"), ("pc", "pc")] {
            for (end, codec) in [
                ("mp4", X264),
                ("mkv", "-c:v libvpx-vp9 -cpu-used 8 -crf 8 -b:v 0"),
                ("mp4", "-c:v libx265 -preset ultrafast -crf 4 -x265-params log-level=none"),
            ] {
                let name = format!("{tag}-{flag}-{}.{end}", &codec[5..12]);
                let args = format!(
                    "-vf scale=out_color_matrix={matrix}:out_range={range},format=yuv444p {codec} -colorspace {tag} -color_range {flag}"
                );
                let path = ffmpeg_to(&folder, &name, Some(&shown), &args);
                let (got, _) = seen(&path).await;
                assert!(apart(&got, &wanted) < 3.0, "{name}: {}", apart(&got, &wanted));
                let (_, _, small) = thumbnail_of(&path).await;
                assert!(apart(&small, &thumb) < 4.0, "thumbnail of {name}: {}", apart(&small, &thumb));
            }
        }
    }
    // Nothing is said: by its size.
    for (size, matrix) in [((320, 180), "bt601"), ((1280, 720), "bt709")] {
        let args = format!(
            "-vf scale={}:{}:out_color_matrix={matrix}:out_range=tv,format=yuv420p {X264} -bsf:v h264_metadata=matrix_coefficients=2:colour_primaries=2:transfer_characteristics=2",
            size.0, size.1
        );
        let path = ffmpeg_to(&folder, &format!("unsaid-{matrix}.mp4"), Some(&shown), &args);
        let (got, _) = seen(&path).await;
        assert!(apart(&got, &wanted) < 3.0, "{matrix}: {}", apart(&got, &wanted));
    }
}

#[tokio::test]
async fn light_beyond_a_screen_is_brought_into_its_range() {
    let folder = folder("hdr");
    let shown = Pattern::new(320, 180);
    let (wanted, _) = seen(&shown.png(&folder, "shown.png")).await;
    let (_, _, thumb) = thumbnail_of(&folder.join("shown.png")).await;
    for (name, transfer) in [("pq", "smpte2084"), ("hlg", "arib-std-b67")] {
        let to_hdr = format!(
            "zscale=min=gbr:rin=full:tin=bt709:pin=bt709:t=linear:p=bt709:m=gbr:r=full:npl=203,format=gbrpf32le,zscale=p=bt2020:t={transfer}:m=bt2020nc:r=tv:npl=203,format=yuv420p10le"
        );
        for (end, codec) in [
            ("mp4", "-c:v libx265 -preset ultrafast -crf 4 -x265-params log-level=none"),
            ("mkv", "-c:v libvpx-vp9 -cpu-used 8 -crf 8 -b:v 0"),
        ] {
            let args = format!(
                "-vf {to_hdr} {codec} -color_primaries bt2020 -color_trc {transfer} -colorspace bt2020nc -color_range tv"
            );
            let path = ffmpeg_to(&folder, &format!("{name}.{end}"), Some(&shown), &args);
            let (got, _) = seen(&path).await;
            // Tones up to half of white stay; brighter ones give way to highlights.
            assert!(apart(&got, &wanted) < 6.0, "{name}.{end}: {}", apart(&got, &wanted));
            let (_, _, small) = thumbnail_of(&path).await;
            assert!(apart(&small, &thumb) < 7.0, "{name}.{end}: {}", apart(&small, &thumb));
            let stored = stored(spec());
            let (flat, _) = seen_by(&decoder(), &path, &stored).await.unwrap();
            assert!(apart(&flat, &wanted) > 15.0, "as stored: {}", apart(&flat, &wanted));
        }
    }
}

/// How much neighbouring lines differ more than lines two apart: combs.
fn combs(rgb: &[u8], side: usize) -> f64 {
    let at = |x: usize, y: usize| f64::from(rgb[(y * side + x) * 3]);
    let mut sum = 0.0;
    for y in 1..side - 1 {
        for x in 0..side {
            sum += (2.0 * at(x, y) - at(x, y - 1) - at(x, y + 1)).abs() - (at(x, y - 1) - at(x, y + 1)).abs();
        }
    }
    sum / (side * side) as f64
}

#[tokio::test]
async fn woven_fields_are_taken_apart_and_whole_frames_left_alone() {
    let folder = folder("fields");
    // A bar that moves fast: fields of two moments do not match.
    let scene = "-f lavfi -i color=black:s=64x64:r=50:d=2,geq=lum='255*lt(mod(X+N*9\\,64)\\,20)':cb=128:cr=128,format=yuv420p";
    let woven = "-vf tinterlace=mode=interleave_top -r 25 -flags +ildct+ilme";
    let large = spec();
    for (name, codec) in [
        ("mpeg2.ts", "-c:v mpeg2video -q:v 2"),
        ("h264.mp4", "-c:v libx264 -preset ultrafast -crf 4 -x264-params tff=1"),
        ("prores.mov", "-c:v prores_ks -pix_fmt yuv422p10le"),
        ("mpeg4.mkv", "-c:v mpeg4 -q:v 2"),
    ] {
        let path = ffmpeg_to(&folder, name, None, &format!("{scene} {woven} {codec}"));
        let (got, _) = seen_by(&decoder(), &path, &large).await.unwrap();
        let stored = stored(large.clone());
        let (flat, _) = seen_by(&decoder(), &path, &stored).await.unwrap();
        let (got, flat) = (combs(&got, 64), combs(&flat, 64));
        assert!(flat > 20.0 && got < flat / 4.0, "{name}: {got} of {flat}");
    }
    let whole = ffmpeg_to(&folder, "whole.mp4", None, &format!("{scene} {X264}"));
    let stored = stored(large.clone());
    let (a, _) = seen_by(&decoder(), &whole, &large).await.unwrap();
    let (b, _) = seen_by(&decoder(), &whole, &stored).await.unwrap();
    assert!(a == b, "a plain film is the same by either rule");
}

/// Adds a Dolby Vision configuration to the HEVC track of a file whose index comes last.
fn with_dolby_vision(mp4: &[u8], profile: u16, compatibility: u32) -> Vec<u8> {
    let flags = profile << 9 | 1 << 3 | 1 << 2 | 1;
    let head = [&32_u32.to_be_bytes()[..], b"dvcC\x01\x00", &flags.to_be_bytes()].concat();
    let added = [&head[..], &(compatibility << 28).to_be_bytes(), &[0; 16]].concat();
    let (mut at, mut end, mut places) = (0, mp4.len(), Vec::new());
    for name in [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hvc1"] {
        let size = |at: usize| u32::from_be_bytes(mp4[at..at + 4].try_into().unwrap()) as usize;
        while &mp4[at + 4..at + 8] != name {
            at += size(at);
            assert!(at < end, "{name:?}");
        }
        places.push(at);
        end = at + size(at);
        at += if name == b"stsd" { 16 } else { 8 };
    }
    let mut bytes = [&mp4[..end], &added, &mp4[end..]].concat();
    for place in places {
        let size = u32::from_be_bytes(bytes[place..place + 4].try_into().unwrap()) + added.len() as u32;
        bytes[place..place + 4].copy_from_slice(&size.to_be_bytes());
    }
    bytes
}

#[tokio::test]
async fn colours_of_dolby_vision_alone_are_told() {
    let folder = folder("dolby");
    let shown = Pattern::new(320, 180);
    let codec = "-c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p -tag:v hvc1";
    let path = ffmpeg_to(&folder, "plain.mp4", Some(&shown), codec);
    let plain = std::fs::read(path).unwrap();
    for (profile, compatibility, told) in [(5, 0, true), (8, 1, false), (8, 4, false)] {
        let path = folder.join(format!("{profile}-{compatibility}.mp4"));
        std::fs::write(&path, with_dolby_vision(&plain, profile, compatibility)).unwrap();
        let (_, summary) = seen(&path).await;
        let said = summary.partial.as_deref().is_some_and(|why| why.contains("Dolby Vision"));
        assert_eq!((said, summary.partial.is_some()), (told, told), "{profile}.{compatibility}: {summary:?}");
    }
}
