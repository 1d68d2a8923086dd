//! Combines several weighted parts into one vector.

use super::{QueryPart, SearchError};
use crate::types::{Embedding, Modality, Space};

/// Shortest weighted mean whose direction is still meaningful.
const LEAST_NORM: f64 = 1e-3;

/// A query in one space. The weighted mean of several cosines equals the cosine with the weighted mean of the
/// vectors, times the length of that mean, so one search answers any number of parts.
#[derive(Debug, Clone)]
pub struct Combined {
    /// Direction of the weighted mean.
    pub vector: Embedding,
    /// Length of the weighted mean, by which cosines are multiplied.
    pub scale: f32,
}

impl Combined {
    /// Combines the parts in one space.
    ///
    /// # Errors
    /// [`SearchError::BadSpace`] if a part has no vector in the space; [`SearchError::BadRequest`] if no part
    /// has a weight above 0, or the parts cancel out.
    pub fn new(parts: &[QueryPart], space: &Space) -> Result<Self, SearchError> {
        let vectors: Vec<(&Embedding, f64)> = parts
            .iter()
            .map(|part| {
                let vector = part.vectors.get(space).ok_or_else(|| SearchError::BadSpace(space.clone()))?;
                Ok((vector, f64::from(part.weight)))
            })
            .collect::<Result<_, SearchError>>()?;
        if !vectors.iter().any(|(_, weight)| *weight > 0.0) {
            return Err(SearchError::bad(
                "query",
                "at least one part of the query must have a weight above 0",
            ));
        }
        // A single stored vector finds itself with a score of 1, whatever its weight.
        if let [(vector, _)] = vectors[..] {
            return Ok(Self { vector: vector.clone(), scale: 1.0 });
        }
        let total: f64 = vectors.iter().map(|(_, weight)| weight.abs()).sum();
        let dim = vectors.first().map_or(0, |(vector, _)| vector.dim());
        let mut mean = vec![0.0_f64; dim];
        for (vector, weight) in &vectors {
            let share = weight / total;
            mean.iter_mut().zip(vector.as_slice()).for_each(|(m, v)| *m += share * f64::from(*v));
        }
        let norm = mean.iter().map(|m| m * m).sum::<f64>().sqrt();
        let direction = mean.into_iter().map(|m| (m / norm.max(LEAST_NORM)) as f32).collect();
        match Embedding::new(direction, dim) {
            Ok(vector) if norm > LEAST_NORM => Ok(Self { vector, scale: norm as f32 }),
            _ => Err(SearchError::bad(
                "query",
                "the parts of the query cancel each other out; change their weights",
            )),
        }
    }
}

/// The unit vector that a query of these parts searches with.
///
/// # Errors
/// As [`Combined::new`].
pub fn combined(parts: &[QueryPart], space: &Space) -> Result<Embedding, SearchError> {
    Combined::new(parts, space).map(|combined| combined.vector)
}

/// Modalities of the parts, without duplicates, in descending order of weight.
#[must_use]
pub fn modalities(parts: &[QueryPart]) -> Vec<Modality> {
    let mut parts: Vec<&QueryPart> = parts.iter().collect();
    parts.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    let mut found = Vec::new();
    for part in parts {
        if !found.contains(&part.modality) {
            found.push(part.modality);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;

    fn part(values: [f32; 3], weight: f32) -> QueryPart {
        let vectors = BTreeMap::from([(Space::new("s"), Embedding::new(values.to_vec(), 3).unwrap())]);
        QueryPart { weight, ..QueryPart::new(Modality::Text, vectors) }
    }

    #[test]
    fn one_vector_scores_as_the_weighted_mean_of_the_parts_does() {
        let parts = [part([1.0, 0.2, 0.0], 2.0), part([0.0, 1.0, 0.3], 1.0), part([0.4, 0.0, 1.0], -0.5)];
        let space = Space::new("s");
        let combined = Combined::new(&parts, &space).unwrap();
        for stored in [[1.0, 0.0, 0.0], [0.2, -1.0, 0.7], [-0.3, 0.3, 0.9]] {
            let stored = Embedding::new(stored.to_vec(), 3).unwrap();
            let weighted = parts.iter().map(|p| p.weight * p.vectors[&space].cosine(&stored)).sum::<f32>();
            let score = combined.vector.cosine(&stored) * combined.scale;
            assert!((score - weighted / 3.5).abs() < 1e-6, "{score} {}", weighted / 3.5);
        }
    }

    #[test]
    fn parts_without_an_answer_are_refused() {
        let space = Space::new("s");
        let a = || part([1.0, 0.0, 0.0], 1.0);
        for parts in [vec![part([1.0, 0.0, 0.0], -1.0)], vec![a(), part([1.0, 0.0, 0.0], -1.0)], vec![]] {
            assert_eq!(Combined::new(&parts, &space).unwrap_err().code(), "invalid_value");
        }
        assert_eq!(Combined::new(&[a()], &Space::new("x")).unwrap_err().code(), "bad_space");
        let one = Combined::new(&[part([1.0, 0.5, 0.0], 0.3)], &space).unwrap();
        assert_eq!((one.vector, one.scale), (part([1.0, 0.5, 0.0], 1.0).vectors[&space].clone(), 1.0));
    }
}
