//! Searches over HTTP: parts and weights, filters, moments, timelines, confidence.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod queries;

use std::sync::OnceLock;

use common::{Options, Server, data_uri, error_of, eventually, manifest_dir, ok_json};
use reqwest::blocking::multipart;
use serde_json::{Value, json};

/// The films of the bundle, with their contents as metadata.
fn films() -> (&'static Server, &'static [Value]) {
    static FILMS: OnceLock<(Server, Vec<Value>)> = OnceLock::new();
    let (server, assets) = FILMS.get_or_init(|| {
        let server = Server::start(Options::default());
        let add = |film: &Value| {
            let name = film["file"].as_str().unwrap();
            let bytes = std::fs::read(samples().join(name)).unwrap();
            let shapes: Vec<&Value> =
                film["scenes"].as_array().unwrap().iter().map(|scene| &scene["shape"]).collect();
            let metadata = json!({"scenes": shapes.len(), "shapes": shapes, "shot": "2026-11-01"});
            let part = multipart::Part::bytes(bytes).file_name(name.to_owned());
            let form = multipart::Form::new().text("metadata", metadata.to_string()).part("file", part);
            ok_json(server.post_form("/v1/assets?wait=true", form))
        };
        let assets = contents().iter().map(add).collect();
        (server, assets)
    });
    (server, assets)
}

fn samples() -> std::path::PathBuf {
    manifest_dir().join("models/small-world/samples")
}

fn contents() -> Vec<Value> {
    let text = std::fs::read_to_string(samples().join("contents.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["files"].as_array().unwrap().clone()
}
