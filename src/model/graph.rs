//! Reads the verified graphs of a bundle with the files that hold their weights, and decides how many copies
//! of the weights there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::bundle::Bundle;
use super::onnx::External;
use super::runtime::{Graph, Packing, Place};
use super::worker::Group;
use super::{ModelError, onnx, shared};
use crate::manifest::is_inside;

/// A tower of more bytes has one session with several threads, rather than a session with a copy of the
/// weights in every worker.
const SHARED_FROM_BYTES: u64 = 256 << 20;

/// The graphs of all towers, in their order.
pub(super) fn read_graphs(bundle: &Bundle, place: Place) -> Result<Vec<Graph>, ModelError> {
    let mut read: BTreeMap<String, Arc<[u8]>> = BTreeMap::new();
    let mut graphs = Vec::new();
    for spec in &bundle.manifest.towers {
        let bytes = bundle.read(&spec.file)?;
        let mut weights = Vec::new();
        for (location, file) in weight_files(bundle, &spec.file, &bytes)? {
            let data = match read.get(&file) {
                Some(data) => Arc::clone(data),
                None => Arc::from(bundle.read(&file)?),
            };
            read.insert(file, Arc::clone(&data));
            weights.push((location, data));
        }
        graphs.push(Graph { bytes, weights, shared: Vec::new() });
    }
    if place == Place::Cpu {
        shared::share(&mut graphs, &places(bundle)?, &read);
    }
    Ok(graphs)
}

/// Where the weights outside each graph lie.
fn places(bundle: &Bundle) -> Result<Vec<BTreeMap<shared::Stored, External>>, ModelError> {
    let mut places = Vec::new();
    for spec in &bundle.manifest.towers {
        let bytes = bundle.read(&spec.file)?;
        let named = weight_files(bundle, &spec.file, &bytes)?.into_iter().collect();
        places.push(shared::places(&bytes, &named));
    }
    Ok(places)
}

/// The files that a graph takes weights from: the names in the graph, and those in the bundle.
fn weight_files(bundle: &Bundle, graph: &str, bytes: &[u8]) -> Result<Vec<(String, String)>, ModelError> {
    let locations = onnx::external_files(bytes).map_err(|reason| bundle.invalid(graph, reason))?;
    let folder = graph.rsplit_once('/').map(|(folder, _)| folder);
    let file = |location: String| {
        let name = folder.map_or_else(|| location.clone(), |folder| format!("{folder}/{location}"));
        if !is_inside(&location) {
            let reason =
                format!("it takes weights from {location:?}, which is not a plain path in its folder");
            return Err(bundle.invalid(graph, reason));
        }
        if !bundle.manifest.files.contains_key(&name) {
            let reason =
                format!("it takes weights from {name:?}, which `files` in the manifest does not list");
            return Err(bundle.invalid(graph, reason));
        }
        Ok((location, name))
    };
    locations.into_iter().map(file).collect()
}

/// Sizes of a bundle's towers in bytes.
pub(super) struct Sizes {
    /// Each graph with its weights, in the order of the towers.
    pub whole: Vec<u64>,
    /// Of these, what no other graph names.
    apart: Vec<u64>,
    /// Weights that several graphs name, each once.
    shared: u64,
}

/// Weighs the towers.
pub(super) fn sizes(bundle: &Bundle) -> Result<Sizes, ModelError> {
    let size = |file: &str| bundle.files().get(file).copied().unwrap_or(0);
    let mut sizes = Vec::new();
    for spec in &bundle.manifest.towers {
        let bytes = bundle.read(&spec.file)?;
        let files: BTreeSet<String> =
            weight_files(bundle, &spec.file, &bytes)?.into_iter().map(|(_, file)| file).collect();
        sizes.push(bytes.len() as u64 + files.iter().map(|file| size(file)).sum::<u64>());
    }
    let (shared, in_each) = shared::shared_bytes(&places(bundle)?);
    let apart = sizes.iter().zip(in_each).map(|(whole, shared)| whole.saturating_sub(shared)).collect();
    Ok(Sizes { whole: sizes, apart, shared })
}

