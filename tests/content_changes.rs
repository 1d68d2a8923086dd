//! Files indexed by path that change in place: the server notices before it sends a byte or returns a hit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{File, FileTimes};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::{Options, Server, error_of, eventually, ok_json, tone};
use serde_json::{Value, json};

/// A film of one second and one colour, padded to a size that all have.
fn film(colour: &str) -> Vec<u8> {
    let picture = format!("color=c={colour}:size=96x72:rate=10:duration=4");
    let made = common::media(
        &format!("{colour}.mp4"),
        &["-f", "lavfi", "-i", &picture, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"],
    );
    let mut bytes = std::fs::read(made).unwrap();
    let pad = u32::try_from(16_384 - bytes.len()).unwrap();
    bytes.extend(pad.to_be_bytes());
    bytes.extend(*b"free");
    bytes.resize(16_384, 0);
    bytes
}

/// Writes other bytes into the same file, of the same size and with the same time of the last write.
fn rewrite(path: &Path, bytes: &[u8]) {
    let before = std::fs::metadata(path).unwrap();
    std::fs::write(path, bytes).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    let after = std::fs::metadata(path).unwrap();
    assert_eq!((before.len(), before.mtime_nsec()), (after.len(), after.mtime_nsec()));
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("films");
    std::fs::create_dir(&root).unwrap();
    (dir, root)
}

fn index(server: &Server, root: &Path) -> Vec<Value> {
    let job = ok_json(server.post("/v1/jobs", &json!({"type": "index", "path": root})));
    let job = server.finished_job(job["id"].as_str().unwrap());
    assert_eq!(job["state"], "done", "{job}");
    let items = server.items(job["id"].as_str().unwrap());
    items
        .iter()
        .map(|item| server.get_json(&format!("/v1/assets/{}", item["asset_id"].as_str().unwrap())))
        .collect()
}

fn hits(server: &Server) -> Vec<(Value, Value)> {
    let found = server.search(&json!({"query": {"text": "a red circle"}, "group_by": "asset"}));
    found.into_iter().map(|hit| (hit["asset_id"].clone(), hit["damage"].clone())).collect()
}

fn url(asset: &Value, rest: &str) -> String {
    format!("/v1/assets/{}{rest}", asset["id"].as_str().unwrap())
}

#[test]
fn a_file_that_changed_in_place_is_not_given_out_and_is_indexed_anew() {
    let (_dir, root) = folder();
    let (a, b) = (root.join("a.mp4"), root.join("b.mp4"));
    std::fs::write(&a, film("red")).unwrap();
    std::fs::write(&b, film("blue")).unwrap();
    let server = Server::start(Options::default().root(&root));
    let before = index(&server, &root);
    let old = &before[0];
    let fresh = |asset: &Value| (asset["id"].clone(), Value::Null);
    // Files are indexed side by side, so ids may come in either order.
    let (mut found, mut all) = (hits(&server), vec![fresh(old), fresh(&before[1])]);
    found.sort_by_key(|(id, _)| id.to_string());
    all.sort_by_key(|(id, _)| id.to_string());
    assert_eq!(found, all);
    let whole = server.get(&url(old, "/content"));
    let etag = whole.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(whole.bytes().unwrap().as_ref(), film("red"));
    let shown = server.get(&url(old, "/thumbnail"));
    assert_eq!(
        (shown.status().as_u16(), &shown.headers()["cache-control"]),
        (200, &"private, no-cache".parse().unwrap())
    );
    let picture_tag = shown.headers()["etag"].to_str().unwrap().to_owned();
    let again = |path: &str, tag: &str| {
        server.request("GET", &url(old, path)).header("if-none-match", tag).send().unwrap()
    };
    assert_eq!(again("/content", &etag).status(), 304);
    assert_eq!(again("/thumbnail", &picture_tag).status(), 304);

    // Touched, and rewritten with the same bytes: still the same file.
    std::fs::write(&a, film("red")).unwrap();
    assert_eq!(server.get(&url(old, "/content")).status(), 200);
    assert!(hits(&server).iter().all(|(_, damage)| damage.is_null()));

    rewrite(&a, &film("green"));
    let damaged = hits(&server).into_iter().find(|(id, _)| *id == old["id"]).unwrap();
    assert_eq!(damaged.1, "changed");
    for path in ["/content", "/thumbnail"] {
        assert_eq!(error_of(server.get(&url(old, path))), (410, "content_damaged".to_owned()), "{path}");
    }
    for (path, tag) in [("/content", &etag), ("/thumbnail", &picture_tag)] {
        assert_eq!(again(path, tag).status(), 410, "{path}: what was kept of it is old");
    }
    assert_eq!(server.get_json(&url(old, ""))["damage"], "changed");
    let listed = server.get_json("/v1/assets");
    let listed =
        listed["data"].as_array().unwrap().iter().find(|asset| asset["id"] == old["id"]).unwrap().clone();
    assert_eq!(listed["damage"], "changed");
    let content = &server.get_json("/readyz")["parts"]["content"];
    assert_eq!(content["status"], "ok", "people may change their files");

    let after = index(&server, &root);
    assert_ne!(after[0]["id"], old["id"]);
    assert_eq!((&after[0]["damage"], &after[1]["id"]), (&Value::Null, &before[1]["id"]));
    assert_eq!(server.get(&url(old, "")).status(), 404);
    let new = server.get(&url(&after[0], "/content"));
    assert_ne!(new.headers()["etag"].to_str().unwrap(), etag);
    assert_eq!(new.bytes().unwrap().as_ref(), film("green"));
    assert!(hits(&server).iter().all(|(id, damage)| *id != old["id"] && damage.is_null()));

    std::fs::remove_file(&b).unwrap();
    let gone = hits(&server).into_iter().find(|(id, _)| *id == before[1]["id"]).unwrap();
    assert_eq!(gone.1, "missing");
}

#[test]
fn an_asset_stays_while_its_bytes_lie_elsewhere() {
    let (_dir, root) = folder();
    let (a, copy) = (root.join("a.mp4"), root.join("copy.mp4"));
    std::fs::write(&a, film("red")).unwrap();
    std::fs::write(&copy, film("red")).unwrap();
    let server = Server::start(Options::default().root(&root));
    let before = index(&server, &root);
    assert_eq!(before[0]["id"], before[1]["id"]);
    rewrite(&a, &film("green"));
    // Of the folder only the file that changed is indexed.
    let after = index(&server, &a);
    assert_ne!(after[0]["id"], before[0]["id"]);
    let kept = server.get(&url(&before[0], "/content"));
    assert_eq!((kept.status().as_u16(), kept.bytes().unwrap().as_ref()), (200, film("red").as_slice()));
    // The original is put back: it is found again, and the asset of the bytes in between is deleted.
    rewrite(&a, &film("red"));
    assert_eq!(index(&server, &root)[0]["id"], before[0]["id"]);
    assert_eq!(server.get(&url(&after[0], "")).status(), 404);
}

#[test]
fn a_watch_indexes_what_was_found_to_have_changed() {
    let (dir, root) = folder();
    let a = root.join("a.mp4");
    std::fs::write(&a, film("red")).unwrap();
    std::fs::copy(tone("tone-0.wav", 4.0, 200), root.join("b.wav")).unwrap();
    let data = dir.path().join("data");
    let server = Server::start(Options::default().root(&root).data(&data));
    ok_json(server.post("/v1/watches", &json!({"path": root, "poll_secs": 1})));
    let of_name = |server: &Server, name: &str| {
        let assets = server.get_json("/v1/assets")["data"].as_array().unwrap().clone();
        assets.into_iter().find(|asset| asset["name"] == name && asset["state"] == "ready")
    };
    let old = eventually("it is indexed", || of_name(&server, "a.mp4"));
    rewrite(&a, &film("green"));
    let new = eventually("what has changed is indexed anew", || {
        of_name(&server, "a.mp4").filter(|asset| asset["id"] != old["id"] && asset["damage"].is_null())
    });
    eventually("the old one is gone", || (server.get(&url(&old, "")).status() == 404).then_some(()));
    // Also where it changed while nobody looked, and is no media any more.
    server.stop();
    rewrite(&a, &[b'x'; 16_384]);
    let server = Server::start(Options::default().root(&root).data(&data));
    assert_eq!(server.get_json(&url(&new, ""))["damage"], "changed");
    eventually("what it was is gone", || (server.get(&url(&new, "")).status() == 404).then_some(()));
    assert!(of_name(&server, "b.wav").is_some());
}
