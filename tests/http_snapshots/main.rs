//! Snapshots over HTTP and from the command line: taken while the library works, restored, refused where
//! they are damaged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

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

/// Copies the files of a folder, not the folders in it.
fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
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

/// The same answers, but that this file is not there any more.
fn without_the_file(name: &str, answers: &mut Value) {
    match answers {
        Value::Array(list) => list.iter_mut().for_each(|value| without_the_file(name, value)),
        Value::Object(object) => {
            let of_it = object.get("asset_name").or(object.get("name")).is_some_and(|of| of == name);
            match object.get_mut("damage") {
                Some(damage) if of_it => *damage = json!("missing"),
                _ => object.values_mut().for_each(|value| without_the_file(name, value)),
            }
        }
        _ => {}
    }
}

#[test]
fn a_restored_library_answers_as_the_original_did() {
    let place = Place::new();
    let media = tempfile::tempdir().unwrap();
    let by_path = media.path().join("by-path.mp4");
    std::fs::copy(video("second.mp4", 6.4, 700), &by_path).unwrap();
    let server = Server::start(place.options().root(media.path()));
    let first = server.add(&video("first.mp4", 9.6, 300));
    server.add(&tone("tone.wav", 8.0, 900));
    let job = json!({"type": "index", "files": [{"path": by_path, "metadata": {"shelf": "b"}}]});
    let job = server.post_json("/v1/jobs", &job);
    server.finished_job(job["id"].as_str().unwrap());
    let rules = json!({"rules": [{"name": "old", "older_than_secs": 86_400_000}]});
    ok_json(server.request("PUT", "/v1/retention").json(&rules).send().unwrap());
    eventually("what scores mean was measured", || {
        let stats = server.get_json("/v1/stats");
        (stats["ingest_active"] == 0).then_some(())
    });
    let mut then = answers(&server);
    let taken = take(&server, &json!({}));
    assert_eq!((&taken["state"], &taken["error"]), (&json!("ready"), &Value::Null), "{taken}");
    let contents = &taken["contents"];
    assert_eq!((&contents["assets"], &contents["by_path"]), (&json!(3), &json!(1)));
    assert_eq!((&contents["media_files"], &contents["copied_files"]), (&json!(2), &json!(2)));
    assert_eq!(contents["lacking"], json!(0));

    // The original goes on; the snapshot does not.
    assert_eq!(server.delete(&format!("/v1/assets/{}", id(&first))).status(), 204);
    server.add(&video("third.mp4", 6.4, 1100));
    server.stop();
    std::fs::remove_file(&by_path).unwrap();
    without_the_file("by-path.mp4", &mut then);

    let to = place.dir.path().join("restored");
    let report = restore(&place, &id(&taken), &to);
    assert_eq!((&report["assets"], &report["media_files"]), (&json!(3), &json!(2)));
    assert_eq!((&report["missing_by_path"], &report["missing_paths"]), (&json!(1), &json!([by_path])));
    let restored = Server::start(Options::default().data(&to).root(media.path()));
    assert_eq!(answers(&restored), then);
    let content = restored.get(&format!("/v1/assets/{}/content", id(&first)));
    assert_eq!(content.bytes().unwrap(), std::fs::read(video("first.mp4", 9.6, 300)).unwrap());
    restored.stop();
    // Also after the second start: nothing was taken for an orphan.
    let restored = Server::start(Options::default().data(&to).root(media.path()));
    assert_eq!(answers(&restored), then);
    assert_eq!(restored.get(&format!("/v1/assets/{}/content", id(&first))).status(), 200);
    restored.stop();
    // And with indexes rebuilt from the store.
    std::fs::remove_dir_all(to.join("index")).unwrap();
    let restored = Server::start(Options::default().data(&to).root(media.path()));
    assert_eq!(answers(&restored), then);
    restored.stop();

    // With no other bundle than the one it was made with.
    let other = place.dir.path().join("bundle");
    let ours = common::manifest_dir().join("models/small-world");
    copy_files(&ours, &other);
    let manifest = std::fs::read_to_string(ours.join("manifest.json")).unwrap();
    let changed = manifest.replace("small procedural world", "large procedural world");
    assert_ne!(changed, manifest);
    std::fs::write(other.join("manifest.json"), changed).unwrap();
    let with_other = Command::new(env!("CARGO_BIN_EXE_triptych"))
        .args(["search", "a red circle", "--device", "cpu", "--data", to.to_str().unwrap()])
        .args(["--model", other.to_str().unwrap()])
        .env("TRIPTYCH_NATIVE_DIR", common::native_dir())
        .output()
        .unwrap();
    assert_eq!(error_code(&with_other), "other_model");

    // A link to an empty folder is that folder; one to nothing is named.
    let (real, link) = (place.dir.path().join("real"), place.dir.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    restore(&place, &id(&taken), &link);
    assert!(real.join("triptych.db").is_file() && link.is_symlink());
    std::os::unix::fs::symlink(place.dir.path().join("nowhere"), place.dir.path().join("dangling")).unwrap();
    let dangling = place.dir.path().join("dangling");
    let root = place.root();
    let refused = triptych(&[
        "snapshot",
        "restore",
        &id(&taken),
        "--data",
        dangling.to_str().unwrap(),
        "--snapshot-root",
        root.to_str().unwrap(),
    ]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains(dangling.to_str().unwrap()), "{said}");

    // Not over anything.
    let again = triptych(&[
        "snapshot",
        "restore",
        &id(&taken),
        "--data",
        to.to_str().unwrap(),
        "--snapshot-root",
        root.to_str().unwrap(),
    ]);
    assert_eq!(error_code(&again), "data_folder_not_empty");
}

#[test]
fn media_are_copied_once_and_go_with_their_last_snapshot() {
    let place = Place::new();
    let server = place.server();
    let first = server.add(&video("first.mp4", 6.4, 300));
    let one = take(&server, &json!({}));
    let second = server.add(&tone("tone.wav", 4.0, 900));
    let two = take(&server, &json!({}));
    let copied =
        |view: &Value| (view["contents"]["media_files"].clone(), view["contents"]["copied_files"].clone());
    assert_eq!(copied(&one), (json!(1), json!(1)));
    assert_eq!(copied(&two), (json!(2), json!(1)));
    assert_eq!(server.delete(&format!("/v1/assets/{}", id(&first))).status(), 204);
    let three = take(&server, &json!({}));
    assert_eq!(copied(&three), (json!(1), json!(0)));
    let listed = server.get_json("/v1/snapshots");
    let ids: Vec<&Value> = listed["data"].as_array().unwrap().iter().map(|view| &view["id"]).collect();
    assert_eq!(ids, [&three["id"], &two["id"], &one["id"]]);

    let media = |asset: &Value| {
        let sha = asset["sha256"].as_str().unwrap();
        place.root().join("media").join(&sha[..2]).join(sha)
    };
    for (gone, left) in [(&one, (true, true)), (&two, (false, true)), (&three, (false, false))] {
        assert_eq!(server.delete(&format!("/v1/snapshots/{}", id(gone))).status(), 204);
        assert_eq!((media(&first).exists(), media(&second).exists()), left);
        assert_eq!(error_of(server.get(&format!("/v1/snapshots/{}", id(gone)))).1, "not_found");
        assert_eq!(
            error_of(server.delete(&format!("/v1/snapshots/{}", id(gone)))),
            (404, "not_found".into())
        );
    }

    // What is damaged where it is kept is found when it is looked at, and brought again.
    let four = take(&server, &json!({}));
    let kept = media(&second);
    let mut bytes = std::fs::read(&kept).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&kept, &bytes).unwrap();
    let root = place.root();
    let verify = || triptych(&["snapshot", "verify", &id(&four), "--snapshot-root", root.to_str().unwrap()]);
    assert_eq!(error_code(&verify()), "snapshot_damaged");
    assert_eq!(take(&server, &json!({}))["contents"]["copied_files"], json!(0));
    assert_eq!(take(&server, &json!({"recheck": true}))["contents"]["copied_files"], json!(1));
    assert!(verify().status.success());

    // An upload that rots in the data folder is told and left out, not copied as if it were good.
    let rotten = server.add(&tone("rotten.wav", 5.0, 500));
    let sha = rotten["sha256"].as_str().unwrap();
    let folder = place.data().join("uploads").join(&sha[..2]);
    let file = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .find(|p| p.to_str().unwrap().contains(sha));
    std::fs::write(file.unwrap(), b"rotten").unwrap();
    let five = take(&server, &json!({}));
    assert_eq!((&five["state"], &five["contents"]["lacking"]), (&json!("ready"), &json!(1)));
    assert!(!media(&rotten).exists());
    server.stop();
    let to = place.dir.path().join("restored");
    assert_eq!(restore(&place, &id(&five), &to)["lacking"], json!(1));
}

