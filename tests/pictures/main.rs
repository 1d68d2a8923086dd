//! Pictures of every kind, and films whose frames are not stored as they are shown: towers and thumbnails get
//! the picture as in a viewer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod bars;
mod films;
mod heif;
mod stills;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use triptych::media::{Decoder, DecoderConfig, Limits, MediaError};
use triptych::preprocess::spec::PictureSpec;
use triptych::preprocess::{AssetSummary, ClipReader, ClipSpec, thumbnail};

/// A picture whose every place can be told: colours that run along both axes, a block in one corner.
#[derive(Clone)]
pub struct Pattern {
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<u8>,
}

impl Pattern {
    fn new(width: usize, height: usize) -> Self {
        let pixel = |x: usize, y: usize| {
            let corner = x < width / 4 && y < height / 4;
            if corner {
                [220, 30, 30]
            } else {
                [(x * 200 / width) as u8 + 20, (y * 200 / height) as u8 + 20, 120]
            }
        };
        let rgb = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
        Self { width, height, rgb }
    }

    fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        self.rgb[at..at + 3].try_into().unwrap()
    }

    /// A part of it; beyond its edges it goes on.
    fn part(&self, x0: usize, y0: usize, width: usize, height: usize) -> Self {
        let pixel = |x: usize, y: usize| self.at((x0 + x).min(self.width - 1), (y0 + y).min(self.height - 1));
        let rgb = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
        Self { width, height, rgb }
    }

    /// With another picture's pixels at each place.
    fn mapped(&self, width: usize, height: usize, from: impl Fn(usize, usize) -> (usize, usize)) -> Self {
        let pixel = |x: usize, y: usize| {
            let (x, y) = from(x, y);
            self.at(x, y)
        };
        let rgb =
            (0..height).flat_map(|y| (0..width).flat_map(|x| pixel(x, y)).collect::<Vec<_>>()).collect();
        Self { width, height, rgb }
    }

    /// A quarter turn clockwise.
    fn turned(&self) -> Self {
        self.mapped(self.height, self.width, |x, y| (y, self.height - 1 - x))
    }

    fn png(&self, folder: &Path, name: &str) -> PathBuf {
        ffmpeg_to(folder, name, Some(self), "")
    }
}

fn native() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let given = std::env::var_os("TRIPTYCH_NATIVE_DIR").map(PathBuf::from);
    given.unwrap_or_else(|| root.join(".triptych/native")).join("ffmpeg/ffmpeg")
}

/// Files of this run.
static MEDIA: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fn folder(name: &str) -> PathBuf {
    let folder = MEDIA.path().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A file that ffmpeg makes of a picture, or of the inputs among its arguments.
fn ffmpeg_to(folder: &Path, name: &str, picture: Option<&Pattern>, args: &str) -> PathBuf {
    let path = folder.join(name);
    let mut command = Command::new(native());
    command.args(["-nostdin", "-v", "error", "-y"]);
    if let Some(picture) = picture {
        let raw = folder.join("raw.rgb");
        std::fs::write(&raw, &picture.rgb).unwrap();
        command.args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-r", "25", "-stream_loop", "49", "-s"]);
        command.arg(format!("{}x{}", picture.width, picture.height)).arg("-i").arg(raw);
        if path.extension().is_some_and(|end| ["png", "jpg", "tiff", "bmp", "webp"].iter().any(|e| end == *e))
        {
            command.args(["-frames:v", "1", "-update", "1"]);
        }
    }
    let done = command.args(args.split_whitespace()).arg(&path).output().unwrap();
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    path
}

fn decoder_with(limits: Limits) -> Decoder {
    let worker_exe = PathBuf::from(env!("CARGO_BIN_EXE_triptych"));
    Decoder::new(DecoderConfig { worker_exe, ffmpeg: native(), limits })
}

fn decoder() -> Decoder {
    decoder_with(Limits { wall_clock_secs: 120, ..Limits::default() })
}

fn spec() -> ClipSpec {
    ClipSpec::mmv(2.5, 2, PictureSpec::mmv(64, 64, true, false), (48_000, 38_400), 0.8)
}

/// The same, for frames as they are stored.
fn stored(spec: ClipSpec) -> ClipSpec {
    ClipSpec { video: PictureSpec { shown: false, ..spec.video }, ..spec }
}

/// The first frame as the towers get it, and what is known of the file.
async fn seen_by(
    decoder: &Decoder,
    path: &Path,
    spec: &ClipSpec,
) -> Result<(Vec<u8>, AssetSummary), MediaError> {
    let mut reader = ClipReader::open(decoder, path, spec, None).await?;
    let mut first = None;
    while let Some(clip) = reader.next().await? {
        let frames = clip.frames.expect("a picture");
        first.get_or_insert(frames[..spec.video.frame_bytes()].to_vec());
    }
    Ok((first.expect("a clip"), reader.summary()))
}

async fn seen(path: &Path) -> (Vec<u8>, AssetSummary) {
    let got = seen_by(&decoder(), path, &spec()).await;
    got.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Mean difference of two pictures' bytes.
fn apart(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum: u64 = a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / a.len() as f64
}

/// The thumbnail's size and pixels.
async fn thumbnail_of(path: &Path) -> (u32, u32, Vec<u8>) {
    let jpeg = thumbnail(&decoder(), path, 0.0, 256).await.unwrap();
    let picture = image::load_from_memory(&jpeg).unwrap().into_rgb8();
    (picture.width(), picture.height(), picture.into_raw())
}
