//! Vectors cut to a shorter length.

use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Bundle;
use crate::manifest::SpaceSpec;
use crate::model::ModelError;
use crate::types::{ModelId, Space};

/// A length that vectors are cut to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The space; `None`: every space that allows it.
    pub space: Option<Space>,
    /// Number of values.
    pub dim: usize,
}

impl FromStr for Cut {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (space, dim) = match text.rsplit_once('=') {
            Some((space, dim)) => (Some(Space::new(space)), dim),
            None => (None, text),
        };
        let dim = dim.parse().map_err(|_| format!("expected N or SPACE=N, got `{text}`"))?;
        Ok(Self { space, dim })
    }
}

impl Bundle {
    /// The same bundle with shorter vectors. It is another model: vectors of both never meet.
    ///
    /// # Errors
    /// [`ModelError::BadDim`] if the bundle does not allow a length.
    pub fn cut(mut self, cuts: &[Cut]) -> Result<Self, ModelError> {
        for cut in cuts {
            let allows = |space: &SpaceSpec| {
                let wanted = cut.space.as_ref().is_none_or(|wanted| *wanted == space.name);
                wanted && (space.dim == cut.dim || space.dims.contains(&cut.dim))
            };
            let found: Vec<Space> = self
                .manifest
                .spaces
                .iter()
                .filter(|space| allows(space))
                .map(|space| space.name.clone())
                .collect();
            if found.is_empty() {
                return Err(self.cannot_cut(cut));
            }
            for (space, dim) in &mut self.spaces {
                if found.contains(space) {
                    *dim = cut.dim;
                }
            }
        }
        let whole = self.manifest.spaces.iter().map(|space| space.dim);
        let changed: Vec<String> = (self.spaces.iter().zip(whole))
            .filter(|((_, dim), whole)| dim != whole)
            .map(|((space, dim), _)| format!("{space}={dim}"))
            .collect();
        if !changed.is_empty() {
            let identity = format!("{}\n{}", self.id, changed.join("\n"));
            self.id = ModelId(Arc::from(hex::encode(Sha256::digest(identity))));
        }
        Ok(self)
    }

    fn cannot_cut(&self, cut: &Cut) -> ModelError {
        let Cut { space, dim } = cut;
        let choices = self.manifest.spaces.iter().map(|space| {
            let dims: Vec<String> = std::iter::once(space.dim)
                .chain(space.dims.iter().copied())
                .map(|dim| dim.to_string())
                .collect();
            format!("{} ({})", space.name, dims.join(", "))
        });
        let choices: Vec<String> = choices.collect();
        let requested = space.as_ref().map_or_else(|| dim.to_string(), |space| format!("{space}={dim}"));
        ModelError::BadDim(format!(
            "cannot cut vectors to {requested}: the model {} has vectors of these lengths: {}",
            self.name(),
            choices.join("; ")
        ))
    }
}