#[test]
fn snapshots_are_off_without_a_place_and_one_at_a_time_with_one() {
    let server = Server::start(Options::default());
    for response in [
        server.post("/v1/snapshots", &json!({})),
        server.get("/v1/snapshots"),
        server.get("/v1/snapshots/snp_00000000000000000000000000000001"),
        server.delete("/v1/snapshots/snp_00000000000000000000000000000001"),
    ] {
        assert_eq!(error_of(response), (409, "snapshots_off".into()));
    }
    server.stop();
    let place = Place::new();
    let server = place.server();
    assert_eq!(server.get_json("/v1/snapshots")["data"], json!([]));
    assert_eq!(error_of(server.get("/v1/snapshots/nonsense")), (400, "invalid_value".into()));
    assert_eq!(error_of(server.post("/v1/snapshots", &json!({"to": "/etc"}))), (400, "unknown_field".into()));
    // Somebody else works in the same place.
    std::fs::create_dir_all(place.root()).unwrap();
    let lock = std::fs::File::create(place.root().join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(error_of(server.post("/v1/snapshots", &json!({}))), (409, "snapshots_locked".into()));
    drop(lock);
    assert_eq!(take(&server, &json!({}))["state"], json!("ready"));
    // A server has the folder open.
    let (data, root) = (place.data(), place.root());
    let create = || {
        triptych(&[
            "snapshot",
            "create",
            "--json",
            "--data",
            data.to_str().unwrap(),
            "--snapshot-root",
            root.to_str().unwrap(),
        ])
    };
    assert_eq!(error_code(&create()), "data_folder_locked");
    server.stop();
    let view = stdout_json(&create());
    assert_eq!(view["state"], json!("ready"));
    let list =
        stdout_json(&triptych(&["snapshot", "list", "--json", "--snapshot-root", root.to_str().unwrap()]));
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    let folder = root.join("snapshots").join(id(&view));
    assert!(triptych(&["snapshot", "verify", folder.to_str().unwrap()]).status.success());
    assert!(triptych(&["snapshot", "delete", folder.to_str().unwrap()]).status.success());
    assert_eq!(place.snapshots_on_disk(), 1);
    let none = place.dir.path().join("none");
    let args =
        ["snapshot", "create", "--data", none.to_str().unwrap(), "--snapshot-root", root.to_str().unwrap()];
    assert_eq!(error_code(&triptych(&args)), "no_library");
    assert!(!none.exists());
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn snapshots_are_not_kept_in_the_data_folder() {
    let place = Place::new();
    let (data, within) = (place.data(), place.data().join("backup"));
    let (data, within) = (data.to_str().unwrap(), within.to_str().unwrap());
    let model = common::manifest_dir().join("models/small-world");
    let output = Command::new(env!("CARGO_BIN_EXE_triptych"))
        .args(["serve", "--listen", "127.0.0.1:0", "--device", "cpu", "--model", model.to_str().unwrap()])
        .args(["--data", data, "--snapshot-root", within])
        .env("TRIPTYCH_NATIVE_DIR", common::native_dir())
        .output()
        .unwrap();
    assert_eq!(error_code(&output), "destination_failed");
    place.server().stop();
    let create = triptych(&["snapshot", "create", "--data", data, "--snapshot-root", within]);
    assert_eq!(error_code(&create), "destination_failed");
}

#[test]
fn a_snapshot_taken_under_steady_ingest_can_be_restored() {
    let place = Place::new();
    let server = place.server();
    server.add(&video("first.mp4", 6.4, 300));
    let stop = AtomicBool::new(false);
    let taken: Vec<Value> = std::thread::scope(|scope| {
        // Uploads come, go and come again with the same bytes the whole time.
        for worker in 0..2_u32 {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || {
                let files: Vec<_> = (0..4)
                    .map(|n| tone(&format!("w{worker}-{n}.wav"), 3.2, 400 + 100 * (4 * worker + n)))
                    .collect();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let file = &files[n % files.len()];
                    let response = server.upload_bytes(
                        "w.wav",
                        std::fs::read(file).unwrap(),
                        if n % 3 == 0 { "" } else { "?wait=true" },
                    );
                    let asset = ok_json(response);
                    server.search(&json!({"query": {"text": "a red circle"}}));
                    if n % 2 == 1 {
                        server.delete(&format!("/v1/assets/{}", id(&asset)));
                    }
                }
            });
        }
        // Also where an assertion fails: the others would go on for ever.
        let _stop = OnDrop(|| stop.store(true, Ordering::Relaxed));
        (0..10).map(|_| take(&server, &json!({}))).collect()
    });
    // Nothing that was put off stays behind.
    eventually("deleted uploads are gone", || {
        let stats = server.get_json("/v1/stats");
        let files = |folder: &Path| std::fs::read_dir(folder).map_or(0, Iterator::count);
        let folders = std::fs::read_dir(place.data().join("uploads")).unwrap();
        let kept: usize = folders.map(|folder| files(&folder.unwrap().path())).sum();
        (stats["ingest_active"] == 0 && stats["assets"] == json!(kept)).then_some(())
    });
    server.stop();
    for (n, view) in taken.iter().enumerate() {
        assert_eq!((&view["state"], &view["contents"]["lacking"]), (&json!("ready"), &json!(0)), "{view}");
        let to = place.dir.path().join(format!("restored-{n}"));
        let report = restore(&place, &id(view), &to);
        assert_eq!(report["assets"], view["contents"]["assets"]);
        assert_eq!(report["media_files"], view["contents"]["media_files"]);
        // Starting a model takes long: two are opened.
        if n % 5 == 0 {
            let restored = Server::start(Options::default().data(&to));
            eventually("everything is searchable", || {
                (restored.get_json("/v1/stats")["ingest_active"] == 0).then_some(())
            });
            let assets = restored.get_json("/v1/assets?limit=1000")["data"].as_array().unwrap().clone();
            assert_eq!(json!(assets.len()), view["contents"]["assets"]);
            for asset in &assets {
                assert_eq!(asset["state"], json!("ready"), "{asset}");
                assert_eq!(restored.get(asset["content_url"].as_str().unwrap()).status(), 200);
            }
            restored.stop();
        }
    }
}

