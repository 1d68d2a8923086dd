//! The self-check: `goldens.safetensors` holds inputs with the outputs that PyTorch gave; the towers of this
//! process must reproduce them. A hash finds a damaged file; this finds a wrong export, runtime or device.

use std::collections::BTreeMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype as StoredType, SafeTensors};

use super::bundle::Bundle;
use super::manifest::{Dtype, TowerSpec};
use super::queue::Batching;
use super::sessions::Sessions;
use super::tokenizer::TextTokenizer;
use super::tower::Input;
use super::{ModelError, SpaceVectors};
use crate::types::{Modality, Space};

/// How well a tower's output in one space agrees with its golden vectors.
#[derive(Debug, Clone)]
pub struct GoldenResult {
    /// Modality of the tower.
    pub tower: Modality,
    /// Space of the output.
    pub space: Space,
    /// Number of golden vectors compared.
    pub vectors: usize,
    /// The largest 1 - cosine among them, from 0 to 2.
    pub worst_one_minus_cosine: f64,
}

/// Golden inputs and outputs of one tower.
struct GoldenTower {
    inputs: Vec<Input>,
    /// Per space, one vector for each input.
    outputs: BTreeMap<Space, Vec<Vec<f32>>>,
}

/// The goldens of all towers, in the towers' order.
pub(super) struct GoldenSet {
    towers: Vec<GoldenTower>,
    files: Vec<String>,
    allowed: f64,
}

impl GoldenSet {
    /// Reads the goldens of a bundle. `allowed` is the largest 1 - cosine that passes.
    pub fn read(bundle: &Bundle, specs: &[TowerSpec], allowed: f64) -> Result<Self, ModelError> {
        let name = &bundle.manifest.goldens.file;
        let bytes = bundle.read(name)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| bundle.invalid(name, e))?;
        let towers: Result<Vec<_>, String> = specs.iter().map(|spec| read_tower(&tensors, spec)).collect();
        let files = specs.iter().map(|spec| bundle.file_name(&spec.file)).collect();
        Ok(Self { towers: towers.map_err(|reason| bundle.invalid(name, reason))?, files, allowed })
    }

    /// Compares the tokenizer with the golden token ids.
    pub fn check_tokenizer(
        &self,
        bundle: &Bundle,
        specs: &[TowerSpec],
        tokenizer: &TextTokenizer,
    ) -> Result<(), ModelError> {
        let texts = &bundle.manifest.goldens.texts;
        let Some(index) = specs.iter().position(|spec| spec.modality == Modality::Text) else {
            return Ok(());
        };
        let rows = &self.towers[index].inputs;
        if texts.len() != rows.len() {
            let reason = format!("got {} golden texts, but {} rows of text.input", texts.len(), rows.len());
            return Err(bundle.invalid("manifest.json", reason));
        }
        for (text, row) in texts.iter().zip(rows) {
            let (ids, _) = tokenizer.encode(text)?;
            if !matches!(row, Input::I64(golden) if *golden == ids) {
                return Err(ModelError::GoldenMismatch {
                    file: bundle.file_name(
                        bundle.manifest.preprocessing.text.as_ref().map_or("", |text| &text.tokenizer),
                    ),
                    what: "tokenizer".to_owned(),
                    reason: format!("expected the token ids {row:?} for `{text}`, got {ids:?}"),
                });
            }
        }
        Ok(())
    }

    /// Runs a worker's towers on their golden inputs, one by one and in batches, as in service.
    pub fn check(
        &self,
        worker: &mut Sessions,
        towers: &[usize],
        specs: &[TowerSpec],
        batching: &[Batching],
    ) -> Result<Vec<GoldenResult>, ModelError> {
        let mut results = Vec::new();
        for &tower in towers {
            let mut worst = BTreeMap::new();
            for batch in [1, batching[tower].max] {
                self.check_tower(worker, tower, batch, &mut worst)?;
            }
            for (space, worst_one_minus_cosine) in worst {
                let modality = specs[tower].modality;
                // NaN must fail, so the comparison tests for passing.
                let passes = worst_one_minus_cosine <= self.allowed;
                if !passes {
                    let file = self.files[tower].clone();
                    return Err(ModelError::golden(
                        file,
                        modality,
                        &space,
                        worst_one_minus_cosine,
                        self.allowed,
                    ));
                }
                let vectors = self.towers[tower].inputs.len();
                results.push(GoldenResult { tower: modality, space, vectors, worst_one_minus_cosine });
            }
        }
        Ok(results)
    }

    fn check_tower(
        &self,
        worker: &mut Sessions,
        tower: usize,
        batch: usize,
        worst: &mut BTreeMap<Space, f64>,
    ) -> Result<(), ModelError> {
        let golden = &self.towers[tower];
        let inputs: Vec<&Input> = golden.inputs.iter().collect();
        let mut rows: Vec<SpaceVectors> = Vec::new();
        for inputs in inputs.chunks(batch) {
            rows.extend(worker.run(tower, inputs)?.into_iter().collect::<Result<Vec<_>, _>>()?);
        }
        for (space, expected) in &golden.outputs {
            for (row, expected) in rows.iter().zip(expected) {
                let difference = row.get(space).map_or(f64::NAN, |got| one_minus_cosine(got, expected));
                let slot = worst.entry(space.clone()).or_insert(0.0);
                // Not f64::max, which would ignore a NaN.
                if difference.is_nan() || difference > *slot {
                    *slot = difference;
                }
            }
        }
        Ok(())
    }
}

