//! Model bundles and the towers that run them in ONNX Runtime. docs/model-runtime.md has the reasons.

mod bundle;
mod error;
mod golden;
mod manifest;
mod onnx;
mod queue;
mod runtime;
mod timings;
mod tokenizer;
mod tower;
mod towers;
mod worker;

use std::collections::BTreeMap;
use std::str::FromStr;

pub use bundle::Bundle;
pub use error::ModelError;
pub use golden::GoldenResult;
pub use runtime::environment;
pub use timings::Timings;
pub use tokenizer::MAX_TEXT_CHARS;
pub use towers::{Pending, Towers};

use crate::types::Space;

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
