//! The self-check: `goldens.safetensors` holds inputs with the outputs that PyTorch gave; the towers of this
//! process must reproduce them. A hash finds a damaged file; this finds a wrong export, runtime or device.

use std::collections::BTreeMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype as StoredType, SafeTensors};

use super::bundle::Bundle;
use super::queue::Batching;
use super::sessions::Sessions;
use super::tokenizer::{Role, TextTokenizer};
use super::tower::{Input, Tensor, Values};
use super::{ModelError, SpaceVectors};
use crate::manifest::{Dtype, InputSpec, TowerSpec};
use crate::types::{Modality, Space};

/// How well a tower's output in one space agrees with its golden vectors.
#[derive(Debug, Clone)]
pub struct GoldenResult {
    /// Modality of the tower.
    pub tower: Modality,
    /// Name of the tower.
    pub name: String,
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

    /// Compares the tokenizer of a tower with the golden token ids.
    pub fn check_tokenizer(
        &self,
        bundle: &Bundle,
        specs: &[TowerSpec],
        tower: usize,
        tokenizer: &TextTokenizer,
    ) -> Result<(), ModelError> {
        let (rows, spec) = (&self.towers[tower].inputs, &specs[tower]);
        let texts = bundle.manifest.goldens.texts_of(&spec.name);
        if texts.len() != rows.len() {
            let name = spec.inputs.first().map_or("", |input| &input.golden);
            let reason = format!("got {} golden texts, but {} rows of {name}", texts.len(), rows.len());
            return Err(bundle.invalid("manifest.json", reason));
        }
        for (text, row) in texts.iter().zip(rows) {
            let got = tokenizer.encode(text, Role::Query)?.input(spec);
            if *row != got {
                let ids =
                    |input: &Input| input.0.iter().map(|t| format!("{:?}", t.values)).collect::<Vec<_>>();
                return Err(ModelError::GoldenMismatch {
                    file: bundle.file_name(spec.text().map_or("", |text| text.tokenizer())),
                    what: "tokenizer".to_owned(),
                    reason: format!("expected {:?} for `{text}`, got {:?}", ids(row), ids(&got)),
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
                let spec = &specs[tower];
                // NaN must fail, so the comparison tests for passing.
                let passes = worst_one_minus_cosine <= self.allowed;
                if !passes {
                    let file = self.files[tower].clone();
                    return Err(ModelError::golden(
                        file,
                        &spec.name,
                        &space,
                        worst_one_minus_cosine,
                        self.allowed,
                    ));
                }
                let vectors = self.towers[tower].inputs.len();
                let (tower, name) = (spec.modality, spec.name.clone());
                results.push(GoldenResult { tower, name, space, vectors, worst_one_minus_cosine });
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
        for inputs in inputs.chunk_by(|a, b| a.same_shape(b)).flat_map(|alike| alike.chunks(batch)) {
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
    let mut golden = GoldenTower { inputs: Vec::new(), outputs: BTreeMap::new() };
    let numbered = |name: &str, k: usize| format!("{name}.{k}");
    let first = spec.inputs.first().map_or("", |input| &input.golden);
    // Inputs of different length are stored one by one.
    if spec.inputs.iter().any(|input| input.row.contains(&None)) && tensors.tensor(first).is_err() {
        let sets = (0..).take_while(|k| tensors.tensor(&numbered(first, *k)).is_ok()).count();
        for k in 0..sets {
            read_set(tensors, spec, |name| numbered(name, k), &mut golden)?;
        }
    } else {
        read_set(tensors, spec, str::to_owned, &mut golden)?;
    }
    if golden.inputs.len() < 2 {
        return Err(format!("expected two or more rows of `{first}`, got {}", golden.inputs.len()));
    }
    Ok(golden)
}

/// Reads the rows of one shape; `named` makes the names in the file of those in the contract.
fn read_set(
    tensors: &SafeTensors<'_>,
    spec: &TowerSpec,
    named: impl Fn(&str) -> String,
    golden: &mut GoldenTower,
) -> Result<(), String> {
    let mut rows: Vec<Input> = Vec::new();
    for input in &spec.inputs {
        let found = read_input(tensors, input, &named(&input.golden))?;
        if rows.is_empty() {
            rows.resize_with(found.len(), || Input(Vec::new()));
        }
        if rows.len() != found.len() {
            let name = named(&input.golden);
            return Err(format!("expected {} rows of `{name}`, got {}", rows.len(), found.len()));
        }
        rows.iter_mut().zip(found).for_each(|(row, tensor)| row.0.push(tensor));
    }
    let count = rows.len();
    for (space, dim) in spec.spaces() {
        let name = named(&format!("{}.{space}", spec.name));
        let tensor = tensors.tensor(&name).map_err(|_| format!("tensor `{name}` is missing"))?;
        let values = (tensor.shape() == [count, dim])
            .then(|| values(&tensor, StoredType::F32, f32::from_le_bytes))
            .flatten()
            .ok_or_else(|| format!("expected `{name}` to be f32 [{count}, {dim}]"))?;
        let vectors = values.chunks_exact(dim).map(<[f32]>::to_vec);
        golden.outputs.entry(space.clone()).or_default().extend(vectors);
    }
    golden.inputs.extend(rows);
    Ok(())
}

/// One input's rows.
fn read_input(tensors: &SafeTensors<'_>, input: &InputSpec, name: &str) -> Result<Vec<Tensor>, String> {
    let stored = tensors.tensor(name).map_err(|_| format!("tensor `{name}` is missing"))?;
    let row = stored.shape().get(1..).unwrap_or_default();
    let fits = row.len() == input.row.len()
        && row.iter().zip(&input.row).all(|(got, want)| want.is_none_or(|want| want == *got) && *got > 0);
    if stored.shape().is_empty() || !fits {
        return Err(format!(
            "expected `{name}` of shape [2 or more, {:?}], got {:?}",
            input.row,
            stored.shape()
        ));
    }
    let len = row.iter().product::<usize>().max(1);
    let tensor = |values: Values| Tensor { values, row: row.into() };
    let rows: Option<Vec<Tensor>> = match input.dtype() {
        Dtype::U8 => values::<u8, 1>(&stored, StoredType::U8, |b| b[0])
            .map(|v| v.chunks_exact(len).map(|row| tensor(Values::U8(row.into()))).collect()),
        Dtype::F32 => values(&stored, StoredType::F32, f32::from_le_bytes)
            .map(|v| v.chunks_exact(len).map(|row| tensor(Values::F32(row.into()))).collect()),
        Dtype::I64 => values(&stored, StoredType::I64, i64::from_le_bytes)
            .map(|v| v.chunks_exact(len).map(|row| tensor(Values::I64(row.into()))).collect()),
    };
    rows.ok_or_else(|| format!("expected `{name}` of type {:?}, got {:?}", input.dtype(), stored.dtype()))
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
