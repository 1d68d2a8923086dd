//! One run of a tower: copies inputs to tensors, checks the outputs and splits them by space.

use std::borrow::Cow;
use std::sync::Arc;

use ort::session::{Session, SessionInputValue};
use ort::value::TensorRef;

use super::{ModelError, SpaceVectors};
use crate::manifest::{Dtype, TowerSpec};

/// Values of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    U8(Arc<[u8]>),
    F32(Arc<[f32]>),
    I64(Box<[i64]>),
}

/// One tensor of an input, without the batch dimension.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    pub values: Values,
    pub row: Box<[usize]>,
}

/// An input of a tower: one tensor for each of the graph's inputs, in the order of the tower's description.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Input(pub Vec<Tensor>);

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::I64(values) => values.len(),
        }
    }

    const fn dtype(&self) -> Dtype {
        match self {
            Self::U8(_) => Dtype::U8,
            Self::F32(_) => Dtype::F32,
            Self::I64(_) => Dtype::I64,
        }
    }
}

impl Tensor {
    /// Values of the declared shape, where a dynamic length takes what there is.
    pub fn of(values: Values, declared: &[Option<usize>]) -> Self {
        let fixed: usize = declared.iter().flatten().product();
        let dynamic = values.len() / fixed.max(1);
        Self { row: declared.iter().map(|length| length.unwrap_or(dynamic)).collect(), values }
    }
}

impl Input {
    /// Whether both may go through a tower in one batch.
    pub fn same_shape(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| a.row == b.row)
    }

    /// Refuses an input that the tower must not get.
    ///
    /// # Errors
    /// [`ModelError::BadSamples`], [`ModelError::TowerFailed`] for a wrong length or element type.
    pub fn check(&self, spec: &TowerSpec) -> Result<(), ModelError> {
        if self.0.len() != spec.inputs.len() {
            let reason = format!("expected {} inputs, got {}", spec.inputs.len(), self.0.len());
            return Err(ModelError::tower(spec.modality, reason));
        }
        for (tensor, declared) in self.0.iter().zip(&spec.inputs) {
            let fits = tensor.row.len() == declared.row.len()
                && tensor
                    .row
                    .iter()
                    .zip(&declared.row)
                    .all(|(got, want)| want.is_none_or(|want| want == *got));
            let values = tensor.row.iter().product::<usize>();
            if tensor.values.dtype() != declared.dtype()
                || !fits
                || tensor.values.len() != values
                || values == 0
            {
                let reason = format!(
                    "`{}`: expected {:?} {:?}, got {:?} [{}]",
                    declared.supply.as_str(),
                    declared.dtype(),
                    declared.row,
                    tensor.values.dtype(),
                    tensor.values.len()
                );
                return Err(ModelError::tower(spec.modality, reason));
            }
            if let Values::F32(samples) = &tensor.values
                && !samples.iter().all(|sample| sample.is_finite())
            {
                return Err(ModelError::BadSamples);
            }
        }
        Ok(())
    }
}

/// A worker's buffers for batches, one for each input of a graph; a single input needs no copy.
#[derive(Default)]
pub(super) struct Scratch(Vec<Buffers>);

#[derive(Default)]
struct Buffers {
    u8: Vec<u8>,
    f32: Vec<f32>,
    i64: Vec<i64>,
}

/// The results of one run, one per input, in order.
pub(super) type RowResults = Vec<Result<SpaceVectors, ModelError>>;

/// Runs one batch of checked inputs of one tower, all of one shape.
///
/// # Errors
/// The message of ONNX Runtime, if the run as a whole failed.
pub(super) fn run(
    session: &mut Session,
    spec: &TowerSpec,
    inputs: &[&Input],
    scratch: &mut Scratch,
) -> Result<RowResults, ort::Error> {
    if scratch.0.len() < spec.inputs.len() {
        scratch.0.resize_with(spec.inputs.len(), Buffers::default);
    }
    let mut tensors: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(spec.inputs.len());
    for ((at, declared), buffers) in spec.inputs.iter().enumerate().zip(&mut scratch.0) {
        let rows: Vec<&Tensor> = inputs.iter().filter_map(|input| input.0.get(at)).collect();
        tensors.push((Cow::from(declared.name.as_str()), batch(&rows, buffers)?));
    }
    let outputs = session.run(tensors)?;
    let mut rows: RowResults = inputs.iter().map(|_| Ok(SpaceVectors::new())).collect();
    for output in &spec.outputs {
        let (name, dim) = (&output.name, output.dim);
        let value = outputs.get(name).ok_or_else(|| ort::Error::new(format!("no output `{name}`")))?;
        let (shape, values) = value.try_extract_tensor::<f32>()?;
        if **shape != [inputs.len() as i64, dim as i64] {
            let reason = format!("output `{name}` has the shape {shape}, expected [{}, {dim}]", inputs.len());
            return Err(ort::Error::new(reason));
        }
        for (row, values) in rows.iter_mut().zip(values.chunks_exact(dim)) {
            if !values.iter().all(|value| value.is_finite()) {
                let reason = format!("output `{name}` holds a value that is not finite");
                *row = Err(ModelError::tower(spec.modality, reason));
            } else if let Ok(vectors) = row {
                vectors.extend(output.spaces.iter().map(|space| (space.clone(), values.to_vec())));
            }
        }
    }
    Ok(rows)
}

/// One input of the graph for a whole batch.
fn batch<'a>(rows: &[&'a Tensor], buffers: &'a mut Buffers) -> Result<SessionInputValue<'a>, ort::Error> {
    let Some(first) = rows.first() else { return Err(ort::Error::new("a batch without inputs")) };
    let shape: Vec<i64> =
        std::iter::once(rows.len()).chain(first.row.iter().copied()).map(|n| n as i64).collect();
    Ok(match &first.values {
        Values::U8(_) => {
            let rows =
                rows.iter().filter_map(|t| if let Values::U8(v) = &t.values { Some(&**v) } else { None });
            TensorRef::from_array_view((shape, together(rows, &mut buffers.u8)))?.into()
        }
        Values::F32(_) => {
            let rows =
                rows.iter().filter_map(|t| if let Values::F32(v) = &t.values { Some(&**v) } else { None });
            TensorRef::from_array_view((shape, together(rows, &mut buffers.f32)))?.into()
        }
        Values::I64(_) => {
            let rows =
                rows.iter().filter_map(|t| if let Values::I64(v) = &t.values { Some(&**v) } else { None });
            TensorRef::from_array_view((shape, together(rows, &mut buffers.i64)))?.into()
        }
    })
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