#[test]
fn a_killed_snapshot_is_none_and_leaves_the_older_ones() {
    let place = Place::new();
    let server = place.server();
    server.add(&video("first.mp4", 6.4, 300));
    let whole = take(&server, &json!({}));
    // Enough media that the next one takes a while.
    let sound = std::fs::read(tone("long.wav", 60.0, 900)).unwrap();
    for n in 0..40_u32 {
        // Trailing bytes after the RIFF chunk make it another file.
        let bytes = [&sound[..], &n.to_le_bytes()].concat();
        server.upload_bytes(&format!("{n}.wav"), bytes, "");
    }
    let mut server = server;
    for round in 0..3 {
        let begun = ok_json(server.post("/v1/snapshots", &json!({})));
        std::thread::sleep(std::time::Duration::from_millis(5 + 25 * round));
        server.kill9();
        server = place.server();
        let listed = server.get_json("/v1/snapshots")["data"].as_array().unwrap().clone();
        for view in &listed {
            assert_eq!(view["state"], json!("ready"), "{view}");
            let root = place.root();
            let verified = triptych(&[
                "snapshot",
                "verify",
                view["id"].as_str().unwrap(),
                "--snapshot-root",
                root.to_str().unwrap(),
            ]);
            assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
        }
        assert!(listed.iter().any(|view| view["id"] == whole["id"]));
        let there = listed.iter().any(|view| view["id"] == begun["id"]);
        assert_eq!(
            server.get(&format!("/v1/snapshots/{}", id(&begun))).status(),
            if there { 200 } else { 404 }
        );
    }
    // The next one removes what is left of them.
    let last = take(&server, &json!({}));
    assert_eq!(last["state"], json!("ready"));
    let listed = server.get_json("/v1/snapshots")["data"].as_array().unwrap().len();
    assert_eq!(place.snapshots_on_disk(), listed);
    assert_eq!(std::fs::read_dir(place.root().join("tmp")).unwrap().count(), 0);
    server.stop();
}

