//! Size of a picture after the resize, by the rules of `docs/bundle.md`.

use super::spec::{Fit, PictureSpec, Resample, ResizeRule, Size};

/// Interval at which the search for a scale ends.
const EPSILON: f64 = 1e-5;

impl PictureSpec {
    /// Size of a picture of this size (not 0) after the resize, and of the part of it that is kept.
    #[must_use]
    pub fn sizes(&self, picture: Size) -> (Size, Size) {
        let picture = Size { height: picture.height.max(1), width: picture.width.max(1) };
        let to = match self.resize {
            ResizeRule::ShorterSide { size } => shorter_side(picture, self.side(size)),
            ResizeRule::Exact(size) => size,
            ResizeRule::Patches { patch, max_patches, multiple, fit } => match fit {
                Fit::Siglip2 => largest_rounded_up(picture, patch, max_patches, multiple),
                Fit::Gemma => whole_budget(picture, patch, max_patches, multiple),
            },
        };
        (to, self.crop.unwrap_or(to))
    }

    /// Shorter side after the resize. MMV's resize has nothing to fill a larger crop with, so it enlarges.
    fn side(&self, size: usize) -> usize {
        match (self.resample, self.crop) {
            (Resample::Mmv, Some(crop)) => size.max(crop.height).max(crop.width),
            _ => size,
        }
    }
}

fn shorter_side(picture: Size, size: usize) -> Size {
    let Size { height, width } = picture;
    if width <= height {
        Size { height: height * size / width, width: size }
    } else {
        Size { height: size, width: width * size / height }
    }
}

/// `get_image_size_for_max_num_patches` of transformers, operation by operation.
fn largest_rounded_up(picture: Size, patch: usize, max_patches: usize, multiple: usize) -> Size {
    let (patch, unit) = (patch as f64, multiple as f64);
    let side = |scale: f64, size: usize| ((size as f64 * scale / unit).ceil() * unit).max(unit);
    let (mut low, mut high) = (EPSILON / 10.0, 100.0);
    while high - low >= EPSILON {
        let scale = f64::midpoint(low, high);
        let patches = (side(scale, picture.height) / patch) * (side(scale, picture.width) / patch);
        if patches <= max_patches as f64 {
            low = scale;
        } else {
            high = scale;
        }
    }
    Size { height: side(low, picture.height) as usize, width: side(low, picture.width) as usize }
}

/// `get_aspect_ratio_preserving_size` of transformers, operation by operation.
fn whole_budget(picture: Size, patch: usize, max_patches: usize, multiple: usize) -> Size {
    let Size { height, width } = picture;
    let budget = (max_patches * patch * patch) as f64;
    let factor = (budget / (height as f64 * width as f64)).sqrt();
    let side = |size: usize| (factor * size as f64 / multiple as f64).floor() as usize * multiple;
    let longest = max_patches / (multiple / patch).pow(2) * multiple;
    match (side(height), side(width)) {
        // The budget is at least one unit, so one of the two has room.
        (0, _) => Size { height: multiple, width: (width / height * multiple).clamp(multiple, longest) },
        (_, 0) => Size { height: (height / width * multiple).clamp(multiple, longest), width: multiple },
        (height, width) => Size { height, width },
    }
}
