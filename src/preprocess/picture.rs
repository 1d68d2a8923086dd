//! Turns a raw frame into the input of a tower, as a bundle describes it.

use super::frames::{Part, Resizer};
use super::pillow::Resampler;
use super::spec::{PictureSpec, Resample, ResizeRule, Size};

/// Rows and columns of patches of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchGrid {
    /// Number of rows of patches.
    pub rows: usize,
    /// Number of columns of patches.
    pub columns: usize,
}

/// The prepared way from frames of one size to inputs.
#[derive(Debug, Clone)]
pub struct Preparer {
    kernel: Kernel,
    patches: Option<Patches>,
}

#[derive(Debug, Clone)]
enum Kernel {
    Mmv(Resizer),
    Pillow(Resampler),
}

/// The cut into patches, with room for the picture before it.
#[derive(Debug, Clone)]
struct Patches {
    side: usize,
    grid: PatchGrid,
    picture: Vec<u8>,
}

impl Preparer {
    /// For frames of `width` x `height`. With `grid`, the picture is resized to that grid of patches instead
    /// of its own.
    #[must_use]
    pub fn new(spec: &PictureSpec, width: usize, height: usize, grid: Option<PatchGrid>) -> Self {
        let (to, kept) = sizes(spec, width, height, grid);
        let kernel = match spec.resample {
            Resample::Mmv => Kernel::Mmv(Resizer::new(width, height, to, kept)),
            other => Kernel::Pillow(Resampler::new(width, height, to, kept, other)),
        };
        Self { kernel, patches: Patches::new(spec, kept) }
    }

    /// Like [`Self::new`] for the part `picture` of a frame, as if it were the whole frame, when [`Self::run`]
    /// is given only the part `area`. `None` if `area` is too small.
    #[must_use]
    pub fn of_part(spec: &PictureSpec, picture: Part, area: Part, grid: Option<PatchGrid>) -> Option<Self> {
        let (to, kept) = sizes(spec, picture.width, picture.height, grid);
        let kernel = match spec.resample {
            Resample::Mmv => Kernel::Mmv(Resizer::of_part(picture, area, to, kept)?),
            other => Kernel::Pillow(Resampler::of_part(picture, area, to, kept, other)?),
        };
        Some(Self { kernel, patches: Patches::new(spec, kept) })
    }

    /// Whether it takes frames of this size.
    #[must_use]
    pub fn fits(&self, width: usize, height: usize) -> bool {
        match &self.kernel {
            Kernel::Mmv(resizer) => resizer.fits(width, height),
            Kernel::Pillow(resampler) => resampler.fits(width, height),
        }
    }

    /// The patches of each frame, if frames are cut into patches.
    #[must_use]
    pub fn grid(&self) -> Option<PatchGrid> {
        self.patches.as_ref().map(|patches| patches.grid)
    }

    /// Makes the input of one frame: `rgb` is u8 [height, width, 3], `out` has [`PictureSpec::frame_bytes`]. If
    /// a slice has another length, leaves `out` unchanged and returns false.
    pub fn run(&mut self, rgb: &[u8], out: &mut [u8]) -> bool {
        let kernel = &mut self.kernel;
        let mut resize = |out: &mut [u8]| match kernel {
            Kernel::Mmv(resizer) => resizer.run(rgb, out),
            Kernel::Pillow(resampler) => resampler.run(rgb, out),
        };
        let Some(patches) = &mut self.patches else { return resize(out) };
        resize(&mut patches.picture) && patches.cut(out)
    }
}

fn sizes(spec: &PictureSpec, width: usize, height: usize, grid: Option<PatchGrid>) -> (Size, Size) {
    match (spec.resize, grid) {
        (ResizeRule::Patches { patch, .. }, Some(PatchGrid { rows, columns })) => {
            let size = Size { height: rows * patch, width: columns * patch };
            (size, size)
        }
        _ => spec.sizes(Size { height, width }),
    }
}

impl Patches {
    fn new(spec: &PictureSpec, kept: Size) -> Option<Self> {
        let ResizeRule::Patches { patch, .. } = spec.resize else { return None };
        let grid = PatchGrid { rows: kept.height / patch, columns: kept.width / patch };
        Some(Self { side: patch, grid, picture: vec![0; kept.height * kept.width * 3] })
    }

    /// Arranges the picture patch by patch. Unused patches become zeros.
    fn cut(&self, out: &mut [u8]) -> bool {
        let Self { side, grid, picture } = self;
        let (strip, line) = (side * 3, side * grid.columns * 3);
        let filled = picture.len();
        let Some((patches, rest)) = out.split_at_mut_checked(filled) else { return false };
        rest.fill(0);
        let mut strips = patches.chunks_exact_mut(strip);
        for row in picture.chunks_exact(line * side) {
            for column in 0..grid.columns {
                for source in row.chunks_exact(line) {
                    let Some(strip_out) = strips.next() else { return false };
                    strip_out.copy_from_slice(&source[column * strip..(column + 1) * strip]);
                }
            }
        }
        true
    }
}
