//! Model bundles and the towers that run them in ONNX Runtime.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::native::NativeParts;
use crate::preprocess::ClipSpec;
use crate::types::{Modality, ModelId, Space};

/// Where the towers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// CUDA where it works, else the CPU, with one line saying so.
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA device N; an error where it does not work.
    Cuda(u32),
}

impl FromStr for Device {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            other => other
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("`{other}` is not auto, cpu, cuda or cuda:N")),
        }
    }
}

/// Interactive work goes before bulk indexing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A person waits.
    Interactive,
    /// A job waits.
    Bulk,
}

/// A tower's raw (un-normalised) output per space, for one input.
pub type SpaceVectors = BTreeMap<Space, Vec<f32>>;

/// Why a bundle or a tower failed.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Placeholder until the runtime lands.
    #[error("no such bundle: {0}")]
    Missing(String),
}

impl ModelError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "model_missing"
    }
}

/// A verified bundle folder.
#[derive(Debug, Clone)]
pub struct Bundle {
    id: ModelId,
}

impl Bundle {
    /// Reads the manifest and verifies every SHA-256.
    ///
    /// # Errors
    /// [`ModelError`] naming the file that is missing or differs.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        Err(ModelError::Missing(dir.display().to_string()))
    }
    /// Digest of manifest and files.
    #[must_use]
    pub fn id(&self) -> &ModelId {
        &self.id
    }
    /// Name in the manifest.
    #[must_use]
    pub fn name(&self) -> &str {
        ""
    }
    /// Spaces and their dimensions, in the manifest's order from finest to coarsest.
    #[must_use]
    pub fn spaces(&self) -> &[(Space, usize)] {
        &[]
    }
    /// Whether a modality has vectors in a space.
    #[must_use]
    pub fn has(&self, _modality: Modality, _space: &Space) -> bool {
        false
    }
    /// The finest space both sides share, if any.
    #[must_use]
    pub fn shared_space(&self, _a: Modality, _b: Modality) -> Option<Space> {
        None
    }
    /// How assets are cut and what the towers take. `stride_secs` None: one window.
    #[must_use]
    pub fn clip_spec(&self, stride_secs: Option<f64>) -> ClipSpec {
        ClipSpec {
            fps: 0.0,
            frames: 0,
            resize_shorter_side: 0,
            crop: 0,
            sample_rate_hz: 0,
            samples: 0,
            stride_secs: stride_secs.unwrap_or(0.0),
        }
    }
    /// The manifest as JSON, for `/v1/models` and `model show`.
    #[must_use]
    pub fn manifest_json(&self) -> &serde_json::Value {
        &serde_json::Value::Null
    }
}

/// The towers of one bundle, loaded and self-checked. Cheap to clone, safe to share.
#[derive(Clone)]
pub struct Towers {
    bundle: Arc<Bundle>,
}

impl Towers {
    /// Loads every tower, runs the goldens, warms up.
    ///
    /// # Errors
    /// [`ModelError`]: runtime library missing or too old, CUDA missing under `cuda`, goldens differ.
    pub fn load(
        bundle: Arc<Bundle>,
        _native: &NativeParts,
        _device: Device,
        _threads: usize,
    ) -> Result<Self, ModelError> {
        Ok(Self { bundle })
    }
    /// The bundle.
    #[must_use]
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }
    /// `cpu` or `cuda:N`.
    #[must_use]
    pub fn device_name(&self) -> String {
        String::new()
    }
    /// Frames u8 [T, H, W, 3] of one clip.
    ///
    /// # Errors
    /// [`ModelError`].
    pub async fn video(&self, _frames: Arc<[u8]>, _priority: Priority) -> Result<SpaceVectors, ModelError> {
        Ok(SpaceVectors::new())
    }
    /// One picture u8 [H, W, 3].
    ///
    /// # Errors
    /// [`ModelError`].
    pub async fn image(&self, _pixels: Arc<[u8]>, _priority: Priority) -> Result<SpaceVectors, ModelError> {
        Ok(SpaceVectors::new())
    }
    /// PCM f32 [samples].
    ///
    /// # Errors
    /// [`ModelError`].
    pub async fn audio(&self, _pcm: Arc<[f32]>, _priority: Priority) -> Result<SpaceVectors, ModelError> {
        Ok(SpaceVectors::new())
    }
    /// A text (tokenised inside).
    ///
    /// # Errors
    /// [`ModelError`] `no_known_words`, `text_too_long`.
    pub async fn text(&self, _text: &str, _priority: Priority) -> Result<SpaceVectors, ModelError> {
        Ok(SpaceVectors::new())
    }
}
