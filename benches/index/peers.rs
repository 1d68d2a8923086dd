//! Our graph beside other libraries: writes the vectors as `.npy` files, then answers one block of queries for each line
//! of standard input, so that the script that runs the others can take turns.

use std::collections::HashSet;
use std::io::{BufRead, BufWriter, Write};
use std::path::Path;

use cpu_time::ThreadTime;
use serde_json::json;
use triptych::codes::kernels::kernels;
use triptych::index::GraphEngine;
use triptych::types::Embedding;

use super::{K, built, data, index_of, mb, positions};

/// Prints what was built as one line of JSON, then reads lines `EF KIND`, where KIND 0 is queries near stored vectors
/// and 1 is queries moved away from them.
pub fn serve(folder: &Path, rows: usize, dim: usize) {
    let data = data(rows, dim);
    save(&folder.join("stored.npy"), &data.stored);
    for (name, queries) in ["near", "shifted"].into_iter().zip(&data.queries) {
        save(&folder.join(format!("{name}.npy")), queries);
    }
    let scan = index_of(&data.stored, GraphEngine::Own, usize::MAX);
    let truth = |queries: &[Embedding]| -> Vec<Vec<usize>> {
        queries.iter().map(|q| positions(&scan, q, None, true)).collect()
    };
    let truths = data.queries.each_ref().map(|queries| truth(queries));
    let (graph, build_cpu_secs) = built(&data.stored, GraphEngine::Own);
    let f32_mb = (rows * dim * 4) as f64 / 1e6;
    let said = json!({
        "kernels": kernels().name,
        "build_cpu_secs": build_cpu_secs,
        "mb_besides_f32": mb(&graph) - f32_mb,
        "scanned_beside": graph.scanned_beside_graph().unreachable,
        "truths": truths,
    });
    println!("{said}");
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (ef, kind) = line.trim().split_once(' ').unwrap();
        let (ef, kind): (usize, usize) = (ef.parse().unwrap(), kind.parse().unwrap());
        let begun = ThreadTime::now();
        let found: Vec<_> =
            data.queries[kind].iter().map(|q| positions(&graph, q, Some(ef), false)).collect();
        let secs = begun.elapsed().as_secs_f64();
        let is_hit = |(found, truth): (&Vec<usize>, &Vec<usize>)| {
            let truth: HashSet<_> = truth.iter().collect();
            found.iter().filter(|id| truth.contains(id)).count()
        };
        let hits: usize = found.iter().zip(&truths[kind]).map(is_hit).sum();
        let recall = hits as f64 / (found.len() * K) as f64;
        println!("{}", json!({"queries_per_cpu_sec": found.len() as f64 / secs, "recall": recall}));
    }
}

fn save(path: &Path, vectors: &[Embedding]) {
    let mut out = BufWriter::new(std::fs::File::create(path).unwrap());
    let (rows, dim) = (vectors.len(), vectors[0].dim());
    let mut head = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    // The whole header fills lines of 64 bytes.
    let padding = (10 + head.len() + 1).next_multiple_of(64) - (10 + head.len() + 1);
    head.extend(std::iter::repeat_n(' ', padding));
    head.push('\n');
    out.write_all(b"\x93NUMPY\x01\x00").unwrap();
    out.write_all(&u16::try_from(head.len()).unwrap().to_le_bytes()).unwrap();
    out.write_all(head.as_bytes()).unwrap();
    for value in vectors.iter().flat_map(Embedding::as_slice) {
        out.write_all(&value.to_le_bytes()).unwrap();
    }
    out.flush().unwrap();
}
