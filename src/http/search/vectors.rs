//! Vectors as the API shows them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::types::Embedding;

/// Encoding of vectors.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// A list of numbers.
    #[default]
    Float,
    /// Little-endian f32 in base64.
    Base64,
}

/// A vector, as numbers or in base64.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum VectorView {
    /// Numbers.
    Float(Vec<f32>),
    /// Little-endian f32 in base64.
    Base64(String),
}

impl VectorView {
    /// A vector in the requested encoding.
    pub fn of(vector: &Embedding, encoding: Encoding) -> Self {
        match encoding {
            Encoding::Float => Self::Float(vector.as_slice().to_vec()),
            Encoding::Base64 => {
                let bytes: Vec<u8> = vector.as_slice().iter().flat_map(|value| value.to_le_bytes()).collect();
                Self::Base64(STANDARD.encode(bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_little_endian_f32() {
        let vector = Embedding::new(vec![0.6, 0.8], 2).unwrap();
        let VectorView::Base64(text) = VectorView::of(&vector, Encoding::Base64) else { panic!("base64") };
        let bytes = STANDARD.decode(text).unwrap();
        assert_eq!(bytes, [0.6_f32.to_le_bytes(), 0.8_f32.to_le_bytes()].concat());
    }
}
