//! Bundles of format version 2: several towers of a modality, graphs with several inputs, inputs of any length,
//! weights in files beside the graphs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod queries;
mod verification;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::try_join_all;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use triptych::model::{
    Bundle, Cut, Device, ModelError, Pixels, Priority, Role, Samples, SpaceVectors, Towers,
};
use triptych::native::NativeParts;
use triptych::types::{Modality, Space};

const NOW: Priority = Priority::Interactive;

fn folder(name: &str) -> PathBuf {
    common::manifest_dir().join("tests/bundles").join(name)
}

fn native() -> NativeParts {
    NativeParts::find().expect("the native parts; run `make native`")
}

fn load(dir: &Path) -> Result<Towers, ModelError> {
    Towers::load(Arc::new(Bundle::open(dir)?), &native(), Device::Cpu, 1)
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn code<T>(result: Result<T, ModelError>) -> (&'static str, String) {
    let error = result.err().expect("an error");
    (error.code(), error.to_string())
}
