//! Writes a decoded picture upright as RGB, strip by strip, so that memory never holds a second picture of
//! its size.

use std::io::Write;

use image::DynamicImage;
use image::metadata::Orientation;

/// Lines of the upright picture per strip.
const STRIP: u32 = 64;

/// Writes the pixels as 8-bit RGB without transparency, like `apply_orientation` followed by `into_rgb8`.
pub fn write_rgb(
    picture: &DynamicImage,
    orientation: Orientation,
    out: &mut impl Write,
) -> std::io::Result<()> {
    use Orientation as O;
    let (width, height) = (picture.width(), picture.height());
    let sideways = is_sideways(orientation);
    let backwards = matches!(orientation, O::Rotate180 | O::FlipVertical | O::Rotate270 | O::Rotate270FlipH);
    let lines = if sideways { width } else { height };
    let mut done = 0;
    while done < lines {
        let count = STRIP.min(lines - done);
        let from = if backwards { lines - done - count } else { done };
        let mut strip = if sideways {
            picture.crop_imm(from, 0, count, height)
        } else {
            picture.crop_imm(0, from, width, count)
        };
        strip.apply_orientation(orientation);
        out.write_all(&strip.into_rgb8())?;
        done += count;
    }
    Ok(())
}

/// Width and height after applying the orientation.
pub fn upright_size(picture: &DynamicImage, orientation: Orientation) -> (u32, u32) {
    let (width, height) = (picture.width(), picture.height());
    if is_sideways(orientation) { (height, width) } else { (width, height) }
}

/// Whether the orientation swaps width and height.
pub fn is_sideways(orientation: Orientation) -> bool {
    use Orientation as O;
    matches!(orientation, O::Rotate90 | O::Rotate270 | O::Rotate90FlipH | O::Rotate270FlipH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_equal_the_whole_picture_turned() {
        let base = image::RgbaImage::from_fn(150, 131, |x, y| {
            image::Rgba([x as u8, y as u8, (x * y) as u8, (x + y) as u8])
        });
        let pictures = [
            DynamicImage::ImageRgba8(base.clone()),
            DynamicImage::ImageRgb8(DynamicImage::ImageRgba8(base.clone()).into_rgb8()),
            DynamicImage::ImageLumaA8(DynamicImage::ImageRgba8(base.clone()).into_luma_alpha8()),
            DynamicImage::ImageRgba16(DynamicImage::ImageRgba8(base).into_rgba16()),
        ];
        for picture in pictures {
            for exif in 1..=8 {
                let orientation = Orientation::from_exif(exif).unwrap();
                let mut whole = picture.clone();
                whole.apply_orientation(orientation);
                let size = (whole.width(), whole.height());
                let mut got = Vec::new();
                write_rgb(&picture, orientation, &mut got).unwrap();
                assert_eq!(upright_size(&picture, orientation), size, "{exif}");
                assert!(got == whole.into_rgb8().into_raw(), "{exif} {:?}", picture.color());
            }
        }
    }
}
