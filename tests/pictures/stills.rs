//! Files of one picture.

use std::path::PathBuf;

use triptych::media::Limits;
use triptych::types::AssetKind;

use super::heif::{Heif, write};
use super::*;

#[tokio::test]
async fn heif_pictures_are_put_together_turned_and_mirrored_once() {
    let folder = folder("heif");
    let base = Pattern::new(320, 240);
    let odd = Pattern::new(300, 220);
    let turned = base.turned();
    let mirrored = base.mapped(320, 240, |x, y| (319 - x, y));
    let upside = base.mapped(320, 240, |x, y| (x, 239 - y));
    let tiles = Some((128, 128));
    let cases = [
        ("plain.heic", &base, Heif::default(), base.clone()),
        ("brand.heic", &base, Heif { brand: Some(b"mif1"), ..Heif::default() }, base.clone()),
        ("turned.heic", &base, Heif { irot: Some(3), ..Heif::default() }, turned.clone()),
        ("both.heic", &base, Heif { irot: Some(3), exif: Some(6), ..Heif::default() }, turned.clone()),
        // A reader of HEIF goes by the file's own turns alone.
        ("exif.heic", &base, Heif { exif: Some(6), ..Heif::default() }, base.clone()),
        ("mirrored.heic", &base, Heif { imir: Some(1), ..Heif::default() }, mirrored),
        ("upside.heic", &base, Heif { imir: Some(0), ..Heif::default() }, upside),
        ("tiles.heic", &odd, Heif { tile: tiles, ..Heif::default() }, odd.clone()),
        (
            "phone.heic",
            &odd,
            Heif { tile: tiles, irot: Some(3), exif: Some(6), preview: true, ..Heif::default() },
            odd.turned(),
        ),
        ("mif1.avif", &base, Heif { av1: true, brand: Some(b"mif1"), ..Heif::default() }, base.clone()),
        ("turned.avif", &base, Heif { av1: true, irot: Some(3), exif: Some(6), ..Heif::default() }, turned),
        ("tiles.avif", &odd, Heif { av1: true, tile: tiles, ..Heif::default() }, odd.clone()),
    ];
    for (name, picture, how, shown) in cases {
        let path = folder.join(name);
        std::fs::write(&path, write(picture, &how, &folder)).unwrap();
        let (wanted, _) = seen(&shown.png(&folder, &format!("{name}.png"))).await;
        let (got, summary) = seen(&path).await;
        assert_eq!((summary.kind, &summary.partial), (AssetKind::Image, &None), "{name}");
        assert_eq!((summary.width as usize, summary.height as usize), (shown.width, shown.height), "{name}");
        assert!(apart(&got, &wanted) < 2.0, "{name}: {}", apart(&got, &wanted));
        let (width, height, small) = thumbnail_of(&path).await;
        let (_, _, wanted) = thumbnail_of(&shown.png(&folder, "shown.png")).await;
        assert_eq!(width > height, shown.width > shown.height, "{name}");
        assert!(apart(&small, &wanted) < 3.0, "{name}: {}", apart(&small, &wanted));
    }
}

#[tokio::test]
async fn a_picture_in_tiles_of_more_pixels_than_a_frame_is_reduced() {
    let folder = folder("reduced-heif");
    let picture = Pattern::new(300, 220);
    let path = folder.join("large.heic");
    std::fs::write(
        &path,
        write(&picture, &Heif { tile: Some((128, 128)), irot: Some(3), ..Heif::default() }, &folder),
    )
    .unwrap();
    let small = decoder_with(Limits { max_pixels: 20_000, ..Limits::default() });
    let (got, summary) = seen_by(&small, &path, &spec()).await.unwrap();
    let (wanted, _) = seen(&path).await;
    assert_eq!((summary.width, summary.height), (220, 300));
    assert!(apart(&got, &wanted) < 2.0, "{}", apart(&got, &wanted));
    let none = decoder_with(Limits { max_picture_pixels: 60_000, ..Limits::default() });
    assert_eq!(seen_by(&none, &path, &spec()).await.unwrap_err().code(), "too_many_pixels");
}

