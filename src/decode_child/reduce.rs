//! Reduces pictures with more pixels than a frame may have.

use image::DynamicImage;

use crate::ffmpeg::scale::divided;

/// Replaces blocks of pixels by their mean.
pub fn mean(picture: &DynamicImage, by: u32) -> DynamicImage {
    let (width, height) = divided(picture.width(), picture.height(), by);
    picture.thumbnail_exact(width, height)
}
