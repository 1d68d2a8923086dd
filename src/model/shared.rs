//! Weights that several graphs name, in memory once: ONNX Runtime takes them from the caller, and what it packs
//! for its kernels is kept in one place for all sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use ort::value::{DynValue, Tensor};

use super::onnx::{self, External};
use super::runtime::Graph;

/// Smaller tensors are not worth it.
const LEAST_BYTES: usize = 64 << 10;

/// Where the values of a tensor lie.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stored {
    file: String,
    /// Where they begin in the file, in bytes.
    offset: usize,
    /// How long they are, in bytes.
    length: usize,
}

/// The tensors outside each graph, by place. `location` is a file's name in the graph.
pub(super) fn places(graph: &[u8], named: &BTreeMap<String, String>) -> BTreeMap<Stored, External> {
    // What cannot be read was refused before, or is left to ONNX Runtime.
    let tensors = onnx::external_tensors(graph).unwrap_or_default();
    let place = |tensor: External| {
        let file = named.get(&tensor.location)?.clone();
        Some((Stored { file, offset: tensor.offset, length: tensor.length }, tensor))
    };
    tensors.into_iter().filter(|tensor| tensor.length >= LEAST_BYTES).filter_map(place).collect()
}

/// Bytes of the tensors that two or more of these graphs name, and of those in each graph.
pub(super) fn shared_bytes(graphs: &[BTreeMap<Stored, External>]) -> (u64, Vec<u64>) {
    let users = users(graphs);
    let is_shared = |place: &&Stored| users.get(place).is_some_and(|users| *users > 1);
    let bytes = |places: &mut dyn Iterator<Item = &Stored>| places.map(|place| place.length as u64).sum();
    let all = bytes(&mut users.keys().copied().filter(is_shared));
    let own = graphs.iter().map(|graph| bytes(&mut graph.keys().filter(is_shared)));
    (all, own.collect())
}

fn users(graphs: &[BTreeMap<Stored, External>]) -> BTreeMap<&Stored, usize> {
    let mut users: BTreeMap<&Stored, usize> = BTreeMap::new();
    for place in graphs.iter().flat_map(BTreeMap::keys) {
        *users.entry(place).or_default() += 1;
    }
    users
}

/// Hands the weights that several graphs name to all of them.
pub(super) fn share(
    graphs: &mut [Graph],
    places: &[BTreeMap<Stored, External>],
    data: &BTreeMap<String, Arc<[u8]>>,
) {
    let users = users(places);
    let mut values: BTreeMap<&Stored, Arc<DynValue>> = BTreeMap::new();
    for (graph, places) in graphs.iter_mut().zip(places) {
        for (place, tensor) in places {
            if users.get(place).is_none_or(|users| *users < 2) {
                continue;
            }
            let value = match values.get(place) {
                Some(value) => Some(Arc::clone(value)),
                None => data.get(&place.file).and_then(|data| value(tensor, data)).map(Arc::new),
            };
            if let Some(value) = value {
                values.insert(place, Arc::clone(&value));
                graph.shared.push((tensor.name.clone(), value));
            }
        }
    }
}

/// The tensor, if it has the length that its shape says and is of a type that weights have.
fn value(tensor: &External, file: &[u8]) -> Option<DynValue> {
    const F32: i64 = 1;
    let bytes = file.get(tensor.offset..tensor.offset.checked_add(tensor.length)?)?;
    let count =
        tensor.dims.iter().try_fold(1_usize, |all, dim| all.checked_mul(usize::try_from(*dim).ok()?))?;
    if tensor.dtype != F32 || count.checked_mul(4)? != bytes.len() {
        return None;
    }
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    Some(Tensor::from_array((tensor.dims.clone(), values)).ok()?.into_dyn())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn graph(places: &[(&str, usize, usize)]) -> BTreeMap<Stored, External> {
        let place = |(file, offset, length): &(&str, usize, usize)| {
            let external = External { length: *length, offset: *offset, ..External::default() };
            (Stored { file: (*file).to_owned(), offset: *offset, length: *length }, external)
        };
        places.iter().map(place).collect()
    }

    #[test]
    fn what_several_graphs_name_counts_once() {
        let graphs = [
            graph(&[("w", 0, 100), ("w", 100, 50)]),
            graph(&[("w", 0, 100), ("v", 100, 50)]),
            graph(&[("w", 0, 100), ("w", 100, 50)]),
        ];
        assert_eq!(shared_bytes(&graphs), (150, vec![150, 100, 150]));
        assert_eq!(shared_bytes(&graphs[1..2]), (0, vec![0]));
    }
}
