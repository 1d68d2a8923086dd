//! Snapshots over HTTP and from the command line: taken while the library works, restored, refused where
//! they are damaged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod contents;
mod taking;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use common::s3::{self, S3};
use common::{Options, Server, error_of, eventually, ok_json, tone, video};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }
    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
    fn root(&self) -> PathBuf {
        self.dir.path().join("backup")
    }
    fn options(&self) -> Options {
        Options::default().data(&self.data()).args(&["--snapshot-root", self.root().to_str().unwrap()])
    }
    fn server(&self) -> Server {
        Server::start(self.options())
    }
    fn snapshots_on_disk(&self) -> usize {
        std::fs::read_dir(self.root().join("snapshots")).map_or(0, Iterator::count)
    }
}

fn triptych(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_triptych")).args(arguments).output().unwrap()
}

fn error_code(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && !text.contains("panicked"), "{text}");
    text.split("error[").nth(1).and_then(|rest| rest.split(']').next()).unwrap_or(&text).to_owned()
}

fn stdout_json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Takes a snapshot and waits for it.
fn take(server: &Server, body: &Value) -> Value {
    let response = server.post("/v1/snapshots", body);
    let status = response.status();
    if status != 202 {
        panic!("{status}: {}", response.text().unwrap());
    }
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let begun = ok_json(response);
    assert_eq!(location, format!("/v1/snapshots/{}", begun["id"].as_str().unwrap()));
    eventually("the snapshot is there", || {
        let now = server.get_json(&location);
        (now["state"] != "running").then_some(now)
    })
}

fn id(view: &Value) -> String {
    view["id"].as_str().unwrap().to_owned()
}

fn restore(place: &Place, id: &str, to: &Path) -> Value {
    let root = place.root();
    stdout_json(&triptych(&[
        "snapshot",
        "restore",
        id,
        "--json",
        "--data",
        to.to_str().unwrap(),
        "--snapshot-root",
        root.to_str().unwrap(),
    ]))
}

/// What a library answers: every hit with its score, bit for bit, and every asset.
fn answers(server: &Server) -> Value {
    let search = |text: &str, exact: bool| {
        let mut hits = server
            .search(&json!({"query": {"text": text}, "targets": ["video", "audio"], "limit": 1000,
            "params": {"exact": exact}}));
        // Their confidence may be calibrated at any moment.
        hits.iter_mut().for_each(|hit| drop(hit.as_object_mut().unwrap().remove("confidence")));
        json!(hits)
    };
    json!([
        search("a red circle", true),
        search("a big blue square moving left", false),
        server.get_json("/v1/assets?limit=1000"),
        server.get_json("/v1/jobs"),
        server.get_json("/v1/retention")["rules"],
    ])
}
