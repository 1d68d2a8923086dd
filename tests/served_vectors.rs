//! The whole path against PyTorch: every sample file goes over HTTP through decoding, preprocessing
//! and towers, and every clip's vector is compared with the one PyTorch gave for the same file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

/// The bar: 1 - cosine of a served vector and PyTorch's, in every space.
const MAX_ONE_MINUS_COSINE: f64 = 1e-5;

#[derive(Debug, Deserialize)]
struct Goldens {
    vectors: Vec<Golden>,
}

#[derive(Debug, Deserialize)]
struct Golden {
    tensor: String,
    file: String,
    clip: usize,
    start_secs: f64,
    end_secs: f64,
    track: String,
    space: String,
}

fn samples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/small-world/samples")
}

fn one_minus_cosine(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    1.0 - dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
}

/// Served entries of one file's track in one space.
fn served(server: &common::Server, file: &str, track: &str, space: &str) -> Vec<Value> {
    let form = reqwest::blocking::multipart::Form::new()
        .text("modality", track.to_owned())
        .text("space", space.to_owned())
        .file("file", samples().join(file))
        .unwrap();
    let url = format!("{}/v1/embeddings", server.url());
    let response = reqwest::blocking::Client::new().post(url).multipart(form).send().unwrap();
    let status = response.status();
    let body: Value = response.json().unwrap();
    assert_eq!(status, 200, "{file} {track} {space}: {body}");
    body["data"].as_array().unwrap().clone()
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn served_vectors_equal_pytorch() {
    let index = std::fs::read_to_string(samples().join("goldens.json")).unwrap();
    let goldens: Goldens = serde_json::from_str(&index).unwrap();
    let bytes = std::fs::read(samples().join("goldens.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut groups: BTreeMap<(String, String, String), Vec<Golden>> = BTreeMap::new();
    for golden in goldens.vectors {
        let key = (golden.file.clone(), golden.track.clone(), golden.space.clone());
        groups.entry(key).or_default().push(golden);
    }
    assert!(groups.len() >= 40, "only {} groups: the sample goldens are incomplete", groups.len());

    let server = common::Server::start(common::Options::default());
    let (mut worst, mut compared) = (0.0_f64, 0);
    for ((file, track, space), wanted) in groups {
        let entries = served(&server, &file, &track, &space);
        assert_eq!(entries.len(), wanted.len(), "{file} {track}: number of clips");
        for golden in wanted {
            let entry = &entries[golden.clip];
            for (name, want) in [("start_secs", golden.start_secs), ("end_secs", golden.end_secs)] {
                let got = entry[name].as_f64().unwrap();
                assert!((got - want).abs() < 0.05, "{file} clip {}: {name} {got}, want {want}", golden.clip);
            }
            let tensor = tensors.tensor(&golden.tensor).unwrap();
            let torch: Vec<f64> = tensor
                .data()
                .chunks_exact(4)
                .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
                .collect();
            let off = one_minus_cosine(&numbers(&entry["embedding"]), &torch);
            assert!(off <= MAX_ONE_MINUS_COSINE, "{}: 1 - cosine {off:.2e}", golden.tensor);
            worst = worst.max(off);
            compared += 1;
        }
    }
    println!("{compared} vectors, worst 1 - cosine {worst:.2e}");
}
