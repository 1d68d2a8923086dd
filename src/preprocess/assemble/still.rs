//! The input of a tower from a still picture.

use std::sync::Arc;

use crate::preprocess::bars::Held;
use crate::preprocess::picture::{PatchGrid, Preparer};
use crate::preprocess::spec::PictureSpec;

/// Input of a tower from a still picture, without its bars if they are to be removed, and its grid.
#[must_use]
pub fn still(spec: &PictureSpec, rgb: &[u8], width: usize, height: usize) -> (Arc<[u8]>, Option<PatchGrid>) {
    if spec.unbarred {
        let mut held = Held::new(1, *spec);
        held.push(rgb, width, height);
        if let Some(found) = held.window(1) {
            return found;
        }
    }
    let mut preparer = Preparer::new(spec, width, height, None);
    let mut out = vec![0; spec.frame_bytes()];
    preparer.run(rgb, &mut out);
    (out.into(), preparer.grid())
}