fn read_tower(tensors: &SafeTensors<'_>, spec: &TowerSpec) -> Result<GoldenTower, String> {
    let tower = spec.modality;
    let name = format!("{tower}.input");
    let input = tensors.tensor(&name).map_err(|_| format!("tensor `{name}` is missing"))?;
    let count = input.shape().first().copied().unwrap_or(0);
    if count < 2 || input.shape()[1..] != spec.row[..] {
        return Err(format!(
            "expected `{name}` of shape [2 or more, {:?}], got {:?}",
            spec.row,
            input.shape()
        ));
    }
    let inputs = match spec.dtype {
        Dtype::U8 => values::<u8, 1>(&input, StoredType::U8, |b| b[0])
            .map(|v| v.chunks_exact(spec.row_len()).map(|row| Input::U8(row.into())).collect()),
        Dtype::F32 => values(&input, StoredType::F32, f32::from_le_bytes)
            .map(|v| v.chunks_exact(spec.row_len()).map(|row| Input::F32(row.into())).collect()),
        Dtype::I64 => values(&input, StoredType::I64, i64::from_le_bytes)
            .map(|v| v.chunks_exact(spec.row_len()).map(|row| Input::I64(row.into())).collect()),
    };
    let inputs = inputs
        .ok_or_else(|| format!("expected `{name}` of type {:?}, got {:?}", spec.dtype, input.dtype()))?;
    let mut outputs = BTreeMap::new();
    for (space, _, dim) in &spec.outputs {
        let name = format!("{tower}.{space}");
        let tensor = tensors.tensor(&name).map_err(|_| format!("tensor `{name}` is missing"))?;
        let values = (tensor.shape() == [count, *dim])
            .then(|| values(&tensor, StoredType::F32, f32::from_le_bytes))
            .flatten()
            .ok_or_else(|| format!("expected `{name}` to be f32 [{count}, {dim}]"))?;
        outputs.insert(space.clone(), values.chunks_exact(*dim).map(<[f32]>::to_vec).collect());
    }
    Ok(GoldenTower { inputs, outputs })
}

/// A tensor's values, if it has this type.
fn values<T, const N: usize>(
    tensor: &TensorView<'_>,
    stored: StoredType,
    from_bytes: fn([u8; N]) -> T,
) -> Option<Vec<T>> {
    (tensor.dtype() == stored)
        .then(|| tensor.data().as_chunks::<N>().0.iter().map(|bytes| from_bytes(*bytes)).collect())
}

/// 1 - cosine in f64; NaN if either vector has no direction.
fn one_minus_cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    1.0 - ab / (aa * bb).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_see_direction_only() {
        assert!(one_minus_cosine(&[1.0, 2.0], &[10.0, 20.0]).abs() < 1e-12);
        assert!((one_minus_cosine(&[1.0, 0.0], &[-3.0, 0.0]) - 2.0).abs() < 1e-12);
        assert!(one_minus_cosine(&[0.0, 0.0], &[1.0, 0.0]).is_nan());
    }
}
