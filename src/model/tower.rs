//! One run of a tower: copies inputs to a tensor, checks the outputs and splits them by space.

use std::borrow::Cow;
use std::sync::Arc;

use ort::session::{Session, SessionInputValue};
use ort::value::TensorRef;

use super::manifest::{Dtype, TowerSpec};
use super::{ModelError, SpaceVectors};

/// An input of a tower, without the batch dimension.
#[derive(Debug, Clone)]
pub(super) enum Input {
    U8(Arc<[u8]>),
    F32(Arc<[f32]>),
    I64(Box<[i64]>),
}

impl Input {
    fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::I64(values) => values.len(),
        }
    }

    fn dtype(&self) -> Dtype {
        match self {
            Self::U8(_) => Dtype::U8,
            Self::F32(_) => Dtype::F32,
            Self::I64(_) => Dtype::I64,
        }
    }

    /// Refuses an input that the tower must not get.
    ///
    /// # Errors
    /// [`ModelError::BadSamples`], [`ModelError::TowerFailed`] for a wrong length or element type.
    pub fn check(&self, spec: &TowerSpec) -> Result<(), ModelError> {
        if self.dtype() != spec.dtype || self.len() != spec.row_len() {
            let reason = format!(
                "expected {:?} [{}], got {:?} [{}]",
                spec.dtype,
                spec.row_len(),
                self.dtype(),
                self.len()
            );
            return Err(ModelError::tower(spec.modality, reason));
        }
        match self {
            Self::F32(samples) if !samples.iter().all(|sample| sample.is_finite()) => {
                Err(ModelError::BadSamples)
            }
            _ => Ok(()),
        }
    }
}

/// A worker's buffers for batches; a single input needs no copy.
#[derive(Default)]
pub(super) struct Scratch {
    u8: Vec<u8>,
    f32: Vec<f32>,
    i64: Vec<i64>,
}

/// The results of one run, one per input, in order.
pub(super) type RowResults = Vec<Result<SpaceVectors, ModelError>>;

/// Runs one batch of checked inputs of one tower.
///
/// # Errors
/// The message of ONNX Runtime, if the run as a whole failed.
pub(super) fn run(
    session: &mut Session,
    spec: &TowerSpec,
    inputs: &[&Input],
    scratch: &mut Scratch,
) -> Result<RowResults, ort::Error> {
    let shape: Vec<i64> =
        std::iter::once(inputs.len()).chain(spec.row.iter().copied()).map(|n| n as i64).collect();
    let tensor: SessionInputValue<'_> = match spec.dtype {
        Dtype::U8 => {
            let rows = inputs.iter().filter_map(|i| if let Input::U8(row) = i { Some(&**row) } else { None });
            TensorRef::from_array_view((shape, together(rows, &mut scratch.u8)))?.into()
        }
        Dtype::F32 => {
            let rows =
                inputs.iter().filter_map(|i| if let Input::F32(row) = i { Some(&**row) } else { None });
            TensorRef::from_array_view((shape, together(rows, &mut scratch.f32)))?.into()
        }
        Dtype::I64 => {
            let rows =
                inputs.iter().filter_map(|i| if let Input::I64(row) = i { Some(&**row) } else { None });
            TensorRef::from_array_view((shape, together(rows, &mut scratch.i64)))?.into()
        }
    };
    let outputs = session.run(vec![(Cow::from(spec.input.as_str()), tensor)])?;
    let mut rows: RowResults = inputs.iter().map(|_| Ok(SpaceVectors::new())).collect();
    for (space, name, dim) in &spec.outputs {
        let value = outputs.get(name).ok_or_else(|| ort::Error::new(format!("no output `{name}`")))?;
        let (shape, values) = value.try_extract_tensor::<f32>()?;
        if **shape != [inputs.len() as i64, *dim as i64] {
            let reason = format!("output `{name}` has the shape {shape}, expected [{}, {dim}]", inputs.len());
            return Err(ort::Error::new(reason));
        }
        for (row, values) in rows.iter_mut().zip(values.chunks_exact(*dim)) {
            if !values.iter().all(|value| value.is_finite()) {
                let reason = format!("output `{name}` holds a value that is not finite");
                *row = Err(ModelError::tower(spec.modality, reason));
            } else if let Ok(vectors) = row {
                vectors.insert(space.clone(), values.to_vec());
            }
        }
    }
    Ok(rows)
}

/// The rows as one slice: a single row without a copy, several copied one after another.
fn together<'a, T: Copy>(rows: impl Iterator<Item = &'a [T]>, scratch: &'a mut Vec<T>) -> &'a [T] {
    let mut rows = rows.peekable();
    let first = rows.next().unwrap_or(&[]);
    if rows.peek().is_none() {
        return first;
    }
    scratch.clear();
    scratch.extend_from_slice(first);
    rows.for_each(|row| scratch.extend_from_slice(row));
    scratch
}