fn files_beneath(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_beneath(&path, files) } else { files.push(path) }
    }
}

#[test]
fn every_damage_to_every_file_is_refused_by_its_name() {
    let place = Place::new();
    let server = place.server();
    server.add(&video("first.mp4", 6.4, 300));
    server.add(&tone("tone.wav", 4.0, 900));
    let view = take(&server, &json!({}));
    server.stop();
    let root = place.root();
    let mut files = Vec::new();
    files_beneath(&root, &mut files);
    files.retain(|path| path.file_name().unwrap() != "lock");
    let names: Vec<_> =
        files.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    for wanted in ["manifest.json", "store.db", "media.jsonl", "video-coarse.snapshot"] {
        assert!(names.iter().any(|name| name == wanted), "{wanted} is not among {names:?}");
    }
    let to = place.dir.path().join("restored");
    let attempt = || {
        let output = triptych(&[
            "snapshot",
            "restore",
            &id(&view),
            "--data",
            to.to_str().unwrap(),
            "--snapshot-root",
            root.to_str().unwrap(),
        ]);
        assert!(!to.exists(), "something was put in place");
        let left = std::fs::read_dir(place.dir.path()).unwrap().count();
        assert_eq!(left, 2, "half a library was left behind");
        output
    };
    for (path, name) in files.iter().zip(&names) {
        let good = std::fs::read(path).unwrap();
        let damages = (0..4).flat_map(|n| {
            let at = n * (good.len() - 1) / 3;
            let mut flipped = good.clone();
            flipped[at] ^= 1 << (n % 8);
            [Some(flipped), Some(good[..at].to_vec())]
        });
        let longer = [&good[..], b"x"].concat();
        for (n, damage) in damages.chain([None, Some(longer)]).enumerate() {
            match damage {
                Some(bytes) => std::fs::write(path, bytes).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
            let output = attempt();
            assert_eq!(error_code(&output), "snapshot_damaged", "{name}, damage {n}");
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(message.contains(name.as_str()), "{name}, damage {n}: {message}");
        }
        std::fs::write(path, &good).unwrap();
    }
    restore(&place, &id(&view), &to);
}

#[test]
fn the_clock_takes_snapshots_and_keeps_the_last() {
    let place = Place::new();
    let options = place.options().args(&["--snapshot-every-secs", "1", "--snapshots-kept", "2"]);
    let server = Server::start(options);
    let by_hand = take_when_free(&server);
    let ids = || -> Vec<Value> {
        let data = server.get_json("/v1/snapshots")["data"].as_array().unwrap().clone();
        data.into_iter().filter(|view| view["scheduled"] == json!(true) && view["state"] == "ready").collect()
    };
    let first = eventually("one is taken", || ids().last().cloned());
    eventually("the first is gone again", || {
        let now = ids();
        (now.len() == 2 && now.iter().all(|view| view["id"] != first["id"])).then_some(())
    });
    assert_eq!(server.get_json(&format!("/v1/snapshots/{}", id(&by_hand)))["state"], json!("ready"));
    server.stop();
}

fn take_when_free(server: &Server) -> Value {
    let location = eventually("nobody else takes one", || {
        let response = server.post("/v1/snapshots", &json!({}));
        (response.status() == 202).then(|| response.headers()["location"].to_str().unwrap().to_owned())
    });
    eventually("it is there", || {
        let now = server.get_json(&location);
        (now["state"] != "running").then_some(now)
    })
}

#[test]
fn a_bucket_keeps_snapshots_as_a_folder_does() {
    let s3 = S3::start();
    s3.put("backups/other/file", b"somebody else's".to_vec());
    let place = Place::new();
    let with_key = |options: Options| {
        options
            .args(&["--s3-endpoint", &s3.endpoint()])
            .env("AWS_ACCESS_KEY_ID", s3::KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", s3::SECRET)
    };
    let root = "s3://backups/lib";
    let options = Options::default().data(&place.data()).args(&["--snapshot-root", root]);
    let server = Server::start(with_key(options));
    // To be backed up to is not to be read from.
    let job = json!({"type": "index", "bucket": root});
    assert_eq!(error_of(server.post("/v1/jobs", &job)), (403, "buckets_disabled".into()));
    assert_eq!(server.get_json("/v1/snapshots")["data"], json!([]));
    server.add(&video("first.mp4", 6.4, 300));
    let first = take(&server, &json!({}));
    assert_eq!(first["state"], json!("ready"), "{first}");
    server.add(&tone("tone.wav", 4.0, 900));
    let second = take(&server, &json!({"recheck": true}));
    assert_eq!(
        (&second["contents"]["media_files"], &second["contents"]["copied_files"]),
        (&json!(2), &json!(1))
    );
    let then = answers(&server);
    let media = || s3.names().iter().filter(|name| name.starts_with("backups/lib/media/")).count();
    assert_eq!((media(), s3.open_parts()), (2, 0));
    assert_eq!(server.delete(&format!("/v1/snapshots/{}", id(&first))).status(), 204);
    assert_eq!(media(), 2);
    let listed = server.get_json("/v1/snapshots");
    assert_eq!(listed["data"], json!([second]));
    server.stop();
    assert_eq!(std::fs::read_dir(place.data().join("tmp")).unwrap().count(), 0, "the copy was left behind");

    let command = |arguments: &[&str]| {
        let endpoint = s3.endpoint();
        Command::new(env!("CARGO_BIN_EXE_triptych"))
            .args(arguments)
            .args(["--snapshot-root", root])
            .env("AWS_ENDPOINT_URL", endpoint)
            .env("AWS_ACCESS_KEY_ID", s3::KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", s3::SECRET)
            .output()
            .unwrap()
    };
    let to = place.dir.path().join("restored");
    let (id, to_text) = (id(&second), to.to_str().unwrap());
    assert!(command(&["snapshot", "verify", &id]).status.success());
    // Damaged there.
    for name in s3.names().iter().filter(|name| name.starts_with("backups/lib/")) {
        let good = s3.get(name).unwrap().to_vec();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 4;
        s3.put(name, bad);
        let output = command(&["snapshot", "restore", &id, "--data", to_text]);
        assert_eq!(error_code(&output), "snapshot_damaged", "{name}");
        assert!(!to.exists());
        s3.put(name, good);
    }
    let report = stdout_json(&command(&["snapshot", "restore", &id, "--json", "--data", to_text]));
    assert_eq!(report["media_files"], json!(2));
    let restored = Server::start(Options::default().data(&to));
    assert_eq!(answers(&restored), then);
    restored.stop();
    assert!(command(&["snapshot", "delete", &id]).status.success());
    assert_eq!(s3.names(), ["backups/other/file"]);
}