#[tokio::test]
async fn a_picture_of_more_pixels_than_a_frame_is_reduced_truly() {
    let folder = folder("reduced");
    let picture = Pattern::new(1200, 900);
    let full = "-qmin 1 -q:v 1 -vf format=yuvj420p";
    for (name, args) in [("a.jpg", full), ("a.png", ""), ("a.tiff", ""), ("a.bmp", "")] {
        let path = ffmpeg_to(&folder, name, Some(&picture), args);
        for (max_pixels, by) in [(300_000, 2_u32), (100_000, 4), (20_000, 8), (5_000, 16)] {
            let decoder = decoder_with(Limits { max_pixels, ..Limits::default() });
            let (got, summary) = seen_by(&decoder, &path, &spec()).await.unwrap();
            assert_eq!((summary.width, summary.height), (1200, 900), "{name}");
            // The mean of blocks, resized as any picture is.
            let whole = image::open(&path).unwrap();
            let mean = whole.thumbnail_exact(1200_u32.div_ceil(by), 900_u32.div_ceil(by)).into_rgb8();
            let small = Pattern {
                width: mean.width() as usize,
                height: mean.height() as usize,
                rgb: mean.into_raw(),
            };
            let (wanted, _) = seen(&small.png(&folder, "mean.png")).await;
            assert!(apart(&got, &wanted) < 1.0, "{name} by {by}: {}", apart(&got, &wanted));
        }
    }
}

#[tokio::test]
async fn a_phones_108_megapixels_are_read() {
    let folder = folder("large");
    let scene =
        "-f lavfi -i testsrc2=s=1200x900 -frames:v 1 -vf scale=12000:9000:flags=neighbor,format=yuvj420p";
    let path = ffmpeg_to(&folder, "phone.jpg", None, &format!("{scene} -q:v 3 -update 1"));
    let small =
        ffmpeg_to(&folder, "small.png", None, "-f lavfi -i testsrc2=s=1200x900 -frames:v 1 -update 1");
    let (got, summary) = seen(&path).await;
    assert_eq!((summary.width, summary.height, summary.partial), (12_000, 9000, None));
    let (wanted, _) = seen(&small).await;
    // Both pictures are sampled at the same places, of blocks of one colour.
    assert!(apart(&got, &wanted) < 6.0, "{}", apart(&got, &wanted));
    let capped = decoder_with(Limits { max_picture_pixels: 100_000_000, ..Limits::default() });
    assert_eq!(seen_by(&capped, &path, &spec()).await.unwrap_err().code(), "too_many_pixels");
}

#[tokio::test]
async fn pictures_of_other_kinds_are_what_they_are() {
    let folder = folder("kinds");
    let picture = Pattern::new(320, 240);
    let (wanted, _) = seen(&picture.png(&folder, "base.png")).await;
    for (name, args) in [
        ("deflate.tiff", "-compression_algo deflate"),
        ("raw.tiff", "-compression_algo raw"),
        ("lzw.tiff", "-compression_algo lzw"),
        ("deep.tiff", "-pix_fmt rgb48le"),
        ("yuv.jpg", "-q:v 1 -vf format=yuvj444p"),
        ("lossless.webp", "-lossless 1"),
        ("lossy.webp", "-q:v 100"),
    ] {
        let path = ffmpeg_to(&folder, name, Some(&picture), args);
        let (got, summary) = seen(&path).await;
        assert_eq!((summary.kind, summary.width, summary.height), (AssetKind::Image, 320, 240), "{name}");
        assert!(apart(&got, &wanted) < 3.0, "{name}: {}", apart(&got, &wanted));
    }
}

/// A PNG or APNG with so many bytes of text before everything else.
fn with_text(png: &[u8], bytes: usize) -> Vec<u8> {
    let text = [&b"tEXtComment\0"[..], &vec![b'x'; bytes]].concat();
    let mut crc = crc32fast::Hasher::new();
    crc.update(&text);
    let chunk = [&(text.len() as u32 - 4).to_be_bytes()[..], &text, &crc.finalize().to_be_bytes()].concat();
    // Behind the signature and the header.
    [&png[..33], &chunk, &png[33..]].concat()
}