/// Which towers share workers. On the CPU, each worker serves every tower, so that all cores work whatever the
/// mix, except for large towers, which have one session each with a thread per core. On CUDA, each tower has
/// one worker that feeds the device.
pub(super) fn groups(place: Place, sizes: &[u64], threads: usize) -> Vec<Group> {
    let alone = |tower: usize, threads: usize| Group { towers: vec![tower], workers: 1, threads };
    if let Place::Cuda(_) = place {
        return (0..sizes.len()).map(|tower| alone(tower, 1)).collect();
    }
    let is_large = |tower: &usize| sizes.get(*tower).is_some_and(|size| *size >= SHARED_FROM_BYTES);
    let (large, small): (Vec<usize>, Vec<usize>) = (0..sizes.len()).partition(is_large);
    let mut groups: Vec<Group> = large.into_iter().map(|tower| alone(tower, threads)).collect();
    if !small.is_empty() {
        groups.insert(0, Group { towers: small, workers: threads, threads: 1 });
    }
    groups
}

/// Refuses a bundle whose weights do not fit into memory, before it takes the memory of others. Returns whether
/// there is room to pack shared weights, too.
pub(super) fn check_memory(
    name: &str,
    sizes: &Sizes,
    groups: &[Group],
    available: u64,
) -> Result<Packing, ModelError> {
    let copies = |group: &Group| {
        let once: u64 = group.towers.iter().filter_map(|tower| sizes.apart.get(*tower)).sum();
        once.saturating_mul(group.workers as u64)
    };
    let copies = groups.iter().map(copies).fold(sizes.shared, u64::saturating_add);
    // While a session is created, the file's bytes are in memory beside what it makes of them.
    let largest = sizes.whole.iter().copied().max().unwrap_or(0);
    let needed = copies.saturating_add(largest);
    if needed.saturating_add(sizes.shared) <= available {
        return Ok(Packing::Once);
    }
    if needed > available {
        return Err(ModelError::TooLarge {
            name: name.to_owned(),
            needed_mib: needed.div_ceil(1 << 20),
            available_mib: available >> 20,
        });
    }
    tracing::warn!(
        model = name,
        "memory does not suffice to pack weights that towers share: they run slower"
    );
    Ok(Packing::Never)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_weights_are_in_memory_once() {
        let group = |towers: &[usize], workers, threads| Group { towers: towers.to_vec(), workers, threads };
        let sizes = [1 << 20, SHARED_FROM_BYTES, 5 << 20];
        assert_eq!(groups(Place::Cpu, &sizes, 4), [group(&[0, 2], 4, 1), group(&[1], 1, 4)]);
        assert_eq!(groups(Place::Cpu, &sizes[..1], 2), [group(&[0], 2, 1)]);
        assert_eq!(groups(Place::Cpu, &sizes[1..2], 2), [group(&[0], 1, 2)]);
        assert_eq!(groups(Place::Cuda(0), &sizes[..2], 4), [group(&[0], 1, 1), group(&[1], 1, 1)]);
    }

    #[test]
    fn a_model_that_does_not_fit_is_refused_with_both_numbers() {
        let whole = vec![100 << 20, 3000 << 20];
        let groups = groups(Place::Cpu, &whole, 2);
        let sizes = Sizes { apart: whole.clone(), whole, shared: 0 };
        // Two copies of the small tower, one of the large one, and its bytes while it is loaded.
        assert!(check_memory("m", &sizes, &groups, 6200 << 20).is_ok());
        let error = check_memory("m", &sizes, &groups, (6200 << 20) - 1).unwrap_err();
        assert_eq!(error.code(), "model_too_large");
        let message = error.to_string();
        assert!(message.contains("6200 MiB") && message.contains("6199 MiB"), "{message}");
    }

    #[test]
    fn shared_weights_count_once_and_are_packed_if_there_is_room() {
        let whole = vec![1000 << 20; 4];
        let groups = groups(Place::Cpu, &whole, 2);
        let sizes = Sizes { apart: vec![0; 4], whole, shared: 1000 << 20 };
        // Once as they are, once packed, and the bytes of a file while it is loaded.
        let fits = |mib: u64| check_memory("m", &sizes, &groups, mib << 20).ok();
        assert_eq!(fits(3000), Some(Packing::Once));
        assert_eq!((fits(2999), fits(2000), fits(1999)), (Some(Packing::Never), Some(Packing::Never), None));
    }
}
