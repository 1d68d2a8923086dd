//! Holds the import direction of ARCHITECTURE.md: a layer may only use the layers before it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Layers from the bottom up; modules in one entry may not use each other.
const LAYERS: &[&[&str]] = &[
    &["types", "native", "telemetry", "fail_points"],
    &["outbound"],
    &["media"],
    &["preprocess"],
    &["model"],
    &["embed"],
    &["ledger", "store"],
    &["catalog"],
    &["index"],
    &["search"],
    &["jobs"],
    &["library"],
    &["access"],
    &["http", "config"],
    &["cli"],
];

/// `config` holds flags made of lower layers' types and is read by the outermost ones only.
fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// Top-level modules of the crate that a source text names.
fn used_modules(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1).map(str::to_owned).collect::<Vec<_>>())
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .filter(|name: &String| layer_of(name).is_some())
        .collect()
}

fn violations(module: &str, text: &str) -> Vec<String> {
    let Some(own) = layer_of(module) else { return Vec::new() };
    used_modules(text)
        .into_iter()
        .filter(|used| used != module)
        .filter(|used| layer_of(used).is_some_and(|layer| layer >= own))
        .collect()
}

#[test]
fn imports_go_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files {
        let relative = file.strip_prefix(&src).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let module = first.trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&file).unwrap();
        for used in violations(&module, &text) {
            wrong.push(format!("{} uses {used}", relative.display()));
        }
        seen.insert(module);
    }
    assert!(wrong.is_empty(), "imports against the direction:\n{}", wrong.join("\n"));
    for module in LAYERS.iter().copied().flatten() {
        assert!(seen.contains(*module), "layer `{module}` has no module: the list is stale");
    }
    let unlisted: Vec<_> = seen
        .iter()
        .filter(|m| layer_of(m).is_none() && !["lib", "main", "fuzz"].contains(&m.as_str()))
        .collect();
    assert!(unlisted.is_empty(), "modules without a layer: {unlisted:?}");
}

#[test]
fn the_test_sees_a_violation() {
    assert_eq!(violations("media", "use crate::http::serve;"), ["http"]);
    assert_eq!(violations("store", "let x = crate::index::X;"), ["index"]);
    assert!(violations("http", "use crate::{types::A}; use crate::library::Library;").is_empty());
    assert!(violations("media", "//! see crate::http").is_empty());
}