#[tokio::test]
async fn what_moves_is_a_film_whatever_its_header_holds() {
    let folder = folder("moving");
    let moving = "-f lavfi -i testsrc2=s=160x120:r=10:d=2";
    let apng = ffmpeg_to(&folder, "small.apng", None, &format!("{moving} -plays 0"));
    let large = folder.join("large.png");
    std::fs::write(&large, with_text(&std::fs::read(apng).unwrap(), 50_000)).unwrap();
    let mjpeg = ffmpeg_to(&folder, "stream.mjpeg", None, &format!("{moving} -r 25 -c:v mjpeg -q:v 2"));
    for path in [large, mjpeg] {
        let (_, summary) = seen(&path).await;
        assert_eq!(summary.kind, AssetKind::Video, "{}", path.display());
        assert!((summary.duration_secs - 2.0).abs() < 0.11, "{}: {summary:?}", path.display());
    }
    let still = ffmpeg_to(&folder, "still.png", None, &format!("{moving} -frames:v 1 -update 1"));
    let long = folder.join("long.png");
    std::fs::write(&long, with_text(&std::fs::read(still).unwrap(), 50_000)).unwrap();
    assert_eq!(seen(&long).await.1.kind, AssetKind::Image);
}

/// Towers see values as stored; a viewer of a thumbnail must know what they mean.
#[tokio::test]
async fn thumbnails_keep_the_profile_of_their_colours() {
    use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
    use image::{ImageDecoder, ImageEncoder, ImageReader};
    let dir = tempfile::tempdir().unwrap();
    let profile = |space: &[u8; 4], bytes: usize| {
        let mut profile = vec![7; bytes];
        profile[16..20].copy_from_slice(space);
        profile[36..40].copy_from_slice(b"acsp");
        profile
    };
    let pixels: Vec<u8> = (0..64 * 48 * 3).map(|i| (i % 251) as u8).collect();
    let colour = image::ExtendedColorType::Rgb8;
    for (name, profile, kept) in [
        ("p3.png", profile(b"RGB ", 600), true),
        ("p3.jpg", profile(b"RGB ", 600), true),
        ("large.png", profile(b"RGB ", 100_000), false),
        ("cmyk.jpg", profile(b"CMYK", 600), false),
    ] {
        let mut bytes = Vec::new();
        if name.ends_with("png") {
            let mut encoder = PngEncoder::new(&mut bytes);
            encoder.set_icc_profile(profile.clone()).unwrap();
            encoder.write_image(&pixels, 64, 48, colour).unwrap();
        } else {
            let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
            encoder.set_icc_profile(profile.clone()).unwrap();
            encoder.write_image(&pixels, 64, 48, colour).unwrap();
        }
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let jpeg = thumbnail(&decoder(), &path, 0.0, 32).await.unwrap();
        let mut read = ImageReader::new(std::io::Cursor::new(jpeg))
            .with_guessed_format()
            .unwrap()
            .into_decoder()
            .unwrap();
        assert_eq!(read.icc_profile().unwrap(), kept.then_some(profile), "{name}");
    }
}

#[tokio::test]
async fn a_cut_picture_is_never_whole() {
    let folder = folder("cut");
    let picture = Pattern::new(320, 240);
    let mut wholes: Vec<PathBuf> = [
        ("a.jpg", "-q:v 2 -vf format=yuvj420p"),
        ("a.png", ""),
        ("a.gif", "-frames:v 1"),
        ("a.webp", "-q:v 90"),
        ("lossless.webp", "-lossless 1"),
        ("a.tiff", ""),
        ("a.bmp", ""),
    ]
    .iter()
    .map(|(name, args)| ffmpeg_to(&folder, name, Some(&picture), args))
    .collect();
    for (name, how) in [
        ("a.heic", Heif::default()),
        ("tiles.heic", Heif { tile: Some((128, 128)), ..Heif::default() }),
        ("a.avif", Heif { av1: true, ..Heif::default() }),
    ] {
        std::fs::write(folder.join(name), write(&picture, &how, &folder)).unwrap();
        wholes.push(folder.join(name));
    }
    for whole in wholes {
        let bytes = std::fs::read(&whole).unwrap();
        let name = whole.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(seen(&whole).await.1.partial, None, "{name}");
        for percent in [1, 10, 50, 90, 99] {
            let cut = folder.join(format!("{percent}-{name}"));
            std::fs::write(&cut, &bytes[..bytes.len() * percent / 100]).unwrap();
            match seen_by(&decoder(), &cut, &spec()).await {
                Ok((_, summary)) => {
                    eprintln!("{percent} % of {name}: {:?}", summary.partial);
                    assert!(summary.partial.is_some(), "{percent} % of {name} is taken for whole");
                }
                Err(error) => {
                    eprintln!("{percent} % of {name}: {error}");
                    assert!(
                        ["corrupt_media", "unsupported_media"].contains(&error.code()),
                        "{name}: {error}"
                    );
                }
            }
        }
    }
}
