//! Durable jobs over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod running;
mod starting;

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Options, Server, error_of, eventually, ok_json, picture, tone, video};
use serde_json::{Value, json};

/// A folder with this many different sounds, a video, a picture, a broken file and files that are not media.
fn folder(dir: &Path, sounds: u32) -> PathBuf {
    let root = dir.canonicalize().unwrap().join("media");
    std::fs::create_dir_all(root.join("deep/.hidden")).unwrap();
    for n in 0..sounds {
        let name = format!("tone-{n}.wav");
        std::fs::copy(tone(&name, 4.0, 200 + 37 * n), root.join(&name)).unwrap();
    }
    std::fs::copy(video("first.mp4", 6.4, 300), root.join("deep/first.mp4")).unwrap();
    std::fs::copy(picture("shown.png"), root.join("deep/shown.png")).unwrap();
    std::fs::copy(picture("shown.png"), root.join("deep/.hidden/no.png")).unwrap();
    std::fs::write(root.join("deep/broken.mp4"), "not a video").unwrap();
    std::fs::write(root.join("notes.txt"), "no media").unwrap();
    root
}

fn start(server: &Server, root: &Path) -> Value {
    let body = json!({"type": "index", "path": root.to_str().unwrap(), "metadata": {"from": "job"}});
    let response = server.post("/v1/jobs", &body);
    assert_eq!(response.status(), 202);
    ok_json(response)
}

fn id(job: &Value) -> &str {
    job["id"].as_str().unwrap()
}
