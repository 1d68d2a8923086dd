//! Watched folders over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Options, Server, error_of, eventually, ok_json, tone};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder to be watched and another beside it.
fn folders() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    let (inbox, other) = (base.join("inbox"), base.join("other"));
    std::fs::create_dir_all(&inbox).unwrap();
    std::fs::create_dir_all(&other).unwrap();
    (dir, inbox, other)
}

fn sound(n: u32) -> PathBuf {
    tone(&format!("tone-{n}.wav"), 4.0, 200 + 37 * n)
}

fn drop_in(folder: &Path, name: &str, n: u32) {
    std::fs::copy(sound(n), folder.join(name)).unwrap();
}

fn watch(server: &Server, folder: &Path, more: Value) -> Value {
    let mut body = json!({"path": folder, "poll_secs": 1});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let response = server.post("/v1/watches", &body);
    assert_eq!(response.status(), 201, "{body}");
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let watch = ok_json(response);
    assert_eq!(location, format!("/v1/watches/{}", watch["id"].as_str().unwrap()));
    watch
}

fn now(server: &Server, watch: &Value) -> Value {
    server.get_json(&format!("/v1/watches/{}", watch["id"].as_str().unwrap()))
}

/// Assets that are ready, by name.
fn ready(server: &Server) -> Vec<(String, Value)> {
    let assets = server.get_json("/v1/assets?limit=1000");
    let assets = assets["data"].as_array().unwrap();
    let ready = assets.iter().filter(|asset| asset["state"] == "ready");
    let mut found: Vec<_> =
        ready.map(|asset| (asset["name"].as_str().unwrap().to_owned(), asset.clone())).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn names(server: &Server) -> Vec<String> {
    ready(server).into_iter().map(|(name, _)| name).collect()
}

fn wait_for(server: &Server, wanted: &[&str]) -> Vec<Value> {
    eventually(&format!("the assets are {wanted:?}"), || (names(server) == wanted).then_some(()));
    ready(server).into_iter().map(|(_, asset)| asset).collect()
}

/// Returns after several looks at every folder have been made: files in a folder of its own came through.
fn some_looks(server: &Server, other: &Path) {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(30);
    for _ in 0..2 {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("zz-{n}.wav");
        drop_in(other, &name, n);
        eventually("a file beside it is indexed", || names(server).contains(&name).then_some(()));
    }
}

#[test]
fn what_is_new_or_changed_is_indexed_once_it_has_stopped_growing() {
    let (dir, inbox, other) = folders();
    let root = dir.path().canonicalize().unwrap();
    drop_in(&inbox, "first.wav", 0);
    std::fs::create_dir(inbox.join("deep")).unwrap();
    drop_in(&inbox.join("deep"), "second.wav", 1);
    std::fs::write(inbox.join("notes.txt"), "no media").unwrap();
    drop_in(&inbox, "left-out.wav", 2);
    let server = Server::start(Options::default().root(&root));
    let watched = watch(&server, &inbox, json!({"metadata": {"from": "inbox"}, "exclude": ["left-*"]}));
    watch(&server, &other, json!({}));
    let assets = wait_for(&server, &["first.wav", "second.wav"]);
    assert_eq!(assets[0]["metadata"], json!({"from": "inbox"}));
    let seen = now(&server, &watched);
    assert_eq!((&seen["files"], &seen["error"], &seen["poll_secs"]), (&json!(3), &Value::Null, &json!(1)));
    let job = server.get_json(&format!("/v1/jobs/{}", seen["job_id"].as_str().unwrap()));
    assert_eq!((&job["type"], &job["path"], &job["items_done"]), (&json!("index"), &json!(inbox), &json!(2)));

    // A file that is being written is not indexed, regardless of the number of polls.
    let whole = std::fs::read(tone("growing.wav", 60.0, 900)).unwrap();
    let enough = Arc::new(AtomicBool::new(false));
    let (writer, path) = (Arc::clone(&enough), inbox.join("growing.wav"));
    let growing = std::thread::spawn(move || {
        let mut file = std::fs::File::create(path).unwrap();
        let mut parts = whole.chunks(64);
        // One part after another, and all the rest when it is enough.
        while !writer.load(Ordering::Relaxed) {
            file.write_all(parts.next().expect("it is long enough")).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        parts.for_each(|part| file.write_all(part).unwrap());
    });
    some_looks(&server, &other);
    assert!(!names(&server).contains(&"growing.wav".to_owned()));
    enough.store(true, Ordering::Relaxed);
    growing.join().unwrap();
    eventually("it is indexed whole", || {
        let found = ready(&server).into_iter().find(|(name, _)| name == "growing.wav")?;
        (found.1["duration_secs"].as_f64().unwrap() > 59.0).then_some(())
    });
    let kept = server.get_json("/v1/assets?limit=1000")["data"].as_array().unwrap().len();
    assert_eq!(kept, 5, "of the file that grew nothing else was indexed");

    // The old asset of a path is deleted when the new one is ready.
    drop_in(&inbox, "first.wav", 7);
    eventually("the changed file has replaced the old one", || {
        let found: Vec<_> = ready(&server).into_iter().filter(|(name, _)| name == "first.wav").collect();
        (found.len() == 1 && found[0].1["id"] != assets[0]["id"]).then_some(())
    });
    // Assets of missing files stay unless `delete_missing` is set.
    std::fs::remove_file(inbox.join("deep/second.wav")).unwrap();
    some_looks(&server, &other);
    some_looks(&server, &other);
    assert!(names(&server).contains(&"second.wav".to_owned()));
}

#[test]
fn gone_files_take_their_assets_along_where_that_was_asked_for() {
    let (dir, inbox, other) = folders();
    let root = dir.path().canonicalize().unwrap();
    for (name, n) in [("a.wav", 0), ("b.wav", 1), ("twin.wav", 1), ("c.wav", 2)] {
        drop_in(&inbox, name, n);
    }
    let server = Server::start(Options::default().root(&root));
    let watched = watch(&server, &inbox, json!({"delete_missing": true}));
    watch(&server, &other, json!({}));
    let before = eventually("all are indexed", || {
        let found = ready(&server);
        (found.len() == 3).then_some(found)
    });
    // Moved: found again by its bytes, not embedded again, and played from its new place.
    std::fs::create_dir(inbox.join("moved")).unwrap();
    std::fs::rename(inbox.join("a.wav"), inbox.join("moved/new.wav")).unwrap();
    // Gone; of the twins one stays, so their asset does.
    std::fs::remove_file(inbox.join("c.wav")).unwrap();
    std::fs::remove_file(inbox.join("twin.wav")).unwrap();
    eventually("the moved file has its new name, the gone one has none", || {
        let found = names(&server);
        (found.len() == 2 && found.contains(&"new.wav".to_owned())).then_some(())
    });
    some_looks(&server, &other);
    let after = ready(&server);
    let moved = &after.iter().find(|(name, _)| name == "new.wav").unwrap().1;
    assert_eq!(moved["id"], before[0].1["id"]);
    assert_eq!(server.get(moved["content_url"].as_str().unwrap()).status(), 200);
    assert_eq!(after.iter().filter(|(name, _)| name == "b.wav" || name == "twin.wav").count(), 1);

    // An empty folder counts as an unmounted disk.
    std::fs::remove_dir_all(inbox.join("moved")).unwrap();
    std::fs::remove_file(inbox.join("b.wav")).unwrap();
    let note = eventually("the watch says that the folder is empty", || {
        let found = now(&server, &watched)["error"].clone();
        found.is_object().then_some(found)
    });
    assert_eq!(note["code"], "folder_empty");
    some_looks(&server, &other);
    assert!(names(&server).contains(&"new.wav".to_owned()));
    // So does a missing folder.
    std::fs::remove_dir(&inbox).unwrap();
    eventually("the watch says that the folder is away", || {
        (now(&server, &watched)["error"]["code"] == "path_missing").then_some(())
    });
    std::fs::create_dir(&inbox).unwrap();
    drop_in(&inbox, "d.wav", 3);
    eventually("the folder is back, and what it lacks is gone", || {
        let found: Vec<String> = names(&server).into_iter().filter(|name| !name.starts_with("zz")).collect();
        (found == ["d.wav"]).then_some(())
    });
    assert_eq!(now(&server, &watched)["error"], Value::Null);
}

#[test]
fn a_watch_has_one_job_at_a_time_and_outlives_a_kill() {
    let (dir, inbox, other) = folders();
    let root = dir.path().canonicalize().unwrap();
    let data = dir.path().join("data");
    for n in 0..20 {
        drop_in(&inbox, &format!("{n:02}.wav"), n);
    }
    let options = || Options::default().root(&root).data(&data).args(&["--ingest-workers", "1"]);
    let server = Server::start(options());
    let watched = watch(&server, &inbox, json!({}));
    let job = eventually("it has a job", || now(&server, &watched)["job_id"].as_str().map(str::to_owned));
    let paused = ok_json(server.post(&format!("/v1/jobs/{job}/pause"), &json!({})));
    assert_eq!(paused["state"], "paused", "the job was too quick for this test");
    drop_in(&inbox, "late.wav", 20);
    watch(&server, &other, json!({}));
    some_looks(&server, &other);
    assert_eq!(now(&server, &watched)["job_id"], json!(job));
    server.kill9();

    let server = Server::start(options());
    assert_eq!(now(&server, &watched)["job_id"], json!(job));
    ok_json(server.post(&format!("/v1/jobs/{job}/resume"), &json!({})));
    eventually("all files are indexed", || names(&server).contains(&"late.wav".to_owned()).then_some(()));
    assert_eq!(ready(&server).len(), 23);
    let next = now(&server, &watched)["job_id"].as_str().unwrap().to_owned();
    assert_ne!(next, job);
    assert_eq!(server.items(&next).len(), 1);
    // Ended, the watch leaves everything as it is.
    let url = format!("/v1/watches/{}", watched["id"].as_str().unwrap());
    assert_eq!(server.delete(&url).status(), 204);
    assert_eq!(error_of(server.get(&url)), (404, "not_found".to_owned()));
    drop_in(&inbox, "unseen.wav", 21);
    some_looks(&server, &other);
    assert!(!names(&server).contains(&"unseen.wav".to_owned()));
    assert_eq!(server.get_json("/v1/watches")["data"].as_array().unwrap().len(), 1);
}

#[test]
fn a_flag_watches_a_folder_and_bad_watches_are_refused() {
    let (dir, inbox, other) = folders();
    let data = dir.path().join("data");
    drop_in(&inbox, "a.wav", 0);
    let options = || Options::default().data(&data).root(&other).args(&["--watch", inbox.to_str().unwrap()]);
    drop(Server::start(options()));
    let server = Server::start(options());
    let watches = server.get_json("/v1/watches");
    assert_eq!(watches["data"].as_array().unwrap().len(), 1);
    assert_eq!(watches["data"][0]["path"], json!(inbox));

    std::fs::write(other.join("file.wav"), "x").unwrap();
    for (body, status, code) in [
        (json!({"path": "/etc"}), 403, "path_not_allowed"),
        (json!({"path": other.join("none")}), 404, "path_missing"),
        (json!({"path": other.join("file.wav")}), 400, "path_kind"),
        (json!({"path": inbox.join("../inbox")}), 409, "watch_exists"),
        (json!({"path": other, "poll_secs": 0}), 400, "invalid_value"),
        (json!({"path": other, "include": ["["]}), 400, "invalid_value"),
        (json!({"path": other, "metadata": 1}), 400, "invalid_value"),
        (json!({"path": other, "every": 1}), 400, "unknown_field"),
        (json!({}), 400, "missing_field"),
    ] {
        assert_eq!(error_of(server.post("/v1/watches", &body)), (status, code.to_owned()), "{body}");
    }
    for url in ["/v1/watches/wch_00000000000000000000000000000000", "/v1/watches/x"] {
        assert!(server.get(url).status().is_client_error() && server.delete(url).status().is_client_error());
    }
}
